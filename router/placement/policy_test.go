package placement_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
)

// up makes candidates that may win, numbered from 1, and lets f change each.
func up(n int, f func(i int, c *placement.Candidate)) []placement.Candidate {
	cs := make([]placement.Candidate, n)
	for i := range cs {
		cs[i] = placement.Candidate{Key: placement.Key{ID: dynamo.WorkerID(i + 1), Epoch: 1}, State: placement.Up}
		if f != nil {
			f(i, &cs[i])
		}
	}
	return cs
}

func device(candidate int32, blocks uint32) placement.Overlap {
	return placement.Overlap{Candidate: candidate, Blocks: [4]uint32{blocks, blocks, blocks, blocks}}
}

// TestReferenceCost: the formula of NVIDIA Dynamo's router, reckoned by hand. The prompt
// has 10 blocks of 64 tokens; the costs are in blocks.
func TestReferenceCost(t *testing.T) {
	candidate := up(2, func(i int, c *placement.Candidate) {
		if i == 0 { // 20 blocks of prefill pending, 30 in use, 7 requests
			c.Booked, c.Prefills, c.PrefillTokens, c.KVTokens = 7, 1, 20*64, 30*64
		}
	})
	held := placement.Overlap{Candidate: 0, Blocks: [4]uint32{4, 6, 7, 9}} // 4 device, 2 host, 1 disk, 2 remote
	for _, tc := range []struct {
		name     string
		change   func(*placement.ReferenceParams)
		overlaps []placement.Overlap
		role     placement.Role
		want     [2]float32
	}{
		{"nothing held", nil, nil, placement.Whole, [2]float32{20 + 10 + 30 + 10, 10 + 10}},
		{"held", nil, []placement.Overlap{held}, placement.Whole, [2]float32{30 - (4 + 0.75*2 + 0.25) + 40, 20}},
		{"credit 2", func(p *placement.ReferenceParams) { p.OverlapCredit = 2 }, []placement.Overlap{held}, placement.Whole, [2]float32{30 - (8 + 1.5 + 0.25) + 40, 20}},
		{"host, disk and shared", func(p *placement.ReferenceParams) { p.HostCredit, p.DiskCredit, p.SharedCredit = 1, 0.5, 0.5 }, []placement.Overlap{held}, placement.Whole, [2]float32{30 - (4 + 2 + 0.5 + 1) + 40, 20}},
		{"clamped at zero", func(p *placement.ReferenceParams) { p.OverlapCredit = 100 }, []placement.Overlap{held}, placement.Whole, [2]float32{40, 20}},
		{"scale", func(p *placement.ReferenceParams) { p.PrefillScale = 3 }, []placement.Overlap{device(1, 5)}, placement.Whole, [2]float32{90 + 40, 15 + 10}},
		{"weight of requests", func(p *placement.ReferenceParams) { p.RequestWeight = 0.5 }, nil, placement.Whole, [2]float32{70 + 3.5, 20}},
		// decay = 1/(1+1·((20−0)/10)) = 1/3
		{"decay", func(p *placement.ReferenceParams) { p.CreditDecay = 1 }, []placement.Overlap{device(0, 6), device(1, 6)}, placement.Whole, [2]float32{30 - 2 + 40, 4 + 10}},
		{"no prefill", func(p *placement.ReferenceParams) { p.IgnorePrefill = true }, []placement.Overlap{held}, placement.Whole, [2]float32{40, 10}},
		{"no blocks", func(p *placement.ReferenceParams) { p.IgnoreBlocks = true }, nil, placement.Whole, [2]float32{30, 10}},
		{"decode alone", nil, []placement.Overlap{held}, placement.Decode, [2]float32{40, 10}},
	} {
		p := placement.DefaultParams(placement.Reference)
		if tc.change != nil {
			tc.change(&p.Reference)
		}
		q := placement.Request{ID: "r", Seed: 1, Now: begin, Tokens: 640, BlockSize: 64, Overlaps: tc.overlaps, Role: tc.role}
		d := placement.Decide(p, q, candidate, nil)
		if got := [2]float32{d.Scores[0].Cost, d.Scores[1].Cost}; got != tc.want || d.Winner != 1 {
			t.Errorf("%s: got %v and winner %d, want %v and 1", tc.name, got, d.Winner, tc.want)
		}
	}
}

// TestTemperature: winners are drawn with exp(−(cost−least)/((most−least)·T)).
func TestTemperature(t *testing.T) {
	p := placement.DefaultParams(placement.Reference)
	p.Reference.Temperature = 0.5
	cs := up(3, func(i int, c *placement.Candidate) { c.KVTokens = i * 50 * 16 }) // 0, ½ and 1 of the way
	const n = 40000
	var won [3]float64
	for i := range n {
		q := placement.Request{Seed: placement.Seed("r", 0, i), Now: begin, Tokens: 160, BlockSize: 16}
		d := placement.Decide(p, q, cs, nil)
		won[d.Winner]++
	}
	sum := 1 + math.Exp(-1) + math.Exp(-2)
	for i := range won {
		if want := n * math.Exp(-float64(i)) / sum; math.Abs(won[i]-want) > 0.03*n {
			t.Errorf("%d won %.0f times, want about %.0f", i, won[i], want)
		}
	}
}

func TestProduct(t *testing.T) {
	cs := up(2, func(i int, c *placement.Candidate) {
		if i == 0 {
			c.Booked, c.Prefills, c.PrefillTokens = 3, 1, 500
		}
	})
	q := placement.Request{Now: begin, Tokens: 1600, BlockSize: 16, Overlaps: []placement.Overlap{device(0, 60)}}
	d := placement.Decide(placement.DefaultParams(placement.LMetric), q, cs, nil)
	if got, want := [2]float32{d.Scores[0].Cost, d.Scores[1].Cost}, [2]float32{(500 + 1600 - 960) * 4, 1600}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestKeepsClose: sticky keeps to who holds most of the prompt, until that one is much
// slower; a little of the time it does not look.
func TestKeepsClose(t *testing.T) {
	p := placement.DefaultParams(placement.Sticky)
	p.Sticky.ExplorationProbability = 0
	for _, tc := range []struct {
		blocks  uint32
		pending int
		want    int
	}{{100, 0, 0}, {80, 20000, 0}, {79, 20000, 1}, {100, 400_000, 1}} {
		cs := up(3, func(i int, c *placement.Candidate) {
			c.Booked, c.Prefills = 2, 1
			c.PrefillTokens = 10
			if i == 0 {
				c.PrefillTokens = tc.pending
			}
			if i == 2 {
				c.PrefillTokens = 1000
			}
		})
		q := placement.Request{Now: begin, Tokens: 1605, BlockSize: 16, Overlaps: []placement.Overlap{device(0, tc.blocks)}}
		if d := placement.Decide(p, q, cs, nil); d.Winner != tc.want {
			t.Errorf("holding %d blocks of 100 with %d tokens pending: %d won, want %d", tc.blocks, tc.pending, d.Winner, tc.want)
		}
	}
	p.Sticky.ExplorationProbability = 0.2
	strayed := 0
	cs := up(2, func(i int, c *placement.Candidate) { c.Booked, c.Prefills, c.PrefillTokens = 1, 1, 9000-8000*i })
	for i := range 2000 {
		d := placement.Decide(p, placement.Request{Seed: placement.Seed("s", 0, i), Now: begin, Tokens: 1600, BlockSize: 16, Overlaps: []placement.Overlap{device(0, 100)}}, cs, nil)
		strayed += d.Winner
	}
	if strayed < 300 || strayed > 500 {
		t.Errorf("%d of 2000 strayed, want about 400", strayed)
	}
}

// TestSession: a session stays where it is, moves no more than it must when workers come
// and go, and goes elsewhere when its worker has much more than its share.
func TestSession(t *testing.T) {
	p := placement.DefaultParams(placement.Session)
	at := func(cs []placement.Candidate, session int) dynamo.WorkerID {
		q := placement.Request{Seed: uint64(session), Now: begin, Session: placement.Hash(fmt.Sprint("s", session))}
		d := placement.Decide(p, q, cs, nil)
		return cs[d.Winner].ID
	}
	cs := up(8, nil)
	moved, had := 0, map[dynamo.WorkerID]int{}
	for s := range 2000 {
		before := at(cs, s)
		had[before]++
		less := append([]placement.Candidate{}, cs[:3]...)
		less = append(less, cs[4:]...)
		less[0].Epoch = 9 // a new life keeps its sessions
		if after := at(less, s); after != before {
			if before != 4 {
				t.Fatalf("session %d went from %v to %v though that one is there", s, before, after)
			}
			moved++
		}
	}
	if moved < 180 || moved > 330 || len(had) != 8 {
		t.Errorf("%d of 2000 moved, over %v", moved, had)
	}
	// Its worker has six requests of the ten that it takes, the others have one: that is
	// more than half, and more than 1.25 of its share. With four it is not.
	home := at(cs, 1)
	for _, booked := range []int{4, 6} {
		for i := range cs {
			cs[i].Booked, cs[i].MaxRunning = 1, 10
			if cs[i].ID == home {
				cs[i].Booked = booked
			}
		}
		if got := at(cs, 1); (got == home) != (booked == 4) {
			t.Errorf("with %d requests at %v it goes to %v", booked, home, got)
		}
	}
}

// TestFilters: who may not serve a request never wins, by any policy.
func TestFilters(t *testing.T) {
	cs := up(4, func(i int, c *placement.Candidate) {
		c.Labels = []string{"rack=" + string(rune('a'+i/2)), "zone=1"}
		c.Rank = int32(i % 2)
		c.ID = dynamo.WorkerID(1 + i/2) // two workers with two ranks each
		c.Role = []placement.Role{placement.Whole, placement.Whole, placement.Prefill, placement.Decode}[i]
	})
	for _, tc := range []struct {
		name string
		q    placement.Request
		want string // the indices that may win
	}{
		{"anything", placement.Request{}, "01"},
		{"a prompt", placement.Request{Role: placement.Prefill}, "012"},
		{"an answer", placement.Request{Role: placement.Decode}, "013"},
		{"pinned", placement.Request{Pin: placement.Pin{ID: 1}}, "01"},
		{"pinned to a rank", placement.Request{Pin: placement.Pin{ID: 1, Rank: 1, HasRank: true}}, "1"},
		{"pinned to nobody", placement.Request{Pin: placement.Pin{ID: 7}}, ""},
		{"pinned to one that does something else", placement.Request{Pin: placement.Pin{ID: 2}}, ""},
		{"label", placement.Request{Role: placement.Prefill, Required: []string{"rack=b"}}, "2"},
		{"labels", placement.Request{Required: []string{"zone=1", "rack=a"}}, "01"},
		{"a label that nobody has", placement.Request{Required: []string{"zone=2"}}, ""},
		{"excluded", placement.Request{Excluded: []placement.Key{{ID: 1, Epoch: 1}}}, ""},
	} {
		for _, p := range allPolicies {
			if p == placement.Direct && tc.q.Pin.ID == 0 {
				continue
			}
			won := map[int]bool{}
			for i := range 64 {
				tc.q.Seed, tc.q.Now = placement.Seed("f", 0, i), begin
				d := placement.Decide(placement.DefaultParams(p), tc.q, cs, nil)
				if d.Winner != placement.None {
					won[d.Winner] = true
					if !strings.Contains(tc.want, fmt.Sprint(d.Winner)) {
						t.Fatalf("%s, %v: %d won, want one of %q", tc.name, p, d.Winner, tc.want)
					}
				} else if tc.want != "" {
					t.Fatalf("%s, %v: nobody won, want one of %q", tc.name, p, tc.want)
				}
			}
			if p == placement.Random && len(won) != len(tc.want) {
				t.Errorf("%s: %v won, want all of %q", tc.name, won, tc.want)
			}
		}
	}
	if d := placement.Decide(placement.DefaultParams(placement.Direct), placement.Request{Now: begin}, cs, nil); d.Winner != placement.None {
		t.Errorf("direct chose %d for a request that names nobody", d.Winner)
	}
}

// TestPreferred: a label makes a worker cheaper by its weight, and no more than that.
func TestPreferred(t *testing.T) {
	cs := up(2, func(i int, c *placement.Candidate) {
		c.MaxRunning, c.Booked = 10, 3+3*i // costs 0.4 and 0.7
		c.Labels = []string{fmt.Sprint("zone=", i)}
	})
	for weight, want := range map[float64]int{0.4: 0, 0.45: 1, 1: 1, 0: 0, -3: 0, math.NaN(): 0} {
		q := placement.Request{Now: begin, Preferred: []placement.Preference{{Label: "zone=1", Weight: weight}}}
		if d := placement.Decide(placement.DefaultParams(placement.LeastLoaded), q, cs, nil); d.Winner != want {
			t.Errorf("weight %v: %d won, want %d", weight, d.Winner, want)
		}
	}
}

// TestAbsurd: whatever comes in from outside, costs are numbers and somebody wins.
func TestAbsurd(t *testing.T) {
	for name, change := range map[string]func(*placement.Params){
		"NaN credit":        func(p *placement.Params) { p.Reference.OverlapCredit = math.NaN() },
		"negative scale":    func(p *placement.Params) { p.Reference.PrefillScale = -1 },
		"infinite weight":   func(p *placement.Params) { p.Reference.RequestWeight = math.Inf(1) },
		"negative heat":     func(p *placement.Params) { p.Reference.Temperature = -0.1 },
		"NaN threshold":     func(p *placement.Params) { p.Sticky.AffinityThreshold = math.NaN() },
		"threshold above 1": func(p *placement.Params) { p.Sticky.AffinityThreshold = 1.01 },
		"no policy":         func(p *placement.Params) { p.Policy = 99 },
		"NaN prior":         func(p *placement.Params) { p.Prior.PrefillSecondsPerToken = math.NaN() },
	} {
		p := placement.DefaultParams(placement.KV)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&p)
		if p.Validate() == nil {
			t.Errorf("%s is not refused", name)
		}
	}
	rng := rand.New(rand.NewPCG(21, 22))
	extreme := []int{0, 1, -1, math.MaxInt, math.MinInt, math.MaxInt32, 12345}
	pick := func() int { return extreme[rng.IntN(len(extreme))] }
	for i := range 3000 {
		cs := up(5, func(_ int, c *placement.Candidate) {
			c.SetReport(placement.Report{At: begin.Add(time.Duration(rng.IntN(5)-2) * time.Second), Requests: pick(), Booked: pick(), MaxRunning: pick(), Detailed: true, PrefillTokens: pick(), PrefillBooked: pick(), KVTokens: pick(), KVBooked: pick()})
			if r := c.Report; r.Requests < 0 || r.Booked < 0 || r.PrefillTokens < 0 || r.KVTokens > 1<<40 {
				t.Fatalf("the report is taken in as %+v", r)
			}
			if c.SetModel(perfmodel.ClosedForm{PrefillSecondsPerToken: math.NaN()}) == nil || c.SetModel(perfmodel.ClosedForm{DecodeFixedSeconds: -1}) == nil {
				t.Fatal("a model that is no model is taken in")
			}
			c.StepTokens, c.KVCapacity, c.Reuse = pick(), pick(), []float64{math.NaN(), -1, 2, 0.5}[rng.IntN(4)]
			c.LoadSecondsPerToken = [3]float64{math.NaN(), -1, math.Inf(1)}
			c.PrefillSince = begin.Add(time.Hour) // a clock that goes backwards
			b := placement.Booking{Tokens: pick(), Prompt: pick(), New: pick()}
			c.Book(&b, begin)
		})
		q := placement.Request{Seed: uint64(i), Now: begin, Tokens: pick(), BlockSize: pick(), Expected: pick(), Overlaps: []placement.Overlap{
			{Candidate: int32(pick()), Blocks: [4]uint32{9, 0, math.MaxUint32, 3}}, {Candidate: 1, Blocks: [4]uint32{math.MaxUint32, 0, 0, 0}},
		}}
		for _, p := range allPolicies[:9] {
			d := placement.Decide(params(p, rng), q, cs, nil)
			if d.Winner == placement.None {
				t.Fatalf("%v: nobody won of %+v", p, cs)
			}
			for k := range d.Scores {
				if c := float64(d.Scores[k].Cost); math.IsNaN(c) || math.IsInf(c, 0) {
					t.Fatalf("%v: the cost is %v for %+v", p, c, q)
				}
			}
			r, err := placement.ParseRecord(d.AppendRecord(nil, -time.Second))
			if err != nil || r.Again() != 0 {
				t.Fatalf("%v: %v, %+v", p, err, r)
			}
		}
	}
}

// TestBookings: whatever the order of events, what is booked and released is nothing.
func TestBookings(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	var c placement.Candidate
	live := make([]placement.Booking, 40)
	for range 20000 {
		b := &live[rng.IntN(len(live))]
		switch rng.IntN(4) {
		case 0:
			if *b == (placement.Booking{}) {
				*b = placement.Booking{Tokens: rng.IntN(5000), Prompt: rng.IntN(3000), New: rng.IntN(4000)}
				c.Book(b, begin)
			}
		case 1:
			c.Started(b, begin)
		case 2:
			c.Grown(b, rng.IntN(20)-1)
		case 3:
			c.Release(b, begin)
		}
		if c.Booked < 0 || c.Prefills < 0 || c.PrefillTokens < 0 || c.KVTokens < 0 || c.Prefills > c.Booked {
			t.Fatalf("got %+v", c)
		}
	}
	for i := range live {
		c.Release(&live[i], begin)
		c.Release(&live[i], begin)
	}
	c.PrefillSince = time.Time{}
	if c.Booked != 0 || c.BookedTokens != 0 || c.Prefills != 0 || c.PrefillTokens != 0 || c.PrefillPairs != 0 || c.KVTokens != 0 {
		t.Errorf("all is released, and left is %+v", c)
	}
}

// TestLate: a short prompt does not wait for seconds where its prefix is, behind a long
// one, to spare those that run elsewhere; one that waits no longer than it takes itself
// does.
func TestLate(t *testing.T) {
	for _, tt := range []struct {
		pending, want int
	}{
		{0, 0}, {500, 0}, {2000, 0}, {15000, 0}, {30000, 1}, {50000, 1}, {80000, 1},
	} {
		var cs []placement.Candidate
		for id := range 2 {
			cs = append(cs, placement.Candidate{Key: placement.Key{ID: dynamo.WorkerID(id + 1), Epoch: 1}, State: placement.Up, MaxRunning: 256, StepTokens: 8192, Booked: 25, KVTokens: 80000})
		}
		if n := tt.pending; n > 0 {
			cs[0].Book(&placement.Booking{Tokens: n + 100, Prompt: n, New: n}, begin)
		}
		q := placement.Request{ID: "r", Seed: 1, Now: begin, Tokens: 14000, BlockSize: 64, Overlaps: []placement.Overlap{{Candidate: 0, Blocks: [4]uint32{212, 212, 212, 212}}}}
		d := placement.Decide(placement.DefaultParams(placement.KV), q, cs, nil)
		if d.Winner != tt.want {
			t.Errorf("with %d tokens pending %d wins, want %d: %+v or %+v", tt.pending, d.Winner, tt.want, d.Terms(0), d.Terms(1))
		}
	}
}

// TestRefusedHolder: what one holds that the request may not go to again changes nothing
// for the others.
func TestRefusedHolder(t *testing.T) {
	var cs []placement.Candidate
	for id := range 3 {
		cs = append(cs, placement.Candidate{Key: placement.Key{ID: dynamo.WorkerID(id + 1), Epoch: 1}, State: placement.Up, MaxRunning: 256, StepTokens: 8192, Booked: 25, KVTokens: 80000})
	}
	q := placement.Request{ID: "r", Seed: 1, Now: begin, Tokens: 14000, BlockSize: 64, Excluded: []placement.Key{cs[0].Key}}
	without := placement.Decide(placement.DefaultParams(placement.KV), q, cs, nil)
	q.Overlaps = []placement.Overlap{{Candidate: 0, Blocks: [4]uint32{212, 212, 212, 212}}}
	with := placement.Decide(placement.DefaultParams(placement.KV), q, cs, nil)
	for i := 1; i < len(cs); i++ {
		if with.Scores[i].Cost != without.Scores[i].Cost {
			t.Errorf("worker %d costs %v beside a refused holder, %v without", i+1, with.Scores[i].Cost, without.Scores[i].Cost)
		}
	}
}
