package trace_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
)

func preset(t testing.TB, name string) trace.Synth {
	t.Helper()
	s, err := trace.Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func describe(t testing.TB, s *trace.Synth) trace.Description {
	t.Helper()
	d, err := trace.Describe(s.All(), trace.DescribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPresets compares what is made with what was published.
func TestPresets(t *testing.T) {
	for _, c := range []struct {
		name                string
		requests            int
		seconds             float64 // 0 is unknown
		input, output, hits float64
	}{
		{"mooncake-conversation", 12031, 3536, 12035, 343, 0.40},
		{"mooncake-toolagent", 23608, 3536, 8596, 182, 0.59},
		{"mooncake-synthetic", 3993, 0, 15325, 149, 0.66},
		{"sharegpt", 10000, 0, 161, 338, 0},
		{"documents", 6448, 0, 25700, 0, 0.88},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := preset(t, c.name)
			d := describe(t, &s)
			for _, v := range []struct {
				what           string
				got, want, far float64
			}{
				{"requests", float64(d.Requests), float64(c.requests), 0},
				{"mean input", d.Input.Mean, c.input, 0.05 * c.input},
				{"mean output", d.Output.Mean, c.output, 0.07 * c.output},
				{"block hit rate", d.IdealBlockRate, c.hits, 0.025},
				{"seconds", d.Seconds, c.seconds, 0.1 * c.seconds},
			} {
				if v.want == 0 && v.what != "block hit rate" {
					continue
				}
				if math.Abs(v.got-v.want) > v.far {
					t.Errorf("%s: %.4g, published %.4g", v.what, v.got, v.want)
				}
			}
		})
	}
}

func TestAgents(t *testing.T) {
	s := preset(t, "agents")
	s.Requests = 3000
	d := describe(t, &s)
	if ratio := float64(d.InputTokens) / float64(d.OutputTokens); ratio < 105 || ratio > 160 {
		t.Errorf("%.0f tokens of input for each of output; published 131", ratio)
	}
	if d.IdealHitRate < 0.9 {
		t.Errorf("ideal hit rate %.3f; agents say little new", d.IdealHitRate)
	}
	ids := map[string]trace.Request{}
	joins, forks := 0, 0
	at30, n30 := 0, 0
	for q, err := range s.All() {
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range q.After {
			before, there := ids[w]
			if !there {
				t.Fatalf("request %s waits for %s, which has not come", q.ID, w)
			}
			if end := before.At + time.Duration(before.Output)*s.Pace; q.At < end {
				t.Errorf("request %s comes at %v, before the end of %s at %v", q.ID, q.At, w, end)
			}
		}
		if len(q.After) > 0 && q.Turn == 0 {
			forks++
		} else if len(q.After) > 0 {
			joins++
		}
		if q.Turn == 30 && !strings.Contains(q.Session, "-") {
			at30, n30 = at30+q.Input, n30+1
		}
		ids[q.ID] = q
	}
	if forks < 10 || joins < 4 || joins > forks {
		t.Errorf("%d sub-agents and %d turns that waited for them", forks, joins)
	}
	if mean := at30 / max(n30, 1); mean < 65_000 || mean > 95_000 {
		t.Errorf("%d tokens at turn 30; published about 80,000", mean)
	}
}

func TestSynthDeterministic(t *testing.T) {
	s := preset(t, "agents")
	s.Requests = 400
	a, b := collect(t, s.All()), collect(t, s.All())
	same(t, a, b)
	for i := 1; i < len(a); i++ {
		if a[i].At < a[i-1].At {
			t.Fatalf("request %d at %v comes before %v", i, a[i].At, a[i-1].At)
		}
	}
	s.Seed = 2
	if written(t, trace.FormatDynamo, collect(t, s.All())) == written(t, trace.FormatDynamo, a) {
		t.Error("another seed made the same trace")
	}
	s.Seed, s.Requests, s.Duration = 1, 0, a[200].At
	same(t, collect(t, s.All())[:200], a[:200])
}

func TestArrivals(t *testing.T) {
	for _, c := range []struct {
		arrival trace.Arrival
		cv      float64
	}{
		{trace.Arrival{Process: trace.ArrivalPoisson, Rate: 50}, 1},
		{trace.Arrival{Process: trace.ArrivalConstant, Rate: 50}, 0},
		{trace.Arrival{Process: trace.ArrivalGamma, Rate: 50, CV: 3}, 3},
		{trace.Arrival{Process: trace.ArrivalGamma, Rate: 50, CV: 0.3}, 0.3},
	} {
		var sum, square, last float64
		n := 0.0
		for at := range c.arrival.Times(3) {
			gap := at.Seconds() - last
			last = at.Seconds()
			sum, square, n = sum+gap, square+gap*gap, n+1
			if n == 40_000 {
				break
			}
		}
		mean := sum / n
		cv := math.Sqrt(max(0, square/n-mean*mean)) / mean
		if math.Abs(mean*50-1) > 0.05 || math.Abs(cv-c.cv) > 0.08*c.cv+0.01 {
			t.Errorf("%+v: mean gap %.4f s, CV %.3f", c.arrival, mean, cv)
		}
	}
	count := func(a trace.Arrival, from, to float64) (n int) {
		for at := range a.Times(5) {
			if at.Seconds() >= to {
				return n
			}
			if at.Seconds() >= from {
				n++
			}
		}
		return n
	}
	ramp := trace.Arrival{Process: trace.ArrivalRamp, Rate: 10, To: 100, Period: 100 * time.Second}
	sine := trace.Arrival{Process: trace.ArrivalSine, Rate: 50, Amplitude: 0.8, Period: 100 * time.Second}
	for _, c := range []struct {
		name     string
		got, due int
	}{
		{"ramp, first half", count(ramp, 0, 50), 1625}, {"ramp, second half", count(ramp, 50, 100), 3875}, {"ramp, after", count(ramp, 100, 150), 5000},
		{"sine, high half", count(sine, 0, 50), 2500 + 1273}, {"sine, low half", count(sine, 50, 100), 2500 - 1273},
	} {
		if math.Abs(float64(c.got-c.due)) > 4*math.Sqrt(float64(c.due)) {
			t.Errorf("%s: %d arrivals, want about %d", c.name, c.got, c.due)
		}
	}
}

func TestSynthValidate(t *testing.T) {
	s := preset(t, "agents")
	s.Requests, s.BlockSize, s.Turns, s.Arrival.Rate, s.Tree.Share = 0, 0, 0, 0, 2
	_, err := lastError(s.All())
	if err == nil {
		t.Fatal("no error")
	}
	for _, flag := range []string{"--requests", "--block-size", "--turns", "--rate", "--share"} {
		if !strings.Contains(err.Error(), flag) {
			t.Errorf("%v does not name %s", err, flag)
		}
	}
	s = preset(t, "agents")
	s.Follow = trace.Lengths{Mean: 100} // which would all be 0
	if _, err := lastError(s.All()); err == nil || !strings.Contains(err.Error(), "median 0, mean 100") {
		t.Errorf("a mean without a median: %v", err)
	}
	if _, err := trace.Preset("none"); dynamo.KindOf(err) != dynamo.KindNotFound {
		t.Errorf("an unknown preset: %v", err)
	}
}

func TestTree(t *testing.T) {
	s := preset(t, "sharegpt")
	s.Requests, s.BlockSize = 2000, 16
	s.Tree = trace.Tree{System: 32, Share: 1, Roots: 50, Depth: 3, Branching: 4, Zipf: 1.2, Node: trace.Lengths{Median: 160, Mean: 160}}
	d := describe(t, &s)
	if d.Skew.Roots != 1 {
		t.Errorf("%d first blocks; all begin with the system prompt", d.Skew.Roots)
	}
	if d.IdealHitRate < 0.6 {
		t.Errorf("ideal hit rate %.2f; most of a prompt is shared", d.IdealHitRate)
	}
	s.Tree.System, s.Tree.Share = 0, 0.5
	d = describe(t, &s)
	if d.Skew.Roots < 1000 || math.Abs(d.Skew.Zipf-1.2) > 0.25 {
		t.Errorf("%d first blocks, exponent %.2f; want some 1,050 and 1.2", d.Skew.Roots, d.Skew.Zipf)
	}
}

func TestLike(t *testing.T) {
	for _, name := range []string{"mooncake-conversation", "mooncake-toolagent"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := preset(t, name)
			s.Requests = 3000
			original := describe(t, &s)
			m, err := trace.Learn(s.All())
			if err != nil {
				t.Fatal(err)
			}
			if !m.Whole() || m.Requests() != 3000 {
				t.Errorf("learned from %d requests, whole %v", m.Requests(), m.Whole())
			}
			d, err := trace.Describe(m.Like(trace.LikeOptions{Seed: 7, Requests: 6000, Speedup: 2}), trace.DescribeOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range []struct {
				what           string
				got, want, far float64
			}{
				{"requests", float64(d.Requests), 6000, 0},
				{"rate", d.Rate, 2 * original.Rate, 0.2 * original.Rate},
				{"input", d.Input.Mean, original.Input.Mean, 0.06 * original.Input.Mean},
				{"output", d.Output.Mean, original.Output.Mean, 0.06 * original.Output.Mean},
				{"hits", d.IdealHitRate, original.IdealHitRate, 0.04},
			} {
				if math.Abs(v.got-v.want) > v.far {
					t.Errorf("%s: %.4g, want %.4g", v.what, v.got, v.want)
				}
			}
			a := trace.Arrival{Process: trace.ArrivalConstant, Rate: 5}
			d, err = trace.Describe(m.Like(trace.LikeOptions{Requests: 3000, Arrival: &a}), trace.DescribeOptions{})
			if err != nil || math.Abs(d.Rate/5-1) > 0.2 {
				t.Errorf("at 5 requests a second: %.1f, error %v", d.Rate, err)
			}
		})
	}
	if _, err := trace.Learn(func(func(trace.Request, error) bool) {}); err == nil {
		t.Error("an empty original: no error")
	}
}

// lru is the definition of the cache that reuse stands for.
type lru struct {
	size  int
	order []uint64 // most recently used first
}

func (c *lru) add(q trace.Request) (found int) {
	hit := true
	for i, h := range q.Hashes {
		if hit = hit && slices.Contains(c.order, h); hit {
			found += min(q.BlockSize, q.Input-i*q.BlockSize)
		}
	}
	for _, h := range slices.Backward(q.Hashes) {
		if i := slices.Index(c.order, h); i >= 0 {
			c.order = slices.Delete(c.order, i, i+1)
		}
		c.order = slices.Insert(c.order, 0, h)
	}
	c.order = c.order[:min(len(c.order), c.size)]
	return found
}

func TestCurve(t *testing.T) {
	s := preset(t, "mooncake-toolagent")
	s.Requests, s.BlockSize, s.Tree.Roots, s.Turns = 400, 512, 12, 2
	all := collect(t, s.All())
	// Two that are no chains: found is the beginning only, and a block is as old as
	// those before it.
	last, end := all[len(all)-1], all[len(all)-1].At
	all = append(all, trace.Request{At: end, Input: 1024, BlockSize: 512, Hashes: []uint64{99, last.Hashes[0]}}, trace.Request{At: end, Input: 1024, BlockSize: 512, Hashes: []uint64{all[0].Hashes[1], last.Hashes[0]}})
	sizes := []int64{1, 5, 20, 60, 150, 400, 1000, 100_000}
	text := written(t, trace.FormatDynamo, all)
	d, err := trace.Describe(trace.Read(strings.NewReader(text), trace.Options{}), trace.DescribeOptions{CacheBlocks: sizes})
	if err != nil {
		t.Fatal(err)
	}
	for i, size := range sizes {
		c := lru{size: int(size)}
		found := 0
		for _, q := range all {
			found += c.add(q)
		}
		if want := float64(found) / float64(d.InputTokens); math.Abs(d.Curve[i].HitRate-want) > 1e-9 {
			t.Errorf("a cache of %d blocks: %.6f, want %.6f", size, d.Curve[i].HitRate, want)
		}
	}
	if last := d.Curve[len(d.Curve)-1].HitRate; last != d.IdealHitRate {
		t.Errorf("a huge cache finds %.4f, an ideal one %.4f", last, d.IdealHitRate)
	}
	if d.Blocks90 >= d.Blocks99 || d.Partial {
		t.Errorf("90 %% of ideal in %d blocks, 99 %% in %d, partial %v", d.Blocks90, d.Blocks99, d.Partial)
	}
	few, err := trace.Describe(trace.Read(strings.NewReader(text), trace.Options{}), trace.DescribeOptions{CacheBlocks: sizes, MaxBlocks: 800})
	if err != nil {
		t.Fatal(err)
	}
	if !few.Partial || few.IdealHitRate > d.IdealHitRate {
		t.Errorf("with 800 blocks remembered: partial %v, ideal %.4f of %.4f", few.Partial, few.IdealHitRate, d.IdealHitRate)
	}
	for i, size := range sizes[:6] { // up to half the limit nothing is lost
		if few.Curve[i] != d.Curve[i] {
			t.Errorf("with 800 blocks remembered, a cache of %d: %v, want %v", size, few.Curve[i], d.Curve[i])
		}
	}
}

func TestDescribe(t *testing.T) {
	d, err := trace.Describe(open(t, "testdata/mooncake.jsonl"), trace.DescribeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Found: block 0 twice, and 12 blocks of the last request.
	if want := float64(14) / 48; d.Blocks != 48 || d.Distinct != 34 || math.Abs(d.IdealBlockRate-want) > 1e-9 {
		t.Errorf("%d blocks, %d distinct, hits %.3f; want 48, 34, %.3f", d.Blocks, d.Distinct, d.IdealBlockRate, want)
	}
	if d.Requests != 5 || d.Input.Max != 6955 || d.Input.Min != 915 || d.Seconds != 30.535 || d.PeakRate != 0.3 {
		t.Errorf("got %+v", d)
	}
}
