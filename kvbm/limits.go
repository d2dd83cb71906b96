package kvbm

import "time"

// The limits of this package, and what happens at each.
const (
	// MaxBlocks is the largest pool; a Config with more is refused.
	MaxBlocks = 1 << 26
	// MaxBlockSize is the largest block, in tokens; a Config with more is refused.
	MaxBlockSize = 1 << 12
	// minSlots is the size of an empty pool's hash table; it doubles as blocks are
	// registered.
	minSlots = 64
	// maxProbes bounds the slots looked at for one hash (a table with random hashes
	// seldom has forty in a row that are taken). A block that would lie farther is not
	// registered, so hashes crafted to collide cost their author its own reuse, and
	// nobody else time.
	maxProbes = 128
)

// The limits of Tiers.
const (
	// maxTierSlots is the largest number of blocks in a tier; a larger budget is not
	// used.
	maxTierSlots = 1 << 26
	// MaxTierQueue is the longest TierConfig.Queue; a config with more is refused.
	MaxTierQueue = 1 << 16
	// maxTierWorkers bounds TierConfig.Workers; a config with more is refused.
	maxTierWorkers = 64
	// maxVictims bounds the blocks looked at to find one to give up; the oldest of them
	// goes if all have others behind them.
	maxVictims = 16
	// maxFailures is the number of failures in a row after which a tier is left alone,
	// for firstPause and twice as long each time, up to longestPause.
	maxFailures  = 3
	firstPause   = time.Second
	longestPause = time.Minute
	// quarantineShare is the part of a tier's slots, one in so many, that may be set
	// aside; beyond it the one set aside longest is used again.
	quarantineShare = 16
	// writeBurst is the time whose write budget may be used at once.
	writeBurst = time.Minute
	// serviceHalf is the time in which a measurement loses half its weight against what
	// was assumed; serviceWeight is the number of reads it is averaged over.
	serviceHalf   = 10 * time.Second
	serviceWeight = 8
	// minSketch and maxSketch bound the counters of uses; maxUses is where one stops.
	minSketch = 1 << 10
	maxSketch = 1 << 23
	maxUses   = 15
)
