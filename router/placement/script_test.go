package placement_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
)

// script is the state of one script file: it books and reports as a router does.
// Workers are called w1, w2, …, with the ids 1, 2, …
type script struct {
	policy     placement.Policy
	now        time.Time
	candidates []placement.Candidate
	turn       uint64
	last       placement.Decision
}

// TestScript runs the files of testdata. See one for the commands.
func TestScript(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		sc := &script{now: time.Unix(1000, 0)}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return sc.run(t, d)
		})
	})
}

func (sc *script) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "policy":
		p, known := placement.ParsePolicy(d.CmdArgs[0].Key)
		if !known {
			d.Fatalf(t, "no such policy")
		}
		sc.policy = p
		return ""
	case "worker":
		sc.worker(t, d)
		return ""
	case "report":
		c, n := sc.find(t, d.CmdArgs[0].Key), 0
		d.ScanArgs(t, "requests", &n)
		c.Report = placement.Report{At: sc.now, Requests: n, Booked: c.Booked}
		d.MaybeScanArgs(t, "max", &c.Report.MaxRunning)
		return ""
	case "release":
		sc.find(t, d.CmdArgs[0].Key).Booked--
		return ""
	case "pass":
		wait, err := time.ParseDuration(d.CmdArgs[0].Key)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		sc.now = sc.now.Add(wait)
		return ""
	case "pick":
		return sc.pick(t, d)
	case "explain":
		return sc.explain(t)
	}
	d.Fatalf(t, "no such command")
	return ""
}

func (sc *script) find(t *testing.T, name string) *placement.Candidate {
	var id dynamo.WorkerID
	if _, err := fmt.Sscanf(name, "w%d", &id); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(sc.candidates, func(c placement.Candidate) bool { return c.ID == id })
	if i < 0 {
		i = len(sc.candidates)
		sc.candidates = append(sc.candidates, placement.Candidate{Key: placement.Key{ID: id, Epoch: 1}, State: placement.Up})
	}
	return &sc.candidates[i]
}

// models are those that a script can give a worker: vllm's on an H200, and one that is
// five times as slow.
var models = map[string]perfmodel.ClosedForm{
	"h200": {PrefillFixedSeconds: 8e-3, PrefillSecondsPerToken: 20e-6, PrefillSecondsPerPair: 2e-9, DecodeFixedSeconds: 5e-3, DecodeSecondsPerSequence: 4e-6, DecodeSecondsPerKVToken: 50e-9},
	"slow": {PrefillFixedSeconds: 40e-3, PrefillSecondsPerToken: 100e-6, PrefillSecondsPerPair: 10e-9, DecodeFixedSeconds: 25e-3, DecodeSecondsPerSequence: 20e-6, DecodeSecondsPerKVToken: 250e-9},
}

// worker NAME [max=N] [queue=N] [booked=N] [tokens=N] [state=up|down|draining]
// [held=DURATION] [lost=DURATION] [doubted=DURATION] [kind=N] [prefills=N pending=N]
// [kv=N] [capacity=N] [model=NAME] adds or changes one. So many prompts with so many
// tokens between them are pending, and those that run hold kv tokens.
func (sc *script) worker(t *testing.T, d *datadriven.TestData) {
	c := sc.find(t, d.CmdArgs[0].Key)
	var state, held, lost, doubted string
	d.MaybeScanArgs(t, "max", &c.MaxRunning)
	d.MaybeScanArgs(t, "queue", &c.MaxQueue)
	d.MaybeScanArgs(t, "booked", &c.Booked)
	d.MaybeScanArgs(t, "tokens", &c.BookedTokens)
	d.MaybeScanArgs(t, "kind", &c.Kind)
	if d.MaybeScanArgs(t, "state", &state) {
		c.State = map[string]placement.State{"up": placement.Up, "down": placement.Down, "draining": placement.Draining}[state]
	}
	if d.MaybeScanArgs(t, "pending", &c.PrefillTokens) {
		c.PrefillPairs, c.PrefillSince = float64(c.PrefillTokens)*float64(c.PrefillTokens)/2, sc.now
	}
	d.MaybeScanArgs(t, "prefills", &c.Prefills)
	d.MaybeScanArgs(t, "kv", &c.KVTokens)
	d.MaybeScanArgs(t, "capacity", &c.KVCapacity)
	var model string
	if d.MaybeScanArgs(t, "model", &model) {
		if err := c.SetModel(models[model]); err != nil {
			d.Fatalf(t, "%v", err)
		}
	}
	until := func(text string) time.Time {
		wait, err := time.ParseDuration(text)
		if err != nil {
			d.Fatalf(t, "%v", err)
		}
		return sc.now.Add(wait)
	}
	if d.MaybeScanArgs(t, "held", &held) {
		c.HeldUntil, c.Lost = until(held), false
	}
	if d.MaybeScanArgs(t, "lost", &lost) {
		c.HeldUntil, c.Lost = until(lost), true
	}
	if d.MaybeScanArgs(t, "doubted", &doubted) {
		c.DoubtedUntil = until(doubted)
	}
}

// pick ID [attempt=N] [not=w1,w2] [sticky=w1] [ranks=0+1+unable] [times=N] [tokens=N]
// [has=w1:10+w2:5] [session=NAME] [pin=w1] decides, books, and prints the scores; with
// times only the winners of as many requests. A prompt is in blocks of 16 tokens, of
// which workers have the first so many.
func (sc *script) pick(t *testing.T, d *datadriven.TestData) string {
	q := placement.Request{ID: dynamo.RequestID(d.CmdArgs[0].Key), Now: sc.now}
	attempt, times := 0, 0
	var ranks string
	var not, sticky string
	d.MaybeScanArgs(t, "attempt", &attempt)
	d.MaybeScanArgs(t, "times", &times)
	if d.MaybeScanArgs(t, "not", &not) {
		for _, name := range strings.Split(not, "+") {
			q.Excluded = append(q.Excluded, sc.find(t, name).Key)
		}
	}
	if d.MaybeScanArgs(t, "ranks", &ranks) {
		for text := range strings.SplitSeq(ranks, "+") {
			rank := placement.Unable
			if text != "unable" {
				if _, err := fmt.Sscan(text, &rank); err != nil {
					d.Fatalf(t, "%v", err)
				}
			}
			q.Ranks = append(q.Ranks, rank)
		}
	}
	if d.MaybeScanArgs(t, "sticky", &sticky) {
		q.Sticky = sc.find(t, sticky).Key
	}
	sc.prompt(t, d, &q)
	if times == 0 {
		q.Seed = placement.Seed(q.ID, 0, attempt)
		dec := sc.decide(t, q)
		return show(&dec)
	}
	var b strings.Builder
	for i := range times {
		q.ID = dynamo.RequestID(fmt.Sprint(d.CmdArgs[0].Key, i))
		q.Seed = placement.Seed(q.ID, 0, attempt)
		dec := sc.decide(t, q)
		if dec.Winner == placement.None {
			fmt.Fprintf(&b, "-:%v ", dec.Outcome())
			continue
		}
		fmt.Fprintf(&b, "w%d ", dec.Candidates[dec.Winner].ID)
	}
	return strings.TrimSpace(b.String()) + "\n"
}

// prompt fills in what a policy asks of the prompt.
func (sc *script) prompt(t *testing.T, d *datadriven.TestData, q *placement.Request) {
	var has, session, pin string
	q.BlockSize, q.Expected = 16, 100
	d.MaybeScanArgs(t, "tokens", &q.Tokens)
	if d.MaybeScanArgs(t, "session", &session) {
		q.Session = placement.Hash(session)
	}
	if d.MaybeScanArgs(t, "pin", &pin) {
		q.Pin.ID = sc.find(t, pin).ID
	}
	if !d.MaybeScanArgs(t, "has", &has) {
		return
	}
	for part := range strings.SplitSeq(has, "+") {
		name, count, _ := strings.Cut(part, ":")
		var blocks uint32
		if _, err := fmt.Sscan(count, &blocks); err != nil {
			d.Fatalf(t, "%v", err)
		}
		c := sc.find(t, name)
		at := slices.IndexFunc(sc.candidates, func(x placement.Candidate) bool { return x.Key == c.Key })
		q.Overlaps = append(q.Overlaps, device(int32(at), blocks))
	}
}

// explain puts the last decision into words, by way of its record.
func (sc *script) explain(t *testing.T) string {
	r, err := placement.ParseRecord(sc.last.AppendRecord(nil, 0))
	if err != nil {
		t.Fatal(err)
	}
	return placement.Explain(&r).String() + "\n"
}

// decide decides, checks the laws of a decision, and books.
func (sc *script) decide(t *testing.T, q placement.Request) placement.Decision {
	t.Helper()
	d := placement.Decide(placement.DefaultParams(sc.policy), q, slices.Clone(sc.candidates), nil)
	check(t, &d)
	sc.last = d
	if d.Winner != placement.None {
		sc.turn++
		sc.candidates[d.Winner].Booked++
		sc.candidates[d.Winner].Turn = sc.turn
	}
	return d
}

func show(d *placement.Decision) string {
	var b strings.Builder
	line := func(mark string, i int) {
		s := &d.Scores[i]
		fmt.Fprintf(&b, "%s w%d %v load=%d", mark, d.Candidates[i].ID, s.Verdict, s.Load)
		if s.Others > 0 {
			fmt.Fprintf(&b, " others=%d", s.Others)
		}
		if s.Doubted {
			b.WriteString(" doubted")
		}
		if s.Aside {
			b.WriteString(" aside")
		}
		if s.Verdict == placement.Fit {
			fmt.Fprintf(&b, " cost=%.3g", s.Cost)
		}
		b.WriteString("\n")
	}
	for _, i := range d.Order() {
		mark := " "
		if i == d.Winner {
			mark = "*"
		}
		line(mark, i)
	}
	for i := range d.Scores {
		if d.Scores[i].Verdict != placement.Fit {
			line("-", i)
		}
	}
	if d.Winner == placement.None {
		fmt.Fprintf(&b, "none: %v\n", d.Outcome())
	}
	if d.Sticky {
		b.WriteString("sticky\n")
	}
	if next := d.Next(); !next.IsZero() {
		fmt.Fprintf(&b, "next in %v\n", next.Sub(d.Request.Now))
	}
	return b.String()
}
