package remote

import "time"

// The limits of this package, and what happens at each. How long a message may
// be is package rpc's to say.
const (
	// loadEvery is the least time between two loads on one stream; in between,
	// chunks go without.
	loadEvery = 50 * time.Millisecond
	// pieceBytes is the size from which a chunk is cut and goes on in the next
	// message, so that no answer meets the limit of a message and other streams
	// are not held up.
	pieceBytes = 32 << 10
	// artifactBytes is the size of a piece of a file.
	artifactBytes = 64 << 10
	// maxArtifacts is the number of files read at once, since each is held whole;
	// more requests wait.
	maxArtifacts = 4
	// maxDigestBytes and maxStatusBytes bound a digest asked for and a status
	// read; longer ones are refused.
	maxDigestBytes = 128
	maxStatusBytes = 1 << 20
	// maxKVBytes bounds what a worker says of its KV tiers; more is refused.
	maxKVBytes = 16 << 20
	// maxStringBytes bounds each name and id in a request; a longer one is
	// invalid.
	maxStringBytes = 1 << 16
)
