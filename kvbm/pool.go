package kvbm

import (
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// none is the absence of a block or an entry.
const none = int32(-1)

// Content names what a full block holds.
type Content struct {
	Root  dynamo.CacheRoot
	Block tokens.Block
	// Tokens are the block's ids, BlockSize of them (none with Config.HashOnly). They
	// are copied.
	Tokens []dynamo.TokenID
}

// block is the physical side: memory and its user.
type block struct {
	gen   uint32
	refs  int32 // holders; in held only
	entry int32 // the entry it is registered or a duplicate in, its draft, or none
	// prev and next link the least recently used list (idle) or the duplicates of
	// an entry (complete).
	prev, next int32
	state      state
}

// entry is the logical side: something Match finds, one per registered content.
// It survives a change of the block that holds its bytes. A block that is complete and
// not yet offered has an entry that nothing finds, its draft.
type entry struct {
	content  tokens.Block
	block    int32 // the block that matches get
	parent   int32 // the entry before it, or none; gone when the entry is unused
	children int32
	dups     int32 // first duplicate block, or none
}

// gone is the parent of an unused entry: nobody's.
const gone = int32(-2)

// Pool is the device tier. See the package comment. What it keeps about blocks
// grows with the number of blocks that were ever used: many pools of a size that is
// seldom needed take little memory.
type Pool struct {
	config  Config
	width   int                // ids kept of a block: BlockSize, or 0 with HashOnly
	blocks  list[block]        // those ever used, in the order of their indices
	ids     []dynamo.TokenID   // width per block of blocks
	roots   []dynamo.CacheRoot // one per block; none with HashOnly
	free    []int32            // a stack, of blocks: warm memory is used again first
	counts  [numStates]int
	entries list[entry]
	spare   []int32 // unused entries
	table   table
	peeked  peeked
	// oldest and newest end the least recently used list of idle blocks.
	oldest, newest int32
	leases         leases
	log            eventLog
	stats          Stats
}

// New returns a pool whose blocks are all free.
func New(c Config) (*Pool, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	p := &Pool{config: c, width: c.BlockSize, oldest: none, newest: none}
	if c.HashOnly {
		p.width = 0
	}
	p.table = newTable(minSlots)
	p.counts[stateFree] = c.Blocks
	return p, nil
}

// fresh returns a block that was never used; there must be one.
func (p *Pool) fresh() int32 {
	n := p.blocks.add()
	*p.blocks.at(n) = block{entry: none, prev: none, next: none}
	if p.width > 0 {
		p.ids = slices.Grow(p.ids, p.width)[:int(p.blocks.n)*p.width]
		p.roots = append(p.roots, 0)
	}
	return n
}

// draft reports whether entry e, which is in use, is a draft.
func (p *Pool) draft(e int32) bool { return p.blocks.at(p.entries.at(e).block).state == stateComplete }

// discard makes entry e an unused one.
func (p *Pool) discard(e int32) {
	p.entries.at(e).parent = gone
	p.spare = append(p.spare, e)
}

// Config returns what the pool was made with.
func (p *Pool) Config() Config { return p.config }

// Available is the number of blocks Allocate can give: free and idle ones.
func (p *Pool) Available() int { return p.counts[stateFree] + p.counts[stateIdle] }

// Allocate gives a block to fill: a free one, or else the least recently used
// idle one. It reports false when there is neither.
func (p *Pool) Allocate() (Partial, bool) {
	n, ok := p.take()
	if !ok {
		return Partial{}, false
	}
	b := p.blocks.at(n)
	p.shift(b, statePartial)
	return Partial{handle{n + 1, b.gen}}, true
}

// Abort gives up a partial block.
func (p *Pool) Abort(b Partial) { p.reset(p.check(b.handle, statePartial)) }

// Complete names the content of a block that its owner has filled.
func (p *Pool) Complete(b Partial, c Content) Complete {
	n := p.check(b.handle, statePartial)
	p.fill(n, c)
	return Complete{p.handle(n)}
}

// Discard gives up a complete block that was not registered.
func (p *Pool) Discard(b Complete) {
	n := p.check(b.handle, stateComplete)
	p.discard(p.blocks.at(n).entry)
	p.reset(n)
}

// Load gives a block as the target of a copy, as Allocate gives one to compute.
func (p *Pool) Load() (Loading, bool) {
	n, ok := p.take()
	if !ok {
		return Loading{}, false
	}
	p.move(n, stateLoading)
	return Loading{p.handle(n)}, true
}

// Arrived registers a block whose copy has ended well, as Register does.
func (p *Pool) Arrived(b Loading, c Content, parent Held) (Held, Outcome) {
	n := p.check(b.handle, stateLoading)
	p.fill(n, c)
	return p.Register(Complete{p.handle(n)}, parent)
}

// Failed gives up a block whose copy failed and writes to it no more.
func (p *Pool) Failed(b Loading) { p.reset(p.check(b.handle, stateLoading)) }

// Release gives up one hold. The last one makes a registered block idle, the most
// recently used one; or, if a duplicate of it is in use, frees it and lets that
// one be found instead. A block that could not be registered is freed. A chain is
// released from its end.
func (p *Pool) Release(h Held) {
	n := p.checkHeld(h)
	b := p.blocks.at(n)
	switch {
	case b.state == stateComplete:
		if b.entry != none {
			p.unlinkDuplicate(n)
		}
		p.reset(n)
	case b.refs > 1:
		b.refs--
	case p.entries.at(b.entry).dups != none:
		p.promote(b.entry)
	default:
		b.refs = 0
		p.shift(b, stateIdle)
		p.pushIdle(n)
	}
}

// Clear gives up every idle block, and tells so: a Cleared event, and Stored
// events for what is still held and found.
func (p *Pool) Clear() {
	for p.oldest != none {
		n := p.oldest
		p.unregister(n, false)
		p.reset(n)
	}
	if p.config.Events {
		p.log.cleared()
		p.restate()
	}
}

// take returns a block out of nowhere: free, with its state to be set.
func (p *Pool) take() (int32, bool) {
	if last := len(p.free) - 1; last >= 0 {
		n := p.free[last]
		p.free = p.free[:last]
		return n, true
	}
	if int(p.blocks.n) < p.config.Blocks {
		return p.fresh(), true
	}
	n := p.oldest
	if n == none {
		return none, false
	}
	p.unregister(n, true)
	p.stats.Evicted++
	p.move(n, stateFree)
	return n, true
}

// fill writes the content of block n, which becomes complete, into a draft.
func (p *Pool) fill(n int32, c Content) {
	if len(c.Tokens) != p.width {
		panic("BUG: kvbm: a full block with another number of tokens")
	}
	e := p.unused()
	*p.entries.at(e) = entry{content: c.Block, block: n, parent: none, dups: none}
	p.blocks.at(n).entry = e
	if p.width > 0 {
		p.roots[n] = c.Root
		copy(p.tokens(n), c.Tokens)
	}
	p.move(n, stateComplete)
}

// reset frees block n.
func (p *Pool) reset(n int32) {
	b := p.blocks.at(n)
	b.entry, b.refs = none, 0
	p.move(n, stateFree)
	p.free = append(p.free, n)
}

// move changes the state of block n and ends the handles to it, save between
// the two states that a Held spans.
func (p *Pool) move(n int32, to state) { p.shift(p.blocks.at(n), to) }

// shift is move for a block that is at hand.
func (p *Pool) shift(b *block, to state) {
	p.peeked.holds = false
	p.counts[b.state]--
	p.counts[to]++
	if !(b.state == stateComplete && to == stateHeld) {
		b.gen++
	}
	b.state = to
}

// handle returns the handle of block n as it is.
func (p *Pool) handle(n int32) handle { return handle{n + 1, p.blocks.at(n).gen} }

// check returns the block of a handle that must be current and in state s.
func (p *Pool) check(h handle, s state) int32 {
	n := h.n - 1
	if uint32(n) >= uint32(p.blocks.n) || p.blocks.at(n).gen != h.gen || p.blocks.at(n).state != s {
		panic("BUG: kvbm: a handle used after it was given away")
	}
	return n
}

// checkHeld is check for the two states a Held spans.
func (p *Pool) checkHeld(h Held) int32 {
	n := h.n - 1
	if uint32(n) < uint32(p.blocks.n) {
		if b := p.blocks.at(n); b.gen == h.gen && (b.state == stateHeld || b.state == stateComplete) {
			return n
		}
	}
	panic("BUG: kvbm: a handle used after it was given away")
}

// tokens returns the ids of block n.
func (p *Pool) tokens(n int32) []dynamo.TokenID {
	return p.ids[int(n)*p.width : (int(n)+1)*p.width : (int(n)+1)*p.width]
}

// root returns the root of block n; zero with HashOnly.
func (p *Pool) root(n int32) dynamo.CacheRoot {
	if p.width == 0 {
		return 0
	}
	return p.roots[n]
}

// pushIdle makes block n the most recently used idle one.
func (p *Pool) pushIdle(n int32) {
	b := p.blocks.at(n)
	b.prev, b.next = p.newest, none
	if p.newest == none {
		p.oldest = n
	} else {
		p.blocks.at(p.newest).next = n
	}
	p.newest = n
}

// popIdle takes block n out of the idle list.
func (p *Pool) popIdle(n int32) {
	b := p.blocks.at(n)
	if b.prev == none {
		p.oldest = b.next
	} else {
		p.blocks.at(b.prev).next = b.next
	}
	if b.next == none {
		p.newest = b.prev
	} else {
		p.blocks.at(b.next).prev = b.prev
	}
	b.prev, b.next = none, none
}

// sameContent reports whether entry e stands behind entry parent and holds ids
// under root.
func (p *Pool) sameContent(e int32, parent int32, root dynamo.CacheRoot, ids []dynamo.TokenID) bool {
	en := p.entries.at(e)
	if en.parent != parent || p.width == 0 {
		return en.parent == parent // a hash is all there is, its root included
	}
	return p.roots[en.block] == root && slices.Equal(p.tokens(en.block), ids)
}
