package router

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/router/placement"
)

// FollowKV takes in what a worker says of its KV cache until ctx ends, and returns its
// cause. The worker tells every so often the digest of all that it holds; where the
// index has another one, something was missed that nobody noticed, and ask is asked
// what. Nil asks nobody: the worker's cache is then begun anew.
//
// Events wait while the worker is asked, so what it answers is of a moment that the
// index has still to come to. That does no harm: a block that changes in between is in
// the events that wait, and those lead to the same end whether it was right before.
func (r *Router) FollowKV(ctx context.Context, c event.FollowConfig, ask event.Asker) error {
	c.Source.Topic = event.TopicKV
	c.From = r.restore(ctx, placement.Key{ID: c.Source.Worker, Epoch: c.Source.Epoch})
	f := &follower{r: r, source: c.Source, ask: ask, tries: map[kvPart]int{}}
	return event.Follow(ctx, c, func(d event.Delivery) error { return f.apply(ctx, d) })
}

// follower follows the KV events of a worker, in one goroutine.
type follower struct {
	r      *Router
	source event.Source
	ask    event.Asker
	tries  map[kvPart]int // repairs since the digest was last as it should be
	anew   bool           // all is being begun anew for the sake of a digest
}

// kvPart is a tier of a data-parallel rank.
type kvPart struct {
	tier dynamo.Tier
	rank int
}

// errDiffers has Follow begin a source anew.
var errDiffers = &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the index holds other blocks of the worker than the worker itself; it is begun anew"}

// Holding is what a tier of a data-parallel rank of a worker is known to hold.
type Holding struct {
	Tier      dynamo.Tier
	Rank      int
	BlockSize int
	Digest    kvindex.Digest
	Hashes    []dynamo.BlockHash // in order
}

// Held lists what a worker is known to hold, for tests and tools: it looks at
// everything. Exact says that this is all that the worker has told.
func (r *Router) Held(id dynamo.WorkerID, epoch uint64) (all []Holding, exact bool) {
	p := r.prefixes
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.mu.caches[placement.Key{ID: id, Epoch: epoch}]
	if c == nil {
		return nil, false
	}
	exact = c.state == cacheExact
	for _, s := range c.sources {
		exact = exact && s.at.index.State(s.id) == kvindex.Exact
		for t := range dynamo.TierRemote + 1 {
			d := s.at.index.Digest(s.id, t)
			if d.Blocks == 0 {
				continue
			}
			h := Holding{Tier: t, Rank: s.rank, BlockSize: s.at.blockSize, Digest: d}
			h.Hashes = s.at.index.List(s.id, t, 0, ^dynamo.BlockHash(0), nil)
			slices.Sort(h.Hashes)
			all = append(all, h)
		}
	}
	return all, exact
}

// apply takes in a delivery, and has the index repaired where its digest says so.
func (f *follower) apply(ctx context.Context, d event.Delivery) error {
	p, k := f.r.prefixes, placement.Key{ID: f.source.Worker, Epoch: f.source.Epoch}
	if err := p.apply(k, d); err != nil {
		return err
	}
	if len(d.Payload) == 0 {
		return nil // what was parsed before is not of it
	}
	p.mu.Lock()
	c := p.mu.caches[k]
	p.mu.Unlock()
	if c != nil && len(c.batch.Expected) > 0 && f.r.config.PredictTTL > 0 {
		p.expectTold(c, time.Now().Add(f.r.config.PredictTTL))
	}
	if c == nil || !c.batch.HasDigest {
		return nil
	}
	at := kvPart{c.batch.Tier, c.batch.Rank}
	switch p.compare(c, f.anew && d.Kind == event.Snapshot) {
	case digestEqual:
		f.tries[at] = 0
		return nil
	case digestUnknown:
		return nil
	}
	err := f.repair(ctx, p, c, at)
	outcome := repairDone
	if err != nil {
		outcome, f.anew = repairAnew, true
		clear(f.tries)
	}
	if mm := f.r.config.Metrics; mm != nil && ctx.Err() == nil {
		mm.repairs[outcome].Inc()
	}
	return err
}

// expectTold notes what c's worker has said that it is about to hold: another router
// may have sent it that.
func (p *prefixes) expectTold(c *cache, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.caches[c.m.key()] != c {
		return
	}
	if s, err := p.sourceLocked(c, c.batch.BlockSize, c.batch.Rank); err == nil {
		s.at.index.Expect(s.id, c.batch.Expected, until)
	}
}

// What can come of a comparison of digests.
type comparison uint8

const (
	digestEqual comparison = iota
	digestDiffers
	digestUnknown // the index has given up blocks and cannot be expected to be equal
)

// compare compares the digest that c has parsed with the index. With last, a
// difference is taken for what cannot be helped.
func (p *prefixes) compare(c *cache, last bool) comparison {
	p.mu.Lock()
	defer p.unlock()
	if c.state == cacheApproximate {
		return digestUnknown // its events are passed over
	}
	b := &c.batch
	s, err := p.sourceLocked(c, b.BlockSize, b.Rank)
	if err != nil || s.at.index.State(s.id) == kvindex.Approximate {
		return digestUnknown
	}
	switch {
	case s.at.index.Digest(s.id, b.Tier) == b.Digest:
		if c.unsure {
			c.unsure, c.state = false, cacheExact // digests of all parts come together
		}
		return digestEqual
	case last:
		s.at.index.SetState(s.id, kvindex.Approximate)
		p.warnLocked("the index differs from a worker's KV cache even though it was begun anew; what it says of the worker is not exact", obs.KeyWorker, c.m.ID)
		return digestUnknown
	}
	c.state = cacheRepairing
	return digestDiffers
}

// repair makes what the index knows of a part be what the worker holds.
func (f *follower) repair(ctx context.Context, p *prefixes, c *cache, at kvPart) error {
	f.tries[at]++
	if f.ask == nil || f.tries[at] > maxRepairs {
		return errDiffers
	}
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	blockSize := c.batch.BlockSize
	missing, extra, err := f.differences(ctx, p, c, at)
	if err != nil {
		return err
	}
	found := 0
	if len(missing) > 0 {
		err = f.ask.AskBlocks(ctx, f.source, at.tier, at.rank, missing, func(payload []byte) error {
			if err := c.batch.Parse(payload); err != nil {
				return err
			}
			for i := range c.batch.Events {
				found += len(c.batch.Events[i].Blocks)
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.storeIfKnownLocked(c)
		})
		if err != nil {
			return err
		}
	}
	p.mu.Lock()
	if s, err := p.sourceLocked(c, blockSize, at.rank); err == nil && p.mu.caches[c.m.key()] == c {
		s.at.index.Remove(s.id, at.tier, extra)
		c.state, c.unsure = cacheExact, false
	}
	p.mu.Unlock()
	f.r.log.Warn("the index had missed what happened in a worker's KV cache and was repaired", slog.String(obs.KeyWorker, f.source.Worker.String()),
		slog.Int("stored", found), slog.Int("removed", len(extra)))
	return nil
}

// storeIfKnownLocked applies the batch that c has parsed, unless its worker has left.
func (p *prefixes) storeIfKnownLocked(c *cache) error {
	if p.mu.caches[c.m.key()] != c {
		return nil
	}
	return p.storeLocked(c)
}

// differences asks which blocks of a part the worker holds that the index does not
// know, and the other way round.
func (f *follower) differences(ctx context.Context, p *prefixes, c *cache, at kvPart) (missing, extra []dynamo.BlockHash, err error) {
	known := p.list(c, c.batch.BlockSize, at)
	most := max(firstSketch, max(len(known), int(c.batch.Digest.Blocks))/8)
	for cells := firstSketch; cells <= min(most, event.MaxSketchCells); cells *= 8 {
		s, err := f.ask.AskSketch(ctx, f.source, at.tier, at.rank, uint64(cells), cells)
		if err != nil {
			return nil, nil, err
		}
		for _, h := range known {
			s.Put(h, -1)
		}
		missing, extra = missing[:0], extra[:0]
		if s.Peel(func(h dynamo.BlockHash, in bool) {
			if in {
				missing = append(missing, h)
			} else {
				extra = append(extra, h)
			}
		}) {
			return missing, extra, nil
		}
	}
	return nil, nil, errDiffers // so much differs that all of it is not much more
}

// list lists the blocks that the index knows of a part. Nobody but the caller changes
// them.
func (p *prefixes) list(c *cache, blockSize int, at kvPart) []dynamo.BlockHash {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, err := p.sourceLocked(c, blockSize, at.rank)
	if err != nil {
		return nil
	}
	return s.at.index.List(s.id, at.tier, 0, ^dynamo.BlockHash(0), nil)
}
