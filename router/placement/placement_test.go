package placement_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/placement"
)

// check tests the laws that hold for every decision.
func check(t *testing.T, d *placement.Decision) {
	t.Helper()
	if got := d.Again(); got != d.Winner {
		t.Fatalf("made again the decision is %d, was %d: %+v", got, d.Winner, d)
	}
	order := d.Order()
	if d.Winner == placement.None {
		if len(order) > 0 {
			t.Fatalf("no winner, though %v are fit", order)
		}
		return
	}
	if order[0] != d.Winner {
		t.Fatalf("the winner is %d, the best %v", d.Winner, order)
	}
	c := &d.Candidates[d.Winner]
	if c.State != placement.Up || d.Request.Now.Before(c.HeldUntil) || c.MaxRunning > 0 && d.Scores[d.Winner].Load >= int32(c.MaxRunning+c.MaxQueue) || slices.Contains(d.Request.Excluded, c.Key) {
		t.Fatalf("%+v won", c)
	}
}

var begin = time.Unix(1000, 0)

func candidates(n int, rng *rand.Rand) []placement.Candidate {
	all := make([]placement.Candidate, n)
	for i := range all {
		all[i] = placement.Candidate{
			Key: placement.Key{ID: dynamo.WorkerID(i + 1), Epoch: 1}, State: placement.Up,
			MaxRunning: 8, MaxQueue: 2, Booked: rng.IntN(11), BookedTokens: rng.IntN(1000), Turn: uint64(rng.IntN(50)),
			Report: placement.Report{At: begin, Requests: rng.IntN(12), Booked: rng.IntN(6)},
		}
		switch rng.IntN(8) {
		case 0:
			all[i].State = placement.State(rng.IntN(3))
		case 1:
			all[i].HeldUntil, all[i].Lost = begin.Add(time.Duration(rng.IntN(3)-1)*time.Second), rng.IntN(2) == 0
		case 2:
			all[i].DoubtedUntil = begin.Add(time.Second)
		}
	}
	return all
}

// TestDecisions checks the laws on random candidates, and that their order has no
// influence on the winner.
func TestDecisions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 4000 {
		cs := candidates(1+rng.IntN(6), rng)
		q := placement.Request{ID: dynamo.RequestID(fmt.Sprint("r", i)), Seed: placement.Seed("r", 0, i), Now: begin}
		if rng.IntN(3) == 0 {
			q.Excluded = []placement.Key{cs[0].Key}
			q.Sticky = cs[len(cs)-1].Key
		}
		p := placement.Policy(rng.IntN(4))
		d := placement.Decide(placement.DefaultParams(p), q, cs, nil)
		check(t, &d)
		mixed := slices.Clone(cs)
		rng.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
		e := placement.Decide(placement.DefaultParams(p), q, mixed, nil)
		if (d.Winner == placement.None) != (e.Winner == placement.None) || d.Winner != placement.None && d.Candidates[d.Winner].Key != e.Candidates[e.Winner].Key {
			t.Fatalf("%v: the order of the candidates matters: %+v and %+v", p, d, e)
		}
	}
}

// TestSpread: random is even, and round-robin exactly so.
func TestSpread(t *testing.T) {
	const workers, requests = 5, 10000
	for _, p := range []placement.Policy{placement.RoundRobin, placement.Random, placement.PowerOfTwo} {
		cs := make([]placement.Candidate, workers)
		for i := range cs {
			cs[i] = placement.Candidate{Key: placement.Key{ID: dynamo.WorkerID(i + 1)}, State: placement.Up}
		}
		won := make([]int, workers)
		for i := range requests {
			id := dynamo.RequestID(fmt.Sprint("request-", i))
			d := placement.Decide(placement.DefaultParams(p), placement.Request{ID: id, Seed: placement.Seed(id, 0, 0), Now: begin}, cs, nil)
			won[d.Winner]++
			cs[d.Winner].Turn = uint64(i + 1)
		}
		slack := requests / workers / 10
		if p == placement.RoundRobin {
			slack = 0
		}
		for _, n := range won {
			if n < requests/workers-slack || n > requests/workers+slack {
				t.Errorf("%v: won %v of %d", p, won, requests)
				break
			}
		}
	}
}

func TestSeed(t *testing.T) {
	seen := map[uint64]string{}
	for _, id := range []dynamo.RequestID{"", "a", "b", "a/0", "a/1"} {
		for resumed := range 20 {
			for attempt := range 20 {
				what, s := fmt.Sprint(id, resumed, attempt), placement.Seed(id, resumed, attempt)
				if other := seen[s]; other != "" {
					t.Errorf("%s and %s have one seed", what, other)
				}
				seen[s] = what
			}
		}
	}
	if one, again := placement.Seed("a", 1, 2), placement.Seed("a", 1, 2); one != again {
		t.Errorf("one seed is %d and then %d", one, again)
	}
}

func TestPolicies(t *testing.T) {
	for _, name := range placement.Policies() {
		if p, known := placement.ParsePolicy(name); !known || p.String() != name {
			t.Errorf("%s is read as %v, %t", name, p, known)
		}
	}
	if _, known := placement.ParsePolicy("kv!"); known {
		t.Error("kv! is known")
	}
}

func TestDecideAllocations(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	cs := fleet(64, rng)
	scores, record := make([]placement.Score, 0, len(cs)), make([]byte, 0, placement.MaxRecordBytes)
	for _, p := range allPolicies {
		q := ask(1, len(cs), rng)
		if n := testing.AllocsPerRun(100, func() {
			d := placement.Decide(placement.DefaultParams(p), q, cs, scores)
			d.AppendRecord(record, 0)
		}); n > 0 {
			t.Errorf("%v: %v allocations a decision and record", p, n)
		}
	}
}

// busy makes candidates all of which may win.
func busy(n int, rng *rand.Rand) []placement.Candidate {
	cs := fleet(n, rng)
	for i := range cs {
		cs[i].State, cs[i].HeldUntil, cs[i].DoubtedUntil, cs[i].Lost = placement.Up, time.Time{}, time.Time{}, false
	}
	return cs
}

// question makes a request whose prompt some of n hold in part.
func question(n, holders int, rng *rand.Rand) placement.Request {
	q := ask(1, n, rng)
	q.Tokens, q.Overlaps = 8000, nil
	for _, i := range rng.Perm(n)[:holders] {
		blocks := uint32(rng.IntN(500))
		q.Overlaps = append(q.Overlaps, placement.Overlap{Candidate: int32(i), Blocks: [4]uint32{blocks, blocks, blocks, blocks}})
	}
	return q
}

// BenchmarkDecide makes decisions and their records: of workers that are all in use
// and a few of which hold something of the prompt, and of such that all do.
func BenchmarkDecide(b *testing.B) {
	for _, p := range []placement.Policy{placement.RoundRobin, placement.LeastLoaded, placement.PowerOfTwo, placement.KV, placement.Reference, placement.Sticky, placement.LMetric} {
		for _, n := range []int{4, 64, 1000} {
			for _, holders := range []int{min(n, 8), n} {
				if holders == n && !p.UsesOverlap() {
					continue
				}
				b.Run(fmt.Sprintf("%v/workers=%d/holders=%d", p, n, holders), func(b *testing.B) {
					rng := rand.New(rand.NewPCG(3, 4))
					cs, q := busy(n, rng), question(n, holders, rng)
					scores, record := make([]placement.Score, 0, n), make([]byte, 0, placement.MaxRecordBytes)
					params := placement.DefaultParams(p)
					attempt := 0
					b.ReportAllocs()
					for b.Loop() {
						attempt++
						q.Seed = uint64(attempt)
						d := placement.Decide(params, q, cs, scores)
						d.AppendRecord(record, 0)
					}
				})
			}
		}
	}
}
