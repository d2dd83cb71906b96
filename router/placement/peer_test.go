package placement_test

import (
	"math"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
)

// borrowing is a decision between a worker that holds most of a prompt of 1000 tokens, and
// one whose model is known, and that holds few of them.
func borrowing(change func(*placement.Request, []placement.Candidate)) placement.Decision {
	model := perfmodel.ClosedForm{PrefillFixedSeconds: 1e-3, PrefillSecondsPerToken: 1e-4, DecodeFixedSeconds: 1e-3}
	all := make([]placement.Candidate, 2)
	for i := range all {
		all[i] = placement.Candidate{Key: placement.Key{ID: dynamo.WorkerID(i + 1)}, State: placement.Up, Model: model, Timed: true}
	}
	q := placement.Request{
		Now: time.Unix(1e6, 0), Tokens: 1000, BlockSize: 16, Expected: 10, Pin: placement.Pin{ID: 2},
		Overlaps: []placement.Overlap{{Candidate: 0, Blocks: [4]uint32{60, 60, 60, 60}}, {Candidate: 1, Blocks: [4]uint32{10, 10, 10, 10}}},
		Peer:     placement.Peer{Candidate: 0, Blocks: 60, Seconds: 3e-3, SecondsPerToken: 5e-6},
	}
	if change != nil {
		change(&q, all)
	}
	return placement.Decide(placement.DefaultParams(placement.KV), q, all, nil)
}

// TestFetch decides what a worker fetches of what another holds: what takes longer to
// compute than to fetch, if it is not little, and between workers of one kind.
func TestFetch(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*placement.Request, []placement.Candidate)
		lacks  int
	}{
		"most":              {nil, 800},
		"nobody lends":      {func(q *placement.Request, _ []placement.Candidate) { q.Peer = placement.Peer{} }, 0},
		"the holder":        {func(q *placement.Request, _ []placement.Candidate) { q.Pin.ID = 1 }, 0},
		"another kind":      {func(_ *placement.Request, all []placement.Candidate) { all[0].Kind = 1 }, 0},
		"a slow link":       {func(q *placement.Request, _ []placement.Candidate) { q.Peer.SecondsPerToken = 1e-4 }, 0},
		"a slow start":      {func(q *placement.Request, _ []placement.Candidate) { q.Peer.Seconds = 0.1 }, 0},
		"held in a tier":    {func(q *placement.Request, _ []placement.Candidate) { q.Overlaps[1].Blocks[2] = 57 }, 0},
		"too few":           {func(q *placement.Request, _ []placement.Candidate) { q.Overlaps[1].Blocks[0] = 57 }, 0},
		"few":               {func(q *placement.Request, _ []placement.Candidate) { q.Overlaps[1].Blocks = [4]uint32{56, 56, 56, 56} }, 64},
		"all of it":         {func(q *placement.Request, _ []placement.Candidate) { q.Peer.Blocks = 1 << 31 }, 999 - 160},
		"nobody there":      {func(q *placement.Request, _ []placement.Candidate) { q.Peer.Candidate = 9 }, 0},
		"nobody may":        {func(q *placement.Request, _ []placement.Candidate) { q.Pin.ID = 3 }, 0},
		"prompts not timed": {func(q *placement.Request, all []placement.Candidate) { all[1].Timed, q.Peer.Seconds = false, 9 }, 800},
		"speeds not known": {func(q *placement.Request, all []placement.Candidate) {
			all[1].Model = perfmodel.ClosedForm{}
			q.Peer.Seconds = 9
		}, 800},
	} {
		t.Run(name, func(t *testing.T) {
			d := borrowing(c.change)
			f, ok := d.Fetch()
			if ok != (c.lacks > 0) || f.Lacks != c.lacks || ok && (f.From != 0 || f.Tokens-f.Lacks != 160 && c.lacks != 64 || !(f.Seconds > 0) || !(f.Saves > 0)) {
				t.Errorf("got %+v, %v; want %d fetched", f, ok, c.lacks)
			}
			if d.Winner == placement.None {
				return
			}
			if again := d.Again(); again != d.Winner {
				t.Errorf("made again the decision is for %d, not %d", again, d.Winner)
			}
			if load := d.Terms(d.Winner).Load; ok && math.Abs(load-1e3*f.Seconds) > 1e-9 {
				t.Errorf("the load costs %v ms, want %v", load, 1e3*f.Seconds)
			}
		})
	}
}

// TestFetchScore weighs who holds a prompt against who fetches it: the one that holds it
// wins while it is idle, and others when it has more to do than fetching takes. A fleet
// decides alike.
func TestFetchScore(t *testing.T) {
	for _, c := range []struct {
		pending int
		lends   bool
		winner  int
	}{{0, true, 0}, {20, true, 0}, {200, true, 1}, {200, false, 0}, {20000, false, 1}} {
		d := borrowing(func(q *placement.Request, all []placement.Candidate) {
			q.Pin = placement.Pin{}
			if !c.lends {
				q.Peer = placement.Peer{}
			}
			if c.pending > 0 {
				all[0].Book(&placement.Booking{Tokens: c.pending, Prompt: c.pending, New: c.pending}, q.Now)
			}
		})
		var f placement.Fleet
		for _, cand := range d.Candidates {
			f.Add(cand)
		}
		same := f.Decide(d.Params, d.Request)
		if d.Winner != c.winner || same.Winner != c.winner || same.Scores[1].Cost != d.Scores[1].Cost {
			t.Errorf("%+v: won by %d and %d, costs %v and %v", c, d.Winner, same.Winner, d.Scores, same.Scores)
		}
		if r, err := placement.ParseRecord(d.AppendRecord(nil, 0)); err != nil || r.Again() != 0 {
			t.Errorf("%+v: by the record %d won, %v", c, r.Again(), err)
		}
	}
}

// TestLink learns what a link takes, and forgets it.
func TestLink(t *testing.T) {
	var l placement.Link
	now := time.Unix(1e6, 0)
	fixed, each := l.Times(now)
	if math.Abs(fixed-3e-3) > 1e-9 || math.Abs(each-5e-6) > 1e-12 {
		t.Errorf("at first %v and %v", fixed, each)
	}
	for i := range 50 {
		n := 100 + 100*(i%7)
		l.Observe(n, time.Duration(n)*100*time.Microsecond, now)
	}
	if fixed, each := l.Times(now); math.Abs(fixed+400*each-40e-3) > 4e-3 {
		t.Errorf("learned %v and %v for each of 400 tokens, want 40 ms in all", fixed, each)
	}
	if again, _ := l.Times(now.Add(time.Minute)); again != fixed {
		t.Errorf("after a minute %v, want %v", again, fixed)
	}
}
