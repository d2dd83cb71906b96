package frontend

import (
	"time"

	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/openai"
)

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
	// shownAdapters bounds the adapters that an error lists; others are left out.
	shownAdapters = 16
	// What restricts an answer is bounded as openai decodes it, within what engines
	// take.
	_ = uint(engine.MaxGuidedBytes - openai.MaxGuidedBytes)
	// maxKeys bounds the API keys of a file.
	maxKeys = 100_000
	// Of so many of the last requests it is known who may have them explained; what a
	// configuration asks for is bounded, and costs some 150 bytes each.
	defaultAsked = 1 << 14
	maxAsked     = 1 << 17
	// idDigits is the length of a request's id.
	idDigits = 32
	// maxParallelPrompts bounds the prompts of one request that are generated at
	// once; the others wait their turn within the request.
	maxParallelPrompts = 32
	// shortening is how many bytes of text at most become one token beyond the
	// vocabulary's longest: normalizers may shorten text, hardly ever by more. It
	// only serves to refuse hopelessly long prompts without encoding them.
	shortening = 4

	// What may wait for the recorder: requests, and tokens of their prompts, 32 MiB.
	// More is dropped and counted.
	maxRecordQueue  = 4096
	maxRecordTokens = 8 << 20
	// recordBuffer is written at once, or after recordFlush what there is.
	recordBuffer = 64 << 10
	recordFlush  = time.Second
	// recordComplain is how long nothing more is logged after an error of the file.
	recordComplain = time.Minute
	// maxRecordSessions bounds the sessions whose turns the recorder counts; at the
	// limit all are forgotten, and begin again at turn 0.
	maxRecordSessions = 1 << 16
	// recordKey is the strength of the recorder's hashes, in bytes.
	recordKey = 16
	// minRecordKey bounds the recorder's key from below, in bytes, minRecordRoll its
	// files, and maxRecordFiles how many of them are kept.
	minRecordKey   = 16
	minRecordRoll  = 64 << 10
	maxRecordFiles = 10_000
)
