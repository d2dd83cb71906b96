package kvwire

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// reader reads MessagePack. After the first fault it is at its end and bad, and
// what it returns means nothing.
type reader struct {
	b   []byte
	i   int
	bad bool
}

// form is what a value is; lengths and numbers are decoded with it.
type form uint8

const (
	formNil form = iota
	formBool
	formUint // n
	formInt  // n, the bits of a negative number
	formFloat
	formText  // n bytes follow
	formBytes // n bytes follow
	formArray // n values follow
	formMap   // n pairs follow
	formExt   // n bytes follow, the type first
	formNone  // no value: the end, or what MessagePack does not know
)

func (r *reader) fail() {
	r.i, r.bad = len(r.b), true
}

// fixed reads n bytes as a big-endian number.
func (r *reader) fixed(n int) uint64 {
	if len(r.b)-r.i < n {
		r.fail()
		return 0
	}
	p := r.b[r.i:]
	r.i += n
	switch n {
	case 1:
		return uint64(p[0])
	case 2:
		return uint64(binary.BigEndian.Uint16(p))
	case 4:
		return uint64(binary.BigEndian.Uint32(p))
	}
	return binary.BigEndian.Uint64(p)
}

// head reads the beginning of a value: all of it but the content of texts, bytes
// and containers. No length is larger than the bytes that are left.
func (r *reader) head() (form, uint64) {
	if r.i >= len(r.b) {
		r.fail()
		return formNone, 0
	}
	c := r.b[r.i]
	r.i++
	f, n := formNone, uint64(0)
	switch {
	case c < 0x80:
		return formUint, uint64(c)
	case c < 0x90:
		f, n = formMap, uint64(c&0x0f)
	case c < 0xa0:
		f, n = formArray, uint64(c&0x0f)
	case c < 0xc0:
		f, n = formText, uint64(c&0x1f)
	case c >= 0xe0:
		return formInt, uint64(int64(int8(c)))
	default:
		f, n = r.longHead(c)
	}
	if f >= formText && f < formNone && n > uint64(len(r.b)-r.i) {
		r.fail()
	}
	if r.bad {
		return formNone, 0
	}
	return f, n
}

// longHead is head for the forms that carry more than their first byte, c.
func (r *reader) longHead(c byte) (form, uint64) {
	switch c {
	case 0xc0:
		return formNil, 0
	case 0xc2, 0xc3:
		return formBool, uint64(c & 1)
	case 0xc4, 0xc5, 0xc6:
		return formBytes, r.fixed(1 << (c - 0xc4))
	case 0xc7, 0xc8, 0xc9:
		return formExt, r.fixed(1<<(c-0xc7)) + 1
	case 0xca:
		return formFloat, math.Float64bits(float64(math.Float32frombits(uint32(r.fixed(4)))))
	case 0xcb:
		return formFloat, r.fixed(8)
	case 0xcc, 0xcd, 0xce, 0xcf:
		return formUint, r.fixed(1 << (c - 0xcc))
	case 0xd0, 0xd1, 0xd2, 0xd3:
		bits := 8 << (c - 0xd0)
		n := int64(r.fixed(bits/8)) << (64 - bits) >> (64 - bits)
		if n >= 0 {
			return formUint, uint64(n)
		}
		return formInt, uint64(n)
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return formExt, 1<<(c-0xd4) + 1
	case 0xd9, 0xda, 0xdb:
		return formText, r.fixed(1 << (c - 0xd9))
	case 0xdc, 0xdd:
		return formArray, r.fixed(2 << (c - 0xdc))
	case 0xde, 0xdf:
		return formMap, r.fixed(2 << (c - 0xde))
	}
	r.fail()
	return formNone, 0
}

// take returns the next n bytes, which head has found to be there.
func (r *reader) take(n uint64) []byte {
	p := r.b[r.i : r.i+int(n)]
	r.i += int(n)
	return p
}

// skip passes over n values.
func (r *reader) skip(n uint64) {
	for ; n > 0 && !r.bad; n-- {
		f, m := r.head()
		switch f {
		case formText, formBytes, formExt:
			r.i += int(m)
		case formArray:
			n += m
		case formMap:
			n += 2 * m
		}
	}
}

// rest passes over the content of a value whose head was read.
func (r *reader) rest(f form, n uint64) {
	switch f {
	case formText, formBytes, formExt:
		r.i += int(n)
	case formArray:
		r.skip(n)
	case formMap:
		r.skip(2 * n)
	}
}

// array reads the head of an array; nil is an empty one.
func (r *reader) array() int {
	switch f, n := r.head(); f {
	case formArray:
		return int(n)
	case formNil:
	default:
		r.fail()
	}
	return 0
}

// number reads a number that must lie in 0 … limit; nil is 0.
func (r *reader) number(limit uint64) int {
	f, n := r.head()
	if f == formNil {
		return 0
	}
	if f != formUint || n > limit {
		r.fail()
		return 0
	}
	return int(n)
}

// tokens appends the next n values to dst. plain is false if one of them is no
// token id.
func (r *reader) tokens(dst []dynamo.TokenID, n int) (_ []dynamo.TokenID, plain bool) {
	plain = true
	at := len(dst)
	dst = slices.Grow(dst, n)[:at+n]
	b, i, out := r.b, r.i, dst[at:]
	for k := 0; k < len(out); k++ {
		// Nearly all ids are of 16 bits, cd and the id: eight of them are in three
		// words.
		for len(out)-k > 8 && len(b)-i >= 24 {
			p, eight := (*[24]byte)(b[i:]), (*[8]dynamo.TokenID)(out[k:])
			u, v, w := binary.BigEndian.Uint64(p[:8]), binary.BigEndian.Uint64(p[8:16]), binary.BigEndian.Uint64(p[16:])
			if (u^0xcd0000cd0000cd00)&0xff0000ff0000ff00|(v^0x00cd0000cd0000cd)&0x00ff0000ff0000ff|(w^0x0000cd0000cd0000)&0x0000ff0000ff0000 != 0 {
				break
			}
			eight[0] = dynamo.TokenID(u >> 40 & 0xffff)
			eight[1] = dynamo.TokenID(u >> 16 & 0xffff)
			eight[2] = dynamo.TokenID(u&0xff<<8 | v>>56)
			eight[3] = dynamo.TokenID(v >> 32 & 0xffff)
			eight[4] = dynamo.TokenID(v >> 8 & 0xffff)
			eight[5] = dynamo.TokenID(w >> 48)
			eight[6] = dynamo.TokenID(w >> 24 & 0xffff)
			eight[7] = dynamo.TokenID(w & 0xffff)
			k, i = k+8, i+24
		}
		if i+2 < len(b) && b[i] == 0xcd {
			out[k] = dynamo.TokenID(binary.BigEndian.Uint16(b[i+1:]))
			i += 3
			continue
		}
		if i < len(b) && b[i] < 0x80 {
			out[k] = dynamo.TokenID(b[i])
			i++
			continue
		}
		if i+4 < len(b) && b[i] == 0xce { // the upper part of a large vocabulary
			out[k] = dynamo.TokenID(binary.BigEndian.Uint32(b[i+1:]))
			i += 5
			continue
		}
		r.i = i
		f, v := r.head()
		if f != formUint || v > math.MaxUint32 {
			plain = false
			r.rest(f, v)
		}
		out[k] = dynamo.TokenID(v)
		if r.bad {
			return dst[:at], false
		}
		i = r.i
	}
	r.i = i
	return dst, plain
}
