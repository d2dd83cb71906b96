package tier

import (
	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
)

// tellChanges tells Config.Events what has changed. Changes are told in the order in
// which they were made: by one goroutine at a time, which goes on until there are none.
func (m *Mover) tellChanges() {
	if m.config.Events == nil {
		return
	}
	m.mu.Lock()
	if m.mu.telling {
		m.mu.Unlock()
		return
	}
	m.mu.telling = true
	for {
		m.mu.changes = m.mu.tiers.Changes(m.mu.changes[:0])
		changes := m.mu.changes
		if len(changes) == 0 {
			m.mu.telling = false
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		m.tellAll(changes)
		m.mu.Lock()
	}
}

// tellAll turns changes into events, those of one tier that follow each other in one
// call.
func (m *Mover) tellAll(changes []kvbm.Change) {
	var events []kvbm.Event
	for i := range changes {
		c := &changes[i]
		last := len(events) - 1
		switch {
		case !c.Stored && last >= 0 && events[last].Kind == kvbm.Removed:
			events[last].Hashes = append(events[last].Hashes, c.Block.Block.Hash)
		case !c.Stored:
			events = append(events, kvbm.Event{Kind: kvbm.Removed, Hashes: []dynamo.BlockHash{c.Block.Block.Hash}})
		case last >= 0 && events[last].Kind == kvbm.Stored && follows(&events[last], &c.Block):
			events[last].Blocks = append(events[last].Blocks, kvbm.StoredBlock{Block: c.Block.Block})
		default:
			events = append(events, kvbm.Event{
				Kind: kvbm.Stored, Parent: c.Block.ParentHash, HasParent: c.Block.Depth > 0,
				Blocks: []kvbm.StoredBlock{{Block: c.Block.Block}},
			})
		}
		if i+1 == len(changes) || changes[i+1].Tier != c.Tier {
			m.config.Events(c.Tier, events)
			events = events[:0]
		}
	}
}

// follows reports whether a block stands behind the last of an event.
func follows(e *kvbm.Event, b *kvbm.TierBlock) bool {
	return b.Depth > 0 && e.Blocks[len(e.Blocks)-1].Hash == b.ParentHash
}
