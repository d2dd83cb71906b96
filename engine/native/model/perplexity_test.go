package model_test

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

// perplexity is that of ids as one sequence, computed in chunks.
func perplexity(t testing.TB, m *model.Model, ids []dynamo.TokenID) float64 {
	t.Helper()
	const chunk = 256
	c := newCache(t, m, len(ids)/model.BlockSize+1)
	table := blocks(0, len(ids))
	var out model.Output
	var sum float64
	for at := 0; at < len(ids)-1; at += chunk {
		part := ids[at:min(len(ids)-1, at+chunk)]
		forward(t, m, c, &out, model.Seq{Tokens: part, Start: at, Blocks: table, Logits: model.LogitsAll})
		for i := range part {
			sum -= logprob(out.Row(i), ids[at+i+1])
		}
	}
	return math.Exp(sum / float64(len(ids)-1))
}

// TestPerplexity computes the perplexity of the kept text in both precisions:
// full precision has that of transformers, and 8 bits cost less than one per cent.
func TestPerplexity(t *testing.T) {
	b, err := os.ReadFile("testdata/perplexity.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Engine     string           `json:"engine"`
		Perplexity float64          `json:"perplexity"`
		IDs        []dynamo.TokenID `json:"ids"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		t.Skip("a minute of arithmetic under the race detector")
	}
	path := fixture.SmolLM2(t)
	full := perplexity(t, load(t, path, model.F32, 2), f.IDs)
	short := perplexity(t, load(t, path, model.Int8, 2), f.IDs)
	t.Logf("perplexity of %d ids: %s %.4f, f32 %.4f, int8 %.4f (%+.3f %%)", len(f.IDs), f.Engine, f.Perplexity, full, short, 100*(short/full-1))
	if math.Abs(full/f.Perplexity-1) > 1e-4 {
		t.Errorf("perplexity in full precision is %g, want %g", full, f.Perplexity)
	}
	if math.Abs(short/full-1) > 0.01 {
		t.Errorf("perplexity in 8 bits is %g, in full precision %g", short, full)
	}
}
