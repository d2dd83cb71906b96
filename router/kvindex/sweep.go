package kvindex

import (
	"math/bits"
	"sync/atomic"

	"github.com/dynamo-go/dynamo"
)

// Sweep frees what sources hold that are gone, looking at up to so many runs, and
// reports whether nothing of the kind is left. Writes do some of it as they go; who
// is idle may do more.
func (x *Index) Sweep(runs int) bool {
	x.sweep(runs, runs*runBlocks)
	if x.sweeping == 0 && len(x.lanes.dead) == 0 && x.reclaim() && x.runs.live == len(x.table.buried) && x.runs.next > 1 {
		x.reset()
	}
	return x.sweeping == 0 && len(x.lanes.dead) == 0
}

// tidy is the cleaning that goes with every write.
func (x *Index) tidy() {
	if len(x.lanes.dead) == 0 {
		return
	}
	if x.sweeping == 0 && len(x.lanes.dead) < sweepLanes && x.lanes.gone*sweepShare < x.held && !x.tight() {
		return
	}
	if x.tight() {
		x.Sweep(int(x.runs.next))
		return
	}
	x.sweep(sweepRuns, sweepBlocks)
}

// sweep goes on with the pass over all runs, beginning one if lanes have ended. A
// pass takes from runs the lanes that had ended when it began; after it they can be
// used again.
func (x *Index) sweep(runs, blocks int) {
	dead := &x.lanes.dead
	if x.sweeping == 0 {
		if len(*dead) == 0 {
			return
		}
		x.sweeping, x.sweepLanes = 1, len(*dead)
		x.lanes.gone = 0
	}
	was := x.blocks
	for ; runs > 0 && x.sweeping < x.runs.next && was-x.blocks < blocks; runs-- {
		if r := x.runs.at(x.sweeping); r.len() > 0 {
			x.cleanRun(x.sweeping, r)
		}
		x.sweeping++
	}
	if x.sweeping >= x.runs.next {
		x.lanes.ended.Add(-int32(x.sweepLanes))
		x.lanes.free = append(x.lanes.free, (*dead)[:x.sweepLanes]...)
		*dead = append((*dead)[:0], (*dead)[x.sweepLanes:]...)
		x.sweeping = 0
	}
}

// cleanRun takes lanes that have ended out of a run.
func (x *Index) cleanRun(id uint32, r *run) {
	ended, kept := 0, 0
	if l := r.lane0.Load(); l != 0 && !x.lanes.alive(l) {
		if r.mask0.Load() != 0 {
			r.hold--
		}
		r.mask0.Store(0)
		r.lane0.Store(0)
		ended++
	}
	at := r.more.Load()
	if at != 0 {
		for l, m := range x.holders(r) {
			if m == &r.mask0 {
				continue
			}
			if x.lanes.alive(l) {
				kept++
				continue
			}
			if m.Load() != 0 {
				r.hold--
			}
			m.Store(0)
			ended++
		}
	}
	if ended == 0 {
		return
	}
	x.trim(id, r)
	if at != 0 && r.len() > 0 {
		x.rebuild(r, at, kept)
	}
}

// rebuild replaces the holder arrays of r, which begin at at, by one without lanes
// that have ended.
func (x *Index) rebuild(r *run, at uint32, kept int) {
	first := uint32(0)
	for kept > 0 {
		class := classFor(kept)
		fresh := x.words.alloc(&x.budget, class)
		if fresh == 0 {
			break
		}
		kept -= arrayCap(class)
		a := x.words.at(fresh)
		a[1].Store(uint64(class))
		a[0].Store(packHead(0, first))
		first = fresh
	}
	to := first
	n := 0
	for l, m := range x.holders(r) {
		if m == &r.mask0 || !x.lanes.alive(l) {
			continue
		}
		var a []atomic.Uint64
		for to != 0 {
			a = x.words.at(to)
			if n < arrayCap(int(a[1].Load())) {
				break
			}
			_, to = unpackHead(a[0].Load())
			n = 0
		}
		if to == 0 { // no memory: the lane's blocks here are given up
			if set := m.Load(); set != 0 {
				r.hold--
				x.giveUp(r, l, set)
			}
			continue
		}
		a[arrayHead+n*entryWords].Store(packLane(x.lanes.info(l), l))
		a[arrayHead+n*entryWords+1].Store(m.Load())
		n++
		_, next := unpackHead(a[0].Load())
		a[0].Store(packHead(n, next))
	}
	r.more.Store(first)
	x.retire(at, true)
}

// giveUp notes that a lane that is alive has blocks of r no longer, which it had.
func (x *Index) giveUp(r *run, l uint32, set uint64) {
	x.credit(&x.lanes.all[l], r, set, -1)
	if !x.lanes.all[l].guess {
		x.stats.Evicted += uint64(bits.OnesCount64(set))
		x.sources[x.lanes.all[l].source].state = Approximate
	}
}

// evict drops a run that few hold and nobody has stored to for long, of a few that
// it looks at, and reports whether its memory can be used. The blocks behind it stay:
// they count again when it is stored again.
func (x *Index) evict() bool {
	best, key := uint32(0), ^uint64(0)
	for i, seen := uint32(0), 0; i < x.runs.next && seen < evictSample; i++ {
		if x.hand++; x.hand >= x.runs.next {
			x.hand = 1
		}
		r := x.runs.at(x.hand)
		if r.len() == 0 || r.stamp == x.clock {
			continue
		}
		seen++
		if k := uint64(r.hold)<<32 | uint64(r.stamp); k < key {
			best, key = x.hand, k
		}
	}
	if best == 0 {
		return false
	}
	x.cut(best, x.runs.at(best), 0)
	x.reclaim()
	return true
}

// cut takes the blocks of r from a position on from everybody.
func (x *Index) cut(id uint32, r *run, from int) {
	for l, m := range x.holders(r) {
		old := m.Load()
		set := old &^ limitTo(from)
		if set == 0 {
			continue
		}
		m.Store(old &^ set)
		if old == set {
			r.hold--
		}
		if x.lanes.alive(l) {
			x.giveUp(r, l, set)
		}
	}
	x.trim(id, r)
}

// tight says that the budget does not allow much more.
func (x *Index) tight() bool { return x.bytes+4*chunkBytes > x.max }

// makeRoom evicts ahead when the budget is used up, so that memory is there even if
// lookups hold back what was freed last.
func (x *Index) makeRoom(blocks int) {
	if !x.tight() {
		return
	}
	if len(x.retired) > x.reclaimed {
		x.reclaim()
	}
	x.weedAll()
	units := spareUnits + blocks/segmentBlocks
	for range units {
		waiting := len(x.retired) - x.reclaimed
		if x.segs.room()+waiting*2 >= units && x.runs.room()+waiting >= spareUnits/4 {
			return
		}
		if !x.evict() {
			return
		}
	}
}

// reset gives back all memory of an index that holds nothing.
func (x *Index) reset() {
	x.runs.reset(&x.budget)
	x.segs.reset(&x.budget)
	x.words.reset(&x.budget)
	x.table.pages.reset(&x.budget)
	for i := range x.table.parts {
		x.bytes -= int64(len(x.table.parts[i].lists)-1) * listBytes
	}
	x.bytes -= int64(len(*x.heads.slots.Load())-minHeads) * headBytes
	x.table.init()
	x.heads.init()
	clear(x.recent)
	x.hand, x.retired, x.reclaimed = 0, nil, 0
	for i := range x.lanes.all { // references that mean nothing any more
		x.lanes.all[i].last, x.lanes.all[i].gone = 0, 0
	}
	for i := range x.sources {
		for t := range tiers {
			x.dropEngine(&x.sources[i], dynamo.Tier(t))
		}
	}
}
