package kvindex

import (
	"math/bits"
	"sync/atomic"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// Store notes that a source holds blocks in a tier, each the successor of the one
// before it and the first that of parent, if it has one. A parent need not be known.
// What is known already stays as it is.
func (x *Index) Store(s Source, t dynamo.Tier, parent dynamo.BlockHash, hasParent bool, blocks []tokens.Block) {
	x.tidy()
	if l := x.lane(s, t); l != 0 {
		x.store(l, parent, hasParent, blocks, nil)
	} else {
		x.stats.Dropped += uint64(len(blocks))
	}
}

// cursor is where a chain being stored stands: at the block at pos of a run, whose
// blocks in bits the lane is to hold. id 0 is nowhere.
type cursor struct {
	id   uint32
	r    *run
	n    int // blocks of the run, including those not yet published
	pos  int
	bits uint64
	head bool // the run is not yet published
}

// store is Store for a lane. With refs it also notes where each block is; 0 is a
// block there was no memory for.
func (x *Index) store(lane uint32, parent dynamo.BlockHash, hasParent bool, blocks []tokens.Block, refs []uint32) {
	x.clock++
	x.settled = x.settled[:0]
	x.makeRoom(len(blocks))
	var c cursor
	if hasParent {
		at := x.lanes.all[lane].last
		if at == 0 || int(at%runBlocks) >= x.runs.at(at/runBlocks).len() || !x.means(at, uint64(parent)) {
			at = x.lookup(uint64(parent))
		}
		if at != 0 {
			c = x.at(at)
		}
	}
	touched, evicted := false, x.stats.Evicted
	for i := range blocks {
		h := uint64(blocks[i].Hash)
		if c.id == 0 || c.pos+1 >= c.n || x.hash(c.r, c.pos+1) != h {
			p, tag := x.table.split(x.mix(h))
			if p.n >= p.limit && !x.enlarge(p) {
				x.settle(lane, &c)
				x.refuse(lane, len(blocks)-i)
				return
			}
			at, slot := x.probe(p, tag, h)
			switch {
			case at != 0:
				x.settle(lane, &c)
				c = x.at(at)
				if before, ok := predecessor(blocks, i, parent, hasParent); ok && c.pos > 0 && x.hash(c.r, c.pos-1) != before {
					x.stats.Conflicts++
				}
				c.pos--
			case !x.extend(lane, &c, h):
				x.settle(lane, &c)
				x.refuse(lane, len(blocks)-i)
				return
			default:
				if x.stats.Evicted != evicted { // which has moved entries
					evicted = x.stats.Evicted
					_, slot = x.probe(p, tag, h)
				}
				p.slots[slot] = uint64(tag)<<32 | uint64(ref(c.id, c.pos+1))
				p.n++
				x.table.n++
				if !touched { // from here on blocks are most likely new
					touched = true
					x.touch(blocks[i+1:])
				}
			}
		}
		c.pos++
		c.bits |= 1 << c.pos
		if refs != nil {
			refs[i] = ref(c.id, c.pos)
		}
	}
	x.settle(lane, &c)
	x.lanes.all[lane].last = ref(c.id, c.pos)
}

// predecessor is the block before block i, if that is known.
func predecessor(blocks []tokens.Block, i int, parent dynamo.BlockHash, hasParent bool) (uint64, bool) {
	if i > 0 {
		return uint64(blocks[i-1].Hash), true
	}
	return uint64(parent), hasParent
}

// enlarge makes room in a part that has reached its limit, somehow: without memory
// it becomes denser, and when that has an end too, blocks are evicted.
func (x *Index) enlarge(p *part) bool {
	for i := range x.table.parts {
		if p == &x.table.parts[i] && x.growPart(i) {
			return true
		}
	}
	for range evictTries {
		if p.n+groupSlots < len(p.slots) {
			return true
		}
		if !x.evict() {
			break
		}
	}
	return p.n+1 < len(p.slots)
}

// at returns a cursor at a known block. Its run is stamped, so that it stays.
func (x *Index) at(ref uint32) cursor {
	r := x.runs.at(ref / runBlocks)
	r.stamp = x.clock
	return cursor{id: ref / runBlocks, r: r, n: r.len(), pos: int(ref % runBlocks)}
}

// touch has the memory fetched in which blocks will be looked for: many at once take
// little longer than one.
func (x *Index) touch(blocks []tokens.Block) {
	sum := uint64(0)
	for i := range blocks {
		sum += x.table.touch(x.mix(uint64(blocks[i].Hash)))
	}
	x.sink = sum
}

// extend makes a place for a new block behind the cursor, in its run if that ends
// there, else in another one. It reports false when there is no memory for it.
func (x *Index) extend(lane uint32, c *cursor, h uint64) bool {
	if c.id != 0 && c.pos == c.n-1 && c.n < runBlocks {
		r := c.r
		switch {
		case c.n < int(r.high) && x.hash(r, c.n) == h: // it was there before
			c.n++
			return true
		case c.n == int(r.high) && (c.n%segmentBlocks != 0 || x.addSegment(r, c.n)):
			x.segs.at(r.segs[c.n/segmentBlocks])[c.n%segmentBlocks] = h
			c.n++
			r.high = uint32(c.n)
			return true
		}
	}
	x.settle(lane, c)
	return x.begin(c, h)
}

// addSegment gives r the segment for the blocks from pos.
func (x *Index) addSegment(r *run, pos int) bool {
	s := x.segs.alloc(&x.budget)
	if s == 0 && x.evict() {
		s = x.segs.alloc(&x.budget)
	}
	r.segs[pos/segmentBlocks] = s
	return s != 0
}

// begin puts the cursor before the only block of a run that nobody can see yet.
func (x *Index) begin(c *cursor, h uint64) bool {
	if !x.reserveHead() && !(x.evict() && x.reserveHead()) {
		return false
	}
	id := x.runs.alloc(&x.budget)
	if id == 0 && x.evict() {
		id = x.runs.alloc(&x.budget)
	}
	if id == 0 {
		return false
	}
	r := x.runs.at(id)
	if !x.addSegment(r, 0) {
		x.runs.release(id)
		return false
	}
	x.segs.at(r.segs[0])[0] = h
	r.high = 1
	*c = cursor{id: id, r: r, n: 1, pos: -1, head: true}
	return true
}

// settle publishes what a cursor has gathered in its run: the blocks, and that the
// lane holds those in bits.
func (x *Index) settle(lane uint32, c *cursor) {
	if c.bits == 0 {
		return
	}
	r := c.r
	r.stamp = x.clock
	l := &x.lanes.all[lane]
	many := l.tier != dynamo.TierDevice || l.guess
	fresh := c.bits
	switch m := x.maskFor(r, c.head, lane); {
	case c.head:
		r.lane0.Store(lane)
		r.mask0.Store(c.bits)
		r.hold = 1
		state := uint32(c.n)
		if many {
			state |= manyBit
		}
		r.state.Store(state)
		x.insertHead(x.mix(x.hash(r, 0)), c.id)
	case m != nil:
		old := m.Load()
		fresh &^= old
		if c.n != r.len() {
			r.state.Store(r.state.Load()&manyBit | uint32(c.n))
		}
		if fresh != 0 {
			if old == 0 {
				r.hold++
			}
			m.Store(old | fresh)
		}
	default:
		if c.n != r.len() {
			r.state.Store(r.state.Load()&manyBit | uint32(c.n))
		}
		if !x.addHolder(r, lane, fresh, many) {
			x.refuse(lane, bits.OnesCount64(fresh))
			x.trim(c.id, r)
			fresh = 0
			break
		}
		r.hold++
	}
	x.credit(l, r, fresh, 1)
	x.settled = append(x.settled, settled{c.id, c.bits, fresh})
	c.bits, c.head = 0, false
}

// maskFor is mask, unless the run is new.
func (x *Index) maskFor(r *run, head bool, lane uint32) *atomic.Uint64 {
	if head {
		return nil
	}
	return x.mask(r, lane)
}

// credit adds (sign 1) or takes (-1) blocks of r to or from what is known of a lane.
func (x *Index) credit(l *lane, r *run, set uint64, sign int64) {
	n := int64(bits.OnesCount64(set))
	l.blocks += sign * n
	x.held += sign * n
	if l.guess {
		return
	}
	more := sign < 0 && x.hasMore(l)
	sum := uint64(0)
	for ; set != 0; set &= set - 1 {
		h := x.hash(r, bits.TrailingZeros64(set))
		sum += digestOf(h)
		if more {
			x.forgetMore(l, h)
		}
	}
	l.digest += uint64(sign) * sum
}

// refuse counts blocks there was no memory for.
func (x *Index) refuse(lane uint32, n int) {
	x.stats.Dropped += uint64(n)
	x.sources[x.lanes.all[lane].source].state = Approximate
}
