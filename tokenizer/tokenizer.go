package tokenizer

import (
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
)

// Tokenizer is a loaded vocabulary with everything that goes around it. Make one
// with FromJSON or FromGGUF; it is immutable and safe for concurrent use.
type Tokenizer struct {
	model       model
	normalizers []normalizer
	stripsLeft  bool // a normalizer takes white space off the beginning
	splitters   []splitter
	scan        scanFunc // in place of splitters, or nil
	lineCut     int      // where Cache may cut a text besides behind added tokens
	decoding    decoding

	added     map[uint32]*addedToken // by id
	addedID   map[string]uint32      // by content
	special   map[string]bool        // contents of special tokens
	raw       *matcher               // added tokens looked for in the text as it is
	normal    *matcher               // and in the normalized text
	before    []uint32               // ids put before a text with AddSpecial
	behind    []uint32               // and behind it
	size      int                    // greatest id + 1
	digest    string
	scratches sync.Pool // of *scratch: a call's buffers cost more than a short call's work
}

// EncodeOptions says how Encode treats special tokens. The zero value is right
// for rendered chat templates: added tokens in the text are recognised and
// nothing is put around it.
type EncodeOptions struct {
	// AddSpecial puts the tokens around the text that the tokenizer's
	// post-processor asks for, such as the beginning-of-sequence token.
	AddSpecial bool
	// PlainSpecial treats special added tokens in the text as plain text, for
	// content that must not be able to speak as the template does. Added tokens
	// that are not flagged special are still recognised, as Hugging Face does.
	PlainSpecial bool
}

// Encode appends the ids of text to dst. Text that is not valid UTF-8 is encoded
// as if every longest invalid piece of it were U+FFFD.
func (t *Tokenizer) Encode(dst []dynamo.TokenID, text string, o EncodeOptions) []dynamo.TokenID {
	text = validText(text)
	if o.AddSpecial {
		dst = appendIDs(dst, t.before)
	}
	sc := t.borrow()
	dst = t.encodeSpan(dst, sc, text, 0, len(text), o.PlainSpecial)
	t.giveBack(sc)
	if o.AddSpecial {
		dst = appendIDs(dst, t.behind)
	}
	return dst
}

// borrow returns memory to work in until giveBack.
func (t *Tokenizer) borrow() *scratch {
	if sc, ok := t.scratches.Get().(*scratch); ok {
		return sc
	}
	return new(scratch)
}

func (t *Tokenizer) giveBack(sc *scratch) { t.scratches.Put(sc) }

// encodeSpan appends the ids of text[from:to], which begins and ends at places
// where encoding may be taken apart.
func (t *Tokenizer) encodeSpan(dst []dynamo.TokenID, sc *scratch, text string, from, to int, plain bool) []dynamo.TokenID {
	text = text[:to]
	for done := from; done < to; {
		found, resume := t.raw.next(text, from, done, plain)
		if done < found.start {
			dst = t.encodeSegment(dst, sc, text[done:found.start], done == 0, plain)
		}
		if found.token != nil {
			dst = append(dst, dynamo.TokenID(found.token.ID))
		}
		done, from = max(found.end, done), resume
	}
	return dst
}

// encodeSegment appends the ids of a text between added tokens. first tells that
// the whole text begins with it.
func (t *Tokenizer) encodeSegment(dst []dynamo.TokenID, sc *scratch, s string, first, plain bool) []dynamo.TokenID {
	if t.stripsLeft && first {
		// What is left after stripping does not begin where the text does.
		first = len(trimSpaceLeft(s)) == len(s)
	}
	s = normalizeAll(t.normalizers, s)
	if t.normal == nil {
		return t.encodeText(dst, sc, s, first)
	}
	for done, from := 0, 0; done < len(s); {
		found, resume := t.normal.next(s, from, done, plain)
		if done < found.start {
			dst = t.encodeText(dst, sc, s[done:found.start], first && done == 0)
		}
		if found.token != nil {
			dst = append(dst, dynamo.TokenID(found.token.ID))
		}
		done, from = max(found.end, done), resume
	}
	return dst
}

// encodeText splits a normalized text without added tokens and appends the ids of
// its words.
func (t *Tokenizer) encodeText(dst []dynamo.TokenID, sc *scratch, s string, first bool) []dynamo.TokenID {
	if t.scan != nil {
		return t.scan(t, dst, sc, s)
	}
	if len(t.splitters) == 0 {
		return t.model.appendPiece(dst, sc, s)
	}
	for _, p := range splitAll(t.splitters, []piece{{s, first}}) {
		dst = t.model.appendPiece(dst, sc, p.text)
	}
	return dst
}

// appendPiece appends the ids of a piece, cutting it where no merge can reach
// across.
func (m *model) appendPiece(dst []dynamo.TokenID, sc *scratch, s string) []dynamo.TokenID {
	if m.joins == nil {
		if s == "" {
			return dst
		}
		return m.appendWord(dst, sc, s, 0, len(s))
	}
	start, back := 0, byte(0) // beginning of the word; edge of the character before
	for i := 0; i < len(s); {
		front, n := s[i], 1
		last := front
		if front >= utf8.RuneSelf {
			n = charLen(front)
			last = s[i+n-1]
			if n == len(spaceMark) && s[i:i+n] == spaceMark {
				front, last = markEdge, markEdge
			}
		}
		if i > start && m.joins[back][front>>6]>>(front&63)&1 == 0 {
			dst = m.appendWord(dst, sc, s, start, i)
			start = i
		}
		back = last
		i += n
	}
	if start < len(s) {
		dst = m.appendWord(dst, sc, s, start, len(s))
	}
	return dst
}

// charLen returns the length of a character of valid UTF-8 from its first byte.
func charLen(c byte) int {
	switch {
	case c < 0x80:
		return 1
	case c < 0xE0:
		return 2
	case c < 0xF0:
		return 3
	}
	return 4
}

// validText returns s with U+FFFD for every longest piece that no character
// begins with.
func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		n, state := leadingChar([]byte(s[i:min(i+utf8.UTFMax, len(s))]))
		if state == charWhole {
			b.WriteString(s[i : i+n])
		} else {
			b.WriteString("\uFFFD")
		}
		i += n
	}
	return b.String()
}

func appendIDs(dst []dynamo.TokenID, ids []uint32) []dynamo.TokenID {
	for _, id := range ids {
		dst = append(dst, dynamo.TokenID(id))
	}
	return dst
}

// Decode returns the text of ids. Ids outside the vocabulary are passed over,
// special tokens too if skipSpecial is set.
func (t *Tokenizer) Decode(ids []dynamo.TokenID, skipSpecial bool) string {
	d := t.NewDecoder(skipSpecial)
	out := make([]byte, 0, 5*len(ids))
	for _, id := range ids {
		out = d.Append(out, id)
	}
	return string(d.Flush(out))
}

// VocabSize returns one more than the greatest id, added tokens included.
func (t *Tokenizer) VocabSize() int { return t.size }

// ID returns the id of a token as it is spelled in the vocabulary.
func (t *Tokenizer) ID(token string) (dynamo.TokenID, bool) {
	if id, ok := t.addedID[token]; ok {
		return dynamo.TokenID(id), true
	}
	id, ok := t.model.vocab.findString(token)
	return dynamo.TokenID(id), ok
}

// Token returns the spelling of id in the vocabulary, empty for an id outside it.
func (t *Tokenizer) Token(id dynamo.TokenID) string {
	s, _ := t.spelled(uint32(id))
	return string(s)
}

// spelled returns the spelling of id and whether it has one.
func (t *Tokenizer) spelled(id uint32) ([]byte, bool) {
	if a, ok := t.added[id]; ok {
		return []byte(a.spelling), true
	}
	return t.model.vocab.spelling(id), t.model.vocab.has(id)
}

// TokenBytes returns the bytes id stands for in decoded text when it stands
// alone in the middle of it, which need not be whole characters; nil for an id
// outside the vocabulary. The caller must not change them.
func (t *Tokenizer) TokenBytes(id dynamo.TokenID) []byte {
	d := &t.decoding
	if int(id) >= len(d.spans) || d.spans[id].off == hole {
		return nil
	}
	if d.byteN != nil && d.byteN[id] >= 0 {
		return []byte{byte(d.byteN[id])}
	}
	s := d.spans[id]
	end := s.off + s.len&^wholeText
	return d.arena[s.off:end:end]
}

// Special reports whether id is a special token: one that Decode with
// skipSpecial leaves out.
func (t *Tokenizer) Special(id dynamo.TokenID) bool {
	return int(id) < len(t.decoding.skip) && t.decoding.skip[id]
}

// Digest returns the SHA-256 of what the tokenizer was made from, in
// hexadecimal. Caches use it as a key.
func (t *Tokenizer) Digest() string { return t.digest }
