package router

import (
	"testing"

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
