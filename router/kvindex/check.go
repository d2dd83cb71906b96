package kvindex

import (
	"fmt"
	"math/bits"
)

// Check verifies what must hold inside an index, for tests: it looks at everything.
func (x *Index) Check() error {
	x.tell()
	for i := range x.table.parts {
		for k := range x.table.parts[i].lists {
			x.findConflicts(&x.table.parts[i], k)
		}
	}
	x.giveUpConflicts()
	blocks, runs, words, held := 0, 0, 0, make([]int64, len(x.lanes.all))
	for id := uint32(1); id < x.runs.next; id++ {
		r := x.runs.at(id)
		n := r.len()
		if n == 0 {
			continue
		}
		runs++
		words += int(r.indexed)
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
	if blocks != x.blocks || runs != x.heads.n || words != x.table.n-x.table.dead {
		return fmt.Errorf("%d blocks in %d runs and %d words of them; counted are %d, %d and %d", blocks, runs, words, x.blocks, x.heads.n, x.table.n-x.table.dead)
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
