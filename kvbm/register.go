package kvbm

import (
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
	n := p.check(b.handle, stateComplete)
	pe := none
	if !parent.IsZero() {
		if pe = p.blocks.at(p.checkHeld(parent)).entry; pe == none {
			pe = gone
		}
	}
	outcome := p.register(n, pe)
	return Held{p.handle(n)}, outcome
}

// Seal completes and registers blocks that follow each other in a sequence, as Complete
// and Register do one by one. The sequence holds those before them; the holds on all are
// returned.
func (p *Pool) Seal(held []Held, open []Partial, q Query) []Held {
	pe := none
	if last := len(held) - 1; last >= 0 {
		pe = p.blocks.at(p.checkHeld(held[last])).entry
		if pe == none {
			pe = gone
		}
	}
	for _, b := range open {
		n, i := p.check(b.handle, statePartial), len(held)
		p.fill(n, Content{q.Root, q.Blocks[i], q.Tokens[i*p.width : (i+1)*p.width]})
		p.register(n, pe)
		held = append(held, Held{p.handle(n)})
		if pe = p.blocks.at(n).entry; pe == none {
			pe = gone
		}
	}
	return held
}

// register offers complete block n as the successor of an entry: none for a first block,
// gone if the block before it has no entry.
func (p *Pool) register(n, parent int32) Outcome {
	b := p.blocks.at(n)
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
		p.enter(n, draft, parent)
		return Registered
	}
	p.discard(draft)
	if e == none || !p.sameContent(e, parent, p.root(n), p.tokens(n)) {
		p.stats.Refused++
		return Refused
	}
	p.stats.Duplicates++
	p.linkDuplicate(n, e)
	if first := p.entries.at(e).block; p.blocks.at(first).state == stateIdle {
		p.popIdle(first)
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
	p.Peek(q)
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
	path := p.peeked.blocks[:0]
	for parent := none; found < len(q.Blocks); found++ {
		if parent = p.lookup(q, found, parent); parent == none {
			break
		}
		n := p.entries.at(parent).block
		path = append(path, n)
		if p.blocks.at(n).state == stateIdle {
			idle++
		}
	}
	p.peeked = peeked{true, len(q.Blocks), path}
	return found, idle
}

// Take appends to dst a hold on each block that Peek has just found: it does what Match
// does, and does not look for them again. The pool has not changed since.
func (p *Pool) Take(dst []Held) []Held {
	if !p.peeked.holds {
		panic("BUG: kvbm: blocks taken that were found before the pool changed")
	}
	p.stats.Asked += uint64(p.peeked.asked)
	p.stats.Found += uint64(len(p.peeked.blocks))
	for _, n := range p.peeked.blocks {
		dst = append(dst, p.hold(n))
	}
	p.peeked.holds = false
	return dst
}

// lookup returns the entry of block i of q behind parent, or none.
func (p *Pool) lookup(q Query, i int, parent int32) int32 {
	e, _ := p.behind(parent, q.Blocks[i].Hash)
	if e == none || !p.sameContent(e, parent, q.Root, q.Tokens[i*p.width:(i+1)*p.width]) {
		return none
	}
	return e
}

// hold takes one more hold on registered block n.
func (p *Pool) hold(n int32) Held {
	b := p.blocks.at(n)
	if b.state == stateIdle {
		p.popIdle(n)
		p.shift(b, stateHeld)
	}
	b.refs++
	return Held{handle{n + 1, b.gen}}
}

// behind returns the entry with a hash, which is looked for behind entry parent first,
// and what find returns beside it. With HashOnly it is there or nowhere.
func (p *Pool) behind(parent int32, h dynamo.BlockHash) (e int32, length int) {
	if parent == none {
		return p.find(h)
	}
	if e = parent + 1; e < p.entries.n && p.entries.at(e).parent == parent && p.entries.at(e).content.Hash == h {
		return e, 0
	}
	if p.config.HashOnly && p.entries.at(parent).children == 0 {
		return none, 0
	}
	return p.find(h)
}

// next reports whether entry e comes right after the one that it stands behind, as most
// do: chains are registered and given up one block after another. With HashOnly such an
// entry needs no slot in the table.
func (p *Pool) next(e int32) bool {
	parent := p.entries.at(e).parent
	return p.config.HashOnly && parent != none && parent == e-1
}

// enter lets entry e, the draft of complete block n, be found behind entry parent.
func (p *Pool) enter(n, e, parent int32) {
	b, en := p.blocks.at(n), p.entries.at(e)
	en.parent = parent
	if !p.next(e) {
		p.table.add(slot{tag(en.content.Hash), e + 1})
	}
	if parent != none {
		p.entries.at(parent).children++
	}
	b.entry, b.refs = e, 1
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

// unregister takes idle block n out of the index; record tells it.
func (p *Pool) unregister(n int32, record bool) {
	e := p.blocks.at(n).entry
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
	p.popIdle(n)
	p.blocks.at(n).entry = none
	if record && p.config.Events {
		p.log.removed(en.content.Hash)
	}
}

// promote frees the block of entry e, which nobody holds and no list contains,
// and lets its first duplicate be found instead.
func (p *Pool) promote(e int32) {
	old, n := p.entries.at(e).block, p.entries.at(e).dups
	p.unlinkDuplicate(n)
	p.entries.at(e).block = n
	p.blocks.at(n).refs = 1
	p.move(n, stateHeld)
	p.reset(old)
}

// linkDuplicate puts complete block n into the duplicates of entry e.
func (p *Pool) linkDuplicate(n, e int32) {
	b, en := p.blocks.at(n), p.entries.at(e)
	b.entry, b.prev, b.next = e, none, en.dups
	if en.dups != none {
		p.blocks.at(en.dups).prev = n
	}
	en.dups = n
}

// unlinkDuplicate undoes linkDuplicate, save that the block remembers its entry.
func (p *Pool) unlinkDuplicate(n int32) {
	b := p.blocks.at(n)
	if b.prev == none {
		p.entries.at(b.entry).dups = b.next
	} else {
		p.blocks.at(b.prev).next = b.next
	}
	if b.next != none {
		p.blocks.at(b.next).prev = b.prev
	}
	b.prev, b.next = none, none
}
