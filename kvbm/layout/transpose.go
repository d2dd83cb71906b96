package layout

import "encoding/binary"

// tile is the number of steps of each crossed loop between changes of the other.
const tile = 16

// transpose copies the elements of the crossed loops.
func (t *part) transpose(dst, src []byte) {
	a, b := t.element[0], t.element[1]
	if t.run == 2 && a.src == 2 && b.dst == 2 {
		transpose16(dst, src, a, b)
		return
	}
	for i := 0; i < a.n; i += tile {
		for j := 0; j < b.n; j += tile {
			elements(dst[i*a.dst+j*b.dst:], src[i*a.src+j*b.src:], t.run, loop{min(tile, a.n-i), a.src, a.dst}, loop{min(tile, b.n-j), b.src, b.dst})
		}
	}
}

// transpose16 is transpose of elements of two bytes that are neighbours along a at the
// source and along b at the destination: it turns squares of 4 × 4 in registers.
func transpose16(dst, src []byte, a, b loop) {
	le := binary.LittleEndian
	const (
		even = 0x0000ffff0000ffff
		low  = 0x00000000ffffffff
	)
	n, m := a.n&^3, b.n&^3
	for i := 0; i < n; i += tile {
		end := min(i+tile, n)
		for j := 0; j < m; j += 4 {
			s0 := src[j*b.src:]
			s1, s2, s3 := s0[b.src:], s0[2*b.src:], s0[3*b.src:]
			for k := i; k < end; k += 4 {
				r0, r1, r2, r3 := le.Uint64(s0[2*k:]), le.Uint64(s1[2*k:]), le.Uint64(s2[2*k:]), le.Uint64(s3[2*k:])
				t0, t1 := r0&even|r1&even<<16, r0>>16&even|r1&^even
				t2, t3 := r2&even|r3&even<<16, r2>>16&even|r3&^even
				d := dst[k*a.dst+2*j:]
				le.PutUint64(d, t0&low|t2<<32)
				le.PutUint64(d[a.dst:], t1&low|t3<<32)
				le.PutUint64(d[2*a.dst:], t0>>32|t2&^low)
				le.PutUint64(d[3*a.dst:], t1>>32|t3&^low)
			}
		}
	}
	if n < a.n {
		elements(dst[n*a.dst:], src[n*a.src:], 2, loop{a.n - n, a.src, a.dst}, b)
	}
	if m < b.n {
		elements(dst[m*b.dst:], src[m*b.src:], 2, loop{n, a.src, a.dst}, loop{b.n - m, b.src, b.dst})
	}
}

// elements copies elements of a size one by one.
func elements(dst, src []byte, size int, a, b loop) {
	le := binary.LittleEndian
	for i := range a.n {
		s, d := i*a.src, i*a.dst
		switch size {
		case 1:
			for range b.n {
				dst[d] = src[s]
				s, d = s+b.src, d+b.dst
			}
		case 2:
			for range b.n {
				le.PutUint16(dst[d:], le.Uint16(src[s:]))
				s, d = s+b.src, d+b.dst
			}
		case 4:
			for range b.n {
				le.PutUint32(dst[d:], le.Uint32(src[s:]))
				s, d = s+b.src, d+b.dst
			}
		default:
			for range b.n {
				le.PutUint64(dst[d:], le.Uint64(src[s:]))
				s, d = s+b.src, d+b.dst
			}
		}
	}
}
