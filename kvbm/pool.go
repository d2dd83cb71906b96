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
	// prev and next link the least recently used list (idle), or a registered block (held:
	// next alone) and its duplicates (complete). Otherwise they mean nothing.
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
}

// gone is the parent of an unused entry: nobody's.
const gone = int32(-2)

// counts are the numbers of blocks from which those in other states follow. They are
// chosen so that what is done to every block of every sequence changes few: to allocate
// and to abort none, to release one.
type counts struct {
	registered int // held or idle
	idle       int
	complete   int
	loading    int
}

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
	counts  counts
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
func (p *Pool) Available() int { return p.vacant() + p.counts.idle }

// vacant is the number of free blocks.
func (p *Pool) vacant() int { return len(p.free) + p.config.Blocks - int(p.blocks.n) }

// Allocate gives a block to fill: a free one, or else the least recently used
// idle one. It reports false when there is neither.
func (p *Pool) Allocate() (Partial, bool) {
	n, b := p.take()
	if b == nil {
		return Partial{}, false
	}
	p.shift(b, statePartial)
	return Partial{newHandle(n, b.gen)}, true
}

// Abort gives up a partial block.
func (p *Pool) Abort(b Partial) { p.reset(b.ID(), p.check(b.handle, statePartial)) }

// Complete names the content of a block that its owner has filled.
func (p *Pool) Complete(b Partial, c Content) Complete {
	bl := p.check(b.handle, statePartial)
	p.fill(b.ID(), bl, c)
	return Complete{newHandle(b.ID(), bl.gen)}
}

// Discard gives up a complete block that was not registered.
func (p *Pool) Discard(b Complete) {
	bl := p.check(b.handle, stateComplete)
	p.discard(bl.entry)
	p.counts.complete--
	p.reset(b.ID(), bl)
}

// Load gives a block as the target of a copy, as Allocate gives one to compute.
func (p *Pool) Load() (Loading, bool) {
	n, b := p.take()
	if b == nil {
		return Loading{}, false
	}
	p.counts.loading++
	p.shift(b, stateLoading)
	return Loading{newHandle(n, b.gen)}, true
}

// Arrived registers a block whose copy has ended well, as Register does.
func (p *Pool) Arrived(b Loading, c Content, parent Held) (Held, Outcome) {
	bl := p.check(b.handle, stateLoading)
	p.counts.loading--
	p.fill(b.ID(), bl, c)
	return p.Register(Complete{newHandle(b.ID(), bl.gen)}, parent)
}

// Failed gives up a block whose copy failed and writes to it no more.
func (p *Pool) Failed(b Loading) {
	bl := p.check(b.handle, stateLoading)
	p.counts.loading--
	p.reset(b.ID(), bl)
}

// Release gives up one hold. The last one makes a registered block idle, the most
// recently used one; or, if a duplicate of it is in use, frees it and lets that
// one be found instead. A block that could not be registered is freed. A chain is
// released from its end.
func (p *Pool) Release(h Held) {
	b := p.checkHeld(h)
	switch {
	case b.state == stateComplete:
		if b.entry != none {
			p.unlinkDuplicate(b)
		}
		p.counts.complete--
		p.reset(h.ID(), b)
	case b.refs > 1:
		b.refs--
	case b.next != none:
		p.promote(b.entry)
	default:
		b.refs = 0
		p.counts.idle++
		p.shift(b, stateIdle)
		p.pushIdle(h.ID(), b)
	}
}

// Clear gives up every idle block, and tells so: a Cleared event, and Stored
// events for what is still held and found.
func (p *Pool) Clear() {
	for p.oldest != none {
		n, b := p.oldest, p.blocks.at(p.oldest)
		p.unregister(b, false)
		p.reset(n, b)
	}
	if p.config.Events {
		p.log.cleared()
		p.restate()
	}
}

// take returns a block out of nowhere, free, with its state to be set; nil if there is
// none.
func (p *Pool) take() (int32, *block) {
	last := len(p.free) - 1
	if last < 0 {
		return p.reclaim()
	}
	n := p.free[last]
	p.free = p.free[:last]
	return n, p.blocks.at(n)
}

// reclaim is take when no block that was used is free.
func (p *Pool) reclaim() (int32, *block) {
	if int(p.blocks.n) < p.config.Blocks {
		n := p.fresh()
		return n, p.blocks.at(n)
	}
	n := p.oldest
	if n == none {
		return none, nil
	}
	b := p.blocks.at(n)
	p.unregister(b, true)
	p.stats.Evicted++
	p.shift(b, stateFree)
	return n, b
}

// fill writes the content of block n, which becomes complete, into a draft.
func (p *Pool) fill(n int32, b *block, c Content) {
	if len(c.Tokens) != p.width {
		panic("BUG: kvbm: a full block with another number of tokens")
	}
	e := p.unused()
	*p.entries.at(e) = entry{content: c.Block, block: n, parent: none}
	b.entry = e
	if p.width > 0 {
		p.roots[n] = c.Root
		copy(p.tokens(n), c.Tokens)
	}
	p.counts.complete++
	p.shift(b, stateComplete)
}

// reset frees block n.
func (p *Pool) reset(n int32, b *block) {
	b.entry, b.refs = none, 0
	p.shift(b, stateFree)
	p.free = append(p.free, n)
}

// shift changes the state of a block and ends the handles to it, save between the two
// states that a Held spans.
func (p *Pool) shift(b *block, to state) {
	p.peeked.holds = false
	if !(b.state == stateComplete && to == stateHeld) {
		b.gen++
	}
	b.state = to
}

// check returns the block of a handle that must be current and in state s. A block that
// was never used is free, which is no state of a handle's.
func (p *Pool) check(h handle, s state) *block {
	b := p.blocks.get(h.ID())
	if b == nil || b.gen != h.gen() || b.state != s {
		panic(staleHandle)
	}
	return b
}

// checkHeld is check for the two states a Held spans.
func (p *Pool) checkHeld(h Held) *block {
	b := p.blocks.get(h.ID())
	if b != nil && b.gen == h.gen() && (b.state == stateHeld || b.state == stateComplete) {
		return b
	}
	panic(staleHandle)
}

const staleHandle = "BUG: kvbm: a handle used after it was given away"

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
func (p *Pool) pushIdle(n int32, b *block) {
	b.prev, b.next = p.newest, none
	if p.newest == none {
		p.oldest = n
	} else {
		p.blocks.at(p.newest).next = n
	}
	p.newest = n
}

// popIdle takes blocks that are one behind the other out of the idle list: those between
// prev and next, which may be none.
func (p *Pool) popIdle(prev, next int32) {
	if prev == none {
		p.oldest = next
	} else {
		p.blocks.at(prev).next = next
	}
	if next == none {
		p.newest = prev
	} else {
		p.blocks.at(next).prev = prev
	}
}

// sameContent reports whether entry en stands behind entry parent and holds ids under
// root.
func (p *Pool) sameContent(en *entry, parent int32, root dynamo.CacheRoot, ids []dynamo.TokenID) bool {
	if en.parent != parent || p.width == 0 {
		return en.parent == parent // a hash is all there is, its root included
	}
	return p.same([]int32{en.block}, root, ids) == 1
}

// same is the number of blocks of path, from the first on, that hold ids under root.
func (p *Pool) same(path []int32, root dynamo.CacheRoot, ids []dynamo.TokenID) int {
	type four = *[4]dynamo.TokenID // what it points to is compared as two words, and without a call
	for i, n := range path {
		if p.roots[n] != root {
			return i
		}
		a, b := p.tokens(n), ids[i*p.width:][:p.width]
		for len(a) >= 8 && len(b) >= 8 {
			if *four(a) != *four(b) || *four(a[4:]) != *four(b[4:]) {
				return i
			}
			a, b = a[8:], b[8:]
		}
		if !slices.Equal(a, b) {
			return i
		}
	}
	return len(path)
}
