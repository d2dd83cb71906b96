package kvbm

import (
	"errors"
	"fmt"
	"iter"

	"github.com/dynamo-go/dynamo"
)

// Stored lists the blocks a tier has, the most recently used first.
func (t *Tiers) Stored(tier dynamo.Tier) iter.Seq[TierBlock] {
	return func(yield func(TierBlock) bool) {
		i := int(tier) - 1
		for e := t.tiers[i].newest; e != none; e = t.entries.at(e).copies[i].prev {
			if !yield(t.name(e)) {
				return
			}
		}
	}
}

// Check tells what is wrong, or nil. It looks at everything and is for tests and
// simulations.
func (t *Tiers) Check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	unused := map[int32]bool{}
	for _, e := range t.spare {
		unused[e] = true
	}
	readers, writers := t.checkFlights(fault)
	live := 0
	var children [numTiers]map[int32]int32
	for i := range children {
		children[i] = map[int32]int32{}
	}
	for e := range t.entries.n {
		if unused[e] {
			continue
		}
		live++
		en := t.entries.at(e)
		if t.find(en.key) != e {
			fault("entry %d is not found by its key", e)
		}
		present := false
		for i := range en.copies {
			c := &en.copies[i]
			present = present || c.state != copyAbsent
			if n := readers[[2]int32{e, int32(i)}]; c.state != copyAbsent && c.readers != n {
				fault("entry %d in tier %d has %d readers; %d moves read it", e, i+1, c.readers, n)
			}
			if writers[[2]int32{e, int32(i)}] != (c.state == copyStoring) {
				fault("entry %d in tier %d has state %d, and a move writes it: %v", e, i+1, c.state, c.state != copyStoring)
			}
			if c.state != copyAbsent && en.parent != none && t.entries.at(en.parent).serial == en.parentSerial {
				children[i][en.parent]++
			}
		}
		if !present {
			fault("entry %d has no copy", e)
		}
	}
	if live != t.table.used {
		fault("%d entries are in use, %d can be found", live, t.table.used)
	}
	for i := range t.tiers {
		t.checkTier(i, unused, children[i], fault)
	}
	return errors.Join(faults...)
}

// checkFlights counts what the moves under way read and write.
func (t *Tiers) checkFlights(fault func(string, ...any)) (readers map[[2]int32]int32, writers map[[2]int32]bool) {
	readers, writers = map[[2]int32]int32{}, map[[2]int32]bool{}
	var reads, writes [numTiers]int32
	for n := range t.flights {
		f := &t.flights[n]
		if !f.used {
			continue
		}
		if f.move.Kind != Offload {
			readers[[2]int32{f.entry, int32(f.move.From) - 1}]++
			reads[f.move.From-1]++
		}
		to := int(f.move.To) - 1
		if f.move.Kind == Fetch {
			if to = 0; !f.move.Via {
				continue
			}
		}
		if writers[[2]int32{f.entry, int32(to)}] {
			fault("two moves write entry %d to tier %d", f.entry, to+1)
		}
		writers[[2]int32{f.entry, int32(to)}] = true
		writes[to]++
	}
	for i := range t.tiers {
		ts := &t.tiers[i]
		if ts.reads != reads[i] || ts.writes != writes[i] {
			fault("tier %d counts %d reads and %d writes; there are %d and %d", i+1, ts.reads, ts.writes, reads[i], writes[i])
		}
		if int(ts.reads) > ts.config.Queue || int(ts.writes) > ts.config.Queue {
			fault("I5: tier %d has %d reads and %d writes under way, limit %d", i+1, ts.reads, ts.writes, ts.config.Queue)
		}
	}
	return readers, writers
}

// checkTier looks at the slots, the order and the counts of tier i.
func (t *Tiers) checkTier(i int, unused map[int32]bool, children map[int32]int32, fault func(string, ...any)) {
	ts := &t.tiers[i]
	slots := map[int32]bool{}
	use := func(slot int32, what string) {
		if slot < 0 || slot >= ts.fresh || slots[slot] {
			fault("slot %d of tier %d, %s, is used twice or not at all", slot, i+1, what)
		}
		slots[slot] = true
	}
	var counts [numCopyStates]int32
	for e := range t.entries.n {
		c := &t.entries.at(e).copies[i]
		if c.state == copyAbsent || unused[e] {
			continue
		}
		counts[c.state]++
		use(c.slot, "in use")
		if c.children != children[e] {
			fault("entry %d has %d behind it in tier %d, counts %d", e, children[e], i+1, c.children)
		}
	}
	if counts != ts.counts {
		fault("tier %d counts %v, has %v", i+1, ts.counts, counts)
	}
	for _, s := range ts.free {
		use(s, "free")
	}
	for _, s := range ts.bad {
		use(s, "quarantined")
	}
	if len(slots) != int(ts.fresh) || ts.fresh > ts.slots {
		fault("I4: tier %d accounts for %d slots of %d that were used, of %d", i+1, len(slots), ts.fresh, ts.slots)
	}
	ordered, last := int32(0), none
	for e := ts.oldest; e != none && ordered <= counts[copyStored]; e = t.entries.at(e).copies[i].next {
		if c := &t.entries.at(e).copies[i]; c.state != copyStored || c.prev != last {
			fault("entry %d is in the order of tier %d with state %d", e, i+1, c.state)
		}
		last = e
		ordered++
	}
	if ordered != counts[copyStored] || last != ts.newest {
		fault("tier %d orders %d blocks, stores %d", i+1, ordered, counts[copyStored])
	}
}

// Copies is the number of tiers that have a block stored.
func (t *Tiers) Copies(key dynamo.ContentKey) (n int) {
	if e := t.find(key); e != none {
		for _, c := range t.entries.at(e).copies {
			if c.state == copyStored {
				n++
			}
		}
	}
	return n
}

// Inspect begins to read a block from one tier, for a look at its bytes: a Fetch that
// is no use of it. It reports false if the block is not there or too much is being
// read.
func (t *Tiers) Inspect(tier dynamo.Tier, key dynamo.ContentKey) (Move, bool) {
	i, e := int(tier)-1, t.find(key)
	if e == none || t.entries.at(e).copies[i].state != copyStored || int(t.tiers[i].reads) >= t.tiers[i].config.Queue {
		return Move{}, false
	}
	c := &t.entries.at(e).copies[i]
	c.readers++
	t.tiers[i].reads++
	return t.launch(Move{Kind: Fetch, From: tier, FromSlot: c.slot, FromGeneration: c.generation, ToSlot: none, TierBlock: t.name(e)}, e), true
}
