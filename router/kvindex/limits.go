package kvindex

import "time"

// The limits of this package, and what happens at each.
const (
	// MinBytes and MaxBytes bound Config.MaxBytes; others are refused.
	MinBytes = 4 << 20
	MaxBytes = 1 << 37
	// MinExpectStep is the finest accuracy of expectations; finer ones are refused.
	MinExpectStep = time.Millisecond
	// MaxSources bounds the sources attached at once; Attach returns NoSource then.
	MaxSources = 1 << 17
	// maxLanes bounds the tiers of sources that hold blocks, with those that ended
	// and were not swept yet; what is stored beyond is dropped.
	maxLanes = 1 << 20
	// reuseAfter is the number of detached sources that are kept before the first of
	// them is used again, so that a handle someone still holds by mistake most likely
	// names nobody.
	reuseAfter = 64

	// maxExpectations bounds the ends at which a source's expectations may be; others
	// are moved to the next of them.
	maxExpectations = 64

	// sweepRuns and sweepBlocks bound what a write does to clean up behind sources
	// that are gone.
	sweepRuns   = 16
	sweepBlocks = 64
	// sweepLanes and sweepShare say when writes begin to: that many tiers of sources are
	// gone, or what they held is that part of what is held.
	sweepLanes = 256
	sweepShare = 16
	// maxIDLog bounds the ids of a source's tier that its table has not been told of.
	maxIDLog = 1 << 15
	// recentBlocks is the number of blocks remembered at which stores ended.
	recentBlocks = 1 << 13
	// evictSample is the number of runs from which eviction chooses one.
	evictSample = 8
	// stampShare is the part of all runs whose number of stores may pass before a run is
	// said to be in use again that is only continued elsewhere.
	stampShare = 16
	// evictTries bounds the runs evicted for the sake of one block.
	evictTries = 64
	// spareUnits is the memory kept free of held blocks when the budget is used up, in
	// units of 64 bytes, for what must wait until lookups have ended.
	spareUnits = 256

	sourceBytes = 160 // of a source's bookkeeping, about
	laneBytes   = 52  // of a lane's
)
