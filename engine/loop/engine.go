package loop

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
)

// Engine serves one model. New starts nothing; Run does the work.
type Engine struct {
	config Config

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
	task   *Task
	cancel bool
	check  chan error // has one place; without a task
	held   *[]dynamo.BlockHash
	yield  bool
}

// New returns an engine.
func New(c Config) (*Engine, error) {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Sched.Events = c.Events != nil
	if c.Tiers != nil {
		c.Sched.External = func(ref any, found int) int { return c.Tiers.External(ref.(*Task), found) }
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure the engine: %w", err)
	}
	return &Engine{config: c, wake: make(chan struct{}, 1), done: make(chan struct{})}, nil
}

// Card says what the engine serves.
func (e *Engine) Card() engine.Card { return e.config.Card }

// Stats returns the counts.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.mu.stats
	s.Submitted = e.submittedLocked()
	return s
}

// Load says how full the engine is.
func (e *Engine) Load() engine.Load {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.mu.stats.Load(e.config.Sched.MaxRunning)
	l.Waiting += e.submittedLocked()
	return l
}

// submittedLocked is the number of requests that wait to be taken in.
func (e *Engine) submittedLocked() (n int) {
	for _, c := range e.mu.inbox {
		if c.task != nil && !c.cancel {
			n++
		}
	}
	return n
}

// Check tells what is wrong with the scheduler and its KV cache (I4, I5), or nil;
// or that the engine has ended. It looks at everything and is for tests and
// simulations. Run must have been called.
func (e *Engine) Check() error { return e.inspect(nil) }

// Held lists the blocks that the KV cache can match, in no order. It is for tests and
// simulations, as Check is.
func (e *Engine) Held() (all []dynamo.BlockHash, err error) {
	err = e.inspect(&all)
	return all, err
}

// inspect has the loop check itself and list what it holds, if held is not nil.
func (e *Engine) inspect(held *[]dynamo.BlockHash) error {
	answer := make(chan error, 1)
	e.mu.Lock()
	if e.mu.stopped {
		e.mu.Unlock()
		return stopping()
	}
	e.mu.inbox = append(e.mu.inbox, command{check: answer, held: held})
	e.signal()
	e.mu.Unlock()
	return <-answer
}

// Generate implements engine.Engine. Requests wait until Run is called.
func (e *Engine) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		if err := engine.Accept(ctx, &e.config.Card, r); err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		t := newTask(r, e.config.Card.EOS, engine.Room(&e.config.Card, r))
		t.State = e.config.Computer.Begin(r)
		if reason := t.complete(); reason != dynamo.FinishNone && !r.Lend {
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

// read yields a task's mail until it ends or the caller does.
func (e *Engine) read(ctx context.Context, t *Task, yield func(dynamo.Chunk, error) bool) {
	// The context's end is one more signal: waiting for one channel costs half of
	// waiting for two, for each token.
	defer context.AfterFunc(ctx, t.signal)()
	for {
		<-t.ready
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
		case len(chunk.Tokens) == 0 && chunk.Handover == nil && chunk.Finish == dynamo.FinishNone:
			continue // this wake was for mail that is taken already
		case !yield(chunk, nil) || chunk.Finish != dynamo.FinishNone:
			return
		}
	}
}

// submit hands t to the loop.
func (e *Engine) submit(t *Task) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.mu.draining || e.mu.stopped:
		return stopping()
	case len(e.mu.inbox) >= e.config.Sched.MaxWaiting+e.config.Sched.MaxRunning:
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
func (e *Engine) abandon(t *Task) {
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
func (e *Engine) takeBack(t *Task) bool {
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

// HandOver gives up the requests in progress whose answers can go on at another engine
// with the KV that is here: each yields a chunk with Handover after what it has yielded,
// and keeps its KV until its sequence is ended. Others go on. It does not wait.
func (e *Engine) HandOver() {
	if e.config.Handover == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.mu.stopped {
		e.mu.inbox = append(e.mu.inbox, command{yield: true})
		e.signal()
	}
}

// Wake has the loop look whether KV was brought. It never blocks and may be called from
// anywhere.
func (e *Engine) Wake() { e.signal() }

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

// leaving is what a request ends with that was given up and not taken over.
func leaving() error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeDraining, Message: "the engine is leaving; the request goes on elsewhere"}
}

func stopping() error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, RetryAfter: time.Second, Message: "the engine is stopping; send the request elsewhere or later"}
}
