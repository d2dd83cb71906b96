package loop_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// adder answers each request with the sum of its prompt and the position.
type adder struct {
	step   func(n int) error
	steps  int
	closed bool
}

func (a *adder) Begin(r *dynamo.Request) any {
	var sum dynamo.TokenID
	for _, id := range r.Tokens {
		sum += id
	}
	return sum
}

func (a *adder) Compute(ctx context.Context, b *sched.Batch, results []sched.Result) error {
	a.steps++
	if a.step != nil {
		if err := a.step(a.steps); err != nil {
			return err
		}
	}
	for i := range b.Entries {
		if e := &b.Entries[i]; e.Sample {
			t := e.Ref.(*loop.Task)
			results[i] = t.Post(e, 2+(t.State.(dynamo.TokenID)+dynamo.TokenID(e.Output))%200, dynamo.TokenLogprob{})
		}
	}
	return nil
}

func (a *adder) Close() error {
	a.closed = true
	return nil
}

func config(a *adder) loop.Config {
	s := sched.DefaultConfig()
	s.Blocks, s.BlockSize, s.MaxContext, s.StepTokens, s.MaxRunning, s.MaxWaiting = 200, 4, 160, 48, 16, 64
	return loop.Config{
		Card:  engine.Card{Model: "adder", Engine: "adder", ContextLength: 160, BlockSize: 4, VocabSize: 300, MaxTopLogprobs: -1, Resume: true, ResumeSeeded: true},
		Sched: s, Computer: a,
	}
}

func start(t *testing.T, c loop.Config) (*loop.Engine, context.CancelFunc, <-chan error) {
	t.Helper()
	e, err := loop.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran, told := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(ran)
		told <- e.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	return e, cancel, told
}

func prompt(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID((n*13 + i*i) % 300)
	}
	return ids
}

func TestConformance(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		e, _, _ := start(t, config(&adder{}))
		return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: prompt, Idle: func() error {
			if s := e.Stats(); s.Busy() > 0 || s.Scheduler.KV.Held > 0 {
				return fmt.Errorf("%+v", s)
			}
			return e.Check()
		}}
	})
}

// A step that fails, that panics and that ends the engine: each ends the requests
// of its moment, with the kind that says what to do.
func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name string
		step func(n int) error
		kind dynamo.Kind
		over bool
	}{
		{"fails", func(n int) error {
			if n == 3 {
				return errors.New("no luck")
			}
			return nil
		}, dynamo.KindInternal, false},
		{"panics", func(n int) error {
			if n == 3 {
				panic("no luck")
			}
			return nil
		}, dynamo.KindInternal, false},
		{"ends", func(n int) error {
			if n == 3 {
				return fmt.Errorf("compute: %w", &loop.End{Err: errors.New("no luck")})
			}
			return nil
		}, dynamo.KindUnavailable, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &adder{step: c.step}
				e, cancel, ended := start(t, config(a))
				got, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: prompt(5), MaxTokens: 20})
				if len(got.Tokens) != 2 || dynamo.KindOf(err) != c.kind {
					t.Errorf("got %d ids and %v, want 2 and kind %v", len(got.Tokens), err, c.kind)
				}
				_, err = enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: prompt(5), MaxTokens: 20})
				if (err != nil) != c.over || c.over && dynamo.KindOf(err) != dynamo.KindUnavailable {
					t.Errorf("afterwards: %v", err)
				}
				if err := e.Check(); (err != nil) != c.over {
					t.Errorf("Check: %v", err)
				}
				if !c.over {
					cancel()
				}
				if err := <-ended; c.over != (err != nil && strings.Contains(err.Error(), "no luck")) || !a.closed {
					t.Errorf("Run: %v, closed: %t", err, a.closed)
				}
			})
		})
	}
}

// While the engine is stuck nothing is computed, and what is cancelled is gone.
func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &adder{}
		c := config(a)
		c.Stalled = func() bool { return a.steps >= 2 }
		e, _, _ := start(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got, err := enginetest.Collect(ctx, e, &dynamo.Request{Tokens: prompt(5), MaxTokens: 20})
		if len(got.Tokens) != 2 || dynamo.KindOf(err) != dynamo.KindDeadline {
			t.Errorf("got %d ids and %v", len(got.Tokens), err)
		}
		if s := e.Stats(); s.Busy() != 0 || e.Check() != nil {
			t.Errorf("%d requests are left; %v", s.Busy(), e.Check())
		}
	})
}

// An observer sees every batch before it is computed.
func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &adder{}
		c := config(a)
		tokens := 0
		c.Observe = func(_ []sched.Action, b *sched.Batch) { tokens += b.Tokens }
		e, cancel, ended := start(t, c)
		if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: prompt(60), MaxTokens: 5}); err != nil {
			t.Fatal(err)
		}
		cancel()
		<-ended
		if got := e.Stats().Scheduler.Tokens; tokens != 64 || got != 64 {
			t.Errorf("saw %d tokens, computed %d, want 64", tokens, got)
		}
	})
}
