package node

import (
	"context"
	"iter"

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
	ranks     int
}

// foretelling is h's engine, which foretells if it keeps prompts for others at all.
func (n *Node) foretelling(h *hosted, kv *event.KVSource) engine.Engine {
	if h.card.BlockSize < 1 || !n.cfg.PrefixCaching {
		return h.engine
	}
	return &foretelling{h.engine, kv, h.card.BlockSize, max(h.ranks, 1)}
}

// Generate implements engine.Engine.
func (f *foretelling) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	rank, known := f.rank(r)
	if !known || r.Lend || len(r.Tokens)+len(r.Resume) < f.blockSize {
		return f.Engine.Generate(ctx, r)
	}
	return func(yield func(dynamo.Chunk, error) bool) {
		r := tokens.Share(r) // the engine asks for the same hashes
		f.kv.Expect(rank, f.blockSize, tokens.AppendSequence(make([]dynamo.BlockHash, 0, (len(r.Tokens)+len(r.Resume))/f.blockSize), r, f.blockSize))
		f.Engine.Generate(ctx, r)(yield)
	}
}

// rank is the data-parallel rank that will hold the prompt of r; false: only the engine
// knows, or there is no such rank.
func (f *foretelling) rank(r *dynamo.Request) (int, bool) {
	if r.Routing == nil || r.Routing.Rank == nil {
		return 0, f.ranks == 1
	}
	return *r.Routing.Rank, *r.Routing.Rank >= 0 && *r.Routing.Rank < f.ranks
}

// sharing is an engine below which a prompt is hashed once.
type sharing struct{ engine.Engine }

// Generate implements engine.Engine.
func (s sharing) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return s.Engine.Generate(ctx, tokens.Share(r))
}
