package node

import (
	"context"
	"iter"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/tokens"
)

// asked is an engine that notes what it is asked for.
type asked struct{ r *dynamo.Request }

func (a *asked) Generate(_ context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	a.r = r
	return func(func(dynamo.Chunk, error) bool) {}
}

// What a worker is about to hold is told of the rank that the request was sent to, and
// of none where only the engine knows; and what was hashed for that is there for the
// engine.
func TestForetellRank(t *testing.T) {
	rank := func(n int) *dynamo.Routing { return &dynamo.Routing{Rank: &n} }
	prompt := []dynamo.TokenID{1, 2, 3, 4, 5, 6, 7, 8, 9}
	for _, c := range []struct {
		name    string
		ranks   int
		routing *dynamo.Routing
		want    int // -1: nothing is told
	}{
		{"one rank", 1, nil, 0},
		{"one rank, named", 1, rank(0), 0},
		{"one rank, another named", 1, rank(1), -1},
		{"two ranks", 2, nil, -1},
		{"two ranks, the first", 2, rank(0), 0},
		{"two ranks, the second", 2, rank(1), 1},
		{"no such rank", 2, rank(2), -1},
		{"no rank", 2, rank(-1), -1},
		{"two ranks, something else said", 2, &dynamo.Routing{Session: "s"}, -1},
	} {
		kc := event.DefaultKVConfig()
		kc.Worker, kc.Epoch, kc.BlockSize = 1, 1, 4
		kv, err := event.NewKVSource(kc)
		if err != nil {
			t.Fatal(err)
		}
		e := &asked{}
		f := &foretelling{e, kv, 4, c.ranks}
		for range f.Generate(t.Context(), &dynamo.Request{Tokens: prompt, Resume: []dynamo.TokenID{10, 11, 12}, Routing: c.routing}) {
			t.Error("an answer")
		}
		var told []event.KVBatch
		feed := event.NewFeed(kv.Publisher().Source(), event.Position{Epoch: 1})
		batch, _ := kv.Publisher().Reader(feed.Cursor()).Fill(nil, 4096)
		if _, err := feed.Take(batch, func(d event.Delivery) bool {
			var b event.KVBatch
			if err := b.Parse(d.Payload); err != nil {
				t.Error(err)
			}
			told = append(told, b)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		switch {
		case c.want < 0 && len(told) > 0, c.want >= 0 && len(told) != 1:
			t.Errorf("%s: %d events, want rank %d", c.name, len(told), c.want)
		case c.want >= 0 && (told[0].Rank != c.want || !slices.Equal(told[0].Expected, tokens.AppendHashes(nil, 0, 4, append(slices.Clip(prompt), 10, 11, 12)))):
			t.Errorf("%s: told is %+v, want rank %d", c.name, told[0], c.want)
		case c.want >= 0 && len(tokens.Known(e.r, 4)) != 2:
			t.Errorf("%s: the engine knows %v", c.name, tokens.Known(e.r, 4))
		}
	}
}
