// Package kvbm manages the blocks that hold KV: which are free, who uses which,
// which can be found again and which is given up first. The scheduler
// (engine/sched) owns a Pool and calls it directly, so that one step decides
// both; the engine sees block ids only, as indices into the memory it keeps.
// That is the device tier, and what most of this text is about. Tiers manages what lies
// below it: host memory, disk, a remote store; package kvbm/tier drives it.
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
// # Tiers
//
// What tiers hold has outlived the memory it was computed in, and may come from another
// process: it is named by content keys, not by hashes that are compared with what is at
// hand. A block goes down a tier at a time, when the policy of the next one wants it: at
// once, when it is used for the second time, or when it is worth more (cost to compute
// it again times probability that it is used again) than the block given up for it. A
// full tier gives up ends of chains first, and keeps the front of one that is longer
// than the tier. A block comes back from the fastest tier that has it, and stays in host
// memory on the way. It is brought only where that takes less time than computing: by
// what was measured of each tier, by how much is on its way there, and by what the engine
// says a token costs. Everything that does not fit at the moment is left undone and
// counted; nothing waits.
//
// The package is pure: no clock, no I/O, no goroutine. A Pool is not safe for
// concurrent use. Every operation on a block is O(1), and none allocates in
// steady state.
package kvbm
