package weights_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/weights"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

// source is what both readers offer.
type source interface {
	Tensor(string) (weights.Tensor, bool)
	Foreign(string) (string, bool)
	Names() []string
	Header() []byte
	SizeBytes() int64
	Release()
	Close() error
}

var (
	_ source = (*weights.GGUF)(nil)
	_ source = (*weights.Safetensors)(nil)
)

func golden(t testing.TB) *weights.GGUF {
	t.Helper()
	g, err := weights.OpenGGUF("testdata/golden.gguf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// checkWants compares every tensor NAME with NAME.want, bit by bit.
func checkWants(t *testing.T, s source, want int) {
	t.Helper()
	found := 0
	for _, name := range s.Names() {
		if strings.HasSuffix(name, ".want") {
			continue
		}
		found++
		x, _ := s.Tensor(name)
		w, ok := s.Tensor(name + ".want")
		if !ok || x.DType.String() != name || !slices.Equal(x.Shape, w.Shape) {
			t.Fatalf("tensor %s: type %s shape %v, want shape %v", name, x.DType, x.Shape, w.Shape)
		}
		got, exp := make([]float32, x.Cols()), make([]float32, x.Cols())
		for row := range x.Rows() {
			if err := weights.Dequantize(got, x, row); err != nil {
				t.Fatal(err)
			}
			if err := weights.Dequantize(exp, w, row); err != nil {
				t.Fatal(err)
			}
			for i := range got {
				// The reference may give zeros another sign; nothing else differs.
				if math.Float32bits(got[i]) != math.Float32bits(exp[i]) && (got[i] != 0 || exp[i] != 0) {
					t.Fatalf("%s row %d value %d is %g, want %g", name, row, i, got[i], exp[i])
				}
			}
		}
	}
	if found != want {
		t.Errorf("compared %d tensors, want %d", found, want)
	}
}

func TestGGUFTensors(t *testing.T) {
	g := golden(t)
	g.Release()
	checkWants(t, g, 8)
	if _, ok := g.Tensor("absent"); ok {
		t.Error("found a tensor that is not there")
	}
}

func TestSafetensorsShards(t *testing.T) {
	s, err := weights.OpenSafetensors("testdata/golden")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Release()
	checkWants(t, s, 3)
	if d, ok := s.Foreign("ids"); !ok || d != "I64" {
		t.Errorf("foreign tensor has type %q, %v", d, ok)
	}
}

// TestUnpack checks that codes, scales and minima give what Dequantize gives.
func TestUnpack(t *testing.T) {
	g := golden(t)
	for _, name := range []string{"Q4_0", "Q4_1", "Q4_K", "Q8_0"} {
		x, _ := g.Tensor(name)
		k := x.Cols()
		want, codes, codes8 := make([]float32, k), make([]byte, k), make([]int8, k)
		scale, low := make([]float32, k/32), make([]float32, k/32)
		for row := range x.Rows() {
			if err := weights.Dequantize(want, x, row); err != nil {
				t.Fatal(err)
			}
			var err error
			if name == "Q8_0" {
				err = weights.UnpackQ8(codes8, scale, x, row)
			} else {
				err = weights.UnpackQ4(codes, scale, low, x, row)
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range want {
				got := scale[i/32]*float32(codes[i]) + low[i/32]
				if name == "Q8_0" {
					got = scale[i/32] * float32(codes8[i])
				}
				if got != want[i] {
					t.Fatalf("%s row %d value %d is %g, want %g", name, row, i, got, want[i])
				}
			}
		}
		if err := weights.UnpackQ4(codes, scale, low, x, x.Rows()); err == nil {
			t.Errorf("%s: unpacked a row that is not there", name)
		}
	}
	x, _ := g.Tensor("F32")
	if weights.UnpackQ4(nil, nil, nil, x, 0) == nil || weights.UnpackQ8(nil, nil, x, 0) == nil {
		t.Error("unpacked codes of floats")
	}
	if weights.Dequantize(make([]float32, 3), x, 0) == nil || weights.Dequantize(make([]float32, 99), x, -1) == nil {
		t.Error("dequantized into too little room, or a negative row")
	}
}

func TestMeta(t *testing.T) {
	m := golden(t).Meta()
	check := func(got any, err error, want any) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
	s, err := m.String("a.string")
	check(s, err, "grüße")
	for key, want := range map[string]uint64{"a.uint8": 255, "a.uint16": 65535, "a.uint32": 4294967295, "a.uint64": math.MaxUint64} {
		n, err := m.Uint(key)
		check(n, err, want)
	}
	for key, want := range map[string]float64{"a.float32": 0.5, "a.float64": 0.1, "a.int8": -128, "a.int16": -32768, "a.int32": math.MinInt32, "a.int64": math.MinInt64} {
		f, err := m.Float(key)
		check(f, err, want)
	}
	b, err := m.Bool("a.bool")
	check(b, err, true)
	strs, err := m.Strings("a.strings")
	check(strings.Join(strs, "|"), err, "|x|wörter")
	ints, err := m.Ints("a.ints")
	check(len(ints) == 3 && ints[0] == 1 && ints[1] == -2 && ints[2] == 3, err, true)
	floats, err := m.Floats("a.floats")
	check(len(floats) == 2 && floats[0] == 0.5 && floats[1] == -1.5, err, true)
	if !m.Has("a.bool") || m.Has("a.bull") || !slices.Contains(m.Keys(), "a.ints") {
		t.Error("keys are not the ones in the file")
	}
}

func TestMetaErrors(t *testing.T) {
	m := golden(t).Meta()
	errs := map[string]error{}
	_, errs["String"] = m.String("a.ints")
	_, errs["Uint"] = m.Uint("a.int8")
	_, errs["Float"] = m.Float("a.string")
	_, errs["Bool"] = m.Bool("a.uint8")
	_, errs["Strings"] = m.Strings("a.ints")
	_, errs["Ints"] = m.Ints("a.floats")
	_, errs["Floats"] = m.Floats("a.strings")
	for name, err := range errs {
		if err == nil || dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "a.") {
			t.Errorf("%s of a value of another type: %v", name, err)
		}
	}
	if _, err := m.String("a.none"); err == nil || dynamo.KindOf(err) != dynamo.KindNotFound || !strings.Contains(err.Error(), "a.none") {
		t.Errorf("missing key: %v", err)
	}
}

// TestRealGGUF opens the default model and reads what loading reads.
func TestRealGGUF(t *testing.T) {
	g, err := weights.OpenGGUF(fixture.SmolLM2(t))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	toks, err := g.Meta().Strings("tokenizer.ggml.tokens")
	if err != nil || len(toks) != 49152 || toks[1] != "<|im_start|>" {
		t.Errorf("%d tokens, %v", len(toks), err)
	}
	x, ok := g.Tensor("blk.29.ffn_down.weight")
	if !ok || x.DType != weights.Q4_1 || !slices.Equal(x.Shape, []int{576, 1536}) {
		t.Errorf("ffn_down is %s %v, %v", x.DType, x.Shape, ok)
	}
}

// TestClosed checks that a closed file is empty rather than dangling.
func TestClosed(t *testing.T) {
	g, err := weights.OpenGGUF("testdata/golden.gguf")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, ok := g.Tensor("F32"); ok || g.Meta().Has("a.bool") || len(g.Names()) != 0 || len(g.Header()) != 0 {
		t.Error("a closed file still hands out what it held")
	}
	g.Release()
}

func BenchmarkOpenGGUF(b *testing.B) {
	path := fixture.SmolLM2(b)
	for b.Loop() {
		g, err := weights.OpenGGUF(path)
		if err != nil {
			b.Fatal(err)
		}
		g.Close()
	}
}

func BenchmarkUnpackQ4(b *testing.B) {
	g := golden(b)
	x, _ := g.Tensor("Q4_1")
	codes, scale, low := make([]byte, 512), make([]float32, 16), make([]float32, 16)
	b.SetBytes(512)
	for b.Loop() {
		_ = weights.UnpackQ4(codes, scale, low, x, 0)
	}
}
