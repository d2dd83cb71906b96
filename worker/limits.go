package worker

import "time"

// The limits of this package, and what happens at each.
const (
	// maxRequests bounds MaxRunning and MaxQueue; more is invalid.
	maxRequests = 1 << 20
	// canaryPrompt and canaryTokens are the ids of the trial generation and those
	// it asks for.
	canaryPrompt, canaryTokens = 8, 4
	// registerTimeout bounds one attempt to register, and updateTimeout the word
	// that the worker drains.
	registerTimeout, updateTimeout = 5 * time.Second, time.Second
	// retryMin and retryMax are the pauses between attempts; they double.
	retryMin, retryMax = 100 * time.Millisecond, 5 * time.Second
	// adaptersEvery is how often the engine is asked which adapters it has.
	adaptersEvery = time.Second
	// maxFaultBytes bounds what is kept of an engine's word why it lost a request; the
	// rest is cut off.
	maxFaultBytes = 500
	// refuseRetry is the RetryAfter of a request that was refused because the
	// worker is full.
	refuseRetry = time.Second
	// leaveWait is how long a drain waits for the store to forget the worker
	// before new requests are refused; a store that is gone holds nothing up.
	leaveWait = time.Second
	// takeOverWait is how long requests whose KV is kept for others may take to be taken
	// over; those that are left then go on without.
	takeOverWait = 3 * time.Second
	// handOverWait is how long requests that are handed over may take to end:
	// about a step of the engine. Then the engine and the connections are ended
	// regardless.
	handOverWait = 5 * time.Second
)
