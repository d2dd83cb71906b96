package kvbm

import (
	"strconv"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// EventKind says what an Event tells.
type EventKind uint8

// The kinds.
const (
	// Stored: Match finds Blocks, each the successor of the one before it, the
	// first the successor of Parent.
	Stored EventKind = iota
	// Removed: Match no longer finds Hashes.
	Removed
	// Cleared: Match finds nothing but what later events store.
	Cleared
)

// String returns the kind's name.
func (k EventKind) String() string {
	switch k {
	case Stored:
		return "stored"
	case Removed:
		return "removed"
	case Cleared:
		return "cleared"
	}
	return "event(" + strconv.Itoa(int(k)) + ")"
}

// Event is one change of what Match finds.
type Event struct {
	// Seq numbers the events of a pool from 1, without gaps.
	Seq  uint64
	Kind EventKind
	// Parent is the hash before the first of Blocks, if HasParent.
	Parent    dynamo.BlockHash
	HasParent bool
	Root      dynamo.CacheRoot
	Blocks    []StoredBlock
	Hashes    []dynamo.BlockHash
}

// StoredBlock is one block of a Stored event.
type StoredBlock struct {
	tokens.Block
	Tokens []dynamo.TokenID
}

// eventLog collects events until they are asked for. Its slices are laid over
// each other's buffers, which are reused.
type eventLog struct {
	seq    uint64
	events []loggedEvent
	blocks []tokens.Block
	ids    []dynamo.TokenID
	hashes []dynamo.BlockHash
	out    []Event
	stored []StoredBlock
	taken  bool // the events were handed out; the next record starts over
}

// loggedEvent is an Event with ends instead of slices.
type loggedEvent struct {
	Event
	blocksEnd, hashesEnd int
}

// Events returns the changes since the last call, if Config.Events. The result is
// valid until the pool changes.
func (p *Pool) Events() []Event {
	l, size := &p.log, p.width
	if l.taken || len(l.events) == 0 {
		l.taken = true
		return nil
	}
	l.taken = true
	l.out, l.stored = l.out[:0], l.stored[:0]
	for i, b := range l.blocks {
		l.stored = append(l.stored, StoredBlock{b, l.ids[i*size : (i+1)*size : (i+1)*size]})
	}
	block, hash := 0, 0
	for _, e := range l.events {
		e.Blocks, e.Hashes = l.stored[block:e.blocksEnd:e.blocksEnd], l.hashes[hash:e.hashesEnd:e.hashesEnd]
		block, hash = e.blocksEnd, e.hashesEnd
		l.out = append(l.out, e.Event)
	}
	return l.out
}

// last returns the event that may be continued, or nil.
func (l *eventLog) last(k EventKind) *loggedEvent {
	if l.taken {
		l.taken = false
		l.events, l.blocks, l.ids, l.hashes = l.events[:0], l.blocks[:0], l.ids[:0], l.hashes[:0]
	}
	if len(l.events) == 0 || l.events[len(l.events)-1].Kind != k {
		return nil
	}
	return &l.events[len(l.events)-1]
}

// add appends an event without content.
func (l *eventLog) add(e Event) *loggedEvent {
	l.seq++
	e.Seq = l.seq
	l.events = append(l.events, loggedEvent{e, len(l.blocks), len(l.hashes)})
	return &l.events[len(l.events)-1]
}

// removed records the removal of h.
func (l *eventLog) removed(h dynamo.BlockHash) {
	e := l.last(Removed)
	if e == nil {
		e = l.add(Event{Kind: Removed})
	}
	l.hashes = append(l.hashes, h)
	e.hashesEnd = len(l.hashes)
}

// recordStored records entry e, in one event with its parent if that came just
// before it.
func (p *Pool) recordStored(e int32) {
	if !p.config.Events {
		return
	}
	l, n := &p.log, p.entries.at(e).block
	ev := Event{Kind: Stored, Root: p.root(n)}
	if parent := p.entries.at(e).parent; parent != none {
		ev.Parent, ev.HasParent = p.entries.at(parent).content.Hash, true
	}
	last := l.last(Stored)
	if last == nil || !ev.HasParent || l.blocks[len(l.blocks)-1].Hash != ev.Parent {
		last = l.add(ev)
	}
	l.blocks = append(l.blocks, p.entries.at(e).content)
	l.ids = append(l.ids, p.tokens(n)...)
	last.blocksEnd = len(l.blocks)
}

// cleared records that the index is empty.
func (l *eventLog) cleared() {
	l.last(Cleared)
	l.add(Event{Kind: Cleared})
}

// restate records every entry, parents first.
func (p *Pool) restate() {
	done := make([]bool, p.entries.n)
	for e := range p.entries.n {
		done[e] = !p.found(e)
	}
	var path []int32
	for i := range p.entries.n {
		for e := i; e != none && !done[e]; e = p.entries.at(e).parent {
			done[e] = true
			path = append(path, e)
		}
		for ; len(path) > 0; path = path[:len(path)-1] {
			p.recordStored(path[len(path)-1])
		}
	}
}
