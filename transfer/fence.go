package transfer

import (
	"slices"
	"sync/atomic"
	"time"
)

// rights are what a token lets its holder do. They are the token's low bits, so
// that whoever compares a token with the word of a page knows them, in whatever
// process.
type rights uint64

const (
	mayRead rights = 1 << iota
	mayWrite
	rightBits = iota
)

func (r rights) of(op Op) bool {
	if op == Write {
		return r&mayWrite != 0
	}
	return r&mayRead != 0
}

// span is a run of pages, n > 0.
type span struct{ first, n uint32 }

func (s span) overlaps(o span) bool { return s.first < o.first+o.n && o.first < s.first+s.n }

// packed is a span in one word, so that it is published at once; 0 is none.
func (s span) packed() uint64 { return uint64(s.first)<<32 | uint64(s.n) }

func unpack(w uint64) span { return span{uint32(w >> 32), uint32(w)} }

// open reports whether every page of s is open to the holder of token for op. The
// words may lie in memory shared with their owner.
func open(words []uint64, s span, token uint64, op Op) bool {
	if token == 0 || !rights(token).of(op) || int(s.first)+int(s.n) > len(words) {
		return false
	}
	for i := s.first; i < s.first+s.n; i++ {
		if atomic.LoadUint64(&words[i]) != token {
			return false
		}
	}
	return true
}

// fence decides who may touch which pages of one memory, and when a lent page may
// be used again by its owner. It is a pure state machine: no clock, no lock, no
// I/O. The shell around it is Memory.
//
// Each page has a word: the token that opens it, or 0. Whoever touches a page on
// behalf of a peer announces that first, looks at the word second, and takes the
// announcement back when it is done:
//
//   - in this process by enter and leave;
//   - in a process that maps the memory by a hazard, a word that the owner reads.
//
// The laws, which hold because announcing and looking are sequentially
// consistent:
//
//  1. A lease ends by setting its words to 0 before anything else. Who looks after
//     that is refused; who looked before has announced itself.
//  2. A lease is settled, and its pages usable, only when no announcement overlaps
//     it. So nobody touches a page after its owner has it back.
//  3. No token is given twice.
//  4. What a process has announced ends with its life, and the owner is told of
//     that by the end of its connection, which the kernel closes only after the
//     last thread has left user mode.
type fence struct {
	words  []uint64
	taken  []bool // pages that are lent, or drain
	base   uint64 // the word of pages that are not lent; 0 closes them
	last   uint64 // tokens and tickets given
	lent   map[uint64]*lent
	busy   map[uint64]access
	closed bool
}

// lent is one lease. It drains from its end until it is settled.
type lent struct {
	pages    span
	expires  time.Time
	touched  uint64 // accesses that were announced under its token
	draining bool
}

// access is one announcement within this process.
type access struct {
	conn  uint64 // who would have to be cut off to end it; 0 ends by itself
	pages span
}

// newFence fences words. With everyone != 0 pages that are not lent are open to
// every peer.
func newFence(words []uint64, everyone rights) fence {
	f := fence{words: words, taken: make([]bool, len(words)), last: 1, lent: map[uint64]*lent{}, busy: map[uint64]access{}}
	if everyone != 0 {
		f.base = 1<<rightBits | uint64(everyone)
	}
	f.set(span{0, uint32(len(words))}, f.base)
	return f
}

func (f *fence) set(s span, word uint64) {
	for i := s.first; i < s.first+s.n; i++ {
		atomic.StoreUint64(&f.words[i], word)
	}
}

func (f *fence) take(s span, taken bool) {
	for i := s.first; i < s.first+s.n; i++ {
		f.taken[i] = taken
	}
}

// lend opens pages to whoever has the token. It refuses pages that are lent, or
// drain.
func (f *fence) lend(s span, r rights, expires time.Time) (token uint64, ok bool) {
	if f.closed || slices.Contains(f.taken[s.first:s.first+s.n], true) {
		return 0, false
	}
	if f.base != 0 && f.touched(s) {
		return 0, false // somebody without a lease is at it
	}
	f.last++
	token = f.last<<rightBits | uint64(r)
	f.lent[token] = &lent{pages: s, expires: expires}
	f.take(s, true)
	f.set(s, token)
	return token, true
}

// enter announces an access of this process for a peer.
func (f *fence) enter(conn uint64, s span, token uint64, op Op) (ticket uint64, ok bool) {
	if !open(f.words, s, token, op) {
		return 0, false
	}
	f.last++
	f.busy[f.last] = access{conn, s}
	if l := f.lent[token]; l != nil {
		l.touched++
	}
	return f.last, true
}

// extend has a lease that has not ended last until expires, if it would not last longer.
func (f *fence) extend(token uint64, expires time.Time) bool {
	l := f.lent[token]
	if l == nil || l.draining {
		return false
	}
	if expires.After(l.expires) {
		l.expires = expires
	}
	return true
}

// touches counts the accesses under a lease so far. An access of another process, which
// tells no number, counts as one each time that it is seen.
func (f *fence) touches(token uint64, foreign func(span) bool) uint64 {
	l := f.lent[token]
	if l == nil {
		return 0
	}
	if foreign(l.pages) {
		l.touched++
	}
	return l.touched
}

// leave takes the announcement back.
func (f *fence) leave(ticket uint64) { delete(f.busy, ticket) }

// touched reports whether an access of this process overlaps s.
func (f *fence) touched(s span) bool {
	for _, a := range f.busy {
		if a.pages.overlaps(s) {
			return true
		}
	}
	return false
}

// finish ends a lease; a lease that has ended stays as it is.
func (f *fence) finish(token uint64) bool {
	l := f.lent[token]
	if l == nil || l.draining {
		return false
	}
	l.draining = true
	f.set(l.pages, 0)
	return true
}

// settle returns the pages of an ended lease to their owner if nobody touches
// them; foreign reports the hazards of other processes, and is asked after the
// words were closed.
func (f *fence) settle(token uint64, foreign func(span) bool) bool {
	l := f.lent[token]
	if l == nil || !l.draining || f.touched(l.pages) || foreign(l.pages) {
		return false
	}
	delete(f.lent, token)
	f.take(l.pages, false)
	f.set(l.pages, f.base)
	return true
}

// holders names the connections whose accesses keep a lease from settling.
func (f *fence) holders(token uint64) (conns []uint64) {
	l := f.lent[token]
	if l == nil {
		return nil
	}
	for _, a := range f.busy {
		if a.conn != 0 && a.pages.overlaps(l.pages) && !slices.Contains(conns, a.conn) {
			conns = append(conns, a.conn)
		}
	}
	return conns
}

// due returns the leases whose time is over, and when the next one's is; the zero
// time is never.
func (f *fence) due(now time.Time) (tokens []uint64, next time.Time) {
	for token, l := range f.lent {
		switch {
		case l.draining:
		case !l.expires.After(now):
			tokens = append(tokens, token)
		case next.IsZero() || l.expires.Before(next):
			next = l.expires
		}
	}
	slices.Sort(tokens)
	return tokens, next
}

// shut closes the memory to peers for good.
func (f *fence) shut() {
	f.closed, f.base = true, 0
	f.set(span{0, uint32(len(f.words))}, 0)
}

// quiet reports whether no access is in progress anywhere in the memory.
func (f *fence) quiet(foreign func(span) bool) bool {
	return len(f.busy) == 0 && !foreign(span{0, uint32(len(f.words))})
}
