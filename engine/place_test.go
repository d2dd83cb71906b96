package engine_test

import (
	"context"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// travels is an engine that is placed here and there, and then answers.
type travels func(ctx context.Context)

// Generate implements engine.Engine.
func (f travels) Generate(ctx context.Context, _ *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		f(ctx)
		yield(dynamo.Chunk{Tokens: []dynamo.TokenID{1}, Finish: dynamo.FinishLength, Usage: dynamo.Usage{Completion: 1}}, nil)
	}
}

// TestTrip wants the way of a request written down as it was told, through a
// decorator that listens as well.
func TestTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		card := &engine.Card{Model: "m", ContextLength: 100}
		e := travels(func(ctx context.Context) {
			engine.Placed(ctx, 0, nil)
			time.Sleep(time.Second)
			engine.PlacedAt(engine.WithPrefill(ctx), engine.Place{Worker: 3, Rank: 1, Card: card, Waiting: 5})
			time.Sleep(time.Second)
			engine.PlacedAt(ctx, engine.Place{Worker: 7, Card: card, Waiting: 6})
			engine.Placed(ctx, 0, nil)
			time.Sleep(time.Second)
			engine.PlacedAt(ctx, engine.Place{Worker: 8, Rank: 2, Card: card})
		})
		m, err := engine.NewMigrate(e, engine.DefaultMigrateConfig())
		if err != nil {
			t.Fatal(err)
		}
		var trip, inner engine.Trip
		began := time.Now()
		for _, err := range m.Generate(engine.WithTrip(engine.WithTrip(t.Context(), &trip), &inner), &dynamo.Request{Tokens: []dynamo.TokenID{1}, MaxTokens: 1}) {
			if err != nil {
				t.Fatal(err)
			}
		}
		want := engine.Trip{
			Prefill: engine.Stop{Worker: 3, Rank: 1, First: began.Add(time.Second)},
			Decode:  engine.Stop{Worker: 8, Rank: 2, First: began.Add(2 * time.Second)},
			Waiting: 5,
		}
		if trip != want {
			t.Errorf("got  %+v\nwant %+v", trip, want)
		}
		if inner.Prefill != want.Prefill || inner.Decode != want.Decode {
			t.Errorf("who listens further down has %+v", inner)
		}
		engine.Placed(t.Context(), 7, card) // nobody listens
	})
}
