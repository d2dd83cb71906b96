package main

import "time"

// The limits of a run; what exceeds one fails it.
const (
	maxRequests, maxParallel, maxWorkers = 100_000, 256, 32

	startTimeout   = 60 * time.Second // from the start of a process to its ready line
	requestTimeout = 2 * time.Minute
	scrapeTimeout  = 2 * time.Second
	// idleTimeout is how long KV may be kept after the last answer.
	idleTimeout = 2 * time.Second
	strandAfter = 500 * time.Millisecond
	drainTime   = 100 * time.Millisecond // --drain-timeout: what is left is handed over
	stopTimeout = 15 * time.Second
	silence     = 4 * time.Second // how long a stopped worker lives: longer than it takes to miss it
	maxBody     = 16 << 20
	maxShown    = 5 // answers that differ
)
