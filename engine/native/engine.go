// Package native is the embedded engine: it loads nothing and listens to nobody,
// but turns a model (engine/native/model) into an engine.Engine with continuous
// batching (engine/sched), a paged KV cache shared by equal prefixes (kvbm) and
// sampling. Package node builds it; frontends see an engine.Engine.
//
// It owns one goroutine's worth of work, which Run is: the batch loop. Callers of
// Generate submit a task to it and read the task's mail in their own goroutines;
// the loop never waits for a reader.
//
// Laws, beside those of engine.Engine:
//   - The ids of a request depend on the request and the model alone: not on what
//     else is in the batch, on how its prompt was cut, on what the cache held or
//     on whether it was preempted.
//   - When Generate's sequence has ended, for whatever reason, the engine holds
//     neither a block nor a place in a queue for it (I6).
//   - Every request ends exactly once (I1), also when a step panics or Run ends.
package native

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
)

// Engine serves one model. New starts nothing; Run does the work.
type Engine struct {
	config  Config
	card    engine.Card
	forward forward
	kernels *kernel.Kernels

	wake chan struct{} // one place: any number of submissions are one wake
	done chan struct{} // closed when Run has returned
	mu   struct {
		sync.Mutex
		running  bool // Run was called
		draining bool
		stopped  bool
		inbox    []command
		stats    Stats
	}
}

var _ engine.Engine = (*Engine)(nil)

// command is what Generate asks of the loop.
type command struct {
	task   *task
	cancel bool
}

// build puts an engine together, of a valid config whose Blocks is set.
func build(c Config, card engine.Card, f forward) (*Engine, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if err := c.scheduler(&card).Validate(); err != nil {
		return nil, fmt.Errorf("configure the engine: %w", err)
	}
	k, err := kernel.New(kernel.Best())
	if err != nil {
		return nil, fmt.Errorf("choose the sampler's kernels: %w", err)
	}
	return &Engine{config: c, card: card, forward: f, kernels: k, wake: make(chan struct{}, 1), done: make(chan struct{})}, nil
}

// Card says what the engine serves.
func (e *Engine) Card() engine.Card { return e.card }

// Stats returns the counts.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.mu.stats
	for _, c := range e.mu.inbox {
		if !c.cancel {
			s.Submitted++
		}
	}
	return s
}

// Generate implements engine.Engine. Requests wait until Run is called.
func (e *Engine) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		if err := e.check(ctx, r); err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		t := newTask(r, e.card.EOS, engine.Room(&e.card, r))
		if reason := t.complete(); reason != dynamo.FinishNone {
			yield(dynamo.Chunk{
				Choice: r.Choice, Finish: reason,
				Usage: dynamo.Usage{Prompt: len(r.Tokens), Completion: len(r.Resume)},
			}, nil)
			return
		}
		if err := e.submit(t); err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		defer e.abandon(t)
		e.read(ctx, t, yield)
	}
}

// check refuses what is wrong or over before it begins.
func (e *Engine) check(ctx context.Context, r *dynamo.Request) error {
	if err := engine.Check(&e.card, r); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return engine.ContextError(ctx)
	}
	if !r.Deadline.IsZero() && !time.Now().Before(r.Deadline) {
		return engine.DeadlineError(nil)
	}
	return nil
}

// read yields a task's mail until it ends or the caller does.
func (e *Engine) read(ctx context.Context, t *task, yield func(dynamo.Chunk, error) bool) {
	for {
		select {
		case <-t.ready:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			e.abandon(t)
			yield(dynamo.Chunk{}, engine.ContextError(ctx))
			return
		}
		var chunk dynamo.Chunk
		switch err := t.take(&chunk); {
		case err != nil:
			yield(dynamo.Chunk{}, err)
			return
		case len(chunk.Tokens) == 0 && chunk.Finish == dynamo.FinishNone:
			continue // this wake was for mail that is taken already
		case !yield(chunk, nil) || chunk.Finish != dynamo.FinishNone:
			return
		}
	}
}

// submit hands t to the loop.
func (e *Engine) submit(t *task) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.mu.draining || e.mu.stopped:
		return stopping()
	case len(e.mu.inbox) >= e.config.MaxQueue+e.config.MaxRunning:
		return &dynamo.Error{
			Kind: dynamo.KindExhausted, Code: "queue_full", RetryAfter: time.Second,
			Message: fmt.Sprintf("the queue is full: %d requests wait to be taken in; try again later", len(e.mu.inbox)),
		}
	}
	e.mu.inbox = append(e.mu.inbox, command{task: t})
	e.signal()
	return nil
}

// abandon makes sure that the loop holds nothing for t: it takes t back if the
// loop has not seen it, and otherwise waits until the loop is done with it, which
// takes a step at most.
func (e *Engine) abandon(t *task) {
	if t.ended() {
		return
	}
	if e.takeBack(t) {
		t.fail(&dynamo.Error{Kind: dynamo.KindCancelled, Message: "the request was cancelled before it was taken in"})
	}
	for !t.ended() {
		<-t.ready
	}
}

// takeBack reports whether t was still in the inbox, and tells the loop to cancel
// it otherwise.
func (e *Engine) takeBack(t *task) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := slices.Index(e.mu.inbox, command{task: t}); i >= 0 {
		e.mu.inbox = slices.Delete(e.mu.inbox, i, i+1)
		e.signal() // a loop that drains may be waiting for the inbox to empty
		return true
	}
	if !e.mu.stopped {
		e.mu.inbox = append(e.mu.inbox, command{task: t, cancel: true})
		e.signal()
	}
	return false
}

// signal wakes the loop; it never blocks.
func (e *Engine) signal() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Drain refuses new requests from now on with KindUnavailable, and returns when
// those accepted have ended and Run has returned, or ctx is done.
func (e *Engine) Drain(ctx context.Context) error {
	e.mu.Lock()
	e.mu.draining = true
	running := e.mu.running
	e.signal()
	e.mu.Unlock()
	if !running {
		return nil
	}
	select {
	case <-e.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain the engine with %d requests in progress: %w", e.Stats().Busy(), context.Cause(ctx))
	}
}

func stopping() error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, RetryAfter: time.Second, Message: "the engine is stopping; send the request elsewhere or later"}
}
