package placement_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/placement"
)

// TestFleet: a fleet that changes decides, at any time, as Decide does over the same
// candidates, to the bit.
func TestFleet(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for round := range 40 {
		var f placement.Fleet
		now := begin
		for _, c := range fleet(1+rng.IntN(12), rng) {
			f.Add(c)
		}
		bookings := map[placement.Key]*placement.Booking{}
		for i := range 150 {
			now = now.Add(time.Duration(rng.IntN(300)) * time.Millisecond)
			switch at := rng.IntN(f.Len()); rng.IntN(10) {
			case 0:
				c := fleet(1, rng)[0]
				c.Epoch = uint64(i + 2) // another life
				f.Add(c)
			case 1:
				if f.Len() > 1 {
					delete(bookings, f.Candidates()[at].Key)
					f.Remove(at)
				}
			case 2:
				f.Touch(at).State = placement.State(rng.IntN(3))
			case 3:
				f.Touch(at).HeldUntil = now.Add(time.Duration(rng.IntN(500)) * time.Millisecond)
			case 4:
				c := f.Touch(at)
				c.SetReport(placement.Report{At: now, Requests: rng.IntN(20), Booked: c.Booked, Detailed: rng.IntN(2) == 0, PrefillTokens: rng.IntN(9000), PrefillBooked: c.PrefillTokens, KVTokens: rng.IntN(90000), KVBooked: c.KVTokens})
			case 5:
				c := f.Touch(at)
				if b := bookings[c.Key]; b != nil {
					c.Started(b, now)
					c.Grown(b, 16)
				}
			case 6:
				c := f.Touch(at)
				if b := bookings[c.Key]; b == nil {
					b = &placement.Booking{Tokens: 5000, Prompt: 4000, New: rng.IntN(4000)}
					c.Book(b, now)
					bookings[c.Key] = b
				} else {
					c.Release(b, now)
					delete(bookings, c.Key)
				}
			}
			q := ask(i, f.Len(), rng)
			q.Now = now
			p := params(allPolicies[rng.IntN(len(allPolicies))], rng)
			if round%5 == 0 {
				p.Prior = f.Candidates()[0].Model
				if p.Validate() != nil {
					p.Prior = placement.Params{}.Prior
				}
			}
			want := placement.Decide(p, q, slices.Clone(f.Candidates()), nil)
			got := f.Decide(p, q)
			if got.Winner != want.Winner || !slices.Equal(got.Scores, want.Scores) {
				t.Fatalf("step %d, %v: the fleet takes %d, Decide %d:\n%+v\n%+v", i, p.Policy, got.Winner, want.Winner, got.Scores, want.Scores)
			}
			if got := f.Choose(p, &q).Winner; got != want.Winner {
				t.Fatalf("step %d, %v: the fleet chooses %d, Decide %d: %+v", i, p.Policy, got, want.Winner, want.Scores)
			}
		}
	}
}

// TestTurns: a fleet of like candidates chooses whom Decide takes, by turns and by cost,
// also of those that never had a turn, are full or in doubt, or have had a turn out of
// order.
func TestTurns(t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	for round := range 40 {
		var f placement.Fleet
		now, p := begin, placement.DefaultParams([]placement.Policy{placement.RoundRobin, placement.KV}[round%2])
		for range 1 + rng.IntN(9) {
			f.Add(placement.Candidate{Key: placement.Key{ID: dynamo.WorkerID(f.Len() + 1), Epoch: 1}, State: placement.Up, MaxRunning: 2})
		}
		var won []int
		for i := range 300 {
			now = now.Add(time.Millisecond)
			at := rng.IntN(f.Len())
			switch rng.IntN(12) {
			case 0:
				f.Touch(at).DoubtedUntil = now.Add(time.Duration(rng.IntN(40)) * time.Millisecond)
			case 1:
				f.Touch(at).HeldUntil = now.Add(time.Duration(rng.IntN(40)) * time.Millisecond)
			case 2:
				f.Touch(at).Turn = uint64(rng.IntN(i + 1))
			case 3:
				f.Touch(at).Booked = rng.IntN(3)
			case 4:
				f.Touch(at).Role = placement.Role(rng.IntN(3))
			case 5:
				if f.Len() < 12 {
					f.Add(placement.Candidate{Key: placement.Key{ID: dynamo.WorkerID(100*round + i), Epoch: 1}, State: placement.Up})
				}
			case 6:
				if f.Len() > 1 {
					f.Remove(at)
				}
			}
			q := placement.Request{Seed: uint64(i), Now: now, Role: placement.Role(rng.IntN(3)), Tokens: 64 * rng.IntN(20), BlockSize: 64}
			if at := rng.IntN(f.Len()); rng.IntN(2) == 0 {
				n := uint32(rng.IntN(10))
				q.Overlaps = []placement.Overlap{{Candidate: int32(at), Blocks: [4]uint32{n, n, n, n + uint32(rng.IntN(2))}}, {Candidate: 99}}
			}
			want := placement.Decide(p, q, slices.Clone(f.Candidates()), nil)
			if got := f.Choose(p, &q).Winner; got != want.Winner {
				t.Fatalf("round %d, step %d: the fleet chooses %d, Decide %d: %+v", round, i, got, want.Winner, want.Scores)
			}
			if want.Winner != placement.None {
				f.Touch(want.Winner).Turn = uint64(i + 1)
				won = append(won, want.Winner)
			}
		}
		if len(won) < 100 {
			t.Errorf("round %d: %d winners; the test tests little", round, len(won))
		}
	}
}

// TestCostIsTerms: the cost of kv, which is worked out beforehand as far as it can be,
// is the sum of the terms.
func TestCostIsTerms(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for i := range 3000 {
		cs := fleet(6, rng)
		q := ask(i, 6, rng)
		for k := range q.Overlaps {
			if rng.IntN(2) == 0 { // on the device alone
				for t := range q.Overlaps[k].Blocks {
					q.Overlaps[k].Blocks[t] = q.Overlaps[k].Blocks[0]
				}
			}
		}
		if rng.IntN(10) == 0 {
			cs[0].KVCapacity = 1 + rng.IntN(9000)
			cs[1].MaxRunning = 1
		}
		d := placement.Decide(placement.DefaultParams(placement.KV), q, cs, nil)
		for k := range cs {
			if d.Scores[k].Verdict != placement.Fit {
				continue
			}
			terms := d.Terms(k)
			want := terms.Wait + terms.Prefill + terms.Load + terms.Slowdown + terms.Decode + terms.Evict + terms.Late
			if got := float64(d.Scores[k].Cost); math.Abs(got-want) > 1e-4*want+1e-4 {
				t.Fatalf("got %v, want %v: %+v of %+v for %+v", got, want, terms, cs[k], q)
			}
		}
	}
}

func BenchmarkFleet(b *testing.B) {
	for _, p := range []placement.Policy{placement.RoundRobin, placement.LeastLoaded, placement.KV, placement.Reference} {
		for _, n := range []int{64, 1000} {
			for _, holders := range []int{8, n} {
				if holders == n && !p.UsesOverlap() {
					continue
				}
				b.Run(fmt.Sprintf("%v/workers=%d/holders=%d", p, n, holders), func(b *testing.B) {
					rng := rand.New(rand.NewPCG(3, 4))
					var f placement.Fleet
					for _, c := range busy(n, rng) {
						f.Add(c)
					}
					q := question(n, holders, rng)
					record := make([]byte, 0, placement.MaxRecordBytes)
					params := placement.DefaultParams(p)
					b.ReportAllocs()
					for b.Loop() {
						q.Seed++
						q.Now = q.Now.Add(time.Microsecond)
						d := f.Decide(params, q)
						d.AppendRecord(record, 0)
						f.Touch(d.Winner).Turn = q.Seed // and what booking touches
						f.Touch(int(q.Seed) % n)
					}
				})
				b.Run(fmt.Sprintf("%v/workers=%d/holders=%d/alone", p, n, holders), func(b *testing.B) {
					rng := rand.New(rand.NewPCG(3, 4))
					var f placement.Fleet
					for _, c := range busy(n, rng) {
						f.Add(c)
					}
					q := question(n, holders, rng)
					params := placement.DefaultParams(p)
					b.ReportAllocs()
					for b.Loop() {
						q.Seed++
						q.Now = q.Now.Add(time.Microsecond)
						f.Touch(f.Choose(params, &q).Winner).Turn = q.Seed
						f.Touch(int(q.Seed) % n)
					}
				})
			}
		}
	}
}
