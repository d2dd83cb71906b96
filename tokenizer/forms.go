package tokenizer

import (
	"slices"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// longMarks is a run of marks from which on x/text would break the run with a
// combining grapheme joiner, as the Stream-Safe Text Format asks; the library
// does not, so such runs are normalized here.
const longMarks = 16

// forms is the table of formRuns.
var forms = newClassTable(formRuns)

// maybe marks characters in forms that NFC may change or join.
const maybe = 255

// normalForm returns s in the Unicode normalization form f.
func normalForm(f norm.Form, s string) string {
	if f == norm.NFC {
		return nfc(s)
	}
	if !hasLongMarks(s) {
		if f.IsNormalString(s) {
			return s
		}
		return f.String(s)
	}
	var out []byte
	plain := 0 // beginning of what the library's way and x/text's agree on
	for i := 0; i < len(s); {
		end, marks := segment(f, s, i)
		if marks >= longMarks {
			out = append(out, f.String(s[plain:i])...)
			out = appendForm(out, f, s[i:end])
			plain = end
		}
		i = end
	}
	return string(append(out, f.String(s[plain:])...))
}

// nfc returns s in form NFC. Nearly all text is in it already, so the work is to
// see that quickly.
func nfc(s string) string {
	const first = 0xCC // lead byte of U+0300, the first character NFC touches
	i := 0
	for {
		// Eight bytes at a time while all are ASCII.
		for i+8 <= len(s) && load8(s[i:])&0x8080808080808080 == 0 {
			i += 8
		}
		for end := min(i+8, len(s)); i < end && s[i] < first; i++ {
		}
		if i == len(s) {
			return s
		}
		if s[i] >= first {
			break
		}
	}
	return nfcFrom(s, i)
}

// nfcFrom is nfc for a text whose beginning up to i is settled. Doubtful places go
// to x/text, cut out together with the characters they may interact with: from the
// last one before that starts afresh up to the next one.
func nfcFrom(s string, i int) string {
	var out []byte
	done := 0                           // s up to here is in out
	last, calm := uint8(0), max(0, i-1) // class of the character before; where the last one that starts afresh begins
	for calm > 0 && !utf8.RuneStart(s[calm]) {
		calm--
	}
	for i < len(s) {
		if s[i] < utf8.RuneSelf {
			last, calm = 0, i
			i++
			continue
		}
		r, n := runeAt(s, i)
		class := forms.of(r)
		i += n
		switch {
		case class == 0:
			last, calm = 0, i-n
			continue
		case class != maybe && class >= last:
			last = class
			continue
		}
		for i < len(s) {
			e, n := classes.at(s, i)
			if e&flagForm == 0 {
				break
			}
			i += n
		}
		last = 0
		switch doubtful := s[calm:i]; {
		case i-calm >= 2*longMarks:
			out = appendForm(append(out, s[done:calm]...), norm.NFC, doubtful)
			done = i
		case !norm.NFC.IsNormalString(doubtful):
			out = norm.NFC.AppendString(append(out, s[done:calm]...), doubtful)
			done = i
		}
	}
	if done == 0 {
		return s
	}
	return string(append(out, s[done:]...))
}

// hasLongMarks reports whether s holds a run of longMarks characters that are not
// inert. Characters that merely may compose count too, so it errs on the safe side.
func hasLongMarks(s string) bool {
	run := 0
	for i := 0; i < len(s); {
		e, n := classes.at(s, i)
		if e&flagForm == 0 && e&classMask != classM {
			run = 0
		} else if run++; run >= longMarks {
			return true
		}
		i += n
	}
	return false
}

// segment returns the end of the characters from s[i] that interact with one
// another, and how many there are besides the first.
func segment(f norm.Form, s string, i int) (end, marks int) {
	_, n := utf8.DecodeRuneInString(s[i:])
	for i += n; i < len(s); marks++ {
		p := f.PropertiesString(s[i:])
		if p.BoundaryBefore() {
			break
		}
		_, n = utf8.DecodeRuneInString(s[i:])
		i += n
	}
	return i, marks
}

// appendForm appends s in form f by the letter of the Unicode standard: decompose
// every character, put marks in canonical order, compose.
func appendForm(dst []byte, f norm.Form, s string) []byte {
	decompose := norm.NFD
	if f == norm.NFKC || f == norm.NFKD {
		decompose = norm.NFKD
	}
	var chars []rune
	for _, r := range s {
		chars = append(chars, []rune(decompose.String(string(r)))...)
	}
	ccc := func(r rune) uint8 { return norm.NFD.PropertiesString(string(r)).CCC() }
	for i := 0; i < len(chars); i++ {
		end := i
		for end < len(chars) && ccc(chars[end]) != 0 {
			end++
		}
		slices.SortStableFunc(chars[i:end], func(a, b rune) int { return int(ccc(a)) - int(ccc(b)) })
		i = max(i, end)
	}
	if f == norm.NFC || f == norm.NFKC {
		chars = compose(chars, ccc)
	}
	for _, r := range chars {
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

// compose applies canonical composition to chars, which are in canonical order.
func compose(chars []rune, ccc func(rune) uint8) []rune {
	out := chars[:0]
	starter := -1      // place in out
	before := uint8(0) // class of the last character kept after the starter
	for _, r := range chars {
		c := ccc(r)
		if starter >= 0 && (before == 0 && len(out) == starter+1 || before < c && before != 0) {
			if joined, ok := composePair(out[starter], r); ok {
				out[starter] = joined
				continue
			}
		}
		if c == 0 {
			starter, before = len(out), 0
		} else {
			before = c
		}
		out = append(out, r)
	}
	return out
}

// composePair returns the character that a and b compose to.
func composePair(a, b rune) (rune, bool) {
	s := norm.NFC.String(string([]rune{a, b}))
	r, n := utf8.DecodeRuneInString(s)
	return r, n == len(s)
}
