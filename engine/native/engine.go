// Package native is the embedded engine: it loads nothing and listens to nobody,
// but turns a model (engine/native/model) into an engine.Engine with continuous
// batching (engine/loop and engine/sched), a paged KV cache shared by equal prefixes
// (kvbm) and sampling. Package node builds it; frontends see an engine.Engine.
//
// Laws, beside those of engine.Engine and engine/loop:
//   - The ids of a request depend on the request and the model alone: not on what
//     else is in the batch, on how its prompt was cut, on what the cache held or
//     on whether it was preempted.
package native

import (
	"fmt"

	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
)

// Engine serves one model. New starts nothing; Run does the work.
type Engine struct{ *loop.Engine }

var _ engine.Engine = (*Engine)(nil)

// build puts an engine together, of a valid config whose Blocks is set.
func build(c Config, card engine.Card, f forward) (*Engine, error) {
	k, err := kernel.New(kernel.Best())
	if err != nil {
		return nil, fmt.Errorf("choose the sampler's kernels: %w", err)
	}
	e, err := loop.New(loop.Config{
		Card: card, Sched: c.scheduler(&card), Computer: &computer{forward: f, sampler: sampler{kernels: k}, eos: card.EOS},
		Logger: c.Logger, Events: c.Events, Observe: c.Observe,
	})
	if err != nil {
		return nil, err
	}
	return &Engine{e}, nil
}
