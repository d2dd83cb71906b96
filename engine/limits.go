package engine

import "time"

// The limits of this package, and what happens at each.
const (
	// MaxChoices is the largest N Expand accepts, as in OpenAI's API; more is
	// invalid.
	MaxChoices = 128
	// retryMin and retryMax bound the RetryAfter hint of a full queue.
	retryMin, retryMax = time.Second, time.Minute
	// MaxGuidedBytes bounds what a request restricts its answer by (dynamo.Guided);
	// more is invalid. It travels once for each choice of each prompt.
	MaxGuidedBytes = 64 << 10
	// MaxHandoverBytes bounds dynamo.Request.Handover and dynamo.Chunk.Handover; more
	// is invalid.
	MaxHandoverBytes = 256 << 10
	// keepFirst bounds the ids that a Migrate makes room for before they come; the
	// room doubles as they do.
	keepFirst = 256
	// migratePause is the wait before the third attempt at a request whose first
	// two brought nothing; it doubles up to migratePauseMax.
	migratePause, migratePauseMax = 20 * time.Millisecond, time.Second
	// shownAdapters and shownName bound how many adapters, and how many bytes of a
	// name, an error shows.
	shownAdapters, shownName = 16, 200
)
