package tier

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// DiskConfig describes a Disk.
type DiskConfig struct {
	// Dir is its folder, which is made, and which one process uses at a time.
	Dir string
	// Slots is the number of frames, FrameBytes their length, a multiple of 4096.
	Slots, FrameBytes int
	// ClusterKey is what frames are sealed with: those of another key are not kept.
	ClusterKey []byte
}

// Disk is a store in a folder of a local disk, which is found again after a restart.
// There are two files besides the lock, little-endian:
//
//	pool   slot after slot, each a frame; written past the page cache where the file
//	       system allows it
//	slots  128 bytes: magic "dynKVdir", version u32 (1), frame length u32, number of slots
//	       u32, 4 bytes 0, 16 bytes that name the cluster key, zeros, XXH3-64 of all
//	       before it; then for each slot 128 bytes:
//	          0  magic u32 0x6c73764b
//	          4  slot u32
//	          8  depth u32, 4 bytes 0
//	         16  content key, 16 bytes
//	         32  content key of the block before it, 16 bytes
//	         48  generation u64
//	         56  block hash u64, local hash u64, block hash of the block before it u64
//	         80  zeros
//	        120  XXH3-64 of all before it; or all zeros: the slot is free
//
// A frame is written first, then its record, each at its place: there is no log to
// grow, to replay or to cut. Whatever a crash leaves is harmless. A record that is torn
// or damaged has a wrong checksum, and its slot counts as free; one that is older than
// its frame, or a frame that is torn, is found when the frame is read and does not say
// what the record says.
type Disk struct {
	config            DiskConfig
	lock, pool, slots *os.File
	mu                struct {
		sync.Mutex
		keys []dynamo.ContentKey // by slot: the frame written last, or zero
	}
}

const (
	diskMagic   = "dynKVdir"
	diskVersion = 1
	recordMagic = 0x6c73764b
	recordBytes = 128
	recordSum   = recordBytes - 8
	diskLabel   = "dynamo kv disk 1"
)

var (
	_ Store = (*Disk)(nil)
	_ Parts = (*Disk)(nil)
)

// OpenDisk opens a store, or makes it. One of other frames or another cluster key is
// begun anew. It fails with KindUnavailable while another process uses it.
func OpenDisk(c DiskConfig) (*Disk, error) {
	d := &Disk{config: c}
	d.mu.keys = make([]dynamo.ContentKey, c.Slots)
	if err := d.open(); err != nil {
		err = fmt.Errorf("open the disk tier in %s: %w", c.Dir, advise(err, "--kvbm-disk-dir"))
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Disk) open() (err error) {
	if err := os.MkdirAll(d.config.Dir, 0o700); err != nil {
		return err
	}
	if d.lock, err = os.OpenFile(filepath.Join(d.config.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := lockFile(d.lock); err != nil {
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Err: err, Message: "another process uses it; give each its own --kvbm-disk-dir"}
	}
	if d.slots, err = os.OpenFile(filepath.Join(d.config.Dir, "slots"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if d.pool, err = openDirect(filepath.Join(d.config.Dir, "pool")); err != nil {
		return err
	}
	head := make([]byte, recordBytes)
	if _, err := io.ReadFull(io.NewSectionReader(d.slots, 0, recordBytes), head); err == nil && string(head) == string(d.head()) {
		return nil
	}
	for _, f := range []*os.File{d.slots, d.pool} {
		if err := f.Truncate(0); err != nil {
			return err
		}
	}
	_, err = d.slots.WriteAt(d.head(), 0)
	return err
}

// head is the first record of the file of slots.
func (d *Disk) head() []byte {
	b := make([]byte, recordBytes)
	copy(b, diskMagic)
	binary.LittleEndian.PutUint32(b[8:], diskVersion)
	binary.LittleEndian.PutUint32(b[12:], uint32(d.config.FrameBytes))
	binary.LittleEndian.PutUint32(b[16:], uint32(d.config.Slots))
	mac := hmac.New(sha256.New, d.config.ClusterKey)
	mac.Write([]byte(diskLabel))
	copy(b[24:40], mac.Sum(nil))
	binary.LittleEndian.PutUint64(b[recordSum:], xxh3.Hash(b[:recordSum]))
	return b
}

// encodeRecord writes the record of a slot.
func encodeRecord(b []byte, r Ref) {
	binary.LittleEndian.PutUint32(b, recordMagic)
	binary.LittleEndian.PutUint32(b[4:], uint32(r.Slot))
	binary.LittleEndian.PutUint64(b[8:], uint64(uint32(r.Depth)))
	copy(b[16:], r.Key[:])
	copy(b[32:], r.Parent[:])
	binary.LittleEndian.PutUint64(b[48:], r.Generation)
	binary.LittleEndian.PutUint64(b[56:], uint64(r.Block.Hash))
	binary.LittleEndian.PutUint64(b[64:], uint64(r.Block.Local))
	binary.LittleEndian.PutUint64(b[72:], uint64(r.ParentHash))
	binary.LittleEndian.PutUint64(b[recordSum:], xxh3.Hash(b[:recordSum]))
}

// decodeRecord reads the record of a slot, and reports false if there is none.
func decodeRecord(b []byte, slot int32) (r Ref, ok bool) {
	le := binary.LittleEndian
	if len(b) < recordBytes || le.Uint32(b) != recordMagic || le.Uint32(b[4:]) != uint32(slot) || le.Uint64(b[recordSum:]) != xxh3.Hash(b[:recordSum]) {
		return r, false
	}
	r = Ref{Slot: slot, Generation: le.Uint64(b[48:])}
	r.Depth, r.ParentHash = int(int32(le.Uint32(b[8:]))), dynamo.BlockHash(le.Uint64(b[72:]))
	r.Block = tokens.Block{Hash: dynamo.BlockHash(le.Uint64(b[56:])), Local: dynamo.LocalHash(le.Uint64(b[64:]))}
	copy(r.Key[:], b[16:])
	copy(r.Parent[:], b[32:])
	return r, r.Depth >= 0
}

// Put implements Store.
func (d *Disk) Put(_ context.Context, r Ref, frame []byte) error {
	d.mu.Lock()
	d.mu.keys[r.Slot] = r.Key
	d.mu.Unlock()
	if _, err := d.pool.WriteAt(frame, int64(r.Slot)*int64(d.config.FrameBytes)); err != nil {
		return fmt.Errorf("write slot %d: %w", r.Slot, err)
	}
	var b [recordBytes]byte
	encodeRecord(b[:], r)
	if _, err := d.slots.WriteAt(b[:], recordBytes*(int64(r.Slot)+1)); err != nil {
		return fmt.Errorf("note slot %d: %w", r.Slot, err)
	}
	return nil
}

// Get implements Store.
func (d *Disk) Get(ctx context.Context, r Ref, frame []byte) error {
	return d.GetPart(ctx, r, frame, 0, len(frame))
}

// GetPart implements Parts.
func (d *Disk) GetPart(_ context.Context, r Ref, frame []byte, from, to int) error {
	n, err := d.pool.ReadAt(frame[from:to], int64(r.Slot)*int64(d.config.FrameBytes)+int64(from))
	switch {
	case n == to-from:
		return nil
	case errors.Is(err, io.EOF):
		return corrupt("the pool ends %d bytes into slot %d", from+n, r.Slot)
	}
	return fmt.Errorf("read slot %d: %w", r.Slot, err)
}

// Delete implements Store.
func (d *Disk) Delete(_ context.Context, r Ref) error {
	d.mu.Lock()
	mine := d.mu.keys[r.Slot] == r.Key
	if mine {
		d.mu.keys[r.Slot] = dynamo.ContentKey{}
	}
	d.mu.Unlock()
	if !mine {
		return nil
	}
	if _, err := d.slots.WriteAt(make([]byte, recordBytes), recordBytes*(int64(r.Slot)+1)); err != nil {
		return fmt.Errorf("free slot %d: %w", r.Slot, err)
	}
	return nil
}

// List implements Store.
func (d *Disk) List(ctx context.Context, yield func(Ref) bool) error {
	piece := make([]byte, 1024*recordBytes)
	seen := map[dynamo.ContentKey]bool{}
	for slot := int32(0); int(slot) < d.config.Slots; {
		n, err := d.slots.ReadAt(piece, recordBytes*(int64(slot)+1))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for b := piece[:n/recordBytes*recordBytes]; len(b) > 0 && int(slot) < d.config.Slots; b = b[recordBytes:] {
			if r, ok := decodeRecord(b, slot); ok && !seen[r.Key] {
				seen[r.Key] = true
				d.mu.Lock()
				d.mu.keys[slot] = r.Key
				d.mu.Unlock()
				if !yield(r) {
					return nil
				}
			}
			slot++
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the list of slots: %w", err)
		}
	}
	return nil
}

// Close implements Store.
func (d *Disk) Close() error {
	var faults []error
	for _, f := range []*os.File{d.pool, d.slots, d.lock} {
		if f != nil {
			faults = append(faults, f.Close())
		}
	}
	return errors.Join(faults...)
}
