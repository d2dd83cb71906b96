package kvbm

import (
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// Outcome says what became of a registration. In every case the caller holds its
// block until it releases it.
type Outcome uint8

// The outcomes.
const (
	// Registered: Match finds this block from here on.
	Registered Outcome = iota
	// Duplicate: the same content is registered already; Match finds that one.
	Duplicate
	// Refused: another content has this hash, or the block before it is not
	// registered, or too many hashes fell together, or the pool has no prefix
	// caching. The block is used by its owner alone and freed with it.
	Refused
)

// Register offers a complete block to Match, as the successor of parent (zero for
// the first block of a sequence), which the caller holds.
func (p *Pool) Register(b Complete, parent Held) (Held, Outcome) {
	bl := p.check(b.handle, stateComplete)
	pe := none
	if !parent.IsZero() {
		if pe = p.checkHeld(parent).entry; pe == none {
			pe = gone
		}
	}
	outcome := p.register(b.ID(), bl, pe)
	return Held{newHandle(b.ID(), bl.gen)}, outcome
}

// Seal completes and registers blocks that follow each other in a sequence, as Complete
// and Register do one by one. The sequence holds those before them; the holds on all are
// returned.
func (p *Pool) Seal(held []Held, open []Partial, q Query) []Held {
	pe := none
	if last := len(held) - 1; last >= 0 {
		pe = p.checkHeld(held[last]).entry
		if pe == none {
			pe = gone
		}
	}
	for _, b := range open {
		bl, i := p.check(b.handle, statePartial), len(held)
		p.fill(b.ID(), bl, Content{q.Root, q.Blocks[i], q.Tokens[i*p.width : (i+1)*p.width]})
		p.register(b.ID(), bl, pe)
		held = append(held, Held{newHandle(b.ID(), bl.gen)})
		if pe = bl.entry; pe == none {
			pe = gone
		}
	}
	return held
}

// register offers complete block n as the successor of an entry: none for a first block,
// gone if the block before it has no entry.
func (p *Pool) register(n int32, b *block, parent int32) Outcome {
	b.gen++
	draft := b.entry
	b.entry = none
	if !p.config.PrefixCaching {
		p.discard(draft)
		return Refused
	}
	if parent == gone {
		p.discard(draft)
		p.stats.Refused++
		return Refused
	}
	e, length := p.behind(parent, p.entries.at(draft).content.Hash)
	if e == none && length < maxProbes {
		p.enter(b, draft, parent)
		return Registered
	}
	p.discard(draft)
	if e == none || !p.sameContent(p.entries.at(e), parent, p.root(n), p.tokens(n)) {
		p.stats.Refused++
		return Refused
	}
	p.stats.Duplicates++
	first := p.blocks.at(p.entries.at(e).block)
	idle := first.state == stateIdle
	if idle {
		p.popIdle(first.prev, first.next)
		p.counts.idle--
		first.next = none
	}
	p.linkDuplicate(n, b, e)
	if idle {
		p.promote(e)
	}
	return Duplicate
}

// Query asks for the longest registered prefix of a sequence.
type Query struct {
	Root dynamo.CacheRoot
	// Blocks are the identities of the blocks asked for, from the first on.
	Blocks []tokens.Block
	// Tokens are their ids, BlockSize for each block; more may follow.
	Tokens []dynamo.TokenID
}

// Match appends to dst a hold on each block of the longest registered prefix.
func (p *Pool) Match(dst []Held, q Query) []Held {
	p.look(q)
	return p.Take(dst)
}

// peeked is what Peek has found, as long as nothing has changed.
type peeked struct {
	holds  bool
	asked  int
	blocks []int32
}

// Peek counts what Match would find, and how many of those blocks are idle, that
// is, would leave Available. It changes nothing.
func (p *Pool) Peek(q Query) (found, idle int) {
	p.look(q)
	for _, n := range p.peeked.blocks {
		if p.blocks.at(n).state == stateIdle {
			idle++
		}
	}
	return len(p.peeked.blocks), idle
}

// look finds the longest registered prefix, for Take: first what has the same hashes, then
// as much of that as has the same content. Two loops have fewer variables at once than one.
func (p *Pool) look(q Query) {
	path, parent := p.peeked.blocks[:0], none
	for i := range q.Blocks {
		h := q.Blocks[i].Hash
		e, en := parent+1, p.beside(parent)
		if en == nil || en.content.Hash != h {
			if e, _ = p.behind(parent, h); e == none {
				break
			}
			if en = p.entries.at(e); en.parent != parent {
				break
			}
		}
		path, parent = append(path, en.block), e
	}
	if p.width > 0 {
		path = path[:p.same(path, q.Root, q.Tokens)]
	}
	p.peeked = peeked{true, len(q.Blocks), path}
}

// Take appends to dst a hold on each block that Peek has just found: it does what Match
// does, and does not look for them again. The pool has not changed since.
func (p *Pool) Take(dst []Held) []Held {
	if !p.peeked.holds {
		panic("BUG: kvbm: blocks taken that were found before the pool changed")
	}
	path := p.peeked.blocks
	p.stats.Asked += uint64(p.peeked.asked)
	p.stats.Found += uint64(len(path))
	p.peeked.holds = false
	start := len(dst)
	dst = slices.Grow(dst, len(path))[:start+len(path)]
	out := dst[start:]
	// A chain was released from its end, all at once as a rule: then each of its blocks comes
	// right before the one taken last in the idle list, and all leave it together, as what
	// is between prev and next: nothing at first, at the end of the list.
	prev, next, idle := p.newest, none, 0
	for i, n := range path {
		b := p.blocks.at(n)
		if b.state == stateIdle {
			if n != prev {
				p.popIdle(prev, next)
				next = b.next
			}
			prev, b.next = b.prev, none
			idle++
			p.shift(b, stateHeld)
		}
		b.refs++
		out[i] = Held{newHandle(n, b.gen)}
	}
	p.popIdle(prev, next)
	p.counts.idle -= idle
	return dst
}

// behind returns the entry with a hash, which is looked for behind entry parent first,
// and what find returns beside it. With HashOnly it is there or nowhere.
func (p *Pool) behind(parent int32, h dynamo.BlockHash) (e int32, length int) {
	if en := p.beside(parent); en != nil && en.content.Hash == h {
		return parent + 1, 0
	}
	if p.config.HashOnly && parent != none && p.entries.at(parent).children == 0 {
		return none, 0
	}
	return p.find(h)
}

// beside returns the entry that comes right after entry parent, or nil if it does not
// stand behind it.
func (p *Pool) beside(parent int32) *entry {
	if e := parent + 1; parent != none && e < p.entries.n {
		if en := p.entries.at(e); en.parent == parent {
			return en
		}
	}
	return nil
}

// next reports whether entry e comes right after the one that it stands behind, as most
// do: chains are registered and given up one block after another. With HashOnly such an
// entry needs no slot in the table.
func (p *Pool) next(e int32) bool {
	parent := p.entries.at(e).parent
	return p.config.HashOnly && parent != none && parent == e-1
}

// enter lets entry e, the draft of complete block b, be found behind entry parent.
func (p *Pool) enter(b *block, e, parent int32) {
	en := p.entries.at(e)
	en.parent = parent
	if !p.next(e) {
		p.table.add(slot{tag(en.content.Hash), e + 1})
	}
	if parent != none {
		p.entries.at(parent).children++
	}
	b.entry, b.refs, b.next = e, 1, none
	p.counts.complete--
	p.counts.registered++
	p.shift(b, stateHeld)
	p.stats.Registered++
	p.recordStored(e)
}

// unused returns an entry that nothing uses.
func (p *Pool) unused() int32 {
	if last := len(p.spare) - 1; last >= 0 {
		e := p.spare[last]
		p.spare = p.spare[:last]
		return e
	}
	return p.entries.add()
}

// unregister takes idle block b out of the index; record tells it.
func (p *Pool) unregister(b *block, record bool) {
	e := b.entry
	en := p.entries.at(e)
	if en.children != 0 {
		panic("BUG: kvbm: a chain was not released from its end")
	}
	if en.parent != none {
		p.entries.at(en.parent).children--
	}
	if !p.next(e) {
		p.table.remove(en.content.Hash, e)
	}
	p.discard(e)
	p.popIdle(b.prev, b.next)
	p.counts.idle--
	p.counts.registered--
	b.entry = none
	if record && p.config.Events {
		p.log.removed(en.content.Hash)
	}
}

// promote frees the block of entry e, which nobody holds and no list contains,
// and lets its first duplicate be found instead, behind which the others stay.
func (p *Pool) promote(e int32) {
	en := p.entries.at(e)
	n, old := en.block, p.blocks.at(en.block)
	en.block = old.next
	b := p.blocks.at(en.block)
	b.refs = 1
	p.counts.complete-- // b is registered in the place of old
	p.shift(b, stateHeld)
	p.reset(n, old)
}

// linkDuplicate makes complete block n the first duplicate of entry e.
func (p *Pool) linkDuplicate(n int32, b *block, e int32) {
	found := p.entries.at(e).block
	first := p.blocks.at(found)
	b.entry, b.prev, b.next = e, found, first.next
	if b.next != none {
		p.blocks.at(b.next).prev = n
	}
	first.next = n
}

// unlinkDuplicate undoes linkDuplicate, save that the block remembers its entry.
func (p *Pool) unlinkDuplicate(b *block) {
	p.blocks.at(b.prev).next = b.next
	if b.next != none {
		p.blocks.at(b.next).prev = b.prev
	}
}
