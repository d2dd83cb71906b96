package tokenizer

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

// addedToken is a token that is looked for in the text before anything is split
// or merged.
type addedToken struct {
	ID         uint32 `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"` // not inside a word
	LStrip     bool   `json:"lstrip"`      // takes the white space before it
	RStrip     bool   `json:"rstrip"`      // takes the white space behind it
	Normalized bool   `json:"normalized"`  // is looked for in the normalized text
	Special    bool   `json:"special"`

	// spelling is what the token decodes from: the library takes the normalized
	// content of a token that is looked for in normalized text.
	spelling string
}

// matcher finds added tokens in a text: the leftmost, and of those that begin
// there the longest.
type matcher struct {
	keys   [][]byte         // what is looked for, sorted
	tokens []addedToken     // beside keys
	first  [256]bool        // bytes a key begins with
	only   int              // the one such byte, or -1
	second *[1 << 10]uint64 // pairs of bytes a key begins with, a bit each
}

// newMatcher returns a matcher of tokens as they read after normalize, nil if
// there are none.
func newMatcher(tokens []addedToken, normalize func(string) string) *matcher {
	m := &matcher{only: -1, second: new([1 << 10]uint64)}
	order := make([]int, 0, len(tokens))
	keys := make([][]byte, len(tokens))
	for i, t := range tokens {
		keys[i] = []byte(normalize(t.Content))
		if len(keys[i]) > 0 {
			order = append(order, i)
		}
	}
	if len(order) == 0 {
		return nil
	}
	slices.SortStableFunc(order, func(a, b int) int { return bytes.Compare(keys[a], keys[b]) })
	for _, i := range order {
		k := keys[i]
		if n := len(m.keys); n > 0 && bytes.Equal(m.keys[n-1], k) {
			continue // the first of two equal ones is found
		}
		m.keys, m.tokens = append(m.keys, k), append(m.tokens, tokens[i])
		switch {
		case m.first[k[0]]:
		case len(m.keys) == 1:
			m.only = int(k[0])
		default:
			m.only = -1
		}
		m.first[k[0]] = true
		if len(k) > 1 {
			m.second[int(k[0])<<2|int(k[1]>>6)] |= 1 << (k[1] & 63)
			continue
		}
		for c := range 4 {
			m.second[int(k[0])<<2|c] = ^uint64(0)
		}
	}
	return m
}

// find returns the first token at or after s[i]: where it begins, where it ends
// and which it is; -1 if there is none.
func (m *matcher) find(s string, i int) (start, end, which int) {
	for ; i < len(s); i++ {
		if m.only >= 0 {
			n := strings.IndexByte(s[i:], byte(m.only))
			if n < 0 {
				break
			}
			i += n
		} else if !m.first[s[i]] {
			continue
		}
		if i+1 < len(s) && m.second[int(s[i])<<2|int(s[i+1]>>6)]>>(s[i+1]&63)&1 == 0 {
			continue
		}
		if end, which := m.longest(s, i); which >= 0 {
			return i, end, which
		}
	}
	return len(s), len(s), -1
}

// longest returns the longest token that begins at s[i]. It narrows the sorted
// keys to those that agree with the text so far, byte by byte.
func (m *matcher) longest(s string, i int) (end, which int) {
	lo, hi := 0, len(m.keys)
	which = -1
	for depth := 0; lo < hi; depth++ {
		if len(m.keys[lo]) == depth {
			end, which = i+depth, lo
			if lo++; lo == hi {
				break
			}
		}
		if i+depth >= len(s) {
			break
		}
		c := s[i+depth]
		lo += lowest(m.keys[lo:hi], depth, int(c))
		hi = lo + lowest(m.keys[lo:hi], depth, int(c)+1)
	}
	return end, which
}

// lowest returns the index of the first key whose byte at depth is c or greater.
// All keys are longer than depth.
func lowest(keys [][]byte, depth, c int) int {
	lo, hi := 0, len(keys)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if int(keys[mid][depth]) < c {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// match is an added token found in a text, with the white space it takes.
type match struct {
	start, end int
	token      *addedToken
}

// next returns the first match at or after s[from]. done is the end of the match
// before it, beyond which white space is not taken again. plain leaves out special
// tokens. Without a match the token is nil.
func (m *matcher) next(s string, from, done int, plain bool) (found match, resume int) {
	for m != nil {
		start, end, which := m.find(s, from)
		if which < 0 {
			break
		}
		from = end
		t := &m.tokens[which]
		if plain && t.Special || t.SingleWord && (wordBefore(s, start) || wordBehind(s, end)) {
			continue
		}
		if t.LStrip {
			start = max(len(trimSpaceRight(s[:start])), done)
		}
		if t.RStrip {
			end += len(s) - end - len(trimSpaceLeft(s[end:]))
		}
		return match{start, end, t}, from
	}
	return match{start: len(s), end: len(s)}, len(s)
}

// wordBefore reports whether a word character ends at s[i].
func wordBefore(s string, i int) bool {
	if i == 0 {
		return false
	}
	r, _ := utf8.DecodeLastRuneInString(s[:i])
	return classes.of(r)&flagWord != 0
}

// wordBehind reports whether a word character begins at s[i].
func wordBehind(s string, i int) bool {
	if i == len(s) {
		return false
	}
	e, _ := classes.at(s, i)
	return e&flagWord != 0
}

func isSpace(r rune) bool { return in(classes.of(r), setSpace) }

func trimSpaceLeft(s string) string  { return strings.TrimLeftFunc(s, isSpace) }
func trimSpaceRight(s string) string { return strings.TrimRightFunc(s, isSpace) }
