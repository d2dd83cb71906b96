// Package index measures the prefix index of package kvindex on a workload that is
// specified to the bit, so that another implementation can run the same one: of two
// programs that print equal checksums and digests, figures can be compared. `dynamo
// bench index` prints its results, and scripts/index runs it beside a peer.
//
// The workload: sequences of 64 to 512 blocks, of which the first 32 are one of a
// hundred shared beginnings, are stored on workers in events of consecutive blocks
// until two million blocks are held. Queries are the first half of such a sequence
// and as many blocks that nobody has. Removals take the parts of sequences that are
// not shared, last block first. All is drawn from a seed.
package index
