// Package tier keeps KV blocks outside the memory an engine computes from, and
// brings them back: in host memory, on disk, and in a remote store shared between
// instances. A Mover owns the decisions (kvbm.Tiers), the stores and the goroutines;
// engines call it through Sequences, operators through List, Verify and Evict.
//
// # The way of a block
//
// An engine offers a block when it has computed it and whenever it uses it again.
// If a tier takes it, its bytes are copied within the call, so the engine may do with
// its memory what it likes afterwards. From there it goes down by itself: host to
// disk, disk to remote, as the policies say. Before an engine computes a prompt it
// asks Plan how many of its blocks are worth bringing, and has them brought by Load
// into its own memory; what comes from below stays in host memory as well. An engine that
// computes layer by layer uses LoadLayers: the first layers of all blocks come first. Nothing
// here waits for a slow store but the goroutine that reads it: a full queue means that
// a block is not taken or not brought.
//
// # Frames
//
// What a store keeps of a block is a frame: a header that says everything about the
// block, the block's bytes, and room up to a multiple of 4096 (frame.go). The header
// is sealed by a MAC under the cluster key and has checksums of the bytes, one for each
// group of layers, so that one can be used when the rest is still to come. Frames
// are checked whenever they are read, be it to bring them to an engine or to copy them
// to another tier: every field against what is asked for, the seal, and the checksum
// over the bytes where they arrive. What fails is KindCorrupt: it counts as a miss,
// the engine computes the block, the slot is set aside, a metric and a log line tell.
//
// # Stores
//
// A Store keeps frames; it decides nothing and has no goroutine. Which slot a frame
// has is decided by kvbm.Tiers. Host, Disk, Shared and Bucket (an object store) are
// here; others implement the same interface, whose contract is at Store.
//
// # Goroutines
//
// Run starts for each tier as many readers and as many writers as its Workers says;
// they wait at bounded queues, which kvbm.Tiers keeps from overflowing, and end with
// Run. A store that hangs holds its workers and nobody else: a Load has a deadline,
// after which the engine computes by itself and the late bytes are not written.
//
// Laws:
//   - Memory given to Load is not written after Load.Cancel has returned, nor after
//     its end was told.
//   - A Load that ends well has written exactly the bytes that were offered under the
//     blocks' names.
//   - What LoadLayers has told of is there, as it was offered, whatever becomes of the rest.
//   - After Run nothing of an engine's memory is read or written, and the stores are
//     closed.
package tier
