package kvindex

import (
	"sync/atomic"
	"unsafe"
)

// A lookup takes no lock: it occupies a reader, which says since when it runs.
// Memory that the writer takes out of use is retired under the epoch of that
// moment and used again when every lookup that runs began in a later one. Then no
// lookup can have a reference to it, since what it names was unlinked before.

const (
	readerSlots = 64
	readerShift = 64 - 6
	// reclaimEvery is how many retired things are let lie before the writer looks
	// at the readers.
	reclaimEvery = 64
)

// reader is a lookup's place: its epoch, and memory to work in.
type reader struct {
	epoch atomic.Uint64 // in which the lookup began; 0: free
	next  *reader       // of those beyond readerSlots; fixed when published
	work  scratch
	_     [64]byte // readers' words do not share cache lines
}

// enter occupies a free reader.
func (x *Index) enter() *reader {
	// Goroutines have stacks of their own, so the address of a variable spreads them
	// over the readers, and one goroutine mostly comes back to its own.
	var here byte
	first := uint64(uintptr(unsafe.Pointer(&here))>>11) * golden >> readerShift
	now := x.epoch.Load()
	for i := range uint64(readerSlots) {
		r := &x.readers[(first+i)%readerSlots]
		if r.epoch.Load() == 0 && r.epoch.CompareAndSwap(0, now) {
			return r
		}
	}
	for r := x.moreReaders.Load(); r != nil; r = r.next {
		if r.epoch.Load() == 0 && r.epoch.CompareAndSwap(0, now) {
			return r
		}
	}
	r := new(reader)
	r.epoch.Store(now)
	for {
		r.next = x.moreReaders.Load()
		if x.moreReaders.CompareAndSwap(r.next, r) {
			return r
		}
	}
}

func (r *reader) leave() { r.epoch.Store(0) }

// retired is something out of use that lookups may still see: a run with its
// segments and holders, or (class not 0) a list of holder arrays.
type retired struct {
	epoch uint64
	ref   uint32
	array bool
}

func (x *Index) retire(ref uint32, array bool) {
	x.retired = append(x.retired, retired{epoch: x.epoch.Load(), ref: ref, array: array})
	if len(x.retired)-x.reclaimed >= x.reclaimAt {
		x.reclaim()
	}
}

// reclaim makes memory that no lookup can see any more ready for use, and reports
// whether none is left that one may see.
func (x *Index) reclaim() bool {
	if x.reclaimed == len(x.retired) {
		return true
	}
	oldest := x.epoch.Add(1)
	for i := range x.readers {
		if e := x.readers[i].epoch.Load(); e != 0 {
			oldest = min(oldest, e)
		}
	}
	for r := x.moreReaders.Load(); r != nil; r = r.next {
		if e := r.epoch.Load(); e != 0 {
			oldest = min(oldest, e)
		}
	}
	for ; x.reclaimed < len(x.retired) && x.retired[x.reclaimed].epoch < oldest; x.reclaimed++ {
		if it := x.retired[x.reclaimed]; it.array {
			x.releaseArrays(it.ref)
		} else {
			x.releaseRun(it.ref)
		}
	}
	left := len(x.retired) - x.reclaimed
	if x.reclaimed >= left { // copying pays
		x.retired = x.retired[:copy(x.retired, x.retired[x.reclaimed:])]
		x.reclaimed = 0
	}
	x.reclaimAt = left + reclaimEvery
	return left == 0
}

// releaseRun gives a run's memory back.
func (x *Index) releaseRun(id uint32) {
	r := x.runs.at(id)
	x.bury(id, r)
	for i := range r.segs {
		if r.segs[i] != 0 {
			x.segs.release(r.segs[i])
			r.segs[i] = 0
		}
	}
	x.releaseArrays(r.more.Load())
	r.more.Store(0)
}

// releaseArrays gives back a list of holder arrays.
func (x *Index) releaseArrays(at uint32) {
	for at != 0 {
		a := x.words.at(at)
		_, next := unpackHead(a[0].Load())
		x.words.release(at, int(a[1].Load()))
		at = next
	}
}
