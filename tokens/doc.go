// Package tokens turns token sequences into block identities. It is the one
// place that hashes: the scheduler, the KV pool, the index and the event wire
// all speak of blocks by the names made here.
//
// A sequence is cut into blocks of a fixed number of tokens; only full blocks
// have an identity, of two sorts for two risks:
//
//   - dynamo.BlockHash, 64 bits, for choosing: XXH3-64 in the domain Dynamo
//     1.6.1 uses, so that traces, events and indexes compare (block.go). It is
//     not cryptographic: an equal hash is a hint, never proof of equal tokens.
//   - dynamo.ContentKey, 128 bits, for bytes that leave the process: a keyed
//     SHA-256 over everything the bytes depend on (content.go).
//
// What must never be shared enters through Root and Namespace (root.go).
//
// Laws: the package is pure; the identity of a block depends on its tokens, on
// every token before it and on the root, and on nothing else, in particular not
// on the pieces in which the sequence arrived; Chain does not allocate beyond
// the growth of its own buffers.
package tokens
