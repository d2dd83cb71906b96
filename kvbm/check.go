package kvbm

import (
	"errors"
	"fmt"

	"github.com/dynamo-go/dynamo"
)

// Check tells what is wrong with the pool (I4), or nil. It looks at every block
// and is for tests and simulations.
func (p *Pool) Check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	p.checkBlocks(fault)
	p.checkIdle(fault)
	p.checkEntries(fault)
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("I4: %w", err)
	}
	return nil
}

// Registered appends the hashes of all that Match can find, in no order.
func (p *Pool) Registered(dst []dynamo.BlockHash) []dynamo.BlockHash {
	for e := range p.entries.n {
		if p.found(e) {
			dst = append(dst, p.entries.at(e).content.Hash)
		}
	}
	return dst
}

// found reports whether Match finds entry e.
func (p *Pool) found(e int32) bool { return p.entries.at(e).parent != gone && !p.draft(e) }

// checkBlocks compares the counts and lists of states with the blocks.
func (p *Pool) checkBlocks(fault func(string, ...any)) {
	var counts [numStates]int
	for n := range p.blocks.n {
		b := p.blocks.at(n)
		counts[b.state]++
		registered := b.state == stateHeld || b.state == stateIdle
		switch {
		case b.refs < 0 || (b.refs > 0) != (b.state == stateHeld):
			fault("block %d is %s with %d holders", n, stateNames[b.state], b.refs)
		case registered && (b.entry == none || p.entries.at(b.entry).block != n):
			fault("block %d is %s but not what its entry finds", n, stateNames[b.state])
		case !registered && b.state != stateComplete && b.entry != none:
			fault("block %d is %s with an entry", n, stateNames[b.state])
		}
	}
	counts[stateFree] += p.config.Blocks - int(p.blocks.n)
	s := p.Stats()
	for s, n := range [numStates]int{s.Free, s.Partial, s.Complete, s.Held, s.Idle, s.Loading} {
		if n != counts[s] {
			fault("%d blocks are %s, the count says %d", counts[s], stateNames[s], n)
		}
	}
	seen := make([]bool, p.blocks.n)
	for _, n := range p.free {
		if seen[n] || p.blocks.at(n).state != stateFree {
			fault("block %d on the free list is %s or there twice", n, stateNames[p.blocks.at(n).state])
		}
		seen[n] = true
	}
}

// checkIdle walks the least recently used list: every idle block once, children
// before parents.
func (p *Pool) checkIdle(fault func(string, ...any)) {
	length, prev := 0, none
	gone := make([]int32, p.entries.n)
	for n := p.oldest; n != none && length <= int(p.blocks.n); prev, n = n, p.blocks.at(n).next {
		b := p.blocks.at(n)
		if b.state != stateIdle || b.prev != prev {
			fault("block %d on the idle list is %s or linked wrongly", n, stateNames[b.state])
			return
		}
		en := p.entries.at(b.entry)
		if en.children != gone[b.entry] {
			fault("idle block %d comes before %d of its successors", n, en.children-gone[b.entry])
		}
		if en.parent != none {
			gone[en.parent]++
		}
		length++
	}
	if length != p.counts.idle || p.newest != prev {
		fault("the idle list has %d blocks of %d", length, p.counts.idle)
	}
}

// checkEntries compares entries with the table, children and duplicates.
func (p *Pool) checkEntries(fault func(string, ...any)) {
	children := make([]int32, p.entries.n)
	used, dups, slots := 0, 0, 0
	for e := range p.entries.n {
		if !p.found(e) {
			continue
		}
		en := p.entries.at(e)
		used++
		if !p.next(e) {
			slots++
		}
		b := p.blocks.at(en.block)
		if found, _ := p.behind(en.parent, en.content.Hash); found != e || b.entry != e {
			fault("entry %d is not found by its hash or has the wrong block", e)
		}
		if en.parent != none {
			children[en.parent]++
		}
		if b.state != stateHeld {
			continue // an idle block has no duplicates: those that say they are its are counted below
		}
		for prev, d := en.block, b.next; d != none; prev, d = d, p.blocks.at(d).next {
			dups++
			if dup := p.blocks.at(d); dup.state != stateComplete || dup.entry != e || dup.prev != prev || d == en.block || dups > int(p.blocks.n) {
				fault("block %d is no duplicate of block %d or linked wrongly", d, en.block)
				return
			}
		}
	}
	if slots != p.table.used {
		fault("%d entries need a slot, the table has %d", slots, p.table.used)
	}
	for e := range p.entries.n {
		if children[e] != p.entries.at(e).children {
			fault("entry %d has %d children, its count says %d", e, children[e], p.entries.at(e).children)
		}
	}
	linked, drafts := 0, 0
	for n := range p.blocks.n {
		switch b := p.blocks.at(n); {
		case b.state != stateComplete || b.entry == none:
		case p.entries.at(b.entry).block == n:
			drafts++
		default:
			linked++
		}
	}
	if used+drafts+len(p.spare) != int(p.entries.n) {
		fault("%d entries are found, %d drafts and %d spare of %d", used, drafts, len(p.spare), p.entries.n)
	}
	if linked != dups {
		fault("%d duplicates are linked, %d blocks say they are", dups, linked)
	}
}
