package native

import (
	"fmt"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
)

// TestHandoverSpoiled damages the pages of a prompt in the first engine's cache after it
// has told where they are, as a writer that is wrong, or late, would: the second engine
// finds it, whatever the way, computes the prompt, and answers as ever.
func TestHandoverSpoiled(t *testing.T) {
	shortDir = t.TempDir()
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
	injected, found := 0, 0
	for way := range ways {
		from, to := startExchanging(t, m, way, prefills), startExchanging(t, m, way, decodes)
		for _, d := range []struct {
			name  string
			spoil func(own, other, stale []byte)
		}{
			{"the first bit", func(own, _, _ []byte) { own[0] ^= 1 }},
			{"the last bit", func(own, _, _ []byte) { own[len(own)-1] ^= 128 }},
			{"zeros", func(own, _, _ []byte) { clear(own) }},
			{"a sector of zeros", func(own, _, _ []byte) { clear(own[len(own)/2:][:512]) }},
			{"another block", func(own, other, _ []byte) { copy(own, other) }},
			{"two blocks swapped", func(own, other, _ []byte) {
				b := slices.Clone(own)
				copy(own, other)
				copy(other, b)
			}},
			{"what was there before", func(own, _, stale []byte) { copy(own, stale) }},
			{"torn: the first half", func(own, _, stale []byte) { copy(own[len(own)/2:], stale[len(own)/2:]) }},
			{"torn: the last half", func(own, _, stale []byte) { copy(own[:len(own)/2], stale) }},
		} {
			r := &dynamo.Request{ID: "r", Tokens: testPrompt(150), MaxTokens: 8, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: 4, Logprobs: true}}
			r.Tokens[0] = dynamo.TokenID(2 + injected) // nothing of it is there yet
			want := collect1(t, alone, r)
			prefilled(t, from, r, func(_ []dynamo.TokenID, _ []dynamo.TokenLogprob, where []byte) {
				h, err := readHandover(where)
				if err != nil {
					t.Fatal(err)
				}
				own, other := from.moves.cache.Block(int(h.place(3).block)), from.moves.cache.Block(int(h.place(5).block))
				stale := slices.Clone(other)
				slices.Reverse(stale)
				ownBefore, otherBefore := slices.Clone(own), slices.Clone(other)
				d.spoil(own, other, stale)
				injected++
				q := *r
				q.Resume, q.Handover = want.Tokens[:1], where
				got := collect1(t, to.Engine, &q)
				if !slices.Equal(got.Tokens, want.Tokens[1:]) || fmt.Sprint(got.Logprobs) != fmt.Sprint(want.Logprobs[1:]) {
					t.Errorf("%s, %s: got %v, want %v", way, d.name, got.Tokens, want.Tokens[1:])
				}
				copy(own, ownBefore)
				copy(other, otherBefore)
			})
		}
		n := taken(t, to)
		found += n[tookCorrupt]
		checkIdle(t, to)
		checkIdle(t, from)
	}
	t.Logf("injected %d, found %d", injected, found)
	if found != injected {
		t.Errorf("%d pages were damaged, %d found", injected, found)
	}
}
