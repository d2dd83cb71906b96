package placement_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
)

// sides are one worker for prompts and one for answers, both idle and equally fast.
func sides() (prefill, answers placement.Candidate) {
	fast := perfmodel.ClosedForm{PrefillFixedSeconds: 7e-3, PrefillSecondsPerToken: 18e-6, PrefillSecondsPerPair: 1.7e-9, DecodeFixedSeconds: 5e-3, DecodeSecondsPerSequence: 3.5e-6, DecodeSecondsPerKVToken: 45e-9}
	prefill = placement.Candidate{Key: placement.Key{ID: 1, Epoch: 1}, State: placement.Up, MaxRunning: 16, Model: fast}
	answers = placement.Candidate{Key: placement.Key{ID: 2, Epoch: 1}, State: placement.Up, MaxRunning: 16, Model: fast}
	return prefill, answers
}

// quote is what a worker makes of a part of a prompt of which it holds some.
func quote(c placement.Candidate, part placement.Role, tokens, held int) placement.Quote {
	r := placement.Request{Role: part, Now: time.Unix(1000, 0), Tokens: tokens, BlockSize: 16, Expected: 100}
	if held > 0 {
		n := uint32(held / 16)
		r.Overlaps = []placement.Overlap{{Candidate: 0, Blocks: [4]uint32{n, n, n, n}}}
	}
	d := placement.Decide(placement.DefaultParams(placement.KV), r, []placement.Candidate{c}, nil)
	return d.Quote()
}

// TestSplit: a prompt is computed apart where that spares those whose answers run more
// than its KV takes on the way.
func TestSplit(t *testing.T) {
	busy := func(c *placement.Candidate) { c.Booked, c.KVTokens = 12, 12_000 }
	queued := func(c *placement.Candidate) {
		c.Booked, c.Prefills, c.PrefillTokens, c.PrefillSince = 8, 8, 200_000, time.Unix(1000, 0)
	}
	full := func(c *placement.Candidate) { c.State = placement.Draining }
	for _, c := range []struct {
		name             string
		tokens, held     int // of the prompt, and of that where answers are
		prefill, answers func(*placement.Candidate)
		mode             placement.SplitMode
		asked            dynamo.RoutingMode
		apart            bool
		reason           placement.SplitReason
	}{
		{name: "nobody is at work", tokens: 4000, reason: placement.SplitByCost},
		{name: "answers run", tokens: 4000, answers: busy, apart: true, reason: placement.SplitByCost},
		{name: "a short prompt", tokens: 20, answers: busy, reason: placement.SplitShort},
		{name: "it is held where answers run", tokens: 4000, held: 3984, answers: busy, reason: placement.SplitShort},
		{name: "prompts wait for the prefill worker", tokens: 4000, prefill: queued, answers: busy, reason: placement.SplitByCost},
		{name: "no prefill worker", tokens: 4000, prefill: full, answers: busy, reason: placement.SplitNoPrefill},
		{name: "no worker for answers", tokens: 4000, answers: full, apart: true, reason: placement.SplitNoDecode},
		{name: "always", tokens: 20, mode: placement.SplitAlways, apart: true, reason: placement.SplitByMode},
		{name: "never", tokens: 4000, answers: busy, mode: placement.SplitNever, reason: placement.SplitByMode},
		{name: "asked for", tokens: 20, mode: placement.SplitNever, asked: dynamo.RoutingDisaggregated, apart: true, reason: placement.SplitByRequest},
		{name: "refused", tokens: 4000, mode: placement.SplitAlways, asked: dynamo.RoutingAggregated, reason: placement.SplitByRequest},
	} {
		prefill, answers := sides()
		if c.prefill != nil {
			c.prefill(&prefill)
		}
		if c.answers != nil {
			c.answers(&answers)
		}
		p := placement.Parts{
			Mode: c.mode, Asked: c.asked, Prefill: quote(prefill, placement.Prefill, c.tokens, 0),
			Whole: quote(answers, placement.Whole, c.tokens, c.held), Decode: quote(answers, placement.Decode, c.tokens, c.held),
		}
		p.Handover = new(placement.HandoverTimes).Millis(placement.Pair{}, p.Decode.New)
		s := placement.DecideSplit(&p)
		if s.Apart != c.apart || s.Reason != c.reason {
			t.Errorf("%s: got %v, %v: %s", c.name, s.Apart, s.Reason, s.Words())
		}
		if says := strings.Contains(s.Words(), "apart"); says != c.apart {
			t.Errorf("%s: the words are %q", c.name, s.Words())
		}
		if again := placement.DecideSplit(&p); again != s {
			t.Errorf("%s: decided once more: %+v, %+v", c.name, again, s)
		}
	}
	if none := (placement.Split{}); none.Words() != "" {
		t.Errorf("undecided: %q", none.Words())
	}
}

func TestParseSplitMode(t *testing.T) {
	for _, m := range []placement.SplitMode{placement.SplitAuto, placement.SplitAlways, placement.SplitNever} {
		if got, err := placement.ParseSplitMode(m.String()); got != m || err != nil {
			t.Errorf("%v: got %v, %v", m, got, err)
		}
	}
	if _, err := placement.ParseSplitMode("sometimes"); dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("got %v", err)
	}
}

// TestHandoverTimes fits what was seen, forgets what it assumed, and is never absurd.
func TestHandoverTimes(t *testing.T) {
	var h placement.HandoverTimes
	near, far, other := placement.Pair{Prefill: 1, Decode: 2}, placement.Pair{Prefill: 1, Decode: 3}, placement.Pair{Prefill: 4, Decode: 5}
	if got := h.Millis(near, 1000); math.Abs(got-8) > 1e-6 {
		t.Errorf("assumed %v ms for 1,000 tokens, want 8", got)
	}
	wants := func(p placement.Pair, within float64, all map[int]float64) {
		t.Helper()
		for n, want := range all {
			if got := h.Millis(p, n); math.Abs(got-want) > within {
				t.Errorf("%v: %d tokens: got %v ms, want %v", p, n, got, want)
			}
		}
	}
	seen := func(p placement.Pair, i int, fixed, each time.Duration) {
		n := 100 + i%40*100
		h.Observe(p, n, fixed+time.Duration(n)*each)
	}
	for i := range 400 {
		seen(near, i, 10*time.Millisecond, 20*time.Microsecond)
	}
	wants(near, 1, map[int]float64{0: 10, 1000: 30, 4000: 90})
	wants(far, 1, map[int]float64{0: 10, 1000: 30, 4000: 90}) // by what others have seen
	for i := range 40 {
		seen(far, 17*i, 50*time.Millisecond, 200*time.Microsecond)
		seen(near, 17*i, 10*time.Millisecond, 20*time.Microsecond)
	}
	wants(near, 4, map[int]float64{0: 10, 1000: 30, 4000: 90})
	wants(far, 40, map[int]float64{0: 50, 1000: 250, 4000: 850})
	if got := h.Millis(other, 1000); got < 60 || got > 230 {
		t.Errorf("of two who have seen nothing of each other: got %v ms, want something between 30 and 250", got)
	}
	for range 1000 { // all alike, and then in no time
		h.Observe(near, 500, 0)
	}
	if got := h.Millis(near, 500); got < 0 || got > 0.5 {
		t.Errorf("got %v ms, want nearly none", got)
	}
	h.Observe(near, -1, -time.Hour)
	if got := h.Millis(near, 1<<40); !(got >= 0) || math.IsInf(got, 0) {
		t.Errorf("got %v", got)
	}
	before := h.Millis(far, 1000)
	for i := range dynamo.WorkerID(5000) { // as many are not remembered
		h.Observe(placement.Pair{Prefill: 100, Decode: 100 + i}, 500, time.Millisecond)
		if i%100 == 0 {
			h.Observe(near, 500, time.Second)
		}
	}
	if got := h.Millis(far, 1000); got > before/2 {
		t.Errorf("got %v ms for a pair that is long forgotten, which had %v", got, before)
	}
	if got := h.Millis(near, 500); got < 500 {
		t.Errorf("got %v ms for a pair that is seen all the time, want 1000", got)
	}
}

// TestSplitUnknown: as long as it is not known how fast the workers are, a prompt stays
// where nothing runs and goes away from where answers run, whatever its KV is thought to
// take.
func TestSplitUnknown(t *testing.T) {
	for _, c := range []struct {
		name            string
		booked, queued  int // answers at the one, prompts at the other
		handover        float64
		prefill, answer bool // known
		apart           bool
		reason          placement.SplitReason
	}{
		{"idle", 0, 0, 0, false, false, false, placement.SplitUnknown},
		{"answers run", 12, 0, 1e6, false, false, true, placement.SplitUnknown},
		{"answers run, one is known", 12, 0, 1e6, true, false, true, placement.SplitUnknown},
		{"answers run, the other is known", 12, 0, 1e6, false, true, true, placement.SplitUnknown},
		{"prompts wait elsewhere", 12, 8, 0, false, false, false, placement.SplitUnknown},
		{"both are known", 12, 0, 1e6, true, true, false, placement.SplitByCost},
	} {
		prefill, answers := sides()
		answers.Booked, answers.KVTokens = c.booked, c.booked*1000
		if c.queued > 0 {
			prefill.Booked, prefill.Prefills, prefill.PrefillTokens, prefill.PrefillSince = c.queued, c.queued, 400_000, time.Unix(1000, 0)
		}
		for cand, known := range map[*placement.Candidate]bool{&prefill: c.prefill, &answers: c.answer} {
			if !known {
				cand.Model = perfmodel.ClosedForm{}
			}
		}
		p := placement.Parts{
			Handover: c.handover, Prefill: quote(prefill, placement.Prefill, 4000, 0),
			Whole: quote(answers, placement.Whole, 4000, 0), Decode: quote(answers, placement.Decode, 4000, 0),
		}
		if s := placement.DecideSplit(&p); s.Apart != c.apart || s.Reason != c.reason {
			t.Errorf("%s: got %v, %v: %s", c.name, s.Apart, s.Reason, s.Words())
		}
	}
}
