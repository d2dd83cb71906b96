package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// fastLevels returns the kernels of every level above the scalar one, and the
// scalar ones to compare with.
func fastLevels(t testing.TB) (scalar *Kernels, fast []*Kernels) {
	t.Helper()
	for _, l := range Levels() {
		k, err := New(l)
		if err != nil {
			t.Fatal(err)
		}
		if l == LevelScalar {
			scalar = k
		} else {
			fast = append(fast, k)
		}
	}
	return scalar, fast
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// values returns n random values over several magnitudes, with a few of the
// awkward ones among them.
func values(r *rand.Rand, n int) []float32 {
	awkward := []float32{0, float32(math.Copysign(0, -1)), 1e-45, -1e-40, 1e-30, 3e10, -2e15, 1, -1}
	scale := float32(math.Exp(4 * r.NormFloat64()))
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64()) * scale
		if r.IntN(64) == 0 {
			x[i] = awkward[r.IntN(len(awkward))]
		}
	}
	return x
}

func normal(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// sameBits fails unless both hold the same bits, any NaN being like any other.
func sameBits(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) && (got[i] == got[i] || want[i] == want[i]) {
			t.Fatalf("%s: value %d is %g (%08x), want %g (%08x)", what, i,
				got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

// randomMatrix returns a matrix of random weights and the weights as Row gives
// them.
func randomMatrix(t testing.TB, r *rand.Rand, f Format, n, k int) (*Matrix, [][]float32) {
	t.Helper()
	m, err := NewMatrix(f, n, k)
	if err != nil {
		t.Fatal(err)
	}
	rows := make([][]float32, n)
	for i := range rows {
		switch f {
		case Q4, Q4S:
			codes, scale, low := make([]byte, k), make([]float32, k/Block), make([]float32, k/Block)
			for j := range codes {
				codes[j] = byte(r.IntN(16))
			}
			for j := range scale {
				scale[j], low[j] = float32(r.NormFloat64())*0.02, float32(r.NormFloat64())*0.1
			}
			m.SetRowQ4(i, codes, scale, low)
		case Q8, Q8S:
			codes, scale := make([]int8, k), make([]float32, k/Block)
			for j := range codes {
				codes[j] = int8(r.IntN(256) - 128)
			}
			for j := range scale {
				scale[j] = float32(r.NormFloat64()) * 0.01
			}
			m.SetRowQ8(i, codes, scale)
		default:
			m.SetRowF32(i, normal(r, k))
		}
		rows[i] = make([]float32, k)
		m.Row(rows[i], i)
	}
	return m, rows
}

var allFormats = []Format{Q4, Q4S, Q8, Q8S, F32, BF16, F16}

func TestMatMulQIsBitIdenticalAcrossLevelsAndTiles(t *testing.T) {
	scalar, fast := fastLevels(t)
	r := newRand(1)
	for _, f := range []Format{Q4, Q4S, Q8, Q8S} {
		for _, m := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 17, 20, 37} {
			n, k := 1+r.IntN(150), Block*(1+r.IntN(6))
			w, _ := randomMatrix(t, r, f, n, k)
			ldd := w.Groups()*16 + r.IntN(3)
			x := make([][]float32, m)
			for i := range x {
				x[i] = values(r, k)
			}
			want, q := productQ(scalar, x, w, ldd)
			for _, kn := range fast {
				what := fmt.Sprintf("%s %s m=%d n=%d k=%d", kn.Level(), f, m, n, k)
				got, _ := productQ(kn, x, w, ldd)
				sameBits(t, what, got, want)
				// Any range of groups gives the same values and touches no others.
				g0 := r.IntN(w.Groups())
				g1 := g0 + 1 + r.IntN(w.Groups()-g0)
				part := make([]float32, len(want))
				kn.MatMulQ(part, ldd, q, m, w, g0, g1)
				sameBits(t, what+" range", part, within(want, ldd, g0, g1))
				// A row alone gives what it gave in the batch.
				alone, _ := productQ(kn, x[m-1:], w, ldd)
				sameBits(t, what+" alone", alone, want[(m-1)*ldd:])
			}
		}
	}
}

// productQ quantizes x and multiplies.
func productQ(k *Kernels, x [][]float32, w *Matrix, ldd int) ([]float32, *Quantized) {
	var q Quantized
	q.Grow(len(x), w.K)
	for i := range x {
		k.Quantize(&q, i, x[i])
	}
	dst := make([]float32, len(x)*ldd)
	k.MatMulQ(dst, ldd, &q, len(x), w, 0, w.Groups())
	return dst, &q
}

// within keeps the columns of groups g0…g1-1 and zeroes the rest.
func within(x []float32, ldd, g0, g1 int) []float32 {
	y := make([]float32, len(x))
	for i := 0; i < len(x); i += ldd {
		copy(y[i+16*g0:i+16*g1], x[i+16*g0:])
	}
	return y
}

func TestMatMulFIsBitIdenticalAcrossLevelsAndTiles(t *testing.T) {
	scalar, fast := fastLevels(t)
	r := newRand(2)
	for _, f := range allFormats {
		for _, m := range []int{1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 20} {
			n, k := 1+r.IntN(100), Block*(1+r.IntN(12))
			if !f.Quantized() {
				k = 1 + r.IntN(400)
			}
			w, _ := randomMatrix(t, r, f, n, k)
			ldd, ldx := w.Groups()*16+r.IntN(3), k+r.IntN(3)
			x := values(r, m*ldx)
			want := make([]float32, m*ldd)
			scalar.MatMulF(want, ldd, x, ldx, m, w, 0, w.Groups())
			for _, kn := range fast {
				what := fmt.Sprintf("%s %s m=%d n=%d k=%d", kn.Level(), f, m, n, k)
				g0 := r.IntN(w.Groups())
				g1 := g0 + 1 + r.IntN(w.Groups()-g0)
				got := make([]float32, m*ldd)
				kn.MatMulF(got, ldd, x, ldx, m, w, g0, g1)
				sameBits(t, what, got, within(want, ldd, g0, g1))
				alone := make([]float32, ldd)
				kn.MatMulF(alone, ldd, x[(m-1)*ldx:], ldx, 1, w, g0, g1)
				sameBits(t, what+" alone", alone, within(want[(m-1)*ldd:], ldd, g0, g1))
			}
		}
	}
}

func TestMatMulAgreesWithFloat64(t *testing.T) {
	scalar, _ := fastLevels(t)
	r := newRand(3)
	for _, f := range allFormats {
		const n, k, m = 40, 256, 3
		w, rows := randomMatrix(t, r, f, n, k)
		x := normal(r, m*k)
		ldd := w.Groups() * 16
		got := make([]float32, m*ldd)
		scalar.MatMulF(got, ldd, x, k, m, w, 0, w.Groups())
		var q Quantized
		q.Grow(m, k)
		gotQ := make([]float32, m*ldd)
		if f.Quantized() {
			for i := 0; i < m; i++ {
				scalar.Quantize(&q, i, x[i*k:(i+1)*k])
			}
			scalar.MatMulQ(gotQ, ldd, &q, m, w, 0, w.Groups())
		}
		for i := 0; i < m; i++ {
			for j := 0; j < n; j++ {
				var sum, size float64
				for l, v := range rows[j] {
					p := float64(v) * float64(x[i*k+l])
					sum, size = sum+p, size+p*p
				}
				// Float error grows with the square root of the squares; 8-bit
				// activations are off by at most 1/254 of their block's largest.
				if d := math.Abs(float64(got[i*ldd+j]) - sum); d > 1e-5*math.Sqrt(size)+1e-6 {
					t.Errorf("%s: float product %d,%d is off by %g", f, i, j, d)
				}
				if d := math.Abs(float64(gotQ[i*ldd+j]) - sum); f.Quantized() && d > 0.03*math.Sqrt(size) {
					t.Errorf("%s: 8-bit product %d,%d is off by %g of %g", f, i, j, d, math.Sqrt(size))
				}
			}
		}
	}
}

func TestQuantizeIsBitIdenticalAcrossLevels(t *testing.T) {
	scalar, fast := fastLevels(t)
	r := newRand(4)
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for trial := 0; trial < 200; trial++ {
		m, k := 1+r.IntN(20), Block*(1+r.IntN(20))
		x := values(r, m*k)
		switch trial % 8 {
		case 1:
			x[r.IntN(len(x))] = inf
		case 2:
			x[r.IntN(len(x))] = nan
		case 3:
			clear(x)
		case 4:
			for i := range x {
				x[i] *= 1e-38
			}
		}
		var want Quantized
		want.Grow(m, k)
		for i := 0; i < m; i++ {
			scalar.Quantize(&want, i, x[i*k:(i+1)*k])
		}
		for _, kn := range fast {
			var got Quantized
			got.Grow(m, k)
			for i := 0; i < m; i++ {
				kn.Quantize(&got, i, x[i*k:(i+1)*k])
			}
			sameBits(t, kn.Level().String()+" scale", got.scale, want.scale)
			sameBits(t, kn.Level().String()+" sum", got.sum, want.sum)
			for i := range want.codes {
				if got.codes[i] != want.codes[i] {
					t.Fatalf("%s: code %d is %d, want %d", kn.Level(), i, got.codes[i], want.codes[i])
				}
			}
			for i := range want.bias {
				if got.bias[i] != want.bias[i] {
					t.Fatalf("%s: bias %d is %d, want %d", kn.Level(), i, got.bias[i], want.bias[i])
				}
			}
		}
	}
}

func TestVectorKernelsAreBitIdenticalAcrossLevels(t *testing.T) {
	scalar, fast := fastLevels(t)
	r := newRand(5)
	for trial := 0; trial < 300; trial++ {
		n := 1 + r.IntN(700)
		x, y := values(r, n), values(r, n)
		if trial%10 == 0 {
			x[r.IntN(n)] = float32(math.NaN())
		}
		if trial%11 == 0 {
			x[r.IntN(n)] = float32(math.Inf(-1))
		}
		for _, kn := range fast {
			l := fmt.Sprintf("%s n=%d ", kn.Level(), n)
			got, want := make([]float32, n), make([]float32, n)
			kn.RMSNorm(got, x, y, 1e-5)
			scalar.RMSNorm(want, x, y, 1e-5)
			sameBits(t, l+"rmsnorm", got, want)
			kn.SiluMul(got, x, y)
			scalar.SiluMul(want, x, y)
			sameBits(t, l+"silu", got, want)
			copy(got, x)
			copy(want, x)
			kn.Add(got, y)
			scalar.Add(want, y)
			sameBits(t, l+"add", got, want)
			gm, gs := kn.LogSumExp(x)
			wm, ws := scalar.LogSumExp(x)
			sameBits(t, l+"logsumexp", []float32{gm, gs}, []float32{wm, ws})
		}
	}
}

func TestRopeIsBitIdenticalAcrossLevels(t *testing.T) {
	scalar, fast := fastLevels(t)
	r := newRand(6)
	for _, headDim := range []int{16, 32, 48, 64, 80, 96, 128, 256} {
		for _, interleaved := range []bool{false, true} {
			x, cos, sin := values(r, 3*headDim), normal(r, headDim/2), normal(r, headDim/2)
			want := append([]float32(nil), x...)
			scalar.Rope(want, cos, sin, 3, headDim, interleaved)
			for _, kn := range fast {
				got := append([]float32(nil), x...)
				kn.Rope(got, cos, sin, 3, headDim, interleaved)
				sameBits(t, fmt.Sprint(kn.Level(), headDim, interleaved), got, want)
			}
		}
	}
}

func TestRopeInterleavedIsHalvesPermuted(t *testing.T) {
	scalar, _ := fastLevels(t)
	r := newRand(7)
	const hd = 64
	halves, cos, sin := normal(r, hd), normal(r, hd/2), normal(r, hd/2)
	pairs := make([]float32, hd)
	for i := 0; i < hd/2; i++ {
		pairs[2*i], pairs[2*i+1] = halves[i], halves[i+hd/2]
	}
	scalar.Rope(halves, cos, sin, 1, hd, false)
	scalar.Rope(pairs, cos, sin, 1, hd, true)
	for i := 0; i < hd/2; i++ {
		if pairs[2*i] != halves[i] || pairs[2*i+1] != halves[i+hd/2] {
			t.Fatalf("pair %d differs", i)
		}
	}
}

func TestArgmaxTakesTheFirst(t *testing.T) {
	scalar, fast := fastLevels(t)
	r := newRand(8)
	for trial := 0; trial < 200; trial++ {
		x := make([]float32, 1+r.IntN(5000))
		for i := range x {
			x[i] = float32(r.IntN(50))
			if r.IntN(20) == 0 {
				x[i] = float32(math.NaN())
			}
		}
		if trial%10 == 0 {
			for i := range x {
				x[i] = float32(math.Inf(-1))
			}
		}
		want := 0
		best := float32(math.Inf(-1))
		for i, v := range x {
			if v > best {
				best, want = v, i
			}
		}
		for _, kn := range append(fast, scalar) {
			if got := kn.Argmax(x); got != want {
				t.Fatalf("%s: argmax of %d values is %d, want %d", kn.Level(), len(x), got, want)
			}
		}
	}
}
