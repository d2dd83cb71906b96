package tier

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
)

// Folder is the folder of a disk tier, looked at from outside without changing it,
// whoever uses it.
type Folder struct {
	// Slots and FrameBytes are what it was made with.
	Slots, FrameBytes int
	// InUse says that a process has it open.
	InUse bool

	dir   string
	named []byte // says which cluster key it was made with
	slots *os.File
}

// OpenFolder reads what the folder of a disk tier says of itself.
func OpenFolder(dir string) (*Folder, error) {
	f := &Folder{dir: dir}
	slots, err := os.Open(filepath.Join(dir, "slots"))
	if err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Err: err, Message: fmt.Sprintf("%s is no folder of a disk tier", dir)}
	}
	f.slots = slots
	head := make([]byte, recordBytes)
	le := binary.LittleEndian
	_, err = io.ReadFull(io.NewSectionReader(slots, 0, recordBytes), head)
	switch {
	case err != nil:
		err = corrupt("the list of slots in %s is too short", dir)
	case string(head[:8]) != diskMagic || le.Uint64(head[recordSum:]) != xxh3.Hash(head[:recordSum]):
		err = corrupt("the list of slots in %s does not begin as it should", dir)
	case le.Uint32(head[8:]) != diskVersion:
		err = corrupt("the folder %s has version %d, not %d", dir, le.Uint32(head[8:]), diskVersion)
	}
	if err != nil {
		return nil, errors.Join(err, slots.Close())
	}
	f.FrameBytes, f.Slots, f.named = int(le.Uint32(head[12:])), int(le.Uint32(head[16:])), head[24:40]
	if lock, err := os.Open(filepath.Join(dir, "lock")); err == nil {
		f.InUse = lockFile(lock) != nil
		_ = lock.Close() // which gives the lock back
	}
	return f, nil
}

// Close ends the look.
func (f *Folder) Close() error { return f.slots.Close() }

// List yields the blocks that it has.
func (f *Folder) List(ctx context.Context, yield func(Ref) bool) error {
	info, err := f.slots.Stat()
	if err != nil {
		return fmt.Errorf("look at the list of slots: %w", err)
	}
	n := int(min(int64(f.Slots), info.Size()/recordBytes)) // of slots that were ever used
	d := Disk{config: DiskConfig{Slots: n, FrameBytes: f.FrameBytes}, slots: f.slots}
	d.mu.keys = make([]dynamo.ContentKey, n)
	return d.List(ctx, yield)
}

// Blocks returns up to limit of its blocks, and how many there are in all.
func (f *Folder) Blocks(ctx context.Context, limit int) (blocks []kvbm.TierBlock, all int, err error) {
	err = f.List(ctx, func(r Ref) bool {
		if all++; len(blocks) < limit {
			blocks = append(blocks, r.TierBlock)
		}
		return true
	})
	return blocks, all, err
}

// Verify reads and checks all blocks: that each says what its record says, that its
// seal under the cluster key holds, its checksum, and that its name is that of its
// content. Nothing is repaired; bad hears what is wrong.
func (f *Folder) Verify(ctx context.Context, clusterKey []byte, bad func(r Ref, err error)) (v Verified, err error) {
	if f.InUse {
		return v, &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("a process uses %s and may write to it; ask that one, by its worker's name", f.dir)}
	}
	own := Disk{config: DiskConfig{ClusterKey: clusterKey}}
	if !bytes.Equal(own.head()[24:40], f.named) {
		return v, invalid("%s was written under another cluster key; give the one it was written under by --cluster-key-file", f.dir)
	}
	pool, err := os.Open(filepath.Join(f.dir, "pool"))
	if err != nil {
		return v, fmt.Errorf("open the blocks of %s: %w", f.dir, err)
	}
	defer pool.Close()
	info, err := pool.Stat()
	if err != nil {
		return v, fmt.Errorf("look at the blocks of %s: %w", f.dir, err)
	}
	if f.FrameBytes < frameAlign || f.FrameBytes > align(MaxBlockBytes+maxContentBytes+frameAlign) {
		return v, corrupt("the frames of %s have %d bytes, which none have", f.dir, f.FrameBytes)
	}
	var frame []byte
	listing := f.List(ctx, func(r Ref) bool {
		v.Checked++
		var err error
		at := int64(r.Slot) * int64(f.FrameBytes)
		if left := info.Size() - at; left < int64(f.FrameBytes) {
			v.Corrupt++
			err = corrupt("the pool ends %d bytes into slot %d", max(left, 0), r.Slot)
		} else {
			if frame == nil {
				frame = Buffer(f.FrameBytes)
			}
			if _, err = pool.ReadAt(frame, at); err != nil {
				v.Unread++
			} else if err = checkFrame(frame, clusterKey, &r); err != nil {
				v.Corrupt++
			}
		}
		if err != nil {
			bad(r, err)
		}
		return ctx.Err() == nil
	})
	return v, errors.Join(listing, context.Cause(ctx))
}

// checkFrame checks a frame of a geometry that only it knows.
func checkFrame(frame, clusterKey []byte, r *Ref) error {
	le := binary.LittleEndian
	g := Geometry{BlockBytes: int(le.Uint32(frame[16:])), BlockTokens: int(le.Uint32(frame[80:]))}
	if g.BlockBytes < 1 || g.BlockBytes > MaxBlockBytes || g.BlockTokens < 1 || g.BlockTokens > kvbm.MaxBlockSize || g.FrameBytes() != len(frame) {
		return corrupt("it says that it has %d bytes for %d ids, which do not make a frame of %d bytes", g.BlockBytes, g.BlockTokens, len(frame))
	}
	s := newSealer(clusterKey, &g)
	h, body, err := s.open(frame)
	if err != nil {
		return err
	}
	if h.Key != r.Key || h.Generation != r.Generation {
		return corrupt("it is block %v of generation %d, not %v of %d", h.Key, h.Generation, r.Key, r.Generation)
	}
	return checkBody(&h, body)
}
