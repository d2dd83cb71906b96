package kvbm

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// Tiers is what lies below the device tier: host memory, disk and a remote store,
// each with a budget. It knows which block is where, and decides which blocks are
// taken in, which are given up for others, and which are worth bringing back.
// Blocks are named by content keys; their bytes are the shell's affair
// (kvbm/tier), which does the Moves and reports each by Finish.
//
// A copy of a block in a tier is storing (its bytes are being written), stored
// (found by Plan; read by any number of loads) or leaving (given up, but still read;
// its slot is free when the last reader is done). A slot whose bytes were found to be
// wrong is quarantined: set aside and not written again.
//
// Laws, checked by Check:
//   - In each tier free + storing + stored + leaving + quarantined = slots.
//   - What is stored is in its tier's order of use, once, and nothing else is.
//   - No queue is longer than its limit (I5).
//   - A move that was handed out holds what it reads and what it writes until Finish.
//
// It is pure and not safe for concurrent use; nothing allocates in steady state.
type Tiers struct {
	config  TiersConfig
	entries list[tierEntry]
	spare   []int32
	table   table
	tiers   [numTiers]tierState
	flights []flight
	idle    []int32 // unused flights
	uses    sketch
	costs   Recompute
	serials uint64 // generations given out
	bucket  bucket // of disk writes
	changes []Change
}

// numTiers is the number of tiers below the device; index i is dynamo.Tier(i+1).
const numTiers = int(dynamo.TierRemote)

// tierEntry is a block with a copy in at least one tier.
type tierEntry struct {
	key, parentKey dynamo.ContentKey
	parent         int32  // the entry before it when it was made, or none
	parentSerial   uint32 // that entry's serial: if it has another by now, it is gone
	serial         uint32
	depth          int32 // blocks before it
	block          tokens.Block
	parentHash     dynamo.BlockHash
	copies         [numTiers]tierCopy
}

// tierCopy is a block in one tier.
type tierCopy struct {
	generation uint64
	slot       int32
	prev, next int32 // in order of use, while stored
	children   int32 // entries behind this one that have a copy in this tier
	readers    int32
	state      copyState
	bad        bool // its slot is to be quarantined when it leaves
}

type copyState uint8

const (
	copyAbsent copyState = iota
	copyStoring
	copyStored
	copyLeaving
	numCopyStates
)

// tierState is one tier.
type tierState struct {
	config TierConfig
	slots  int32
	fresh  int32   // slots never used come from here on
	free   []int32 // slots used before, a stack
	bad    []int32 // quarantined, oldest first
	counts [numCopyStates]int32
	oldest int32
	newest int32
	// writes and reads are the moves into it and out of it that are under way.
	writes, reads int32
	service       service // how long a block takes to be read
	down          rest    // of all that is done with it
	closed        rest    // of writes alone
	stats         TierStats
}

// rest is a time in which what failed some times in a row is left alone.
type rest struct {
	failures int
	until    time.Time
}

// failed notes a failure. The rest is longer each time.
func (r *rest) failed(now time.Time) {
	r.failures++
	if over := r.failures - maxFailures; over >= 0 {
		r.until = now.Add(min(firstPause<<min(over, 16), longestPause))
	}
}

// NewTiers returns tiers that hold nothing.
func NewTiers(c TiersConfig) (*Tiers, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t := &Tiers{config: c, table: newTable(minSlots), costs: defaultRecompute}
	var all int32
	for i := range t.tiers {
		tc := *c.tier(i)
		ts := &t.tiers[i]
		*ts = tierState{config: tc, slots: c.slots(i), oldest: none, newest: none, service: newService(tc, c.BlockBytes)}
		all += ts.slots
	}
	t.uses = newSketch(int(all))
	t.bucket = bucket{rate: float64(c.DiskWriteBudget), most: max(float64(c.DiskWriteBudget)*writeBurst.Seconds(), float64(c.BlockBytes))}
	return t, nil
}

// Config returns what the tiers were made with.
func (t *Tiers) Config() TiersConfig { return t.config }

// TierBlock names a block and its place in a sequence.
type TierBlock struct {
	// Key names it, Parent the block before it (zero for the first of a sequence).
	Key, Parent dynamo.ContentKey
	// Depth is the number of blocks before it.
	Depth int
	// Block is its identity for those who choose among workers, ParentHash that of the
	// block before it. Zero: not known; then it is in no Change.
	Block      tokens.Block
	ParentHash dynamo.BlockHash
}

// MoveKind says what a Move is.
type MoveKind uint8

// The kinds.
const (
	// Offload: write the block, which the engine holds, to slot ToSlot of tier To.
	Offload MoveKind = iota
	// Demote: copy the block from slot FromSlot of tier From to slot ToSlot of tier To.
	Demote
	// Fetch: bring the block from slot FromSlot of tier From to the engine. With Via,
	// it is read into host slot ToSlot on the way, and stays there.
	Fetch
	// Delete: the block in slot FromSlot of tier From is given up. It is not reported.
	Delete
)

// String returns the kind's name.
func (k MoveKind) String() string {
	return [...]string{"offload", "demote", "fetch", "delete"}[k]
}

// MoveID names a move that is under way.
type MoveID uint64

// Move is a copy, or a removal, for the shell to do.
type Move struct {
	ID               MoveID
	Kind             MoveKind
	Via              bool
	From, To         dynamo.Tier
	FromSlot, ToSlot int32
	// FromGeneration and ToGeneration are those of the copies: a block has a new one
	// each time it leaves an engine (then it is FromGeneration). In the remote tier, and
	// of what comes from there, it is 0: not known.
	FromGeneration, ToGeneration uint64
	TierBlock
}

// Outcome of a move.
type MoveOutcome uint8

// The outcomes.
const (
	MoveDone      MoveOutcome = iota
	MoveUnwritten             // the target could not be written
	MoveUnread                // the source could not be read
	MoveCorrupt               // the source's bytes are not the block's
	MoveMissing               // the source has no such block
	MoveCancelled             // nobody wants it any more
)

// flight is a move under way.
type flight struct {
	move  Move
	entry int32
	gen   uint32
	used  bool
}

// Offer says that the engine has the bytes of b, computed just now or used again.
// The moves appended to dst are what follows: an Offload, if a tier takes the block,
// and what its further use makes worth copying.
func (t *Tiers) Offer(dst []Move, b TierBlock, now time.Time) []Move {
	t.uses.add(b.Key)
	e := t.find(b.Key)
	if e != none {
		t.learn(e, &b)
	}
	to := t.top(now)
	if to < 0 {
		return dst
	}
	if e != none && t.entries.at(e).copies[to].state != copyAbsent {
		if t.entries.at(e).copies[to].state == copyStored {
			t.renew(to, e)
		}
		t.tiers[to].stats.Present++
		return t.spread(dst, e, to, now)
	}
	parent := none
	if b.Depth > 0 {
		parent = t.find(b.Parent)
	}
	if !t.takes(to, b.Key, int32(b.Depth), parent, now) {
		return dst
	}
	dst, slot := t.claim(dst, to, parent)
	if slot == none {
		t.tiers[to].stats.Skipped[SkipFull]++
		return dst
	}
	if e == none {
		e = t.enter(b)
	}
	t.serials++
	return append(dst, t.store(Move{Kind: Offload, From: dynamo.TierDevice, FromGeneration: t.serials}, e, to, slot))
}

// Touch says that blocks were used together, in the order of their sequence: the first
// becomes the most recently used.
func (t *Tiers) Touch(keys []dynamo.ContentKey) {
	for _, key := range slices.Backward(keys) {
		e := t.find(key)
		if e == none {
			continue
		}
		for i := range t.tiers {
			if t.entries.at(e).copies[i].state == copyStored {
				t.renew(i, e)
			}
		}
	}
}

// Fetch begins to bring the longest prefix of keys that is stored, and returns the
// moves for it, one for each key in order, among others.
func (t *Tiers) Fetch(dst []Move, keys []dynamo.ContentKey, now time.Time) []Move {
	for _, key := range keys {
		e := t.find(key)
		if e == none {
			break
		}
		from := t.source(e, now)
		if from < 0 || int(t.tiers[from].reads) >= t.tiers[from].config.Queue {
			break
		}
		t.uses.add(key)
		c := &t.entries.at(e).copies[from]
		c.readers++ // held from here on: the claim below passes it over
		t.tiers[from].reads++
		m := Move{
			Kind: Fetch, From: dynamo.Tier(from + 1), FromSlot: c.slot, FromGeneration: c.generation, ToSlot: none,
			TierBlock: t.name(e),
		}
		if from > 0 && t.entries.at(e).copies[0].state == copyAbsent && t.takes(0, key, t.entries.at(e).depth, t.parent(e), now) {
			var slot int32
			if dst, slot = t.claim(dst, 0, t.parent(e)); slot != none {
				m.Via, m.ToSlot = true, slot
				m.ToGeneration = t.begin(e, 0, slot, m.FromGeneration)
			} else {
				t.tiers[0].stats.Skipped[SkipFull]++
			}
		}
		dst = append(dst, t.launch(m, e))
	}
	t.Touch(keys)
	return dst
}

// Finish reports a move, which took so long.
func (t *Tiers) Finish(dst []Move, id MoveID, o MoveOutcome, took time.Duration, now time.Time) []Move {
	m, e := t.land(id)
	if m.Kind != Offload {
		from := int(m.From) - 1
		t.tiers[from].reads--
		if m.Kind == Fetch && o == MoveDone {
			t.tiers[from].service.observe(took, now)
		} else if m.Kind == Fetch && o == MoveCancelled {
			t.Slow(m.From, took, now)
		}
		dst = t.endRead(dst, e, from, o, now)
	}
	if m.Kind == Fetch && !m.Via {
		return t.spreadIf(dst, e, now)
	}
	to := int(m.To) - 1
	if m.Kind == Fetch {
		to = 0
	}
	ts := &t.tiers[to]
	ts.writes--
	c := &t.entries.at(e).copies[to]
	if o != MoveDone {
		if o == MoveUnwritten {
			ts.stats.Unwritten++
			ts.stats.Failed++
			ts.closed.failed(now) // a medium that is full can be read
		}
		t.count(to, c, copyAbsent)
		t.unlinkChild(e, to)
		ts.free = append(ts.free, c.slot)
		t.leave(e)
		return dst
	}
	t.count(to, c, copyStored)
	t.push(to, e)
	ts.stats.Stored++
	if m.Kind != Fetch {
		ts.down.failures, ts.closed.failures = 0, 0
	}
	return t.spread(dst, e, to, now)
}

// Slow says that a block of a tier has not come for so long.
func (t *Tiers) Slow(tier dynamo.Tier, took time.Duration, now time.Time) {
	if s := &t.tiers[int(tier)-1].service; float64(took) > s.each(now) {
		s.observe(took, now)
	}
}

// endRead lets go of the source of a move.
func (t *Tiers) endRead(dst []Move, e int32, from int, o MoveOutcome, now time.Time) []Move {
	ts := &t.tiers[from]
	c := &t.entries.at(e).copies[from]
	c.readers--
	switch o {
	case MoveDone, MoveUnwritten:
		ts.down.failures = 0
		ts.stats.Loaded++
	case MoveUnread:
		ts.stats.Unread++
		t.failed(from, now)
	case MoveCorrupt:
		ts.stats.Corrupt++
		t.failed(from, now)
		return t.drop(dst, e, from, true)
	case MoveMissing:
		ts.stats.Missing++
		ts.stats.Failed++
		return t.drop(dst, e, from, false)
	}
	if c.state == copyLeaving && c.readers == 0 {
		t.vacate(e, from)
	}
	return dst
}

// Evict gives up the copies of a block in all tiers. Those that are being written
// stay.
func (t *Tiers) Evict(dst []Move, key dynamo.ContentKey) []Move {
	for i := range t.tiers {
		if e := t.find(key); e != none && t.entries.at(e).copies[i].state == copyStored {
			dst = t.drop(dst, e, i, false)
		}
	}
	return dst
}

// Restore says that a tier holds a block from before. It reports false if it cannot
// be kept: the slot is taken or impossible, or the block is there already. With slot
// -1, for stores without slots, any will do, if need be that of another block.
func (t *Tiers) Restore(tier dynamo.Tier, b TierBlock, slot int32, generation uint64) bool {
	i := int(tier) - 1
	ts := &t.tiers[i]
	e := t.find(b.Key)
	if e != none {
		t.learn(e, &b)
	}
	if ts.slots == 0 || e != none && t.entries.at(e).copies[i].state != copyAbsent {
		return false
	}
	switch {
	case slot >= ts.slots:
		return false
	case slot == none:
		// What is given up for it is forgotten, not deleted: others may use it.
		if _, slot = t.claim(nil, i, none); slot == none {
			return false
		}
	case slot < ts.fresh:
		at := slices.Index(ts.free, slot)
		if at < 0 {
			return false
		}
		ts.free = slices.Delete(ts.free, at, at+1)
	default:
		for ; ts.fresh < slot; ts.fresh++ {
			ts.free = append(ts.free, ts.fresh)
		}
		ts.fresh++
	}
	if e == none {
		e = t.enter(b)
	}
	c := &t.entries.at(e).copies[i]
	*c = tierCopy{generation: generation, slot: slot, prev: none, next: none, children: c.children}
	t.serials = max(t.serials, generation)
	t.count(i, c, copyStored)
	t.linkChild(e, i)
	t.push(i, e)
	return true
}

// find returns the entry of a block, or none.
func (t *Tiers) find(key dynamo.ContentKey) int32 {
	tb, want := &t.table, tag(keyHash(key))
	for i := tb.home(want); ; i = tb.next(i) {
		s := tb.slots[i]
		if s.entry == 0 {
			return none
		}
		if s.tag == want && t.entries.at(s.entry-1).key == key {
			return s.entry - 1
		}
	}
}

// keyHash is what the table knows of a key, whose bits are all alike.
func keyHash(key dynamo.ContentKey) dynamo.BlockHash {
	return dynamo.BlockHash(binary.LittleEndian.Uint64(key[:]))
}

// enter makes an entry for a block without copies.
func (t *Tiers) enter(b TierBlock) int32 {
	var e int32
	if last := len(t.spare) - 1; last >= 0 {
		e = t.spare[last]
		t.spare = t.spare[:last]
	} else {
		e = t.entries.add()
	}
	en := t.entries.at(e)
	*en = tierEntry{key: b.Key, parentKey: b.Parent, parent: none, serial: en.serial, depth: int32(b.Depth), block: b.Block, parentHash: b.ParentHash}
	if b.Depth > 0 {
		if p := t.find(b.Parent); p != none {
			en.parent, en.parentSerial = p, t.entries.at(p).serial
		}
	}
	t.table.add(slot{tag(keyHash(b.Key)), e + 1})
	return e
}

// Learn says what is known of a block that may have been found by its key alone.
func (t *Tiers) Learn(b TierBlock) {
	if e := t.find(b.Key); e != none {
		t.learn(e, &b)
	}
}

// learn fills in what was not known of entry e.
func (t *Tiers) learn(e int32, b *TierBlock) {
	en := t.entries.at(e)
	if en.block != (tokens.Block{}) || b.Block == (tokens.Block{}) {
		return
	}
	en.block, en.parentHash, en.depth, en.parentKey = b.Block, b.ParentHash, int32(b.Depth), b.Parent
	if p := t.find(b.Parent); en.parent == none && b.Depth > 0 && p != none {
		en.parent, en.parentSerial = p, t.entries.at(p).serial
		for i := range en.copies {
			if en.copies[i].state != copyAbsent {
				t.linkChild(e, i)
			}
		}
	}
	for i := range en.copies {
		if en.copies[i].state == copyStored {
			t.record(i, e, true)
		}
	}
}

// leave forgets entry e if it has no copies left.
func (t *Tiers) leave(e int32) {
	en := t.entries.at(e)
	for i := range en.copies {
		if en.copies[i].state != copyAbsent {
			return
		}
	}
	t.table.remove(keyHash(en.key), e)
	en.serial++
	en.key, en.depth = dynamo.ContentKey{}, none
	t.spare = append(t.spare, e)
}

// name is the block of entry e.
func (t *Tiers) name(e int32) TierBlock {
	en := t.entries.at(e)
	return TierBlock{Key: en.key, Parent: en.parentKey, Depth: int(en.depth), Block: en.block, ParentHash: en.parentHash}
}

// store launches m, which writes entry e to a slot of tier to.
func (t *Tiers) store(m Move, e int32, to int, slot int32) Move {
	m.To, m.ToSlot, m.TierBlock = dynamo.Tier(to+1), slot, t.name(e)
	m.ToGeneration = t.begin(e, to, slot, m.FromGeneration)
	return t.launch(m, e)
}

// begin gives entry e a copy that is being written, and returns its generation: that of
// the copy it is made from. What is in a store shared with others has none, since
// another may have written it.
func (t *Tiers) begin(e int32, to int, slot int32, generation uint64) uint64 {
	if to == numTiers-1 {
		generation = 0
	}
	c := &t.entries.at(e).copies[to]
	*c = tierCopy{generation: generation, slot: slot, prev: none, next: none, children: c.children}
	t.count(to, c, copyStoring)
	t.linkChild(e, to)
	t.tiers[to].writes++
	return generation
}

// launch notes that m is under way.
func (t *Tiers) launch(m Move, e int32) Move {
	var n int32
	if last := len(t.idle) - 1; last >= 0 {
		n = t.idle[last]
		t.idle = t.idle[:last]
	} else {
		n = int32(len(t.flights))
		t.flights = append(t.flights, flight{})
	}
	f := &t.flights[n]
	f.gen++
	m.ID = MoveID(f.gen)<<32 | MoveID(n)
	f.move, f.entry, f.used = m, e, true
	return m
}

// land ends a move that is under way.
func (t *Tiers) land(id MoveID) (Move, int32) {
	n := int(uint32(id))
	if n >= len(t.flights) || !t.flights[n].used || t.flights[n].move.ID != id {
		panic("BUG: kvbm: a report about a move that is not under way")
	}
	f := &t.flights[n]
	f.used = false
	t.idle = append(t.idle, int32(n))
	return f.move, f.entry
}

// count changes the state of a copy in tier i.
func (t *Tiers) count(i int, c *tierCopy, to copyState) {
	ts := &t.tiers[i]
	if c.state != copyAbsent {
		ts.counts[c.state]--
	}
	if to != copyAbsent {
		ts.counts[to]++
	}
	c.state = to
}

// parent is the entry before entry e, or none if it is not known or gone.
func (t *Tiers) parent(e int32) int32 {
	en := t.entries.at(e)
	if en.parent != none && t.entries.at(en.parent).serial == en.parentSerial {
		return en.parent
	}
	return none
}

// linkChild tells the entry before e that e has a copy in tier i.
func (t *Tiers) linkChild(e int32, i int) {
	if p := t.parent(e); p != none {
		t.entries.at(p).copies[i].children++
	}
}

// unlinkChild undoes linkChild.
func (t *Tiers) unlinkChild(e int32, i int) {
	if p := t.parent(e); p != none {
		t.entries.at(p).copies[i].children--
	}
}
