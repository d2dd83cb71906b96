package kvindex

import "slices"

// table finds a block by its hash, for the writer: lookups need only the heads of
// runs. It is asked for few blocks and told of all, so it is made for being told: each
// new block is a word at the end of one of many short lists, and to find one is to
// read a list.
//
// A word has 32 bits of the mixed hash and the reference; the hash itself is in the
// block's run and decides. The first eight bits of the mixed hash choose a part, the
// next ones the list in it; a part has twice as many lists when one of them is full.
//
// Nothing is taken out when a block goes. A run keeps its hashes as long as it lives,
// so a word means its block again when that is stored again. When a run has gone, its
// number is not given to another one before all lists have been rid of its words
// (weed), a few lists for each run that goes.
type table struct {
	parts [tableParts]tablePart
	pages arena[page]
	n     int // words
	dead  int // of runs that are gone

	gone   []uint64 // by run, a bit: it is gone, and its words mean nothing
	buried []uint32 // those runs
	// The pass over all lists that is going on: the list it comes to next, and the
	// buried runs whose words are gone when it ends.
	weeding   bool
	part, at  int
	weeds     int
	debt      int      // words that went since a list was weeded
	untold    []uint32 // runs with blocks that the lists have not yet
	order     []uint64 // buffer
	conflicts []uint32 // blocks found behind another one than before, to be given up
}

type tablePart struct {
	lists []list
	pages []listPages // of each list
	shift uint        // what leaves of a tag the number of the list
}

// page is a piece of a list's memory. What is not used is 0.
type page [pageWords]uint64

// list says how many words there are and which page is the last one.
type list struct{ n, last uint32 }

// listPages are the pages of a list, in order.
type listPages [listMost / pageWords]uint32

const (
	tableParts = 256
	pageWords  = 32
	listMost   = 512
	listBytes  = 8 + listMost/pageWords*4
	// splitInto is the number of lists that a full one becomes.
	splitBits = 2
	splitInto = 1 << splitBits
	// untoldRuns is how many runs may have blocks that the lists have not.
	untoldRuns = 32
	// weedEvery is the number of words that go for each list that is weeded.
	weedEvery = 32
	// weedMin is the number of words of runs that are gone that are not worth a pass.
	weedMin = 1 << 12
	// recentBits is the number of bits of a mixed hash that index the blocks at which
	// stores ended.
	recentBits = 13
)

func (t *table) init() {
	for i := range t.parts {
		t.parts[i] = tablePart{lists: make([]list, 1), pages: make([]listPages, 1), shift: 32}
	}
	t.n, t.dead, t.debt, t.weeding = 0, 0, 0, false
	t.gone, t.buried, t.untold, t.conflicts = nil, nil, nil, nil
}

// split returns the part of a mixed hash, the list in it, and what the word of its
// block has of the hash, which is not 0.
func (t *table) split(mixed uint64) (p *tablePart, at int, tag uint32) {
	p = &t.parts[mixed>>56]
	tag = uint32(mixed >> 24)
	return p, int(tag >> p.shift), tag | 1
}

// word returns the word k of list i.
func (t *table) word(p *tablePart, i int, k uint32) *uint64 {
	return &t.pages.at(p.pages[i][k/pageWords])[k%pageWords]
}

// lookup returns the reference of a known block, or 0.
func (x *Index) lookup(h uint64) uint32 {
	mixed := x.mix(h)
	at := &x.recent[mixed>>(64-recentBits)]
	if *at == 0 || !x.means(*at, h) {
		x.tell()
		found := x.search(mixed, h)
		if found == 0 {
			return 0
		}
		*at = found
	}
	return *at
}

// search is lookup by the table alone. Of several references to the block it returns
// the first one that was stored, and notes the others as conflicts.
func (x *Index) search(mixed, h uint64) uint32 {
	p, at, tag := x.table.split(mixed)
	found := uint32(0)
	for i := range (p.lists[at].n + pageWords - 1) / pageWords {
		for _, w := range x.table.pages.at(p.pages[at][i]) {
			if uint32(w>>32) == tag && x.means(uint32(w), h) {
				if found == 0 {
					found = uint32(w)
				} else if uint32(w) != found {
					x.table.conflicts = append(x.table.conflicts, uint32(w))
				}
			}
		}
	}
	return found
}

// means says whether a reference is that of the block.
func (x *Index) means(ref uint32, h uint64) bool {
	r, pos := x.runs.at(ref/runBlocks), int(ref%runBlocks)
	return pos < r.len() && x.hash(r, pos) == h
}

// list has the table told of a run's new blocks: soon, so that many are told at once.
// It reports false when there was no memory for blocks, and they are given up.
func (x *Index) list(id uint32, r *run) bool {
	if !r.queued {
		r.queued = true
		x.table.untold = append(x.table.untold, id)
	}
	return len(x.table.untold) < untoldRuns && r.len() < runBlocks || x.tell()
}

// tell tells the table of all it was not told yet. It reports what list does.
func (x *Index) tell() bool {
	ok := true
	for _, id := range x.table.untold {
		r := x.runs.at(id)
		r.queued = false
		if n := x.tellRun(id, r); n < r.len() {
			x.cut(id, r, n)
			ok = false
		}
	}
	x.table.untold = x.table.untold[:0]
	return ok
}

// tellRun is tell for a run. It returns how many of its blocks the table knows then.
func (x *Index) tellRun(id uint32, r *run) int {
	for int(r.indexed) < r.len() {
		pos := int(r.indexed)
		mixed := x.mix(x.hash(r, pos))
		p, at, tag := x.table.split(mixed)
		l := &p.lists[at]
		if l.n%pageWords == 0 {
			if l = x.roomFor(mixed); l == nil || pos >= r.len() { // room was made of this run
				break
			}
		}
		x.table.pages.at(l.last)[l.n%pageWords] = uint64(tag)<<32 | uint64(ref(id, pos))
		l.n++
		x.table.n++
		r.indexed++
	}
	return int(r.indexed)
}

// roomFor gives the list of a mixed hash another page, and returns the list. It returns
// nil when there is no memory.
func (x *Index) roomFor(mixed uint64) *list {
	p, at, _ := x.table.split(mixed)
	if p.lists[at].n == listMost {
		if x.weedList(p, at); p.lists[at].n > listMost*3/4 && x.divide(p) {
			p, at, _ = x.table.split(mixed)
		}
	}
	l := &p.lists[at]
	if l.n == listMost {
		x.findConflicts(p, at)
		return nil
	}
	for tries := 0; l.n%pageWords == 0; tries++ { // evicting takes words out
		if id := x.table.pages.alloc(&x.budget); id != 0 {
			*x.table.pages.at(id) = page{}
			p.pages[at][l.n/pageWords], l.last = id, id
			break
		}
		if tries == evictTries || !x.evict() {
			return nil
		}
	}
	return l
}

// divide gives a part more lists. It reports false when there is no memory, or when
// that would be of no use: a list is full of one hash, or nearly.
func (x *Index) divide(p *tablePart) bool {
	t := &x.table
	words := 0
	for i := range p.lists {
		words += int(p.lists[i].n)
	}
	size := splitInto * len(p.lists)
	if words < len(p.lists)*listMost/4 || p.shift <= splitBits {
		return false
	}
	if !t.pages.reserve(&x.budget, size+words/pageWords) || !x.budget.take(int64(size-len(p.lists))*listBytes) {
		return false
	}
	fresh := tablePart{lists: make([]list, size), pages: make([]listPages, size), shift: p.shift - splitBits}
	for i := range p.lists {
		to := (*[splitInto]list)(fresh.lists[i*splitInto:])
		for k := range (p.lists[i].n + pageWords - 1) / pageWords {
			for _, w := range t.pages.at(p.pages[i][k])[:min(pageWords, p.lists[i].n-k*pageWords)] {
				q := uint32(w>>32) >> fresh.shift % splitInto
				l := &to[q]
				if l.n%pageWords == 0 {
					l.last = t.pages.alloc(&x.budget)
					*t.pages.at(l.last) = page{}
					fresh.pages[i*splitInto+int(q)][l.n/pageWords] = l.last
				}
				t.pages.at(l.last)[l.n%pageWords] = w
				l.n++
			}
		}
		x.shorten(p, i, 0)
	}
	if p == &t.parts[t.part] {
		t.at *= splitInto
	}
	*p = fresh
	return true
}

// shorten leaves the first n words of a list.
func (x *Index) shorten(p *tablePart, at int, n uint32) {
	l := &p.lists[at]
	k := (n + pageWords - 1) / pageWords
	for i := k; i < (l.n+pageWords-1)/pageWords; i++ {
		x.table.pages.release(p.pages[at][i])
	}
	l.n = n
	if n%pageWords != 0 {
		l.last = p.pages[at][k-1]
		clear(x.table.pages.at(l.last)[n%pageWords:])
	}
}

// bury notes that a run has gone, whose words the lists have still. Without much memory
// they lose them at once, which takes longer.
func (x *Index) bury(id uint32, r *run) {
	t := &x.table
	if x.tight() {
		x.purge(id, r)
		x.runs.release(id)
		return
	}
	for int(id/64) >= len(t.gone) {
		t.gone = append(t.gone, 0)
	}
	t.gone[id/64] |= 1 << (id % 64)
	t.buried = append(t.buried, id)
	t.debt += int(r.indexed)
	if !t.weeding && t.dead > weedMin && t.dead*3 > t.n {
		t.weeding, t.part, t.at, t.weeds = true, 0, 0, len(t.buried)
	}
	for ; t.debt >= weedEvery; t.debt -= weedEvery {
		x.weed()
	}
}

// purge takes the words of a run out of the lists.
func (x *Index) purge(id uint32, r *run) {
	t := &x.table
	for pos := range int(r.indexed) {
		p, at, tag := t.split(x.mix(x.hash(r, pos)))
		want := uint64(tag)<<32 | uint64(ref(id, pos))
		for k := range p.lists[at].n {
			if w := t.word(p, at, k); *w == want {
				last := p.lists[at].n - 1
				*w = *t.word(p, at, last)
				x.shorten(p, at, last)
				t.n--
				t.dead--
				break
			}
		}
	}
}

// weed rids a list of the words of runs that are gone, if a pass over all lists is
// going on, and reports whether one is then.
func (x *Index) weed() bool {
	t := &x.table
	if !t.weeding {
		return false
	}
	x.weedList(&t.parts[t.part], t.at)
	if t.at++; t.at < len(t.parts[t.part].lists) {
		return true
	}
	if t.part, t.at = t.part+1, 0; t.part < tableParts {
		return true
	}
	for _, id := range t.buried[:t.weeds] {
		t.gone[id/64] &^= 1 << (id % 64)
		x.runs.release(id)
	}
	t.buried = t.buried[:copy(t.buried, t.buried[t.weeds:])]
	t.weeding, t.part, t.at = false, 0, 0
	return false
}

// weedAll makes the numbers of all runs that are gone ready for use.
func (x *Index) weedAll() {
	for len(x.table.buried) > 0 {
		if !x.table.weeding {
			x.table.weeding, x.table.part, x.table.at, x.table.weeds = true, 0, 0, len(x.table.buried)
		}
		for x.weed() {
		}
	}
}

func (x *Index) weedList(p *tablePart, at int) {
	t := &x.table
	have, n := p.lists[at].n, uint32(0)
	pages := p.pages[at][:(have+pageWords-1)/pageWords]
	sum := uint64(0)
	for _, id := range pages { // have all of it fetched at once
		g := t.pages.at(id)
		sum += g[0] + g[8] + g[16] + g[24]
	}
	x.sink = sum
	var to *page
	for i, id := range pages {
		g := t.pages.at(id)
		words := g[:min(pageWords, have-uint32(i)*pageWords)]
		if n == uint32(i)*pageWords && !t.anyGone(words) {
			n += uint32(len(words))
			continue
		}
		if n%pageWords != 0 {
			to = t.pages.at(pages[n/pageWords])
		}
		for _, w := range words {
			if n%pageWords == 0 {
				to = t.pages.at(pages[n/pageWords])
			}
			to[n%pageWords] = w
			n += 1 - t.goneBit(w)
		}
	}
	t.n -= int(have - n)
	t.dead -= int(have - n)
	x.shorten(p, at, n)
}

// goneBit is 1 for a word of a run that is gone, else 0.
func (t *table) goneBit(w uint64) uint32 {
	id := uint32(w) / runBlocks
	if k := int(id / 64); k < len(t.gone) {
		return uint32(t.gone[k]>>(id%64)) & 1
	}
	return 0
}

func (t *table) anyGone(words []uint64) bool {
	any := uint32(0)
	for _, w := range words {
		any |= t.goneBit(w)
	}
	return any != 0
}

// findConflicts notes the blocks of a list that are in two places.
func (x *Index) findConflicts(p *tablePart, at int) {
	all := x.table.order[:0]
	for k := range p.lists[at].n {
		all = append(all, *x.table.word(p, at, k))
	}
	slices.Sort(all)
	x.table.order = all
	for i := 1; i < len(all); i++ {
		if all[i]>>32 != all[i-1]>>32 {
			continue
		}
		for _, w := range all[i-1 : i+1] {
			if r, pos := x.runs.at(uint32(w)/runBlocks), int(uint32(w)%runBlocks); pos < r.len() {
				h := x.hash(r, pos)
				x.search(x.mix(h), h)
			}
		}
	}
}

// giveUpConflicts gives up blocks that are elsewhere too, behind another one, and what
// is behind them in their runs.
func (x *Index) giveUpConflicts() {
	for i := 0; i < len(x.table.conflicts); i++ {
		id, pos := x.table.conflicts[i]/runBlocks, int(x.table.conflicts[i]%runBlocks)
		if r := x.runs.at(id); pos < r.len() {
			x.stats.Conflicts++
			x.cut(id, r, pos)
		}
	}
	x.table.conflicts = x.table.conflicts[:0]
}
