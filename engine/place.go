package engine

import (
	"context"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Place says where a request is.
type Place struct {
	// Worker has it; 0 says that it waits for one, which is no stall.
	Worker dynamo.WorkerID
	// Rank is which of the worker's data-parallel ranks; 0 where there is one.
	Rank int
	// Card says what the worker can do; it must stay as it is. Nil with Worker 0.
	Card *Card
	// Waiting is how many others waited for a worker just then; negative is unknown.
	Waiting int
}

// Placed is PlacedAt for who knows of a worker and its card alone.
func Placed(ctx context.Context, worker dynamo.WorkerID, card *Card) {
	PlacedAt(ctx, Place{Worker: worker, Card: card, Waiting: -1})
}

// PlacedAt is told by whoever hands a request to a worker which one that is and what
// it can do, so that a decorator above can name it when it fails, and tell its
// client. It must be called in the goroutine that ranges over the sequence.
func PlacedAt(ctx context.Context, p Place) {
	if j, _ := ctx.Value(placedKey{}).(*journey); j != nil {
		j.placed(&p)
	}
	if t, _ := ctx.Value(tripKey{}).(*Trip); t != nil {
		t.placed(ctx, &p)
	}
}

// Trip is where a request has been. It belongs to the goroutine that ranges over the
// sequence of WithTrip's context.
type Trip struct {
	// Prefill is where the prompt was computed, if that was elsewhere, and Decode who
	// answers; of several, one after the other, it is the last.
	Prefill, Decode Stop
	// Waiting is how many others waited for a worker when the request first got one;
	// negative is unknown.
	Waiting int

	outer *Trip // of whoever is above
}

// Stop is a worker on a request's way.
type Stop struct {
	// Worker is 0 if the request has not been there.
	Worker dynamo.WorkerID
	// Rank is its data-parallel rank.
	Rank int
	// First is when the request first got a worker of the kind.
	First time.Time
}

func (t *Trip) placed(ctx context.Context, p *Place) {
	if p.Worker == 0 {
		return
	}
	if t.Prefill.Worker == 0 && t.Decode.Worker == 0 {
		t.Waiting = p.Waiting
	}
	s := &t.Decode
	if ctx.Value(prefillKey{}) != nil {
		s = &t.Prefill
	}
	s.Worker, s.Rank = p.Worker, p.Rank
	if s.First.IsZero() {
		s.First = time.Now()
	}
	if t.outer != nil {
		t.outer.placed(ctx, p)
	}
}

type (
	placedKey  struct{}
	tripKey    struct{}
	prefillKey struct{}
)

// WithTrip returns a context for one request whose way is written down in t, and in what
// ctx has for that already.
func WithTrip(ctx context.Context, t *Trip) context.Context {
	t.outer, _ = ctx.Value(tripKey{}).(*Trip)
	return context.WithValue(ctx, tripKey{}, t)
}

// WithPrefill returns a context for that part of a request which computes its prompt
// for another engine: who is told of a worker under it takes it for the prefill's.
func WithPrefill(ctx context.Context) context.Context {
	return context.WithValue(ctx, prefillKey{}, true)
}
