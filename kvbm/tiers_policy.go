package kvbm

import (
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// top is the fastest tier that can take blocks from the engine, or -1.
func (t *Tiers) top(now time.Time) int {
	for i := range t.tiers {
		if t.open(i, now) {
			return i
		}
	}
	return -1
}

// up reports whether there is a tier i and it works.
func (t *Tiers) up(i int, now time.Time) bool {
	return t.tiers[i].slots > 0 && !now.Before(t.tiers[i].down.until)
}

// open reports whether tier i works and can be written.
func (t *Tiers) open(i int, now time.Time) bool {
	return t.up(i, now) && !now.Before(t.tiers[i].closed.until)
}

// Up reports whether there is such a tier and it is not left alone after failures.
func (t *Tiers) Up(tier dynamo.Tier, now time.Time) bool { return t.up(int(tier)-1, now) }

// Failed says that a tier did not do what it was asked besides moves.
func (t *Tiers) Failed(tier dynamo.Tier, now time.Time) { t.failed(int(tier)-1, now) }

// source is the fastest tier that entry e can be read from, or -1.
func (t *Tiers) source(e int32, now time.Time) int {
	en := t.entries.at(e)
	for i := range en.copies {
		if en.copies[i].state == copyStored && t.up(i, now) {
			return i
		}
	}
	return -1
}

// takes reports whether tier i takes in a block now, which stands behind entry parent:
// its policy is for it, and the way there is free.
func (t *Tiers) takes(i int, key dynamo.ContentKey, depth, parent int32, now time.Time) bool {
	ts := &t.tiers[i]
	why := numSkips
	switch {
	case !t.open(i, now):
		why = SkipDown
	case !t.wants(i, key, depth, parent):
		why = SkipPolicy
	case int(ts.writes) >= ts.config.Queue:
		why = SkipQueue
	case i == int(dynamo.TierDisk)-1 && !t.bucket.take(float64(t.config.BlockBytes), now):
		why = SkipBudget
	default:
		return true
	}
	ts.stats.Skipped[why]++
	return false
}

// wants is the policy of tier i.
func (t *Tiers) wants(i int, key dynamo.ContentKey, depth, parent int32) bool {
	ts := &t.tiers[i]
	switch ts.config.Policy {
	case PolicySecondUse:
		return t.uses.count(key) >= 2
	case PolicyValue:
		if len(ts.free) > 0 || ts.fresh < ts.slots {
			return true
		}
		v := t.victim(i, parent)
		return v != none && t.value(key, depth) > t.valueOf(v)
	}
	return true
}

// value is what it is worth to keep a block: the cost to compute it again times the
// probability that it is used again, which its uses so far stand for. All blocks have
// the same size.
func (t *Tiers) value(key dynamo.ContentKey, depth int32) float64 {
	n := float64(t.uses.count(key))
	return n / (n + 1) * t.costs.block(int(depth), t.config.BlockTokens)
}

func (t *Tiers) valueOf(e int32) float64 {
	en := t.entries.at(e)
	return t.value(en.key, en.depth)
}

// spreadIf is spread for an entry that may be gone.
func (t *Tiers) spreadIf(dst []Move, e int32, now time.Time) []Move {
	if t.entries.at(e).depth == none {
		return dst
	}
	return t.spread(dst, e, 0, now)
}

// spread copies entry e from the fastest tier that holds it, from tier i on, to the
// next slower one, if that one wants it. Copies come one after another: the end of
// one leads to the next.
func (t *Tiers) spread(dst []Move, e int32, i int, now time.Time) []Move {
	en := t.entries.at(e)
	for ; i < numTiers-1; i++ {
		if en.copies[i].state != copyStored || !t.up(i, now) {
			continue
		}
		to := i + 1
		for to < numTiers && t.tiers[to].slots == 0 {
			to++
		}
		if to == numTiers {
			return dst
		}
		if en.copies[to].state != copyAbsent {
			continue
		}
		if int(t.tiers[i].reads) >= t.tiers[i].config.Queue || !t.takes(to, en.key, en.depth, t.parent(e), now) {
			return dst
		}
		c := &en.copies[i]
		c.readers++
		t.tiers[i].reads++
		var slot int32
		if dst, slot = t.claim(dst, to, t.parent(e)); slot == none {
			c.readers--
			t.tiers[i].reads--
			t.tiers[to].stats.Skipped[SkipFull]++
			return dst
		}
		return append(dst, t.store(Move{Kind: Demote, From: dynamo.Tier(i + 1), FromSlot: c.slot, FromGeneration: c.generation}, e, to, slot))
	}
	return dst
}

// vacant gives a free slot; there must be one.
func (ts *tierState) vacant() int32 {
	if last := len(ts.free) - 1; last >= 0 {
		n := ts.free[last]
		ts.free = ts.free[:last]
		return n
	}
	ts.fresh++
	return ts.fresh - 1
}

// claim gives a slot of tier i for a block behind entry parent: a free one, or that of
// the block it gives up.
func (t *Tiers) claim(dst []Move, i int, parent int32) ([]Move, int32) {
	ts := &t.tiers[i]
	if len(ts.free) == 0 && ts.fresh == ts.slots {
		v := t.victim(i, parent)
		if v == none {
			return dst, none
		}
		ts.stats.Evicted++
		n := len(dst)
		dst = t.drop(dst, v, i, false)
		if i == int(dynamo.TierDisk)-1 {
			dst = dst[:n] // what is written over need not be deleted first
		}
	}
	return dst, ts.vacant()
}

// victim is the block that tier i gives up next, or none: of the least recently used
// ones that nobody reads, one that none behind it needs; with EvictFrequency the least
// valuable of those. If there is none, one that a slower tier has as well. If there is
// none of those the oldest goes, but not for a block of its own sequence: parent is the
// entry before the block that is to come, and a chain longer than all tiers keeps its
// front.
func (t *Tiers) victim(i int, parent int32) int32 {
	best, safe, fallback := none, none, none
	var least float64
	looked, own := 0, parent != none && t.entries.at(parent).copies[i].state == copyStoring
	for e := t.tiers[i].oldest; e != none && looked < maxVictims; e = t.entries.at(e).copies[i].next {
		c := &t.entries.at(e).copies[i]
		if c.readers > 0 {
			own = own || e == parent
			continue
		}
		looked++
		switch {
		case e == parent || c.children > 0:
			own = own || e == parent
			if fallback == none {
				fallback = e
			}
			if safe == none && t.below(e, i) {
				safe = e
			}
		case t.config.Eviction == EvictLRU:
			return e
		default:
			if v := t.valueOf(e); best == none || v < least {
				best, least = e, v
			}
		}
	}
	switch {
	case best != none:
		return best
	case safe != none:
		return safe
	case own:
		return none
	}
	return fallback
}

// below reports whether a tier slower than tier i has entry e.
func (t *Tiers) below(e int32, i int) bool {
	en := t.entries.at(e)
	for j := i + 1; j < numTiers; j++ {
		if en.copies[j].state == copyStored {
			return true
		}
	}
	return false
}

// drop gives up the copy of entry e in tier i, which is stored or leaving; bad says
// that its slot is set aside.
func (t *Tiers) drop(dst []Move, e int32, i int, bad bool) []Move {
	c := &t.entries.at(e).copies[i]
	c.bad = c.bad || bad
	if c.state == copyStored {
		t.pop(i, e)
		t.record(i, e, false)
		t.count(i, c, copyLeaving)
		if i > 0 {
			dst = append(dst, Move{Kind: Delete, From: dynamo.Tier(i + 1), FromSlot: c.slot, FromGeneration: c.generation, TierBlock: t.name(e)})
		}
	}
	if c.readers == 0 {
		t.vacate(e, i)
	}
	return dst
}

// vacate ends the copy of entry e in tier i, which is leaving and not read.
func (t *Tiers) vacate(e int32, i int) {
	ts, c := &t.tiers[i], &t.entries.at(e).copies[i]
	t.count(i, c, copyAbsent)
	t.unlinkChild(e, i)
	if c.bad {
		ts.bad = append(ts.bad, c.slot)
		if len(ts.bad) > int(ts.slots)/quarantineShare+1 {
			ts.free = append(ts.free, ts.bad[0])
			ts.bad = append(ts.bad[:0], ts.bad[1:]...)
		}
	} else {
		ts.free = append(ts.free, c.slot)
	}
	t.leave(e)
}

// failed notes that a tier did not do what it was asked. After some failures in a row
// it is left alone for a while, longer each time.
func (t *Tiers) failed(i int, now time.Time) {
	t.tiers[i].stats.Failed++
	t.tiers[i].down.failed(now)
}

// push makes entry e the most recently used of tier i, save that the block before it, if
// it is there, stays the more recent one: what is given up first is the end of a chain.
func (t *Tiers) push(i int, e int32) {
	t.record(i, e, true)
	if p := t.parent(e); p != none && t.entries.at(p).copies[i].state == copyStored {
		t.insert(i, e, t.entries.at(p).copies[i].prev, p)
		return
	}
	t.insert(i, e, t.tiers[i].newest, none)
}

// insert puts entry e into the order of tier i between two others, or at an end.
func (t *Tiers) insert(i int, e, prev, next int32) {
	ts, c := &t.tiers[i], &t.entries.at(e).copies[i]
	c.prev, c.next = prev, next
	if prev == none {
		ts.oldest = e
	} else {
		t.entries.at(prev).copies[i].next = e
	}
	if next == none {
		ts.newest = e
	} else {
		t.entries.at(next).copies[i].prev = e
	}
}

// pop takes entry e out of the order of tier i.
func (t *Tiers) pop(i int, e int32) {
	ts, c := &t.tiers[i], &t.entries.at(e).copies[i]
	if c.prev == none {
		ts.oldest = c.next
	} else {
		t.entries.at(c.prev).copies[i].next = c.next
	}
	if c.next == none {
		ts.newest = c.prev
	} else {
		t.entries.at(c.next).copies[i].prev = c.prev
	}
	c.prev, c.next = none, none
}

// renew makes entry e, which is stored, the most recently used of tier i.
func (t *Tiers) renew(i int, e int32) {
	if t.tiers[i].newest != e {
		t.pop(i, e)
		t.insert(i, e, t.tiers[i].newest, none)
	}
}

// Change is one change of what a tier has stored.
type Change struct {
	Tier   dynamo.Tier
	Stored bool // or else removed
	Block  TierBlock
}

// record notes a change of tier i, if that is wanted and the block has a name for it.
func (t *Tiers) record(i int, e int32, stored bool) {
	if t.config.Changes && t.entries.at(e).block != (tokens.Block{}) {
		t.changes = append(t.changes, Change{dynamo.Tier(i + 1), stored, t.name(e)})
	}
}

// Changes appends the changes since the last call, in order, if TiersConfig.Changes.
func (t *Tiers) Changes(dst []Change) []Change {
	dst = append(dst, t.changes...)
	t.changes = t.changes[:0]
	return dst
}
