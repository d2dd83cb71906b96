package sched_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// crowd is a scheduler with n sequences that decode, each replaced when it ends.
type crowd struct {
	s       *sched.Scheduler
	next    sched.ID
	prompt  []dynamo.TokenID
	results []sched.Result
	now     time.Time
}

func newCrowd(t testing.TB, n int) *crowd {
	c := sched.DefaultConfig()
	c.Blocks, c.MaxContext, c.MaxRunning, c.StepTokens, c.Events = n*40, 2048, n, 2*n, true
	s, err := sched.New(c)
	if err != nil {
		t.Fatal(err)
	}
	cr := &crowd{s: s, prompt: make([]dynamo.TokenID, 100), results: make([]sched.Result, 2*n), now: time.Unix(1, 0)}
	for range n {
		cr.submit(t)
	}
	for range n {
		cr.step(t)
	}
	return cr
}

// submit sends a request with a new prompt and an answer of 200 to 455 tokens.
func (cr *crowd) submit(t testing.TB) {
	cr.next++
	for i := range cr.prompt {
		cr.prompt[i] = dynamo.TokenID(i) + dynamo.TokenID(cr.next)*1000
	}
	r := sched.Request{ID: cr.next, Ref: cr, Prompt: cr.prompt, MaxTokens: 200 + int(cr.next*37%256)}
	if err := cr.s.Submit(r, cr.now); err != nil {
		t.Fatal(err)
	}
}

func (cr *crowd) step(t testing.TB) {
	cr.now = cr.now.Add(time.Millisecond)
	batch, _ := cr.s.Next(cr.now)
	for i := range batch.Entries {
		cr.results[i].Token = dynamo.TokenID(i)
	}
	ended := 0
	for _, a := range cr.s.Done(cr.results[:len(batch.Entries)], cr.now) {
		if a.Kind == sched.Ended {
			ended++
		}
	}
	for range ended {
		cr.submit(t)
	}
	cr.s.Events()
}

// BenchmarkStep is a step of 256 decoding sequences: forming the batch, taking
// its results, replacing what ended.
func BenchmarkStep(b *testing.B) {
	cr := newCrowd(b, 256)
	b.ReportAllocs()
	for b.Loop() {
		cr.step(b)
	}
	st := cr.s.Stats()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/256, "ns/seq")
	if st.Preemptions > 0 && st.Preemptions > st.Steps/100 {
		b.Errorf("%d preemptions in %d steps", st.Preemptions, st.Steps)
	}
}

// TestPressure runs 1000 requests through a pool that holds a quarter of those
// that could run, and wants little computed twice for the preemptions.
func TestPressure(t *testing.T) {
	c := sched.DefaultConfig()
	c.Blocks, c.MaxContext, c.MaxRunning, c.MaxWaiting = 800, 2048, 128, 1000
	s, err := sched.New(c)
	if err != nil {
		t.Fatal(err)
	}
	r, now, useful := rand.New(rand.NewPCG(1, 2)), time.Unix(1, 0), 0
	for id := range sched.ID(1000) {
		prompt := make([]dynamo.TokenID, 50+r.IntN(300))
		for i := range prompt {
			prompt[i] = dynamo.TokenID(r.Uint32())
		}
		n := 20 + r.IntN(400)
		useful += len(prompt) + n - 1
		if err := s.Submit(sched.Request{ID: id, Prompt: prompt, MaxTokens: n}, now); err != nil {
			t.Fatal(err)
		}
	}
	for {
		batch, _ := s.Next(now)
		if batch == nil {
			break
		}
		results := make([]sched.Result, len(batch.Entries))
		for i := range results {
			results[i].Token = dynamo.TokenID(r.Uint32())
		}
		s.Done(results, now)
	}
	st := s.Stats()
	waste := float64(st.Tokens)/float64(useful) - 1
	t.Logf("%d steps, %.1f tokens each, %d preemptions, %.1f %% computed twice", st.Steps, float64(st.Tokens)/float64(st.Steps), st.Preemptions, 100*waste)
	if waste > 0.05 || st.Ended[sched.ReasonFinished] != 1000 {
		t.Errorf("%.1f %% computed twice, want under 5 %%; %d finished", 100*waste, st.Ended[sched.ReasonFinished])
	}
}

// TestAllocations wants none per step in steady state. (Replacing sequences keeps
// their buffers; the odd one grows.)
func TestAllocations(t *testing.T) {
	cr := newCrowd(t, 32)
	for range 2000 {
		cr.step(t)
	}
	if n := testing.AllocsPerRun(500, func() { cr.step(t) }); n > 0 {
		t.Errorf("%.2f allocations a step, want none", n)
	}
}

// TestConfig wants every fault named.
func TestConfig(t *testing.T) {
	err := sched.Config{WatermarkPercent: -1, Aging: -1}.Validate()
	if err == nil {
		t.Fatal("the zero Config is valid")
	}
	if n := len(err.(interface{ Unwrap() []error }).Unwrap()); n != 7 {
		t.Errorf("%d faults, want 7: %v", n, err)
	}
	c := sched.DefaultConfig()
	c.Blocks, c.MaxContext = 1, 2
	if err := c.Validate(); err != nil {
		t.Errorf("the smallest machine: %v", err)
	}
}

// TestMisuse wants a panic where the shell breaks the protocol.
func TestMisuse(t *testing.T) {
	now := time.Unix(1, 0)
	request := sched.Request{ID: 1, Prompt: []dynamo.TokenID{1}, MaxTokens: 3}
	for name, misuse := range map[string]func(s *sched.Scheduler){
		"next in flight":   func(s *sched.Scheduler) { s.Next(now); s.Next(now) },
		"done twice":       func(s *sched.Scheduler) { s.Next(now); s.Done(make([]sched.Result, 1), now); s.Done(nil, now) },
		"too many results": func(s *sched.Scheduler) { s.Next(now); s.Done(make([]sched.Result, 2), now) },
		"one id twice":     func(s *sched.Scheduler) { _ = s.Submit(request, now) },
		"no such load":     func(s *sched.Scheduler) { s.Next(now); s.KVArrived(1, now) },
	} {
		t.Run(name, func(t *testing.T) {
			c := sched.DefaultConfig()
			c.Blocks, c.MaxContext = 4, 64
			s, err := sched.New(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Submit(request, now); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			misuse(s)
		})
	}
}
