package node

import (
	"context"
	"iter"
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/tokens"
)

// foretelling is an engine whose KV source tells what it is about to hold when a
// request is accepted, so that every frontend sends the next one with that beginning
// to the same worker, not only the frontend that chose it.
type foretelling struct {
	engine.Engine
	kv        *event.KVSource
	blockSize int
}

// foretelling is h's engine, which foretells if it keeps prompts for others at all.
func (n *Node) foretelling(h *hosted, kv *event.KVSource) engine.Engine {
	if h.card.BlockSize < 1 || !n.cfg.PrefixCaching {
		return h.engine
	}
	return &foretelling{h.engine, kv, h.card.BlockSize}
}

// Generate implements engine.Engine.
func (f *foretelling) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	if len(r.Tokens)+len(r.Resume) < f.blockSize {
		return f.Engine.Generate(ctx, r)
	}
	return func(yield func(dynamo.Chunk, error) bool) {
		ids := r.Tokens
		if len(r.Resume) > 0 {
			ids = append(slices.Clip(ids), r.Resume...)
		}
		f.kv.Expect(0, f.blockSize, tokens.AppendHashes(nil, r.Root, f.blockSize, ids))
		f.Engine.Generate(ctx, r)(yield)
	}
}
