package kvindex

import (
	"math/bits"
	"unsafe"

	"github.com/dynamo-go/dynamo"
)

// Remove notes that a source holds blocks no longer in a tier. Those it was not
// known to hold are ignored.
func (x *Index) Remove(s Source, t dynamo.Tier, hashes []dynamo.BlockHash) {
	x.tidy()
	src := x.source(s)
	if src == nil || int(t) >= tiers || src.lanes[t] == 0 {
		return
	}
	lane := src.lanes[t]
	q := unsafe.Slice((*uint64)(unsafe.SliceData(hashes)), len(hashes))
	at := x.lanes.all[lane].gone
	var id uint32
	var set uint64
	for _, h := range q {
		if next := x.beside(at, h); next != 0 {
			at = next
		} else {
			if at = x.lookup(h); at == 0 {
				continue
			}
		}
		if at/runBlocks != id {
			x.take(id, lane, set)
			id, set = at/runBlocks, 0
		}
		set |= 1 << (at % runBlocks)
	}
	x.lanes.all[lane].gone = at
	x.take(id, lane, set)
	x.giveUpConflicts()
}

// beside returns the reference of a block if it is the one before or after another in
// its run, as blocks that are removed one after the other mostly are; else 0.
func (x *Index) beside(at uint32, h uint64) uint32 {
	if at == 0 {
		return 0
	}
	r, pos := x.runs.at(at/runBlocks), int(at%runBlocks)
	n := r.len()
	if pos > 0 && pos <= n && x.hash(r, pos-1) == h {
		return at - 1
	}
	if pos+1 < n && x.hash(r, pos+1) == h {
		return at + 1
	}
	return 0
}

// take takes blocks of a run from a lane, as far as it holds them.
func (x *Index) take(id, lane uint32, set uint64) {
	if set == 0 {
		return
	}
	r := x.runs.at(id)
	m := x.mask(r, lane)
	if m == nil {
		return
	}
	old := m.Load()
	if set &= old; set == 0 {
		return
	}
	m.Store(old &^ set)
	if old == set {
		r.hold--
	}
	x.credit(&x.lanes.all[lane], r, set, -1)
	x.trim(id, r)
}

// trim cuts off the blocks at a run's end that nobody holds, and the run when
// nobody holds any.
func (x *Index) trim(id uint32, r *run) {
	n := r.len()
	left := bits.Len64(x.union(r))
	if left == n {
		return
	}
	if left == 0 {
		x.dropHead(x.mix(x.hash(r, 0)), id)
	}
	r.state.Store(r.state.Load()&manyBit | uint32(left))
	x.blocks -= n - left
	if left == 0 {
		r.state.Store(0)
		x.table.dead += int(r.indexed)
		x.retire(id, false)
	}
}
