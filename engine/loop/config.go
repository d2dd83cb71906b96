package loop

import (
	"context"
	"errors"
	"log/slog"

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
	// Stalled says, before each step, that the engine is stuck: no batch is formed
	// then, while requests come and go. Nil: it never is.
	Stalled func() bool
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
	return errors.Join(append(faults, c.Sched.Validate())...)
}
