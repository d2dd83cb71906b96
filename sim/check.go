package sim

import (
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/router/kvindex"
)

// shadow is what a worker has told of its blocks: each, and the one before it.
type shadow struct {
	parent map[dynamo.BlockHash]dynamo.BlockHash // itself for a first block
}

func (h *shadow) apply(c *change) {
	block, hash := 0, 0
	for i := range c.events {
		e := &c.events[i]
		switch e.Kind {
		case kvbm.Stored:
			before := e.Parent
			for j := range e.Blocks {
				b := c.blocks[block+j].Hash
				if j == 0 && !e.HasParent {
					before = b
				}
				h.parent[b] = before
				before = b
			}
			block += len(e.Blocks)
		case kvbm.Removed:
			for j := range e.Hashes {
				delete(h.parent, c.hashes[hash+j])
			}
			hash += len(e.Hashes)
		case kvbm.Cleared:
			clear(h.parent)
		}
	}
}

// chain is the blocks up to, and with, b.
func (h *shadow) chain(b dynamo.BlockHash) []dynamo.BlockHash {
	var up []dynamo.BlockHash
	for {
		up = append(up, b)
		before, known := h.parent[b]
		if !known || before == b {
			break
		}
		b = before
	}
	for i, j := 0, len(up)-1; i < j; i, j = i+1, j-1 {
		up[i], up[j] = up[j], up[i]
	}
	return up
}

// quiet checks what holds when nothing is left to happen.
func (s *simulation) quiet() {
	if s.meter.started != s.meter.ended {
		s.broken("I1: %d requests were sent and %d have ended", s.meter.started, s.meter.ended)
	}
	s.router.quiet()
	if s.prefill != nil {
		s.prefill.quiet()
	}
	for _, w := range s.workers {
		st := w.s.Stats()
		if st.Waiting+st.Running+st.Loading > 0 || len(w.inbox) > 0 {
			s.broken("I8: worker %d has %d requests waiting and %d running, and nothing to do", w.number, st.Waiting+len(w.inbox), st.Running+st.Loading)
		}
		if kv := st.KV; kv.Held+kv.Partial+kv.Complete+kv.Loading+kv.Leases > 0 || kv.Free+kv.Idle != kv.Capacity {
			s.broken("I4: worker %d holds blocks for nobody: %+v", w.number, kv)
		}
		if len(w.kept)+len(w.link.open)+len(w.link.ended) > 0 {
			s.broken("I4: worker %d keeps KV of %d requests, and has KV brought for %d, which have ended", w.number, len(w.kept), len(w.link.open)+len(w.link.ended))
		}
		w.check()
		if w.shadow != nil {
			w.compare(st.KV.Idle)
		}
	}
}

// quiet checks what holds of a router then.
func (r *router) quiet() {
	s := r.sim
	if r.queued > 0 {
		s.broken("I8: %d requests wait for a worker, and none comes", r.queued)
	}
	for i := range r.fleet.Candidates() {
		c := &r.fleet.Candidates()[i]
		if c.Booked != 0 || c.BookedTokens != 0 || c.Prefills != 0 || c.PrefillTokens != 0 || c.KVTokens != 0 {
			s.broken("I1: worker %d is booked for %d requests with %d tokens that have ended", r.members[i].number, c.Booked, c.BookedTokens)
		}
	}
	if r.index != nil && s.config.Check {
		r.index.Expire(s.moment().Add(s.config.PredictTTL + s.config.ApproximateTTL + time.Hour))
		if err := r.index.Check(); err != nil {
			s.broken("I3: %v", err)
		}
	}
}

// compare checks that the index holds of w what w holds (I3).
func (w *worker) compare(registered int) {
	s := w.sim
	index, source := w.router.index, w.router.sources[w.seat]
	if n := index.Blocks(source, dynamo.TierDevice); len(w.shadow.parent) != registered || int(n) != registered {
		s.broken("I3: worker %d has told of %d blocks and holds %d, of which the index knows %d", w.number, len(w.shadow.parent), registered, n)
	}
	inner := map[dynamo.BlockHash]bool{}
	for b, before := range w.shadow.parent {
		if b != before {
			inner[before] = true
		}
	}
	var hits []kvindex.Overlap
	for b := range w.shadow.parent {
		if inner[b] {
			continue // it is in the chain of another
		}
		chain := w.shadow.chain(b)
		found := uint32(0)
		hits = index.Find(chain, hits[:0])
		for i := range hits {
			if hits[i].Source == source {
				found = hits[i].Blocks[dynamo.TierDevice]
			}
		}
		if int(found) != len(chain) {
			s.broken("I3: of %d blocks in a row that worker %d holds the index knows %d", len(chain), w.number, found)
			return
		}
	}
}
