package placement_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
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

// TestFleetRecord: fleets of any size, with candidates alike, full caches, prompts that
// begin in the future and models beyond all measure, cost and rank as Decide does, to the
// bit, and their records say the same, to the bit but for terms, which are rounded.
func TestFleetRecord(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 18))
	priced := 0
	for round := range 1500 {
		n := 1 + rng.IntN(1+rng.IntN(160))
		cs := strange(fleet(n, rng), rng)
		var f placement.Fleet
		for _, c := range cs {
			f.Add(c)
		}
		for f.Len() > 1 && rng.IntN(3) == 0 {
			f.Remove(rng.IntN(f.Len()))
		}
		q := ask(round, f.Len(), rng)
		if round%2 == 0 { // on the device alone: prices say it all
			for k := range q.Overlaps {
				b := &q.Overlaps[k].Blocks
				b[1], b[2], b[3] = b[0], b[0], b[0]
			}
		}
		switch rng.IntN(12) {
		case 0:
			q.Sticky = f.Candidates()[rng.IntN(f.Len())].Key
		case 1:
			q.Excluded = []placement.Key{f.Candidates()[rng.IntN(f.Len())].Key}
		case 2:
			q.Preferred = []placement.Preference{{Label: "zone=a", Weight: rng.Float64()}}
		case 3:
			q.Overlaps = append(q.Overlaps, placement.Overlap{Candidate: int32(rng.IntN(2 * n)), Blocks: [4]uint32{9, 9, 9, 9}})
		}
		p := params(placement.KV, rng)
		if rng.IntN(8) == 0 {
			p = params(allPolicies[rng.IntN(len(allPolicies))], rng)
		}
		f.Decide(p, q) // works them out; most is asked some time after that
		q.Now = q.Now.Add(time.Duration(rng.IntN(40)) * time.Millisecond)
		want := placement.Decide(p, q, slices.Clone(f.Candidates()), nil)
		got := f.Decide(p, q)
		for i := range got.Scores { // some know what those would cost that may not win
			if s := &got.Scores[i]; s.Verdict != placement.Fit {
				s.Cost, want.Scores[i].Cost = 0, 0
			}
		}
		if got.Winner != want.Winner || !slices.Equal(got.Scores, want.Scores) {
			t.Fatalf("round %d, %v: the fleet takes %d, Decide %d:\n%+v\n%+v", round, p.Policy, got.Winner, want.Winner, got.Scores, want.Scores)
		}
		a, b := got.AppendRecord(nil, 0), want.AppendRecord(nil, 0)
		sameRecord(t, a, b, p.Policy == placement.KV || p.Policy == placement.Sticky)
		r, err := placement.ParseRecord(a)
		if err != nil {
			t.Fatal(err)
		}
		for k, i := range want.Order()[:len(r.Best)] {
			if got, want := r.Best[k].Worker, f.Candidates()[i].ID; got != want {
				t.Fatalf("place %d of %d has worker %v, want %v", k, len(r.Best), got, want)
			}
			if o := r.Best[k]; p.Policy == placement.KV && o.Slower == 0 {
				priced++
			}
		}
		if c := f.Choose(p, &q); c.Winner != want.Winner {
			t.Fatalf("round %d, %v: the fleet chooses %d, Decide %d", round, p.Policy, c.Winner, want.Winner)
		}
	}
	if priced < 3000 {
		t.Errorf("%d entries could be priced; the test tests little", priced)
	}
}

// strange makes some of the candidates so.
func strange(cs []placement.Candidate, rng *rand.Rand) []placement.Candidate {
	alike := rng.IntN(3) == 0
	for i := range cs {
		c := &cs[i]
		c.ID = dynamo.WorkerID(i + 1)
		switch rng.IntN(12) {
		case 0:
			c.KVCapacity = rng.IntN(20_000)
		case 1:
			c.PrefillSince = begin.Add(time.Duration(rng.IntN(100)) * time.Millisecond)
		case 2:
			c.Model.PrefillSecondsPerToken, c.Model.DecodeFixedSeconds = 1e30, 1e30
		case 3:
			c.Model.PrefillSecondsPerToken, c.Model.PrefillSecondsPerPair = 1e-300, 1e300
		case 4:
			c.Prefills, c.PrefillTokens = 1<<20, 1<<30
		case 5:
			c.MaxRunning = 1
		case 6:
			c.Labels = []string{"zone=a"}
		case 7:
			c.Model = perfmodel.ClosedForm{PrefillSecondsPerToken: 1e-12, DecodeFixedSeconds: 1e-6}
		}
		if alike && i > 0 && rng.IntN(3) > 0 {
			key := c.Key
			*c = cs[0]
			c.Key = key
		}
	}
	return cs
}

// sameRecord compares records; terms, where there are some, to as much as they are
// rounded by.
func sameRecord(t *testing.T, a, b []byte, terms bool) {
	t.Helper()
	r, err := placement.ParseRecord(a)
	if err != nil {
		t.Fatal(err)
	}
	s, err := placement.ParseRecord(b)
	if err != nil {
		t.Fatal(err)
	}
	for k := range r.Best {
		x, y := r.Best[k].Terms, s.Best[k].Terms
		for _, v := range [][3]float64{{x.Wait, y.Wait, 0.0081}, {x.Prefill, y.Prefill, 0.0081}, {x.Slowdown, y.Slowdown, 0.0081}, {x.Load, y.Load, 0}, {x.Late, y.Late, 0.13}} {
			if math.Abs(v[0]-v[1]) > v[2]*v[1]+0.017 {
				t.Fatalf("got %+v, want %+v: %+v and %+v", x, y, r.Best[k], s.Best[k])
			}
		}
	}
	for k := range r.Best {
		if e := 64 + 32*k; terms {
			copy(a[e+24:e+32], b[e+24:e+32])
		}
	}
	if !slices.Equal(a, b) {
		t.Fatalf("got the record %x\nwant %x", a, b)
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
