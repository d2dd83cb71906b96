package tokenizer

import (
	"bytes"
	"unicode/utf8"
)

// mergeBuilder collects a model's merges in order of rank.
type mergeBuilder struct {
	m      *model
	merges []mergeRule
	left   []byte // the left side, kept between calls
	both   []byte
	last   uint32 // result of the merge before
	joins  *[256][4]uint64
}

type mergeRule struct{ left, right, id uint32 }

func newMergeBuilder(m *model) *mergeBuilder {
	return &mergeBuilder{m: m, joins: new([256][4]uint64), merges: make([]mergeRule, 0, len(m.vocab.spans))}
}

// add adds the merge of two tokens.
func (b *mergeBuilder) add(left, right []byte) error {
	v := &b.m.vocab
	l, ok := v.find(left)
	if !ok {
		return corrupt("merge %d: %q is not in the vocabulary", len(b.merges), left)
	}
	r, ok := v.find(right)
	if !ok {
		return corrupt("merge %d: %q is not in the vocabulary", len(b.merges), right)
	}
	rest := right
	if b.m.prefix != "" {
		n := utf8.RuneCountInString(b.m.prefix)
		if n > len(right) {
			return corrupt("merge %d: %q has no prefix %q", len(b.merges), right, b.m.prefix)
		}
		rest = right[n:]
	}
	id, ok := b.result(left, rest)
	if !ok {
		return corrupt("merge %d: %q is not in the vocabulary", len(b.merges), b.both)
	}
	b.join(left, right)
	b.merges = append(b.merges, mergeRule{l, r, id})
	return nil
}

// result finds the token that a merge makes. Merges mostly stand in the order of
// their results, so the neighbours of the last one are tried before the table.
func (b *mergeBuilder) result(left, rest []byte) (uint32, bool) {
	b.both = append(append(b.both[:0], left...), rest...)
	for _, id := range [2]uint32{b.last, b.last + 1} {
		if bytes.Equal(b.m.vocab.spelling(id), b.both) && len(b.both) > 0 {
			b.last = id
			return id, true
		}
	}
	id, ok := b.m.vocab.find(b.both)
	b.last = id
	return id, ok
}

// join notes that a merge reaches from the end of left to the beginning of right.
func (b *mergeBuilder) join(left, right []byte) {
	if len(left) == 0 || len(right) == 0 {
		b.joins = nil // a merge that reaches across everything
	}
	if b.joins != nil {
		c := edgeFront(right)
		b.joins[edgeBack(left)][c>>6] |= 1 << (c & 63)
	}
}

// The space marker of SentencePiece shares its first and last byte with other
// characters, so at the edge of a token it counts as a byte of its own that no
// text has.
const (
	spaceMark = "▁"
	markEdge  = 0xFF
)

// edgeBack returns the byte that stands for the end of s.
func edgeBack(s []byte) byte {
	if n := len(s); n >= 3 && s[n-1] == spaceMark[2] && s[n-2] == spaceMark[1] && s[n-3] == spaceMark[0] {
		return markEdge
	}
	return s[len(s)-1]
}

// edgeFront returns the byte that stands for the beginning of s.
func edgeFront(s []byte) byte {
	if len(s) >= 3 && s[0] == spaceMark[0] && s[1] == spaceMark[1] && s[2] == spaceMark[2] {
		return markEdge
	}
	return s[0]
}

// build fills the model's pair table. Of two merges of one pair the later counts,
// as in the library.
func (b *mergeBuilder) build() error {
	ranks := make([]uint32, len(b.merges))
	ids := make([]uint32, len(b.merges))
	for i, r := range b.merges {
		ranks[i], ids[i] = uint32(i), r.id
	}
	return b.buildRanked(ranks, ids)
}

// buildRanked is build with the ranks of the merges and the results of the ranks.
func (b *mergeBuilder) buildRanked(ranks, ids []uint32) error {
	if len(ids) > noMerge {
		return unsupported("%d merges, limit %d", len(ids), noMerge)
	}
	m := b.m
	m.pairs = newPairTable(len(b.merges))
	m.pairs.ids = ids
	for i, r := range b.merges {
		m.pairs.put(r.left, r.right, ranks[i])
	}
	m.joins = b.joins
	return nil
}

// finish derives what encoding needs from the vocabulary and the merges.
// rawBytes says that words are to be raw bytes.
func (m *model) finish(rawBytes bool) error {
	m.cache = newWordCache(m.vocab.count)
	for b := range 256 {
		m.fallback[b] = -1
	}
	if m.byteFallback {
		for b := range 256 {
			const hex = "0123456789ABCDEF"
			if id, ok := m.vocab.findString("<0x" + hex[b>>4:b>>4+1] + hex[b&15:b&15+1] + ">"); ok {
				m.fallback[b] = int32(id)
			}
		}
	}
	m.bytes = rawBytes && !m.byteFallback
	if m.bytes {
		m.finishBytes()
		return nil
	}
	for id := range m.vocab.spans {
		s := m.vocab.spelling(uint32(id))
		if r, n := utf8.DecodeRune(s); n > 0 && n == len(s) {
			if known, ok := m.vocab.find(s); ok && known == uint32(id) {
				m.charID.put(r, uint32(id))
			}
		}
	}
	m.checkJoins()
	if m.ignoreMerges {
		m.whole = &m.vocab
	}
	return nil
}

// checkJoins gives up cutting words where that could change their ids: where a
// symbol may vanish or fuse with its neighbours, or where a merge involves a
// symbol that is not spelled as the text it stands for.
func (m *model) checkJoins() {
	keep := m.joins != nil && m.prefix == "" && m.suffix == "" && !m.ignoreMerges && m.byteFallback
	odd := make([]bool, len(m.vocab.spans))
	for _, id := range m.fallback {
		if id < 0 {
			keep = false
			break
		}
		odd[id] = true
	}
	for _, s := range m.pairs.slots {
		if keep && s != emptySlot && (odd[s>>(64-idBits)] || odd[s>>rankBits&(1<<idBits-1)]) {
			keep = false
		}
	}
	if !keep {
		m.joins = nil
	}
}

// finishBytes undoes the byte-level alphabet.
func (m *model) finishBytes() {
	m.joins = nil
	var spelled []byte
	for b := range 256 {
		spelled = utf8.AppendRune(spelled[:0], byteRune[b])
		m.byteID[b] = -1
		if id, ok := m.vocab.find(spelled); ok {
			m.byteID[b] = int32(id)
		}
	}
	if m.unknown < 0 && len(m.pairs.ids) >= fewMerges {
		m.fillFirst()
	}
	if m.prefix == "" && m.suffix == "" {
		m.fillWhole()
	}
}

// fewMerges is the number of merges from which on tables of pairs of bytes and of
// whole tokens are worth their memory.
const fewMerges = 1 << 12

// fillFirst looks up all pairs of bytes. It must not be called where a byte may be
// spelled by the unknown token, whose merges are its own.
func (m *model) fillFirst() {
	m.pairs.first = new([1 << 16]uint32)
	for b := range 1 << 16 {
		m.pairs.first[b] = noMerge
		if left, right := m.byteID[b>>8], m.byteID[b&0xFF]; left >= 0 && right >= 0 {
			m.pairs.first[b] = m.pairs.get(uint32(left), uint32(right))
		}
	}
}

// fillWhole collects the tokens that a word of the same bytes becomes: all with
// ignoreMerges, else those that merging leads to, which is nearly all.
func (m *model) fillWhole() {
	var merged []bool
	if !m.ignoreMerges {
		if merged = m.selfMade(); merged == nil {
			return
		}
	}
	whole := vocabulary{limit: maxIDs, arena: make([]byte, 0, len(m.vocab.arena)), spans: make([]span, 0, len(m.vocab.spans))}
	var raw []byte
	for id := range m.vocab.spans {
		if merged != nil && !merged[id] {
			continue
		}
		var ok bool
		if raw, ok = appendBytes(raw[:0], m.vocab.spelling(uint32(id))); ok && len(raw) > 0 {
			// The limits held for the longer spelling.
			_ = whole.put(raw, uint32(id))
		}
	}
	whole.seal()
	m.whole = &whole
}
