package placement_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

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
			}
		}
	}
}
