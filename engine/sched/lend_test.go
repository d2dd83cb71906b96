package sched_test

import (
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// counting is one of n ids that begins as those of submit do.
func counting(n int) (ids []dynamo.TokenID) {
	for i := range n {
		ids = append(ids, dynamo.TokenID(i))
	}
	return ids
}

// lend asks for the KV of a prompt and returns what came of it.
func (x *external) lend(id sched.ID, n int) []sched.Action {
	x.t.Helper()
	acts, err := x.s.Lend(sched.Request{ID: id, Ref: id, Prompt: counting(n), Hold: time.Minute}, x.now)
	if err != nil {
		x.t.Fatal(err)
	}
	if err := x.s.Check(); err != nil {
		x.t.Fatal(err)
	}
	return acts
}

// TestLend lends what was computed, at once and in whole blocks, and nothing else.
func TestLend(t *testing.T) {
	x := newExternal(t, 0)
	if acts := x.lend(1, 50); len(acts) != 0 {
		t.Errorf("an empty pool: %+v", acts)
	}
	x.submit(2, 41)
	x.step()
	for id, c := range map[sched.ID]struct{ asked, lent int }{3: {50, 40}, 4: {40, 40}, 5: {39, 36}, 6: {4, 4}, 7: {3, 0}} {
		acts := x.lend(id, c.asked)
		if c.lent == 0 {
			if len(acts) != 0 {
				t.Errorf("%d asked for: %+v", c.asked, acts)
			}
			continue
		}
		if len(acts) != 2 || acts[0].Kind != sched.Ended || acts[1].Kind != sched.Leased || acts[1].Tokens != c.lent || len(acts[1].Blocks) != c.lent/4 {
			t.Errorf("%d asked for: %+v; want %d lent", c.asked, acts, c.lent)
			continue
		}
		if kv := x.s.Stats().KV; kv.Leases != 1 || kv.Held != c.lent/4 {
			t.Errorf("lent: %+v", kv)
		}
		if acts := x.s.EndLease(id, x.now); len(acts) != 1 || acts[0].Kind != sched.LeaseEnded {
			t.Errorf("the end: %+v", acts)
		}
	}
	if s := x.s.Stats(); s.KV.Held != 0 || s.Ended[sched.ReasonFinished] != 5 || s.Accepted != 5 {
		t.Errorf("in the end: %+v", s)
	}
}

// TestLendBrings has the rest brought from below the pool first; what does not come is not
// lent.
func TestLendBrings(t *testing.T) {
	for _, ok := range []bool{true, false} {
		for _, held := range []int{0, 9} {
			x := newExternal(t, 0)
			if held > 0 {
				x.submit(1, held)
				x.step()
			}
			x.have = 40
			start := held / 4 * 4
			acts := x.lend(2, 50)
			if len(acts) != 1 || acts[0].Kind != sched.Load || acts[0].Start != start || acts[0].Tokens != 40-start || len(acts[0].Blocks) != (40-start)/4 {
				t.Fatalf("got %+v, want a load", acts)
			}
			if n := x.step(); n != 0 {
				t.Errorf("%d tokens of it are computed", n)
			}
			end, lent := x.s.KVFailed, start
			if ok {
				end, lent = x.s.KVArrived, 40
			}
			acts = end(2, x.now)
			if err := x.s.Check(); err != nil {
				t.Fatal(err)
			}
			last := acts[len(acts)-1]
			if lent == 0 && (len(acts) != 1 || last.Kind != sched.Ended || last.Reason != sched.ReasonFailed) ||
				lent > 0 && (len(acts) != 2 || last.Kind != sched.Leased || last.Tokens != lent) {
				t.Errorf("ok %v, %d held: got %+v, want %d lent", ok, held, acts, lent)
			}
			x.s.EndLease(2, x.now)
			if kv := x.s.Stats().KV; kv.Held+kv.Loading+kv.Leases != 0 {
				t.Errorf("it holds %+v", kv)
			}
		}
	}
	x := newExternal(t, 40)
	x.lend(1, 50)
	if acts := x.s.Cancel(1, x.now); len(acts) != 1 || acts[0].Reason != sched.ReasonCancelled {
		t.Errorf("cancelled: %+v", acts)
	}
	x.s.KVFailed(1, x.now)
	if err := x.s.Check(); err != nil || x.s.Stats().KV.Loading != 0 {
		t.Errorf("cancelled: %v, %+v", err, x.s.Stats().KV)
	}
}

// TestLendRoom lends nothing that those that run may need: a watermark stays.
func TestLendRoom(t *testing.T) {
	x := newExternal(t, 0)
	x.submit(1, 161) // 41 blocks of 100, 40 of them to be found
	x.step()
	if err := x.s.Submit(sched.Request{ID: 2, Ref: sched.ID(2), Prompt: append([]dynamo.TokenID{99}, counting(190)...), MaxTokens: 9}, x.now); err != nil {
		t.Fatal(err)
	}
	x.step() // takes 48 of them, and runs
	if acts := x.lend(3, 161); len(acts) != 2 {
		t.Errorf("with 12 blocks to spare: %+v", acts)
	}
	x.s.EndLease(3, x.now)
	if err := x.s.Submit(sched.Request{ID: 4, Ref: sched.ID(4), Prompt: append([]dynamo.TokenID{98}, counting(42)...), MaxTokens: 9}, x.now); err != nil {
		t.Fatal(err)
	}
	x.step()
	if acts := x.lend(5, 161); len(acts) != 0 {
		t.Errorf("with a block to spare: %+v", acts)
	}
}
