package native

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/kvbm"
)

const testVocab, testBlock, testContext = 300, 4, 160

// hashing is a stand-in for a model. Its KV is, for each position, a hash of the
// token there and of the hash before it, read back through the block table; its
// logits are a function of that hash. So an id depends on every token before it
// and on the block table being right all along.
type hashing struct {
	t     testing.TB
	kv    []uint64 // [block][position]
	rows  [][]float32
	used  int
	delay time.Duration
	fault func(step int) error // may panic
	steps int
	order []dynamo.RequestID // of first appearance
	still bool               // the logits stay what they were: for measuring what is around them
}

// gate holds up the step until the channel it returns is closed.
func (h *hashing) gate(step int) chan struct{} {
	open := make(chan struct{})
	h.fault = func(n int) error {
		if n == step {
			<-open
		}
		return nil
	}
	return open
}

func newHashing(t testing.TB, blocks int) *hashing {
	return &hashing{t: t, kv: make([]uint64, blocks*testBlock), fault: func(int) error { return nil }}
}

func (h *hashing) run(entries []sched.Entry) error {
	h.used, h.steps = 0, h.steps+1
	if h.delay > 0 {
		time.Sleep(h.delay)
	}
	if err := h.fault(h.steps); err != nil {
		return err
	}
	for i := range entries {
		e := &entries[i]
		if r := e.Ref.(*loop.Task).Request.ID; e.Output == 0 && e.Sample {
			h.order = append(h.order, r)
		}
		for j, id := range e.Tokens {
			p := e.Start + j
			state := uint64(99)
			if p > 0 {
				state = h.kv[int(e.Blocks[(p-1)/testBlock])*testBlock+(p-1)%testBlock]
			}
			state = (state ^ uint64(id)) * 0x9e3779b97f4a7c15
			state ^= state >> 29
			h.kv[int(e.Blocks[p/testBlock])*testBlock+p%testBlock] = state
			if e.Logits == sched.LogitsAll || e.Logits == sched.LogitsLast && j == len(e.Tokens)-1 {
				h.logits(state)
			}
		}
	}
	return nil
}

func (h *hashing) logits(state uint64) {
	if h.used == len(h.rows) {
		h.rows = append(h.rows, make([]float32, testVocab))
	}
	if h.still {
		h.used++
		return
	}
	random := rand.New(rand.NewPCG(state, 1))
	for i := range h.rows[h.used] {
		h.rows[h.used][i] = float32(random.NormFloat64() * 2)
	}
	h.used++
}

func (h *hashing) row(i int) []float32 {
	if i >= h.used {
		h.t.Errorf("row %d of %d is asked for", i, h.used)
	}
	return h.rows[i]
}

func (h *hashing) close() error { return nil }

func testCard() engine.Card {
	return engine.Card{
		Model: "hashing", Engine: "native", ContextLength: testContext, BlockSize: testBlock, VocabSize: testVocab,
		EOS: []dynamo.TokenID{1}, MaxTopLogprobs: MaxTopLogprobs, PromptLogprobs: true, Sampling: true, Resume: true, ResumeSeeded: true,
	}
}

func testConfig() Config {
	c := DefaultConfig()
	c.Name, c.Blocks, c.MaxRunning, c.StepTokens, c.MaxQueue = "hashing", 400, 16, 48, 64
	return c
}

// start runs an engine on h until the test ends.
func start(t testing.TB, h *hashing, change func(*Config)) *Engine {
	t.Helper()
	e := assemble(t, h, change)
	run(t, e)
	return e
}

func assemble(t testing.TB, h *hashing, change func(*Config)) *Engine {
	t.Helper()
	c := testConfig()
	c.Blocks = len(h.kv) / testBlock
	change(&c)
	e, err := build(c, testCard(), h, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// run runs e until the test ends.
func run(t testing.TB, e *Engine) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
}

// together asks all requests of e, which is not running yet, runs it once they are
// there, and compares the answers.
func together(t *testing.T, e *Engine, requests []*dynamo.Request, want []enginetest.Answer) {
	t.Helper()
	var all sync.WaitGroup
	for i, r := range requests {
		all.Go(func() {
			got, err := enginetest.Collect(t.Context(), e, r)
			if err != nil {
				t.Errorf("request %d: %v", i, err)
				return
			}
			if !slices.Equal(got.Tokens, want[i].Tokens) || got.Finish != want[i].Finish {
				t.Errorf("request %d: got %v, %v; want %v, %v", i, got.Tokens, got.Finish, want[i].Tokens, want[i].Finish)
			}
			same(t, i, got.Logprobs, want[i].Logprobs)
			same(t, i, got.PromptLogprobs, want[i].PromptLogprobs)
		})
		awaitSubmitted(e, i+1) // in this order, so that the batches are the same each time
	}
	run(t, e)
	all.Wait()
	if err := idle(e); err != nil {
		t.Error(err)
	}
}

func awaitSubmitted(e *Engine, n int) {
	for e.Stats().Submitted < n {
		time.Sleep(100 * time.Microsecond)
	}
}

func plain(*Config) {}

// idle returns an error if e holds anything for a request.
func idle(e *Engine) error {
	s := e.Stats()
	kv := s.Scheduler.KV
	if s.Busy() > 0 || kv.Partial+kv.Complete+kv.Held+kv.Loading+kv.Leases > 0 {
		return fmt.Errorf("%d requests, blocks %+v", s.Busy(), kv)
	}
	return nil
}

func testPrompt(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(2 + (n*31+i*i*7+i)%(testVocab-2))
	}
	return ids
}

func TestConformance(t *testing.T) {
	for _, mode := range []struct {
		name   string
		blocks int
		change func(*Config)
	}{
		{"plain", 400, plain},
		{"small chunks", 400, func(c *Config) { c.MaxRunning, c.StepTokens = 3, 5 }},
		{"small pool", 42, plain},
		{"no prefix caching", 400, func(c *Config) { c.PrefixCaching = false }},
	} {
		t.Run(mode.name, func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				e := start(t, newHashing(t, mode.blocks), mode.change)
				return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: testPrompt, Idle: func() error { return idle(e) }}
			})
		})
	}
}

func collect1(t *testing.T, e *Engine, r *dynamo.Request) enginetest.Answer {
	t.Helper()
	a, err := enginetest.Collect(t.Context(), e, r)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestAloneEqualsTogether asks random requests alone of a roomy engine and all at
// once of one that must preempt, cut and share: the ids are the same, greedy or not.
func TestAloneEqualsTogether(t *testing.T) {
	alone := start(t, newHashing(t, 1000), func(c *Config) { c.PrefixCaching = false })
	const requests = 150
	var ask [requests]*dynamo.Request
	var want [requests]enginetest.Answer
	prefix := testPrompt(50)
	for i := range ask {
		random := rand.New(rand.NewPCG(21, uint64(i)))
		r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprint(i)), Tokens: testPrompt(1 + random.IntN(90)), MaxTokens: 1 + random.IntN(60), Priority: random.IntN(3)}
		if random.IntN(2) == 0 {
			r.Tokens = slices.Concat(prefix[:random.IntN(len(prefix)+1)], r.Tokens[:1+random.IntN(len(r.Tokens))])
		}
		if random.IntN(2) == 0 {
			r.Sampling = randomSampling(random, testVocab)
		}
		r.Sampling.Logprobs, r.Sampling.TopLogprobs = random.IntN(4) == 0, random.IntN(3)
		r.Sampling.PromptLogprobs = random.IntN(8) == 0
		ask[i], want[i] = r, collect1(t, alone, r)
	}
	for _, mode := range []struct {
		name   string
		blocks int
		change func(*Config)
	}{
		{"roomy", 3000, plain},
		{"tight", 60, plain},
		{"tight without caching", 60, func(c *Config) { c.PrefixCaching = false }},
		{"tiny steps", 80, func(c *Config) { c.MaxRunning, c.StepTokens = 7, 7 }},
		{"one at a time", 200, func(c *Config) { c.MaxRunning = 1 }},
	} {
		t.Run(mode.name, func(t *testing.T) {
			e := assemble(t, newHashing(t, mode.blocks), func(c *Config) { mode.change(c); c.MaxQueue = 1000 })
			together(t, e, ask[:], want[:])
			s := e.Stats()
			t.Logf("steps %d, tokens %d, preemptions %d, cached %d of %d prompt tokens", s.Scheduler.Steps, s.Scheduler.Tokens, s.Scheduler.Preemptions, s.CachedTokens, s.PromptTokens)
			if mode.blocks == 60 && s.Scheduler.Preemptions == 0 {
				t.Error("nothing was preempted: the test is too weak")
			}
			if mode.name == "roomy" && s.CachedTokens == 0 {
				t.Error("nothing was found in the cache: the test is too weak")
			}
		})
	}
}

func same(t *testing.T, request int, got, want []dynamo.TokenLogprob) {
	t.Helper()
	equal := func(a, b dynamo.TokenLogprob) bool {
		return a.ID == b.ID && (a.Logprob == b.Logprob || a.Logprob != a.Logprob && b.Logprob != b.Logprob) && slices.Equal(a.Top, b.Top)
	}
	if !slices.EqualFunc(got, want, equal) {
		t.Errorf("request %d: got logprobs %v, want %v", request, got, want)
	}
}

// TestStorm ends requests in every way at random times; nothing is left, and the
// engine still answers as before.
func TestStorm(t *testing.T) {
	h := newHashing(t, 100)
	h.delay = 20 * time.Microsecond
	e := start(t, h, plain)
	r := &dynamo.Request{Tokens: testPrompt(20), MaxTokens: 30}
	want := collect1(t, e, r).Tokens
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			random := rand.New(rand.NewPCG(8, uint64(i)))
			time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(20))*time.Millisecond)
			defer cancel()
			stop := random.IntN(40)
			r := &dynamo.Request{Tokens: testPrompt(1 + random.IntN(100)), MaxTokens: 40}
			if random.IntN(3) == 0 {
				r.Deadline = time.Now().Add(time.Duration(random.IntN(10)) * time.Millisecond)
			}
			for chunk, err := range e.Generate(ctx, r) {
				if err != nil {
					if k := dynamo.KindOf(err); k != dynamo.KindDeadline && k != dynamo.KindExhausted {
						t.Errorf("request %d: %v", i, err)
					}
					return
				}
				if stop -= len(chunk.Tokens); stop < 0 {
					break
				}
			}
		})
	}
	all.Wait()
	if err := idle(e); err != nil {
		t.Error(err)
	}
	if got := collect1(t, e, r).Tokens; !slices.Equal(got, want) {
		t.Errorf("after the storm: got %v, want %v", got, want)
	}
}

func TestQueueFull(t *testing.T) {
	h := newHashing(t, 100)
	open := h.gate(1)
	e := start(t, h, func(c *Config) { c.MaxRunning, c.MaxQueue = 1, 2 })
	const requests = 30
	refused, served := 0, 0
	var mu sync.Mutex
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			_, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: testPrompt(3), MaxTokens: 20})
			mu.Lock()
			defer mu.Unlock()
			var refusal *dynamo.Error
			switch {
			case err == nil:
				served++
			case errors.As(err, &refusal) && refusal.Kind == dynamo.KindExhausted && refusal.RetryAfter > 0:
				if refused++; refused == requests/2 {
					close(open)
				}
			default:
				t.Errorf("got %v, want a full queue", err)
			}
		})
	}
	all.Wait()
	// Where all come before the loop has taken one of them in, the queue is all there is.
	if served < 2 || served+refused != requests {
		t.Errorf("%d served, %d refused; want 2 or more of %d, and the others", served, refused, requests)
	}
}

func TestFailingStep(t *testing.T) {
	for _, mode := range []struct {
		name  string
		fault func(int) error
	}{
		{"error", func(step int) error {
			if step%5 == 4 {
				return errors.New("out of order")
			}
			return nil
		}},
		{"panic", func(step int) error {
			if step%5 == 4 {
				panic("BUG: made for the test")
			}
			return nil
		}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			h := newHashing(t, 100)
			want := collect1(t, start(t, newHashing(t, 100), plain), &dynamo.Request{Tokens: testPrompt(9), MaxTokens: 3}).Tokens
			h.fault = mode.fault
			var last uint64
			e := start(t, h, func(c *Config) {
				c.Events = func(events []kvbm.Event) {
					for _, ev := range events {
						if ev.Seq != last+1 {
							t.Errorf("event %d follows %d", ev.Seq, last)
						}
						last = ev.Seq
					}
				}
			})
			failed := 0
			for range 20 {
				a, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: testPrompt(9), MaxTokens: 3, IgnoreEOS: true})
				switch {
				case err != nil && dynamo.KindOf(err) == dynamo.KindInternal:
					failed++
				case err != nil:
					t.Errorf("got %v, want an internal error", err)
				case !slices.Equal(a.Tokens, want):
					t.Errorf("got %v, want %v", a.Tokens, want)
				}
				if err := idle(e); err != nil {
					t.Fatal(err)
				}
			}
			if failed == 0 || failed == 20 {
				t.Errorf("%d of 20 failed", failed)
			}
			if mode.name == "panic" && e.Stats().Panics == 0 {
				t.Error("no panic was counted")
			}
		})
	}
}

func TestDrain(t *testing.T) {
	h := newHashing(t, 100)
	open := h.gate(5)
	e, err := build(testConfig(), testCard(), h, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	h.kv = make([]uint64, testConfig().Blocks*testBlock)
	ran := make(chan error, 1)
	answered := make(chan error, 3)
	began := make(chan bool, 3)
	for range 3 {
		go func() { // submitted before Run: it waits
			var failure error
			for _, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: testPrompt(5), MaxTokens: 30, IgnoreEOS: true}) {
				select {
				case began <- true:
				default:
				}
				failure = err
			}
			answered <- failure
		}()
	}
	awaitSubmitted(e, 3)
	go func() { ran <- e.Run(t.Context()) }()
	<-began
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := e.Drain(short); err == nil {
		t.Error("drained at once, with requests in progress")
	}
	if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: testPrompt(5), MaxTokens: 3}); dynamo.KindOf(err) != dynamo.KindUnavailable {
		t.Errorf("while draining: got %v, want unavailable", err)
	}
	close(open)
	if err := e.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := <-answered; err != nil {
			t.Errorf("an accepted request ended in %v", err)
		}
	}
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := idle(e); err != nil {
		t.Error(err)
	}
}

// TestTakenBack ends requests that the loop has not seen.
func TestTakenBack(t *testing.T) {
	e, err := build(testConfig(), testCard(), newHashing(t, 400), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := enginetest.Collect(ctx, e, &dynamo.Request{Tokens: testPrompt(5), MaxTokens: 3}); dynamo.KindOf(err) != dynamo.KindDeadline {
		t.Errorf("got %v, want deadline", err)
	}
	if err := idle(e); err != nil {
		t.Error(err)
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if err := e.Run(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestStop(t *testing.T) {
	h := newHashing(t, 400)
	h.delay = time.Millisecond
	e, err := build(testConfig(), testCard(), h, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	answered := make(chan error)
	for range 40 {
		go func() {
			_, err := enginetest.Collect(context.Background(), e, &dynamo.Request{Tokens: testPrompt(5), MaxTokens: 120, IgnoreEOS: true})
			answered <- err
		}()
	}
	time.Sleep(5 * time.Millisecond)
	cancel()
	for range 40 {
		if err := <-answered; dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Errorf("got %v, want unavailable", err)
		}
	}
	if err := <-ran; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	if err := idle(e); err != nil {
		t.Error(err)
	}
}

// TestSlowReaderCoalesces checks that a reader that sleeps holds up nothing and
// finds all ids in one piece.
func TestSlowReaderCoalesces(t *testing.T) {
	e := start(t, newHashing(t, 400), plain)
	chunks, tokens := 0, 0
	for chunk, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: testPrompt(5), MaxTokens: 100, IgnoreEOS: true}) {
		if err != nil {
			t.Fatal(err)
		}
		chunks, tokens = chunks+1, tokens+len(chunk.Tokens)
		for e.Stats().Busy() > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if tokens != 100 || chunks > 3 {
		t.Errorf("got %d tokens in %d chunks, want 100 in at most 3", tokens, chunks)
	}
}

// TestErrorAfterMail lets a request fail while its reader still has ids to take.
func TestErrorAfterMail(t *testing.T) {
	h := newHashing(t, 400)
	h.delay = 2 * time.Millisecond // the reader has the first id before the next is drawn
	e := start(t, h, plain)
	h.fault = func(step int) error {
		if step == 10 {
			return errors.New("out of order")
		}
		return nil
	}
	tokens := 0
	var failure error
	for chunk, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: testPrompt(5), MaxTokens: 100, IgnoreEOS: true}) {
		if tokens, failure = tokens+len(chunk.Tokens), err; err != nil {
			continue
		}
		for e.Stats().Busy() > 0 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(5 * time.Millisecond) // the counts are published before the end
	}
	if tokens != 9 || failure == nil || dynamo.KindOf(failure) != dynamo.KindInternal {
		t.Errorf("got %d tokens and the error %v, want the 9 of the good steps and an internal one", tokens, failure)
	}
}

// TestDeadlineInEngine has one request run and one wait past their deadlines.
func TestDeadlineInEngine(t *testing.T) {
	h := newHashing(t, 400)
	h.delay = 5 * time.Millisecond
	e := start(t, h, func(c *Config) { c.MaxRunning = 1 })
	ask := func(most int, left time.Duration) (enginetest.Answer, time.Duration, error) {
		r := &dynamo.Request{Tokens: testPrompt(5), MaxTokens: most, IgnoreEOS: true, Deadline: time.Now().Add(left)}
		a, err := enginetest.Collect(t.Context(), e, r)
		return a, time.Since(r.Deadline), err
	}
	var all sync.WaitGroup
	all.Go(func() {
		if a, late, err := ask(150, 300*time.Millisecond); dynamo.KindOf(err) != dynamo.KindDeadline || len(a.Tokens) == 0 || late > 5*time.Second {
			t.Errorf("running: got %d tokens, %v late, %v", len(a.Tokens), late, err)
		}
	})
	for e.Stats().Scheduler.Running == 0 {
		time.Sleep(time.Millisecond)
	}
	if a, late, err := ask(150, 20*time.Millisecond); dynamo.KindOf(err) != dynamo.KindDeadline || len(a.Tokens) > 0 || late > 5*time.Second {
		t.Errorf("waiting: got %d tokens, %v late, %v", len(a.Tokens), late, err)
	}
	all.Wait()
}

// TestRoots checks that equal prompts share KV under one root only.
func TestRoots(t *testing.T) {
	e := start(t, newHashing(t, 400), plain)
	ask := func(root dynamo.CacheRoot) int {
		return collect1(t, e, &dynamo.Request{Tokens: testPrompt(41), MaxTokens: 2, Root: root}).Cached
	}
	if got := []int{ask(0), ask(7), ask(0), ask(7), ask(8)}; !slices.Equal(got, []int{0, 0, 40, 40, 0}) {
		t.Errorf("cached tokens: got %v", got)
	}
}

// TestChoicesShare checks that the choices of a request find the KV of the first.
func TestChoicesShare(t *testing.T) {
	e := start(t, newHashing(t, 400), plain)
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(41), MaxTokens: 10, N: 3, Sampling: dynamo.Sampling{Temperature: 1}}
	all, err := enginetest.CollectChoices(t.Context(), engine.Expand(e), r)
	if err != nil {
		t.Fatal(err)
	}
	if got := []int{all[0].Cached, all[1].Cached, all[2].Cached}; !slices.Equal(got, []int{0, 40, 40}) {
		t.Errorf("cached tokens of the choices: got %v", got)
	}
}

// TestPriority has a queue overtaken by a request of higher priority.
func TestPriority(t *testing.T) {
	h := newHashing(t, 400)
	e := assemble(t, h, func(c *Config) { c.MaxRunning = 1 })
	var all sync.WaitGroup
	for i, priority := range []int{0, 0, 9, 0} {
		all.Go(func() {
			r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprint(i)), Tokens: testPrompt(5), MaxTokens: 5, IgnoreEOS: true, Priority: priority}
			if _, err := enginetest.Collect(t.Context(), e, r); err != nil {
				t.Error(err)
			}
		})
		awaitSubmitted(e, i+1)
	}
	run(t, e)
	all.Wait()
	if want := []dynamo.RequestID{"2", "0", "1", "3"}; !slices.Equal(h.order, want) {
		t.Errorf("computed in the order %v, want %v", h.order, want)
	}
}

// TestEvents checks that the events tell what the cache holds (I3).
func TestEvents(t *testing.T) {
	known := map[dynamo.BlockHash]bool{}
	var mu sync.Mutex
	e := start(t, newHashing(t, 60), func(c *Config) {
		c.Events = func(events []kvbm.Event) {
			mu.Lock()
			defer mu.Unlock()
			for _, ev := range events {
				for _, b := range ev.Blocks {
					known[b.Hash] = true
				}
				for _, h := range ev.Hashes {
					if !known[h] {
						t.Errorf("block %v is removed, but was not stored", h)
					}
					delete(known, h)
				}
			}
		}
	})
	for i := range 40 {
		collect1(t, e, &dynamo.Request{Tokens: testPrompt(1 + i*2), MaxTokens: 10})
	}
	left := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(known)
	}
	for i := 0; left() != e.Stats().Scheduler.KV.Idle && i < 1000; i++ { // the last end comes before its events
		time.Sleep(time.Millisecond)
	}
	if kv := e.Stats().Scheduler.KV; left() != kv.Idle || kv.Idle == 0 {
		t.Errorf("the events leave %d blocks, the pool has %d", left(), kv.Idle)
	}
}

func TestSteadyStateAllocations(t *testing.T) {
	e := start(t, newHashing(t, 400), plain)
	ask := func(n int) float64 {
		r := &dynamo.Request{Tokens: testPrompt(20), MaxTokens: n, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, TopP: 0.9}}
		return testing.AllocsPerRun(20, func() {
			for _, err := range e.Generate(t.Context(), r) {
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	// The stand-in model allocates one generator per row; growing the mail's buffers
	// is all that may be added.
	few, many := ask(20), ask(120)
	if perToken := (many - few - 100) / 100; perToken > 0.1 {
		t.Errorf("%.2f allocations per token (%v for 20, %v for 120)", perToken, few, many)
	}
}

func TestConfig(t *testing.T) {
	err := Config{Aging: -1, ContextLength: -1}.Validate()
	if good := testConfig().Validate(); good != nil {
		t.Error(good)
	}
	for _, flag := range []string{"--model-name", "--context-length", "--kv-cache-bytes", "--max-running", "--max-queue", "--step-tokens", "aging of priorities"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("got %v, want a fault of %s", err, flag)
		}
	}
}
