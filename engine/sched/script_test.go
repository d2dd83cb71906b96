package sched_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// script is the state of one script file. Tokens are letters; output number n is
// the n-th of the digits, unless a command says otherwise.
type script struct {
	s     *sched.Scheduler
	batch *sched.Batch
	now   time.Time
	names map[sched.ID]string
	ids   map[string]sched.ID
}

const digits = "0123456789!#$%&()*+,-./:;<=>?@"

// TestScript runs the files of testdata/script. See one for the commands.
func TestScript(t *testing.T) {
	datadriven.Walk(t, "testdata/script", func(t *testing.T, path string) {
		sc := &script{now: time.Unix(0, 0), names: map[sched.ID]string{}, ids: map[string]sched.ID{}}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			out := sc.run(t, d)
			if err := sc.s.Check(); err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			return out
		})
	})
}

func (sc *script) run(t *testing.T, d *datadriven.TestData) string {
	var name string
	if len(d.CmdArgs) > 0 {
		name = d.CmdArgs[0].Key
	}
	id := sc.ids[name]
	switch d.Cmd {
	case "new":
		sc.open(t, d)
		return ""
	case "submit":
		return sc.submit(t, d, name)
	case "at":
		var seconds int
		if _, err := fmt.Sscan(name, &seconds); err != nil {
			t.Fatal(err)
		}
		sc.now = time.Unix(int64(seconds), 0)
		return ""
	case "cancel":
		return sc.actions(sc.s.Cancel(id, sc.now))
	case "yield":
		hold := 0
		d.ScanArgs(t, "hold", &hold)
		return sc.actions(sc.s.Yield(id, time.Duration(hold)*time.Second, sc.now))
	case "arrived":
		return sc.actions(sc.s.KVArrived(id, sc.now))
	case "failed":
		return sc.actions(sc.s.KVFailed(id, sc.now))
	case "end-lease":
		return sc.actions(sc.s.EndLease(id, sc.now))
	case "next":
		batch, actions := sc.s.Next(sc.now)
		sc.batch = batch
		return sc.actions(actions) + sc.show(batch)
	case "done":
		return sc.actions(sc.done(d))
	case "fail":
		return sc.actions(sc.s.Fail(sc.now))
	case "steps":
		return sc.steps(t, d)
	case "stats":
		st := sc.s.Stats()
		return fmt.Sprintf("waiting=%d running=%d loading=%d preemptions=%d free=%d idle=%d\n", st.Waiting, st.Running, st.Loading, st.Preemptions, st.KV.Free, st.KV.Idle)
	case "wake":
		at, ok := sc.s.NextWake()
		if !ok {
			return "never\n"
		}
		return fmt.Sprintln(at.Unix())
	case "clear":
		sc.s.ClearCache()
		return ""
	}
	t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	return ""
}

func (sc *script) open(t *testing.T, d *datadriven.TestData) {
	c := sched.DefaultConfig()
	c.BlockSize, c.StepTokens, c.MaxRunning, c.MaxWaiting, c.MaxContext, c.WatermarkPercent = 4, 16, 4, 4, 100, 0
	aging := 0
	d.ScanArgs(t, "blocks", &c.Blocks)
	d.MaybeScanArgs(t, "size", &c.BlockSize)
	d.MaybeScanArgs(t, "step", &c.StepTokens)
	d.MaybeScanArgs(t, "running", &c.MaxRunning)
	d.MaybeScanArgs(t, "waiting", &c.MaxWaiting)
	d.MaybeScanArgs(t, "context", &c.MaxContext)
	d.MaybeScanArgs(t, "watermark", &c.WatermarkPercent)
	d.MaybeScanArgs(t, "aging", &aging)
	c.Aging = time.Duration(aging) * time.Second
	c.PrefixCaching, c.WholePrompts = !d.HasArg("no-prefix-caching"), d.HasArg("whole-prompts")
	c.PreemptFirst = d.HasArg("preempt-first")
	s, err := sched.New(c)
	if err != nil {
		t.Fatal(err)
	}
	sc.s = s
}

func (sc *script) submit(t *testing.T, d *datadriven.TestData, name string) string {
	id := sched.ID(len(sc.names) + 1)
	var prompt, resumed string
	var deadline, hold, times int
	r := sched.Request{ID: id, PromptLogits: d.HasArg("prompt-logits")}
	d.ScanArgs(t, "prompt", &prompt)
	d.MaybeScanArgs(t, "resumed", &resumed)
	d.MaybeScanArgs(t, "times", &times)
	d.MaybeScanArgs(t, "max", &r.MaxTokens)
	d.MaybeScanArgs(t, "priority", &r.Priority)
	d.MaybeScanArgs(t, "external", &r.External)
	d.MaybeScanArgs(t, "deadline", &deadline)
	d.MaybeScanArgs(t, "hold", &hold)
	r.Prompt, r.Resumed = letters(strings.Repeat(prompt, max(times, 1))), letters(resumed)
	if deadline > 0 {
		r.Deadline = time.Unix(int64(deadline), 0)
	}
	r.Hold = time.Duration(hold) * time.Second
	if err := sc.s.Submit(r, sc.now); err != nil {
		return fmt.Sprintln(dynamo.KindOf(err), "–", err)
	}
	sc.names[id], sc.ids[name] = name, id
	return ""
}

func letters(s string) (ids []dynamo.TokenID) {
	for _, r := range s {
		ids = append(ids, dynamo.TokenID(r))
	}
	return ids
}

// done reports digits, and ends the sequences named in the arguments.
func (sc *script) done(d *datadriven.TestData) []sched.Action {
	var results []sched.Result
	for _, e := range sc.batch.Entries {
		r := sched.Result{Token: dynamo.TokenID(digits[e.Output%len(digits)])}
		r.Finished = slices.ContainsFunc(d.CmdArgs, func(a datadriven.CmdArg) bool { return a.Key == sc.names[e.ID] })
		results = append(results, r)
	}
	return sc.s.Done(results, sc.now)
}

// steps runs until nothing is left to compute, in a line for each step.
func (sc *script) steps(t *testing.T, d *datadriven.TestData) string {
	most := 100
	d.MaybeScanArgs(t, "most", &most)
	var b strings.Builder
	line := func(actions []sched.Action) {
		for _, a := range actions {
			fmt.Fprintf(&b, " %s %s", sc.names[a.ID], a.Kind)
		}
	}
	for range most {
		batch, actions := sc.s.Next(sc.now)
		sc.batch = batch
		line(actions)
		if batch == nil {
			if len(actions) > 0 {
				b.WriteByte('\n')
			}
			break
		}
		for _, e := range batch.Entries {
			fmt.Fprintf(&b, " %s[%d+%d]", sc.names[e.ID], e.Start, len(e.Tokens))
		}
		line(sc.done(d))
		b.WriteByte('\n')
	}
	return strings.ReplaceAll("\n"+b.String(), "\n ", "\n")[1:]
}

func (sc *script) actions(actions []sched.Action) string {
	var b strings.Builder
	for _, a := range actions {
		fmt.Fprintf(&b, "%s %s", sc.names[a.ID], a.Kind)
		switch a.Kind {
		case sched.Admitted:
			fmt.Fprintf(&b, " cached=%d", a.Cached)
			if a.Again {
				b.WriteString(" again")
			}
		case sched.Ended:
			fmt.Fprint(&b, " ", a.Reason)
		case sched.Load:
			fmt.Fprintf(&b, " [%d+%d] into %v", a.Start, a.Tokens, a.Blocks)
		case sched.Leased:
			fmt.Fprintf(&b, " [0+%d] in %v until %d", a.Tokens, a.Blocks, a.Expires.Unix())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (sc *script) show(batch *sched.Batch) string {
	if batch == nil {
		return "nothing to compute\n"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "batch of %d\n", batch.Tokens)
	for _, e := range batch.Entries {
		var text strings.Builder
		for _, id := range e.Tokens {
			text.WriteRune(rune(id))
		}
		fmt.Fprintf(&b, "  %s [%d+%d] %s in %v", sc.names[e.ID], e.Start, len(e.Tokens), text.String(), e.Blocks)
		if e.Sample {
			fmt.Fprintf(&b, " → #%d", e.Output)
		}
		if e.Last {
			b.WriteString(" last")
		}
		if e.Logits == sched.LogitsAll {
			b.WriteString(" all logits")
		}
		b.WriteByte('\n')
	}
	return b.String()
}
