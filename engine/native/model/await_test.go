package model_test

import (
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

// TestAwait has the keys and values of a prefix come layer by layer while a step is computed
// with them, none before it is awaited, and the last of its blocks shared with what the step
// stores: the logits have the same bits.
func TestAwait(t *testing.T) {
	dir := t.TempDir()
	if err := fixture.TinyLlama(dir, fixture.Llama{Vocab: 300, Context: 256, Layers: 5, EOS: 1}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []model.Precision{model.Int8, model.F32} {
		o := model.DefaultOptions()
		o.Precision, o.Threads = p, 2
		m, err := model.Load(t.Context(), dir, o)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		const prefix, n = 37, 43
		tokens := make([]dynamo.TokenID, n)
		for i := range tokens {
			tokens[i] = dynamo.TokenID(2 + i*7%290)
		}
		table := blocks(0, n)
		there, here := newCache(t, m, len(table)), newCache(t, m, 2*len(table))
		var out model.Output
		forward(t, m, there, &out, model.Seq{Tokens: tokens[:prefix], Blocks: table})
		for b := range here.Blocks() {
			for i := range here.Block(b) {
				here.Block(b)[i] = 0xff
			}
		}
		var asked []int
		come := func(layer int) bool {
			asked = append(asked, layer)
			for _, b := range table {
				copy(here.Layers(int(b), layer, layer+1), there.Layers(int(b), layer, layer+1))
			}
			return true
		}
		beside := model.Seq{Tokens: tokens[:20], Blocks: blocks(len(table), 20), Logits: model.LogitsLast}
		waits := model.Seq{Tokens: tokens[prefix:], Start: prefix, Blocks: table, Logits: model.LogitsAll, Await: come}
		if err := m.Forward(here, []model.Seq{beside, waits}, &out); err != nil {
			t.Fatal(err)
		}
		got := [][]float32{slices.Clone(out.Row(0))}
		for i := range n - prefix {
			got = append(got, slices.Clone(out.Row(1+i)))
		}
		if want := []int{0, 1, 2, 3, 4}; !slices.Equal(asked, want) {
			t.Errorf("%s: layers %v were awaited, want %v", p, asked, want)
		}
		want := reference(t, m, tokens)
		var before [][]byte
		for _, b := range table {
			before = append(before, slices.Clone(here.Layers(int(b), 2, 5)))
		}
		waits.Await = func(layer int) bool { return layer < 2 }
		waits.Tokens = make([]dynamo.TokenID, n-prefix) // other keys and values
		if err := m.Forward(here, []model.Seq{waits, beside}, &out); err != nil {
			t.Fatal(err)
		}
		equalBits(t, p.String()+" beside one that is given up", out.Row(n-prefix), want[19])
		for i, b := range table {
			if !slices.Equal(here.Layers(int(b), 2, 5), before[i]) {
				t.Errorf("%s: block %d is written to by a sequence that was given up", p, b)
			}
		}
		equalBits(t, p.String()+" beside", got[0], want[19])
		for i := range n - prefix {
			equalBits(t, p.String(), got[1+i], want[prefix+i])
		}
	}
}
