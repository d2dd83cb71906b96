package model_test

import (
	"encoding/json"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

// load loads a model for a test.
func load(t testing.TB, path string, p model.Precision, threads int) *model.Model {
	t.Helper()
	o := model.DefaultOptions()
	o.Precision, o.Threads = p, threads
	return loadWith(t, path, o)
}

func loadWith(t testing.TB, path string, o model.Options) *model.Model {
	t.Helper()
	m, err := model.Load(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func newCache(t testing.TB, m *model.Model, blocks int) *model.Cache {
	t.Helper()
	c, err := m.NewCache(blocks)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// blocks returns the block table first, first+1, … for n positions.
func blocks(first, n int) []int32 {
	b := make([]int32, (n+model.BlockSize-1)/model.BlockSize)
	for i := range b {
		b[i] = int32(first + i)
	}
	return b
}

// forward computes one sequence in one step and returns the wanted rows.
func forward(t testing.TB, m *model.Model, c *model.Cache, out *model.Output, s model.Seq) {
	t.Helper()
	if err := m.Forward(c, []model.Seq{s}, out); err != nil {
		t.Fatal(err)
	}
}

// greedyFixture is testdata/smollm2-greedy.json: what transformers 5.19.0 makes of
// the default model's weights, dequantized to float32.
type greedyFixture struct {
	Engine  string `json:"engine"`
	Prompts []struct {
		Prompt []dynamo.TokenID `json:"prompt_ids"`
		Output []dynamo.TokenID `json:"output_ids"`
		Top5   [][]struct {
			ID      dynamo.TokenID `json:"id"`
			Logprob float64        `json:"logprob"`
		} `json:"top5"`
		Gap []float64 `json:"gap"`
	} `json:"prompts"`
}

func readGreedy(t testing.TB) *greedyFixture {
	t.Helper()
	b, err := os.ReadFile("testdata/smollm2-greedy.json")
	if err != nil {
		t.Fatal(err)
	}
	var f greedyFixture
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return &f
}

// greedy decodes all prompts as one batch, the i-th up to n[i] ids; look, unless
// nil, sees the logits of each.
func greedy(t testing.TB, m *model.Model, prompts [][]dynamo.TokenID, n []int, look func(seq, i int, logits []float32)) [][]dynamo.TokenID {
	t.Helper()
	k, err := kernel.New(kernel.Best())
	if err != nil {
		t.Fatal(err)
	}
	var batch []model.Seq
	var who []int
	need := 0
	for i, p := range prompts {
		table := blocks(need, len(p)+n[i])
		need += len(table)
		batch = append(batch, model.Seq{Tokens: p, Blocks: table, Logits: model.LogitsLast})
		who = append(who, i)
	}
	c := newCache(t, m, need)
	ids := make([][]dynamo.TokenID, len(prompts))
	var out model.Output
	for len(batch) > 0 {
		if err := m.Forward(c, batch, &out); err != nil {
			t.Fatal(err)
		}
		live := 0
		for row, s := range batch {
			i := who[row]
			if look != nil {
				look(i, len(ids[i]), out.Row(row))
			}
			id := dynamo.TokenID(k.Argmax(out.Row(row)))
			ids[i] = append(ids[i], id)
			if len(ids[i]) == n[i] || slices.Contains(m.Config().EOS, id) {
				continue
			}
			s.Start += len(s.Tokens)
			s.Tokens = []dynamo.TokenID{id}
			batch[live], who[live] = s, i
			live++
		}
		batch, who = batch[:live], who[:live]
	}
	return ids
}

// prompts returns the fixture's first prompts and the lengths of its answers.
func (f *greedyFixture) prompts(most int) (prompts [][]dynamo.TokenID, n []int) {
	for _, p := range f.Prompts[:min(most, len(f.Prompts))] {
		prompts, n = append(prompts, p.Prompt), append(n, len(p.Output))
	}
	return prompts, n
}

// logprob returns the log-probability of id.
func logprob(logits []float32, id dynamo.TokenID) float64 {
	var sum float64
	for _, v := range logits {
		sum += math.Exp(float64(v))
	}
	return float64(logits[id]) - math.Log(sum)
}

// TestGreedyMatchesTransformers decodes the fixture's prompts in full precision:
// the ids are equal up to the first position where the two best ids are nearly
// equally likely, and so are the log-probabilities.
func TestGreedyMatchesTransformers(t *testing.T) {
	m := load(t, fixture.SmolLM2(t), model.F32, 2)
	f := readGreedy(t)
	most := len(f.Prompts)
	if testing.Short() {
		most = 2
	}
	prompts, n := f.prompts(most)
	until := make([]int, len(prompts)) // the first position that may differ
	for i := range until {
		if until[i] = slices.IndexFunc(f.Prompts[i].Gap, func(g float64) bool { return g < 0.02 }); until[i] < 0 {
			until[i] = n[i]
		}
	}
	worst, compared := 0.0, 0
	got := greedy(t, m, prompts, n, func(i, j int, logits []float32) {
		if j >= len(f.Prompts[i].Top5) || j > until[i] {
			return
		}
		for _, want := range f.Prompts[i].Top5[j] {
			d := math.Abs(logprob(logits, want.ID) - want.Logprob)
			worst = max(worst, d)
			if !(d <= 0.01) {
				t.Errorf("prompt %d position %d: log-probability of id %d is off by %.4f", i, j, want.ID, d)
			}
		}
	})
	same := 0
	for i, u := range until {
		want := f.Prompts[i].Output
		if len(got[i]) < u || !slices.Equal(got[i][:u], want[:u]) {
			t.Errorf("prompt %d: ids %v, want %v up to position %d", i, got[i], want, u)
		}
		if slices.Equal(got[i], want) {
			same++
		}
		compared += u
	}
	t.Logf("%d ids equal those of %s, %d of %d answers to the end; log-probabilities within %.5f", compared, f.Engine, same, len(got), worst)
}

// TestInt8Agreement states how far the 8-bit class follows the fixture.
func TestInt8Agreement(t *testing.T) {
	if testing.Short() {
		t.Skip("a statistic over all prompts")
	}
	m := load(t, fixture.SmolLM2(t), model.Int8, 2)
	f := readGreedy(t)
	prompts, n := f.prompts(len(f.Prompts))
	same, prefix, total := 0, 0, 0
	for i, got := range greedy(t, m, prompts, n, nil) {
		want := f.Prompts[i].Output
		k := 0
		for k < len(got) && got[k] == want[k] {
			k++
		}
		prefix, total = prefix+k, total+len(want)
		if k == len(want) {
			same++
		}
	}
	t.Logf("8-bit class: %d of %d answers identical, %d of %d ids before the first difference", same, len(f.Prompts), prefix, total)
	if same < len(f.Prompts)/4 || prefix < total/3 {
		t.Errorf("the 8-bit class has lost the model: %d answers identical, %d of %d ids", same, prefix, total)
	}
}
