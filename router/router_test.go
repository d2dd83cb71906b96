package router_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"iter"
	"math/rand/v2"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/echo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/router/placement"
)

// scripted is a worker's engine that does what do says, and counts.
type scripted struct {
	do      func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool)
	asked   atomic.Int64
	running atomic.Int64
}

func (s *scripted) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		s.asked.Add(1)
		s.running.Add(1)
		defer s.running.Add(-1)
		s.do(ctx, r, yield)
	}
}

func answer(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
	yield(dynamo.Chunk{Choice: r.Choice, Tokens: []dynamo.TokenID{7}, Finish: dynamo.FinishLength, Usage: dynamo.Usage{Prompt: len(r.Tokens), Completion: len(r.Resume) + 1}}, nil)
}

// takes answers after d.
func takes(d time.Duration) *scripted {
	return &scripted{do: func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		select {
		case <-time.After(d):
			answer(ctx, r, yield)
		case <-ctx.Done():
			yield(dynamo.Chunk{}, engine.ContextError(ctx))
		}
	}}
}

func fails(code string) *scripted {
	return &scripted{do: func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: code, Message: code})
	}}
}

func open(t testing.TB, change func(*router.Config)) *router.Router {
	t.Helper()
	c := router.DefaultConfig()
	c.Model, c.Mode = "m", "round-robin"
	change(&c)
	r, err := router.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func defaults(*router.Config) {}

func add(t testing.TB, r *router.Router, id int, e engine.Engine, running, queue int) {
	t.Helper()
	w := router.Worker{ID: dynamo.WorkerID(id), Epoch: 1, Engine: e, Card: engine.Card{Model: "m"}, MaxRunning: running, MaxQueue: queue}
	if err := r.Add(w); err != nil {
		t.Fatal(err)
	}
	r.SetUp(w.ID, w.Epoch, true)
}

func request(id string) *dynamo.Request {
	return &dynamo.Request{ID: dynamo.RequestID(id), Model: "m", Tokens: []dynamo.TokenID{1, 2, 3}, MaxTokens: 5}
}

func ask(t testing.TB, r engine.Engine, id string) error {
	_, err := enginetest.Collect(t.Context(), r, request(id))
	return err
}

// idle fails the test if anything is booked or waits (a booking that drifts).
func idle(t testing.TB, r *router.Router) {
	t.Helper()
	s := r.Stats()
	if s.Booked+s.BookedTokens+s.Waiting != 0 {
		t.Errorf("nothing runs, and the router has %+v", s)
	}
	for _, w := range s.Workers {
		if w.Booked+w.BookedTokens != 0 {
			t.Errorf("nothing runs, and worker %v has %+v", w.ID, w)
		}
	}
	for _, b := range r.Records() {
		d, err := placement.ParseRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 0, false: placement.None}[d.Outcome == placement.Fit]; d.Again() != want {
			t.Errorf("the record of a decision gives %d again, and has %d", d.Again(), want)
		}
	}
}

func code(err error) string {
	if e, ok := err.(*dynamo.Error); ok {
		return e.Kind.String() + " " + e.Code
	}
	return fmt.Sprint(err)
}

// flaky is an engine that dies at positions keyed by the request and how much of
// it there is. Word of it reaches the router as that of a connection would.
type flaky struct {
	next engine.Engine
	id   dynamo.WorkerID
	r    *router.Router
}

func (f flaky) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		h := fnv.New64a()
		fmt.Fprint(h, r.ID, len(r.Tokens), r.MaxTokens, r.Resume, r.Choice)
		left := int(h.Sum64()>>8) % 5
		if left == 0 && f.id != 1 {
			left = 3 // one in three dies before its first chunk, and the next does not
		}
		for c, err := range f.next.Generate(ctx, r) {
			if err == nil && len(c.Tokens) > 0 && ctx.Err() == nil {
				if left--; left < 0 {
					f.r.SetUp(f.id, 1, false)
					f.r.SetUp(f.id, 1, true)
					yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "gone"})
					return
				}
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

func TestConformance(t *testing.T) {
	for _, mode := range modes() {
		for _, dies := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s dies=%t", mode, dies), func(t *testing.T) {
				enginetest.Run(t, func(t *testing.T) enginetest.Subject { return subject(t, mode, dies) })
			})
		}
	}
}

func subject(t *testing.T, mode string, dies bool) enginetest.Subject {
	c := echo.DefaultConfig()
	c.ContextLength, c.VocabSize, c.EOS, c.ChunkTokens = 512, 1000, []dynamo.TokenID{2, 3}, 1
	e, err := echo.New(c)
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, func(c *router.Config) { c.Mode, c.Model = mode, "" })
	var top engine.Engine = r
	for id := dynamo.WorkerID(1); id <= 3; id++ {
		w := router.Worker{ID: id, Epoch: 1, Engine: e, Card: e.Card(), MaxRunning: 5}
		if dies {
			w.Engine = flaky{e, id, r}
		}
		if err := r.Add(w); err != nil {
			t.Fatal(err)
		}
		r.SetUp(id, 1, true)
	}
	if dies {
		m := engine.DefaultMigrateConfig()
		m.Limit, m.Card = 1000, e.Card()
		if top, err = engine.NewMigrate(r, m); err != nil {
			t.Fatal(err)
		}
	}
	return enginetest.Subject{Engine: top, Card: e.Card(), Prompt: prompt, Idle: func() error {
		if s := r.Stats(); s.Booked+s.BookedTokens+s.Waiting > 0 {
			return fmt.Errorf("the router has %+v", s)
		}
		return nil
	}}
}

func prompt(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(10 + (n*7+i*i)%900)
	}
	return ids
}

func TestNextCandidate(t *testing.T) {
	for _, c := range []struct {
		code, again string // and the state afterwards
	}{
		{engine.CodeRefused, "up suspect=false"},
		{engine.CodeDraining, "draining suspect=false"},
		{engine.CodeLost, "up suspect=true"},
	} {
		r := open(t, defaults)
		bad, good := fails(c.code), takes(0)
		add(t, r, 1, bad, 0, 0)
		add(t, r, 2, good, 0, 0)
		for i := range 6 {
			if err := ask(t, r, fmt.Sprint("r", i)); err != nil {
				t.Errorf("%s: %v", c.code, err)
			}
		}
		if bad.asked.Load() != 1 || good.asked.Load() != 6 {
			t.Errorf("%s: asked the bad worker %d times and the good one %d; want 1 and 6", c.code, bad.asked.Load(), good.asked.Load())
		}
		w := r.Stats().Workers[0]
		if got := fmt.Sprintf("%v suspect=%t", w.State, w.Suspect); got != c.again {
			t.Errorf("%s: the worker is %s, want %s", c.code, got, c.again)
		}
		idle(t, r)
	}
}

// TestErrorsPass: an error of another kind, and any after the first chunk, is the
// caller's.
func TestErrorsPass(t *testing.T) {
	for _, c := range []struct {
		first bool
		code  string
	}{{false, ""}, {false, engine.CodeStalled}, {true, engine.CodeLost}, {true, engine.CodeDraining}, {true, engine.CodeRefused}} {
		r := open(t, defaults)
		want := &dynamo.Error{Kind: dynamo.KindUnavailable, Code: c.code, Message: "x"}
		e := &scripted{do: func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			if !c.first || yield(dynamo.Chunk{Tokens: []dynamo.TokenID{1}}, nil) {
				yield(dynamo.Chunk{}, want)
			}
		}}
		add(t, r, 1, e, 0, 0)
		add(t, r, 2, e, 0, 0)
		if err := ask(t, r, "r"); err != want || e.asked.Load() != 1 {
			t.Errorf("%+v: got %v after %d attempts", c, err, e.asked.Load())
		}
		idle(t, r)
	}
}

// TestLostAndBack: word of the connection that came after the booking stands.
func TestLostAndBack(t *testing.T) {
	r := open(t, defaults)
	e := &scripted{}
	e.do = func(ctx context.Context, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		if e.asked.Load() > 1 {
			answer(ctx, q, yield)
			return
		}
		r.SetUp(1, 1, false)
		r.SetUp(1, 1, true)
		fails(engine.CodeLost).do(ctx, q, yield)
	}
	add(t, r, 1, e, 0, 0)
	if err := ask(t, r, "r"); err != nil || e.asked.Load() != 2 {
		t.Errorf("got %v after %d attempts, want an answer at the second", err, e.asked.Load())
	}
}

// TestExcluded: who has failed a request is not asked again while another can be,
// even if it may have others.
func TestExcluded(t *testing.T) {
	r := open(t, leastLoaded)
	back := &scripted{do: func(ctx context.Context, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		r.SetUp(1, 1, true)
		fails(engine.CodeLost).do(ctx, q, yield)
	}}
	good := takes(0)
	add(t, r, 1, back, 100, 0)
	add(t, r, 2, good, 2, 0)
	if err := ask(t, r, "r"); err != nil || back.asked.Load() != 1 || good.asked.Load() != 1 {
		t.Errorf("got %v; asked %d and %d times, want once each", err, back.asked.Load(), good.asked.Load())
	}
}

func TestPanic(t *testing.T) {
	r := open(t, defaults)
	add(t, r, 1, &scripted{do: func(context.Context, *dynamo.Request, func(dynamo.Chunk, error) bool) { panic("engine") }}, 0, 0)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = ask(t, r, "r")
	}()
	idle(t, r)
}

// TestQueue: requests beyond the capacity wait in their order and are woken by
// what ends.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := obs.NewRegistry()
		r := open(t, func(c *router.Config) { c.Metrics = router.NewMetrics(registry) })
		slow := takes(time.Second)
		add(t, r, 1, slow, 1, 1)
		var mu sync.Mutex
		var done []int
		var all sync.WaitGroup
		began := time.Now()
		for i := range 8 {
			all.Go(func() {
				if err := ask(t, r, fmt.Sprint("r", i)); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				done = append(done, i/2)
			})
			synctest.Wait()
		}
		if s := r.Stats(); s.Booked != 2 || s.Waiting != 6 || s.BookedTokens != 16 {
			t.Errorf("got %+v, want 2 booked with 16 tokens, 6 waiting", s)
		}
		if s := scrape(t, registry); !strings.Contains(s, "dynamo_router_booked_requests 2") || !strings.Contains(s, "dynamo_router_waiting_requests 6") || !strings.Contains(s, `dynamo_router_workers{state="up"} 1`) {
			t.Errorf("metrics:\n%s", s)
		}
		all.Wait()
		if time.Since(began) != 4*time.Second || !slices.IsSorted(done) {
			t.Errorf("served in the order %v within %v, want 4 s", done, time.Since(began))
		}
		idle(t, r)
		r.Remove(1, 1)
		if s := scrape(t, registry); !strings.Contains(s, "dynamo_router_booked_requests 0") || !strings.Contains(s, `dynamo_router_requests_total{outcome="completed"} 8`) ||
			!strings.Contains(s, "dynamo_router_wait_seconds_count 6") || !strings.Contains(s, `dynamo_router_workers{state="up"} 0`) {
			t.Errorf("metrics:\n%s", s)
		}
	})
}

func scrape(t *testing.T, r *obs.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	return w.Body.String()
}

func TestGiveUp(t *testing.T) {
	full := func(t *testing.T, r *router.Router) { add(t, r, 1, takes(time.Hour), 1, 0) }
	refuses := func(t *testing.T, r *router.Router) { add(t, r, 1, fails(engine.CodeRefused), 0, 0) }
	down := func(t *testing.T, r *router.Router) { add(t, r, 1, takes(0), 0, 0); r.SetUp(1, 1, false) }
	draining := func(t *testing.T, r *router.Router) { add(t, r, 1, takes(0), 0, 0); r.SetDraining(1, 1) }
	lost := func(t *testing.T, r *router.Router) { add(t, r, 1, fails(engine.CodeLost), 0, 0) }
	nobody := func(*testing.T, *router.Router) {}
	for _, c := range []struct {
		name     string
		set      func(*testing.T, *router.Router)
		deadline time.Duration
		cancel   time.Duration
		wait     time.Duration // of the config
		queue    int
		want     string
		after    time.Duration
	}{
		{"full", full, 0, 0, 10 * time.Second, 9, "exhausted queue_timeout", 10 * time.Second},
		{"refuses", refuses, 0, 0, 10 * time.Second, 9, "exhausted queue_timeout", 10 * time.Second},
		{"down", down, 0, 0, 10 * time.Second, 9, "unavailable no_worker", 10 * time.Second},
		{"draining", draining, 0, 0, 10 * time.Second, 9, "unavailable no_worker", 10 * time.Second},
		{"lost", lost, 0, 0, 9500 * time.Millisecond, 9, "unavailable no_worker", 9500 * time.Millisecond},
		{"nobody", nobody, 0, 0, 10 * time.Second, 9, "unavailable no_worker", 10 * time.Second},
		{"at once", nobody, 0, 0, 0, 9, "unavailable no_worker", 0},
		{"full at once", full, 0, 0, 0, 9, "exhausted queue_timeout", 0},
		{"deadline", full, 3 * time.Second, 0, 10 * time.Second, 9, "deadline ", 3 * time.Second},
		{"late deadline", full, 30 * time.Second, 0, 10 * time.Second, 9, "exhausted queue_timeout", 10 * time.Second},
		{"client gone", full, 0, 2 * time.Second, 10 * time.Second, 9, "cancelled ", 2 * time.Second},
		{"no queue", full, 0, 0, 10 * time.Second, 0, "exhausted queue_timeout", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := open(t, func(rc *router.Config) { rc.Wait, rc.Queue = c.wait, c.queue })
				c.set(t, r)
				ctx, stop := context.WithCancel(t.Context())
				var first sync.WaitGroup
				if c.name == "full" || strings.Contains(c.name, "full") || c.deadline+c.cancel > 0 || c.queue == 0 {
					first.Go(func() { _, _ = enginetest.Collect(ctx, r, request("first")) })
					synctest.Wait()
				}
				q, began := request("r"), time.Now()
				if c.deadline > 0 {
					q.Deadline = began.Add(c.deadline)
				}
				qctx, cancel := context.WithCancel(t.Context())
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				_, err := enginetest.Collect(qctx, r, q)
				cancel()
				if code(err) != c.want || time.Since(began) != c.after {
					t.Errorf("got %q (%v) after %v, want %q after %v", code(err), err, time.Since(began), c.want, c.after)
				}
				if e, _ := err.(*dynamo.Error); (e.Kind == dynamo.KindExhausted || e.Kind == dynamo.KindUnavailable) && e.RetryAfter == 0 {
					t.Error("the error has no RetryAfter")
				}
				stop()
				first.Wait()
				idle(t, r)
			})
		})
	}
}

func TestQueueFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, func(c *router.Config) { c.Queue = 2 })
		add(t, r, 1, takes(time.Second), 1, 0)
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() { _ = ask(t, r, fmt.Sprint(i)) })
		}
		synctest.Wait()
		if err := ask(t, r, "r"); code(err) != "exhausted queue_full" {
			t.Errorf("got %v", err)
		}
		all.Wait()
		idle(t, r)
	})
}

// TestWake: each thing that may let a waiting request through does, and at once.
func TestWake(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*testing.T, *router.Router)
		wake func(*testing.T, *router.Router)
		at   time.Duration
	}{
		{"up", func(t *testing.T, r *router.Router) { add(t, r, 1, takes(0), 0, 0); r.SetUp(1, 1, false) },
			func(_ *testing.T, r *router.Router) { r.SetUp(1, 1, true) }, time.Second},
		{"added", func(*testing.T, *router.Router) {},
			func(t *testing.T, r *router.Router) { add(t, r, 1, takes(0), 0, 0) }, time.Second},
		{"report", func(t *testing.T, r *router.Router) {
			add(t, r, 1, takes(0), 2, 0)
			r.Report(1, 1, engine.Load{Running: 2})
		}, func(_ *testing.T, r *router.Router) { r.Report(1, 1, engine.Load{Running: 1}) }, time.Second},
		{"stale report", func(t *testing.T, r *router.Router) {
			add(t, r, 1, takes(0), 2, 0)
			r.Report(1, 1, engine.Load{Running: 1, Waiting: 1})
		}, func(*testing.T, *router.Router) {}, placement.ReportFresh},
		{"refusal lapses", func(t *testing.T, r *router.Router) {
			e := fails(engine.CodeRefused)
			refuse := e.do
			e.do = func(ctx context.Context, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				if e.asked.Load() == 1 {
					refuse(ctx, q, yield)
					return
				}
				answer(ctx, q, yield)
			}
			add(t, r, 1, e, 0, 0)
		}, func(*testing.T, *router.Router) {}, 50 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := open(t, defaults)
				c.set(t, r)
				began := time.Now()
				timer := time.AfterFunc(time.Second, func() { c.wake(t, r) })
				defer timer.Stop()
				if err := ask(t, r, "r"); err != nil || time.Since(began) != c.at {
					t.Errorf("got %v after %v, want an answer after %v", err, time.Since(began), c.at)
				}
				idle(t, r)
			})
		})
	}
}

func TestFullIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, mode := range modes() {
			r := open(t, func(c *router.Config) { c.Mode = mode })
			small, large := takes(time.Second), takes(time.Second)
			add(t, r, 1, small, 1, 1)
			add(t, r, 2, large, 10, 10)
			var all sync.WaitGroup
			for i := range 22 {
				all.Go(func() { _ = ask(t, r, fmt.Sprint(i)) })
			}
			synctest.Wait()
			if small.running.Load() != 2 || large.running.Load() != 20 || r.Stats().Waiting != 0 {
				t.Errorf("%s: %d and %d run, want 2 and 20", mode, small.running.Load(), large.running.Load())
			}
			all.Wait()
			idle(t, r)
		}
	})
}

func TestGroup(t *testing.T) {
	for _, mode := range modes() {
		r := open(t, func(c *router.Config) { c.Mode = mode })
		workers := map[int]*scripted{}
		for id := 1; id <= 4; id++ {
			workers[id] = takes(0)
			add(t, r, id, workers[id], 0, 0)
		}
		at := func() (got int) {
			for id, w := range workers {
				if w.asked.Swap(0) > 0 {
					got = got*10 + id
				}
			}
			return got
		}
		q := request("g")
		q.N = 8
		if _, err := enginetest.CollectChoices(t.Context(), engine.Expand(r), q); err != nil {
			t.Fatal(err)
		}
		first := at()
		if first < 1 || first > 4 {
			t.Errorf("%s: the choices ran at %d", mode, first)
		}
		r.SetUp(dynamo.WorkerID(first), 1, false) // it dies: those that go on do so together
		var next []int
		for choice := range 5 {
			c := request(fmt.Sprint("g/", choice))
			c.Group, c.Choice, c.Resume = "g", choice, []dynamo.TokenID{1}
			if _, err := enginetest.Collect(t.Context(), r, c); err != nil {
				t.Fatal(err)
			}
			next = append(next, at())
		}
		if slices.Max(next) != slices.Min(next) || next[0] == first {
			t.Errorf("%s: after the death of %d they ran at %v", mode, first, next)
		}
	}
}

func TestEpochs(t *testing.T) {
	r := open(t, defaults)
	w := func(epoch uint64, e engine.Engine, model string) error {
		return r.Add(router.Worker{ID: 1, Epoch: epoch, Engine: e, Card: engine.Card{Model: model}})
	}
	block := make(chan struct{})
	old := &scripted{do: func(ctx context.Context, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		<-block
		answer(ctx, q, yield)
	}}
	if err := w(5, old, "m"); err != nil {
		t.Fatal(err)
	}
	r.SetUp(1, 5, true)
	var running sync.WaitGroup
	running.Go(func() {
		if err := ask(t, r, "old"); err != nil {
			t.Error(err)
		}
	})
	for old.asked.Load() == 0 {
		runtime.Gosched()
	}
	for epoch, want := range map[uint64]string{5: "internal ", 4: "invalid "} {
		if err := w(epoch, old, "m"); code(err) != want {
			t.Errorf("epoch %d: got %v", epoch, err)
		}
	}
	if err := w(6, old, "other"); code(err) != "invalid " {
		t.Errorf("another model: got %v", err)
	}
	young := takes(0)
	if err := w(6, young, "m"); err != nil {
		t.Fatal(err)
	}
	r.SetUp(1, 6, true)
	r.SetUp(1, 5, false) // late word of the old life
	r.Remove(1, 5)
	if err := ask(t, r, "new"); err != nil || young.asked.Load() != 1 {
		t.Errorf("new life: %v, asked %d times", err, young.asked.Load())
	}
	if s := r.Stats(); s.Booked != 1 || len(s.Workers) != 1 || s.Workers[0].Epoch != 6 || s.Workers[0].Booked != 0 {
		t.Errorf("got %+v", s)
	}
	close(block)
	running.Wait()
	idle(t, r)
}

// TestStalled: a worker that stalled is passed over while another can be used.
func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, defaults)
		stuck, good := takes(time.Hour), takes(0)
		add(t, r, 1, stuck, 0, 0)
		m, err := engine.NewMigrate(r, engine.MigrateConfig{Limit: 1, StallTimeout: time.Second, Card: engine.Card{Resume: true, ContextLength: 99}})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				if err := ask(t, m, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		add(t, r, 2, good, 0, 0)
		all.Wait()
		if stuck.asked.Load() != 4 || good.asked.Load() != 4 {
			t.Errorf("asked the stuck worker %d times and the good one %d; want 4 and 4", stuck.asked.Load(), good.asked.Load())
		}
		idle(t, r)
	})
}

// TestBookings runs random requests against workers that fail in every way while
// workers come and go, and compares what is booked with what runs at every moment
// at which all is still.
func TestBookings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests, parallel = 1500, 24
		r := open(t, func(c *router.Config) { leastLoaded(c); c.Wait = 20 * time.Millisecond })
		e := &scripted{}
		e.do = func(ctx context.Context, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			misbehave(ctx, r, uint64(e.asked.Load()), q, yield)
		}
		for id := 1; id <= 4; id++ {
			add(t, r, id, e, 3, 1)
		}
		var next atomic.Int64
		var all sync.WaitGroup
		for p := range parallel {
			all.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(p), 1))
				for i := next.Add(1); i <= requests; i = next.Add(1) {
					q := request(fmt.Sprint("r", i))
					q.Group = dynamo.RequestID(fmt.Sprint("g", i/3))
					for range r.Generate(t.Context(), q) {
						if rng.IntN(4) == 0 {
							break
						}
					}
					upset(r, e, rng)
				}
			})
		}
		for looks := 0; next.Load() < requests; looks++ {
			time.Sleep(1500 * time.Microsecond)
			synctest.Wait()
			s := r.Stats()
			if int64(s.Booked) != e.running.Load() || s.BookedTokens != 8*s.Booked {
				t.Fatalf("%d run, and booked are %d with %d tokens", e.running.Load(), s.Booked, s.BookedTokens)
			}
			for _, w := range s.Workers {
				if w.Booked < 0 || w.Booked > 4 {
					t.Fatalf("worker %v has %d booked, it takes 0 to 4", w.ID, w.Booked)
				}
			}
			if s.Waiting+s.Booked > parallel || looks > 1e6 {
				t.Fatalf("got %+v", s)
			}
		}
		all.Wait()
		idle(t, r)
		if s := r.Stats(); s.Ended != requests {
			t.Errorf("%d requests ended, %d began", s.Ended, requests)
		}
	})
}

// misbehave answers, or fails in one of the ways of workers, by the number.
func misbehave(ctx context.Context, r *router.Router, n uint64, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
	rng := rand.New(rand.NewPCG(n, 7))
	time.Sleep(time.Duration(rng.IntN(4000)) * time.Microsecond)
	switch rng.IntN(8) {
	case 0:
		fails(engine.CodeRefused).do(ctx, q, yield)
	case 1:
		r.SetUp(dynamo.WorkerID(1+rng.IntN(4)), 1, true)
		fails(engine.CodeLost).do(ctx, q, yield)
	case 2:
		fails("").do(ctx, q, yield)
	case 3:
		if yield(dynamo.Chunk{Tokens: []dynamo.TokenID{1}}, nil) {
			fails(engine.CodeLost).do(ctx, q, yield)
		}
	default:
		answer(ctx, q, yield)
	}
}

// upset has something happen to a worker now and then.
func upset(r *router.Router, e engine.Engine, rng *rand.Rand) {
	switch id := dynamo.WorkerID(1 + rng.IntN(4)); rng.IntN(10) {
	case 0:
		r.SetUp(id, 1, false)
		r.SetUp(id, 1, true)
	case 1:
		r.Remove(id, 1)
		w := router.Worker{ID: id, Epoch: 1, Engine: e, Card: engine.Card{Model: "m"}, MaxRunning: 3, MaxQueue: 1}
		if r.Add(w) == nil {
			r.SetUp(id, 1, true)
		}
	case 2:
		r.Report(id, 1, engine.Load{Running: rng.IntN(4)})
	}
}

func TestConfig(t *testing.T) {
	_, err := router.New(router.Config{Mode: "best", Wait: -1, Queue: -1})
	if err == nil || !strings.Contains(err.Error(), "--router-mode") || !strings.Contains(err.Error(), "--worker-wait") || !strings.Contains(err.Error(), "power-of-two") {
		t.Errorf("got %v, want all faults", err)
	}
}

func fleet(t testing.TB, n int, mode string) (*router.Router, *echo.Engine) {
	c := echo.DefaultConfig()
	c.ContextLength, c.ChunkTokens = 100000, 1
	e, err := echo.New(c)
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, func(c *router.Config) {
		c.Mode, c.Model, c.Metrics = mode, "", router.NewMetrics(obs.NewRegistry())
	})
	for id := dynamo.WorkerID(1); id <= dynamo.WorkerID(n); id++ {
		if err := r.Add(router.Worker{ID: id, Epoch: 1, Engine: e, Card: e.Card(), MaxRunning: 8}); err != nil {
			t.Fatal(err)
		}
		r.SetUp(id, 1, true)
	}
	return r, e
}

func drain(ctx context.Context, e engine.Engine, q *dynamo.Request) {
	for range e.Generate(ctx, q) {
	}
}

func TestAllocations(t *testing.T) {
	r, e := fleet(t, 8, "least-loaded")
	q := func(n int) *dynamo.Request {
		return &dynamo.Request{ID: "r", Tokens: prompt(3), MaxTokens: n}
	}
	count := func(e engine.Engine, n int) float64 {
		q := q(n)
		for range 2 * 64 { // fills the ring of records
			drain(t.Context(), e, q)
		}
		return testing.AllocsPerRun(50, func() { drain(t.Context(), e, q) })
	}
	few, many, bare := count(r, 1), count(r, 1000), count(e, 1)
	if many > few {
		t.Errorf("%v allocations for 1000 tokens, %v for one", many, few)
	}
	if few-bare > 8 {
		t.Errorf("%v allocations a request, %v of them the engine's", few, bare)
	}
}

func BenchmarkRequest(b *testing.B) {
	for _, n := range []int{4, 64, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			r, _ := fleet(b, n, "least-loaded")
			q := &dynamo.Request{ID: "r", Tokens: prompt(3), MaxTokens: 1}
			for b.Loop() {
				drain(b.Context(), r, q)
			}
		})
	}
}

func BenchmarkToken(b *testing.B) {
	r, e := fleet(b, 4, "round-robin")
	q := &dynamo.Request{ID: "r", Tokens: prompt(100), MaxTokens: 1000}
	for name, e := range map[string]engine.Engine{"bare": e, "routed": r} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				drain(b.Context(), e, q)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/token")
		})
	}
}
