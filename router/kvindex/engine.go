package kvindex

import (
	"math/bits"
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// engineIDs finds the blocks of a source's tier by what its engine calls them. A
// slot is a word with 48 bits of the mixed id and 16 of the block's mixed hash, which
// tell whether the reference still means that block, and the reference.
type engineIDs struct {
	keys []uint64
	refs []uint32
	n    int
	// more counts, for blocks that several ids stand for, those beyond the first: the
	// block is gone when all its ids are.
	more map[uint64]uint32
}

const (
	minEngineSlots  = 64
	engineSlotBytes = 12
	moreBytes       = 32 // of an entry of more, about
)

// settled is what a store changed in a run: the blocks that the lane holds now, and
// those of them it did not before.
type settled struct {
	id          uint32
	bits, fresh uint64
}

// StoreEngine is Store for a source that removes blocks by ids of its engine's:
// ids[i] is that of blocks[i]. Several ids may stand for one block.
func (x *Index) StoreEngine(s Source, t dynamo.Tier, parent dynamo.BlockHash, hasParent bool, blocks []tokens.Block, ids []uint64) {
	x.tidy()
	blocks = blocks[:min(len(blocks), len(ids))]
	lane := x.lane(s, t)
	if lane == 0 {
		x.stats.Dropped += uint64(len(blocks))
		return
	}
	x.refs = slices.Grow(x.refs[:0], len(blocks))[:len(blocks)]
	clear(x.refs)
	x.store(lane, parent, hasParent, blocks, x.refs)
	e := x.sources[s].engine[t]
	if e == nil {
		e = new(engineIDs)
		x.sources[s].engine[t] = e
	}
	if !e.reserve(x, lane, len(ids)) {
		x.refuse(lane, 0)
		return
	}
	for i := range ids[:min(len(blocks), 256)] { // fetch what the next loop reads
		x.sink += e.keys[e.home(engineKey(x, ids[i]))]
	}
	at := 0
	for i, ref := range x.refs {
		if ref == 0 {
			break // there was no memory from here on
		}
		for x.settled[at].id != ref/runBlocks || x.settled[at].bits>>(ref%runBlocks)&1 == 0 {
			if at++; at == len(x.settled) {
				at = 0
			}
		}
		bit := uint64(1) << (ref % runBlocks)
		fresh := x.settled[at].fresh&bit != 0
		x.settled[at].fresh &^= bit
		x.note(e, lane, ids[i], ref, uint64(blocks[i].Hash), fresh)
	}
}

// engineKey is the mixed id; the mixing can be undone, so ids differ when keys do.
func engineKey(x *Index, id uint64) uint64 { return digestOf(id^x.seed) &^ 0xffff }

func (e *engineIDs) home(key uint64) int {
	i, _ := bits.Mul64(key, uint64(len(e.keys)))
	return int(i)
}

// find returns the slot of a key, or the empty one where it would be.
func (e *engineIDs) find(key uint64) int {
	for i := e.home(key); ; i++ {
		if i == len(e.keys) {
			i = 0
		}
		if e.refs[i] == 0 || e.keys[i]&^0xffff == key {
			return i
		}
	}
}

// reserve makes room for n more ids.
func (e *engineIDs) reserve(x *Index, lane uint32, n int) bool {
	need := float64(e.n+n) / maxLoad
	if need <= float64(len(e.keys)) {
		return true
	}
	if stale := int64(e.n) - x.lanes.all[lane].blocks*2; stale > 0 { // ids of blocks that were evicted
		e.purge(x, lane)
	}
	size := max(int(need), minEngineSlots, int(float64(len(e.keys))*1.4))
	if !x.budget.take(int64(size-len(e.keys)) * engineSlotBytes) {
		return e.n+n+1 < len(e.keys)
	}
	keys, refs := e.keys, e.refs
	e.keys, e.refs = make([]uint64, size), make([]uint32, size)
	for i, r := range refs {
		if r != 0 {
			j := e.find(keys[i] &^ 0xffff)
			e.keys[j], e.refs[j] = keys[i], r
		}
	}
	return true
}

// purge drops the ids of blocks that the lane does not hold.
func (e *engineIDs) purge(x *Index, lane uint32) {
	keys, refs := e.keys, e.refs
	e.keys, e.refs, e.n = make([]uint64, len(keys)), make([]uint32, len(refs)), 0
	for i, r := range refs {
		if r != 0 && x.holds(lane, r, keys[i]) {
			j := e.find(keys[i] &^ 0xffff)
			e.keys[j], e.refs[j] = keys[i], r
			e.n++
		}
	}
}

// holds says whether a reference means the block it was noted for, and the lane
// holds that.
func (x *Index) holds(lane, ref uint32, key uint64) bool {
	r := x.runs.at(ref / runBlocks)
	pos := int(ref % runBlocks)
	if pos >= r.len() || x.mix(x.hash(r, pos))&0xffff != key&0xffff {
		return false
	}
	m := x.mask(r, lane)
	return m != nil && m.Load()>>pos&1 != 0
}

// note notes that an id stands for a block, which the lane has just begun to hold
// if fresh. There is room.
func (x *Index) note(e *engineIDs, lane uint32, id uint64, ref uint32, h uint64, fresh bool) {
	key := engineKey(x, id)
	full := key | x.mix(h)&0xffff
	i := e.find(key)
	switch {
	case e.refs[i] == 0:
		e.n++
	case e.refs[i] == ref && e.keys[i] == full:
		if !fresh {
			return // stored again
		}
		e.keys[i], e.refs[i] = full, ref
		return
	default: // the id stood for another block
		if old, oldKey := e.refs[i], e.keys[i]; x.holds(lane, old, oldKey) {
			x.forget(e, lane, old)
		}
	}
	e.keys[i], e.refs[i] = full, ref
	if !fresh && x.budget.take(moreBytes) {
		if e.more == nil {
			e.more = map[uint64]uint32{}
		}
		if e.more[h] > 0 {
			x.bytes -= moreBytes
		}
		e.more[h]++
	}
}

// forget takes away one of the ids a block has.
func (x *Index) forget(e *engineIDs, lane, ref uint32) {
	if len(e.more) > 0 {
		h := x.hash(x.runs.at(ref/runBlocks), int(ref%runBlocks))
		if n := e.more[h]; n > 0 {
			if n == 1 {
				delete(e.more, h)
				x.bytes -= moreBytes
			} else {
				e.more[h] = n - 1
			}
			return
		}
	}
	x.take(ref/runBlocks, lane, 1<<(ref%runBlocks))
}

// hasMore says whether any block of a lane has several ids.
func (x *Index) hasMore(l *lane) bool {
	e := x.sources[l.source].engine[l.tier]
	return e != nil && len(e.more) > 0
}

// forgetMore drops what more says of blocks that a lane loses whatever their ids.
func (x *Index) forgetMore(l *lane, h uint64) {
	e := x.sources[l.source].engine[l.tier]
	if e != nil && e.more[h] > 0 {
		delete(e.more, h)
		x.bytes -= moreBytes
	}
}

// RemoveEngine is Remove by the engine's ids. Ids that stand for nothing are ignored.
func (x *Index) RemoveEngine(s Source, t dynamo.Tier, ids []uint64) {
	x.tidy()
	src := x.source(s)
	if src == nil || int(t) >= tiers {
		return
	}
	if src.pending != nil {
		x.removePending(src, t, ids)
	}
	e, lane := src.engine[t], src.lanes[t]
	if e == nil || len(e.keys) == 0 || lane == 0 {
		return
	}
	for _, id := range ids[:min(len(ids), 256)] {
		x.sink += e.keys[e.home(engineKey(x, id))]
	}
	var run uint32
	var set uint64
	for _, id := range ids {
		i := e.find(engineKey(x, id))
		ref := e.refs[i]
		if ref == 0 {
			continue
		}
		key := e.keys[i]
		e.remove(i)
		if ref/runBlocks != run {
			x.take(run, lane, set)
			run, set = ref/runBlocks, 0
		}
		switch {
		case !x.holds(lane, ref, key):
		case len(e.more) > 0:
			x.forget(e, lane, ref)
		default:
			set |= 1 << (ref % runBlocks)
		}
	}
	x.take(run, lane, set)
}

// remove empties slot i.
func (e *engineIDs) remove(i int) {
	e.n--
	for j := i; ; {
		if j++; j == len(e.keys) {
			j = 0
		}
		if e.refs[j] == 0 {
			break
		}
		if between(e.home(e.keys[j]&^0xffff), i, j) {
			e.keys[i], e.refs[i] = e.keys[j], e.refs[j]
			i = j
		}
	}
	e.keys[i], e.refs[i] = 0, 0
}

// dropEngine forgets all ids of a tier.
func (x *Index) dropEngine(src *source, t dynamo.Tier) {
	if e := src.engine[t]; e != nil {
		x.bytes -= int64(len(e.keys))*engineSlotBytes + int64(len(e.more))*moreBytes
		src.engine[t] = nil
	}
}
