package placement_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/placement"
)

// sides are one worker for prompts and one for answers, both idle and equally fast.
func sides() (prefill, answers placement.Candidate) {
	prefill = placement.Candidate{Key: placement.Key{ID: 1, Epoch: 1}, State: placement.Up, MaxRunning: 16}
	answers = placement.Candidate{Key: placement.Key{ID: 2, Epoch: 1}, State: placement.Up, MaxRunning: 16}
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
		p.Handover = placement.HandoverTime{}.Millis(p.Decode.New)
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

// TestHandoverTime fits what was seen, forgets what it assumed, and is never absurd.
func TestHandoverTime(t *testing.T) {
	var h placement.HandoverTime
	if got := h.Millis(1000); math.Abs(got-8) > 1e-6 {
		t.Errorf("assumed %v ms for 1,000 tokens, want 8", got)
	}
	for i := range 400 {
		n := 100 + i%40*100
		h.Observe(n, 10*time.Millisecond+time.Duration(n)*20*time.Microsecond)
	}
	for n, want := range map[int]float64{0: 10, 1000: 30, 4000: 90} {
		if got := h.Millis(n); math.Abs(got-want) > 1 {
			t.Errorf("%d tokens: got %v ms, want %v", n, got, want)
		}
	}
	for range 1000 { // all alike, and then in no time
		h.Observe(500, 0)
	}
	if got := h.Millis(500); got < 0 || got > 0.5 {
		t.Errorf("got %v ms, want nearly none", got)
	}
	h.Observe(-1, -time.Hour)
	if got := h.Millis(1 << 40); !(got >= 0) || math.IsInf(got, 0) {
		t.Errorf("got %v", got)
	}
}
