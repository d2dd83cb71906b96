package engine_test

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// script is an engine that runs a function.
type script func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool)

func (s script) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) { s(ctx, r, yield) }
}

// working answers with one chunk after the given time.
func working(d time.Duration) script {
	return func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		select {
		case <-time.After(d):
			yield(dynamo.Chunk{Tokens: r.Tokens, Finish: dynamo.FinishLength}, nil)
		case <-ctx.Done():
			yield(dynamo.Chunk{}, engine.ContextError(ctx))
		}
	}
}

func admit(t *testing.T, e engine.Engine, c engine.AdmitConfig) *engine.Admit {
	t.Helper()
	a, err := engine.NewAdmit(e, c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// outcome ranges over an answer and returns its error.
func outcome(ctx context.Context, e engine.Engine, r *dynamo.Request) error {
	for _, err := range e.Generate(ctx, r) {
		if err != nil {
			return err
		}
	}
	return nil
}

func wantKind(t *testing.T, err error, want dynamo.Kind) *dynamo.Error {
	t.Helper()
	var e *dynamo.Error
	if err == nil || !errors.As(err, &e) || e.Kind != want {
		t.Fatalf("got error %v, want one of kind %v", err, want)
	}
	return e
}

func TestAdmitQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := admit(t, working(time.Second), engine.AdmitConfig{MaxRunning: 2, MaxQueue: 3})
		var order []int
		var mu sync.Mutex
		for i := range 5 {
			go func() {
				if err := outcome(t.Context(), a, &dynamo.Request{}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			}()
			synctest.Wait() // they arrive in this order
		}
		if got, want := a.Stats(), (engine.AdmitStats{Running: 2, Queued: 3}); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		e := wantKind(t, outcome(t.Context(), a, &dynamo.Request{}), dynamo.KindExhausted)
		if e.RetryAfter < time.Second || e.RetryAfter > time.Minute || !strings.Contains(e.Message, "2 requests") {
			t.Errorf("got message %q, retry after %v", e.Message, e.RetryAfter)
		}
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		if got, want := a.Stats(), (engine.AdmitStats{Running: 2, Queued: 1, Done: 2, RejectedFull: 1}); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got, want := a.Stats(), (engine.AdmitStats{Done: 5, RejectedFull: 1}); got != want {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		if len(order) != 5 || order[4] != 4 {
			t.Errorf("ended in the order %v, want the last to come last", order)
		}
	})
}

func TestAdmitLeavesQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := admit(t, working(time.Hour), engine.AdmitConfig{MaxRunning: 1, MaxQueue: 9, MaxWait: time.Minute})
		ctx, stop := context.WithCancel(t.Context())
		go func() { _ = outcome(ctx, a, &dynamo.Request{}) }() // cancelled at the end
		synctest.Wait()

		began := time.Now()
		e := wantKind(t, outcome(t.Context(), a, &dynamo.Request{}), dynamo.KindExhausted)
		if waited := time.Since(began); waited != time.Minute || e.RetryAfter == 0 {
			t.Errorf("refused after %v, retry after %v; want a minute and a hint", waited, e.RetryAfter)
		}
		began = time.Now()
		wantKind(t, outcome(t.Context(), a, &dynamo.Request{Deadline: began.Add(time.Second)}), dynamo.KindDeadline)
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("deadline of a second ended the wait after %v", waited)
		}
		wantKind(t, outcome(t.Context(), a, &dynamo.Request{Deadline: began}), dynamo.KindDeadline)
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantKind(t, outcome(gone, a, &dynamo.Request{}), dynamo.KindDeadline)

		if got, want := a.Stats(), (engine.AdmitStats{Running: 1, RejectedWait: 1, Abandoned: 3}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		stop()
		synctest.Wait()
		if got, want := a.Stats(), (engine.AdmitStats{Done: 1, RejectedWait: 1, Abandoned: 3}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestAdmitDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := admit(t, working(time.Minute), engine.AdmitConfig{MaxRunning: 1, MaxQueue: 9})
		ended := make(chan error, 2)
		for range 2 {
			go func() { ended <- outcome(t.Context(), a, &dynamo.Request{}) }()
		}
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := a.Drain(short); err == nil || !strings.Contains(err.Error(), "1 requests in progress and 1 waiting") {
			t.Errorf("got %v, want an error with both numbers", err)
		}
		wantKind(t, outcome(t.Context(), a, &dynamo.Request{}), dynamo.KindUnavailable)
		if err := a.Drain(t.Context()); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("an accepted request ended in %v", err)
			}
		}
		if got, want := a.Stats(), (engine.AdmitStats{Done: 2, RejectedDraining: 1}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		if err := a.Drain(t.Context()); err != nil {
			t.Errorf("drained twice: %v", err)
		}
	})
}

// TestAdmitStorm checks under random cancels that no place is lost and no limit
// passed (I5).
func TestAdmitStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const requests, limit, queue = 3000, 7, 20
		var running, over atomic.Int64
		next := script(func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			if running.Add(1) > limit {
				over.Add(1)
			}
			defer running.Add(-1)
			working(10*time.Millisecond)(ctx, r, yield)
		})
		a := admit(t, next, engine.AdmitConfig{MaxRunning: limit, MaxQueue: queue, MaxWait: 50 * time.Millisecond})
		var all sync.WaitGroup
		for i := range requests {
			all.Go(func() {
				random := rand.New(rand.NewPCG(1, uint64(i)))
				time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(60))*time.Millisecond)
				defer cancel()
				_ = outcome(ctx, a, &dynamo.Request{})
			})
		}
		for range 500 {
			time.Sleep(5 * time.Millisecond)
			if s := a.Stats(); s.Queued > queue || s.Running > limit {
				t.Fatalf("over a limit: %+v", s)
			}
		}
		all.Wait()
		s := a.Stats()
		if sum := s.Done + s.RejectedFull + s.RejectedWait + s.RejectedDraining + s.Abandoned; s.Running+s.Queued != 0 || sum != requests {
			t.Errorf("got %+v, which sums to %d; want %d and nothing left", s, sum, requests)
		}
		if s.Done == 0 || s.Abandoned == 0 || s.RejectedFull == 0 {
			t.Errorf("the storm is too weak: %+v", s)
		}
		if over.Load() > 0 {
			t.Errorf("%d times more than %d ran", over.Load(), limit)
		}
	})
}

func TestAdmitConfig(t *testing.T) {
	err := engine.AdmitConfig{MaxRunning: 0, MaxQueue: -1, MaxWait: -1}.Validate()
	for _, flag := range []string{"--max-running", "--max-queue", "--max-wait"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("got %v, want a fault of %s", err, flag)
		}
	}
	if err := engine.DefaultAdmitConfig().Validate(); err != nil {
		t.Error(err)
	}
}
