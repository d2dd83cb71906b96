package kvindex

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// Index is the prefix index. Find may be called from any number of goroutines,
// beside one that calls the other methods; whoever has several of those gives them
// a lock.
type Index struct {
	seed   uint64
	step   time.Duration
	budget // of what is below; readers' scratch memory is not counted

	// What lookups read.
	runs        arena[run]
	segs        arena[segment]
	words       words
	heads       heads
	lanes       laneTable
	readers     []reader
	moreReaders atomic.Pointer[reader]
	epoch       atomic.Uint64
	_           apart

	// What the writer alone uses.
	table     table
	recent    []uint32 // blocks that stores ended with, by mixed hash
	sources   []source
	idle      []Source // detached, longest ago first
	attached  int
	blocks    int    // of all runs
	held      int64  // blocks times holders
	clock     uint32 // stores
	hand      uint32 // of eviction: the run it looked at last
	retired   []retired
	reclaimed int // of them
	reclaimAt int // length at which to try again

	sweeping   uint32 // the run at which the pass goes on; 0: no pass
	sweepLanes int    // lanes that the pass takes out

	settled  []settled      // what the last store of a chain with engine ids changed
	chain    []tokens.Block // buffer
	refs     []uint32       // buffer
	used     []uint8        // buffer
	expireAt time.Time      // no expectation ends before
	stats    Stats          // what only counts up
	sink     uint64         // keeps reads that fetch memory
}

// Stats are counts of an index. Those of the past only go up.
type Stats struct {
	Sources int   // attached
	Runs    int   // stretches of chains
	Blocks  int   // distinct ones that are held (or lie between such)
	Held    int64 // blocks, counted once for each tier of a source that holds them
	Bytes   int64 // memory, at most Config.MaxBytes
	Ending  int   // tiers of sources that are gone but not swept yet

	Evicted   uint64 // held blocks dropped to make room
	Dropped   uint64 // blocks that found no room
	Conflicts uint64 // blocks stored behind another one than before: hashes that collide, or wrong events
}

const golden = 0x9E3779B97F4A7C15

// New returns an empty index.
func New(c Config) (*Index, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	x := &Index{
		seed:    c.Seed,
		step:    c.ExpectStep,
		budget:  budget{max: c.MaxBytes},
		runs:    newArena[run](c.MaxBytes),
		segs:    newArena[segment](c.MaxBytes),
		words:   newWords(c.MaxBytes),
		readers: make([]reader, readerSlots),
		recent:  make([]uint32, recentBlocks),
	}
	x.table.pages = newArena[page](c.MaxBytes)
	x.bytes = int64(len(x.runs.chunks)+len(x.segs.chunks)+len(x.words.chunks)+len(x.table.pages.chunks))*8 +
		tableParts*listBytes + minHeads*headBytes + recentBlocks*4
	x.epoch.Store(1)
	x.reclaimAt = reclaimEvery
	x.table.init()
	x.heads.init()
	return x, nil
}

// mix spreads a hash over 64 bits in a way nobody can foresee who does not know the
// seed.
func (x *Index) mix(h uint64) uint64 {
	hi, lo := bits.Mul64(h^x.seed, golden)
	return hi ^ lo
}

// Bytes is the memory the index has allocated.
func (x *Index) Bytes() int64 { return x.bytes }

// Stats returns the counts.
func (x *Index) Stats() Stats {
	s := x.stats
	s.Sources, s.Runs, s.Blocks, s.Held, s.Bytes = x.attached, x.heads.n, x.blocks, x.held, x.bytes
	s.Ending = len(x.lanes.dead)
	return s
}

// Blocks is the number of blocks a source holds in a tier.
func (x *Index) Blocks(s Source, t dynamo.Tier) int64 { return x.Digest(s, t).Blocks }
