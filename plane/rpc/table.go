package rpc

import (
	"sync"
	"sync/atomic"
)

// table finds streams by number without a lock: pages of slots, the list of
// pages replaced when it grows.
type table struct {
	pages atomic.Pointer[[]*page]
	grow  sync.Mutex
}

const pageBits = 8

type page [1 << pageBits]atomic.Pointer[Stream]

// get returns the stream with this number, or nil.
func (t *table) get(id uint32) *Stream {
	if s := t.slot(id & slotMask); s != nil && s.id == id {
		return s
	}
	return nil
}

// slot returns the stream in a slot, whatever its number.
func (t *table) slot(slot uint32) *Stream {
	pages := t.pages.Load()
	if pages == nil || int(slot>>pageBits) >= len(*pages) {
		return nil
	}
	return (*pages)[slot>>pageBits][slot&(1<<pageBits-1)].Load()
}

// put fills s's slot.
func (t *table) put(s *Stream) {
	slot := s.id & slotMask
	for {
		pages := t.pages.Load()
		if pages != nil && int(slot>>pageBits) < len(*pages) {
			(*pages)[slot>>pageBits][slot&(1<<pageBits-1)].Store(s)
			return
		}
		t.extend(int(slot >> pageBits))
	}
}

// extend adds pages up to the given one.
func (t *table) extend(last int) {
	t.grow.Lock()
	defer t.grow.Unlock()
	var pages []*page
	if old := t.pages.Load(); old != nil {
		pages = append(pages, *old...)
	}
	for len(pages) <= last {
		pages = append(pages, new(page))
	}
	t.pages.Store(&pages)
}

// remove empties s's slot.
func (t *table) remove(s *Stream) {
	slot := s.id & slotMask
	(*t.pages.Load())[slot>>pageBits][slot&(1<<pageBits-1)].CompareAndSwap(s, nil)
}

// each calls f with every stream.
func (t *table) each(f func(*Stream)) {
	pages := t.pages.Load()
	if pages == nil {
		return
	}
	for _, p := range *pages {
		for i := range p {
			if s := p[i].Load(); s != nil {
				f(s)
			}
		}
	}
}
