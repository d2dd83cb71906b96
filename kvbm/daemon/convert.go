package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/layout"
)

// Clients that say how their blocks lie share blocks with others of their content whose
// blocks lie otherwise. Each layout has its shelf, whose keys say the shard; what is not
// on a client's own is made of the shards on another, each checked as it is loaded.

// laid is what a client has said of its layout; the zero one says nothing.
type laid struct {
	text, content string
	layout        layout.Layout // packed
	prints        bool
}

// read takes the layout of a hello, and returns the shelf for it.
func (l *laid) read(h *hello) (shelfKind, error) {
	kind := shelfKind{content: h.content, blockBytes: h.blockBytes, blockTokens: h.blockTokens}
	if h.layout == "" {
		if h.flags&flagFingerprints != 0 {
			return kind, invalid("fingerprints of blocks need their layout; say it in hello")
		}
		return kind, nil
	}
	said, err := layout.Parse(h.layout)
	if err != nil {
		return kind, err
	}
	if said.BlockBytes() != h.blockBytes || said.Tokens != h.blockTokens {
		return kind, invalid("blocks are said to have %d bytes for %d tokens, and laid out as %q they have %d for %d; say the same twice", h.blockBytes, h.blockTokens, h.layout, said.BlockBytes(), said.Tokens)
	}
	*l = laid{text: h.layout, content: h.content, layout: said.Packed(), prints: h.flags&flagFingerprints != 0}
	kind.layout = l.layout.At(0)
	return kind, nil
}

// own is a block as the client's own shelf knows it.
func (l *laid) own(b *kvbm.TierBlock) kvbm.TierBlock {
	if l.text == "" {
		return *b
	}
	return ofShard(b, l.layout.Rank)
}

// ofShard is the part of a block that a shard has.
func ofShard(b *kvbm.TierBlock, shard int) kvbm.TierBlock {
	out := *b
	out.Key = shardKey(b.Key, shard)
	if b.Parent != (dynamo.ContentKey{}) {
		out.Parent = shardKey(b.Parent, shard)
	}
	out.Block = hashOf(out.Key)
	return out
}

// shardKey is the key of the part of a block that a shard has: SHA-256, truncated, of the
// block's key, "shard", and the shard as u32.
func shardKey(k dynamo.ContentKey, shard int) (out dynamo.ContentKey) {
	var b [keyBytes + 5 + 4]byte
	copy(b[copy(b[:], k[:]):], "shard")
	binary.LittleEndian.PutUint32(b[keyBytes+5:], uint32(shard))
	sum := sha256.Sum256(b[:])
	copy(out[:], sum[:])
	return out
}

// prints are the fingerprints of the blocks of a get, in order; nil makes none.
type prints struct {
	bytes []byte
	head  []byte // what comes before the key
}

// newPrints has room for n fingerprints, if the client wants them.
func (l *laid) newPrints(n int) *prints {
	p := &prints{}
	if l.prints {
		p.bytes = make([]byte, 0, n*printBytes)
		p.head = append(append(append(append([]byte{}, l.content...), 0), l.text...), 0)
	}
	return p
}

// add makes that of a block: SHA-256, truncated, of the content, 0, the layout's text, 0,
// the key, the CRC-32 (IEEE) of the bytes as u32, and the sum of them as u64s, with zeros
// behind the last. Clients compute it in Python, where nothing stronger is as fast.
func (p *prints) add(k *dynamo.ContentKey, block []byte) {
	if p.head == nil {
		return
	}
	var sums [12]byte
	binary.LittleEndian.PutUint32(sums[:], crc32.ChecksumIEEE(block))
	binary.LittleEndian.PutUint64(sums[4:], sum64(block))
	h := sha256.New()
	h.Write(p.head)
	h.Write(k[:])
	h.Write(sums[:])
	p.bytes = append(p.bytes, h.Sum(nil)[:printBytes]...)
}

func sum64(b []byte) (sum uint64) {
	le := binary.LittleEndian
	for ; len(b) >= 32; b = b[32:] {
		sum += le.Uint64(b) + le.Uint64(b[8:]) + le.Uint64(b[16:]) + le.Uint64(b[24:])
	}
	for i, c := range b {
		sum += uint64(c) << (8 * (i % 8))
	}
	return sum
}

// all makes those of several.
func (p *prints) all(items []item, blocks [][]byte) {
	for i := range items {
		p.add(&items[i].block.Key, blocks[i])
	}
}

// relatives are the shelves from which the blocks of a request can be made.
type relatives struct {
	d     *Daemon
	items []item
	all   []relative
}

// relative is one of them.
type relative struct {
	shelf  *shelf
	plan   *layout.Plan
	blocks [][]kvbm.TierBlock // of the items, for each source of the plan
}

// relatives finds those for a session's request; they are in use until release.
func (s *session) relatives(items []item) *relatives {
	r, own := &relatives{d: s.d, items: items}, &s.shelf.kind
	for _, other := range s.d.inUse(own) {
		p := s.plan(&other.kind)
		if p == nil {
			s.d.release(other)
			continue
		}
		rel := relative{shelf: other, plan: p}
		for _, shard := range p.Sources {
			blocks := make([]kvbm.TierBlock, len(items))
			for i := range items {
				blocks[i] = ofShard(&items[i].block, shard)
			}
			rel.blocks = append(rel.blocks, blocks)
		}
		r.all = append(r.all, rel)
	}
	return r
}

func (r *relatives) release() {
	for i := range r.all {
		r.d.release(r.all[i].shelf)
	}
}

// plan is how blocks of a shelf become the session's; nil if they cannot.
func (s *session) plan(k *shelfKind) *layout.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.mu.plans[*k]; ok {
		return p
	}
	p, err := layout.Between(k.layout, s.laid.layout)
	if err != nil {
		p = nil // clients that have left had another model under this name
	}
	if s.mu.plans == nil || len(s.mu.plans) >= maxPlans {
		s.mu.plans = map[shelfKind]*layout.Plan{}
	}
	s.mu.plans[*k] = p
	return p
}

// found is the number of blocks from item n on, up to end, of which one relative has all shards, the
// one that has the most.
func (r *relatives) found(n, end int, probe bool) (most int, which *relative) {
	for i := range r.all {
		rel := &r.all[i]
		have := end - n
		for _, blocks := range rel.blocks {
			if have == 0 {
				break
			}
			have = min(have, rel.shelf.found(blocks[n:n+have], probe))
		}
		if have > most {
			most, which = have, rel
		}
	}
	return most, which
}

// stage is memory in which shards wait for the others of their block.
type stage struct{ buf []byte }

// convert makes blocks from item n on, of which into has the places. It returns how many
// are in their places. When it returns, nothing is written any more.
func (r *relatives) convert(ctx context.Context, n int, into [][]byte, p *prints) int {
	for range 2 { // what was damaged is given up by the second time, and the others come
		most, rel := r.found(n, n+len(into), false)
		if most == 0 {
			break
		}
		if got := r.from(ctx, rel, n, into[:most], p); got > 0 {
			return got
		}
	}
	return 0
}

// from makes blocks of those of one relative: as many as it has room for at once, or none.
func (r *relatives) from(ctx context.Context, rel *relative, n int, into [][]byte, p *prints) int {
	size, sources := rel.shelf.kind.blockBytes, len(rel.blocks)
	most := min(len(into), max(convertBytes/(size*sources), 1))
	var st *stage
	select {
	case st = <-r.d.stages:
	case <-ctx.Done():
		return 0
	}
	defer func() {
		if cap(st.buf) > convertBytes {
			st.buf = nil
		}
		r.d.stages <- st
	}()
	out := rel.plan.To.BlockBytes()
	st.buf = slices.Grow(st.buf[:0], most*sources*size+out)
	result := st.buf[:out]
	shards := make([][][]byte, sources) // by source and block
	loads, at := make([]loading, sources), st.buf[out:out+most*sources*size]
	for i := range shards {
		for range most {
			shards[i], at = append(shards[i], at[:size:size]), at[size:]
		}
		loads[i] = rel.shelf.load(rel.blocks[i][n:n+most], shards[i])
	}
	for i := range loads {
		most = min(most, loads[i].wait(ctx))
	}
	of := make([][]byte, sources)
	for b := range most {
		for i := range of {
			of[i] = shards[i][b]
		}
		if p.head == nil {
			rel.plan.Convert(into[b], of)
			continue
		}
		// The fingerprint is made where nobody else can write.
		rel.plan.Convert(result, of)
		p.add(&r.items[n+b].block.Key, result)
		copy(into[b], result)
	}
	return most
}
