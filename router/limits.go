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
	// maxRecords is how many decisions are kept, and maxRecordCandidates how many
	// candidates in all of them; the oldest is dropped.
	maxRecords, maxRecordCandidates = 64, 16384
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
