package worker_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/worker"
)

// bubble runs a test under virtual time; whatever a worker leaves behind fails it.
func bubble(t *testing.T, test func(*testing.T, *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newCluster(t)) })
}

// stopped wants Run to return nil within a time.
func (h *hosted) stopped(most time.Duration) {
	h.c.t.Helper()
	began := time.Now()
	if err := <-h.ended; err != nil {
		h.c.t.Errorf("Run: got %v, want nil", err)
	}
	if took := time.Since(began); took > most {
		h.c.t.Errorf("the worker ended after %v, want %v at most", took, most)
	}
	if s := h.Status(); s.State != worker.StateStopped || s.Registered || s.Requests != 0 {
		h.c.t.Errorf("a stopped worker says %+v", s)
	}
}

func TestLife(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		h := c.start("w", 5, nil)
		if s := h.Status(); s.State != worker.StateStarting {
			t.Errorf("at first: %+v", s)
		}
		h.awaitReady()
		if got := c.listed(); !slices.Equal(got, []dynamo.WorkerID{5}) {
			t.Errorf("the store lists %v", got)
		}
		p := h.peer()
		e := h.engine()
		if a := <-ask(t, e, 20); a.err != nil || a.tokens != 20 {
			t.Errorf("got %+v", a)
		}
		running := ask(t, e, 30)
		time.Sleep(5*itl + itl/2)
		s, err := remote.FetchStatus(t.Context(), p)
		if err != nil || s.State != worker.StateReady || !s.Registered || s.Requests != 1 || s.Load.Running != 1 || s.Load.MaxRunning != 64 || s.Load.Steps != 25 || s.Worker != dynamo.WorkerID(5).String() {
			t.Errorf("status: %+v, %v", s, err)
		}
		h.metric("dynamo_worker_ready 1", "dynamo_worker_in_flight_requests 1", `dynamo_worker_requests_total{outcome="ok"} 1`)
		if a := <-running; a.err != nil {
			t.Error(a.err)
		}
		h.stop()
		h.stopped(0)
		if got := c.listed(); len(got) > 0 {
			t.Errorf("the store still lists %v", got)
		}
		h.metric("dynamo_worker_ready 0", `dynamo_worker_drains_total{outcome="finished"} 1`, `dynamo_worker_requests_total{outcome="ok"} 2`)
	})
}

// TestCanary has engines fail their trial: the cluster never hears of them.
func TestCanary(t *testing.T) {
	for _, c := range []struct {
		name   string
		engine scripted
		want   string
		took   time.Duration
	}{
		{"fails", func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			yield(dynamo.Chunk{}, errors.New("no such kernel"))
		}, "no such kernel", 0},
		{"hangs", func(ctx context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			<-ctx.Done()
			yield(dynamo.Chunk{}, engine.ContextError(ctx))
		}, "no answer within 5s", 5 * time.Second},
		{"panics", func(context.Context, *dynamo.Request, func(dynamo.Chunk, error) bool) { panic("index out of range") }, "index out of range", 0},
		{"ends for no reason", func(context.Context, *dynamo.Request, func(dynamo.Chunk, error) bool) {}, "without a reason", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, cl *cluster) {
				began := time.Now()
				h := cl.start("w", 5, func(wc *worker.Config) {
					wc.Engine, wc.CanaryTimeout = c.engine, 5*time.Second
					wc.Ready = func() { t.Error("it is ready") }
				})
				err := <-h.ended
				if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "does not serve") {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
			})
		})
	}
}

// TestDrainFinishes lets requests end, refuses others and leaves the store first.
func TestDrainFinishes(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		h := c.start("w", 5, nil).awaitReady()
		p, e := h.peer(), h.engine()
		running := ask(t, e, 100)
		time.Sleep(20 * itl)
		if err := remote.Drain(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		h.stop() // twice
		h.Drain()
		synctest.Wait()
		if got := c.listed(); len(got) > 0 || h.Status().State != worker.StateDraining {
			t.Errorf("draining: the store lists %v, status %+v", got, h.Status())
		}
		if a := <-ask(t, e, 5); code(a.err) != engine.CodeDraining || dynamo.KindOf(a.err) != dynamo.KindUnavailable || a.took > 0 {
			t.Errorf("a new request: got %+v, want it refused at once", a)
		}
		if a := <-running; a.err != nil || a.tokens != 100 {
			t.Errorf("the request in progress: %+v", a)
		}
		h.stopped(0)
		h.metric(`dynamo_worker_drains_total{outcome="finished"} 1`, `dynamo_worker_requests_total{outcome="draining"} 1`)
	})
}

// recording is a store that writes down what a worker tells it.
type recording struct {
	discovery.Store
	told chan string
}

func (s *recording) Register(ctx context.Context, i discovery.Instance) (discovery.Registration, error) {
	r, err := s.Store.Register(ctx, i)
	s.told <- "register"
	return &recorded{r, s.told}, err
}

type recorded struct {
	discovery.Registration
	told chan string
}

func (r *recorded) Update(ctx context.Context, i discovery.Instance) error {
	r.told <- fmt.Sprintf("update draining=%t", i.Draining)
	return r.Registration.Update(ctx, i)
}

func (r *recorded) Close() error {
	r.told <- "close"
	return r.Registration.Close()
}

// TestDrainIsTold checks that the store hears of a drain before the worker is
// gone from it, so that watchers can tell it from a death.
func TestDrainIsTold(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		told := make(chan string, 10)
		h := c.start("w", 5, func(wc *worker.Config) { wc.Store = &recording{wc.Store, told} }).awaitReady()
		h.stop()
		h.stopped(0)
		close(told)
		var got []string
		for s := range told {
			got = append(got, s)
		}
		if want := []string{"register", "update draining=true", "close"}; !slices.Equal(got, want) {
			t.Errorf("the store was told %v, want %v", got, want)
		}
	})
}

// TestDrainHandsOver ends what is left after DrainTimeout, with all tokens so far
// delivered.
func TestDrainHandsOver(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		h := c.start("w", 5, func(wc *worker.Config) { wc.DrainTimeout = 20 * itl }).awaitReady()
		e := h.engine()
		short, long := ask(t, e, 25), ask(t, e, 1000)
		time.Sleep(10*itl + itl/2)
		h.stop()
		if a := <-short; a.err != nil || a.tokens != 25 {
			t.Errorf("the short request: %+v", a)
		}
		if a := <-long; code(a.err) != engine.CodeDraining || a.tokens != 30 || a.took != 30*itl+itl/2 {
			t.Errorf("the long request: %+v, want 30 tokens and its hand-over", a)
		}
		h.stopped(0)
		h.metric(`dynamo_worker_drains_total{outcome="handed_over"} 1`, `dynamo_worker_requests_total{outcome="handed_over"} 1`, `dynamo_worker_requests_total{outcome="ok"} 1`)
	})
}

// TestResumedElsewhere drains a worker under a request that goes on at another
// one: together they answer what one would have.
func TestResumedElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		first := c.start("w1", 5, func(wc *worker.Config) { wc.DrainTimeout = 3 * itl }).awaitReady()
		second := c.start("w2", 6, nil).awaitReady()
		e1, e2 := first.engine(), second.engine()
		r := &dynamo.Request{ID: "r", Tokens: []dynamo.TokenID{7, 8, 9, 10, 11}, MaxTokens: 50, IgnoreEOS: true}
		want, err := enginetest.Collect(t.Context(), e2, r)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(10*itl, first.stop)
		begun, err := enginetest.Collect(t.Context(), e1, r)
		if code(err) != engine.CodeDraining || len(begun.Tokens) == 0 {
			t.Fatalf("got %v after %d tokens", err, len(begun.Tokens))
		}
		r.Resume = begun.Tokens
		rest, err := enginetest.Collect(t.Context(), e2, r)
		if got := slices.Concat(begun.Tokens, rest.Tokens); err != nil || !slices.Equal(got, want.Tokens) || rest.Usage != want.Usage {
			t.Errorf("got %v, %+v, %v; want %v, %+v", got, rest.Usage, err, want.Tokens, want.Usage)
		}
		first.stopped(0)
		second.stop()
		second.stopped(0)
	})
}

// TestDrainForced has an engine that lets no request go while it runs.
func TestDrainForced(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		stopped := make(chan struct{})
		h := c.start("w", 5, func(wc *worker.Config) {
			wc.DrainTimeout = time.Second
			wc.Engine = afterCanary(func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				<-stopped
				yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the engine is stopping"})
			})
			wc.EngineRun = func(ctx context.Context) error {
				<-ctx.Done()
				close(stopped)
				return nil
			}
		}).awaitReady()
		running := ask(t, h.engine(), 10)
		synctest.Wait()
		h.stop()
		if a := <-running; code(a.err) != engine.CodeDraining && code(a.err) != engine.CodeLost || a.took > 7*time.Second {
			t.Errorf("got %+v, want it to go on elsewhere", a)
		}
		h.stopped(0)
		h.metric(`dynamo_worker_drains_total{outcome="forced"} 1`)
	})
}

// TestDrainUnread hands over a request whose client has stopped.
func TestDrainUnread(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		h := c.start("w", 5, func(wc *worker.Config) {
			wc.DrainTimeout = time.Second
			wc.Engine = afterCanary(func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				for yield(dynamo.Chunk{Tokens: make([]dynamo.TokenID, 4000)}, nil) {
				}
			})
		}).awaitReady()
		e := h.engine()
		n := 0
		for _, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: []dynamo.TokenID{1}, MaxTokens: 1 << 20}) {
			if n++; n == 1 {
				synctest.Wait()
				h.stop()
				h.stopped(2 * time.Second)
			}
			if err != nil && code(err) != engine.CodeDraining && code(err) != engine.CodeLost {
				t.Errorf("got %v", err)
			}
		}
		h.metric(`dynamo_worker_drains_total{outcome="handed_over"} 1`)
	})
}

// TestFull asks more than the worker takes.
func TestFull(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		h := c.start("w", 5, func(wc *worker.Config) { wc.MaxRunning, wc.MaxQueue = 2, 1 }).awaitReady()
		e := h.engine()
		for range 2 {
			var all []chan answer
			for range 10 {
				all = append(all, ask(t, e, 20))
			}
			served, refused := 0, 0
			for _, c := range all {
				switch a := <-c; {
				case a.err == nil && a.tokens == 20:
					served++
				case code(a.err) == engine.CodeRefused && dynamo.KindOf(a.err) == dynamo.KindExhausted && a.took == 0:
					refused++
				default:
					t.Errorf("got %+v", a)
				}
			}
			if served != 3 || refused != 7 {
				t.Errorf("%d served and %d refused of 10, want 3 and 7", served, refused)
			}
		}
		if s := h.Status(); s.Requests != 0 {
			t.Errorf("at the end: %+v", s)
		}
		h.metric(`dynamo_worker_requests_total{outcome="refused"} 14`, `dynamo_worker_requests_total{outcome="ok"} 6`)
		h.stop()
		h.stopped(0)
	})
}

// TestStoreDown starts and stops a worker without a store.
func TestStoreDown(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		c.store.SetDown(true)
		h := c.start("w", 5, nil)
		e := h.engine()
		time.Sleep(time.Minute)
		if s := h.Status(); s.State != worker.StateStarting || s.Registered {
			t.Errorf("without a store: %+v", s)
		}
		if a := <-ask(t, e, 5); a.err != nil {
			t.Errorf("without a store: %+v", a)
		}
		c.store.SetDown(false)
		began := time.Now()
		h.awaitReady()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("registered after %v", took)
		}
		c.store.SetDown(true)
		if a := <-ask(t, e, 5); a.err != nil {
			t.Errorf("the store is gone again: %+v", a)
		}
		h.stop()
		h.stopped(2 * time.Second)

		c.store.SetDown(true)
		h = c.start("w2", 6, nil)
		time.Sleep(time.Minute)
		h.stop()
		h.stopped(time.Second)
	})
}

// TestTaken starts a second worker of the same id.
func TestTaken(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		first := c.start("w1", 5, nil).awaitReady()
		second := c.start("w2", 5, nil)
		err := <-second.ended
		if code(err) != discovery.CodeTaken || !strings.Contains(err.Error(), "--worker-id") {
			t.Errorf("got %v, want the id taken", err)
		}
		if got := c.listed(); !slices.Equal(got, []dynamo.WorkerID{5}) {
			t.Errorf("the store lists %v", got)
		}
		if a := <-ask(t, first.engine(), 5); a.err != nil {
			t.Errorf("the first worker: %+v", a)
		}
		first.stop()
		first.stopped(0)
	})
}

// refusing is a store that refuses to register anybody.
type refusing struct {
	discovery.Store
	err   error
	asked atomic.Int64
}

func (s *refusing) Register(context.Context, discovery.Instance) (discovery.Registration, error) {
	s.asked.Add(1)
	return nil, s.err
}

// TestStoreRefuses tells what passes by itself from what needs somebody.
func TestStoreRefuses(t *testing.T) {
	for _, tt := range []struct {
		err   error
		fatal bool
	}{
		{&dynamo.Error{Kind: dynamo.KindUnavailable, Message: "cannot write", Err: &fs.PathError{Op: "open", Path: "/run", Err: syscall.EACCES}}, true},
		{&dynamo.Error{Kind: dynamo.KindUnavailable, Message: "cannot write", Err: syscall.EROFS}, true},
		{&dynamo.Error{Kind: dynamo.KindInvalid, Message: "bad card"}, true},
		{&dynamo.Error{Kind: dynamo.KindUnavailable, Message: "cannot write", Err: syscall.ENOSPC}, false},
		{context.DeadlineExceeded, false},
	} {
		bubble(t, func(t *testing.T, c *cluster) {
			store := &refusing{err: tt.err}
			h := c.start("w", 5, func(wc *worker.Config) { wc.Store = store })
			select {
			case err := <-h.ended:
				if !tt.fatal || !errors.Is(err, tt.err) {
					t.Errorf("%v: the worker ended with %v", tt.err, err)
				}
			case <-time.After(time.Minute):
				if tt.fatal {
					t.Errorf("%v: the worker goes on", tt.err)
				}
				if n := store.asked.Load(); n < 10 || n > 30 {
					t.Errorf("%v: asked %d times in a minute", tt.err, n)
				}
				h.stop()
				h.stopped(0)
			}
		})
	}
}

// TestDrainBeforeReady stops workers while they try their engine and wait for the
// store, and before they run.
func TestDrainBeforeReady(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		hanging := func(wc *worker.Config) {
			wc.Engine = scripted(func(ctx context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				<-ctx.Done()
				yield(dynamo.Chunk{}, engine.ContextError(ctx))
			})
			wc.EngineRun = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
			wc.Ready = func() { t.Error("it is ready") }
		}
		h := c.start("w1", 5, hanging)
		synctest.Wait()
		h.stop()
		h.stopped(0)
		h = c.start("w2", 5, hanging)
		h.Drain()
		h.stopped(0)
	})
}

// TestEngineEnds has the engine's loop end by itself, well or not, before and
// after the worker serves.
func TestEngineEnds(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		for i, reason := range []error{nil, errors.New("out of memory")} {
			end := make(chan struct{})
			h := c.start(fmt.Sprint("w", i), 5, func(wc *worker.Config) {
				wc.EngineRun = func(context.Context) error { <-end; return reason }
			}).awaitReady()
			running := ask(t, h.engine(), 100)
			time.Sleep(5 * itl)
			close(end)
			if a := <-running; code(a.err) != engine.CodeLost || a.tokens == 0 {
				t.Errorf("the request in progress: %+v, want the worker lost", a)
			}
			err := <-h.ended
			if err == nil || !strings.Contains(err.Error(), "run the engine") || reason != nil && !errors.Is(err, reason) {
				t.Errorf("got %v", err)
			}
			if got := c.listed(); len(got) > 0 {
				t.Errorf("the store still lists %v", got)
			}
		}
		h := c.start("w", 5, func(wc *worker.Config) {
			wc.EngineRun = func(context.Context) error { return errors.New("no memory") }
			wc.Engine = scripted(func(ctx context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				<-ctx.Done()
				yield(dynamo.Chunk{}, engine.ContextError(ctx))
			})
		})
		if err := <-h.ended; err == nil || !strings.Contains(err.Error(), "no memory") {
			t.Errorf("at once: got %v", err)
		}
	})
}

// TestListenerEnds closes the worker's listener under it.
func TestListenerEnds(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		h := c.start("w", 5, nil).awaitReady()
		if err := h.config.Listeners[0].Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-h.ended; err == nil || !strings.Contains(err.Error(), "serve at") {
			t.Errorf("got %v", err)
		}
	})
}

// TestElsewhere checks which errors of an engine make a request go on elsewhere.
func TestElsewhere(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		var say error
		var before int
		h := c.start("w", 5, func(wc *worker.Config) {
			wc.Engine = afterCanary(func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				for range before {
					yield(dynamo.Chunk{Tokens: r.Tokens[:1]}, nil)
				}
				yield(dynamo.Chunk{}, say)
			})
		}).awaitReady()
		e := h.engine()
		for _, tt := range []struct {
			kind      dynamo.Kind
			code      string
			before    int
			want      string
			outcome   string
			wantCount int
		}{
			{dynamo.KindUnavailable, "", 1, engine.CodeLost, "failed", 1},
			{dynamo.KindExhausted, "queue_full", 0, engine.CodeRefused, "refused", 1},
			{dynamo.KindExhausted, "queue_full", 1, "queue_full", "failed", 2},
			{dynamo.KindUnavailable, engine.CodeDraining, 0, engine.CodeDraining, "handed_over", 1},
			{dynamo.KindInvalid, "bad", 0, "bad", "invalid", 1},
			{dynamo.KindInternal, "", 0, "", "failed", 3},
		} {
			say, before = fmt.Errorf("compute: %w", &dynamo.Error{Kind: tt.kind, Code: tt.code, Message: "cannot"}), tt.before
			a := <-ask(t, e, 5)
			if dynamo.KindOf(a.err) != tt.kind || code(a.err) != tt.want || !strings.Contains(a.err.Error(), "cannot") || a.tokens != before {
				t.Errorf("%v %q: got %v with code %q after %d", tt.kind, tt.code, a.err, code(a.err), a.tokens)
			}
			h.metric(fmt.Sprintf(`dynamo_worker_requests_total{outcome="%s"} %d`, tt.outcome, tt.wantCount))
		}
		h.stop()
		h.stopped(0)
	})
}

// TestEvents reads the load and a publisher of the worker's over rpc.
func TestEvents(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		p, err := event.NewPublisher(event.DefaultPublisherConfig(event.Source{Topic: event.TopicKV, Worker: 5, Epoch: 1}))
		if err != nil {
			t.Fatal(err)
		}
		h := c.start("w", 5, func(wc *worker.Config) { wc.Publishers = []*event.Publisher{p} }).awaitReady()
		peer, e := h.peer(), h.engine()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		running := ask(t, e, 50)
		most := 0
		var began time.Time
		reports := 0
		for d, err := range event.SubscribeRPC(ctx, peer, event.Source{Topic: event.TopicLoad, Worker: 5}, event.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			if d.Kind != event.Event && d.Kind != event.Snapshot {
				continue
			}
			l, _, err := event.ParseLoad(d.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if began.IsZero() {
				began = time.Now()
			}
			reports++
			if most = max(most, l.Running); most == 1 && l.Running == 0 {
				break
			}
		}
		if took := time.Since(began); most != 1 || reports > 2+int(took/(50*time.Millisecond)) {
			t.Errorf("%d reports in %v, of %d running at most", reports, took, most)
		}
		if a := <-running; a.err != nil {
			t.Error(a.err)
		}
		p.Publish([]byte("stored"))
		got := ""
		for d, err := range event.SubscribeRPC(ctx, peer, event.Source{Topic: event.TopicKV, Worker: 5}, event.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			if got = string(d.Payload); got != "" {
				break
			}
		}
		if got != "stored" {
			t.Errorf("got %q", got)
		}
		// A subscription in progress does not hold up the drain.
		over := make(chan error, 1)
		go func() {
			for _, err := range event.SubscribeRPC(ctx, peer, event.Source{Topic: event.TopicKV, Worker: 5}, event.Position{}) {
				if err != nil {
					over <- err
				}
			}
		}()
		synctest.Wait()
		h.stop()
		h.stopped(0)
		if err := <-over; dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Errorf("the subscription ended with %v", err)
		}
	})
}

// counting is a bus that counts.
type counting struct {
	event.Bus
	attached []string
	detached int
	refuse   error
}

func (b *counting) Attach(p *event.Publisher) (func(), error) {
	b.attached = append(b.attached, p.Source().Topic)
	return func() { b.detached++ }, b.refuse
}

// TestSecondBus checks that everything is published on a second bus, too, and no
// longer than the worker lives.
func TestSecondBus(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		p, err := event.NewPublisher(event.DefaultPublisherConfig(event.Source{Topic: event.TopicKV, Worker: 5, Epoch: 1}))
		if err != nil {
			t.Fatal(err)
		}
		bus := &counting{}
		h := c.start("w1", 5, func(wc *worker.Config) { wc.Publishers, wc.Bus = []*event.Publisher{p}, bus }).awaitReady()
		if bus.detached > 0 {
			t.Errorf("detached at once")
		}
		h.stop()
		h.stopped(0)
		if !slices.Equal(bus.attached, []string{event.TopicLoad, event.TopicKV}) || bus.detached != 2 {
			t.Errorf("attached %v, detached %d", bus.attached, bus.detached)
		}
		bus = &counting{refuse: errors.New("no such server")}
		h = c.start("w2", 5, func(wc *worker.Config) { wc.Bus = bus })
		if err := <-h.ended; !errors.Is(err, bus.refuse) {
			t.Errorf("got %v", err)
		}
	})
}

// TestLogs checks that what an operator acts on names the worker.
func TestLogs(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		var out strings.Builder
		h := c.start("w", 5, func(wc *worker.Config) {
			wc.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
		}).awaitReady()
		if a := <-ask(t, h.engine(), 3); a.err != nil {
			t.Error(a.err)
		}
		h.stop()
		h.stopped(0)
		for _, want := range []string{"worker ready", "request begins", "req=r", "the worker drains", "worker stopped", "worker=" + dynamo.WorkerID(5).String()} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the log lacks %q:\n%s", want, out.String())
			}
		}
	})
}

func TestConfig(t *testing.T) {
	c := worker.DefaultConfig()
	c.MaxRunning, c.MaxQueue, c.DrainTimeout, c.CanaryTimeout = 0, -1, -1, 0
	_, err := worker.New(c)
	for _, want := range []string{"engine", "store", "id", "--max-running", "--max-queue", "--drain-timeout", "trial"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want a fault of %q", err, want)
		}
	}
}
