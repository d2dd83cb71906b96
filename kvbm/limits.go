package kvbm

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
