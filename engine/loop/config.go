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
	// Begin begins to bring what a, a Load, names for t; the pool has what is before.
	// Nothing is being brought for t. a is valid during the call, its Blocks until the
	// end of what is begun.
	Begin(t *Task, a *sched.Action, now time.Time)
	// Cancel gives up what was begun for t: its blocks are written to no more.
	Cancel(t *Task, now time.Time)
	// Ended returns a task for which all was brought by now (ok), or will not be; nil
	// if there is none. It is forgotten with that.
	Ended(now time.Time) (t *Task, ok bool)
	// Arriving returns a task that may be computed while the rest of what it needs comes,
	// which the Computer then waits for as it goes; nil if there is none. Each is returned
	// once. When a batch with such a task is computed, Ended has it, or the Computer has set
	// its entry Void. Engine.Wake has the loop ask.
	Arriving() *Task
	// Next is when the next one ends, and false while nothing is being brought.
	Next() (time.Time, bool)
}

// Tiers keeps the KV of computed blocks where the pool may lose it, and brings it back.
// Its methods are called in the loop's goroutine.
type Tiers interface {
	// Arriving is as in Transfers.
	Arriving() *Task
	// External is the number of leading ids of t whose KV is at hand, when the pool has
	// that of the first found ids: found, or more if the rest is worth bringing.
	External(t *Task, found int) int
	// Begin begins to bring the KV of n ids of t, from position start on, into blocks.
	// Nothing is being brought for t.
	Begin(t *Task, start, n int, blocks []int32)
	// Cancel gives up what was begun for t: on return its blocks are written to no more.
	Cancel(t *Task)
	// Ended returns a task for which all was brought (ok), or will not be; nil if there
	// is none. It is forgotten with that. Engine.Wake has the loop ask.
	Ended() (t *Task, ok bool)
	// Computed hears of a batch that was computed, before its blocks are anybody's but
	// their sequences', and how long that took.
	Computed(b *sched.Batch, took time.Duration)
}

// Loans are blocks that other engines may read since Config.Handover has told of them.
// Its methods are called in the loop's goroutine.
type Loans interface {
	// Recall asks for the blocks of t back: nobody is to begin to read them any more.
	Recall(t *Task)
	// Returned returns a task whose blocks nobody reads any more, because they were
	// recalled or their time is over; nil if there is none. It is forgotten with that.
	// Engine.Wake has the loop ask.
	Returned() *Task
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
	// Handover says, for a request whose answer goes on elsewhere, where the KV is that
	// kept, a Leased, names (dynamo.Chunk.Handover); empty: there is no way to it. It is
	// called in the loop's goroutine. Nil: no KV is kept, and there are no requests with
	// Prefill.
	Handover func(t *Task, kept *sched.Action) []byte
	// Lease is how long that KV is kept for those who go on with it, at most; Loans, if
	// there are any, say when it is over.
	Lease time.Duration
	// Loans says when blocks that Handover has told of may be used again. Nil: when the
	// request is over.
	Loans Loans
	// Transfers brings what the Handover of requests tells of. Nil: it is not looked
	// at.
	Transfers Transfers
	// Tiers keeps KV below the pool, for requests without Handover. Nil: nobody does.
	Tiers Tiers
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
