package tokenizer

import (
	"encoding/binary"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// jsonScanner reads the large parts of a tokenizer.json, the vocabulary and the
// merges, several times faster than a general decoder: half a million short
// strings without an allocation each. The small parts are cut out with skip and
// go through the JSON library.
type jsonScanner struct {
	data []byte
	pos  int
	buf  []byte // the last string that held escapes
}

// fail describes what was expected at the current place.
func (p *jsonScanner) fail(want string) error {
	return corrupt("byte %d of tokenizer.json: expected %s", p.pos, want)
}

// peek skips white space and returns the next byte, 0 at the end.
func (p *jsonScanner) peek() byte {
	i := p.pos
	for i < len(p.data) {
		c := p.data[i]
		if c > ' ' {
			p.pos = i
			return c
		}
		switch c {
		case ' ', '\t', '\r':
			i++
		case '\n':
			// Indented files are mostly spaces behind line ends.
			i++
			for i+8 <= len(p.data) && binary.LittleEndian.Uint64(p.data[i:]) == 0x2020202020202020 {
				i += 8
			}
		default:
			p.pos = i
			return c
		}
	}
	p.pos = i
	return 0
}

// open consumes the opening c of an array or object.
func (p *jsonScanner) open(c byte) error {
	if p.peek() != c {
		return p.fail("'" + string(rune(c)) + "'")
	}
	p.pos++
	return nil
}

// more steps to the next element of an array or object that ends with end. It
// returns false when the end is consumed.
func (p *jsonScanner) more(first *bool, end byte) (bool, error) {
	c := p.peek()
	switch {
	case c == end:
		p.pos++
		return false, nil
	case *first:
		*first = false
		return true, nil
	case c == ',':
		p.pos++
		if p.peek() == end {
			return false, p.fail("a value after ','")
		}
		return true, nil
	}
	return false, p.fail("',' or '" + string(rune(end)) + "'")
}

// str reads a string. The result is valid until the next call.
func (p *jsonScanner) str() ([]byte, error) {
	if p.peek() != '"' {
		return nil, p.fail("a string")
	}
	start, all := p.pos+1, byte(0)
	for i, c := range p.data[start:] {
		all |= c
		if c > '"' && c != '\\' {
			continue
		}
		switch {
		case c == '"':
			s := p.data[start : start+i]
			p.pos = start + i + 1
			if all >= utf8.RuneSelf && !utf8.Valid(s) {
				return nil, p.fail("valid UTF-8 before it")
			}
			return s, nil
		case c == '\\':
			return p.escaped(start, start+i)
		case c < ' ':
			p.pos = start + i
			return nil, p.fail("no control character in a string")
		}
	}
	return nil, p.fail("the end of a string")
}

// escaped goes on with a string from its first escape at i.
func (p *jsonScanner) escaped(start, i int) ([]byte, error) {
	p.buf = append(p.buf[:0], p.data[start:i]...)
	for i < len(p.data) {
		c := p.data[i]
		switch {
		case c == '"':
			p.pos = i + 1
			if !utf8.Valid(p.buf) {
				return nil, p.fail("valid UTF-8 before it")
			}
			return p.buf, nil
		case c < ' ':
			p.pos = i
			return nil, p.fail("no control character in a string")
		case c != '\\':
			p.buf = append(p.buf, c)
			i++
			continue
		}
		p.pos = i
		n := p.escape(i)
		if n == 0 {
			return nil, p.fail("a valid escape sequence")
		}
		i += n
	}
	return nil, p.fail("the end of a string")
}

// escape appends the character escaped at data[i] to buf and returns the length
// of its escape, 0 if it is none.
func (p *jsonScanner) escape(i int) int {
	if i+1 >= len(p.data) {
		return 0
	}
	switch c := p.data[i+1]; c {
	case '"', '\\', '/':
		p.buf = append(p.buf, c)
	case 'b':
		p.buf = append(p.buf, '\b')
	case 'f':
		p.buf = append(p.buf, '\f')
	case 'n':
		p.buf = append(p.buf, '\n')
	case 'r':
		p.buf = append(p.buf, '\r')
	case 't':
		p.buf = append(p.buf, '\t')
	case 'u':
		r, ok := p.hex4(i + 2)
		if !ok {
			return 0
		}
		if !utf16.IsSurrogate(r) {
			p.buf = utf8.AppendRune(p.buf, r)
			return 6
		}
		low, ok := p.hex4(i + 8)
		if !ok || p.data[i+6] != '\\' || p.data[i+7] != 'u' {
			return 0
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return 0
		}
		p.buf = utf8.AppendRune(p.buf, r)
		return 12
	default:
		return 0
	}
	return 2
}

// hex4 reads four hexadecimal digits at data[i].
func (p *jsonScanner) hex4(i int) (rune, bool) {
	if i+4 > len(p.data) {
		return 0, false
	}
	v, err := strconv.ParseUint(string(p.data[i:i+4]), 16, 32)
	return rune(v), err == nil
}

// id reads a token id.
func (p *jsonScanner) id() (uint32, error) {
	p.peek()
	v, start := uint32(0), p.pos
	for p.pos < len(p.data) {
		c := p.data[p.pos] - '0'
		if c > 9 {
			break
		}
		v = v*10 + uint32(c)
		if v >= maxIDs {
			return 0, corrupt("byte %d of tokenizer.json: token id above %d", start, maxIDs-1)
		}
		p.pos++
	}
	if p.pos == start {
		return 0, p.fail("a token id")
	}
	return v, nil
}

// skip passes over one value of any kind and returns its text, which is checked
// for balance only.
func (p *jsonScanner) skip() ([]byte, error) {
	p.peek()
	start := p.pos
	for depth := 0; ; {
		switch c := p.peek(); c {
		case 0:
			return nil, p.fail("a value")
		case '"':
			if _, err := p.str(); err != nil {
				return nil, err
			}
		case '{', '[':
			depth++
			if depth > maxJSONDepth {
				return nil, p.fail("less nesting")
			}
			p.pos++
		case '}', ']':
			depth--
			if depth < 0 {
				return nil, p.fail("a value")
			}
			p.pos++
		case ',', ':':
			if depth == 0 {
				return nil, p.fail("a value")
			}
			p.pos++
		default:
			for p.pos < len(p.data) && !delimiter(p.data[p.pos]) {
				p.pos++
			}
		}
		if depth == 0 {
			return p.data[start:p.pos], nil
		}
	}
}

// delimiter reports whether c ends a number or literal.
func delimiter(c byte) bool {
	switch c {
	case ' ', '\n', '\t', '\r', ',', ':', '"', '{', '}', '[', ']':
		return true
	}
	return false
}
