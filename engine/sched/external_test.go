package sched_test

import (
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// external drives a scheduler whose shell can bring the KV of any prompt's first tokens.
type external struct {
	t     *testing.T
	s     *sched.Scheduler
	now   time.Time
	have  int
	asked int
	acts  []sched.Action
}

func newExternal(t *testing.T, have int) *external {
	x := &external{t: t, have: have, now: time.Unix(1000, 0)}
	c := sched.DefaultConfig()
	c.BlockSize, c.Blocks, c.MaxContext = 4, 100, 200
	c.External = func(ref any, found int) int {
		x.asked++
		return max(found, x.have)
	}
	s, err := sched.New(c)
	if err != nil {
		t.Fatal(err)
	}
	x.s = s
	return x
}

func (x *external) submit(id sched.ID, n int) {
	x.t.Helper()
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(i)
	}
	if err := x.s.Submit(sched.Request{ID: id, Ref: id, Prompt: ids, MaxTokens: 1}, x.now); err != nil {
		x.t.Fatal(err)
	}
}

// step forms a batch and ends it, and returns the tokens in it.
func (x *external) step() int {
	x.t.Helper()
	b, acts := x.s.Next(x.now)
	x.acts = append(x.acts, acts...)
	n := 0
	if b != nil {
		n = b.Tokens
		x.acts = append(x.acts, x.s.Done(make([]sched.Result, len(b.Entries)), x.now)...)
	}
	if err := x.s.Check(); err != nil {
		x.t.Fatal(err)
	}
	return n
}

func (x *external) count(k sched.ActionKind) (n int) {
	for _, a := range x.acts {
		if a.Kind == k {
			n++
		}
	}
	return n
}

// TestExternalShared has many sequences need the same blocks, which the shell can
// bring: they are brought once, and found by the others.
func TestExternalShared(t *testing.T) {
	x := newExternal(t, 40)
	for id := range sched.ID(5) {
		x.submit(id, 50)
	}
	if n := x.step(); n != 0 || x.count(sched.Load) != 1 {
		t.Fatalf("%d tokens computed, %d loads; want none and one", n, x.count(sched.Load))
	}
	if a := x.acts[1]; a.Start != 0 || a.Tokens != 40 || len(a.Blocks) != 10 {
		t.Errorf("the load is %+v", a)
	}
	if x.step() != 0 || x.count(sched.Load) != 1 {
		t.Error("somebody did not wait")
	}
	x.acts = append(x.acts, x.s.KVArrived(0, x.now)...)
	if n := x.step(); n != 5*10 {
		t.Errorf("%d tokens computed, want ten for each", n)
	}
	if x.count(sched.Ended) != 5 || x.count(sched.Load) != 1 {
		t.Errorf("%d ended, %d loads", x.count(sched.Ended), x.count(sched.Load))
	}
}

// TestExternalFails has loads fail: the shell is asked once more, then no more.
func TestExternalFails(t *testing.T) {
	x := newExternal(t, 40)
	x.submit(1, 50)
	for range 2 {
		x.step()
		x.s.KVFailed(1, x.now)
	}
	if n := x.step(); n != 50 || x.count(sched.Load) != 2 || x.asked != 2 {
		t.Errorf("%d tokens computed after %d loads and %d questions; want 50, 2, 2", n, x.count(sched.Load), x.asked)
	}
}

// TestExternalWaiterEnds has the sequence whose load others wait for end before it.
func TestExternalWaiterEnds(t *testing.T) {
	x := newExternal(t, 40)
	x.submit(1, 50)
	x.submit(2, 50)
	x.step()
	x.s.Cancel(1, x.now)
	x.step() // the other does not wait for what nobody keeps
	if x.count(sched.Load) != 2 {
		t.Errorf("%d loads, want 2", x.count(sched.Load))
	}
	x.s.KVFailed(1, x.now)
	x.s.KVArrived(2, x.now)
	if n := x.step(); n != 10 || x.s.Stats().KV.Loading != 0 {
		t.Errorf("%d tokens computed, %+v", n, x.s.Stats())
	}
}

// TestExternalCovers has the shell bring nothing beyond what the pool has, and nothing
// for prompt logits.
func TestExternalCovers(t *testing.T) {
	x := newExternal(t, 0)
	x.submit(1, 50)
	if n := x.step(); n != 50 || x.count(sched.Load) != 0 {
		t.Errorf("%d tokens computed, %d loads", n, x.count(sched.Load))
	}
	x.have = 1000 // more than there is: the last token is computed in any case
	x.submit(2, 90)
	x.step()
	x.s.KVArrived(2, x.now)
	if n := x.step(); n != 2 || x.count(sched.Load) != 1 {
		t.Errorf("%d tokens computed, %d loads; want 2 and 1", n, x.count(sched.Load))
	}
	asked := x.asked
	if err := x.s.Submit(sched.Request{ID: 3, Prompt: make([]dynamo.TokenID, 20), MaxTokens: 1, PromptLogits: true}, x.now); err != nil {
		t.Fatal(err)
	}
	if n := x.step(); n != 20 || x.asked != asked {
		t.Errorf("%d tokens computed, asked %d times", n, x.asked-asked)
	}
}
