package kvindex

import (
	"math/bits"
	"sync/atomic"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// Store notes that a source holds blocks in a tier, each the successor of the one
// before it and the first that of parent; only the first block of a sequence has no
// parent. A parent need not be known. What is known already stays as it is.
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
	if len(blocks) == 0 {
		return
	}
	x.clock++
	x.settled = x.settled[:0]
	x.makeRoom(len(blocks))
	var c cursor
	if hasParent {
		at := x.lanes.all[lane].last
		if at == 0 || !x.means(at, uint64(parent)) {
			at = x.lookup(uint64(parent))
		}
		if at != 0 {
			c = x.at(at)
		}
	}
	done := x.storeFrom(lane, &c, blocks, refs)
	if done < len(blocks) {
		x.refuse(lane, len(blocks)-done)
	}
	if done > 0 {
		end := ref(c.id, c.pos)
		x.lanes.all[lane].last = end
		x.recent[x.mix(uint64(blocks[done-1].Hash))>>(64-recentBits)] = end
	}
	x.giveUpConflicts()
}

// storeFrom stores blocks behind the cursor. It returns how many there was memory for.
func (x *Index) storeFrom(lane uint32, c *cursor, blocks []tokens.Block, refs []uint32) int {
	for i := 0; i < len(blocks); {
		h := uint64(blocks[i].Hash)
		n := 1
		if c.id == 0 || c.pos+1 >= c.n || x.hash(c.r, c.pos+1) != h {
			// A block whose predecessor is known and not just before it is a run's first
			// one, and so is one whose predecessor is not known; if not, it is new.
			if id := x.headOf(h); id != 0 {
				if !x.settle(lane, c) {
					return i
				}
				*c = x.at(ref(id, 0))
				c.pos--
			} else if n = x.extend(c, blocks[i:]); n == 0 {
				if n = 1; !x.settle(lane, c) || !x.begin(c, h) {
					return i
				}
			}
		}
		for range n {
			c.pos++
			c.bits |= 1 << c.pos
			if refs != nil {
				refs[i] = ref(c.id, c.pos)
			}
			i++
		}
	}
	x.settle(lane, c)
	return len(blocks)
}

// at returns a cursor at a known block. Its run is stamped, so that it stays; but not
// each time, as lookups read that line.
func (x *Index) at(ref uint32) cursor {
	r := x.runs.at(ref / runBlocks)
	if x.clock-r.stamp > uint32(x.runs.live)/stampShare {
		r.stamp = x.clock
	}
	return cursor{id: ref / runBlocks, r: r, n: r.len(), pos: int(ref % runBlocks)}
}

// extend makes places behind the cursor in its run, if that ends there, for blocks of
// which the first is new. It returns for how many, up to the next one that is not new,
// or has no room in the run or in memory.
func (x *Index) extend(c *cursor, blocks []tokens.Block) int {
	if c.id == 0 || c.pos != c.n-1 {
		return 0
	}
	r, was := c.r, c.n
	r.stamp = x.clock // evicting spares it
	for i := range blocks[:min(len(blocks), runBlocks-c.n)] {
		h := uint64(blocks[i].Hash)
		if i > 0 && x.headOf(h) != 0 {
			break
		}
		if c.n < int(r.high) {
			if x.hash(r, c.n) != h {
				break
			}
			c.n++ // it was there before
			continue
		}
		if c.n%segmentBlocks == 0 && !x.addSegment(r, c.n) {
			break
		}
		x.segs.at(r.segs[c.n/segmentBlocks])[c.n%segmentBlocks] = h
		c.n++
		r.high = uint8(c.n)
	}
	return c.n - was
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
	r.high, r.indexed = 1, 0
	*c = cursor{id: id, r: r, n: 1, pos: -1, head: true}
	return true
}

// settle publishes what a cursor has gathered in its run: the blocks, and that the
// lane holds those in bits. It reports false when there was no memory for them, or for
// some that were stored before, and they are given up.
func (x *Index) settle(lane uint32, c *cursor) bool {
	if c.bits == 0 {
		return true
	}
	r := c.r
	r.stamp = x.clock
	l := &x.lanes.all[lane]
	many := l.tier != dynamo.TierDevice || l.guess
	fresh := c.bits
	m := x.maskFor(r, c.head, lane)
	if n := r.len(); c.n != n { // n is 0 if nobody sees the run yet
		x.blocks += c.n - n
	}
	switch {
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
	return int(r.indexed) >= r.len() || x.list(c.id, r)
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
