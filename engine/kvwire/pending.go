package kvwire

import "slices"

// pending holds Stored events whose parent is not known: the blocks before theirs
// were stored before the view began, or are told of later. It is bounded; the
// oldest are dropped.
type pending struct {
	order    []*wait // oldest first, those that are out among them
	children map[EngineHash][]*wait
	blocks   map[waitKey]*wait
	weight   int
	live     int
}

// wait is one event that waits, a copy.
type wait struct {
	event  Event
	place  place
	weight int
	out    bool
}

type waitKey struct {
	hash  EngineHash
	place place
}

func (p *pending) reset() {
	*p = pending{children: make(map[EngineHash][]*wait), blocks: make(map[waitKey]*wait)}
}

// add lets a copy of e wait and returns how many events were dropped for it.
func (p *pending) add(e *Event, at place) (dropped int) {
	w := &wait{event: *e, place: at, weight: weigh(e)}
	if w.weight > maxPending/4 {
		return 1
	}
	w.event.Hashes, w.event.Tokens, w.event.Extra = slices.Clone(e.Hashes), slices.Clone(e.Tokens), slices.Clone(e.Extra)
	for i := range w.event.Extra {
		w.event.Extra[i].Names = slices.Clone(w.event.Extra[i].Names)
	}
	if len(e.Tokens) != len(e.Hashes)*e.BlockSize {
		w.event.Foreign, w.event.Tokens = true, nil // also when it is cut
	}
	p.order = append(p.order, w)
	p.children[e.Parent] = append(p.children[e.Parent], w)
	for _, h := range e.Hashes {
		p.blocks[waitKey{h, at}] = w
	}
	p.weight += w.weight
	p.live++
	for p.live > maxPendingEvents || p.weight > maxPending {
		if oldest := p.order[0]; !oldest.out {
			p.detach(oldest)
			p.takeOut(oldest)
			dropped++
		}
		p.order = p.order[1:]
	}
	if len(p.order) > 2*maxPendingEvents {
		p.order = slices.DeleteFunc(p.order, func(w *wait) bool { return w.out })
	}
	return dropped
}

// weigh returns about how many words of four bytes a copy of e takes.
func weigh(e *Event) int {
	n := len(e.Tokens) + 16*len(e.Hashes)
	for i := range e.Extra {
		n += 16
		for _, name := range e.Extra[i].Names {
			n += 4 + len(name)/4
		}
	}
	return n
}

// take appends the events that waited for h to dst; they wait no longer.
func (p *pending) take(dst []*wait, h EngineHash) []*wait {
	for _, w := range p.children[h] {
		p.takeOut(w)
		dst = append(dst, w)
	}
	delete(p.children, h)
	return dst
}

// remove cuts off the block h, and those behind it, of the event that waits with it.
func (p *pending) remove(h EngineHash, at place) bool {
	w := p.blocks[waitKey{h, at}]
	if w == nil {
		return false
	}
	i := slices.Index(w.event.Hashes, h)
	for _, cut := range w.event.Hashes[i:] {
		p.forget(cut, w)
	}
	if i == 0 {
		p.detach(w)
		p.takeOut(w)
		return true
	}
	if !w.event.Foreign {
		w.event.Tokens = w.event.Tokens[:i*w.event.BlockSize]
	}
	w.event.Hashes = w.event.Hashes[:i]
	return true
}

// detach takes w from the children of its parent.
func (p *pending) detach(w *wait) {
	parent := w.event.Parent
	rest := slices.DeleteFunc(p.children[parent], func(other *wait) bool { return other == w })
	if len(rest) == 0 {
		delete(p.children, parent)
		return
	}
	p.children[parent] = rest
}

// takeOut ends the wait of w.
func (p *pending) takeOut(w *wait) {
	for _, h := range w.event.Hashes {
		p.forget(h, w)
	}
	p.weight -= w.weight
	p.live--
	w.out = true
}

func (p *pending) forget(h EngineHash, w *wait) {
	if key := (waitKey{h, w.place}); p.blocks[key] == w {
		delete(p.blocks, key)
	}
}
