package kvindex

// backlog is what the table has not been told yet. Blocks come and go in runs, and
// the table has them all over its memory; so it is told of many at once, in the order
// of its parts, each of which is small enough to be fetched once for all that concerns
// it. Blocks that go before that never come to the table.
//
// What is not told yet is the blocks of the queued runs behind those indexed, and the
// entries of blocks that are gone. These mean nothing: whoever follows a reference
// compares the hash.
type backlog struct {
	size  int      // of n, and of gone, at which the table is told
	runs  []uint32 // queued
	n     int      // blocks that were added to them, of which some may be gone
	gone  []entry
	order []entry // buffer
}

// entry is a block with its mixed hash.
type entry struct {
	mixed uint64
	ref   uint32
}

const (
	// recentBits is the number of bits of a mixed hash that index the blocks at which
	// stores ended.
	recentBits = 13
	// fewEntries is a number of entries that are not worth sorting.
	fewEntries   = 512
	readyEntries = 64
)

// backlogFor is the size for a budget.
func backlogFor(maxBytes int64) int {
	return int(min(max(maxBytes>>11, minBacklog), maxBacklog))
}

// lookup returns the reference of a known block, or 0.
func (x *Index) lookup(h uint64) uint32 {
	if at := x.recent[x.mix(h)>>(64-recentBits)]; at != 0 && x.means(at, h) {
		return at
	}
	at := x.search(h)
	if at == 0 && len(x.backlog.runs) > 0 {
		if id := x.headOf(h); id != 0 {
			return ref(id, 0)
		}
		x.index()
		at = x.search(h)
	}
	return at
}

// list queues a run to which n blocks are added.
func (x *Index) list(id uint32, r *run, n int) {
	b := &x.backlog
	b.n += n
	if !r.queued {
		r.queued = true
		b.runs = append(b.runs, id)
	}
}

// unlist takes the blocks of a run behind those that are left out of the table, as
// far as they are there.
func (x *Index) unlist(id uint32, r *run, left int) {
	b := &x.backlog
	for pos := left; pos < int(r.indexed); pos++ {
		b.gone = append(b.gone, entry{x.mix(x.hash(r, pos)), ref(id, pos)})
	}
	r.indexed = min(r.indexed, uint8(left))
	if len(b.gone) >= b.size {
		x.unindex()
	}
}

// unindex takes out of the table what is gone.
func (x *Index) unindex() {
	b := &x.backlog
	for all := b.sort(b.gone); len(all) > 0; {
		n := x.ready(all)
		for _, e := range all[:n] {
			p, tag := x.table.split(e.mixed)
			x.table.drop(p, tag, e.ref)
		}
		all = all[n:]
	}
	b.gone = b.gone[:0]
}

// sort brings entries into the order of the table's parts, unless they are few.
func (b *backlog) sort(all []entry) []entry {
	if len(all) < fewEntries {
		return all
	}
	var at [tableParts]uint32
	for i := range all {
		at[all[i].mixed>>56]++
	}
	sum := uint32(0)
	for i, n := range at {
		at[i] = sum
		sum += n
	}
	if cap(b.order) < len(all) {
		b.order = make([]entry, len(all), max(len(all), b.size*5/4))
	}
	out := b.order[:len(all)]
	for i := range all {
		k := &at[all[i].mixed>>56]
		out[*k] = all[i]
		*k++
	}
	return out
}

// index tells the table all it was not told yet. It reports false when it had no room
// for some blocks, which are given up then.
func (x *Index) index() bool {
	x.unindex()
	b := &x.backlog
	ok := true
	if b.n < fewEntries || !x.indexMany() {
		ok = x.indexEach()
	}
	b.runs, b.n = b.runs[:0], 0
	return ok
}

// indexMany tells the table of the blocks of all queued runs. It reports false when
// there is no memory for them.
func (x *Index) indexMany() bool {
	b := &x.backlog
	var add [tableParts]int
	fresh := b.gone[:0]
	for _, id := range b.runs {
		r := x.runs.at(id)
		for pos, n := int(r.indexed), r.len(); pos < n; pos++ {
			m := x.mix(x.hash(r, pos))
			add[m>>56]++
			fresh = append(fresh, entry{m, ref(id, pos)})
		}
	}
	b.gone = fresh[:0]
	for i, n := range add {
		for p := &x.table.parts[i]; p.n+n > p.limit; {
			if !x.growPart(i) {
				return false
			}
		}
	}
	conflicts := b.runs[:0]
	for _, id := range b.runs {
		r := x.runs.at(id)
		r.queued, r.indexed = false, uint8(r.len())
	}
	for all := b.sort(fresh); len(all) > 0; {
		n := x.ready(all)
		for _, e := range all[:n] {
			p, tag := x.table.split(e.mixed)
			if !x.insert(p, tag, e.ref) {
				conflicts = append(conflicts, e.ref)
			}
		}
		all = all[n:]
	}
	for _, at := range conflicts {
		x.conflict(at)
	}
	return true
}

// ready has the memory fetched in which some of the first entries are or will be, and
// returns how many: many at once take little longer than one.
func (x *Index) ready(all []entry) int {
	n := min(len(all), readyEntries)
	sum := uint64(0)
	for i := range all[:n] {
		sum += x.table.touch(all[i].mixed)
	}
	x.sink = sum
	return n
}

// insert adds an entry. It reports false when the block is there already, elsewhere.
// The part must have room.
func (x *Index) insert(p *part, tag, ref uint32) bool {
	unique := true
	for i := p.home(tag); ; {
		g := (*[groupSlots]uint64)(p.slots[i:])
		n, same := uint64(0), false
		for k := range g {
			n += used(g[k])
			same = same || uint32(g[k]>>32) == tag
		}
		if same && x.known(g, tag, ref) {
			unique = false
		}
		if n < groupSlots {
			g[n] = uint64(tag)<<32 | uint64(ref)
			p.n++
			x.table.n++
			return unique
		}
		if i += groupSlots; i == len(p.slots) {
			i = 0
		}
	}
}

// known says whether a group has the block that ref is, with another reference.
func (x *Index) known(g *[groupSlots]uint64, tag, ref uint32) bool {
	h := x.hash(x.runs.at(ref/runBlocks), int(ref%runBlocks))
	for _, w := range g {
		if w != 0 && uint32(w>>32) == tag && x.means(uint32(w), h) {
			return true
		}
	}
	return false
}

// conflict gives up a block that is elsewhere, behind another one, and what is behind
// it in its run.
func (x *Index) conflict(at uint32) {
	x.stats.Conflicts++
	id, pos := at/runBlocks, int(at%runBlocks)
	if r := x.runs.at(id); pos < r.len() {
		x.cut(id, r, pos)
	}
}

// indexEach tells the table of the blocks of all queued runs one by one, and makes
// room for them if need be. Once there is none, all that it was not told is given up,
// so that the beginning of a chain that does not fit is there.
func (x *Index) indexEach() bool {
	ok := true
	for _, id := range x.backlog.runs {
		r := x.runs.at(id)
		r.queued = false
		x.touch(r)
		for ok && int(r.indexed) < r.len() {
			pos := int(r.indexed)
			p, tag := x.table.split(x.mix(x.hash(r, pos)))
			if p.n >= p.limit && !x.enlarge(p) {
				ok = false
				break
			}
			if pos >= r.len() { // room was made of this one
				break
			}
			r.indexed++
			if !x.insert(p, tag, ref(id, pos)) {
				x.conflict(ref(id, pos))
			}
		}
		if n := int(r.indexed); n < r.len() {
			x.cut(id, r, n)
		}
	}
	return ok
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
		x.unindex()
		if p.n+groupSlots < len(p.slots) {
			return true
		}
		if !x.evict() {
			break
		}
	}
	return p.n+1 < len(p.slots)
}

// touch has the memory fetched in which the blocks of r will be put: many at once
// take little longer than one.
func (x *Index) touch(r *run) {
	sum := uint64(0)
	for pos, n := int(r.indexed), r.len(); pos < n; pos++ {
		sum += x.table.touch(x.mix(x.hash(r, pos)))
	}
	x.sink = sum
}

// headOf returns the run whose first block has that hash, or 0.
func (x *Index) headOf(h uint64) uint32 {
	tag := headTag(x.mix(h))
	if i := int(tag>>1) & (len(x.heads.maybe)*64 - 1); x.heads.maybe[i/64]>>(i%64)&1 == 0 {
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
