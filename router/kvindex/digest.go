package kvindex

import (
	"math/bits"

	"github.com/dynamo-go/dynamo"
)

// Digest stands for a set of blocks: two sets with equal digests are equal but by
// a chance of 2^-64, in whatever order they came to be. Digests of disjoint sets
// add up.
type Digest struct {
	Blocks int64
	Sum    uint64 // wrapping, of each hash mixed
}

// digestOf is what a block adds to a digest.
func digestOf(h uint64) uint64 {
	z := h + golden
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// Add adds the digest of another set, which has no block in common.
func (d *Digest) Add(o Digest) { d.Blocks += o.Blocks; d.Sum += o.Sum }

// Note adds a block.
func (d *Digest) Note(h dynamo.BlockHash) { d.Blocks++; d.Sum += digestOf(uint64(h)) }

// Drop takes away a block that the set has.
func (d *Digest) Drop(h dynamo.BlockHash) { d.Blocks--; d.Sum -= digestOf(uint64(h)) }

// Digest is that of all blocks a source holds in a tier, without those expected.
func (x *Index) Digest(s Source, t dynamo.Tier) Digest {
	src := x.source(s)
	if src == nil || int(t) >= tiers || src.lanes[t] == 0 {
		return Digest{}
	}
	l := &x.lanes.all[src.lanes[t]]
	return Digest{l.blocks, l.digest}
}

// List appends the hashes from first to last of the blocks that a source holds in
// a tier, in no order.
func (x *Index) List(s Source, t dynamo.Tier, first, last dynamo.BlockHash, dst []dynamo.BlockHash) []dynamo.BlockHash {
	x.each(s, t, func(h uint64) {
		if h >= uint64(first) && h <= uint64(last) {
			dst = append(dst, dynamo.BlockHash(h))
		}
	})
	return dst
}

// each calls f with the hash of every block that a source holds in a tier. It looks
// at all runs, of which there are about as many as blocks by forty.
func (x *Index) each(s Source, t dynamo.Tier, f func(h uint64)) {
	src := x.source(s)
	if src == nil || int(t) >= tiers || src.lanes[t] == 0 {
		return
	}
	for id := uint32(1); id < x.runs.next; id++ {
		r := x.runs.at(id)
		if r.len() == 0 {
			continue
		}
		m := x.mask(r, src.lanes[t])
		if m == nil {
			continue
		}
		for set := m.Load(); set != 0; set &= set - 1 {
			f(x.hash(r, bits.TrailingZeros64(set)))
		}
	}
}
