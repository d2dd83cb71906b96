package kvindex

import "math"

// table finds a block by its hash: it maps hashes to references. The writer alone
// uses it; lookups need only the heads of runs.
//
// A slot is a word: 32 bits of the mixed hash, and the reference. The hash itself
// is in the block's run and decides. Slots stand in groups of eight, a cache line;
// the mixed hash names a group in order of its size (no power of two is needed),
// and an entry is in its group or, when that is full, in the next one with room. So
// the slots in use are the first ones of their group, and a group with an empty slot
// ends the search. Searching a group takes the same steps whatever is in it: a
// wrong guess of the processor would cost more than all of them.
//
// The table consists of parts, by the first eight bits, which grow one at a time:
// entries keep their order then, so growing reads and writes memory in order and
// needs no hashes.
type table struct {
	parts [tableParts]part
	n     int
	used  []uint8 // of the groups of a part that is made
}

type part struct {
	slots []uint64
	n     int
	limit int // of n, at which the part grows
	step  int // of the part's schedule of sizes
}

const (
	tableParts  = 256
	groupSlots  = 8
	maxLoad     = 0.875
	partGrowth  = 2
	emptyPart   = groupSlots * 8 // bytes
	tableBytes0 = tableParts * emptyPart
)

// groups is the number of groups of part i after so many steps. Parts of equal
// load grow at different times.
func groups(i, step int) int {
	return int(math.Ceil(math.Pow(partGrowth, float64(step)+float64(i)/tableParts-1)))
}

func (t *table) init() {
	for i := range t.parts {
		size := groups(i, 0) * groupSlots
		t.parts[i] = part{slots: make([]uint64, size), limit: int(maxLoad * float64(size))}
	}
	t.n = 0
}

// bytes is the memory of all slots.
func (t *table) bytes() (n int64) {
	for i := range t.parts {
		n += int64(len(t.parts[i].slots)) * 8
	}
	return n
}

// home is the slot at which the search for a mixed hash begins.
func (p *part) home(tag uint32) int {
	return int(uint64(tag)*uint64(len(p.slots)/groupSlots)>>32) * groupSlots
}

// split returns the part and the tag of a mixed hash, which is not 0.
func (t *table) split(mixed uint64) (*part, uint32) {
	return &t.parts[mixed>>56], max(uint32(mixed>>24), 1)
}

// touch reads the word at which the search will begin, so that its cache line is
// on its way.
func (t *table) touch(mixed uint64) uint64 {
	p, tag := t.split(mixed)
	return p.slots[p.home(tag)]
}

// search returns the reference the table has for a block, or 0.
func (x *Index) search(h uint64) uint32 {
	p, tag := x.table.split(x.mix(h))
	for i := p.home(tag); ; {
		g := (*[groupSlots]uint64)(p.slots[i:])
		for k := 0; k < groupSlots; k += 4 {
			if uint32(g[k]>>32) == tag && x.means(uint32(g[k]), h) {
				return uint32(g[k])
			}
			if uint32(g[k+1]>>32) == tag && x.means(uint32(g[k+1]), h) {
				return uint32(g[k+1])
			}
			if uint32(g[k+2]>>32) == tag && x.means(uint32(g[k+2]), h) {
				return uint32(g[k+2])
			}
			if uint32(g[k+3]>>32) == tag && x.means(uint32(g[k+3]), h) {
				return uint32(g[k+3])
			}
		}
		if g[groupSlots-1] == 0 {
			return 0
		}
		if i += groupSlots; i == len(p.slots) {
			i = 0
		}
	}
}

// means says whether a reference is that of the block.
func (x *Index) means(ref uint32, h uint64) bool {
	r, pos := x.runs.at(ref/runBlocks), int(ref%runBlocks)
	return pos < r.len() && x.hash(r, pos) == h
}

// growPart makes part i larger, if the budget allows.
func (x *Index) growPart(i int) bool {
	p := &x.table.parts[i]
	step := p.step
	size := len(p.slots)
	for size*4 < len(p.slots)*5 || size == len(p.slots) {
		step++
		size = groups(i, step) * groupSlots
	}
	if !x.budget.take(int64(size-len(p.slots)) * 8) {
		return false
	}
	old := p.slots
	*p = part{slots: make([]uint64, size), n: p.n, limit: int(maxLoad * float64(size)), step: step}
	x.table.used = append(x.table.used[:0], make([]uint8, size/groupSlots)...)
	for _, w := range old {
		if w == 0 {
			continue
		}
		g := p.home(uint32(w>>32)) / groupSlots
		for x.table.used[g] == groupSlots {
			if g++; g == len(x.table.used) {
				g = 0
			}
		}
		p.slots[g*groupSlots+int(x.table.used[g])] = w
		x.table.used[g]++
	}
	return true
}

// used is 1 for a slot in use, else 0.
func used(w uint64) uint64 { return (w | -w) >> 63 }

// drop takes an entry out.
func (t *table) drop(p *part, tag, ref uint32) {
	want := uint64(tag)<<32 | uint64(ref)
	i := p.home(tag)
	for p.slots[i] != want {
		if p.slots[i] == 0 {
			panic("BUG: kvindex: a block is not in the table")
		}
		if i++; i == len(p.slots) {
			i = 0
		}
	}
	p.n--
	t.n--
	p.vacate(i)
}

// vacate empties a slot and closes the gap.
func (p *part) vacate(i int) {
	for {
		start := i &^ (groupSlots - 1)
		g := (*[groupSlots]uint64)(p.slots[start:])
		n := used(g[0]) + used(g[1]) + used(g[2]) + used(g[3]) + used(g[4]) + used(g[5]) + used(g[6]) + used(g[7])
		g[i-start], g[n-1] = g[n-1], 0
		if n < groupSlots {
			return
		}
		// The group was full, so entries that belong here or before may have had to go
		// further. One of them comes back.
		j := p.strayed(start)
		if j < 0 {
			return
		}
		g[groupSlots-1] = p.slots[j]
		i = j
	}
}

// strayed returns the slot of an entry behind the group at start that belongs there
// or before, or -1.
func (p *part) strayed(start int) int {
	for at := start; ; {
		if at += groupSlots; at == len(p.slots) {
			at = 0
		}
		if at == start {
			return -1
		}
		g := (*[groupSlots]uint64)(p.slots[at:])
		for k, w := range g {
			if w == 0 {
				return -1
			}
			if between(p.home(uint32(w>>32)), start, at+k) {
				return at + k
			}
		}
	}
}

// between says whether an entry whose home is there may move from j to i, both on
// the circle of slots: whether i is not before its home.
func between(home, i, j int) bool {
	if i <= j {
		return home <= i || home > j
	}
	return home <= i && home > j
}
