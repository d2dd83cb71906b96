package model

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// pool runs the units of one phase on several threads: fork, work, join. A
// phase takes tens of microseconds, so workers wait for the next one by looking
// at a word, giving way to other goroutines as they do, and sleep only when
// nothing has come for a while.
//
// The word holds the units of the current phase that nobody has taken, below
// the number of the phase. Taking a unit is a compare-and-swap on it; a phase
// cannot end while a taken unit is not done, so what a taker reads after that
// belongs to its phase. A worker that is not running delays nobody.
type pool struct {
	_    [64]byte      // what threads write beside one another gets cache lines of its own
	word atomic.Uint64 // phase<<32 | units left
	_    [64]byte
	done atomic.Int64 // units of this phase that are finished
	_    [64]byte

	// Written by the caller between phases.
	phase uint32
	units int
	work  func(thread, unit int)

	fault   atomic.Pointer[any] // what a unit panicked with
	stop    atomic.Bool
	workers []worker
	ended   sync.WaitGroup
}

// worker is one thread beside the caller's.
type worker struct {
	parked atomic.Bool
	wake   chan struct{}
	_      [40]byte // a cache line each
}

// The lengths of the waits: looks at the word between giving way, and how often
// a worker gives way before it sleeps (some 100 µs).
const (
	looksPerYield = 256
	yieldsToSleep = 300
)

// newPool starts threads-1 workers, which close ends.
func newPool(threads int) *pool {
	p := &pool{workers: make([]worker, threads-1)}
	for i := range p.workers {
		p.workers[i].wake = make(chan struct{}, 1)
		p.ended.Go(func() { p.attend(i) })
	}
	return p
}

// threads returns the number of threads, the caller's included.
func (p *pool) threads() int { return len(p.workers) + 1 }

// close ends the workers. No phase may be running.
func (p *pool) close() {
	p.stop.Store(true)
	for i := range p.workers {
		p.workers[i].rouse()
	}
	p.ended.Wait()
}

// run calls work for the units 0…units-1, each once, from thread 0, which is
// the caller, and the workers, and returns when all are done. A panic in a unit
// is raised again here, after the others have ended.
func (p *pool) run(units int, work func(thread, unit int)) {
	if len(p.workers) == 0 || units <= 1 {
		for u := 0; u < units; u++ {
			work(0, u)
		}
		return
	}
	p.units, p.work = units, work
	p.done.Store(0)
	p.phase++
	p.word.Store(uint64(p.phase)<<32 | uint64(units))
	for i := range min(len(p.workers), units-1) {
		p.workers[i].rouse()
	}
	p.help(0)
	for i := 0; p.done.Load() < int64(units); i++ {
		if i%looksPerYield == looksPerYield-1 {
			runtime.Gosched()
		}
	}
	if f := p.fault.Swap(nil); f != nil {
		panic(*f)
	}
}

// help takes units until none is left.
func (p *pool) help(thread int) {
	for {
		w := p.word.Load()
		left := uint32(w)
		if left == 0 {
			return
		}
		if p.word.CompareAndSwap(w, w-1) {
			p.unit(thread, p.units-int(left))
		}
	}
}

// unit does one unit and counts it, also when it panics.
func (p *pool) unit(thread, unit int) {
	defer func() {
		if r := recover(); r != nil {
			fault := r // r itself would move to the heap in every unit
			p.fault.CompareAndSwap(nil, &fault)
		}
		p.done.Add(1)
	}()
	p.work(thread, unit)
}

// attend is the life of worker i.
func (p *pool) attend(i int) {
	w := &p.workers[i]
	for {
		for yields := 0; yields < yieldsToSleep; yields++ {
			for range looksPerYield {
				if uint32(p.word.Load()) != 0 {
					p.help(i + 1)
					yields = 0
				}
			}
			if p.stop.Load() {
				return
			}
			runtime.Gosched()
		}
		w.parked.Store(true)
		// A phase that began before the store did not see a parked worker.
		if uint32(p.word.Load()) != 0 || p.stop.Load() {
			if w.parked.CompareAndSwap(true, false) {
				continue
			}
		}
		<-w.wake
	}
}

// rouse wakes the worker if it sleeps. Whoever clears parked sends, and the
// worker that finds it cleared receives, so wake holds at most one.
func (w *worker) rouse() {
	if w.parked.Load() && w.parked.CompareAndSwap(true, false) {
		w.wake <- struct{}{}
	}
}
