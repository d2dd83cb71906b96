// Package kvbm manages the blocks that hold KV: which are free, who uses which,
// which can be found again and which is given up first. The scheduler
// (engine/sched) owns a Pool and calls it directly, so that one step decides
// both; the engine sees block ids only, as indices into the memory it keeps.
// The package holds the device tier.
//
// A block's life, and the type of the handle its user holds:
//
//	Reset      free, nobody's
//	Partial    Partial: being filled by its one owner
//	Complete   Complete: full, its content named, not yet offered to others
//	Registered Held: immutable and found by Match; held while somebody has a
//	           handle, idle afterwards: still found, and given up when needed
//	Loading    Loading: the target of a copy from elsewhere; becomes Registered,
//	           or Reset when the copy failed
//
// Each transition takes the handle of one state and returns that of the next, so
// a wrong transition does not compile; a handle used after it was given away
// panics.
//
// Matching. A match means: same hash, same block before it, same token ids (and
// the same root for a first block), compared. A hash alone never decides. Of two
// different blocks with one hash only the first is registered.
//
// With Config.HashOnly hash and parent decide: for simulations, in which blocks have no
// other content. Their hashes are chained ones, so that equal hashes have equal blocks
// before them; most blocks are then found beside the one before them, and the hash table
// has those alone that begin a sequence or leave one that was known.
//
// Duplicates. Registering what is already registered keeps the first for new
// matches; the running owner keeps its own copy, since its block table is never
// rewritten. Such a copy counts as complete, and takes the place of the first
// when that one's last holder goes, so no duplicate outlives its use and no idle
// block has one.
//
// Laws (I4, checked by Check):
//   - free + partial + complete + held + idle + loading = capacity, and a block
//     is idle exactly when it is registered and has no holder.
//   - Whoever holds a registered block holds its ancestors too (or duplicates of
//     them), and releases a chain from its end. Then an idle block has only idle
//     blocks behind it, least recently used order puts children before parents,
//     and taking the head of that order never leaves a block behind that can no
//     longer be reached.
//   - Events tell, in order and numbered without gaps, exactly what Match finds.
//
// The package is pure: no clock, no I/O, no goroutine. A Pool is not safe for
// concurrent use. Every operation on a block is O(1), and none allocates in
// steady state.
package kvbm
