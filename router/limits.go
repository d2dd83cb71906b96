package router

import "time"

// The limits of this package, and what happens at each.
const (
	// refusedHold is how long a worker that refused for being full is passed over,
	// unless a request ends there or it reports room before.
	refusedHold = 50 * time.Millisecond
	// lostHold is how long a worker that lost a request while its connection is said
	// to be up is passed over.
	lostHold = time.Second
	// stalledDoubt is how long a worker that stalled on a request is used only when
	// no other can be, unless it reports progress before.
	stalledDoubt = 5 * time.Second
	// maxGroups is how many groups' workers are remembered; the oldest is forgotten.
	maxGroups = 4096
	// JournalSize is how many decisions a router keeps for Explain; the oldest is
	// dropped. They take some 2 MiB.
	JournalSize = 4096
	// recentDecisions is how many of them State lists.
	recentDecisions = 32
	// maxCost stands for a cost that no number says.
	maxCost = 1e12
	// maxBlockSizes is how many sizes of blocks the workers of a model may have; what
	// is held in further ones is not known.
	maxBlockSizes = 8
	// maxSources is how many ranks and block sizes a worker may tell of; what the
	// further ones hold is not known.
	maxSources = 256
	// unknownOutput is how long answers are taken to be, in tokens, before any was seen.
	unknownOutput = 128
	// assumedTokenMillis is what computing a token of a prompt is taken to cost where
	// tenants' shares of the queue are reckoned.
	assumedTokenMillis = 0.02
	// shareEvery is how often what is known of a worker's speed is passed on to those of
	// its kind of which nothing is known.
	shareEvery = time.Second
	// growthStep is by how many tokens an answer grows before the worker's load is
	// told so.
	growthStep = 64
	// silentRequests is how many requests a worker may have been sent, and silentFor
	// how long ago the first of them, before one that has told of no block is taken to
	// send no events.
	silentRequests, silentFor = 8, 10 * time.Second
	// floodRate is how many blocks a second a worker may tell of, floodBurst how many at
	// once, a snapshot of its cache for example; one that exceeds them is isolated for
	// isolateFor.
	floodRate, floodBurst = 1 << 19, 1 << 23
	isolateFor            = time.Minute
	// expireEvery is how often expectations are looked through, and up to sweepRuns runs
	// of the index cleaned of workers that have gone.
	expireEvery, sweepRuns = time.Second, 1 << 12
	// firstSketch is the size of the first sketch that a worker is asked for when the
	// index differs from its cache, in cells: it tells of some 120 blocks. The next one
	// has eight times as many, as long as the sketch is small beside all the blocks.
	firstSketch = 240
	// maxRepairs is how often a part of a cache is repaired before its digest is right
	// again; then the cache is begun anew. repairTimeout bounds one repair, during which
	// the worker's events wait; one that takes longer begins the cache anew.
	maxRepairs    = 2
	repairTimeout = 5 * time.Second
	// MaxSnapshotBytes bounds a snapshot of the indexes, and maxSnapshotLives the
	// workers' lives in it: what is beyond is not written, and a file with more not read.
	MaxSnapshotBytes, maxSnapshotLives = 1 << 30, 1 << 17
	// snapshotChunk is how much of it is written under the lock at a time, or little
	// more, and maxFrameBytes the most that a part of it may have.
	snapshotChunk, maxFrameBytes = 64 << 10, 1 << 20
	// maxLending bounds the requests that one worker lends KV for at once; further ones
	// compute.
	maxLending = 8
	// minPatience and maxPatience bound how long a worker is waited for that is asked to
	// lend, and unknownPatience is that where nobody knows what it would save. One that does
	// not answer is not asked for lendHold.
	minPatience, maxPatience = 20 * time.Millisecond, time.Second
	unknownPatience          = 250 * time.Millisecond
	lendHold                 = time.Second
	// maxFaultBytes bounds what is kept of a worker's word why it failed; the rest is
	// cut off.
	maxFaultBytes = 500
	// maxFaults is how many workers' words of that the log is told at once.
	maxFaults = 8
	// complainEvery is how often the log is told that requests find no worker.
	complainEvery = 10 * time.Second
	// retryAfter is when a request that found no worker may come again.
	retryAfter = time.Second
)
