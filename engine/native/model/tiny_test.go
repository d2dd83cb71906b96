package model_test

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/engine/native/weights"
)

// tiny lists the models scripts/tinymodels.py makes.
var tiny = []string{"llama3", "linear", "qwen2", "qwen3"}

// all computes the logits of every position, in one step.
func all(t testing.TB, m *model.Model, tokens []dynamo.TokenID) [][]float32 {
	t.Helper()
	c := newCache(t, m, len(tokens)/model.BlockSize+1)
	out := new(model.Output)
	forward(t, m, c, out, model.Seq{Tokens: tokens, Blocks: blocks(0, len(tokens)), Logits: model.LogitsAll})
	rows := make([][]float32, out.Rows())
	for i := range rows {
		rows[i] = append(rows[i], out.Row(i)...)
	}
	return rows
}

// wanted reads what transformers computes.
func wanted(t testing.TB, name string) (tokens []dynamo.TokenID, logits [][]float32) {
	t.Helper()
	dir := filepath.Join("testdata", "tiny", name+".want")
	b, err := os.ReadFile(filepath.Join(dir, "tokens.json"))
	if err != nil {
		t.Fatal(err)
	}
	var f struct{ Tokens []dynamo.TokenID }
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	s, err := weights.OpenSafetensors(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	x, _ := s.Tensor("logits")
	for i := range x.Rows() {
		logits = append(logits, make([]float32, x.Cols()))
		if err := weights.Dequantize(logits[i], x, i); err != nil {
			t.Fatal(err)
		}
	}
	return f.Tokens, logits
}

// TestTinyMatchesTransformers compares all logits of each shape with those of
// transformers, relative to the largest.
func TestTinyMatchesTransformers(t *testing.T) {
	for _, name := range tiny {
		tokens, want := wanted(t, name)
		got := all(t, load(t, filepath.Join("testdata", "tiny", name), model.F32, 2), tokens)
		var worst, largest float64
		for i := range want {
			for j := range want[i] {
				worst = max(worst, math.Abs(float64(got[i][j]-want[i][j])))
				largest = max(largest, math.Abs(float64(want[i][j])))
			}
		}
		t.Logf("%s: off by %.2g of %.3g", name, worst, largest)
		if !(worst <= 1e-4*largest) || len(got) != len(want) {
			t.Errorf("%s: logits are off by %g of %g", name, worst, largest)
		}
	}
}

// TestGGUFEqualsFolder loads the same weights from both formats: the logits are
// equal bit by bit, in both precisions.
func TestGGUFEqualsFolder(t *testing.T) {
	for _, name := range tiny {
		for _, p := range []model.Precision{model.F32, model.Int8} {
			tokens, _ := wanted(t, name)
			path := filepath.Join("testdata", "tiny", name)
			a, b := load(t, path, p, 1), load(t, path+".gguf", p, 1)
			// The frequencies of llama3 scaling come rounded from the GGUF.
			tolerance := 0.0
			if name == "llama3" {
				tolerance = 1e-5
				if p == model.Int8 {
					continue
				}
			}
			compare(t, name+" "+p.String(), all(t, b, tokens), all(t, a, tokens), tolerance)
			if a.Config().Revision == b.Config().Revision {
				t.Errorf("%s: folder and file have the same revision", name)
			}
		}
	}
}

// compare fails at the first value that differs by more than the tolerance.
func compare(t *testing.T, what string, got, want [][]float32, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for i := range want {
		for j := range want[i] {
			if d := math.Abs(float64(got[i][j] - want[i][j])); !(d <= tolerance) {
				t.Fatalf("%s: row %d, id %d: %g, want %g", what, i, j, got[i][j], want[i][j])
			}
		}
	}
}

// TestOldConfig loads a configuration as transformers 4 wrote them.
func TestOldConfig(t *testing.T) {
	dir := t.TempDir()
	b, err := os.ReadFile("testdata/tiny/llama3/config.json")
	if err != nil {
		t.Fatal(err)
	}
	old := strings.Replace(string(b), `"rope_parameters"`, `"rope_scaling"`, 1)
	old = strings.Replace(old, `"rope_theta": 500000.0,`, ``, 1)
	old = strings.Replace(old, `"mlp_bias"`, `"rope_theta": 500000.0, "mlp_bias"`, 1)
	write(t, dir, "config.json", []byte(old))
	write(t, dir, "generation_config.json", []byte(`{"eos_token_id": [2, 7, 9999999], "bos_token_id": 1}`))
	link(t, "testdata/tiny/llama3/model.safetensors", dir)
	m := load(t, dir, model.F32, 1)
	tokens, _ := wanted(t, "llama3")
	compare(t, "old configuration", all(t, m, tokens), all(t, load(t, "testdata/tiny/llama3", model.F32, 1), tokens), 0)
	if c := m.Config(); len(c.EOS) != 2 || c.EOS[1] != 7 || !c.HasBOS || c.BOS != 1 {
		t.Errorf("ends %v, begins %v %d", c.EOS, c.HasBOS, c.BOS)
	}
}

func write(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// link copies a file into dir under its own name.
func link(t testing.TB, path, dir string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, filepath.Base(path), b)
}

func TestConfig(t *testing.T) {
	c := load(t, "testdata/tiny/qwen3.gguf", model.Int8, 1).Config()
	if c.Architecture != "qwen3" || c.Layers != 2 || c.Hidden != 64 || c.FFN != 96 || c.Heads != 4 || c.KVHeads != 2 ||
		c.HeadDim != 32 || c.Vocab != 250 || c.ContextLength != 256 || c.RopeTheta != 1e6 || !c.Tied || c.NormEps != 1e-6 ||
		len(c.EOS) != 1 || c.EOS[0] != 2 || c.BOS != 1 || !c.HasBOS || c.NumericClass != "int8" || len(c.Revision) != 64 {
		t.Errorf("configuration %+v", c)
	}
}

// TestEstimate checks that what is promised before loading is what is used.
func TestEstimate(t *testing.T) {
	for _, p := range []model.Precision{model.Int8, model.F32} {
		o := model.DefaultOptions()
		o.Precision = p
		path := "testdata/tiny/llama3"
		w, per, err := model.EstimateBytes(path, o)
		if err != nil {
			t.Fatal(err)
		}
		m := loadWith(t, path, o)
		c := newCache(t, m, 3)
		if m.SizeBytes() != w || int64(c.BlockBytes()) != per || c.Blocks() != 3 || len(c.Block(2)) != c.BlockBytes() {
			t.Errorf("%s: estimated %d and %d, found %d and %d", p, w, per, m.SizeBytes(), c.BlockBytes())
		}
	}
}
