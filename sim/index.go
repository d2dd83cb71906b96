package sim

import (
	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/tokens"
)

// change is the KV events of one moment of a worker on their way to the index. Its
// memory is used again.
type change struct {
	events []kvbm.Event
	blocks []tokens.Block
	hashes []dynamo.BlockHash
}

// publish sends the worker's KV events of this moment on their way.
func (w *worker) publish() {
	s := w.sim
	if w.router.index == nil || s.config.Approximate {
		return
	}
	events := w.s.Events()
	if len(events) == 0 {
		return
	}
	c := s.change()
	for i := range events {
		c.add(&events[i], s.selective)
	}
	if len(c.events) == 0 {
		s.recycle(c)
		return
	}
	w.pending = append(w.pending, c)
	s.at(event{at: s.now + int64(s.config.EventDelay), kind: kindIndex, number: uint64(w.number)})
}

// add takes an event in; if selective, what it says of marked blocks. They come before
// the others in every chain.
func (c *change) add(e *kvbm.Event, selective bool) {
	block, hash := len(c.blocks), len(c.hashes)
	for j := range e.Blocks {
		if selective && e.Blocks[j].Hash < mark {
			break
		}
		c.blocks = append(c.blocks, e.Blocks[j].Block)
	}
	for _, h := range e.Hashes {
		if !selective || h >= mark {
			c.hashes = append(c.hashes, h)
		}
	}
	kept := *e
	kept.Blocks, kept.Hashes = e.Blocks[:len(c.blocks)-block], e.Hashes[:len(c.hashes)-hash]
	if e.Kind == kvbm.Cleared || len(kept.Blocks)+len(kept.Hashes) > 0 {
		c.events = append(c.events, kept)
	}
}

// apply lets the oldest events on their way reach the index.
func (w *worker) apply() {
	c := w.pending[w.taken]
	w.pending[w.taken] = change{}
	if w.taken++; w.taken == len(w.pending) {
		w.pending, w.taken = w.pending[:0], 0
	}
	index, source := w.router.index, w.router.sources[w.seat]
	block, hash := 0, 0
	for i := range c.events {
		e := &c.events[i]
		switch e.Kind {
		case kvbm.Stored:
			n := block + len(e.Blocks)
			index.Store(source, dynamo.TierDevice, e.Parent, e.HasParent, c.blocks[block:n])
			block = n
		case kvbm.Removed:
			n := hash + len(e.Hashes)
			index.Remove(source, dynamo.TierDevice, c.hashes[hash:n])
			hash = n
		case kvbm.Cleared:
			index.Clear(source, dynamo.TierDevice)
		}
	}
	if w.shadow != nil {
		w.shadow.apply(&c)
	}
	w.sim.recycle(c)
}

// change returns an empty change.
func (s *simulation) change() change {
	if last := len(s.changes) - 1; last >= 0 {
		c := s.changes[last]
		s.changes = s.changes[:last]
		return c
	}
	return change{}
}

func (s *simulation) recycle(c change) {
	clear(c.events)
	s.changes = append(s.changes, change{c.events[:0], c.blocks[:0], c.hashes[:0]})
}
