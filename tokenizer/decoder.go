package tokenizer

import (
	"bytes"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
)

// Decoder turns a stream of ids into text, whole characters at a time. The
// concatenation of everything it appends equals Tokenizer.Decode of the same
// ids. It is not safe for concurrent use.
//
// A run of byte tokens (<0xNN>, SentencePiece) is held back until it ends: if
// one of its bytes turns out wrong, the library makes all of them U+FFFD.
type Decoder struct {
	t    *Tokenizer
	skip bool

	tail  [utf8.UTFMax]byte // byte level: the beginning of a character
	tailN int

	begun    bool   // a token has been put out
	run      []byte // byte tokens not yet put out
	stripped int    // how often content was taken off the start; -1 once that is over
	held     int    // how often content is held back because it may be the end
	scratch  []byte // a run on its way out
}

// NewDecoder returns a decoder at the beginning of a text. With skipSpecial it
// passes over special tokens.
func (t *Tokenizer) NewDecoder(skipSpecial bool) *Decoder {
	d := &Decoder{t: t, skip: skipSpecial}
	d.Reset()
	return d
}

// Reset puts the decoder at the beginning of a new text.
func (d *Decoder) Reset() {
	*d = Decoder{t: d.t, skip: d.skip, run: d.run[:0], scratch: d.scratch[:0]}
	if !d.t.decoding.trimStart {
		d.stripped = -1
	}
}

// Append appends to dst the text that id completes, which may be none.
func (d *Decoder) Append(dst []byte, id dynamo.TokenID) []byte {
	c := &d.t.decoding
	if int(id) >= len(c.spans) || d.skip && c.skip[id] {
		return dst
	}
	s := c.spans[id]
	if s.off == hole {
		return dst
	}
	text := c.arena[s.off : s.off+s.len&^wholeText]
	if s.len&wholeText != 0 && d.tailN == 0 {
		return append(dst, text...)
	}
	if !c.byteLevel {
		return d.appendToken(dst, id, text)
	}
	return d.appendBytes(dst, text)
}

// appendBytes appends the whole characters of what is held back and text, with
// U+FFFD for every longest piece that no character begins with, and holds back
// what may become a character.
func (d *Decoder) appendBytes(dst, text []byte) []byte {
	for d.tailN > 0 && len(text) > 0 {
		d.tail[d.tailN] = text[0]
		n, state := leadingChar(d.tail[:d.tailN+1])
		switch state {
		case charPartial:
			d.tailN++
			text = text[1:]
		case charWhole:
			dst = append(dst, d.tail[:n]...)
			d.tailN = 0
			text = text[1:]
		case charBroken:
			// The new byte does not belong to what was held back.
			dst = append(dst, "\uFFFD"...)
			d.tailN = 0
		}
	}
	for len(text) > 0 {
		n, state := leadingChar(text)
		switch state {
		case charPartial:
			d.tailN = copy(d.tail[:], text)
			return dst
		case charWhole:
			dst = append(dst, text[:n]...)
		case charBroken:
			dst = append(dst, "\uFFFD"...)
		}
		text = text[n:]
	}
	return dst
}

// What leadingChar finds.
const (
	charWhole   = iota // a character of n bytes
	charPartial        // the beginning of a character and nothing else
	charBroken         // n bytes that begin no character
)

// leadingChar looks at the first character of b, which is not empty.
func leadingChar(b []byte) (n, state int) {
	c := b[0]
	want, low, high := 0, byte(0x80), byte(0xBF)
	switch {
	case c < 0x80:
		return 1, charWhole
	case c < 0xC2:
		return 1, charBroken
	case c < 0xE0:
		want = 2
	case c < 0xF0:
		want = 3
		if c == 0xE0 {
			low = 0xA0
		} else if c == 0xED {
			high = 0x9F
		}
	case c < 0xF5:
		want = 4
		if c == 0xF0 {
			low = 0x90
		} else if c == 0xF4 {
			high = 0x8F
		}
	default:
		return 1, charBroken
	}
	for n = 1; n < want; n++ {
		if n == len(b) {
			return n, charPartial
		}
		if b[n] < low || b[n] > high {
			return n, charBroken
		}
		low, high = 0x80, 0xBF
	}
	return want, charWhole
}

// appendToken is Append for decoders that are not byte level.
func (d *Decoder) appendToken(dst []byte, id dynamo.TokenID, text []byte) []byte {
	c := &d.t.decoding
	if c.firstDiffers && !d.begun && len(d.run) == 0 {
		// The first token of a text has a decoding of its own.
		s, _ := d.t.spelled(uint32(id))
		one := apply(c.before, string(s), true)
		if c.byteN == nil {
			return d.emit(dst, []byte(one))
		}
		if b := byteToken(one); b >= 0 {
			d.run = append(d.run, byte(b))
			return dst
		}
		return d.emit(dst, []byte(apply(c.after, one, true)))
	}
	if c.byteN != nil {
		if b := c.byteN[id]; b >= 0 {
			d.run = append(d.run, byte(b))
			return dst
		}
		if len(d.run) > 0 {
			dst = d.endRun(dst)
		}
	}
	return d.emit(dst, text)
}

// endRun puts out the byte tokens held back: characters if they all are, or one
// U+FFFD for each.
func (d *Decoder) endRun(dst []byte) []byte {
	c := &d.t.decoding
	text, times := d.run, 1
	if !utf8.Valid(text) {
		text, times = []byte("\uFFFD"), len(d.run)
	}
	for range times {
		one := text
		if len(c.after) > 0 {
			one = []byte(apply(c.after, string(text), !d.begun))
		}
		dst = d.emit(dst, one)
	}
	d.run = d.run[:0]
	return dst
}

// emit appends the text of one token, less what is trimmed.
func (d *Decoder) emit(dst, text []byte) []byte {
	c := &d.t.decoding
	if d.begun && c.between != "" {
		dst = append(dst, c.between...)
	}
	d.begun = true
	for d.stripped >= 0 && len(text) > 0 {
		if d.stripped == c.trim.start || !hasPrefix(text, c.trim.content) {
			d.stripped = -1
			break
		}
		text = text[len(c.trim.content):]
		d.stripped++
	}
	if !c.trimStop {
		return append(dst, text...)
	}
	whole, ends := text, 0
	for ends < c.trim.stop && bytes.HasSuffix(whole, []byte(c.trim.content)) {
		whole = whole[:len(whole)-len(c.trim.content)]
		ends++
	}
	if len(whole) == 0 {
		// Nothing but content: it joins what is held back.
		d.held += ends
		for ; d.held > c.trim.stop; d.held-- {
			dst = append(dst, c.trim.content...)
		}
		return dst
	}
	for ; d.held > 0; d.held-- {
		dst = append(dst, c.trim.content...)
	}
	d.held = ends
	return append(dst, whole...)
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

// Flush ends the text: it appends what is held back, with U+FFFD for bytes that
// never became a character, and leaves the decoder as Reset does.
func (d *Decoder) Flush(dst []byte) []byte {
	if d.tailN > 0 {
		dst = append(dst, "\uFFFD"...)
	}
	if len(d.run) > 0 {
		dst = d.endRun(dst)
	}
	d.Reset()
	return dst
}
