package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// aligned returns n bytes that begin at a multiple of 64.
func aligned(n int) []byte {
	b := make([]byte, n+63)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & 63)
	return b[skip : skip+n]
}

// context is a random cache with one sequence of positions stored in shuffled
// blocks, everything else in the storage being NaN.
type context struct {
	kv     *KV
	blocks []int32
	keys   [][]float32 // of the one head that is read
	values [][]float32
}

const testLayer, testHead = 1, 1

func newContext(t testing.TB, r *rand.Rand, k *Kernels, typ KVType, headDim, positions int) *context {
	t.Helper()
	s := KVShape{Type: typ, Layers: 2, Heads: 3, HeadDim: headDim}
	n := (positions+KVBlock-1)/KVBlock + 2
	data := aligned(n * s.BlockBytes())
	for i := range data {
		data[i] = 0xff
	}
	kv, err := NewKV(s, data)
	if err != nil {
		t.Fatal(err)
	}
	c := &context{kv: kv}
	for _, b := range r.Perm(n)[:n-2] {
		c.blocks = append(c.blocks, int32(b))
	}
	for p := 0; p < positions; p++ {
		key, value := normal(r, headDim), normal(r, headDim)
		c.keys, c.values = append(c.keys, key), append(c.values, value)
		k.StoreKV(kv, Place{Layer: testLayer, Head: testHead, Block: int(c.blocks[p/KVBlock]), Slot: p % KVBlock}, key, value)
	}
	return c
}

func TestStoreKVIsBitIdenticalAcrossLevels(t *testing.T) {
	scalar, fast := fastLevels(t)
	for _, typ := range []KVType{KVF16, KVF32} {
		for _, hd := range []int{16, 64, 80, 128, 256} {
			want := newContext(t, newRand(9), scalar, typ, hd, 37)
			for _, kn := range fast {
				got := newContext(t, newRand(9), kn, typ, hd, 37)
				for i := range want.kv.data {
					if got.kv.data[i] != want.kv.data[i] {
						t.Fatalf("%s %s head %d: byte %d differs", kn.Level(), typ, hd, i)
					}
				}
			}
		}
	}
}

// attend computes all queries of c from first on.
func attend(k *Kernels, c *context, q []float32, first, qheads int) []float32 {
	hd := c.kv.HeadDim
	stride := qheads * hd
	dst := make([]float32, len(q))
	var s AttendScratch
	k.Attend(&Attention{
		KV: c.kv, Layer: testLayer, Head: testHead, Blocks: c.blocks, First: first, Queries: len(q) / stride,
		QHeads: qheads, Scale: float32(1 / math.Sqrt(float64(hd))), Q: q, Dst: dst, QStride: stride, DstStride: stride,
	}, &s)
	return dst
}

func TestAttendIsBitIdenticalAcrossLevelsAndTiles(t *testing.T) {
	scalar, fast := fastLevels(t)
	r := newRand(10)
	for _, typ := range []KVType{KVF16, KVF32} {
		for _, hd := range []int{16, 64, 80, 96, 128, 256} {
			for _, qheads := range []int{1, 2, 3, 4, 5, 7, 13} {
				first, queries := r.IntN(40), 1+r.IntN(12)
				c := newContext(t, r, scalar, typ, hd, first+queries)
				q := normal(r, queries*qheads*hd)
				want := attend(scalar, c, q, first, qheads)
				what := fmt.Sprintf("%s head %d × %d, %d queries from %d", typ, hd, qheads, queries, first)
				for i, v := range want {
					if v != v {
						t.Fatalf("%s: value %d is not a number", what, i)
					}
				}
				for _, kn := range append(fast, scalar) {
					sameBits(t, kn.Level().String()+" "+what, attend(kn, c, q, first, qheads), want)
					// Each query alone gives the same.
					i := r.IntN(queries)
					n := qheads * hd
					sameBits(t, kn.Level().String()+" alone "+what, attend(kn, c, q[i*n:(i+1)*n], first+i, qheads), want[i*n:(i+1)*n])
				}
			}
		}
	}
}

func TestAttendAgreesWithFloat64(t *testing.T) {
	scalar, _ := fastLevels(t)
	r := newRand(11)
	const hd, qheads, first, queries = 64, 3, 90, 5
	for typ, tolerance := range map[KVType]float64{KVF32: 2e-6, KVF16: 2e-3} {
		c := newContext(t, r, scalar, typ, hd, first+queries)
		q := normal(r, queries*qheads*hd)
		got := attend(scalar, c, q, first, qheads)
		for row := 0; row < queries*qheads; row++ {
			want := attention64(c, q[row*hd:(row+1)*hd], first+row/qheads+1)
			for d, v := range want {
				if diff := math.Abs(float64(got[row*hd+d]) - v); diff > tolerance {
					t.Fatalf("%s: row %d value %d is off by %g", typ, row, d, diff)
				}
			}
		}
	}
}

// attention64 is the textbook definition over the first n positions.
func attention64(c *context, q []float32, n int) []float64 {
	e := make([]float64, n)
	var sum float64
	for p := range e {
		var s float64
		for d, v := range q {
			s += float64(v) * float64(c.keys[p][d])
		}
		e[p] = math.Exp(s / math.Sqrt(float64(len(q))))
		sum += e[p]
	}
	out := make([]float64, len(q))
	for p := range e {
		for d := range out {
			out[d] += e[p] / sum * float64(c.values[p][d])
		}
	}
	return out
}

func TestAttendRefusesBlocksOutsideTheCache(t *testing.T) {
	for _, k := range levels(t) {
		c := newContext(t, newRand(12), k, KVF16, 16, 20)
		c.blocks[1] = int32(c.kv.Blocks())
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", k.Level())
				}
			}()
			attend(k, c, make([]float32, 16), 19, 1)
		}()
	}
}

func levels(t testing.TB) []*Kernels {
	scalar, fast := fastLevels(t)
	return append(fast, scalar)
}
