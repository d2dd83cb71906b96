package router

import (
	"context"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// What a worker's card says of its steps and ranks is what decisions go by; what it
// does not say, or cannot be, is unknown.
func TestStepTokens(t *testing.T) {
	c := DefaultConfig()
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range []struct{ steps, ranks, wantSteps, wantRanks int }{{512, 2, 512, 2}, {0, 0, 0, 0}, {-5, -5, 0, 0}, {1 << 20, 1 << 30, 1 << 20, maxSources}} {
		if err := r.Add(Worker{ID: dynamo.WorkerID(i + 1), Epoch: 1, Card: engine.Card{BlockSize: 16}, KVBlocks: 10, StepTokens: w.steps, Ranks: w.ranks}); err != nil {
			t.Fatal(err)
		}
		if got := r.mu.fleet.Candidates()[i]; got.StepTokens != w.wantSteps || got.KVCapacity != 160 || int(r.mu.list[i].ranks.Load()) != w.wantRanks {
			t.Errorf("worker of %+v: %d tokens a step, %d ranks, %d tokens of KV", w, got.StepTokens, r.mu.list[i].ranks.Load(), got.KVCapacity)
		}
	}
}

// brought answers after a second, and says that it held a block of the prompt.
type brought struct{}

func (brought) Generate(context.Context, *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		time.Sleep(time.Second)
		yield(dynamo.Chunk{Tokens: []dynamo.TokenID{1}, Cached: 16, Finish: dynamo.FinishLength, Usage: dynamo.Usage{Cached: 16}}, nil)
	}
}

// What bringing the KV of a prompt takes says nothing of how fast a worker computes one.
func TestHandedOverTeachesNothing(t *testing.T) {
	for _, c := range []struct {
		handover []byte
		known    bool
	}{{nil, true}, {[]byte("where"), false}} {
		synctest.Test(t, func(t *testing.T) {
			r, err := New(DefaultConfig())
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Add(Worker{ID: 1, Epoch: 1, Engine: brought{}, Card: engine.Card{BlockSize: 16}, KVBlocks: 1000}); err != nil {
				t.Fatal(err)
			}
			r.SetUp(1, 1, true)
			for i := range 60 {
				q := &dynamo.Request{Tokens: make([]dynamo.TokenID, 320+16*i), MaxTokens: 1, Handover: c.handover}
				for _, err := range r.Generate(t.Context(), q) {
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := r.mu.list[0].estimate.Known(); got != c.known {
				t.Errorf("handed over: %t; the worker's speed is known: %t", c.handover != nil, got)
			}
		})
	}
}
