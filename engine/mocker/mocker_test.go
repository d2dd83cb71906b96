package mocker_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/mocker"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/perfmodel"
)

const testVocab = 300

// steady takes a millisecond for every step, and a microsecond for each token of a
// prompt.
type steady struct{ step time.Duration }

func (s steady) StepSeconds(b *perfmodel.Batch) float64 {
	d := s.step
	for _, c := range b.Chunks {
		d += time.Duration(c.New) * s.step / 1000
	}
	return d.Seconds()
}

func testConfig(change func(*mocker.Config)) mocker.Config {
	c := mocker.DefaultConfig()
	c.Name, c.ContextLength, c.VocabSize, c.EOS = "mock", 160, testVocab, []dynamo.TokenID{1, 7}
	c.BlockSize, c.Blocks, c.StepTokens, c.MaxRunning, c.MaxQueue = 4, 400, 48, 16, 64
	c.Model = steady{time.Millisecond}
	if change != nil {
		change(&c)
	}
	return c
}

// start runs an engine until the test ends, and returns why it ended.
func start(t testing.TB, change func(*mocker.Config)) (e *mocker.Engine, ended <-chan error) {
	t.Helper()
	e, err := mocker.New(testConfig(change))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran, told := make(chan error, 1), make(chan error, 1)
	go func() {
		err := e.Run(ctx)
		ran <- err
		told <- err
	}()
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	return e, told
}

func testPrompt(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(8 + (n*31+i*i*7+i)%(testVocab-8))
	}
	return ids
}

// idle returns an error if e holds anything for a request, or its KV cache is wrong.
func idle(e *mocker.Engine) error {
	s := e.Stats()
	kv := s.Scheduler.KV
	if s.Busy() > 0 || kv.Partial+kv.Complete+kv.Held+kv.Loading+kv.Leases > 0 {
		return fmt.Errorf("%d requests, blocks %+v", s.Busy(), kv)
	}
	return e.Check()
}

func TestConformance(t *testing.T) {
	for _, mode := range []struct {
		name   string
		change func(*mocker.Config)
	}{
		{"no time", func(c *mocker.Config) { c.Speedup = 0 }},
		{"time", func(c *mocker.Config) { c.Model = steady{50 * time.Microsecond} }},
		{"three ranks", func(c *mocker.Config) { c.Speedup, c.Ranks = 0, 3 }},
		{"small pool and chunks", func(c *mocker.Config) { c.Speedup, c.Blocks, c.MaxRunning, c.StepTokens = 0, 42, 3, 5 }},
		{"whole prompts, no prefix caching", func(c *mocker.Config) {
			c.Speedup, c.StepTokens, c.ChunkedPrefill, c.PrefixCaching = 0, 160, false, false
		}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				e, _ := start(t, mode.change)
				return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: testPrompt, Idle: func() error { return idle(e) }}
			})
		})
	}
}

func ask(t *testing.T, e *mocker.Engine, r *dynamo.Request) enginetest.Answer {
	t.Helper()
	a, err := enginetest.Collect(t.Context(), e, r)
	if err != nil {
		t.Fatalf("request %s: %v", r.ID, err)
	}
	return a
}

// A lone request takes the time of its steps, the prompt's first, and each token
// comes when its step is over.
func TestTime(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*mocker.Config)
		want   time.Duration // for 100 tokens of prompt in chunks of 48, 48 and 4, and 10 of answer
	}{
		{"as the model says", nil, 12*time.Millisecond + 100*time.Microsecond},
		{"ten times as fast", func(c *mocker.Config) { c.Speedup = 10 }, 1210 * time.Microsecond},
		{"decoding twice as fast", func(c *mocker.Config) { c.DecodeSpeedup = 2 }, 3*time.Millisecond + 100*time.Microsecond + 4500*time.Microsecond},
		{"slow", func(c *mocker.Config) { c.Faults.Slow = 3 }, 36*time.Millisecond + 300*time.Microsecond},
		{"no time", func(c *mocker.Config) { c.Speedup = 0 }, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := start(t, c.change)
				began, last := time.Now(), time.Time{}
				for chunk, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: testPrompt(100), MaxTokens: 10, IgnoreEOS: true}) {
					if err != nil || c.want > 0 && len(chunk.Tokens) != 1 || time.Now().Equal(last) && c.want > 0 {
						t.Fatalf("got %v, %v at %v", chunk.Tokens, err, time.Since(began))
					}
					last = time.Now()
				}
				if got := time.Since(began); got != c.want {
					t.Errorf("took %v, want %v", got, c.want)
				}
				if late := e.Late(); late != 0 {
					t.Errorf("late by %v", late)
				}
			})
		})
	}
}

// Answers end where their drawn length is over, keep the limits of their requests,
// and go on exactly.
func TestLength(t *testing.T) {
	e, _ := start(t, func(c *mocker.Config) {
		c.Speedup, c.OutputTokens, c.ContextLength, c.Words = 0, 20, 1000, []dynamo.TokenID{50, 51, 52, 53}
	})
	var sum float64
	lengths := map[int]bool{}
	const requests = 200
	for i := range requests {
		r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprint(i)), Tokens: testPrompt(3 + i), MaxTokens: 500, StopTokens: []dynamo.TokenID{54}}
		a := ask(t, e, r)
		n := len(a.Tokens)
		sum += float64(n)
		lengths[n] = true
		if a.Finish != dynamo.FinishStop || a.Tokens[n-1] != 1 || slices.ContainsFunc(a.Tokens[:n-1], func(id dynamo.TokenID) bool { return id < 50 || id > 53 }) {
			t.Fatalf("got %v, ended by %v", a.Tokens, a.Finish)
		}
		r.Resume = a.Tokens[:n/2]
		if got := ask(t, e, r); !slices.Equal(got.Tokens, a.Tokens[n/2:]) || got.Finish != a.Finish {
			t.Fatalf("resumed after %d: got %v, want %v", n/2, got.Tokens, a.Tokens[n/2:])
		}
		r.Resume, r.MinTokens = nil, n+5
		if got := len(ask(t, e, r).Tokens); got < n+5 {
			t.Fatalf("got %d tokens, want %d at least", got, n+5)
		}
		r.IgnoreEOS, r.MinTokens, r.MaxTokens = true, 0, n+7
		if got := ask(t, e, r); len(got.Tokens) != n+7 || got.Finish != dynamo.FinishLength {
			t.Fatalf("ignoring the end: got %d tokens, %v, want %d", len(got.Tokens), got.Finish, n+7)
		}
	}
	if mean := sum / requests; math.Abs(mean-20) > 5 || len(lengths) < 20 {
		t.Errorf("%d different lengths with a mean of %.1f, want about 20", len(lengths), mean)
	}
}

func TestShape(t *testing.T) {
	words := []dynamo.TokenID{50, 51, 52, 53}
	ids := func(n ...dynamo.TokenID) []dynamo.TokenID { return n }
	e, _ := start(t, func(c *mocker.Config) {
		c.Speedup, c.Words, c.Shape = 0, words, mocker.Shape{Open: ids(100, 101), Close: ids(102, 103), Ratio: 0.6}
	})
	r := &dynamo.Request{Tokens: testPrompt(5), MaxTokens: 20, IgnoreEOS: true}
	whole := ask(t, e, r).Tokens
	if !slices.Equal(whole[:2], ids(100, 101)) || !slices.Equal(whole[12:14], ids(102, 103)) || slices.ContainsFunc(slices.Concat(whole[2:12], whole[14:]), func(id dynamo.TokenID) bool { return !slices.Contains(words, id) }) {
		t.Errorf("got %v", whole)
	}
	for k := range whole {
		r.Resume = whole[:k]
		if got := ask(t, e, r).Tokens; !slices.Equal(got, whole[k:]) {
			t.Fatalf("resumed after %d: got %v, want %v", k, got, whole[k:])
		}
	}
	tool, _ := start(t, func(c *mocker.Config) {
		c.Speedup, c.Words, c.Shape = 0, words, mocker.Shape{Open: ids(100, 101, 104), Only: true}
	})
	if a := ask(t, tool, &dynamo.Request{Tokens: testPrompt(5), MaxTokens: 20}); !slices.Equal(a.Tokens, ids(100, 101, 104, 1)) || a.Finish != dynamo.FinishStop {
		t.Errorf("got %v, %v", a.Tokens, a.Finish)
	}
}

// What is drawn depends on seed and choice above temperature 0, and on nothing else.
func TestSeed(t *testing.T) {
	e, _ := start(t, func(c *mocker.Config) { c.Speedup = 0 })
	tokens := func(choice int, seed uint64, temperature float32) []dynamo.TokenID {
		return ask(t, e, &dynamo.Request{Tokens: testPrompt(9), MaxTokens: 8, IgnoreEOS: true, Choice: choice, Sampling: dynamo.Sampling{Seed: seed, Temperature: temperature}}).Tokens
	}
	if !slices.Equal(tokens(0, 1, 0), tokens(0, 2, 0)) || slices.Equal(tokens(0, 1, 0), tokens(1, 1, 0)) {
		t.Error("greedy answers depend on the seed, or not on the choice")
	}
	if slices.Equal(tokens(0, 1, 1), tokens(0, 2, 1)) || !slices.Equal(tokens(0, 1, 1), tokens(0, 1, 1)) {
		t.Error("drawn answers do not depend on the seed alone")
	}
}

func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, ended := start(t, func(c *mocker.Config) { c.Faults.CrashAfter, c.Ranks = 30, 2 })
		var all sync.WaitGroup
		var delivered [4]int
		for i := range delivered {
			all.Go(func() {
				a, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: testPrompt(10 + i), MaxTokens: 100, IgnoreEOS: true})
				if delivered[i] = len(a.Tokens); dynamo.KindOf(err) != dynamo.KindUnavailable {
					t.Errorf("request %d: got %v, want unavailable", i, err)
				}
			})
		}
		all.Wait()
		if err := <-ended; err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v, want the crash", err)
		}
		if sum := delivered[0] + delivered[1] + delivered[2] + delivered[3]; sum < 30 || sum > 64 {
			t.Errorf("%v tokens were delivered", delivered)
		}
		if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: testPrompt(10), MaxTokens: 1}); dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Errorf("after the crash: got %v", err)
		}
	})
}

// A stalled engine sends nothing more, and lets go of what is cancelled.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := start(t, func(c *mocker.Config) { c.Faults.StallAfter = 5 })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		a, err := enginetest.Collect(ctx, e, &dynamo.Request{Tokens: testPrompt(10), MaxTokens: 100, IgnoreEOS: true, Deadline: time.Now().Add(time.Minute)})
		if len(a.Tokens) != 5 || dynamo.KindOf(err) != dynamo.KindDeadline {
			t.Errorf("got %d tokens and %v", len(a.Tokens), err)
		}
		if err := idle(e); err != nil {
			t.Error(err)
		}
	})
}

func TestRefuse(t *testing.T) {
	e, _ := start(t, func(c *mocker.Config) { c.Speedup, c.Faults.Refuse, c.Seed = 0, 0.3, 5 })
	refused := 0
	for i := range 300 {
		r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprint(i)), Tokens: testPrompt(3), MaxTokens: 1}
		_, first := enginetest.Collect(t.Context(), e, r)
		_, again := enginetest.Collect(t.Context(), e, r)
		if (first == nil) != (again == nil) || first != nil && dynamo.KindOf(first) != dynamo.KindExhausted {
			t.Fatalf("got %v and %v", first, again)
		}
		if first != nil {
			refused++
		}
	}
	if refused < 60 || refused > 120 {
		t.Errorf("%d of 300 were refused", refused)
	}
}

// told keeps what events say is in the caches of the ranks.
type told struct {
	sync.Mutex
	have   map[int]map[dynamo.BlockHash]bool
	events int
}

func (o *told) hear(rank int, events []kvbm.Event) {
	o.Lock()
	defer o.Unlock()
	if o.have == nil {
		o.have = map[int]map[dynamo.BlockHash]bool{}
	}
	if o.have[rank] == nil {
		o.have[rank] = map[dynamo.BlockHash]bool{}
	}
	for _, e := range events {
		o.events++
		for _, b := range e.Blocks {
			o.have[rank][b.Hash] = true
		}
		for _, h := range e.Hashes {
			delete(o.have[rank], h)
		}
	}
}

func (o *told) blocks() (n int) {
	for _, h := range o.have {
		n += len(h)
	}
	return n
}

// Events tell what the caches hold, rank by rank; with faults they do not.
func TestEvents(t *testing.T) {
	run := func(change func(*mocker.Config)) (*told, *mocker.Engine) {
		o := &told{}
		e, _ := start(t, func(c *mocker.Config) {
			c.Speedup, c.Ranks, c.Blocks, c.Events = 0, 2, 60, o.hear
			change(c)
		})
		for i := range 40 {
			ask(t, e, &dynamo.Request{Tokens: testPrompt(20 + i), MaxTokens: 20, IgnoreEOS: true})
		}
		return o, e
	}
	o, e := run(func(*mocker.Config) {})
	if got, want := o.blocks(), e.Stats().Scheduler.KV.Idle; got != want || len(o.have) != 2 {
		t.Errorf("events tell of %d blocks of %d ranks, the caches hold %d", got, len(o.have), want)
	}
	all := o.events
	o, e = run(func(c *mocker.Config) { c.Faults.DropEvents = 0.2 })
	if o.events > all*9/10 || o.events < all/2 || o.blocks() == e.Stats().Scheduler.KV.Idle {
		t.Errorf("%d events of %d came through", o.events, all)
	}
	o, e = run(func(c *mocker.Config) { c.Faults.WrongEvents = 0.2 })
	if o.events != all || o.blocks() == e.Stats().Scheduler.KV.Idle {
		t.Errorf("%d events of %d came through and tell of %d blocks", o.events, all, o.blocks())
	}
}

// A rank that the machine holds up makes up for what it can, and counts the rest.
func TestLate(t *testing.T) {
	for _, c := range []struct{ held, late, took time.Duration }{
		{60 * time.Millisecond, 0, 100 * time.Millisecond},
		{350 * time.Millisecond, 250 * time.Millisecond, 360 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			step := 0
			e, _ := start(t, func(m *mocker.Config) {
				m.Observe = func(int, []sched.Action, *sched.Batch) {
					if step++; step == 11 {
						time.Sleep(c.held)
					}
				}
			})
			began := time.Now()
			ask(t, e, &dynamo.Request{Tokens: testPrompt(1), MaxTokens: 100, IgnoreEOS: true})
			if took, late := time.Since(began), e.Late(); late != c.late || took < c.took || took > c.took+time.Millisecond {
				t.Errorf("held up for %v: took %v, late by %v; want %v, %v", c.held, took, late, c.took, c.late)
			}
		})
	}
}

func TestStartup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := mocker.New(testConfig(func(c *mocker.Config) { c.Startup = 30 * time.Second }))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := e.Ready(t.Context()); err != nil || time.Since(began) != 30*time.Second {
			t.Errorf("ready after %v: %v", time.Since(began), err)
		}
	})
}

func TestParseFault(t *testing.T) {
	f := mocker.DefaultConfig().Faults
	for _, text := range []string{"slow=2.5", "stall=10", "crash=20", "refuse=0.1", "drop-events=0.2", "wrong-events=0.3", "lose-events=0.4"} {
		if err := mocker.ParseFault(&f, text); err != nil {
			t.Error(err)
		}
	}
	if want := (mocker.Faults{Slow: 2.5, StallAfter: 10, CrashAfter: 20, Refuse: 0.1, DropEvents: 0.2, WrongEvents: 0.3, LoseEvents: 0.4}); f != want || f.Validate() != nil {
		t.Errorf("got %+v, %v", f, f.Validate())
	}
	for _, text := range []string{"", "slow", "slow=", "fast=2", "slow=x"} {
		if err := mocker.ParseFault(&f, text); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("%q: got %v", text, err)
		}
	}
	for _, text := range []string{"slow=NaN", "slow=-1", "refuse=2", "drop-events=-0.1"} {
		f := mocker.Faults{}
		if err := mocker.ParseFault(&f, text); err == nil && f.Validate() == nil {
			t.Errorf("%q passes", text)
		}
	}
}
