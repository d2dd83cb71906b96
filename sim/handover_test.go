package sim_test

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/sim"
)

// apart is a simulation of round numbers with prefill and decode workers. A token's KV
// is a kilobyte, and a megabyte a second comes to each worker.
func apart(prefill, decode int) sim.Config {
	c := small(1)
	first, second := c.Fleet[0], c.Fleet[0]
	first.Count, first.Role, first.KVBytesPerToken = prefill, placement.Prefill, 1000
	second.Count, second.Role = decode, placement.Decode
	c.Fleet = []sim.Group{first, second}
	c.Policy, c.Split, c.TransferBandwidth = placement.DefaultParams(placement.RoundRobin), placement.SplitAlways, 1e6
	return c
}

func TestHandoverSchedules(t *testing.T) {
	at := func(n, input, output int, h ...uint64) trace.Request {
		return trace.Request{At: time.Duration(n) * time.Millisecond, Input: input, Output: output, Hashes: h, BlockSize: 10}
	}
	all := []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for _, tt := range []struct {
		name   string
		change func(c *sim.Config)
		trace  []trace.Request
		want   string
		moved  float64
	}{
		// The prompt is computed at 23, as by one worker, and the router hears of it at 26.
		// The decode worker has the request at 28 and its KV 100 later; the second token takes
		// 6, as do all after it.
		{name: "one", trace: []trace.Request{at(0, 100, 3)}, want: "0: 0 26 143 +0", moved: 1e5},
		{name: "two tokens", trace: []trace.Request{at(0, 100, 2)}, want: "0: 0 26 137 +0", moved: 1e5},
		{name: "one token is not handed over", trace: []trace.Request{at(0, 100, 1)}, want: "0: 0 26 26 +0"},
		{name: "in no time", change: func(c *sim.Config) { c.TransferBandwidth = 0 }, trace: []trace.Request{at(0, 100, 3)}, want: "0: 0 26 43 +0", moved: 1e5},
		// The first token fills a block of the decode worker's.
		{name: "at the end of a block", trace: []trace.Request{at(0, 99, 13)}, want: "0: 0 25.9 201.9 +0", moved: 0.99e5},
		// The second prompt is computed from 23 to 43, and handed over at 48, when the first
		// has had 20 of its 100 ms. Both share what comes: the first is there at 208, and the
		// second, of which 20 are left, at 228, in the last step of the first, until 232.
		{name: "two share the link", trace: []trace.Request{at(0, 100, 5), at(1, 100, 2)}, want: "0: 0 26 235 +0; 1: 1 46 241 +0", moved: 2e5},
		// Nine of the blocks are at the prefill worker when the second comes, and ten at the
		// decode worker: nothing is to be brought. It takes the first token of the answer for
		// one of a prompt, as the mocker does: 10.1.
		{name: "held by both", trace: []trace.Request{at(0, 100, 2, all...), at(500, 100, 2, all...)}, want: "0: 0 26 137 +0; 1: 500 517 532.1 +90", moved: 1e5},
		// Of 200 tokens the decode worker has 100, and takes 200 or the rest of them.
		{name: "the whole prompt", trace: []trace.Request{at(0, 100, 2, all...), at(500, 200, 2, all...)}, want: "0: 0 26 137 +0; 1: 500 526 737 +100", moved: 3e5},
		{
			name: "the missing part", change: func(c *sim.Config) { c.TransferMissing = true },
			trace: []trace.Request{at(0, 100, 2, all...), at(500, 200, 2, all...)}, want: "0: 0 26 137 +0; 1: 500 526 637 +100", moved: 2e5,
		},
		{name: "never", change: func(c *sim.Config) { c.Split = placement.SplitNever }, trace: []trace.Request{at(0, 100, 3)}, want: "0: 0 26 38 +0"},
		// The prefill worker takes two requests; the third waits from 3 to 8 and is served
		// whole, from 10 to 36. The KV of the first is asked for at 30 and there at 212, that
		// of the second from 48 to 230.
		{
			name: "no room to compute the prompt", change: func(c *sim.Config) { c.Fleet[0].MaxRunning, c.Fleet[0].MaxQueue, c.Wait = 1, 1, 5*time.Millisecond },
			trace: []trace.Request{at(0, 100, 2), at(1, 100, 2), at(2, 100, 2)}, want: "2: 2 33 39 +0; 0: 0 26 221 +0; 1: 1 46 239 +0", moved: 2e5,
		},
	} {
		for _, stepwise := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stepwise=%v", tt.name, stepwise), func(t *testing.T) {
				c := apart(1, 1)
				c.Stepwise = stepwise
				if tt.change != nil {
					tt.change(&c)
				}
				c.Trace = list(tt.trace...)
				r := run(t, c)
				if got := times(r.Records); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", got, tt.want)
				}
				if got := r.Handovers.Bytes; got != tt.moved {
					t.Errorf("%v bytes were moved, want %v", got, tt.moved)
				}
			})
		}
	}
}

// TestHandoverStepwise: an outcome is the same however it is come by, in fleets of all
// kinds of ratios and with pools so small that requests are refused and preempted.
func TestHandoverStepwise(t *testing.T) {
	policies := []placement.Policy{placement.RoundRobin, placement.LeastLoaded, placement.KV, placement.Reference}
	modes := []placement.SplitMode{placement.SplitAlways, placement.SplitAuto}
	n, moved, whole, fell := 0, 0, 0, 0
	for name, groups := range map[string][2]sim.Group{
		"1P3D": {fleet("h200-8b", 1), fleet("h200-8b", 3)}, "3P1D": {fleet("h200-8b", 3), fleet("h200-8b", 1)},
		"unequal": {fleet("h100-8b", 2), fleet("h200-8b", 2)}, "tight": {tight(), tight()},
	} {
		for shape, s := range shapes(3) {
			c := sim.DefaultConfig()
			s.Requests = 50
			groups[0].Role, groups[1].Role = placement.Prefill, placement.Decode
			c.Fleet, c.Check, c.Records = groups[:], true, true
			c.Policy, c.Split = placement.DefaultParams(policies[n%len(policies)]), modes[n%3%2]
			c.TransferBandwidth = []float64{2e9, 64e9, 0}[n%3]
			n++
			t.Run(fmt.Sprintf("%s/%s/%v/%v", name, shape, c.Policy.Policy, c.Split), func(t *testing.T) {
				c.Trace = s.All()
				stretched := run(t, c)
				c.Trace, c.Stepwise = s.All(), true
				steps := run(t, c)
				if stretched.Hash != steps.Hash || !reflect.DeepEqual(stretched.Records, steps.Records) || !reflect.DeepEqual(stretched.Handovers, steps.Handovers) {
					t.Errorf("outcome %016x, %+v; stepwise %016x, %+v", stretched.Hash, stretched.Handovers, steps.Hash, steps.Handovers)
				}
				c.Trace, c.Stepwise, c.Check, c.Again = s.All(), false, false, true
				if got := run(t, c); got.Hash != stretched.Hash {
					t.Errorf("outcome %016x when the index is told of what is shared, %016x of all", got.Hash, stretched.Hash)
				}
				h := stretched.Handovers
				moved, whole, fell = moved+h.Apart, whole+h.Whole, fell+h.Fallback
			})
		}
	}
	if moved == 0 || whole == 0 || fell == 0 {
		t.Errorf("%d requests were served apart, %d whole, %d after a failure; one is not tested", moved, whole, fell)
	}
}

// tight are workers that refuse and preempt.
func tight() sim.Group {
	g := fleet("h100-8b", 2)
	g.Blocks, g.MaxRunning, g.MaxQueue, g.StepTokens = 2100, 24, 6, 512
	return g
}

// TestHandoverLost: KV that does not come while it is kept is computed again.
func TestHandoverLost(t *testing.T) {
	c := apart(1, 1)
	c.TransferBandwidth = 100 // a prompt takes 1000 s, and is kept for 300
	var all []trace.Request
	for i := range 40 {
		all = append(all, trace.Request{At: time.Duration(i) * 20 * time.Second, Input: 100, Output: 3, BlockSize: 10})
	}
	c.Trace = list(all...)
	r := run(t, c)
	if h := r.Handovers; h.Lost == 0 || h.Apart != 40 || r.Bench.Requests != 40 {
		t.Errorf("%d answers of 40; %+v", r.Bench.Requests, h)
	}
}

// TestHandoverConserves: each request has its tokens, whoever served it.
func TestHandoverConserves(t *testing.T) {
	c := apart(2, 3)
	c.Split = placement.SplitAuto
	var all []trace.Request
	for i := range 200 {
		all = append(all, trace.Request{At: time.Duration(7*i) * time.Millisecond, Input: 1 + i*7%300, Output: 1 + i%23, BlockSize: 10})
	}
	c.Trace = list(all...)
	r := run(t, c)
	for i := range r.Records {
		rec := &r.Records[i]
		if rec.Error != "" || rec.Output != rec.Index%23+1 {
			t.Errorf("request %d: %d tokens, %s", rec.Index, rec.Output, rec.Error)
		}
	}
	h := r.Handovers
	// Those of one token end where their prompts are computed.
	if h.Apart+h.Whole > 200 || h.Apart == 0 || h.Whole == 0 || h.Transfer.Count > h.Apart || h.Gap.Count != h.Apart {
		t.Errorf("%+v", h)
	}
}

func TestHandoverRefusals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *sim.Config)
		want   string
	}{
		{"nobody answers", func(c *sim.Config) { c.Fleet = c.Fleet[:1] }, "nobody goes on"},
		{"bandwidth", func(c *sim.Config) { c.TransferBandwidth = math.NaN() }, "--kv-transfer-bandwidth"},
		{"bytes", func(c *sim.Config) { c.Fleet[0].KVBytesPerToken = -1 }, "KV of a token"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := apart(1, 1)
			c.Trace = list(trace.Request{Input: 10, Output: 1, BlockSize: 10})
			tt.change(&c)
			if _, err := sim.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
