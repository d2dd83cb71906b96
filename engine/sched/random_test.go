package sched_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// shell drives a scheduler with an engine whose KV is checkable: the cell of a
// position holds the fingerprint of all tokens up to there, and computing a
// position wants every earlier cell, read through the block table, to be right.
// The id that follows a sequence is a function of its fingerprint, so what a
// request must answer is known before any schedule.
type shell struct {
	t       testing.TB
	c       sched.Config
	s       *sched.Scheduler
	draw    func(n int) int
	now     time.Time
	kv      []uint64
	jobs    map[sched.ID]*job
	open    []*job // not ended
	loading []*job
	leased  map[sched.ID]sched.Action
	batch   *sched.Batch
	next    sched.ID
	trace   strings.Builder
	steps   int
	// arrivals are loads that were computed with, or could have been, before they had ended;
	// voids those that failed then.
	// Of some the batch was computed without them, and they came later.
	arrivals, voids, lates int
}

// job is a request, what it must answer, and what it did.
type job struct {
	r      sched.Request
	want   []dynamo.TokenID
	got    []dynamo.TokenID
	ended  sched.Reason
	load   sched.Action
	logits int // prompt positions whose logits came

	arriving bool // it may be computed while its load comes
	void     bool // its load failed while it was computed
}

// fingerprint continues the fingerprint f by one token.
func fingerprint(f uint64, id dynamo.TokenID) uint64 {
	f += (uint64(id) + 1) * 0x9e3779b97f4a7c15
	f = (f ^ f>>30) * 0xbf58476d1ce4e5b9
	f = (f ^ f>>27) * 0x94d049bb133111eb
	return f ^ f>>31
}

func fingerprints(root dynamo.CacheRoot, ids []dynamo.TokenID) (out []uint64) {
	f := uint64(root) + 1
	for _, id := range ids {
		f = fingerprint(f, id)
		out = append(out, f)
	}
	return out
}

// sample is the id that follows fingerprint f, and whether it ends the answer.
func sample(f uint64) (dynamo.TokenID, bool) { return dynamo.TokenID(f >> 60), f>>32&31 == 0 }

func newShell(t testing.TB, c sched.Config, draw func(n int) int) *shell {
	if draw(2) == 0 { // tiers below the pool, which have this or that
		c.External = func(ref any, found int) int {
			return min(found*draw(2)+draw(c.MaxContext), len(ref.(*job).r.Prompt))
		}
	}
	s, err := sched.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &shell{
		t: t, c: c, s: s, draw: draw, now: time.Unix(1, 0), kv: make([]uint64, c.Blocks*c.BlockSize),
		jobs: map[sched.ID]*job{}, leased: map[sched.ID]sched.Action{},
	}
}

// submit sends a request that begins like others.
func (sh *shell) submit() {
	longest := min(sh.c.MaxContext, sh.c.Blocks*sh.c.BlockSize)
	j := &job{}
	sh.next++
	j.r = sched.Request{ID: sh.next, Ref: j, Priority: sh.draw(4) - 1, Root: dynamo.CacheRoot(sh.draw(2)), MaxTokens: 1 + sh.draw(longest/2)}
	family := dynamo.TokenID(sh.draw(3))
	for i := range 1 + sh.draw(longest) {
		if sh.draw(40) == 0 {
			family += 100
		}
		j.r.Prompt = append(j.r.Prompt, family+dynamo.TokenID(i))
	}
	switch sh.draw(8) {
	case 0:
		j.r.Deadline = sh.now.Add(time.Duration(sh.draw(60)) * time.Second)
	case 1:
		j.r.Hold = time.Duration(1+sh.draw(20)) * time.Second
	case 2:
		j.r.External = sh.draw(longest)
	case 3:
		j.r.PromptLogits = true
	}
	j.want = sh.answer(j.r, longest)
	if n := len(j.want); n > 1 && sh.draw(4) == 0 {
		n = sh.draw(n)
		j.r.Resumed, j.want = j.want[:n:n], j.want[n:]
	}
	err := sh.s.Submit(j.r, sh.now)
	switch kind := dynamo.KindOf(err); {
	case err == nil:
		sh.jobs[j.r.ID] = j
		sh.open = append(sh.open, j)
	case len(j.r.Prompt) >= longest && kind == dynamo.KindInvalid, kind == dynamo.KindExhausted && sh.s.Stats().Waiting >= sh.c.MaxWaiting:
	default:
		sh.t.Fatalf("request %d with %d tokens refused: %v", j.r.ID, len(j.r.Prompt), err)
	}
	fmt.Fprintf(&sh.trace, "submit %d: %v\n", j.r.ID, err)
}

// answer is what a request must yield if it is left alone.
func (sh *shell) answer(r sched.Request, longest int) (out []dynamo.TokenID) {
	f := uint64(r.Root) + 1
	for _, id := range r.Prompt {
		f = fingerprint(f, id)
	}
	for len(out) < min(r.MaxTokens, longest-len(r.Prompt)) {
		id, last := sample(f)
		out = append(out, id)
		if last {
			break
		}
		f = fingerprint(f, id)
	}
	return out
}

// form asks for a batch and computes it.
func (sh *shell) form() {
	batch, actions := sh.s.Next(sh.now)
	sh.take(actions)
	sh.steps++
	if sh.batch = batch; batch == nil {
		return
	}
	total := 0
	for i := range batch.Entries {
		total += sh.compute(&batch.Entries[i])
	}
	if total != batch.Tokens || total > sh.c.StepTokens || len(batch.Entries) > sh.c.MaxRunning {
		sh.t.Fatalf("a batch of %d entries and %d tokens says %d, limits %d and %d", len(batch.Entries), total, batch.Tokens, sh.c.MaxRunning, sh.c.StepTokens)
	}
}

// compute writes the KV of an entry, after a look at all it reads.
func (sh *shell) compute(e *sched.Entry) int {
	fmt.Fprintf(&sh.trace, "  %d [%d+%d] %v\n", e.ID, e.Start, len(e.Tokens), e.Blocks)
	j := e.Ref.(*job)
	all := slices.Concat(j.r.Prompt, j.r.Resumed, j.got)
	if !slices.Equal(e.Tokens, all[e.Start:e.Start+len(e.Tokens)]) {
		sh.t.Fatalf("%d: tokens %v at %d, want %v", e.ID, e.Tokens, e.Start, all)
	}
	prints := fingerprints(j.r.Root, all)
	cell := func(p int) *uint64 {
		return &sh.kv[int(e.Blocks[p/sh.c.BlockSize])*sh.c.BlockSize+p%sh.c.BlockSize]
	}
	for p := range e.Start {
		comes := j.arriving && p >= j.load.Start && p < j.load.Start+j.load.Tokens
		if !comes && *cell(p) != prints[p] {
			sh.t.Fatalf("%d reads other KV than its own at position %d of %d", e.ID, p, e.Start)
		}
	}
	for p := range e.Tokens {
		*cell(e.Start + p) = prints[e.Start+p]
	}
	last := e.Start+len(e.Tokens) == len(all)
	if e.Sample != last || e.Sample && (e.Output != len(j.r.Resumed)+len(j.got) || e.Logits == sched.LogitsNone) {
		sh.t.Fatalf("%d: entry [%d+%d] of %d: sample %v, output %d, logits %d", e.ID, e.Start, len(e.Tokens), len(all), e.Sample, e.Output, e.Logits)
	}
	if e.Logits == sched.LogitsAll && e.Start <= j.logits {
		j.logits = max(j.logits, e.Start+len(e.Tokens))
	}
	return len(e.Tokens)
}

// land reports the batch in flight, rarely as failed.
func (sh *shell) land() {
	if sh.batch == nil {
		return
	}
	for i := range sh.batch.Entries {
		if j := sh.batch.Entries[i].Ref.(*job); j.arriving {
			if sh.draw(4) == 0 {
				j.void, j.arriving = true, false
				sh.lates++
				sh.take(sh.s.KVLate(j.r.ID, sh.now))
				if sh.draw(2) == 0 {
					continue
				}
			}
			sh.settle(slices.Index(sh.loading, j), sh.draw(3) > 0)
		}
	}
	batch := sh.batch
	sh.batch = nil
	if sh.draw(200) == 0 {
		sh.take(sh.s.Fail(sh.now))
		return
	}
	var results []sched.Result
	for _, e := range batch.Entries {
		var r sched.Result
		if j := e.Ref.(*job); j.void {
			j.void = false
			sh.voids++
			for p := range e.Tokens { // nobody is to read it
				sh.kv[int(e.Blocks[(e.Start+p)/sh.c.BlockSize])*sh.c.BlockSize+(e.Start+p)%sh.c.BlockSize] = 1
			}
		} else if e.Sample {
			prints := fingerprints(j.r.Root, slices.Concat(j.r.Prompt, j.r.Resumed, j.got))
			r.Token, r.Finished = sample(prints[len(prints)-1])
			if j.ended == sched.ReasonNone {
				j.got = append(j.got, r.Token)
			}
		}
		results = append(results, r)
	}
	sh.take(sh.s.Done(results, sh.now))
}

// take handles actions.
func (sh *shell) take(actions []sched.Action) {
	for _, a := range actions {
		fmt.Fprintf(&sh.trace, "%d %s %s %d %d %v\n", a.ID, a.Kind, a.Reason, a.Cached, a.Tokens, a.Blocks)
		j := sh.jobs[a.ID]
		switch a.Kind {
		case sched.Load:
			j.load = a
			j.load.Blocks, j.void = slices.Clone(a.Blocks), false
			sh.loading = append(sh.loading, j)
		case sched.Leased:
			a.Blocks = slices.Clone(a.Blocks)
			sh.leased[a.ID] = a
		case sched.LeaseEnded:
			delete(sh.leased, a.ID)
		case sched.Ended:
			sh.end(j, a.Reason)
		}
	}
}

// end checks I1 and the answer.
func (sh *shell) end(j *job, why sched.Reason) {
	if j.ended != sched.ReasonNone {
		sh.t.Fatalf("I1: %d ended twice", j.r.ID)
	}
	j.ended = why
	i := slices.Index(sh.open, j)
	sh.open = slices.Delete(sh.open, i, i+1)
	if why == sched.ReasonFinished && !slices.Equal(j.got, j.want) {
		sh.t.Fatalf("%d answered %v, want %v", j.r.ID, j.got, j.want)
	}
	if len(j.got) > len(j.want) || !slices.Equal(j.got, j.want[:len(j.got)]) {
		sh.t.Fatalf("%d answered %v before it ended, want %v", j.r.ID, j.got, j.want)
	}
	if why == sched.ReasonFinished && j.r.PromptLogits && j.logits < len(j.r.Prompt) {
		sh.t.Fatalf("%d finished with the logits of %d of %d prompt positions", j.r.ID, j.logits, len(j.r.Prompt))
	}
}

// report ends the copies of a load, well or not.
func (sh *shell) report(well bool) {
	if len(sh.loading) == 0 {
		return
	}
	sh.settle(sh.draw(len(sh.loading)), well)
}

// settle ends the copies of one of the loads.
func (sh *shell) settle(i int, well bool) {
	j := sh.loading[i]
	sh.loading = slices.Delete(sh.loading, i, i+1)
	if j.arriving {
		sh.arrivals++
	}
	j.arriving = false
	if !well {
		j.void = j.void || sh.batch != nil && slices.ContainsFunc(sh.batch.Entries, func(e sched.Entry) bool { return e.Ref == any(j) })
		sh.take(sh.s.KVFailed(j.r.ID, sh.now))
		return
	}
	prints := fingerprints(j.r.Root, slices.Concat(j.r.Prompt, j.r.Resumed))
	for k := range j.load.Tokens {
		sh.kv[int(j.load.Blocks[k/sh.c.BlockSize])*sh.c.BlockSize+k%sh.c.BlockSize] = prints[j.load.Start+k]
	}
	sh.take(sh.s.KVArrived(j.r.ID, sh.now))
}

// endLease fetches a lease: its KV must still be whole.
func (sh *shell) endLease() {
	for _, id := range slices.Sorted(func(yield func(sched.ID) bool) {
		for id := range sh.leased {
			if !yield(id) {
				return
			}
		}
	}) {
		a, j := sh.leased[id], sh.jobs[id]
		prints := fingerprints(j.r.Root, slices.Concat(j.r.Prompt, j.r.Resumed, j.got))
		for p := range a.Tokens {
			if sh.kv[int(a.Blocks[p/sh.c.BlockSize])*sh.c.BlockSize+p%sh.c.BlockSize] != prints[p] {
				sh.t.Fatalf("leased KV of %d is not its own at position %d", id, p)
			}
		}
		if sh.draw(2) == 0 {
			sh.take(sh.s.EndLease(id, sh.now))
			return
		}
	}
}

// step does one thing.
func (sh *shell) step(op byte) {
	switch op %= 16; {
	case op < 3:
		sh.submit()
	case op < 12:
		if sh.batch == nil {
			sh.form()
		} else {
			sh.land()
		}
	case op == 12:
		if len(sh.open) > 0 && sh.draw(3) == 0 {
			sh.take(sh.s.Cancel(sh.open[sh.draw(len(sh.open))].r.ID, sh.now))
		}
	case op == 13:
		if n := len(sh.loading); n > 0 && sh.draw(3) > 0 {
			j := sh.loading[sh.draw(n)]
			sh.take(sh.s.KVArriving(j.r.ID, sh.now))
			j.arriving = j.ended == sched.ReasonNone
		}
		sh.report(sh.draw(3) > 0)
	case op == 14:
		sh.endLease()
	default:
		sh.now = sh.now.Add(time.Second)
		if sh.draw(50) == 0 {
			sh.s.ClearCache()
		}
	}
	if err := sh.s.Check(); err != nil {
		sh.t.Fatal(err)
	}
}

// drain lets everything end and checks that nothing is left.
func (sh *shell) drain() {
	for limit := 0; len(sh.open) > 0 || sh.batch != nil || len(sh.loading) > 0 || len(sh.leased) > 0; limit++ {
		if limit > 100_000 {
			sh.t.Fatalf("%d requests do not end: %+v", len(sh.open), sh.s.Stats())
		}
		sh.land()
		sh.report(true)
		sh.form()
		if sh.batch == nil {
			sh.now = sh.now.Add(time.Second)
		}
		if err := sh.s.Check(); err != nil {
			sh.t.Fatal(err)
		}
	}
	if st := sh.s.Stats(); st.Waiting+st.Running+st.Loading != 0 || st.KV.Free+st.KV.Idle != sh.c.Blocks || st.KV.Leases != 0 {
		sh.t.Fatalf("something is left: %+v", st)
	}
	ended := uint64(0)
	for _, n := range sh.s.Stats().Ended {
		ended += n
	}
	if ended != uint64(len(sh.jobs)) || ended != sh.s.Stats().Accepted {
		sh.t.Fatalf("I1: %d requests accepted, %d ended", len(sh.jobs), ended)
	}
}

// randomConfig is a small machine, so that everything is tight.
func randomConfig(draw func(n int) int) sched.Config {
	c := sched.DefaultConfig()
	c.BlockSize = 1 + draw(4)
	c.Blocks = 4 + draw(24)
	c.MaxRunning = 1 + draw(6)
	c.StepTokens = c.MaxRunning + draw(20)
	c.MaxWaiting = 1 + draw(10)
	c.MaxContext = 8 + draw(80)
	c.PrefixCaching = draw(5) > 0
	c.WatermarkPercent = draw(20)
	c.Aging = time.Duration(draw(3)) * 5 * time.Second
	c.Events = draw(2) == 0
	c.PreemptFirst = draw(3) == 0
	return c
}

// TestRandomSchedules runs random events and checks every answer, I1, I4 and I5,
// and that all ends.
func TestRandomSchedules(t *testing.T) {
	const seeds, steps = uint64(60), 2000
	var total sched.Stats
	var duplicates, found, loads uint64
	arrivals, voids, lates := 0, 0, 0
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 7))
		sh := newShell(t, randomConfig(r.IntN), r.IntN)
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d, config %+v", seed, sh.c)
				}
			}()
			for range steps {
				sh.step(byte(r.UintN(256)))
			}
			sh.drain()
		}()
		st := sh.s.Stats()
		total.Preemptions += st.Preemptions
		for i := range st.Ended {
			total.Ended[i] += st.Ended[i]
		}
		duplicates, found, loads = duplicates+st.KV.Duplicates, found+st.KV.Found, loads+st.Loads
		arrivals, voids, lates = arrivals+sh.arrivals, voids+sh.voids, lates+sh.lates
	}
	t.Logf("ended %v, preemptions %d, blocks found %d, duplicates %d, loads %d", total.Ended, total.Preemptions, found, duplicates, loads)
	for reason := sched.ReasonFinished; reason <= sched.ReasonFailed; reason++ {
		if total.Ended[reason] == 0 {
			t.Errorf("no request ended by %s", reason)
		}
	}
	t.Logf("loads computed with before they had ended %d, in vain %d, too late %d", arrivals, voids, lates)
	if total.Preemptions == 0 || found == 0 || duplicates == 0 || loads == 0 || voids == 0 || lates == 0 || arrivals <= voids {
		t.Error("the runs missed something")
	}
}

// TestDeterminism wants equal traces from equal events.
func TestDeterminism(t *testing.T) {
	for seed := range uint64(5) {
		var traces [2]string
		for i := range traces {
			r := rand.New(rand.NewPCG(seed, 8))
			sh := newShell(t, randomConfig(r.IntN), r.IntN)
			for range 1000 {
				sh.step(byte(r.UintN(256)))
			}
			sh.drain()
			traces[i] = sh.trace.String()
		}
		if traces[0] != traces[1] {
			t.Errorf("seed %d: two runs differ", seed)
		}
	}
}

// TestNoStarvation keeps a machine busy with urgent requests and wants an ordinary
// one to end all the same.
func TestNoStarvation(t *testing.T) {
	c := sched.DefaultConfig()
	c.Blocks, c.MaxContext, c.MaxRunning, c.Aging = 8, 64, 1, 5*time.Second
	s, err := sched.New(c)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1, 0)
	submit := func(id sched.ID, priority int) {
		if err := s.Submit(sched.Request{ID: id, Prompt: []dynamo.TokenID{1}, MaxTokens: 1, Priority: priority}, now); err != nil {
			t.Fatal(err)
		}
	}
	submit(1, 0)
	submit(2, 3)
	for id := sched.ID(3); id < 100; id++ {
		submit(id, 3)
		batch, _ := s.Next(now)
		for _, a := range s.Done(make([]sched.Result, len(batch.Entries)), now) {
			if a.ID == 1 {
				if id < 15 || id > 20 {
					t.Errorf("ended after %d others, want 15 to 20", id-2)
				}
				return
			}
		}
		now = now.Add(time.Second)
	}
	t.Error("never ended")
}

// FuzzScheduler lets the fuzzer choose the events of TestRandomSchedules.
func FuzzScheduler(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 9))
	for range 4 {
		b := make([]byte, 1500)
		for i := range b {
			b[i] = byte(r.UintN(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 8000 {
			return
		}
		next := func() byte {
			if len(ops) == 0 {
				return 1
			}
			b := ops[0]
			ops = ops[1:]
			return b
		}
		draw := func(n int) int { return int(next()) % n }
		sh := newShell(t, randomConfig(draw), draw)
		for len(ops) > 0 {
			sh.step(next())
		}
		sh.drain()
	})
}
