package kvbm

// The limits of this package, and what happens at each.
const (
	// MaxBlocks is the largest pool; a Config with more is refused.
	MaxBlocks = 1 << 26
	// MaxBlockSize is the largest block, in tokens; a Config with more is refused.
	MaxBlockSize = 1 << 12
	// minBuckets is the size of an empty pool's hash table; it doubles as blocks are
	// registered.
	minBuckets = 64
	// maxBucket bounds the entries of one hash bucket (a table with random hashes
	// has fewer than ten). A block that finds its bucket full is not registered,
	// so hashes crafted to collide cost their author its own reuse, and nobody
	// else time.
	maxBucket = 32
)
