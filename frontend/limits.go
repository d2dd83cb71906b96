package frontend

import "time"

// The limits of the server that are not configurable, and what happens at each.
const (
	// maxOutboxBytes is how much of a stream may wait to be written; beyond it the
	// request's own generation pauses.
	maxOutboxBytes = 64 << 10
	// minBatchGap is the time between batches of events below which a stream gets
	// a writer of its own; a write takes some ten microseconds.
	minBatchGap = 200 * time.Microsecond
	// keptBytes bounds the buffer a stream keeps between writes; a larger one comes
	// of an event that is itself huge.
	keptBytes = 4 * maxOutboxBytes
	// bodyStep is how much memory is taken at first for a body of unknown or large
	// size; it doubles as bytes really arrive.
	bodyStep = 64 << 10
	// bodyTimeout bounds the reading of a body, headerTimeout that of the header
	// and idleTimeout the wait for the next request on a connection.
	bodyTimeout   = 2 * time.Minute
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	// maxHeaderBytes bounds a request's header; more is refused by net/http.
	maxHeaderBytes = 64 << 10
	// maxRequestID bounds an x-request-id that is taken over; a longer one is
	// replaced.
	maxRequestID = 128
	// handlersBeyond is the number of requests that may be read and decoded beside
	// those admitted and queued; more are refused before their body is read.
	handlersBeyond = 256
	// cutGrace is how long handlers have to end after a drain ran out of time.
	cutGrace = 2 * time.Second
	// retryAfter is what a client is told to wait when nobody can serve it and
	// whoever found out did not say for how long: workers come back in seconds.
	retryAfter = time.Second
	// maxKeys bounds the API keys of a file.
	maxKeys = 100_000
	// maxParallelPrompts bounds the prompts of one request that are generated at
	// once; the others wait their turn within the request.
	maxParallelPrompts = 32
	// shortening is how many bytes of text at most become one token beyond the
	// vocabulary's longest: normalizers may shorten text, hardly ever by more. It
	// only serves to refuse hopelessly long prompts without encoding them.
	shortening = 4
)
