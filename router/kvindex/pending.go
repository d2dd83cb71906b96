package kvindex

import (
	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// pending holds what a source has stored behind blocks that are not known: local
// hashes, which cannot be chained yet.
type pending struct {
	stored map[tierID][]*orphan // by the parent that is waited for
	blocks map[tierID]*orphan   // by each block that waits
	oldest []*orphan            // in order of arrival; those gone are nil in stored
	n      int                  // blocks that wait
}

// tierID is an engine's id in a tier.
type tierID struct {
	tier dynamo.Tier
	id   uint64
}

// orphan is one event that waits for its parent.
type orphan struct {
	parent tierID
	locals []dynamo.LocalHash
	ids    []uint64
	gone   []bool // blocks removed while they waited; those behind them still chain through
	done   bool
}

const orphanBytes = 120 // of a block that waits, about

// StoreLocal is StoreEngine for sources that say what a block's tokens hash to but
// not what its chain does; the parent is an id of the engine's too. What has a parent
// that is not known waits for it.
func (x *Index) StoreLocal(s Source, t dynamo.Tier, parent uint64, hasParent bool, locals []dynamo.LocalHash, ids []uint64) {
	src := x.source(s)
	n := min(len(locals), len(ids))
	if src == nil || int(t) >= tiers || n == 0 {
		return
	}
	locals, ids = locals[:n], ids[:n]
	var before uint64
	if hasParent {
		var ok bool
		if before, ok = x.resolve(src, t, parent); !ok {
			x.wait(s, t, parent, locals, ids)
			return
		}
	}
	x.storeLocal(s, t, before, hasParent, locals, ids, nil)
	if src.pending != nil {
		x.adopt(s, t, ids)
	}
}

// storeLocal chains blocks and stores those that are not gone.
func (x *Index) storeLocal(s Source, t dynamo.Tier, parent uint64, hasParent bool, locals []dynamo.LocalHash, ids []uint64, gone []bool) {
	h := dynamo.BlockHash(parent)
	first := true
	chain := x.chain[:0]
	for _, l := range locals {
		if first && !hasParent {
			h = tokens.FirstHash(l)
		} else {
			h = tokens.BlockHash(h, l)
		}
		first = false
		chain = append(chain, tokens.Block{Local: l, Hash: h})
	}
	x.chain = chain
	for from := 0; from < len(chain); {
		to := from
		for to < len(chain) && (gone == nil || !gone[to]) {
			to++
		}
		if to > from {
			switch {
			case from > 0:
				x.StoreEngine(s, t, chain[from-1].Hash, true, chain[from:to], ids[from:to])
			default:
				x.StoreEngine(s, t, dynamo.BlockHash(parent), hasParent, chain[:to], ids[:to])
			}
		}
		from = to + 1
	}
}

// resolve returns the hash of the block that an id of a source's engine stands for,
// in the tier or another one.
func (x *Index) resolve(src *source, t dynamo.Tier, id uint64) (uint64, bool) {
	for i := range tiers {
		t := (int(t) + i) % tiers
		e := src.engine[t]
		if e == nil {
			continue
		}
		l, k := x.locate(e, src.lanes[t], engineKey(x, id))
		if ref := l.refs[k]; ref != 0 && x.holds(src.lanes[t], ref, l.keys[k]) {
			return x.hash(x.runs.at(ref/runBlocks), int(ref%runBlocks)), true
		}
	}
	return 0, false
}

// wait keeps blocks until their parent is known.
func (x *Index) wait(s Source, t dynamo.Tier, parent uint64, locals []dynamo.LocalHash, ids []uint64) {
	src := &x.sources[s]
	if len(ids) > MaxPending {
		x.orphaned(s, len(ids))
		return
	}
	p := src.pending
	if p == nil {
		p = &pending{stored: map[tierID][]*orphan{}, blocks: map[tierID]*orphan{}}
		src.pending = p
	}
	for p.n+len(ids) > MaxPending || x.bytes+int64(len(ids))*orphanBytes > x.max && p.n > 0 {
		x.dropOldest(s, p)
	}
	if !x.budget.take(int64(len(ids)) * orphanBytes) {
		x.orphaned(s, len(ids))
		return
	}
	o := &orphan{parent: tierID{t, parent}, locals: append([]dynamo.LocalHash(nil), locals...), ids: append([]uint64(nil), ids...), gone: make([]bool, len(ids))}
	p.n += len(ids)
	p.stored[o.parent] = append(p.stored[o.parent], o)
	p.oldest = append(p.oldest, o)
	for _, id := range ids {
		p.blocks[tierID{t, id}] = o
	}
	x.stats.Pending += len(ids)
}

func (x *Index) orphaned(s Source, n int) {
	x.stats.Orphaned += uint64(n)
	x.sources[s].state = Approximate
}

// dropOldest gives up the event that waits for longest.
func (x *Index) dropOldest(s Source, p *pending) {
	o := p.oldest[0]
	p.oldest = p.oldest[1:]
	if o.done {
		return
	}
	x.orphaned(s, len(o.ids))
	x.release(p, o)
}

// release takes an event out of those that wait.
func (x *Index) release(p *pending, o *orphan) {
	o.done = true
	p.n -= len(o.ids)
	x.stats.Pending -= len(o.ids)
	x.bytes -= int64(len(o.ids)) * orphanBytes
	list := p.stored[o.parent]
	for i := range list {
		if list[i] == o {
			list = append(list[:i], list[i+1:]...)
			break
		}
	}
	if len(list) == 0 {
		delete(p.stored, o.parent)
	} else {
		p.stored[o.parent] = list
	}
	for _, id := range o.ids {
		if k := (tierID{o.parent.tier, id}); p.blocks[k] == o {
			delete(p.blocks, k)
		}
	}
	for len(p.oldest) > 0 && p.oldest[0].done {
		p.oldest = p.oldest[1:]
	}
}

// adopt stores what waited for blocks that are known since, and what waited for
// that.
func (x *Index) adopt(s Source, t dynamo.Tier, ids []uint64) {
	p := x.sources[s].pending
	known := append([]uint64(nil), ids...)
	for len(known) > 0 && p.n > 0 {
		id := known[0]
		known = known[1:]
		for tier := range tiers {
			key := tierID{dynamo.Tier(tier), id}
			list := append([]*orphan(nil), p.stored[key]...)
			for _, o := range list {
				parent, ok := x.resolve(&x.sources[s], t, id)
				if !ok {
					break
				}
				x.release(p, o)
				x.storeLocal(s, key.tier, parent, true, o.locals, o.ids, o.gone)
				known = append(known, o.ids...)
			}
		}
	}
}

// removePending notes that blocks are gone before their parent came.
func (x *Index) removePending(src *source, t dynamo.Tier, ids []uint64) {
	p := src.pending
	for _, id := range ids {
		o := p.blocks[tierID{t, id}]
		if o == nil {
			continue
		}
		for i := range o.ids {
			if o.ids[i] == id {
				o.gone[i] = true
			}
		}
	}
}

func (x *Index) dropPending(src *source) {
	for t := range tiers {
		x.dropPendingTier(src, dynamo.Tier(t))
	}
	src.pending = nil
}

func (x *Index) dropPendingTier(src *source, t dynamo.Tier) {
	p := src.pending
	if p == nil {
		return
	}
	for _, o := range append([]*orphan(nil), p.oldest...) {
		if !o.done && o.parent.tier == t {
			x.release(p, o)
		}
	}
}
