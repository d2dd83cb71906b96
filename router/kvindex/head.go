package kvindex

import (
	"math/bits"
	"sync/atomic"
)

// heads finds a run by the hash of its first block. Lookups read it while the
// writer changes it: a slot is one word, 32 bits of the mixed hash and the run,
// and the run's own hashes decide. A table that grows is another table.
type heads struct {
	slots atomic.Pointer[[]atomic.Uint64]
	_     apart
	n     int // runs
	gone  int // slots of runs that are gone, which do not end a search

	// The writer asks for each new block whether a run begins with it, and mostly none
	// does. So it has two bits for a tag that may be there, in a table that is small enough
	// to stay in its cache; bits of runs that are gone go when it is made again.
	maybe []uint64
	noted int // bits set since, maybe some twice
	_     apart
}

const (
	minHeads  = 64
	goneSlot  = 1 // no run is 0, so no entry has this value
	headsLoad = 0.7
	headBytes = 8 + 1 // of a slot and its share of maybe
)

func (t *heads) init() {
	s := make([]atomic.Uint64, minHeads)
	t.slots.Store(&s)
	t.n, t.gone = 0, 0
	t.maybe, t.noted = make([]uint64, minHeads/8), 0
}

// note sets a tag's bit.
func (t *heads) note(tag uint32) {
	if t.noted++; t.noted > len(t.maybe)*8 {
		t.renote()
	}
	at, two := t.bits(tag)
	t.maybe[at] |= two
}

// bits returns the word of maybe that a tag belongs to, and its two bits there.
func (t *heads) bits(tag uint32) (at int, two uint64) {
	return int(tag>>1) & (len(t.maybe) - 1), 1<<(tag>>20&63) | 1<<(tag>>26)
}

// renote sets the bits of the runs that are there.
func (t *heads) renote() {
	clear(t.maybe)
	t.noted = 1
	slots := *t.slots.Load()
	for i := range slots {
		if w := slots[i].Load(); w>>32 != 0 {
			t.noted++
			at, two := t.bits(uint32(w >> 32))
			t.maybe[at] |= two
		}
	}
}

// headTag is the part of a mixed hash that heads keeps; it is never 0.
func headTag(mixed uint64) uint32 { return uint32(mixed>>32) | 1 }

func headHome(tag uint32, slots int) int {
	return int(tag >> (33 - bits.Len32(uint32(slots))))
}

// reserveHead makes sure that one more run fits.
func (x *Index) reserveHead() bool {
	t := &x.heads
	old := *t.slots.Load()
	if float64(t.n+t.gone+1) <= headsLoad*float64(len(old)) {
		return true
	}
	size := len(old)
	for float64(t.n+1) > headsLoad/2*float64(size) {
		size *= 2
	}
	if !x.budget.take(int64(size-len(old)) * headBytes) {
		if size = len(old); t.gone*8 < size { // else a new table is worth it even so
			return t.n+t.gone+2 < size
		}
	}
	fresh := make([]atomic.Uint64, size)
	for i := range old {
		if w := old[i].Load(); w>>32 != 0 {
			j := headHome(uint32(w>>32), size)
			for fresh[j].Load() != 0 {
				j = (j + 1) % size
			}
			fresh[j].Store(w)
		}
	}
	t.slots.Store(&fresh)
	t.gone = 0
	if len(t.maybe) != size/8 {
		t.maybe = make([]uint64, size/8)
	}
	t.renote()
	return true
}

// insertHead publishes a run, after reserveHead.
func (x *Index) insertHead(mixed uint64, id uint32) {
	slots := *x.heads.slots.Load()
	tag := headTag(mixed)
	i := headHome(tag, len(slots))
	for {
		w := slots[i].Load()
		if w>>32 == 0 {
			if w == goneSlot {
				x.heads.gone--
			}
			break
		}
		i = (i + 1) % len(slots)
	}
	slots[i].Store(uint64(tag)<<32 | uint64(id))
	x.heads.n++
	x.heads.note(tag)
}

// dropHead hides a run from lookups that begin after it.
func (x *Index) dropHead(mixed uint64, id uint32) {
	slots := *x.heads.slots.Load()
	tag := headTag(mixed)
	want := uint64(tag)<<32 | uint64(id)
	i := headHome(tag, len(slots))
	for {
		w := slots[i].Load()
		if w == want {
			break
		}
		if w == 0 {
			panic("BUG: kvindex: a run is not among the heads")
		}
		i = (i + 1) % len(slots)
	}
	x.heads.n--
	if slots[(i+1)%len(slots)].Load() == 0 {
		slots[i].Store(0)
		return
	}
	slots[i].Store(goneSlot)
	x.heads.gone++
}

// headOf returns the run whose first block has that hash, or 0.
func (x *Index) headOf(h uint64) uint32 {
	tag := headTag(x.mix(h))
	if at, two := x.heads.bits(tag); x.heads.maybe[at]&two != two {
		return 0
	}
	slots := *x.heads.slots.Load()
	for i := headHome(tag, len(slots)); ; i++ {
		w := slots[i&(len(slots)-1)].Load()
		if w == 0 {
			return 0
		}
		if uint32(w>>32) == tag && x.means(uint32(w)*runBlocks, h) {
			return uint32(w)
		}
	}
}
