package placement_test

import (
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/router/placement"
)

// A candidate that lacks the adapter never wins, whatever else speaks for it, and is
// not worth a wait; a request without an adapter does not look at it.
func TestAdapter(t *testing.T) {
	now := time.Unix(1000, 0)
	with := placement.Candidate{Key: placement.Key{ID: 1, Epoch: 1}, State: placement.Up, Adapters: []string{"a", "b"}, Turn: 9}
	without := placement.Candidate{Key: placement.Key{ID: 2, Epoch: 1}, State: placement.Up}
	full := with
	full.MaxRunning, full.Booked = 1, 1
	down := with
	down.State = placement.Down
	for _, tc := range []struct {
		name       string
		adapter    string
		candidates []placement.Candidate
		winner     int
		outcome    placement.Verdict
	}{
		{"none asked for", "", []placement.Candidate{with, without}, 1, placement.Fit},
		{"one has it", "a", []placement.Candidate{without, with}, 1, placement.Fit},
		{"nobody has it", "c", []placement.Candidate{without, with}, placement.None, placement.IsDown},
		{"who has it is full", "a", []placement.Candidate{without, full}, placement.None, placement.IsFull},
		{"who has it is down", "a", []placement.Candidate{without, down}, placement.None, placement.IsDown},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// The worker without it serves the group: that does not count either.
			d := placement.Decide(placement.DefaultParams(placement.RoundRobin), placement.Request{Seed: 1, Now: now, Adapter: tc.adapter, Sticky: without.Key}, tc.candidates, nil)
			if d.Winner != tc.winner || d.Outcome() != tc.outcome || d.Again() != tc.winner {
				t.Errorf("got winner %d, outcome %v, want %d, %v", d.Winner, d.Outcome(), tc.winner, tc.outcome)
			}
			for i := range d.Scores {
				if lacks := d.Scores[i].Verdict == placement.Lacks; lacks != (tc.adapter == "c" || tc.adapter == "a" && tc.candidates[i].Key == without.Key) {
					t.Errorf("candidate %d: verdict %v", i, d.Scores[i].Verdict)
				}
			}
		})
	}
}
