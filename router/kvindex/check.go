package kvindex

import (
	"fmt"
	"math/bits"
)

// Check verifies what must hold inside an index, for tests: it looks at everything.
func (x *Index) Check() error {
	x.index()
	x.unindex()
	blocks, runs, held := 0, 0, make([]int64, len(x.lanes.all))
	for id := uint32(1); id < x.runs.next; id++ {
		r := x.runs.at(id)
		n := r.len()
		if n == 0 {
			continue
		}
		runs++
		blocks += n
		hold := uint32(0)
		seen := map[uint32]bool{}
		for l, m := range x.holders(r) {
			set := m.Load()
			if seen[l] {
				return fmt.Errorf("run %d has lane %d twice", id, l)
			}
			seen[l] = true
			if set != 0 {
				hold++
			}
			if bits.Len64(set) > n {
				return fmt.Errorf("run %d of %d blocks has holder %d of %x", id, n, l, set)
			}
			held[l] += int64(bits.OnesCount64(set))
		}
		if hold != r.hold {
			return fmt.Errorf("run %d counts %d holders and has %d", id, r.hold, hold)
		}
		if bits.Len64(x.union(r)) != n {
			return fmt.Errorf("nobody holds the last of the %d blocks of run %d", n, id)
		}
		for pos := range n {
			if got := x.lookup(x.hash(r, pos)); got != ref(id, pos) {
				return fmt.Errorf("the table says block %d of run %d is %x", pos, id, got)
			}
		}
	}
	if blocks != x.blocks || blocks != x.table.n || runs != x.heads.n {
		return fmt.Errorf("%d blocks in %d runs; the tables have %d and %d", blocks, runs, x.table.n, x.heads.n)
	}
	all := int64(0)
	for l := range x.lanes.all {
		if l > 0 && x.lanes.alive(uint32(l)) {
			all += held[l]
			if held[l] != x.lanes.all[l].blocks {
				return fmt.Errorf("lane %d holds %d blocks and counts %d", l, held[l], x.lanes.all[l].blocks)
			}
		}
	}
	if all != x.held {
		return fmt.Errorf("%d blocks are held, %d are counted", all, x.held)
	}
	if x.bytes > x.max {
		return fmt.Errorf("%d bytes, %d allowed", x.bytes, x.max)
	}
	return nil
}
