package placement_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
)

// fleet makes candidates that differ in everything a cost looks at.
func fleet(n int, rng *rand.Rand) []placement.Candidate {
	all := candidates(n, rng)
	for i := range all {
		c := &all[i]
		c.MaxRunning, c.MaxQueue = 64, 64
		c.Prefills = min(rng.IntN(4), c.Booked)
		c.PrefillTokens = c.Prefills * rng.IntN(5000)
		c.PrefillPairs = float64(c.PrefillTokens) * 1000
		c.PrefillSince = begin.Add(-time.Duration(rng.IntN(100)) * time.Millisecond)
		c.KVTokens = c.Booked * rng.IntN(4000)
		c.KVCapacity, c.StepTokens, c.Reuse = 200_000, 2048, rng.Float64()
		if rng.IntN(4) > 0 {
			s := 0.5 + rng.Float64()
			c.Model = perfmodel.ClosedForm{PrefillFixedSeconds: 7e-3 * s, PrefillSecondsPerToken: 18e-6 * s, PrefillSecondsPerPair: 2e-9, DecodeFixedSeconds: 5e-3 * s, DecodeSecondsPerSequence: 4e-6, DecodeSecondsPerKVToken: 45e-9 * s}
		}
	}
	return all
}

// ask makes a request whose prompt some of n candidates hold in part.
func ask(i, n int, rng *rand.Rand) placement.Request {
	id := dynamo.RequestID(fmt.Sprint("r", i))
	q := placement.Request{ID: id, Seed: placement.Seed(id, 0, i), Now: begin, Tokens: 16 * rng.IntN(600), BlockSize: 16, Expected: rng.IntN(500)}
	if rng.IntN(2) == 0 {
		q.Session = placement.Hash(fmt.Sprint("session", rng.IntN(20)))
	}
	for _, c := range rng.Perm(n)[:rng.IntN(n+1)] {
		o := placement.Overlap{Candidate: int32(c)}
		blocks := 0
		for t := range o.Blocks {
			blocks += rng.IntN(200)
			o.Blocks[t] = uint32(blocks)
		}
		q.Overlaps = append(q.Overlaps, o)
	}
	return q
}

// params are a policy's, with a temperature now and then.
func params(p placement.Policy, rng *rand.Rand) placement.Params {
	all := placement.DefaultParams(p)
	if rng.IntN(2) == 0 {
		all.Reference.Temperature, all.Reference.CreditDecay = rng.Float64(), rng.Float64()
	}
	all.Sticky.ExplorationProbability = rng.Float64()
	return all
}

var allPolicies = []placement.Policy{
	placement.RoundRobin, placement.Random, placement.LeastLoaded, placement.PowerOfTwo, placement.KV,
	placement.Reference, placement.Sticky, placement.LMetric, placement.Session, placement.Direct,
}

// TestRecord: each record of each policy, ties and draws and groups included, names
// the winner that the decision had when its last step is made again.
func TestRecord(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	room := make([]byte, 0, placement.MaxRecordBytes)
	for i := range 8000 {
		n := 1 + rng.IntN(20)
		cs := fleet(n, rng)
		if rng.IntN(3) == 0 { // all alike: keys decide
			for k := range cs {
				key := cs[k].Key
				cs[k] = placement.Candidate{Key: key, State: placement.Up}
			}
		}
		q := ask(i, n, rng)
		if rng.IntN(5) == 0 {
			q.Sticky = cs[rng.IntN(n)].Key
		}
		if rng.IntN(5) == 0 {
			q.Pin.ID = cs[rng.IntN(n)].ID
		}
		p := params(allPolicies[i%len(allPolicies)], rng)
		d := placement.Decide(p, q, cs, nil)
		bytes := d.AppendRecord(room, 70*time.Millisecond)
		r, err := placement.ParseRecord(bytes)
		if err != nil {
			t.Fatalf("%v: %v", p.Policy, err)
		}
		if d.Winner == placement.None {
			if r.Again() != placement.None || r.Outcome != d.Outcome() || len(r.Best) != 0 {
				t.Fatalf("%v: a decision without a winner has the record %+v", p.Policy, r)
			}
			continue
		}
		if r.Again() != 0 || r.Best[0].Worker != cs[d.Winner].ID {
			t.Fatalf("%v: %d won (worker %v), the record makes it %d of %+v", p.Policy, d.Winner, cs[d.Winner].ID, r.Again(), r.Best)
		}
		order := d.Order()
		if r.Fit != len(order) || len(r.Best) != min(8, len(order)) || r.Candidates != n || !r.At.Equal(begin) || r.Waited != 70*time.Millisecond {
			t.Fatalf("%v: %d of %d fit, recorded %d of %d, %d listed", p.Policy, len(order), n, r.Fit, r.Candidates, len(r.Best))
		}
		for k, e := range r.Best {
			if got, want := e.Worker, cs[order[k]].ID; got != want {
				t.Fatalf("%v: place %d has worker %v, want %v", p.Policy, k, got, want)
			}
		}
		bound := math.Inf(1)
		for _, k := range order[len(r.Best):] {
			if s := &d.Scores[k]; s.Doubted == r.Best[0].Doubted && s.Aside == r.Best[0].Aside {
				bound = min(bound, float64(s.Cost))
			}
		}
		if r.Bound != bound {
			t.Fatalf("%v: the rest costs %v or more, the record says %v", p.Policy, bound, r.Bound)
		}
		if len(placement.Explain(&r).String()) == 0 {
			t.Fatal("a decision without words")
		}
	}
}

// decide decides by kv, itself or by a fleet.
func decide(itself bool, q placement.Request, cs []placement.Candidate) placement.Decision {
	p := placement.DefaultParams(placement.KV)
	if itself {
		return placement.Decide(p, q, cs, nil)
	}
	var f placement.Fleet
	for _, c := range cs {
		f.Add(c)
	}
	return f.Decide(p, q)
}

// TestRecordTerms: what a record says of the terms is what the decision had.
func TestRecordTerms(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for i := range 2000 {
		cs := fleet(6, rng)
		q := ask(i, 6, rng)
		d := decide(i%2 == 0, q, cs)
		r, err := placement.ParseRecord(d.AppendRecord(nil, 0))
		if err != nil {
			t.Fatal(err)
		}
		for k, at := range d.Order() {
			got, want := r.Best[k].Terms, d.Terms(at)
			for _, v := range [][3]float64{
				{got.Wait, want.Wait, 0.0041}, {got.Prefill, want.Prefill, 0.0041}, {got.Slowdown, want.Slowdown, 0.0041}, {got.Load, want.Load, 0.064}, {got.Late, want.Late, 0.064},
			} {
				if math.Abs(v[0]-v[1]) > v[2]*v[1]+0.017 {
					t.Fatalf("got %+v, want %+v", got, want)
				}
			}
			late := want.Late
			if got, want := got.Wait+got.Prefill+got.Load+got.Slowdown+got.Decode+got.Late, float64(d.Scores[at].Cost); math.Abs(got-want) > 0.0041*want+0.064*late+0.1 {
				t.Fatalf("the terms add up to %v, the cost is %v", got, want)
			}
		}
	}
}

// TestOtherwise: what an explanation says would have made another one win does, and
// not much less of it does not.
func TestOtherwise(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	blocks, exact := 0, 0
	for i := range 4000 {
		cs := fleet(4, rng)
		q := ask(i, 4, rng)
		d := decide(i%2 == 0, q, cs)
		if d.Winner == placement.None {
			continue
		}
		r, err := placement.ParseRecord(d.AppendRecord(nil, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, words := range placement.Explain(&r).Otherwise {
			var id string
			var more int
			if _, err := fmt.Sscanf(words, "worker %s would have won with %d more cached", &id, &more); err != nil {
				continue
			}
			worker, err := dynamo.ParseWorkerID(id)
			if err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(cs, func(c placement.Candidate) bool { return c.ID == worker })
			with := func(extra int) bool {
				again := q
				again.Overlaps = slices.Clone(q.Overlaps)
				k := slices.IndexFunc(again.Overlaps, func(o placement.Overlap) bool { return int(o.Candidate) == at })
				if k < 0 {
					again.Overlaps = append(again.Overlaps, placement.Overlap{Candidate: int32(at)})
					k = len(again.Overlaps) - 1
				}
				o := &again.Overlaps[k]
				o.Blocks[0] += uint32(extra)
				for tier := 1; tier < 4; tier++ {
					o.Blocks[tier] = max(o.Blocks[tier], o.Blocks[0])
				}
				e := placement.Decide(placement.DefaultParams(placement.KV), again, cs, nil)
				return e.Winner == at
			}
			blocks++
			if !with(more) {
				t.Fatalf("%s; it does not, of %+v", words, placement.Explain(&r))
			}
			if more > 20 && !with(more*3/4-2) || more <= 20 {
				exact++
			}
		}
	}
	if blocks < 300 || exact < blocks*8/10 {
		t.Errorf("%d explanations name a number of blocks, %d of them a close one", blocks, exact)
	}
}

// TestExplain shows one explanation whole.
func TestExplain(t *testing.T) {
	cs := []placement.Candidate{
		{Key: placement.Key{ID: 0xa, Epoch: 1}, State: placement.Up, Booked: 4, Prefills: 1, PrefillTokens: 8000, PrefillPairs: 32e6, KVTokens: 9000},
		{Key: placement.Key{ID: 0xb, Epoch: 1}, State: placement.Up, Booked: 3, KVTokens: 9000, Report: placement.Report{At: begin.Add(-40 * time.Millisecond), Requests: 3, Booked: 3}},
		{Key: placement.Key{ID: 0xc, Epoch: 1}, State: placement.Down},
	}
	q := placement.Request{ID: "r", Seed: 1, Now: begin, Tokens: 4000, BlockSize: 16, Expected: 100, Overlaps: []placement.Overlap{
		{Candidate: 0, Blocks: [4]uint32{200, 200, 200, 200}}, {Candidate: 1, Blocks: [4]uint32{100, 120, 120, 120}},
	}}
	d := placement.Decide(placement.DefaultParams(placement.KV), q, cs, nil)
	r, err := placement.ParseRecord(d.AppendRecord(nil, 0))
	if err != nil {
		t.Fatal(err)
	}
	got := placement.Explain(&r).String()
	t.Log("\n" + got)
	for _, want := range []string{"worker 000000000000000b won by kv, of 2 that could take it and 3 in all", "prefill", "holds 100 blocks and 20 in slower tiers", "reported 39ms ago", "less wait", "has not reported", "its speed is not known yet"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 40 {
		cs := fleet(1+rng.IntN(12), rng)
		d := placement.Decide(params(allPolicies[i%len(allPolicies)], rng), ask(i, len(cs), rng), cs, nil)
		f.Add(d.AppendRecord(nil, time.Second))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := placement.ParseRecord(b)
		if err != nil {
			if dynamo.KindOf(err) != dynamo.KindCorrupt {
				t.Errorf("got %v", err)
			}
			return
		}
		if w := r.Again(); w >= len(r.Best) {
			t.Errorf("the winner is %d of %d", w, len(r.Best))
		}
		_ = placement.Explain(&r).String()
	})
}
