package kvindex

import (
	"math/bits"
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// engineIDs finds the blocks of a source's tier by what its engine calls them. It is
// made as table is, of lines with five slots each that fill from the first one on.
type engineIDs struct {
	lines []engineLine
	n     int
	// more counts, for blocks that several ids stand for, those beyond the first: the
	// block is gone when all its ids are.
	more map[uint64]uint32
}

// engineLine is a cache line. A key is 48 bits of the mixed id, and 16 of the block's
// mixed hash that tell whether the reference still means that block.
type engineLine struct {
	keys [lineSlots]uint64
	refs [lineSlots]uint32 // 0: empty
	_    uint32
}

const (
	lineSlots      = 5
	minEngineLines = 4
	lineBytes      = 64
	engineLoad     = 0.85
	engineGrowth   = 1.3
	fetchIDs       = 256
	moreBytes      = 32 // of an entry of more, about
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
	e := x.sources[s].engine[t]
	if e == nil {
		e = new(engineIDs)
		x.sources[s].engine[t] = e
	}
	if !e.reserve(x, lane, len(ids)) {
		x.refuse(lane, len(blocks))
		return
	}
	sum := uint64(0)
	for _, id := range ids[:min(len(blocks), fetchIDs)] { // have fetched what the loop below reads
		sum += uint64(e.lines[e.home(engineKey(x, id))].refs[0])
	}
	x.sink = sum
	x.refs = slices.Grow(x.refs[:0], len(blocks))[:len(blocks)]
	clear(x.refs)
	x.store(lane, parent, hasParent, blocks, x.refs)
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

// home is the line in which the search for a key begins.
func (e *engineIDs) home(key uint64) int {
	i, _ := bits.Mul64(key, uint64(len(e.lines)))
	return int(i)
}

// find returns the line and the slot of a key, or of the empty slot where it would
// be. There must be one.
func (e *engineIDs) find(key uint64) (*engineLine, int) {
	for i := e.home(key); ; {
		l := &e.lines[i]
		n := 0
		for k := range lineSlots {
			if l.keys[k]&^0xffff == key && l.refs[k] != 0 {
				return l, k
			}
			n += int(used(uint64(l.refs[k])))
		}
		if n < lineSlots {
			return l, n
		}
		if i++; i == len(e.lines) {
			i = 0
		}
	}
}

// reserve makes room for n more ids.
func (e *engineIDs) reserve(x *Index, lane uint32, n int) bool {
	need := int(float64(e.n+n)/(engineLoad*lineSlots)) + 1
	if need <= len(e.lines) {
		return true
	}
	if int64(e.n) > 2*x.lanes.all[lane].blocks { // half of it are ids of blocks that were evicted
		e.fill(x, len(e.lines), func(ref uint32, key uint64) bool { return x.holds(lane, ref, key) })
	}
	size := max(need, minEngineLines, int(float64(len(e.lines))*engineGrowth))
	if !x.budget.take(int64(size-len(e.lines)) * lineBytes) {
		return e.n+n < len(e.lines)*lineSlots
	}
	e.fill(x, size, nil)
	return true
}

// fill makes new lines and keeps what keep says. Entries stay in order, so memory is
// read and written in order.
func (e *engineIDs) fill(x *Index, size int, keep func(ref uint32, key uint64) bool) {
	old := e.lines
	e.lines, e.n = make([]engineLine, size), 0
	full := append(x.table.used[:0], make([]uint8, size)...)
	x.table.used = full
	for i := range old {
		for k, ref := range old[i].refs {
			if ref == 0 || keep != nil && !keep(ref, old[i].keys[k]) {
				continue
			}
			at := e.home(old[i].keys[k] &^ 0xffff)
			for full[at] == lineSlots {
				if at++; at == size {
					at = 0
				}
			}
			l, n := &e.lines[at], full[at]
			l.keys[n], l.refs[n] = old[i].keys[k], ref
			full[at] = n + 1
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
	l, k := e.find(key)
	switch {
	case l.refs[k] == 0:
		e.n++
	case l.refs[k] == ref && l.keys[k] == full:
		if !fresh {
			return // stored again
		}
	default: // the id stood for another block
		if x.holds(lane, l.refs[k], l.keys[k]) {
			x.forget(e, lane, l.refs[k])
		}
	}
	l.keys[k], l.refs[k] = full, ref
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
	if e == nil || len(e.lines) == 0 || lane == 0 {
		return
	}
	for _, id := range ids[:min(len(ids), fetchIDs)] {
		x.sink += uint64(e.lines[e.home(engineKey(x, id))].refs[0])
	}
	var run uint32
	var set uint64
	for _, id := range ids {
		l, k := e.find(engineKey(x, id))
		ref, key := l.refs[k], l.keys[k]
		if ref == 0 {
			continue
		}
		e.remove(l, k)
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

// remove empties a slot and closes the gap, as part.vacate does.
func (e *engineIDs) remove(l *engineLine, k int) {
	e.n--
	for {
		n := 0
		for _, ref := range l.refs {
			n += int(used(uint64(ref)))
		}
		l.keys[k], l.refs[k] = l.keys[n-1], l.refs[n-1]
		l.keys[n-1], l.refs[n-1] = 0, 0
		if n < lineSlots {
			return
		}
		from, slot := e.strayed(e.index(l))
		if from == nil {
			return
		}
		l.keys[n-1], l.refs[n-1] = from.keys[slot], from.refs[slot]
		l, k = from, slot
	}
}

// index is that of a line.
func (e *engineIDs) index(l *engineLine) int {
	for i := e.home(l.keys[0] &^ 0xffff); ; i++ { // where its first entry belongs, or shortly behind
		if i == len(e.lines) {
			i = 0
		}
		if &e.lines[i] == l {
			return i
		}
	}
}

// strayed returns the place of an entry behind a line that belongs there or before.
func (e *engineIDs) strayed(start int) (*engineLine, int) {
	for at := start; ; {
		if at++; at == len(e.lines) {
			at = 0
		}
		if at == start {
			return nil, 0
		}
		l := &e.lines[at]
		for k, ref := range l.refs {
			if ref == 0 {
				return nil, 0
			}
			if between(e.home(l.keys[k]&^0xffff), start, at) {
				return l, k
			}
		}
	}
}

// dropEngine forgets all ids of a tier.
func (x *Index) dropEngine(src *source, t dynamo.Tier) {
	if e := src.engine[t]; e != nil {
		x.bytes -= int64(len(e.lines))*lineBytes + int64(len(e.more))*moreBytes
		src.engine[t] = nil
	}
}
