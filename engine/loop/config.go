package loop

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/kvbm"
)

// Computer computes batches. Begin may be called at any time from anywhere, the
// rest in the loop's goroutine.
type Computer interface {
	// Begin returns what the computer keeps for a request, which it finds again in
	// Task.State.
	Begin(r *dynamo.Request) any
	// Compute computes a batch and answers each entry that has Sample set in
	// results, by a method of its Task (Entry.Ref): Post, Complete or Refuse. An
	// error fails the requests of the batch; an End ends the engine. ctx ends when
	// the loop is to stop: then Compute may give up with ctx's error.
	Compute(ctx context.Context, b *sched.Batch, results []sched.Result) error
	// Close frees what the computer holds; it is called when Run returns.
	Close() error
}

// Transfers brings KV that other engines computed into the blocks of requests. Its
// methods are called in the loop's goroutine, but for External.
type Transfers interface {
	// External is the number of leading ids of a request whose KV can be brought. It
	// may be called from anywhere.
	External(t *Task) int
	// Begin begins to bring the KV of n ids of t, from position start on, of which
	// the pool has those before. Nothing is being brought for t.
	Begin(t *Task, start, n int, now time.Time)
	// Cancel gives up what was begun for t: its blocks are written to no more.
	Cancel(t *Task, now time.Time)
	// Ended returns a task for which all was brought by now (ok), or will not be; nil
	// if there is none. It is forgotten with that.
	Ended(now time.Time) (t *Task, ok bool)
	// Next is when the next one ends, and false while nothing is being brought.
	Next() (time.Time, bool)
}

// End is an error of Compute after which the engine is over: Run fails all requests
// and returns it.
type End struct{ Err error }

// Error returns the message.
func (e *End) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *End) Unwrap() error { return e.Err }

// Config describes an engine. It has no defaults.
type Config struct {
	// Card is what the engine serves.
	Card engine.Card
	// Sched is the scheduler's configuration. Its MaxWaiting and MaxRunning bound
	// the requests that wait to be taken in, too.
	Sched sched.Config
	// Computer computes.
	Computer Computer
	// Handover says, for a request with Prefill, where the KV of its first n ids is
	// (dynamo.Chunk.Handover); it is called in the loop's goroutine. Nil, where the
	// card has not the role prefill: there are no such requests.
	Handover func(t *Task, n int) []byte
	// Lease is how long that KV is kept for those who go on with it, at most.
	Lease time.Duration
	// Transfers brings what the Handover of requests tells of. Nil: it is not looked
	// at.
	Transfers Transfers
	// Stalled says, before each step, that the engine is stuck: no batch is formed
	// then, while requests come and go. Nil: it never is.
	Stalled func() bool
	// Idle hears, in the loop's goroutine, that there is nothing to compute for the
	// moment. Nil: nobody does.
	Idle func()
	// Observe hears of each step before it is computed: what the scheduler decided,
	// and the batch, whose entries refer to Tasks. It is called in the loop's
	// goroutine; its arguments are valid during the call. Nil: nobody does.
	Observe func(actions []sched.Action, b *sched.Batch)
	// Logger receives what an operator should know; nil discards it.
	Logger *slog.Logger
	// Events receives the KV cache's changes in order, in the loop's goroutine,
	// which it holds up; the slice is valid during the call. nil: none are made.
	Events func([]kvbm.Event)
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var faults []error
	if c.Computer == nil {
		faults = append(faults, errors.New("an engine's loop needs a computer"))
	}
	if c.Card.Role == engine.RolePrefill && (c.Handover == nil || c.Lease <= 0) {
		faults = append(faults, errors.New("an engine that hands KV over must say where it is, and keep it for a while"))
	}
	return errors.Join(append(faults, c.Sched.Validate())...)
}
