package engine

import "time"

// The limits of this package, and what happens at each.
const (
	// MaxChoices is the largest N Expand accepts, as in OpenAI's API; more is
	// invalid.
	MaxChoices = 128
	// retryMin and retryMax bound the RetryAfter hint of a full queue.
	retryMin, retryMax = time.Second, time.Minute
)
