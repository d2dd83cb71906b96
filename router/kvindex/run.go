package kvindex

import (
	"math/bits"
	"sync/atomic"
)

// runBlocks is the length of a full run; one bit of a mask stands for each block.
const runBlocks = 64

// run is a stretch of a chain: up to 64 blocks, each the successor of the one
// before it, and who holds which of them. It fills a cache line.
//
// A block is in one run at one position. Its predecessor is just before it there,
// or it is the run's first block, its head. A run may be continued by any number
// of others, after its last block or in its middle; no link says so, since the
// head of the continuation is found by its hash.
//
// Lookups read runs while the writer changes them. What they may see is written
// once before it is published (segs, the hashes in them, the lanes in arrays) or
// atomic. A position's hash never changes in a run's life: blocks that nobody
// holds are cut off the end (state), and the place behind is used again only for
// the same block.
type run struct {
	segs  [runBlocks / segmentBlocks]uint32 // published by state
	mask0 atomic.Uint64                     // blocks that lane0 holds
	lane0 atomic.Uint32                     // the first holder; 0 when it is gone for good
	more  atomic.Uint32                     // the other holders: newest array of a list
	state atomic.Uint32                     // number of blocks, and manyBit
	stamp uint32                            // when it was last stored to; writer only
	hold  uint32                            // lanes with a bit set; writer only

	high    uint8 // positions ever used; writer only
	indexed uint8 // of them, those the table was told of; writer only
	queued  bool  // it is among the table's untold ones; writer only
}

// manyBit says that a source may be there more than once, or in a slow tier.
const manyBit = 1 << 8

func (r *run) len() int { return int(r.state.Load() & (manyBit - 1)) }

// A holder array: the number of its entries and the array after it in one word,
// its class in another, then entries of two words: what lookups need to know of the
// lane and the lane; and its mask. Entries are added at the end and never taken away
// or given to another lane; an array that is rebuilt is another array.
const (
	arrayHead  = 2
	entryWords = 2
)

func arrayCap(class int) int { return (1<<class - arrayHead) / entryWords }

// classFor is the class of an array with room for n entries, or the largest.
func classFor(n int) int {
	return min(max(bits.Len(uint(n*entryWords+arrayHead-1)), minClass), maxClass)
}

func packLane(info, lane uint32) uint64 { return uint64(info)<<32 | uint64(lane) }

func unpackHead(w uint64) (n int, next uint32) { return int(uint32(w)), uint32(w >> 32) }

func packHead(n int, next uint32) uint64 { return uint64(next)<<32 | uint64(n) }

// hash returns the hash of the block at pos.
func (x *Index) hash(r *run, pos int) uint64 {
	return x.segs.at(r.segs[pos/segmentBlocks])[pos%segmentBlocks]
}

// ref names a block: its run and its position there.
func ref(id uint32, pos int) uint32 { return id*runBlocks | uint32(pos) }

// mask returns the word that holds the lane's mask in r, or nil.
func (x *Index) mask(r *run, lane uint32) *atomic.Uint64 {
	if r.lane0.Load() == lane {
		return &r.mask0
	}
	for at := r.more.Load(); at != 0; {
		a := x.words.at(at)
		n, next := unpackHead(a[0].Load())
		e := a[arrayHead : arrayHead+n*entryWords]
		for i := 0; i+1 < len(e); i += entryWords {
			if uint32(e[i].Load()) == lane {
				return &e[i+1]
			}
		}
		at = next
	}
	return nil
}

// union returns the blocks of r that anybody holds.
func (x *Index) union(r *run) uint64 {
	n := r.len()
	full := ^uint64(0) >> (runBlocks - n)
	u := r.mask0.Load()
	for at := r.more.Load(); at != 0 && u != full; {
		a := x.words.at(at)
		n, next := unpackHead(a[0].Load())
		e := a[arrayHead : arrayHead+n*entryWords]
		for i := 0; i+1 < len(e) && u != full; i += entryWords {
			u |= e[i+1].Load()
		}
		at = next
	}
	return u
}

// holders yields the lanes that are or were in r, and the words of their masks.
func (x *Index) holders(r *run) func(yield func(lane uint32, mask *atomic.Uint64) bool) {
	return func(yield func(lane uint32, mask *atomic.Uint64) bool) {
		if lane := r.lane0.Load(); lane != 0 && !yield(lane, &r.mask0) {
			return
		}
		for at := r.more.Load(); at != 0; {
			a := x.words.at(at)
			n, next := unpackHead(a[0].Load())
			e := a[arrayHead : arrayHead+n*entryWords]
			for i := 0; i+1 < len(e); i += entryWords {
				if !yield(uint32(e[i].Load()), &e[i+1]) {
					return
				}
			}
			at = next
		}
	}
}

// addHolder appends a lane that is not yet in r. It reports false when there is no
// memory for it.
func (x *Index) addHolder(r *run, lane uint32, mask uint64, many bool) bool {
	key := packLane(x.lanes.info(lane), lane)
	if many {
		r.state.Store(r.state.Load() | manyBit)
	}
	at := r.more.Load()
	total := 0
	if at != 0 {
		a := x.words.at(at)
		n, next := unpackHead(a[0].Load())
		if n < arrayCap(int(a[1].Load())) {
			e := a[arrayHead+n*entryWords:]
			e[0].Store(key)
			e[1].Store(mask)
			a[0].Store(packHead(n+1, next))
			return true
		}
		total = n // arrays grow by the half, so the newest is a third of all
	}
	class := classFor(max(3, total*3/2))
	fresh := x.words.alloc(&x.budget, class)
	if fresh == 0 {
		return false
	}
	a := x.words.at(fresh)
	a[1].Store(uint64(class))
	a[2].Store(key)
	a[3].Store(mask)
	a[0].Store(packHead(1, at))
	r.more.Store(fresh)
	return true
}
