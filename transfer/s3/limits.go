package s3

import "time"

// The limits of this package, and what happens at each.
const (
	// MaxKeyBytes bounds names, with the prefix; longer ones are invalid.
	MaxKeyBytes = 1024
	// MaxAttempts bounds Config.Attempts.
	MaxAttempts = 10
	// partBytes is the size of a part, and what is put in one request; more is put in
	// parts, partLanes of them at once.
	partBytes = 16 << 20
	partLanes = 4
	// maxParts is the protocol's bound on them; a larger object is invalid.
	maxParts = 10_000
	// pageKeys is what one request lists.
	pageKeys = 1000
	// idleConns are kept for later.
	idleConns = 64

	// attemptTime bounds an attempt, with a second more for each slowestBytes.
	attemptTime  = 5 * time.Second
	slowestBytes = 4 << 20
	dialTime     = 3 * time.Second
	// bufferBytes is written to a connection at once, and read.
	bufferBytes = 64 << 10
	// pauseFirst is the pause after a first attempt that failed, at most; it doubles up
	// to pauseMost.
	pauseFirst = 50 * time.Millisecond
	pauseMost  = 2 * time.Second
	// abortTime bounds the giving up of an upload.
	abortTime = 5 * time.Second
	// breakerFailures is the number of operations that fail one after the other before
	// the store is left alone: for breakerFirst, and twice as long each time it fails
	// again, up to breakerMost.
	breakerFailures = 5
	breakerFirst    = time.Second
	breakerMost     = time.Minute
	// slowAfter is how long an operation has had to take to count as the store's
	// failure when its caller's time is over.
	slowAfter = time.Second
)
