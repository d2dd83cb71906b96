// Package native is the embedded engine: it loads nothing and listens to nobody,
// but turns a model (engine/native/model) into an engine.Engine with continuous
// batching (engine/loop and engine/sched), a paged KV cache shared by equal prefixes
// (kvbm) and sampling. Package node builds it; frontends see an engine.Engine.
//
// Laws, beside those of engine.Engine and engine/loop:
//   - The ids of a request depend on the request and the model alone: not on what
//     else is in the batch, on how its prompt was cut, on what the cache held, on
//     whether it was preempted, or on which engine of the model computed its KV.
//   - What it has of a prompt it lends to whoever asks (dynamo.Request.Lend), where there is
//     room beside what runs; nothing is computed for that.
//   - KV that it gives to other engines (Exchange) is lent block by block, to be read,
//     and no block is used again while somebody may read it. What it takes from others
//     is used when its bytes are those that were lent, for these ids, by an engine of
//     the same model, arithmetic and layout; whatever else happens, it computes.
//   - KV comes, from another engine or from the tiers, and is checked group of layers by
//     group of layers, in the order in which a step uses them. Where the rest is likely to come in time, a step begins with the first
//     group and waits for each layer (awaitMax); a request whose layers are late or damaged
//     drops out of the step, and the others in it do not notice.
//
// Goroutines beside the loop's, with an Exchange: one for each request whose KV is on its
// way here, one for each whose blocks are read still though they were recalled, and one
// that takes memory for the cache a little before it is used.
package native

import (
	"context"
	"fmt"

	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
)

// Engine serves one model. New starts nothing; Run does the work.
type Engine struct {
	*loop.Engine
	moves *exchange // or nil
}

var _ engine.Engine = (*Engine)(nil)

// Run runs the engine, as loop.Engine.Run does.
func (e *Engine) Run(ctx context.Context) error {
	if e.moves != nil {
		e.moves.ahead.reach(0)
	}
	return e.Engine.Run(ctx)
}

// build puts an engine together, of a valid config whose Blocks is set. There need not
// be tiers, nor others to exchange KV with.
func build(c Config, card engine.Card, f forward, tiers *tiered, moves *exchange) (*Engine, error) {
	k, err := kernel.New(kernel.Best())
	if err != nil {
		return nil, fmt.Errorf("choose the sampler's kernels: %w", err)
	}
	computes := &computer{forward: f, sampler: sampler{kernels: k}, eos: card.EOS, tiers: tiers, moves: moves}
	lc := loop.Config{
		Card: card, Sched: c.scheduler(&card), Computer: computes,
		Logger: c.Logger, Events: c.Events, Observe: c.Observe,
	}
	if tiers != nil {
		lc.Tiers, computes.pace = tiers, tiers.pace
	}
	if moves != nil {
		computes.pace = moves.fetcher.pace
		lc.Transfers, lc.Handover, lc.Loans, lc.Lease = moves.fetcher, moves.lender.handOver, moves.lender, moves.Lease
	}
	e, err := loop.New(lc)
	if err != nil {
		return nil, err
	}
	if tiers != nil {
		tiers.wake = e.Wake
	}
	if moves != nil {
		moves.wakes(e.Wake)
		if tiers != nil {
			tiers.wrote, tiers.pace = moves.lender.written, moves.fetcher.pace
		}
	}
	return &Engine{e, moves}, nil
}
