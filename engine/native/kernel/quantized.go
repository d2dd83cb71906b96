package kernel

import (
	"math"
	"unsafe"
)

// Quantized holds rows of activations as 8-bit codes with one scale for 32
// values. The buffers are reused: Grow once for the largest shape of a step.
// The zero value is empty.
//
// Rows are stored in tiles of 12 so that a kernel finds the rows of a tile at
// fixed distances: tile after tile, block after block, row after row.
type Quantized struct {
	k     int
	codes []int8    // [tile][block][12 rows][32]
	scale []float32 // [tile][block][12 rows]
	sum   []float32 // the same shape: scale times the sum of the codes
	bias  []int32   // the same shape: -128 times the sum of the codes
}

// tileRows is the number of rows in a tile: with 12 the largest kernel keeps an
// integer sum and an accumulator for each in registers.
const tileRows = 12

// offset returns where a row's first block is, counted in (block, row) pairs;
// the next block is tileRows further.
func (q *Quantized) offset(row int) int {
	return row/tileRows*(q.k/Block)*tileRows + row%tileRows
}

// Grow makes room for m rows of k values (a multiple of Block), keeping the
// buffers when they are large enough. It must be called before rows of another
// length are quantized; what was stored before is lost.
func (q *Quantized) Grow(m, k int) {
	if k <= 0 || k%Block != 0 || m < 0 {
		panic("BUG: quantized rows need a positive multiple of 32 columns")
	}
	q.k = k
	n := (m + tileRows - 1) / tileRows * tileRows * (k / Block)
	if cap(q.scale) < n {
		buf := make([]int8, n*Block+63)
		skip := int(-uintptr(unsafe.Pointer(&buf[0])) & 63)
		q.codes = buf[skip : skip+n*Block]
		q.scale = make([]float32, n)
		q.sum = make([]float32, n)
		q.bias = make([]int32, n)
	}
	q.codes, q.scale, q.sum, q.bias = q.codes[:n*Block], q.scale[:n], q.sum[:n], q.bias[:n]
}

// K returns the number of values in a row.
func (q *Quantized) K() int { return q.k }

// minAmax is the magnitude below which a block of activations counts as zero:
// 127 over anything smaller is not a finite float32.
const minAmax = 0x1p-120

// Quantize stores x, which has the length given to Grow, as row row: in each
// block of 32 the scale is the largest magnitude over 127 and a code is the
// value times (127 over the magnitude), rounded to nearest even. A block whose
// magnitudes are all below 2^-120 is stored as zeros. Different rows may be
// quantized concurrently.
func (k *Kernels) Quantize(q *Quantized, row int, x []float32) {
	x = x[:q.k]
	blocks, at := q.k/Block, q.offset(row)
	last := at + (blocks-1)*tileRows
	_, _, _, _ = q.codes[last*Block+Block-1], q.scale[last], q.sum[last], q.bias[last]
	if k.quantizeFast(q, at, x) {
		return
	}
	for b := 0; b < blocks; b++ {
		i := at + b*tileRows
		q.scale[i], q.sum[i], q.bias[i] = quantizeScalar((*[Block]int8)(q.codes[i*Block:]), (*[Block]float32)(x[b*Block:]))
	}
}

func quantizeScalar(codes *[Block]int8, x *[Block]float32) (scale, sum float32, bias int32) {
	var amax float32
	for _, v := range x {
		if a := math.Float32frombits(math.Float32bits(v) &^ (1 << 31)); a > amax {
			amax = a
		}
	}
	var inv float32
	if amax >= minAmax {
		scale = amax / 127
		inv = 127 / amax
	}
	var n int32
	for i, v := range x {
		r := math.RoundToEven(float64(float32(v * inv)))
		c := int8(-128) // what the hardware makes of a NaN
		if r == r {
			c = int8(max(-128, min(127, r)))
		}
		codes[i] = c
		n += int32(c)
	}
	return scale, float32(scale * float32(n)), -128 * n
}
