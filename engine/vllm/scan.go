package vllm

import (
	"math"
	"strconv"
)

// scan reads JSON where it lies, value by value, without building anything. What
// nobody asks for is passed over by skip, which minds only strings and brackets. A
// fault sets bad, after which nothing more is found.
type scan struct {
	b     []byte
	i     int
	fresh bool // the next more is the first of its object or array
	bad   bool
}

func (s *scan) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

// peek returns the next byte that is not space; 0 at the end.
func (s *scan) peek() byte {
	s.space()
	if s.i >= len(s.b) || s.bad {
		return 0
	}
	return s.b[s.i]
}

// open enters an object ('{') or an array ('['). A null is passed over; any other
// value is a fault.
func (s *scan) open(c byte) bool {
	switch s.peek() {
	case c:
		s.i++
		s.fresh = true
		return true
	case 'n':
		s.skip()
	default:
		s.bad = true
	}
	return false
}

// more reports whether another element follows, and leaves the object or array
// whose end is at hand.
func (s *scan) more(end byte) bool {
	c := s.peek()
	switch {
	case c == end:
		s.i++
		s.fresh = false
		return false
	case c == 0 || !s.fresh && c != ',':
		s.bad = true
		return false
	case !s.fresh:
		s.i++
	}
	s.fresh = false
	return true
}

// key returns the name of an object's next element.
func (s *scan) key() []byte {
	k := s.text()
	if s.peek() != ':' {
		s.bad = true
		return nil
	}
	s.i++
	return k
}

// text returns a string without its quotes, escapes as they are; nil for null.
func (s *scan) text() []byte {
	switch s.peek() {
	case '"':
	case 'n':
		s.skip()
		return nil
	default:
		s.bad = true
		return nil
	}
	start := s.i + 1
	for i := start; i < len(s.b); i++ {
		switch s.b[i] {
		case '\\':
			i++
		case '"':
			s.i = i + 1
			return s.b[start:i]
		}
	}
	s.bad = true
	return nil
}

// number returns the bytes of a number, or nil for anything else, which is passed
// over.
func (s *scan) number() []byte {
	if c := s.peek(); c != '-' && (c < '0' || c > '9') {
		s.skip()
		return nil
	}
	start := s.i
	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c >= '0' && c <= '9', c == '-', c == '+', c == '.', c == 'e', c == 'E':
			s.i++
			continue
		}
		break
	}
	return s.b[start:s.i]
}

// integer returns a number without fraction; ok is false for anything else.
func (s *scan) integer() (n int64, ok bool) {
	return integer(s.number())
}

func integer(b []byte) (n int64, ok bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, true
}

// real returns a number; NaN for anything else.
func (s *scan) real() float64 {
	b := s.number()
	if b == nil {
		return math.NaN()
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		s.bad = true
		return math.NaN()
	}
	return f
}

// skip passes over a value.
func (s *scan) skip() {
	depth := 0
	for {
		switch s.peek() {
		case 0:
			s.bad = true
			return
		case '"':
			s.text()
		case '{', '[':
			depth++
			s.i++
			s.fresh = false
			continue
		case '}', ']':
			depth--
			s.i++
			if depth < 0 {
				s.bad = true
			}
		case ',', ':':
			if depth == 0 {
				s.bad = true
				return
			}
			s.i++
			continue
		default:
			s.word()
		}
		if depth <= 0 || s.bad {
			return
		}
	}
}

// word passes over a number or a literal.
func (s *scan) word() {
	start := s.i
	for s.i < len(s.b) {
		c := s.b[s.i]
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '+' || c == '.' {
			s.i++
			continue
		}
		break
	}
	if s.i == start {
		s.bad = true
	}
}
