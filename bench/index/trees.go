package index

import (
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

// turn is a part of a conversation: the chain up to there, of which the blocks from
// start on are new.
type turn struct {
	chain []tokens.Block
	start int
}

const (
	treeTurns  = 12 // most turns of a conversation
	treeBlocks = 24 // most blocks of a turn
	treeRanks  = 4
)

// trees makes conversations that go on from each other's middles: each new turn
// continues the chain of any turn there has been, so chains split often and deep.
func (c Config) trees() []turn {
	rng := random(c.Seed)
	var turns []turn
	var open []turn
	for held, next := 0, uint64(0); held < c.Blocks; next++ {
		var before turn
		if len(open) > 0 && rng.below(treeTurns) > 0 {
			before = open[rng.below(uint64(len(open)))]
		}
		n := int(1 + rng.below(treeBlocks))
		t := turn{start: len(before.chain), chain: append(before.chain[:len(before.chain):len(before.chain)], make([]tokens.Block, n)...)}
		for i := t.start; i < len(t.chain); i++ {
			l := dynamo.LocalHash(Mix(4<<56 | next<<16 | uint64(i)))
			h := tokens.FirstHash(l)
			if i > 0 {
				h = tokens.BlockHash(t.chain[i-1].Hash, l)
			}
			t.chain[i] = tokens.Block{Local: l, Hash: h}
		}
		turns = append(turns, t)
		if len(open) < 4096 && len(t.chain) < treeTurns*treeBlocks {
			open = append(open, t)
		} else if len(open) > 0 && len(t.chain) < treeTurns*treeBlocks {
			open[rng.below(uint64(len(open)))] = t
		}
		held += n
	}
	return turns
}

// deep measures trees: every turn is stored on a rank of a worker, on the device and,
// every other one, in host memory too; lookups ask for whole conversations.
func (c Config) deep(o *object) error {
	turns := c.trees()
	ranks := c
	ranks.Workers *= treeRanks
	x, err := ranks.subject()
	if err != nil {
		return err
	}
	rng := random(c.Seed + 2)
	blocks := 0
	t := time.Now()
	for i := range turns {
		w := int(rng.below(uint64(ranks.Workers)))
		e := stored{worker: w, blocks: turns[i].chain[turns[i].start:]}
		if turns[i].start > 0 && rng.below(4) == 0 { // a worker that computes all of it
			e.blocks = turns[i].chain
		} else if turns[i].start > 0 {
			e.parent, e.hasParent = turns[i].chain[turns[i].start-1].Hash, true
		}
		x.store(&e)
		blocks += len(e.blocks)
		if i%2 == 0 {
			x.Store(x.sources[w], dynamo.TierHost, e.parent, e.hasParent, e.blocks)
			blocks += len(e.blocks)
		}
	}
	d := time.Since(t)
	o.int("turns", int64(len(turns)))
	o.int("blocks", int64(blocks))
	o.int("runs", int64(x.Stats().Runs))
	o.float("store_blk_s", rate(blocks, d), 0)
	o.float("bytes_b_per_hb", float64(x.Bytes())/float64(x.Stats().Held), 1)
	queries := make([][]dynamo.BlockHash, c.queries())
	depth := 0
	for i := range queries {
		for _, b := range turns[rng.below(uint64(len(turns)))].chain {
			queries[i] = append(queries[i], b.Hash)
		}
		depth += len(queries[i])
	}
	var found []kvindex.Overlap
	workers, digest := 0, uint64(0)
	for _, q := range queries {
		found = x.Find(q, found[:0])
		workers += len(found)
		digest += x.digest(found)
	}
	t = time.Now()
	for _, q := range queries {
		found = x.Find(q, found[:0])
	}
	o.float("find_s", rate(len(queries), time.Since(t)), 0)
	took := make([]time.Duration, len(queries))
	for i, q := range queries {
		t := time.Now()
		found = x.Find(q, found[:0])
		took[i] = time.Since(t)
	}
	o.percentiles("find_", took)
	o.float("find_blocks", float64(depth)/float64(len(queries)), 1)
	o.float("find_workers", float64(workers)/float64(len(queries)), 1)
	o.hex("find_digest", digest)
	return nil
}
