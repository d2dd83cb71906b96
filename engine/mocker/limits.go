package mocker

import "time"

// The limits of this package, and what happens at each.
const (
	// MaxRanks is the largest Config.Ranks; a Config with more is refused.
	MaxRanks = 64
	// MaxTopLogprobs is the largest number of alternatives beside an id's
	// log-probability; a request for more is refused.
	MaxTopLogprobs = 20
	// maxFactor bounds the factors of times; a Config with more is refused.
	maxFactor = 1e6
	// maxStep bounds the time of one step; a longer one is cut to it.
	maxStep = 10 * time.Minute
	// maxSpread bounds a drawn length, as a multiple of the mean.
	maxSpread = 16
	// maxLease bounds how long KV is kept for others, and maxTransfer the time KV takes
	// to come to a request alone; a longer one is cut to it.
	maxLease, maxTransfer = time.Hour, 10 * time.Minute
	// maxKVBytesPerToken bounds the size of a token's KV; a Config with more is
	// refused, and a handover that says more is taken for this.
	maxKVBytesPerToken = 1 << 30
	// catchUp is how far a rank may lag behind its model and still make up for it by
	// shorter waits; what exceeds it is lost and counted (Engine.Late).
	catchUp = 100 * time.Millisecond
)
