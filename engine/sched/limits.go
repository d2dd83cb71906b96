package sched

import "time"

// The limits of this package, and what happens at each.
const (
	// MaxPriority bounds Request.Priority on both sides; what exceeds it counts as
	// it.
	MaxPriority = 1000
	// MaxAging is the longest Config.Aging; a Config with more is refused.
	MaxAging = time.Hour
	// MaxStepTokens is the largest Config.StepTokens; a Config with more is
	// refused.
	MaxStepTokens = 1 << 20
	// retryAfter is the hint of a full queue.
	retryAfter = time.Second
	// maxLoadFailures is the number of failed loads after which a sequence computes what
	// Config.External could bring.
	maxLoadFailures = 2
	// shareTokens is the least common prefix, in tokens, for which a sequence waits
	// for another that computes it.
	shareTokens = 64
	// maxDeferred bounds the sequences passed over in one step for that reason;
	// admission ends there for the step.
	maxDeferred = 256
	// maxSpareTokens is the longest sequence whose buffers are kept for another.
	maxSpareTokens = 1 << 13
)
