package sched_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/tokens"
)

// crowded is a scheduler whose pool is too small for all that may run.
func crowded(t *testing.T, blockSize int, hashOnly bool) *sched.Scheduler {
	t.Helper()
	c := sched.DefaultConfig()
	c.BlockSize, c.Blocks, c.MaxContext, c.MaxRunning, c.StepTokens, c.MaxWaiting = blockSize, 400/blockSize, 300, 8, 64, 20
	c.HashOnly, c.Events = hashOnly, true
	s, err := sched.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// prompt is one of a few that begin alike.
func prompt(r *rand.Rand) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, 1+r.IntN(100))
	for i := range ids {
		ids[i] = dynamo.TokenID(i)
	}
	for i := r.IntN(len(ids)); i < len(ids); i++ {
		ids[i] = dynamo.TokenID(r.IntN(3) + 1000*i)
	}
	return ids
}

// events copies events, which are valid for a moment only.
func events(s *sched.Scheduler) []string {
	var all []string
	for _, e := range s.Events() {
		text := fmt.Sprintf("%d %v %v %v:", e.Seq, e.Kind, e.Parent, e.HasParent)
		for _, b := range e.Blocks {
			text += fmt.Sprintf(" %v", b.Hash)
		}
		all = append(all, fmt.Sprint(text, e.Hashes))
	}
	return all
}

// step computes one step and returns what it did, in words; empty if there is none.
func step(t *testing.T, s *sched.Scheduler, now time.Time, token func(e *sched.Entry) dynamo.TokenID) string {
	t.Helper()
	b, actions := s.Next(now)
	text := fmt.Sprint(actions)
	if b == nil {
		return ""
	}
	results := make([]sched.Result, len(b.Entries))
	for i := range b.Entries {
		e := &b.Entries[i]
		text += fmt.Sprintf(" [%d %d+%d %v %v %v %v]", e.ID, e.Start, e.Count, e.Blocks, e.Sample, e.Output, e.Last)
		if token != nil && e.Sample {
			results[i].Token = token(e)
		}
	}
	return text + fmt.Sprint(s.Done(results, now))
}

// TestStretch plays random requests to two schedulers, one of which skips what can
// be skipped: events, counts and pools have to be the same after each part.
func TestStretch(t *testing.T) {
	skipped := 0
	for seed := range uint64(24) {
		r := rand.New(rand.NewPCG(seed, 1))
		size := []int{1, 2, 4, 16}[seed%4]
		stepwise, skipping := crowded(t, size, true), crowded(t, size, true)
		now := time.Unix(1, 0)
		next := sched.ID(0)
		for range 200 {
			now = now.Add(time.Millisecond)
			for range r.IntN(3) * r.IntN(2) {
				next++
				ids := prompt(r)
				q := sched.Request{ID: next, Length: len(ids), Blocks: tokens.AppendBlocks(nil, 0, size, ids), Key: uint64(next) << 20, MaxTokens: 1 + r.IntN(120)}
				if a, b := stepwise.Submit(q, now), skipping.Submit(q, now); (a == nil) != (b == nil) {
					t.Fatalf("seed %d: submitted with %v and %v", seed, a, b)
				}
			}
			if r.IntN(20) == 0 {
				id := sched.ID(r.IntN(int(next) + 1))
				stepwise.Cancel(id, now)
				skipping.Cancel(id, now)
			}
			if n, _, ok := skipping.Stretch(); ok {
				for range 1 + r.IntN(4) {
					ahead := skipping.Ahead()
					if ahead == 0 {
						break
					}
					k := 1 + r.IntN(ahead)
					skipping.Skip(k)
					skipped += k * n
					for range k {
						step(t, stepwise, now, nil)
					}
					compare(t, seed, stepwise, skipping)
				}
			}
			if a, b := step(t, stepwise, now, nil), step(t, skipping, now, nil); a != b {
				t.Fatalf("seed %d: stepwise\n%s\nskipping\n%s", seed, a, b)
			}
			compare(t, seed, stepwise, skipping)
			if err := skipping.Check(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
	if skipped < 1000 {
		t.Errorf("%d tokens were skipped; the test tests nothing", skipped)
	}
}

func compare(t *testing.T, seed uint64, a, b *sched.Scheduler) {
	t.Helper()
	if x, y := events(a), events(b); !reflect.DeepEqual(x, y) {
		t.Fatalf("seed %d: events stepwise\n%v\nskipping\n%v", seed, x, y)
	}
	if x, y := a.Stats(), b.Stats(); x != y {
		t.Fatalf("seed %d: counts stepwise\n%+v\nskipping\n%+v", seed, x, y)
	}
}

// TestHashOnly plays random requests to a scheduler of ids and one of hashes: they
// form the same batches in the same blocks.
func TestHashOnly(t *testing.T) {
	found := uint64(0)
	for seed := range uint64(16) {
		r := rand.New(rand.NewPCG(seed, 2))
		size := []int{1, 2, 4, 16}[seed%4]
		ids, hashes := crowded(t, size, false), crowded(t, size, true)
		now := time.Unix(1, 0)
		next := sched.ID(0)
		for range 300 {
			now = now.Add(time.Millisecond)
			for range r.IntN(3) * r.IntN(2) {
				next++
				p := prompt(r)
				q := sched.Request{ID: next, Prompt: p, MaxTokens: 1 + r.IntN(60)}
				h := sched.Request{ID: next, Length: len(p), Blocks: tokens.AppendBlocks(nil, 0, size, p), Key: uint64(next) << 20, MaxTokens: q.MaxTokens}
				if a, b := ids.Submit(q, now), hashes.Submit(h, now); (a == nil) != (b == nil) {
					t.Fatalf("seed %d: submitted with %v and %v", seed, a, b)
				}
			}
			own := func(e *sched.Entry) dynamo.TokenID { return dynamo.TokenID(1<<20 + int(e.ID)*1000 + e.Output) }
			if a, b := step(t, ids, now, own), step(t, hashes, now, nil); a != b {
				t.Fatalf("seed %d: ids\n%s\nhashes\n%s", seed, a, b)
			}
			if a, b := ids.Stats(), hashes.Stats(); a != b {
				t.Fatalf("seed %d: ids\n%+v\nhashes\n%+v", seed, a, b)
			}
		}
		found += hashes.Stats().KV.Found
	}
	if found < 1000 {
		t.Errorf("%d blocks were found; the test tests nothing", found)
	}
}

// TestHashOnlyRefusals: what only ids can do is refused.
func TestHashOnlyRefusals(t *testing.T) {
	block := []tokens.Block{{Local: 1, Hash: 1}}
	for _, tt := range []struct {
		name string
		r    sched.Request
	}{
		{"ids", sched.Request{Prompt: []dynamo.TokenID{1}, Length: 1}},
		{"resumed", sched.Request{Resumed: []dynamo.TokenID{1}, Length: 1}},
		{"logits", sched.Request{Length: 1, PromptLogits: true}},
		{"too few blocks", sched.Request{Length: 4}},
		{"too many blocks", sched.Request{Length: 3, Blocks: block}},
		{"nothing", sched.Request{}},
	} {
		tt.r.ID = 1
		if err := crowded(t, 4, true).Submit(tt.r, time.Unix(1, 0)); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("%s: got %v, want it refused", tt.name, err)
		}
	}
}
