package disagg_test

import (
	"context"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/disagg"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
)

// A prefill side that draws no id leaves all of them to the decode side, with the KV. It
// is done with the request when it has said so, and its word of what was cached counts.
func TestFirstFromDecode(t *testing.T) {
	d := mock(t, engine.RoleDecode, nil)
	for _, resume := range [][]dynamo.TokenID{nil, {9, 9, 9}} {
		r := &dynamo.Request{ID: "r", Tokens: prompt(30), Resume: resume, MaxTokens: 8, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: 5, Seeded: true, Logprobs: true}}
		want, err := enginetest.Collect(t.Context(), mock(t, "", nil), r)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		p := answer(func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			yield(dynamo.Chunk{Handover: []byte("where"), Finish: dynamo.FinishLength, Usage: dynamo.Usage{Prompt: 30, Cached: 12, Completion: len(r.Resume)}}, nil)
			close(ended)
		})
		decode := answer(func(ctx context.Context, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			<-ended // or the test hangs: it holds a place at a worker for as long
			if string(q.Handover) != "where" || q.Prefill || !slices.Equal(q.Resume, resume) {
				t.Errorf("the decode side is asked for %+v", q)
			}
			d.Generate(ctx, q)(yield)
		})
		got, err := enginetest.Collect(t.Context(), compose(t, disagg.Config{Prefill: p, Decode: decode}), r)
		if err != nil || !slices.Equal(got.Tokens, want.Tokens) || len(got.Logprobs) != len(got.Tokens) || got.Cached != 0 || got.Usage != (dynamo.Usage{Prompt: 30, Cached: 12, Completion: 8}) {
			t.Errorf("got %+v, %v; want %v", got, err, want.Tokens)
		}
	}
}
