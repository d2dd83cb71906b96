package remoteapi

import "time"

// The limits of this package, and what happens at each.
const (
	// maxEventBytes bounds one event of a stream; a longer one fails the request.
	maxEventBytes = 1 << 20
	// maxErrorBytes bounds what is read of an error's body, and maxSaid what of it
	// reaches a client; the rest is dropped.
	maxErrorBytes, maxSaid = 64 << 10, 500
	// maxListBytes bounds the list of models; a longer one is not understood.
	maxListBytes = 4 << 20
	// maxNamed bounds the models that an error lists.
	maxNamed = 8
	// maxHeaderBytes bounds the headers of an answer; more fails the request.
	maxHeaderBytes = 64 << 10
	// maxRetryAfter bounds what a server may ask clients to wait.
	maxRetryAfter = time.Hour
	// maxDrainBytes bounds what is read after the end of an answer so that its
	// connection can be used again; more closes it.
	maxDrainBytes = 4 << 10
	// maxIdle bounds the connections kept for later requests; more are closed.
	maxIdle = 256
	// readyPause is the first wait between two attempts to reach the server; it
	// doubles up to readyPauseMax.
	readyPause, readyPauseMax = 100 * time.Millisecond, 2 * time.Second
	// maxKeptBytes bounds the memory that one answer leaves for the next; more goes.
	maxKeptBytes = 64 << 10
	// textBytes is how much of an answer's text shares one piece of memory.
	textBytes = 512
	// readBytes is what is read of a connection at once: a burst of some eighty
	// tokens.
	readBytes = 16 << 10
	// usageWait bounds the wait for the usage of an answer that is complete; then
	// it is counted here.
	usageWait = time.Second
)
