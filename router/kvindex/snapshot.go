package kvindex

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// A snapshot of a tier of a source comes in chunks, each of them usable without the
// others: integers little-endian,
//
//	1    format, 1
//	     pieces to the end, maybe none: consecutive blocks of a chain
//
// and a piece:
//
//	1    number of blocks, 1-64; 0x80 added when the block before is known
//	8    that block's hash, with 0x80
//	n×8  chained hashes
const (
	snapshotFormat = 1
	pieceParent    = 0x80
	pieceMaxBytes  = 1 + 8 + runBlocks*8
)

// Cursor is a place in a snapshot. The zero Cursor is its beginning.
type Cursor struct{ run uint32 }

// AppendSnapshot appends to dst the next chunk of what a source holds in a tier, of
// at most limit bytes or little more, and returns where the one after it begins. more
// is false with the last one. Blocks that come or go between two chunks may be in the
// snapshot or not; who applies all events since its beginning afterwards has what the
// source has.
func (x *Index) AppendSnapshot(dst []byte, s Source, t dynamo.Tier, c Cursor, limit int) (_ []byte, next Cursor, more bool) {
	start := len(dst)
	dst = append(dst, snapshotFormat)
	src := x.source(s)
	if src == nil || int(t) >= tiers || src.lanes[t] == 0 {
		return dst, c, false
	}
	for id := max(c.run, 1); id < x.runs.next; id++ {
		r := x.runs.at(id)
		if r.len() == 0 {
			continue
		}
		m := x.mask(r, src.lanes[t])
		if m == nil {
			continue
		}
		if len(dst)-start+pieceMaxBytes > limit && len(dst)-start > 1 {
			return dst, Cursor{id}, true
		}
		for set := m.Load(); set != 0; {
			from := bits.TrailingZeros64(set)
			n := bits.TrailingZeros64(^(set >> from))
			set &^= limitTo(n) << from
			if from > 0 {
				dst = append(dst, byte(n)|pieceParent)
				dst = binary.LittleEndian.AppendUint64(dst, x.hash(r, from-1))
			} else {
				dst = append(dst, byte(n))
			}
			for pos := from; pos < from+n; pos++ {
				dst = binary.LittleEndian.AppendUint64(dst, x.hash(r, pos))
			}
		}
	}
	return dst, Cursor{}, false
}

// Restore stores a chunk of a snapshot. A malformed chunk is KindCorrupt and changes
// nothing.
func (x *Index) Restore(s Source, t dynamo.Tier, chunk []byte) error {
	if err := checkChunk(chunk); err != nil {
		return err
	}
	for p := chunk[1:]; len(p) > 0; {
		n := int(p[0] &^ pieceParent)
		hasParent := p[0]&pieceParent != 0
		p = p[1:]
		var parent dynamo.BlockHash
		if hasParent {
			parent, p = dynamo.BlockHash(binary.LittleEndian.Uint64(p)), p[8:]
		}
		x.chain = slices.Grow(x.chain[:0], n)
		for ; n > 0; n-- {
			x.chain = append(x.chain, tokens.Block{Hash: dynamo.BlockHash(binary.LittleEndian.Uint64(p))})
			p = p[8:]
		}
		x.Store(s, t, parent, hasParent, x.chain)
	}
	return nil
}

func checkChunk(p []byte) error {
	corrupt := &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "a snapshot of a KV index is malformed; take it again"}
	if len(p) == 0 || p[0] != snapshotFormat {
		return corrupt
	}
	for p = p[1:]; len(p) > 0; {
		n := int(p[0] &^ pieceParent)
		size := 1 + n*8
		if p[0]&pieceParent != 0 {
			size += 8
		}
		if n == 0 || n > runBlocks || size > len(p) {
			return corrupt
		}
		p = p[size:]
	}
	return nil
}
