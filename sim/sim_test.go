package sim_test

import (
	"fmt"
	"iter"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/sim"
)

// list yields requests.
func list(all ...trace.Request) iter.Seq2[trace.Request, error] {
	return func(yield func(trace.Request, error) bool) {
		for _, q := range all {
			if !yield(q, nil) {
				return
			}
		}
	}
}

// round is a model of round numbers: a prompt takes 10 ms and 0.1 ms a token, a step
// of decoding 5 ms and 1 ms a sequence.
func round() *perfmodel.ClosedForm {
	return &perfmodel.ClosedForm{PrefillFixedSeconds: 10e-3, PrefillSecondsPerToken: 0.1e-3, DecodeFixedSeconds: 5e-3, DecodeSecondsPerSequence: 1e-3}
}

// small is a simulation of workers of round numbers with blocks of 10 tokens.
func small(workers int) sim.Config {
	c := sim.DefaultConfig()
	g := sim.DefaultGroup()
	g.Count, g.Model, g.Blocks = workers, round(), 1000
	c.Fleet, c.BlockSize, c.Check, c.Records = []sim.Group{g}, 10, true, true
	c.Ingress, c.Dispatch, c.Return, c.EventDelay = time.Millisecond, 2*time.Millisecond, 3*time.Millisecond, 4*time.Millisecond
	return c
}

func run(t *testing.T, c sim.Config) *sim.Result {
	t.Helper()
	r, err := sim.Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// hashes are those of blocks of 10 tokens that begin with the given ones.
func hashes(ids ...uint64) []uint64 { return ids }

// times writes when a request was sent, had its first and its last token, and ended,
// in milliseconds, and what of it was cached.
func times(records []bench.Record) string {
	var all []string
	for i := range records {
		r := &records[i]
		ms := func(ns int64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(ns)/1e6), ".0") }
		if r.Error != "" {
			all = append(all, fmt.Sprintf("%d: %s %s %s", r.Index, ms(r.Scheduled), ms(r.End), r.Error))
			continue
		}
		all = append(all, fmt.Sprintf("%d: %s %s %s +%d", r.Index, ms(r.Scheduled), ms(r.First), ms(r.Last), r.Cached))
	}
	return strings.Join(all, "; ")
}

func TestSchedules(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	at := func(n, input, output int, h ...uint64) trace.Request {
		return trace.Request{At: ms(n), Input: input, Output: output, Hashes: h, BlockSize: 10}
	}
	turn := func(session string, delay int, q trace.Request) trace.Request {
		q.Session, q.Delay = session, ms(delay)
		return q
	}
	for _, tt := range []struct {
		name   string
		change func(c *sim.Config)
		trace  []trace.Request
		want   string
	}{
		// It reaches the router at 1 ms and the worker at 3. The prompt takes 10 + 10,
		// each further token 6; the client hears of it 3 later.
		{name: "one", trace: []trace.Request{at(0, 100, 3)}, want: "0: 0 26 38 +0"},
		{name: "one token", trace: []trace.Request{at(0, 100, 1)}, want: "0: 0 26 26 +0"},
		{name: "given up before its first token", trace: []trace.Request{at(0, 100, 0)}, want: "0: 0 26 26 +0"},
		// The second comes at 8 while the prompt of the first is computed, until 23. Then
		// its prompt shares a step with a token of the first: 10 + 10 + 1; after that both
		// decode in 7.
		{name: "two at one worker", trace: []trace.Request{at(0, 100, 4), at(5, 100, 3)}, want: "0: 0 26 61 +0; 1: 5 47 61 +0"},
		// A request in the midst of decoding steps is taken in at the end of the step that
		// is under way: 23, 29, 35, 41 | 46 is within the one until 47.
		{name: "arrival cuts a stretch", trace: []trace.Request{at(0, 100, 20), at(43, 100, 2)}, want: "1: 43 71 78 +0; 0: 0 26 156 +0"},
		{name: "two workers, in turn", change: func(c *sim.Config) { c.Fleet[0].Count = 2 }, trace: []trace.Request{at(0, 100, 4), at(5, 100, 3)}, want: "1: 5 31 43 +0; 0: 0 26 44 +0"},
		// Blocks 1 to 9 are found, and the tenth is computed again for its logits.
		{
			name: "cached prefix", trace: []trace.Request{at(0, 100, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), at(100, 100, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)},
			want: "0: 0 26 26 +0; 1: 100 117 117 +90",
		},
		{
			name: "kv goes to who has it", change: func(c *sim.Config) { c.Fleet[0].Count, c.Policy = 8, placement.DefaultParams(placement.KV) },
			trace: []trace.Request{at(0, 100, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), at(100, 95, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9)}, want: "0: 0 26 26 +0; 1: 100 116.5 116.5 +90",
		},
		// The first answer reaches the client at 26; 50 later the next turn is sent, which
		// the trace has later.
		{name: "session", trace: []trace.Request{turn("a", 0, at(0, 100, 1)), turn("a", 50, at(200, 100, 1))}, want: "0: 0 26 26 +0; 1: 76 102 102 +0"},
		{name: "session without delays", trace: []trace.Request{turn("a", 0, at(0, 100, 1)), turn("a", 0, at(200, 100, 1))}, want: "0: 0 26 26 +0; 1: 200 226 226 +0"},
		{
			name: "waits for two", trace: []trace.Request{
				{Input: 100, Output: 1, BlockSize: 10, ID: "a"}, {Input: 100, Output: 2, BlockSize: 10, ID: "b", At: ms(50)},
				{Input: 100, Output: 1, BlockSize: 10, ID: "c", At: ms(60), After: []string{"a", "b"}, Delay: ms(10)},
			}, want: "0: 0 26 26 +0; 1: 50 76 82 +0; 2: 92 118 118 +0",
		},
		{name: "speedup", change: func(c *sim.Config) { c.Speedup = 10 }, trace: []trace.Request{turn("a", 0, at(0, 100, 1)), turn("a", 500, at(200, 100, 1)), at(2000, 100, 1)}, want: "0: 0 26 26 +0; 1: 76 102 102 +0; 2: 200 226 226 +0"},
		// One runs, one waits at the worker, and two at the router, which has no room for
		// the fifth. The third gets the place of the first when the router hears of its
		// end, at 38; the fourth has waited for 40 by 44.
		{
			name: "full", change: func(c *sim.Config) {
				c.Fleet[0].MaxRunning, c.Fleet[0].MaxQueue, c.Queue, c.Wait = 1, 1, 2, 40*time.Millisecond
			},
			trace: []trace.Request{at(0, 100, 3), at(1, 100, 1), at(2, 100, 1), at(3, 100, 1), at(8, 100, 1)},
			want:  "4: 8 12 exhausted; 0: 0 26 38 +0; 3: 3 47 exhausted; 1: 1 58 58 +0; 2: 2 78 78 +0",
		},
		{name: "too long", trace: []trace.Request{at(0, 10_000, 3), at(0, 9_999, 3)}, want: "0: 0 6 invalid; 1: 0 1025.9 1025.9 +0"},
		{name: "blocks of another size", trace: []trace.Request{
			{Input: 60, Output: 1, BlockSize: 30, Hashes: hashes(1, 2)}, {At: ms(100), Input: 60, Output: 1, BlockSize: 30, Hashes: hashes(1, 3)},
		}, want: "0: 0 22 22 +0; 1: 100 119 119 +30"},
	} {
		for _, stepwise := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stepwise=%v", tt.name, stepwise), func(t *testing.T) {
				c := small(1)
				c.Policy, c.Stepwise = placement.DefaultParams(placement.RoundRobin), stepwise
				if tt.change != nil {
					tt.change(&c)
				}
				c.Trace = list(tt.trace...)
				if got := times(run(t, c).Records); got != tt.want {
					t.Errorf("got\n%s\nwant\n%s", got, tt.want)
				}
			})
		}
	}
}

// shapes are traces of some hundred requests.
func shapes(seed uint64) map[string]trace.Synth {
	all := map[string]trace.Synth{}
	for _, name := range []string{"mooncake-conversation", "mooncake-toolagent", "agents", "documents", "sharegpt"} {
		s, err := trace.Preset(name)
		if err != nil {
			panic(err)
		}
		s.Requests, s.Seed = 120, seed
		s.Arrival.Rate *= 4
		all[name] = s
	}
	return all
}

// fleets are workers of several kinds: plain ones, unequal ones, and ones so small
// that they preempt, evict and refuse.
func fleets() map[string][]sim.Group {
	tight := fleet("h100-8b", 3)
	tight.Blocks, tight.MaxRunning, tight.MaxQueue, tight.StepTokens = 2100, 24, 6, 512
	narrow := fleet("h200-8b", 2)
	narrow.Blocks, narrow.MaxRunning, narrow.MaxQueue = 2500, 256, 1024
	return map[string][]sim.Group{
		"equal": {fleet("h200-8b", 4)}, "unequal": {fleet("h200-8b", 2), fleet("h100-8b", 2)}, "tight": {tight}, "narrow": {narrow},
		"moe": {fleet("h200-r1-tp8", 4)},
	}
}

func TestStepwise(t *testing.T) {
	policies := []placement.Policy{placement.RoundRobin, placement.Random, placement.LeastLoaded, placement.KV, placement.Reference}
	n := 0
	for name, groups := range fleets() {
		for shape, s := range shapes(7) {
			c := sim.DefaultConfig()
			c.Fleet, c.Policy, c.Check, c.Records = groups, placement.DefaultParams(policies[n%len(policies)]), true, true
			n++
			t.Run(fmt.Sprintf("%s/%s/%v", name, shape, c.Policy.Policy), func(t *testing.T) {
				c.Trace = s.All()
				whole := run(t, c)
				c.Trace, c.Stepwise = s.All(), true
				steps := run(t, c)
				if whole.Hash != steps.Hash || whole.Steps != steps.Steps || !reflect.DeepEqual(whole.Records, steps.Records) {
					t.Errorf("outcome %016x after %d steps, stepwise %016x after %d", whole.Hash, whole.Steps, steps.Hash, steps.Steps)
				}
				if !reflect.DeepEqual(whole.Bench.Series, steps.Bench.Series) {
					t.Errorf("the series differ")
				}
			})
		}
	}
}

func TestSameSeed(t *testing.T) {
	s := shapes(1)["mooncake-toolagent"]
	outcome := func(seed uint64) *sim.Result {
		c := sim.DefaultConfig()
		c.Fleet, c.Policy, c.Seed, c.Trace, c.Records = []sim.Group{fleet("h200-8b", 4)}, placement.DefaultParams(placement.Random), seed, s.All(), true
		return run(t, c)
	}
	first, again, other := outcome(1), outcome(1), outcome(2)
	if !reflect.DeepEqual(first, again) {
		t.Errorf("one seed has two outcomes: %016x and %016x", first.Hash, again.Hash)
	}
	if first.Hash == other.Hash {
		t.Errorf("two seeds have one outcome: %016x", first.Hash)
	}
}

// TestFigures checks the sums of a run against its records.
func TestFigures(t *testing.T) {
	c := small(2)
	c.Goodput = map[string]time.Duration{"ttft": 20 * time.Millisecond}
	var all []trace.Request
	for i := range 50 {
		all = append(all, trace.Request{At: time.Duration(i) * 40 * time.Millisecond, Input: 100, Output: 10, Hashes: hashes(1, 2, 3, uint64(i)+10), BlockSize: 25})
	}
	c.BlockSize = 25
	c.Trace = list(all...)
	r := run(t, c)
	input, cached, good, output := 0, 0, 0, 0
	last := int64(0)
	for i := range r.Records {
		rec := &r.Records[i]
		input, cached, output, last = input+rec.Input, cached+rec.Cached, output+rec.Output, max(last, rec.End)
		if rec.TTFT() <= 0.020 {
			good++
		}
	}
	if got, want := r.HitRate, float64(cached)/float64(input); got != want || got == 0 {
		t.Errorf("hit rate %v, want %v", got, want)
	}
	if got, want := r.Bench.Goodput*r.Bench.Duration.Seconds(), float64(good); math.Abs(got-want) > 1e-6 || good == 0 || good == 50 {
		t.Errorf("%v good answers, want %v", got, want)
	}
	if got := r.Bench.Duration; got != time.Duration(last) {
		t.Errorf("duration %v, want %v", got, time.Duration(last))
	}
	tokens, started, finished := 0, 0, 0
	for _, s := range r.Bench.Series {
		tokens, started, finished = tokens+s.Tokens, started+s.Started, finished+s.Finished
	}
	if tokens != output || output != 500 || started != 50 || finished != 50 {
		t.Errorf("the series counts %d tokens of %d, %d and %d requests", tokens, output, started, finished)
	}
	if got := r.Workers[0] + r.Workers[1]; got != 50 {
		t.Errorf("the workers served %d requests, want 50", got)
	}
}

// TestPreempted: who loses its blocks and finds them again has not found its prompt.
func TestPreempted(t *testing.T) {
	c := small(1)
	c.Fleet[0].Blocks = 14
	c.Policy = placement.DefaultParams(placement.RoundRobin)
	c.Trace = list(trace.Request{Input: 40, Output: 80, BlockSize: 10}, trace.Request{Input: 40, Output: 80, BlockSize: 10})
	r := run(t, c)
	if r.Preemptions == 0 {
		t.Error("nobody was preempted; the test tests nothing")
	}
	for i := range r.Records {
		if got := r.Records[i]; got.Cached != 0 || got.Output != 80 {
			t.Errorf("request %d: %d tokens, %d of the prompt cached; want 80 and 0", got.Index, got.Output, got.Cached)
		}
	}
}

// TestUnchained plays a trace whose hashes name a block alone, as no trace's should: a
// block is another one behind another.
func TestUnchained(t *testing.T) {
	at := func(n int, h ...uint64) trace.Request {
		return trace.Request{At: time.Duration(n) * time.Second, Input: 10*len(h) + 5, Output: 25, Hashes: h, BlockSize: 10}
	}
	c := small(1)
	c.Trace = list(at(0, 1, 9, 3), at(1, 2, 9, 3), at(2, 1, 9, 3), at(3, 2, 9, 4), at(4, 9, 1))
	r := run(t, c)
	var cached []int
	for i := range r.Records {
		cached = append(cached, r.Records[i].Cached)
	}
	if want := []int{0, 0, 30, 20, 0}; !reflect.DeepEqual(cached, want) {
		t.Errorf("%v tokens were cached, want %v", cached, want)
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(c *sim.Config)
		want   string
	}{
		{"no trace", func(c *sim.Config) { c.Trace = nil }, "trace is missing"},
		{"empty trace", func(c *sim.Config) { c.Trace = list() }, "no requests"},
		{"no fleet", func(c *sim.Config) { c.Fleet = nil }, "0 workers"},
		{"no worker", func(c *sim.Config) { c.Fleet[0].Count = 0 }, "--fleet"},
		{"speed", func(c *sim.Config) { c.Speedup = math.NaN() }, "--speedup"},
		{"delay", func(c *sim.Config) { c.EventDelay = -1 }, "--event-delay"},
		{"goodput", func(c *sim.Config) { c.Goodput = map[string]time.Duration{"speed": 1} }, "goodput"},
		{"blocks", func(c *sim.Config) { c.Fleet[0].Blocks = 0 }, "KV pool"},
		{"policy", func(c *sim.Config) { c.Policy.Policy = 99 }, "--router-mode"},
		{"trace fails", func(c *sim.Config) {
			c.Trace = func(yield func(trace.Request, error) bool) { yield(trace.Request{}, fmt.Errorf("line 7")) }
		}, "line 7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := small(1)
			c.Trace = list(trace.Request{Input: 10, Output: 1, BlockSize: 10})
			tt.change(&c)
			if _, err := sim.Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
