package tokenizer

import (
	"hash/maphash"
	"math/bits"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
)

// model is byte-pair encoding: a word is taken apart into symbols, and the pair
// of neighbours with the lowest rank is joined, leftmost first, until no pair is
// in the merge table.
//
// A byte-level model whose words come straight from the ByteLevel component
// works on raw bytes: the printable alphabet the vocabulary is spelled in is
// undone when it is loaded, not redone for every text. All others work on
// characters as the vocabulary spells them.
type model struct {
	vocab vocabulary
	pairs pairTable

	bytes        bool // words are raw bytes
	ignoreMerges bool // a word that is a token is that token
	fuseUnknown  bool
	byteFallback bool
	unknown      int32  // id of the unknown token, or -1
	prefix       string // before every symbol but the first of a word
	suffix       string // behind the last symbol of a word

	byteID   [256]int32 // bytes: the symbol of a byte, or -1
	charID   charTable  // characters: the symbol of a character
	fallback [256]int32 // the token <0xNN> of a byte, or -1

	// whole holds the tokens that a word of the same text becomes, nil if words are
	// always merged.
	whole *vocabulary

	// joins[b] is the set of bytes c such that some merge joins a left side ending
	// in b with a right side beginning with c. A word may be cut in two before c
	// where it is not: no merge ever reaches across. Nil if there is no such place.
	joins *[256][4]uint64

	cache wordCache
}

// pairTable maps two neighbouring symbols to the rank of their merge. It is an
// open-addressed hash table of eight bytes a slot, half the size that keeps a large
// vocabulary's table in the second-level cache. Its multiplier is drawn at random,
// so a file cannot be written to collide.
type pairTable struct {
	slots []uint64 // left << 43 | right << 22 | rank, or emptySlot
	shift uint
	mul   uint64
	ids   []uint32 // by rank: the symbol a merge results in

	// first holds the ranks of pairs of bytes where words are raw bytes: the first
	// pass over a word needs no hashing.
	first *[1 << 16]uint32
}

const (
	idBits    = 21
	rankBits  = 64 - 2*idBits
	noMerge   = 1<<rankBits - 1 // the rank of a pair that does not merge
	emptySlot = ^uint64(0)
)

// newPairTable returns a table for at most n pairs.
func newPairTable(n int) pairTable {
	size := uint(max(4, bits.Len(uint(n+n/2))))
	p := pairTable{
		slots: make([]uint64, 1<<size),
		shift: 64 - size,
		mul:   maphash.Comparable(maphash.MakeSeed(), 0) | 1,
	}
	for i := range p.slots {
		p.slots[i] = emptySlot
	}
	return p
}

// put adds or replaces a pair.
func (p *pairTable) put(left, right, rank uint32) {
	key := uint64(left)<<idBits | uint64(right)
	i := key * p.mul >> p.shift
	for p.slots[i] != emptySlot && p.slots[i]>>rankBits != key {
		i = (i + 1) & uint64(len(p.slots)-1)
	}
	p.slots[i] = key<<rankBits | uint64(rank)
}

// get returns the rank of a pair, or noMerge.
func (p *pairTable) get(left, right uint32) uint32 {
	key := uint64(left)<<idBits | uint64(right)
	mask := uint64(len(p.slots) - 1)
	for i := key * p.mul >> p.shift; ; i++ {
		s := p.slots[i&mask]
		if s>>rankBits == key || s == emptySlot {
			return uint32(s) & noMerge
		}
	}
}

// charTable maps characters to symbols in two steps.
type charTable struct {
	index []uint16 // by page; 0 is the empty page
	pages []int32  // id or -1
}

// put adds a character.
func (c *charTable) put(r rune, id uint32) {
	if c.index == nil {
		c.index = make([]uint16, (utf8.MaxRune+1)>>pageBits)
		c.page()
	}
	p := &c.index[r>>pageBits]
	if *p == 0 {
		*p = uint16(len(c.pages) >> pageBits)
		c.page()
	}
	c.pages[int(*p)<<pageBits|int(r)&(1<<pageBits-1)] = int32(id)
}

// page adds an empty page.
func (c *charTable) page() {
	for range 1 << pageBits {
		c.pages = append(c.pages, -1)
	}
}

// get returns the symbol of r, or -1.
func (c *charTable) get(r rune) int32 {
	if c.index == nil {
		return -1
	}
	return c.pages[int(c.index[r>>pageBits])<<pageBits|int(r)&(1<<pageBits-1)]
}

// scratch is the memory one call works in.
type scratch struct {
	ids  []uint32
	next []uint32 // rank of the pair a symbol begins, or noMerge
	link []link
	heap []uint64 // rank << 32 | place
	text []byte
}

// link chains the symbols of a long word.
type link struct{ prev, next int32 }

// mergeWord appends the ids of word without asking the cache.
func (m *model) mergeWord(dst []dynamo.TokenID, sc *scratch, word string) []dynamo.TokenID {
	if m.whole != nil {
		if id, ok := m.whole.findString(word); ok {
			return append(dst, dynamo.TokenID(id))
		}
	}
	switch {
	case m.prefix != "" || m.suffix != "":
		m.affixedSymbols(sc, word)
	case m.bytes:
		m.byteSymbols(sc, word)
	default:
		m.charSymbols(sc, word)
	}
	if len(sc.ids) <= shortWord {
		m.mergeShort(sc, m.firstRanks(sc, word))
	} else {
		m.mergeLong(sc)
	}
	for _, id := range sc.ids {
		dst = append(dst, dynamo.TokenID(id))
	}
	if cap(sc.ids) > scratchKeep {
		*sc = scratch{}
	}
	return dst
}

// byteSymbols sets sc.ids to the symbols of a word's bytes.
func (m *model) byteSymbols(sc *scratch, word string) {
	ids := sc.ids[:0]
	unknown := false
	for i := range len(word) {
		id := m.byteID[word[i]]
		if id >= 0 {
			ids = append(ids, uint32(id))
			unknown = false
			continue
		}
		if m.unknown >= 0 && !(unknown && m.fuseUnknown) {
			ids = append(ids, uint32(m.unknown))
			unknown = true
		}
	}
	sc.ids = ids
}

// charSymbols sets sc.ids to the symbols of a word's characters. A character that
// is no token is spelled by its bytes if the vocabulary has them all, or is
// unknown; without an unknown token it vanishes, as it does in the library.
func (m *model) charSymbols(sc *scratch, word string) {
	ids := sc.ids[:0]
	pending := false // an unknown token is due before the next known character
	for i := 0; i < len(word); {
		r, n := rune(word[i]), 1
		if r >= utf8.RuneSelf {
			r, n = runeAt(word, i)
		}
		if id := m.charID.get(r); id >= 0 {
			if pending {
				ids = append(ids, uint32(m.unknown))
				pending = false
			}
			ids = append(ids, uint32(id))
		} else {
			ids, pending = m.strange(ids, word[i:i+n], pending)
		}
		i += n
	}
	if pending {
		ids = append(ids, uint32(m.unknown))
	}
	sc.ids = ids
}

// strange appends what stands for a symbol that is not in the vocabulary.
func (m *model) strange(ids []uint32, s string, pending bool) ([]uint32, bool) {
	if m.byteFallback {
		start := len(ids)
		for k := range len(s) {
			if id := m.fallback[s[k]]; id >= 0 {
				ids = append(ids, uint32(id))
			}
		}
		if len(ids)-start == len(s) {
			return ids, pending
		}
		ids = ids[:start]
	}
	if m.unknown < 0 {
		return ids, pending
	}
	if pending && !m.fuseUnknown {
		ids = append(ids, uint32(m.unknown))
	}
	return ids, true
}

// affixedSymbols is byteSymbols and charSymbols for models that mark the inside
// or the end of a word.
func (m *model) affixedSymbols(sc *scratch, word string) {
	ids := sc.ids[:0]
	pending := false
	for i := 0; i < len(word); {
		n := 1
		if c := word[i]; c >= utf8.RuneSelf && !m.bytes {
			_, n = runeAt(word, i)
		}
		text := sc.text[:0]
		if i > 0 {
			text = append(text, m.prefix...)
		}
		if m.bytes {
			text = appendSpelled(text, word[i:i+n])
		} else {
			text = append(text, word[i:i+n]...)
		}
		if i += n; i == len(word) {
			text = append(text, m.suffix...)
		}
		if id, ok := m.vocab.find(text); ok {
			if pending {
				ids = append(ids, uint32(m.unknown))
				pending = false
			}
			ids = append(ids, id)
		} else {
			ids, pending = m.strange(ids, string(text), pending)
		}
		sc.text = text
	}
	if pending {
		ids = append(ids, uint32(m.unknown))
	}
	sc.ids = ids
}

// firstRanks sets sc.next to the ranks of the pairs of sc.ids and returns it.
func (m *model) firstRanks(sc *scratch, word string) []uint32 {
	n := len(sc.ids)
	next := grow(&sc.next, n)
	if m.pairs.first != nil && n == len(word) {
		for i := 1; i < n; i++ {
			next[i-1] = m.pairs.first[int(word[i-1])<<8|int(word[i])]
		}
		return next
	}
	for i := 1; i < n; i++ {
		next[i-1] = m.pairs.get(sc.ids[i-1], sc.ids[i])
	}
	return next
}

// mergeShort merges sc.ids by scanning next, the ranks of its pairs, for the best.
func (m *model) mergeShort(sc *scratch, next []uint32) {
	ids := sc.ids
	n := len(ids)
	for n > 1 {
		best, at := uint32(noMerge), 0
		for i, v := range next[:n-1] {
			if v < best {
				best, at = v, i
			}
		}
		if best == noMerge {
			break
		}
		ids[at] = m.pairs.ids[best]
		n--
		for i := at + 1; i < n; i++ {
			ids[i], next[i-1] = ids[i+1], next[i]
		}
		if at+1 < n {
			next[at] = m.pairs.get(ids[at], ids[at+1])
		}
		if at > 0 {
			next[at-1] = m.pairs.get(ids[at-1], ids[at])
		}
	}
	sc.ids = ids[:n]
}

// mergeLong merges sc.ids with a heap of pairs. An entry of the heap counts only
// while it is still what next says of its place.
func (m *model) mergeLong(sc *scratch) {
	ids, n := sc.ids, len(sc.ids)
	next := m.firstRanks(sc, "")
	next[n-1] = noMerge
	links := grow(&sc.link, n)
	heap := sc.heap[:0]
	for i := range n {
		links[i] = link{int32(i) - 1, int32(i) + 1}
		if next[i] != noMerge {
			heap = append(heap, uint64(next[i])<<32|uint64(i))
		}
	}
	for i := len(heap)/2 - 1; i >= 0; i-- {
		siftDown(heap, i)
	}
	for len(heap) > 0 {
		top := heap[0]
		heap[0] = heap[len(heap)-1]
		heap = heap[:len(heap)-1]
		siftDown(heap, 0)
		at := int32(uint32(top))
		if next[at] == noMerge || next[at] != uint32(top>>32) {
			continue
		}
		ids[at] = m.pairs.ids[next[at]]
		gone := links[at].next
		next[gone] = noMerge
		after := links[gone].next
		links[at].next = after
		next[at] = noMerge
		if int(after) < n {
			links[after].prev = at
			next[at] = m.pairs.get(ids[at], ids[after])
			heap = pushPair(heap, next[at], at)
		}
		if before := links[at].prev; before >= 0 {
			next[before] = m.pairs.get(ids[before], ids[at])
			heap = pushPair(heap, next[before], before)
		}
	}
	out := 0
	for i := int32(0); int(i) < n; i = links[i].next {
		ids[out] = ids[i]
		out++
	}
	sc.ids, sc.heap = ids[:out], heap
}

// pushPair adds the pair of that rank at place at to the heap unless it does not merge.
func pushPair(heap []uint64, rank uint32, at int32) []uint64 {
	if rank == noMerge {
		return heap
	}
	heap = append(heap, uint64(rank)<<32|uint64(at))
	i := len(heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if heap[up] <= heap[i] {
			break
		}
		heap[up], heap[i] = heap[i], heap[up]
		i = up
	}
	return heap
}

// siftDown restores the order of the heap below i.
func siftDown(heap []uint64, i int) {
	for {
		c := 2*i + 1
		if c >= len(heap) {
			return
		}
		if c+1 < len(heap) && heap[c+1] < heap[c] {
			c++
		}
		if heap[i] <= heap[c] {
			return
		}
		heap[i], heap[c] = heap[c], heap[i]
		i = c
	}
}

// grow returns *buf with length n.
func grow[T any](buf *[]T, n int) []T {
	if cap(*buf) < n {
		*buf = make([]T, n+n/2)
	}
	*buf = (*buf)[:n]
	return *buf
}
