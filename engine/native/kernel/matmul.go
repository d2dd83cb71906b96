package kernel

import (
	"encoding/binary"
	"math"
)

// MatMulQ multiplies the first m rows of q by the output groups g0…g1-1 of w, a
// matrix of a quantized format with the same K:
//
//	dst[t*ldd + 16*g + lane] = Σ over blocks b of
//	    float(Σ code·qx)·d[b] · dx[b]  (+ min[b] · sum[b])
//
// as acc = fma(float32(isum)*d, dx, acc), then acc = fma(min, sum, acc) for the
// 4-bit formats, block after block. ldd is at least 16·Groups, since the
// padding rows are written too.
func (k *Kernels) MatMulQ(dst []float32, ldd int, q *Quantized, m int, w *Matrix, g0, g1 int) {
	if m <= 0 || g0 >= g1 {
		return
	}
	if !w.Format.Quantized() || q.k != w.K || g0 < 0 || g1 > w.Groups() || m > len(q.scale)/(w.K/Block) {
		panic("BUG: quantized product of mismatched shapes")
	}
	_ = dst[(m-1)*ldd+16*g1-1]
	if k.matMulQFast(dst, ldd, q, m, w, g0, g1) {
		return
	}
	var block quantBlock
	for g := g0; g < g1; g++ {
		for t := 0; t < m; t++ {
			clear(dst[t*ldd+16*g:][:lanes])
		}
		for b := 0; b < w.K/Block; b++ {
			block.read(w, g, b)
			for t := 0; t < m; t++ {
				block.multiply((*[lanes]float32)(dst[t*ldd+16*g:]), q, q.offset(t)+b*tileRows)
			}
		}
	}
}

// quantBlock is one block of a group: 16 rows by 32 columns.
type quantBlock struct {
	codes      []byte
	scale, low [lanes]float32
}

// read fills k with block b of group g of m.
func (k *quantBlock) read(m *Matrix, g, b int) {
	data := m.group(g)
	n := formats[m.Format].codeBytes
	k.codes = data[b*n : (b+1)*n]
	for l := range k.scale {
		k.scale[l] = m.scale(data, b, l)
		if n == 256 {
			k.low[l] = m.scale(data, b, lanes+l)
		}
	}
}

// multiply adds the block times block i of q to acc.
func (k *quantBlock) multiply(acc *[lanes]float32, q *Quantized, i int) {
	var isum [lanes]int32
	x := (*[Block]int8)(q.codes[i*Block:])
	dx := q.scale[i]
	if len(k.codes) == 512 {
		dot8(&isum, k.codes, x)
		for l, n := range isum {
			acc[l] = fma32(float32(float32(n+q.bias[i])*k.scale[l]), dx, acc[l])
		}
		return
	}
	dot4(&isum, k.codes, x)
	sum := q.sum[i]
	for l, n := range isum {
		t := fma32(float32(float32(n)*k.scale[l]), dx, acc[l])
		acc[l] = fma32(k.low[l], sum, t)
	}
}

// pairMask keeps one byte of each of two rows. Two rows' codes in the halves of
// a word are multiplied at once: the word's sum modulo 2^64 is the low row's
// sum plus 2^32 times the high row's, and both fit 32 bits.
const pairMask = 0x000000ff000000ff

// dot4 sums code times value for 16 rows of 4-bit codes.
func dot4(isum *[lanes]int32, codes []byte, x *[Block]int8) {
	var sums [lanes / 2]int64
	for j := 0; j < 4; j++ {
		l0, l1, l2, l3 := int64(x[4*j]), int64(x[4*j+1]), int64(x[4*j+2]), int64(x[4*j+3])
		h0, h1, h2, h3 := int64(x[16+4*j]), int64(x[17+4*j]), int64(x[18+4*j]), int64(x[19+4*j])
		part := (*[64]byte)(codes[64*j:])
		for p := range sums {
			w := binary.LittleEndian.Uint64(part[8*p:])
			lo, hi := w&0x0f0f0f0f0f0f0f0f, w>>4&0x0f0f0f0f0f0f0f0f
			sums[p] += int64(lo&pairMask)*l0 + int64(lo>>8&pairMask)*l1 + int64(lo>>16&pairMask)*l2 + int64(lo>>24&pairMask)*l3 +
				int64(hi&pairMask)*h0 + int64(hi>>8&pairMask)*h1 + int64(hi>>16&pairMask)*h2 + int64(hi>>24&pairMask)*h3
		}
	}
	splitPairs(isum, &sums)
}

// dot8 sums code times value for 16 rows of codes stored with 128 added.
func dot8(isum *[lanes]int32, codes []byte, x *[Block]int8) {
	var sums [lanes / 2]int64
	for j := 0; j < 8; j++ {
		x0, x1, x2, x3 := int64(x[4*j]), int64(x[4*j+1]), int64(x[4*j+2]), int64(x[4*j+3])
		part := (*[64]byte)(codes[64*j:])
		for p := range sums {
			w := binary.LittleEndian.Uint64(part[8*p:])
			sums[p] += int64(w&pairMask)*x0 + int64(w>>8&pairMask)*x1 + int64(w>>16&pairMask)*x2 + int64(w>>24&pairMask)*x3
		}
	}
	splitPairs(isum, &sums)
}

// splitPairs separates the two rows of each sum.
func splitPairs(isum *[lanes]int32, sums *[lanes / 2]int64) {
	for p, s := range sums {
		lo := int32(s)
		isum[2*p], isum[2*p+1] = lo, int32((s-int64(lo))>>32)
	}
}

// panelK is the number of columns widened at once by MatMulF: a panel of one
// group stays in the first-level cache.
const panelK = 256

// panel is a stretch of one group's weights as float32, [k][16].
type panel [panelK * lanes]float32

// MatMulF multiplies m rows of float32 activations (x[t*ldx+k]) by the output
// groups g0…g1-1 of w, of any format:
//
//	dst[t*ldd + 16*g + lane] = fma over k upwards of x[k] · w[k], from 0
//
// with the weights exactly as Row gives them. ldd is at least 16·Groups, since
// the padding rows are written too.
func (k *Kernels) MatMulF(dst []float32, ldd int, x []float32, ldx, m int, w *Matrix, g0, g1 int) {
	if m <= 0 || g0 >= g1 {
		return
	}
	if g0 < 0 || g1 > w.Groups() {
		panic("BUG: group range outside the matrix")
	}
	_, _ = dst[(m-1)*ldd+16*g1-1], x[(m-1)*ldx+w.K-1]
	if k.matMulFFast(dst, ldd, x, ldx, m, w, g0, g1) {
		return
	}
	var p panel
	for g := g0; g < g1; g++ {
		for k0 := 0; k0 < w.K; k0 += panelK {
			n := min(panelK, w.K-k0)
			w.widen(&p, g, k0, n)
			for t := 0; t < m; t++ {
				out := (*[lanes]float32)(dst[t*ldd+16*g:])
				if k0 == 0 {
					*out = [lanes]float32{}
				}
				matMulFScalar(out, x[t*ldx+k0:t*ldx+k0+n], &p)
			}
		}
	}
}

func matMulFScalar(dst *[lanes]float32, x []float32, p *panel) {
	for k, v := range x {
		row := (*[lanes]float32)(p[k*lanes:])
		for l := range dst {
			dst[l] = fma32(v, row[l], dst[l])
		}
	}
}

// widen writes columns k0…k0+n-1 of group g to p as float32. For quantized
// formats k0 and n are multiples of Block.
func (m *Matrix) widen(p *panel, g, k0, n int) {
	data := m.group(g)
	if !m.Format.Quantized() {
		m.widenFloat(p, data, k0, n)
		return
	}
	var row [Block]float32
	for b := k0 / Block; b < (k0+n)/Block; b++ {
		for l := 0; l < lanes; l++ {
			m.rowBlock(&row, data, b, l)
			for i, v := range row {
				p[(b*Block-k0+i)*lanes+l] = v
			}
		}
	}
}

func (m *Matrix) widenFloat(p *panel, data []byte, k0, n int) {
	switch m.Format {
	case F32:
		for i := 0; i < n*lanes; i++ {
			p[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[(k0*lanes+i)*4:]))
		}
	case BF16:
		for i := 0; i < n*lanes; i++ {
			p[i] = bfloatToFloat(binary.LittleEndian.Uint16(data[(k0*lanes+i)*2:]))
		}
	case F16:
		for i := 0; i < n*lanes; i++ {
			p[i] = halfToFloat(binary.LittleEndian.Uint16(data[(k0*lanes+i)*2:]))
		}
	}
}
