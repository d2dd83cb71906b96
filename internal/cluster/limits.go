package cluster

import "time"

const (
	// leaseTTL is how long the store keeps the entry of a killed worker.
	leaseTTL = 2 * time.Second
	// patience bounds a request; with a healthy worker in the cluster one that
	// takes longer breaks I8.
	patience = 90 * time.Second
	// settle is how long a cluster may take to stop.
	settle = time.Minute
	// watchEvery is the time between two looks at the queues.
	watchEvery = 500 * time.Millisecond

	// driftMax is how long after the load has ended an index may still differ from what
	// the workers hold, and driftEvery the time between two looks at that.
	driftMax, driftEvery = 15 * time.Second, time.Second
	// lostEvents is how many events go with one fault that loses some.
	lostEvents = 2

	// The KV cache of a mocker: too small for maxRunning of the longest requests, so
	// that some are preempted.
	mockerBlocks, mockerBlockSize = 90, 4
	// sharedPrefix begins many prompts for mockers, in pieces.
	sharedPrefix = "the quick brown fox jumps over the lazy dog and then some more of it"

	// firstFront is the frontend that is never killed.
	firstFront = "front1"

	modelName  = "tiny"
	maxRunning = 6 // of a worker: small, so that refusals and queues happen
	maxQueue   = 4

	frontRunning, frontQueue = 64, 64 // of a frontend
	routerQueue              = 1024   // the router's default
)
