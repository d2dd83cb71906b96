package tier

import (
	"context"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
)

// Ref names a frame in a store.
type Ref struct {
	// TierBlock names its block. Of what a store lists the Key alone must be known.
	kvbm.TierBlock
	// Slot is where it lies in a store of slots, 0 to the number of slots less one.
	// Stores that go by key ignore it, and list -1.
	Slot int32
	// Generation is that of the frame, or 0: not known.
	Generation uint64
}

// Store keeps frames, all of one length. It decides nothing: which slot a frame has,
// and when it goes, is told to it.
//
// Contract, checked by TestStores:
//   - Calls come from several goroutines at once, but never two for one slot, but for
//     Gets; and they end when ctx ends, if the medium lets them.
//   - Put keeps a frame, and returns when a Get would find it. In a store of slots it
//     replaces what was in the slot. A store that goes by key may be shared between
//     instances: then a Put of a key that is there does nothing and succeeds (an
//     object store puts conditionally, "if none match"), and no reader ever sees half
//     a frame under a key, at worst a wrong one.
//   - Get fills frame, whose length is that of all frames (an object store reads that
//     range). What is not there is KindNotFound; a frame that is shorter is
//     KindCorrupt; everything else is an error of the medium. It need not check
//     anything: its caller does.
//   - Delete forgets a frame; deleting what is not there succeeds. A store of slots
//     leaves alone a slot that has another generation by then.
//   - List yields what is there from before, each slot and each key once at most.
//     Wrong entries are harmless: frames are checked when they are read.
//   - Close is called once, when no other call is under way.
//   - Buffers are aligned to 4096 bytes, and are the caller's when the call returns.
type Store interface {
	Put(ctx context.Context, r Ref, frame []byte) error
	Get(ctx context.Context, r Ref, frame []byte) error
	Delete(ctx context.Context, r Ref) error
	List(ctx context.Context, yield func(Ref) bool) error
	Close() error
}

// Finder is a Store that is shared: what others put there can be asked for.
type Finder interface {
	// Find is the number of leading keys that are there.
	Find(ctx context.Context, keys []dynamo.ContentKey) (int, error)
}

// Parts is a Store that can read a part of a frame: of others all of it is read before the
// engine has the first layers.
type Parts interface {
	// GetPart is Get of bytes from to to-1 of a frame, which are multiples of 4096; the rest
	// of frame is left as it is.
	GetPart(ctx context.Context, r Ref, frame []byte, from, to int) error
}

// Memory is a Store whose frames lie in memory. Put and Get with a frame of its own,
// in the slot of that frame, copy nothing.
type Memory interface {
	// Frame is the memory of a slot.
	Frame(slot int32) []byte
}
