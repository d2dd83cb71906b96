// Package mocker is an engine with everything real but the arithmetic: the embedded
// engine's loop, scheduler and block manager, KV events, load and faults, while the
// time of each step comes from a performance model (package perfmodel). A fleet of
// them shows on one machine how a cluster behaves. Package node builds it.
//
// Laws, beside those of engine.Engine and engine/loop:
//   - The ids of a request depend on the request and on what a Config says of
//     content (Words, EOS, OutputTokens, Shape) alone, whatever the model of time
//     and the faults are; so an answer goes on exactly at any engine of one
//     Revision. At a temperature above 0 they depend on the seed, too.
//   - For one sequence of requests it forms the batches the embedded engine forms.
//   - Log-probabilities are made up.
//   - KV that is handed over from one mocker to another is there when the time of its
//     transfer has passed (see Config.Role): nothing is copied, and nobody is asked.
//     Who keeps it is told that it is not needed any more by whoever asked for it.
//
// Goroutines: Run's, and one for each rank beyond the first.
package mocker

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/perfmodel"
)

// Engine mocks an engine. New starts nothing; Run does the work.
type Engine struct {
	config Config
	card   engine.Card
	ranks  []*rank
	next   atomic.Uint64 // where the search for the least busy rank begins
}

var _ engine.Engine = (*Engine)(nil)

// rank is one data-parallel engine.
type rank struct {
	*loop.Engine
	computer *computer
	busy     atomic.Int64 // requests in progress
}

// New returns an engine; the error lists the faults of c.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Model == nil {
		c.Model = &perfmodel.Polynomial{KVCapacityTokens: c.Blocks * c.BlockSize}
	}
	e := &Engine{config: c}
	e.card = engine.Card{
		Model: c.Name, Engine: engineName, Revision: c.identity(), ContextLength: c.context(), BlockSize: c.BlockSize,
		VocabSize: c.VocabSize, EOS: slices.Clone(c.EOS), MaxTopLogprobs: MaxTopLogprobs,
		Resume: true, ResumeSeeded: true, NumericClass: "exact", Role: c.Role, Lends: c.Lends && c.PrefixCaching && c.Ranks == 1,
	}
	for i := range c.Ranks {
		r := &rank{computer: &computer{config: &e.config, card: e.card, rank: i}}
		lc := loop.Config{Card: e.card, Sched: c.scheduler(), Computer: r.computer, Stalled: r.computer.stalled, Idle: r.computer.idle, Logger: c.Logger}
		lc.Transfers, lc.Handover, lc.Lease = &link{config: &e.config}, r.computer.handOver, c.Lease
		if c.Events != nil {
			lc.Events = (&spoiler{config: &e.config, rank: i}).tell
		}
		if c.Observe != nil {
			lc.Observe = func(actions []sched.Action, b *sched.Batch) { c.Observe(i, actions, b) }
		}
		var err error
		if r.Engine, err = loop.New(lc); err != nil {
			return nil, err
		}
		e.ranks = append(e.ranks, r)
	}
	return e, nil
}

// identity is the SHA-256 of what an answer depends on beside its request.
func (c *Config) identity() string {
	h := sha256.New()
	fmt.Fprintf(h, "mocker %d %v %d %+v", c.VocabSize, c.EOS, c.OutputTokens, c.Shape)
	_ = binary.Write(h, binary.LittleEndian, c.Words) // a hash takes everything
	return hex.EncodeToString(h.Sum(nil))
}

// Card says what the engine serves.
func (e *Engine) Card() engine.Card { return e.card }

// Ready returns when the engine has started up, which takes Config.Startup.
func (e *Engine) Ready(ctx context.Context) error {
	if e.config.Startup == 0 {
		return nil
	}
	t := time.NewTimer(e.config.Startup)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("start the mocker up: %w", context.Cause(ctx))
	}
}

// Generate implements engine.Engine. The rank that the request names takes it, or the
// one with the fewest requests.
func (e *Engine) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		if e.config.refuses(r.ID) {
			yield(dynamo.Chunk{}, &dynamo.Error{
				Kind: dynamo.KindExhausted, Code: "queue_full", RetryAfter: time.Second,
				Message: "the mocker refuses this request, as it was told to (--fault refuse); try again later",
			})
			return
		}
		k, err := e.rankFor(r)
		if err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		k.busy.Add(1)
		defer k.busy.Add(-1)
		k.Generate(ctx, r)(yield)
	}
}

// rankFor is the rank that takes a request.
func (e *Engine) rankFor(r *dynamo.Request) (*rank, error) {
	if r.Routing == nil || r.Routing.Rank == nil {
		return e.leastBusy(), nil
	}
	n := *r.Routing.Rank
	if n < 0 || n >= len(e.ranks) {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("data-parallel rank %d: this worker has the ranks 0 to %d; name one of them, or none", n, len(e.ranks)-1)}
	}
	return e.ranks[n], nil
}

func (e *Engine) leastBusy() *rank {
	if len(e.ranks) == 1 {
		return e.ranks[0]
	}
	first := int(e.next.Add(1) % uint64(len(e.ranks)))
	best := e.ranks[first]
	for i := range e.ranks {
		if k := e.ranks[(first+i)%len(e.ranks)]; k.busy.Load() < best.busy.Load() {
			best = k
		}
	}
	return best
}

// Run runs the ranks until ctx ends, and returns its cause then; or after Drain,
// and returns nil. A rank that fails ends all.
func (e *Engine) Run(ctx context.Context) error {
	if len(e.ranks) == 1 {
		return e.ranks[0].Run(ctx)
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	var g errgroup.Group
	for _, k := range e.ranks {
		g.Go(func() error {
			err := k.Run(ctx)
			if err != nil {
				end(err)
			}
			return err
		})
	}
	return g.Wait()
}

// Drain refuses new requests and returns when those accepted have ended and Run has
// returned, or ctx is done.
func (e *Engine) Drain(ctx context.Context) error {
	var g errgroup.Group
	for _, k := range e.ranks {
		g.Go(func() error { return k.Drain(ctx) })
	}
	return g.Wait()
}

// HandOver gives up the requests in progress, as loop.Engine.HandOver does.
func (e *Engine) HandOver() {
	for _, k := range e.ranks {
		k.HandOver()
	}
}

// Stats returns the counts, summed over the ranks.
func (e *Engine) Stats() loop.Stats {
	sum := e.ranks[0].Stats()
	for _, k := range e.ranks[1:] {
		s := k.Stats()
		sum.Add(&s)
	}
	return sum
}

// Load says how full the engine is.
func (e *Engine) Load() engine.Load {
	sum := e.ranks[0].Load()
	for _, k := range e.ranks[1:] {
		l := k.Load()
		sum.Running, sum.Waiting, sum.MaxRunning = sum.Running+l.Running, sum.Waiting+l.Waiting, sum.MaxRunning+l.MaxRunning
		sum.KVBlocks, sum.KVUsed, sum.Steps = sum.KVBlocks+l.KVBlocks, sum.KVUsed+l.KVUsed, sum.Steps+l.Steps
	}
	return sum
}

// Check tells what is wrong with the ranks' schedulers and KV caches (I4, I5), or
// nil. It is for tests and simulations; Run must have been called.
func (e *Engine) Check() error {
	var faults []error
	for _, k := range e.ranks {
		faults = append(faults, k.Check())
	}
	return errors.Join(faults...)
}

// Ranks is the number of data-parallel ranks.
func (e *Engine) Ranks() int { return len(e.ranks) }

// Held lists the blocks that a rank's KV cache can match, in no order. It is for tests
// and simulations, as Check is.
func (e *Engine) Held(rank int) ([]dynamo.BlockHash, error) { return e.ranks[rank].Held() }

// Late is the time by which the engine is behind its model for good: the machine
// did not keep up with what it was asked to mock.
func (e *Engine) Late() time.Duration {
	var sum int64
	for _, k := range e.ranks {
		sum += k.computer.late.Load()
	}
	return time.Duration(sum)
}
