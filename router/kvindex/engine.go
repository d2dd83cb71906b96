package kvindex

import (
	"math/bits"
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// engineIDs finds the blocks of a source's tier by what its engine calls them. It is
// made as table is, of lines with five slots each that fill from the first one on,
// and is told of new ids many at a time too. A line counts the entries that found it
// full on their way, so that a search knows where to end.
type engineIDs struct {
	lines []engineLine
	n     int
	// log has ids that the lines have not been told of: they are told of many at a time,
	// when an id is asked for that they do not know, or when it is long.
	log    [][]idEntry
	logged int // ids in it
	booked int // room in it
	// more counts, for blocks that several ids stand for, those beyond the first: the
	// block is gone when all its ids are.
	more map[uint64]uint32
}

// engineLine is a cache line. A key is 48 bits of the mixed id, and 16 of the block's
// mixed hash that tell whether the reference still means that block.
type engineLine struct {
	keys [lineSlots]uint64
	refs [lineSlots]uint32 // 0: empty
	past uint32            // entries that belong here or before and are behind
}

// idEntry is an id as a line has it.
type idEntry struct {
	full uint64
	ref  uint32
}

const (
	lineSlots      = 5
	minEngineLines = 4
	lineBytes      = 64
	engineLoad     = 0.85
	engineGrowth   = 1.3
	fetchIDs       = 256
	moreBytes      = 32 // of an entry of more, about
	idEntryBytes   = 16
	minIDChunk     = 16
	maxIDChunk     = 256
)

// settled is what a store changed in a run: the blocks that the lane holds now, and
// those of them it did not before.
type settled struct {
	id          uint32
	bits, fresh uint64
}

// StoreEngine is Store for a source that removes blocks by ids of its engine's:
// ids[i] is that of blocks[i]. Several ids may stand for one block; an id is given to
// another block after it was removed, or after some time.
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
	if e.logged >= maxIDLog {
		x.tellIDs(e, lane)
	}
	if !x.book(e, len(blocks)) {
		x.refuse(lane, len(blocks))
		return
	}
	x.refs = slices.Grow(x.refs[:0], len(blocks))[:len(blocks)]
	clear(x.refs)
	x.store(lane, parent, hasParent, blocks, x.refs)
	at, again := 0, false
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
		if fresh {
			e.add(idEntry{engineKey(x, ids[i]) | x.mix(uint64(blocks[i].Hash))&0xffff, ref})
			x.refs[i] = 0
		} else {
			again = true
		}
	}
	if again {
		x.noteAgain(e, lane, blocks, ids)
	}
}

// noteAgain notes the ids of those blocks in refs that the lane held already: they may
// be other ones.
func (x *Index) noteAgain(e *engineIDs, lane uint32, blocks []tokens.Block, ids []uint64) {
	x.tellIDs(e, lane)
	for i, ref := range x.refs {
		if ref != 0 && e.reserve(x, lane, 1) {
			h := uint64(blocks[i].Hash)
			x.note(e, lane, engineKey(x, ids[i])|x.mix(h)&0xffff, ref, h, false)
		}
	}
}

// tellIDs tells the lines what the log has. The lane gives up the blocks whose ids find
// no room.
func (x *Index) tellIDs(e *engineIDs, lane uint32) {
	if e.logged == 0 {
		return
	}
	room := e.reserve(x, lane, e.logged)
	log, booked := e.log, e.booked
	e.log, e.logged, e.booked = nil, 0, 0
	for _, part := range log {
		x.tellPart(e, lane, part, room)
	}
	x.bytes -= int64(booked) * idEntryBytes
}

func (x *Index) tellPart(e *engineIDs, lane uint32, all []idEntry, room bool) {
	for len(all) > 0 {
		n := min(len(all), fetchIDs)
		sum := uint64(0)
		for i := range all[:n] {
			sum += uint64(e.lines[e.home(all[i].full&^0xffff)].refs[0])
		}
		x.sink = sum
		for i := range all[:n] {
			switch at := &all[i]; {
			case room || e.n+1 < len(e.lines)*lineSlots:
				x.note(e, lane, at.full, at.ref, 0, true)
			case x.holds(lane, at.ref, at.full):
				x.take(at.ref/runBlocks, lane, 1<<(at.ref%runBlocks))
				x.refuse(lane, 1)
			}
		}
		all = all[n:]
	}
}

// book makes room in the log for n more ids.
func (x *Index) book(e *engineIDs, n int) bool {
	for e.booked-e.logged < n {
		size := min(max(e.logged, minIDChunk), maxIDChunk)
		if !x.budget.take(int64(size) * idEntryBytes) {
			return false
		}
		e.log = append(e.log, make([]idEntry, 0, size))
		e.booked += size
	}
	return true
}

// add adds an id to the log, which has room.
func (e *engineIDs) add(id idEntry) {
	i := len(e.log) - 1
	for i > 0 && len(e.log[i-1]) < cap(e.log[i-1]) {
		i--
	}
	e.log[i] = append(e.log[i], id)
	e.logged++
}

// locate returns the line and the slot of an id of a block that the lane holds, or of
// an id that the lines know or do not know.
func (x *Index) locate(e *engineIDs, lane uint32, key uint64) (*engineLine, int) {
	if len(e.lines) > 0 {
		if l, k := e.find(key); e.logged == 0 || l.refs[k] != 0 && x.holds(lane, l.refs[k], l.keys[k]) {
			return l, k
		}
	}
	x.tellIDs(e, lane)
	if len(e.lines) == 0 {
		return &engineLine{}, 0
	}
	return e.find(key)
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
	var empty *engineLine
	slot := 0
	for i, more, left := e.home(key), true, len(e.lines); ; left-- {
		l := &e.lines[i]
		n := 0
		for k := range lineSlots {
			if more && l.keys[k]&^0xffff == key && l.refs[k] != 0 {
				return l, k
			}
			n += int(used(uint64(l.refs[k])))
		}
		if empty == nil && n < lineSlots {
			empty, slot = l, n
		}
		if more = more && l.past > 0 && left > 1; !more && empty != nil {
			return empty, slot
		}
		if i++; i == len(e.lines) {
			i = 0
		}
	}
}

// used is 1 for a reference, and 0 for none.
func used(w uint64) uint64 { return (w | -w) >> 63 }

// pass adds n to what the lines before l count that an entry with that key is or was
// behind.
func (e *engineIDs) pass(key uint64, l *engineLine, n uint32) {
	for i := e.home(key); &e.lines[i] != l; {
		e.lines[i].past += n
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
	full := append(x.used[:0], make([]uint8, size)...)
	x.used = full
	for i := range old {
		for k, ref := range old[i].refs {
			if ref == 0 || keep != nil && !keep(ref, old[i].keys[k]) {
				continue
			}
			at := e.home(old[i].keys[k] &^ 0xffff)
			for full[at] == lineSlots {
				e.lines[at].past++
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

// note notes that an id stands for a block, that of hash h, unless the lane has begun
// to hold it with this id (fresh). There is room.
func (x *Index) note(e *engineIDs, lane uint32, full uint64, ref uint32, h uint64, fresh bool) {
	key := full &^ 0xffff
	l, k := e.find(key)
	switch {
	case l.refs[k] == 0:
		e.n++
		e.pass(key, l, 1)
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
	e, lane := src.engine[t], src.lanes[t]
	if e == nil || lane == 0 {
		return
	}
	if len(e.lines) > 0 {
		for _, id := range ids[:min(len(ids), fetchIDs)] {
			x.sink += uint64(e.lines[e.home(engineKey(x, id))].refs[0])
		}
	}
	var run uint32
	var set uint64
	for _, id := range ids {
		l, k := x.locate(e, lane, engineKey(x, id))
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

// remove empties a slot; the last entry of its line takes it.
func (e *engineIDs) remove(l *engineLine, k int) {
	e.n--
	e.pass(l.keys[k]&^0xffff, l, ^uint32(0))
	n := 0
	for _, ref := range l.refs {
		n += int(used(uint64(ref)))
	}
	l.keys[k], l.refs[k] = l.keys[n-1], l.refs[n-1]
	l.keys[n-1], l.refs[n-1] = 0, 0
}

// dropEngine forgets all ids of a tier.
func (x *Index) dropEngine(src *source, t dynamo.Tier) {
	if e := src.engine[t]; e != nil {
		x.bytes -= int64(len(e.lines))*lineBytes + int64(e.booked)*idEntryBytes + int64(len(e.more))*moreBytes
		src.engine[t] = nil
	}
}
