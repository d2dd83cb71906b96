package sim

import "time"

// The limits of this package, and what happens at each.
const (
	// MaxWorkers bounds a fleet; a Config with more is refused.
	MaxWorkers = 1 << 16
	// maxAhead bounds the requests of a trace with sessions that are held before they
	// are due; later ones are read when these have become due.
	maxAhead = 1 << 14
	// maxSessions is how many sessions are remembered before those that have ended
	// are forgotten.
	maxSessions = 1 << 16
	// maxSeconds bounds the series of a Result; what comes later is not in it.
	maxSeconds = 24 * 3600
	// maxSecondSamples bounds the samples of a second's percentiles; further ones are
	// left out of those.
	maxSecondSamples = 1 << 14
	// maxDelay bounds each of a Config's delays; a longer one is refused.
	maxDelay = time.Minute
	// maxStep bounds the time of one step; a longer one is cut to it.
	maxStep = 10 * time.Minute
	// maxRefusals is after how many workers' refusals a request fails.
	maxRefusals = 8
	// prefillWait is how long a request waits for a prefill worker, if Config.Wait is not
	// less; then it goes to the others whole. As in package node.
	prefillWait = time.Second
	// lease is how long KV is kept for another worker; then it is computed again.
	lease = 5 * time.Minute
	// maxTransfer bounds the time of a transfer; a longer one is cut to it.
	maxTransfer = time.Hour
	// maxBytesPerToken bounds the KV of a token; a Group with more is refused.
	maxBytesPerToken = 1 << 30
	// expireEvery is how often expectations are ended whose time has come.
	expireEvery = time.Second
	// reuseWeight is what one request counts in a worker's share of prompt tokens found
	// in its cache.
	reuseWeight = 1.0 / 64
	// maxForeseen bounds the blocks of a trace that are told apart beforehand; when it
	// has more, all are taken for shared. They take 16 to 32 bytes each, for that time.
	maxForeseen = 1 << 23
	// maxHeld bounds the bytes of a trace that is held in memory instead of being read
	// twice, beside a quarter of what the blocks of the fleet take; heldBytes are those
	// of a request without its hashes.
	maxHeld   = 16 << 20
	heldBytes = 176
	// maxSelectiveTTL is the longest PredictTTL at which the index is spared blocks.
	maxSelectiveTTL = 30 * time.Second
	// checkEvery is, with Config.Check, after how many steps of a worker all of its
	// blocks are looked at.
	checkEvery = 64
)
