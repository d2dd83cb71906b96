package kernel

import (
	"math"
	"strings"
	"sync"
	"testing"
)

func TestMatrixRowGivesBackWhatWasSet(t *testing.T) {
	r := newRand(30)
	const n, k = 21, 64
	for _, f := range []Format{Q4, Q4S} {
		m, err := NewMatrix(f, n, k)
		if err != nil {
			t.Fatal(err)
		}
		got, codes := make([]float32, k), make([]byte, k)
		for row := 0; row < n; row++ {
			for i := range codes {
				codes[i] = byte(r.IntN(16))
			}
			scale, low := []float32{0.125, 3}, []float32{-1, 0.5} // exact in binary16
			m.SetRowQ4(row, codes, scale, low)
			m.Row(got, row)
			for i, c := range codes {
				if want := scale[i/Block]*float32(c) + low[i/Block]; got[i] != want {
					t.Fatalf("%s: row %d weight %d is %g, want %g", f, row, i, got[i], want)
				}
			}
		}
	}
	for _, f := range []Format{Q8, Q8S} {
		m, err := NewMatrix(f, n, k)
		if err != nil {
			t.Fatal(err)
		}
		got, codes := make([]float32, k), make([]int8, k)
		for row := 0; row < n; row++ {
			for i := range codes {
				codes[i] = int8(r.IntN(256) - 128)
			}
			m.SetRowQ8(row, codes, []float32{0.25, -2})
			m.Row(got, row)
			for i, c := range codes {
				if want := []float32{0.25, -2}[i/Block] * float32(c); got[i] != want {
					t.Fatalf("%s: row %d weight %d is %g, want %g", f, row, i, got[i], want)
				}
			}
		}
	}
}

func TestMatrixConvertsFloatRows(t *testing.T) {
	r := newRand(31)
	const n, k = 17, 96
	// The largest error against the largest weight of the block.
	for f, tolerance := range map[Format]float64{F32: 0, BF16: 1.0 / 256, F16: 1.0 / 2048, Q8: 0.51 / 127, Q8S: 0.501 / 127} {
		m, err := NewMatrix(f, n, k)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]float32, k)
		for row := 0; row < n; row++ {
			w := normal(r, k)
			m.SetRowF32(row, w)
			m.Row(got, row)
			for i := range w {
				largest := 0.0
				for _, v := range w[i/Block*Block : i/Block*Block+Block] {
					largest = max(largest, math.Abs(float64(v)))
				}
				if d := math.Abs(float64(got[i]) - float64(w[i])); d > tolerance*largest {
					t.Fatalf("%s: row %d weight %d is %g, want %g", f, row, i, got[i], w[i])
				}
			}
		}
	}
}

func TestMatrixRefusesImpossibleShapes(t *testing.T) {
	for _, c := range []struct {
		f    Format
		n, k int
		want string
	}{
		{Q4, 16, 33, "multiple of 32"}, {Q8, 16, 31, "multiple of 32"}, {F32, 0, 5, "out of range"},
		{F32, 5, -1, "out of range"}, {Format(99), 1, 1, "unknown"},
	} {
		if _, err := MatrixBytes(c.f, c.n, c.k); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %d × %d: error %v, want one that says %q", c.f, c.n, c.k, err, c.want)
		}
	}
	buf := aligned(1 << 14)
	if _, err := NewMatrixIn(F32, 16, 16, buf[4:]); err == nil {
		t.Error("storage that is not aligned is accepted")
	}
	if _, err := NewMatrixIn(F32, 16, 1000, buf); err == nil {
		t.Error("storage that is too short is accepted")
	}
	if _, err := NewMatrixIn(F32, 16, 16, nil); err == nil {
		t.Error("no storage is accepted")
	}
	if _, err := NewMatrixIn(Q4, 16, 64, buf); err != nil {
		t.Error(err)
	}
}

func TestMatrixRowsPackConcurrently(t *testing.T) {
	r := newRand(32)
	const n, k = 64, 64
	rows := make([][]float32, n)
	want, err := NewMatrix(Q8, n, k)
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		rows[i] = normal(r, k)
		want.SetRowF32(i, rows[i])
	}
	got, err := NewMatrix(Q8, n, k)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for g := 0; g < n/GroupRows; g++ {
		wg.Go(func() {
			for i := g * GroupRows; i < (g+1)*GroupRows; i++ {
				got.SetRowF32(i, rows[i])
			}
		})
	}
	wg.Wait()
	if string(got.data) != string(want.data) {
		t.Error("packed concurrently, the matrix differs")
	}
}

func TestMatrixSizes(t *testing.T) {
	// Bits a weight: 4 + 32/32, 4 + 64/32, 8 + 16/32, 8 + 32/32, 32, 16, 16.
	for f, bits := range map[Format]float64{Q4: 5, Q4S: 6, Q8: 8.5, Q8S: 9, F32: 32, BF16: 16, F16: 16} {
		n, err := MatrixBytes(f, 1536, 576)
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(1536 * 576 * bits / 8); n != want {
			t.Errorf("%s: %d bytes, want %d", f, n, want)
		}
	}
}

func TestPaddingRowsAreZero(t *testing.T) {
	r := newRand(33)
	for _, kn := range levels(t) {
		w, _ := randomMatrix(t, r, Q4, 17, 64)
		got, _ := productQ(kn, [][]float32{normal(r, 64)}, w, 32)
		for i, v := range got[17:] {
			if v != 0 {
				t.Errorf("%s: padding row %d gives %g", kn.Level(), 17+i, v)
			}
		}
	}
}

func TestNewKVRefusesImpossibleShapes(t *testing.T) {
	for _, s := range []KVShape{{}, {Layers: 1, Heads: 1, HeadDim: 40}, {Layers: 1, Heads: 0, HeadDim: 64}, {Type: 9, Layers: 1, Heads: 1, HeadDim: 64}} {
		if _, err := NewKV(s, nil); err == nil {
			t.Errorf("shape %+v is accepted", s)
		}
	}
	s := KVShape{Layers: 1, Heads: 1, HeadDim: 64}
	if _, err := NewKV(s, aligned(s.BlockBytes() * 2)[1:]); err == nil {
		t.Error("storage that is not aligned is accepted")
	}
	kv, err := NewKV(s, aligned(s.BlockBytes()*2+100))
	if err != nil || kv.Blocks() != 2 || len(kv.Block(1)) != 4096 {
		t.Errorf("got %v blocks, error %v", kv.Blocks(), err)
	}
}

func TestLevels(t *testing.T) {
	t.Logf("this cpu offers %v", Levels())
	if Levels()[0] != LevelScalar {
		t.Error("the scalar level is not the first")
	}
	if _, err := New(Level(77)); err == nil || !strings.Contains(err.Error(), "not available") {
		t.Errorf("error %v", err)
	}
	if k, err := New(Best()); err != nil || k.Level() != Best() {
		t.Errorf("best level %v, error %v", Best(), err)
	}
}

func TestHotKernelsDoNotAllocate(t *testing.T) {
	r := newRand(34)
	for _, k := range levels(t) {
		w, _ := randomMatrix(t, r, Q4, 64, 64)
		x, y := normal(r, 640), normal(r, 640)
		dst := make([]float32, 10*64)
		var q Quantized
		q.Grow(10, 64)
		c := newContext(t, r, k, KVF16, 64, 40)
		var s AttendScratch
		s.Grow(64, 40)
		a := &Attention{KV: c.kv, Layer: testLayer, Head: testHead, Blocks: c.blocks, First: 39, Queries: 1, QHeads: 3,
			Scale: 0.125, Q: x, Dst: dst, QStride: 192, DstStride: 192}
		for name, f := range map[string]func(){
			"Quantize":  func() { k.Quantize(&q, 3, x[:64]) },
			"Grow":      func() { q.Grow(10, 64) },
			"MatMulQ":   func() { k.MatMulQ(dst, 64, &q, 10, w, 0, 4) },
			"MatMulF":   func() { k.MatMulF(dst, 64, x, 64, 10, w, 0, 4) },
			"RMSNorm":   func() { k.RMSNorm(dst[:64], x[:64], y[:64], 1e-5) },
			"SiluMul":   func() { k.SiluMul(dst, x, y) },
			"Add":       func() { k.Add(dst, x) },
			"Rope":      func() { k.Rope(x[:128], y[:32], y[32:64], 2, 64, false) },
			"LogSumExp": func() { k.LogSumExp(x) },
			"Argmax":    func() { k.Argmax(x) },
			"StoreKV":   func() { k.StoreKV(c.kv, Place{Layer: 1, Head: 1, Slot: 5}, x[:64], y[:64]) },
			"Attend":    func() { k.Attend(a, &s) },
		} {
			if n := testing.AllocsPerRun(20, f); n != 0 {
				t.Errorf("%s %s: %g allocations", k.Level(), name, n)
			}
		}
	}
}
