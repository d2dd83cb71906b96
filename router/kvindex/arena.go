package kvindex

import (
	"sync/atomic"
	"unsafe"
)

// Memory of the index is made of chunks without pointers, which the garbage
// collector does not scan, and is named by 32-bit references. Chunks do not move,
// so a reference is read through without a lock; what it names is used again only
// after all lookups that may have seen it are over (see epoch.go).

// segment holds the hashes of eight consecutive blocks, a cache line.
type segment [segmentBlocks]uint64

const (
	segmentBlocks = 8
	unitBytes     = 64 // of a segment, and of a run

	unitShift  = 10
	chunkUnits = 1 << unitShift
	chunkBytes = chunkUnits * unitBytes
)

// budget counts the memory that is allocated and how much may be.
type budget struct {
	bytes, max int64
}

// take books n bytes, if they are left.
func (b *budget) take(n int64) bool {
	if b.bytes+n > b.max {
		return false
	}
	b.bytes += n
	return true
}

// arena holds units of one type. Unit 0 is never handed out: 0 names none.
type arena[T segment | run | page] struct {
	chunks []atomic.Pointer[[chunkUnits]T] // as many as the budget can fill
	_      apart
	next   uint32 // the first unit never used
	free   []uint32
	live   int // units handed out and not freed
	_      apart
}

// apart lies between what lookups read and what every write changes: a cache line that
// both use would go from core to core each time.
type apart [64]byte

func newArena[T segment | run | page](maxBytes int64) arena[T] {
	a := arena[T]{next: 1}
	a.chunks = make([]atomic.Pointer[[chunkUnits]T], maxBytes/a.bytes()+1)
	return a
}

// bytes is the memory of a chunk, with the list of free units, which will hold each of
// them in the end, and what else there is of each.
func (a *arena[T]) bytes() int64 { return chunkUnits * (int64(unsafe.Sizeof(*new(T))) + 5) }

// at returns the unit i.
func (a *arena[T]) at(i uint32) *T {
	return &a.chunks[i>>unitShift].Load()[i%chunkUnits]
}

// alloc hands out a unit, or 0 when the budget is used up.
func (a *arena[T]) alloc(b *budget) uint32 {
	if n := len(a.free); n > 0 {
		i := a.free[n-1]
		a.free = a.free[:n-1]
		a.live++
		return i
	}
	c := a.next >> unitShift
	if int(c) >= len(a.chunks) {
		return 0
	}
	if a.chunks[c].Load() == nil {
		if !b.take(a.bytes()) {
			return 0
		}
		a.chunks[c].Store(new([chunkUnits]T))
	}
	i := a.next
	a.next++
	a.live++
	return i
}

// room is the number of units left without another chunk.
func (a *arena[T]) room() int {
	return len(a.free) + int(-a.next%chunkUnits)
}

// reserve makes sure of room for n more units.
func (a *arena[T]) reserve(b *budget, n int) bool {
	for c, last := a.next>>unitShift, (a.next+uint32(max(n-len(a.free), 0)))>>unitShift; c <= last; c++ {
		if int(c) >= len(a.chunks) || a.chunks[c].Load() == nil && !b.take(a.bytes()) {
			return false
		}
		if a.chunks[c].Load() == nil {
			a.chunks[c].Store(new([chunkUnits]T))
		}
	}
	return true
}

func (a *arena[T]) release(i uint32) {
	a.free = append(a.free, i)
	a.live--
}

// reset gives all memory back; nothing may be in use.
func (a *arena[T]) reset(b *budget) {
	for i := range a.chunks {
		if a.chunks[i].Load() == nil {
			break
		}
		a.chunks[i].Store(nil)
		b.bytes -= a.bytes()
	}
	a.next, a.free, a.live = 1, nil, 0
}

// words holds arrays of 2^k words, minClass ≤ k ≤ maxClass, which lie at multiples
// of their size. Reference 0 is none.
type words struct {
	chunks []atomic.Pointer[[chunkWords]atomic.Uint64]
	_      apart
	next   uint32
	free   [maxClass + 1][]uint32
	live   int // words handed out
	_      apart
}

const (
	wordShift  = 13
	chunkWords = 1 << wordShift
	minClass   = 3
	maxClass   = wordShift
)

func newWords(maxBytes int64) words {
	return words{chunks: make([]atomic.Pointer[[chunkWords]atomic.Uint64], maxBytes/(chunkWords*8)+1), next: 1 << minClass}
}

// at returns the memory from ref to the end of its chunk.
func (w *words) at(ref uint32) []atomic.Uint64 {
	return w.chunks[ref>>wordShift].Load()[ref%chunkWords:]
}

// alloc hands out an array of 2^class words, or 0 when the budget is used up.
func (w *words) alloc(b *budget, class int) uint32 {
	for k := class; k <= maxClass; k++ {
		n := len(w.free[k])
		if n == 0 {
			continue
		}
		ref := w.free[k][n-1]
		w.free[k] = w.free[k][:n-1]
		for k > class { // the upper half stays free
			k--
			w.free[k] = append(w.free[k], ref+1<<k)
		}
		w.live += 1 << class
		return ref
	}
	size := uint32(1) << class
	for w.next%size != 0 { // what alignment skips is free
		k := uint32(minClass)
		for w.next%(2<<k) == 0 {
			k++
		}
		w.free[k] = append(w.free[k], w.next)
		w.next += 1 << k
	}
	c := w.next >> wordShift
	if int(c) >= len(w.chunks) {
		return 0
	}
	if w.chunks[c].Load() == nil {
		if !b.take(chunkWords*8 + chunkWords>>minClass*4) {
			return 0
		}
		w.chunks[c].Store(new([chunkWords]atomic.Uint64))
	}
	ref := w.next
	w.next += size
	w.live += int(size)
	return ref
}

func (w *words) release(ref uint32, class int) {
	w.free[class] = append(w.free[class], ref)
	w.live -= 1 << class
}

// reset gives all memory back; nothing may be in use.
func (w *words) reset(b *budget) {
	for i := range w.chunks {
		if w.chunks[i].Load() == nil {
			break
		}
		w.chunks[i].Store(nil)
		b.bytes -= chunkWords*8 + chunkWords>>minClass*4
	}
	w.next, w.free = 1<<minClass, [maxClass + 1][]uint32{}
}
