package kvbm

import (
	"math/bits"

	"github.com/dynamo-go/dynamo"
)

// table finds entries by their hashes: open addressing, at most half full. A slot has
// enough of the hash that what is looked for in vain touches the table alone, and that
// slots move without a look at their entries.
type table struct {
	slots []slot // a power of two
	used  int
	shift int // of a tag, to the place where its search begins
}

// slot is one entry's place; the zero slot is empty.
type slot struct {
	tag   uint32
	entry int32 // plus one
}

// tag is the part of a hash that is kept, mixed so that its top bits depend on all.
func tag(h dynamo.BlockHash) uint32 { return uint32(uint64(h) * 0x9e3779b97f4a7c15 >> 32) }

func newTable(n int) table {
	return table{slots: make([]slot, n), shift: 32 - bits.TrailingZeros(uint(n))}
}

// home is where the search for a tag begins.
func (t *table) home(tag uint32) int { return int(tag >> t.shift) }

func (t *table) next(i int) int { return (i + 1) & (len(t.slots) - 1) }

// add puts an entry in.
func (t *table) add(s slot) {
	if t.used++; 2*t.used > len(t.slots) {
		t.grow()
	}
	t.place(s)
}

// place puts an entry into the first slot that is free for it; there is one.
func (t *table) place(s slot) {
	i := t.home(s.tag)
	for t.slots[i].entry != 0 {
		i = t.next(i)
	}
	t.slots[i] = s
}

// grow doubles the table.
func (t *table) grow() {
	larger := newTable(2 * len(t.slots))
	larger.used = t.used
	for _, s := range t.slots {
		if s.entry != 0 {
			larger.place(s)
		}
	}
	*t = larger
}

// remove empties the slot of entry e with hash h, and moves those behind it that would
// no longer be found.
func (t *table) remove(h dynamo.BlockHash, e int32) {
	free := t.home(tag(h))
	for t.slots[free].entry != e+1 {
		free = t.next(free)
	}
	mask := len(t.slots) - 1
	for i := t.next(free); t.slots[i].entry != 0; i = t.next(i) {
		if (i-t.home(t.slots[i].tag))&mask >= (i-free)&mask {
			t.slots[free] = t.slots[i]
			free = i
		}
	}
	t.slots[free] = slot{}
	t.used--
}

// find returns the entry with the given hash, or none and how many slots were looked
// at.
func (p *Pool) find(h dynamo.BlockHash) (e int32, length int) {
	t, want := &p.table, tag(h)
	for i := t.home(want); ; i = t.next(i) {
		s := t.slots[i]
		if s.entry == 0 {
			return none, length
		}
		if s.tag == want && p.entries.at(s.entry-1).content.Hash == h {
			return s.entry - 1, length
		}
		length++
	}
}
