package weights

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Dequantize writes the values of one row of t to dst, which holds at least
// Cols values. It fails when t has no such row.
//
// The blocks, fields in file order (d, m and dmin are binary16):
//
//	Q8_0  d, 32 × int8 q:           d·q
//	Q4_0  d, 16 bytes of nibbles:   d·(q-8)   low nibbles are values 0…15, high 16…31
//	Q4_1  d, m, 16 bytes:           d·q + m   the same
//	Q4_K  d, dmin, 12 bytes, 128 bytes of nibbles; 8 parts of 32 with 6-bit scale
//	      s and minimum n:          (d·s)·q - dmin·n
//	Q6_K  128 bytes of low nibbles, 64 bytes of high bit pairs, 16 × int8 scale s,
//	      d; 16 parts of 16:        d·s·(q-32)
//
// All products are exact in float32, so the order of multiplication does not
// matter and a fused addition gives the same bits.
func Dequantize(dst []float32, t Tensor, row int) error {
	b, err := t.row(row)
	if err != nil {
		return err
	}
	k := t.Cols()
	if len(dst) < k {
		return fmt.Errorf("read tensor %s: room for %d values, a row has %d", t.Name, len(dst), k)
	}
	dst = dst[:k]
	switch t.DType {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = half(b[2*i:])
		}
	case BF16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16)
		}
	case Q8_0:
		for ; len(dst) > 0; dst, b = dst[32:], b[34:] {
			d := half(b)
			for i, q := range b[2:34] {
				dst[i] = d * float32(int8(q))
			}
		}
	case Q4_0, Q4_1, Q4_K:
		dequantize4(dst, t.DType, b)
	case Q6_K:
		for ; len(dst) > 0; dst, b = dst[256:], b[210:] {
			dequantize6(dst, b)
		}
	}
	return nil
}

// dequantize4 goes through the same unpacking as UnpackQ4.
func dequantize4(dst []float32, d DType, b []byte) {
	var codes [256]byte
	var scale, low [8]float32
	l := layouts[d]
	for ; len(dst) > 0; dst, b = dst[l.values:], b[l.bytes:] {
		unpack4(codes[:l.values], scale[:l.values/32], low[:l.values/32], d, b[:l.bytes])
		for i, q := range codes[:l.values] {
			dst[i] = float32(scale[i/32]*float32(q)) + low[i/32]
		}
	}
}

// UnpackQ4 splits one row of a Q4_0, Q4_1 or Q4_K tensor into its codes, 0…15,
// one in a byte, and per 32 values a scale and a minimum, so that a value is
// scale·code + minimum. It fails for other types and rows that are not there.
func UnpackQ4(codes []byte, scale, low []float32, t Tensor, row int) error {
	b, err := t.row(row)
	if err != nil {
		return err
	}
	k := t.Cols()
	if t.DType != Q4_0 && t.DType != Q4_1 && t.DType != Q4_K {
		return fmt.Errorf("read tensor %s: type %s has no 4-bit codes", t.Name, t.DType)
	}
	if len(codes) < k || len(scale) < k/32 || len(low) < k/32 {
		return fmt.Errorf("read tensor %s: room for %d values, a row has %d", t.Name, len(codes), k)
	}
	l := layouts[t.DType]
	parts := l.values / 32
	for i := 0; i < k/l.values; i++ {
		unpack4(codes[i*l.values:(i+1)*l.values], scale[i*parts:(i+1)*parts], low[i*parts:(i+1)*parts], t.DType, b[i*l.bytes:(i+1)*l.bytes])
	}
	return nil
}

// unpack4 unpacks one block.
func unpack4(codes []byte, scale, low []float32, d DType, b []byte) {
	switch d {
	case Q4_0:
		scale[0] = half(b)
		low[0] = -8 * scale[0]
		nibbles(codes[:16], codes[16:32], b[2:18])
	case Q4_1:
		scale[0], low[0] = half(b), half(b[2:])
		nibbles(codes[:16], codes[16:32], b[4:20])
	case Q4_K:
		d, dmin := half(b), half(b[2:])
		for j := range scale {
			s, n := scaleMin(j, b[4:16])
			scale[j], low[j] = d*float32(s), -dmin*float32(n)
		}
		for c := 0; c < 4; c++ {
			nibbles(codes[64*c:64*c+32], codes[64*c+32:64*c+64], b[16+32*c:48+32*c])
		}
	}
}

// nibbles splits bytes into their low and high halves.
func nibbles(low, high, b []byte) {
	for ; len(b) >= 8; low, high, b = low[8:], high[8:], b[8:] {
		v := binary.LittleEndian.Uint64(b)
		binary.LittleEndian.PutUint64(low, v&0x0f0f0f0f0f0f0f0f)
		binary.LittleEndian.PutUint64(high, v>>4&0x0f0f0f0f0f0f0f0f)
	}
}

// scaleMin reads the 6-bit scale and minimum of part j of a Q4_K block: the
// first four parts' lie whole in bytes 0…7, the others' low bits in bytes 8…11
// and their high bits on top of the first.
func scaleMin(j int, b []byte) (scale, low byte) {
	if j < 4 {
		return b[j] & 63, b[j+4] & 63
	}
	return b[j+4]&15 | b[j-4]>>6<<4, b[j+4]>>4 | b[j]>>6<<4
}

// dequantize6 reads one Q6_K block of 256 values.
func dequantize6(dst []float32, b []byte) {
	d := half(b[208:])
	for n := 0; n < 2; n++ {
		low, high, s, out := b[64*n:64*n+64], b[128+32*n:160+32*n], b[192+8*n:200+8*n], dst[128*n:128*n+128]
		for l := 0; l < 32; l++ {
			h := high[l]
			q := [4]byte{low[l]&15 | h&3<<4, low[l+32]&15 | h>>2&3<<4, low[l]>>4 | h>>4&3<<4, low[l+32]>>4 | h>>6<<4}
			for i, c := range q {
				out[l+32*i] = d * float32(int8(s[l/16+2*i])) * float32(int(c)-32)
			}
		}
	}
}

// UnpackQ8 splits one row of a Q8_0 tensor into its codes and per 32 values a
// scale. It fails for other types and rows that are not there.
func UnpackQ8(codes []int8, scale []float32, t Tensor, row int) error {
	b, err := t.row(row)
	if err != nil {
		return err
	}
	k := t.Cols()
	if t.DType != Q8_0 {
		return fmt.Errorf("read tensor %s: type %s has no 8-bit codes", t.Name, t.DType)
	}
	if len(codes) < k || len(scale) < k/32 {
		return fmt.Errorf("read tensor %s: room for %d values, a row has %d", t.Name, len(codes), k)
	}
	for i := 0; i < k/32; i++ {
		block := b[34*i : 34*i+34]
		scale[i] = half(block)
		to := codes[32*i : 32*i+32]
		for j, q := range block[2:] {
			to[j] = int8(q)
		}
	}
	return nil
}

// half reads a binary16 value.
func half(b []byte) float32 {
	h := binary.LittleEndian.Uint16(b)
	// The exponent and fraction moved into place are the value times 2^-112,
	// subnormals included; multiplying back is exact.
	m := uint32(h&0x7fff) << 13
	f := math.Float32bits(math.Float32frombits(m) * 0x1p112)
	if h&0x7c00 == 0x7c00 {
		f = m | 0x7f800000
	}
	return math.Float32frombits(f | uint32(h&0x8000)<<16)
}
