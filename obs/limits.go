package obs

import "time"

// The limits of tracing and what happens at each of them.
const (
	// maxQueuedSpans is how many ended spans wait for the collector; more are
	// dropped.
	maxQueuedSpans = 4096
	// maxBatchSpans is how many leave in one export, spanDelay how long the first
	// of them waits for others.
	maxBatchSpans = 512
	spanDelay     = time.Second
	// exportTimeout bounds one try at an export, exportPatience all tries; then
	// the batch is dropped.
	exportTimeout  = 5 * time.Second
	exportPatience = 10 * time.Second
	// shutdownTimeout bounds the last export; what it does not reach is dropped.
	shutdownTimeout = 2 * time.Second
	// exportLogEvery is the least time between two log records of failed exports.
	exportLogEvery = time.Minute
	// maxSpanAttributes and maxAttributeBytes bound a span; the rest is dropped or
	// cut off.
	maxSpanAttributes = 64
	maxAttributeBytes = 2048
)
