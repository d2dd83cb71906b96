// Package kvindex answers, for a sequence of block hashes, which workers hold how many
// of its leading blocks in their KV caches, by tier. Package router feeds it with the
// workers' events and asks it for every request; simulators use it as the router does.
//
// Structure. Blocks are kept in runs: stretches of a chain of up to 64 blocks, with a
// mask of 64 bits for each holder that says which of them it has. Hashes are chained,
// so a block has one predecessor wherever it occurs, and is in one run at one place,
// behind that predecessor or at the run's head. A lookup therefore needs the heads
// only: it finds the run of the sequence's first block, sees by comparing hashes how
// far run and sequence agree, reads each holder's leading ones off its mask, and goes
// on with the run whose head is the sequence's next block. When there is none, nobody
// holds that block, and all is said. Nothing is assumed of what lies between two
// compared blocks but that hashes chain: a middle block that is removed and stored
// again is a bit that goes and comes.
//
// Only the writer needs to find any block by its hash, to remove it or to continue
// behind it, and rarely: the next block is mostly beside the last one, or where a store
// ended. A new block needs no look into its table, since a block is a run's head unless
// it is just behind its predecessor. So the table is made for being told of blocks: it
// has thousands of short lists of words, eight bytes a block and no hashes, to which new
// ones are appended and of which one is read to find a block. It is told nothing of
// blocks that go. When runs are gone, lists are rid of their words one by one, and then
// the runs' numbers are used again.
//
// The other design weighed was a flat table from hash to an interned set of holders,
// walked by galloping. It needs the hash in the table, touches a cache line at random
// for each block a lookup looks at instead of one for each run, must be published to
// lookups block by block, and its galloping has to be corrected where a middle block
// is missing; sets change with each block where masks change with each event. A tree
// of runs with links to children would save the heads' table, but splits runs where
// chains part, and a child that comes before its parent has no place in it.
//
// What a source holds in a tier is a lane, which has one life: Detach and Clear end
// lanes, in constant time, and lookups skip a lane that has ended. Runs are rid of it
// afterwards, some with every write (Sweep does more), and its number is used again
// when none knows it. Expectations (Expect) are lanes too, one for each time at which
// they end.
//
// Laws:
//   - Find says of a source whose blocks do not change meanwhile exactly what it
//     holds, whatever is written beside it. It takes no lock and waits for nobody.
//   - Memory stays within Config.MaxBytes. What finds no room displaces runs that few
//     hold and that were not stored to for long; displaced and dropped blocks are
//     counted, and make their sources approximate.
//   - A block costs some 22 bytes with one holder and 4 for each of eight; when all
//     sources are gone and swept, nothing is left.
//   - Events may come twice, a child before its parent, removals for what is unknown.
//     Two that tell of different predecessors of one block (hashes that collide, or a
//     source in error) are noticed when that block is asked for; they are counted, and
//     the one that came later is given up, which makes its sources approximate.
//   - Digest depends on what a source holds, not on how that came to be.
//
// The package is pure: time comes in as an argument, and nothing waits.
package kvindex
