package vllm

import (
	"context"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/tokens"
)

// follow hands on what one rank's KV cache stores and removes, until ctx ends.
func (e *Engine) follow(ctx context.Context, s Source) error {
	d := e.must()
	t := kvwire.NewTranslator(kvwire.TranslatorConfig{BlockSize: d.info.BlockSize, Metrics: e.config.Metrics.wire()})
	c := kvwire.DefaultConfig()
	c.Dial, c.Logger, c.Metrics = e.config.Dial, e.config.Logger, e.config.Metrics.wire()
	log := e.log.With("rank", s.Rank, obs.KeyAddress, s.Endpoint)
	c.Changed = func(up bool, err error) {
		log.Debug("event source", "up", up, obs.KeyError, err)
	}
	p := publisher{sink: e.config.Events, rank: s.Rank, blockSize: d.info.BlockSize}
	source := kvwire.Source{Endpoint: s.Endpoint, ReplayEndpoint: s.ReplayEndpoint, Topic: s.Topic}
	for delivery, err := range kvwire.Subscribe(ctx, source, c) {
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case delivery.Kind == kvwire.DeliverReset:
			log.Info("what was known of the KV cache is forgotten", "reason", delivery.Reason.String(), "partial", delivery.Partial)
			p.publish(t.Reset())
		default:
			p.publish(t.Translate(delivery.Batch))
		}
	}
	return nil
}

// publisher makes batches of one rank's changes. Its buffers are reused.
type publisher struct {
	sink            func(*event.KVBatch)
	rank, blockSize int
	batch           event.KVBatch
	blocks          []event.KVBlock
}

// publish hands changes to the sink, those of one tier that follow each other in one
// batch.
func (p *publisher) publish(changes []kvwire.Change) {
	for start := 0; start < len(changes); {
		end := start
		for end < len(changes) && changes[end].Tier == changes[start].Tier {
			end++
		}
		p.send(changes[start].Tier, changes[start:end])
		start = end
	}
}

func (p *publisher) send(tier dynamo.Tier, changes []kvwire.Change) {
	p.blocks = p.blocks[:0]
	events := p.batch.Events[:0]
	for _, c := range changes {
		ev := event.KVEvent{Parent: c.Parent, HasParent: c.HasParent}
		switch c.Kind {
		case kvwire.Stored:
			ev.Kind = kvbm.Stored
			first := len(p.blocks)
			for _, b := range c.Blocks {
				p.blocks = append(p.blocks, event.KVBlock{Block: tokens.Block{Local: b.Local, Hash: b.Hash}})
			}
			// Slices of a buffer that has moved since still hold what they held.
			ev.Blocks = p.blocks[first:len(p.blocks):len(p.blocks)]
		case kvwire.Removed:
			ev.Kind, ev.Hashes = kvbm.Removed, c.Removed
		case kvwire.Cleared:
			ev.Kind = kvbm.Cleared
		}
		events = append(events, ev)
	}
	p.batch = event.KVBatch{Tier: tier, Rank: p.rank, BlockSize: p.blockSize, Events: events}
	p.sink(&p.batch)
	clear(events) // what they point to is the translator's
}
