package kvindex

import (
	"math"
	"sync/atomic"

	"github.com/dynamo-go/dynamo"
)

// Source is the handle of one life of a worker's data-parallel rank. Handles are
// dense and are used again after Detach, the longest unused first.
type Source uint32

// NoSource is the handle Attach returns when there are MaxSources already. Nothing
// is noted for it.
const NoSource Source = math.MaxUint32

// Worker says whose blocks a source's are.
type Worker struct {
	ID    dynamo.WorkerID
	Epoch uint64 // life of the worker's process
	Rank  int    // data-parallel rank
}

// State says how far what the index knows of a source is what the source holds.
type State uint8

// The states. The index itself makes a source approximate when it drops blocks of
// it; everything else is the caller's to say.
const (
	// Exact: every event was applied.
	Exact State = iota
	// Repairing: events were lost, and what they said is being found out.
	Repairing
	// Approximate: blocks are missing, or known from decisions only.
	Approximate
)

// String returns the state's name.
func (s State) String() string {
	return [...]string{"exact", "repairing", "approximate"}[s]
}

// tiers is the number of tiers.
const tiers = int(dynamo.TierRemote) + 1

// source is what the writer knows of one.
type source struct {
	worker   Worker
	live     bool
	state    State
	lanes    [tiers]uint32 // 0: none yet
	expected []expectation // lanes of blocks that are expected, by end
	engine   [tiers]*engineIDs
}

// lane is one life of a tier of a source: what runs know as a holder. Detach and
// Clear end lanes, and with them all they hold; the runs are told later (sweep).
type lane struct {
	source Source
	tier   dynamo.Tier
	guess  bool  // blocks are expected, not reported
	blocks int64 // of the lane
	digest uint64
	last   uint32 // the block that was stored last: the next one is often behind it
	gone   uint32 // and that was removed last: the next one is often beside it
}

// What lookups see of a lane, in one word: source, tier and whether it is alive.
// 0 is no living lane.
const (
	laneLive   = 1 << 0
	laneTier   = 1
	laneSource = 4
)

// laneTable holds that word for each lane. It grows by chunks that do not move.
type laneTable struct {
	chunks [maxLanes / laneChunk]atomic.Pointer[[laneChunk]atomic.Uint32]
	ended  atomic.Int32 // lanes that are not alive though runs may know them
	_      apart
	all    []lane // by lane; writer only. 0 is none
	free   []uint32
	dead   []uint32 // ended, but runs may still know them
	gone   int64    // blocks that those held, or more
	_      apart
}

const laneChunk = 1024

// info returns what lookups see of a lane.
func (t *laneTable) info(l uint32) uint32 {
	return t.chunks[l/laneChunk].Load()[l%laneChunk].Load()
}

// open starts a lane; it reports 0 when there are too many or no memory is left.
func (t *laneTable) open(b *budget, s Source, tier dynamo.Tier, guess bool) uint32 {
	var l uint32
	if n := len(t.free); n > 0 {
		l = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		if len(t.all) == 0 {
			t.all = append(t.all, lane{})
		}
		l = uint32(len(t.all))
		if l >= maxLanes || t.chunks[l/laneChunk].Load() == nil && !b.take(laneChunk*laneBytes) {
			return 0
		}
		if t.chunks[l/laneChunk].Load() == nil {
			t.chunks[l/laneChunk].Store(new([laneChunk]atomic.Uint32))
		}
		t.all = append(t.all, lane{})
	}
	t.all[l] = lane{source: s, tier: tier, guess: guess}
	t.chunks[l/laneChunk].Load()[l%laneChunk].Store(uint32(s)<<laneSource | uint32(tier)<<laneTier | laneLive)
	return l
}

// end makes a lane's blocks be gone for lookups.
func (t *laneTable) end(l uint32) {
	t.chunks[l/laneChunk].Load()[l%laneChunk].Store(0)
	t.ended.Add(1)
	t.dead = append(t.dead, l)
}

// alive says whether a lane is.
func (t *laneTable) alive(l uint32) bool { return t.info(l)&laneLive != 0 }

// Attach makes a source for a worker's rank, which holds nothing yet. At the limit
// of MaxSources it returns NoSource.
func (x *Index) Attach(w Worker) Source {
	s := Source(len(x.sources))
	if len(x.idle) > 0 && (len(x.idle) >= reuseAfter || int(s) >= MaxSources) {
		s = x.idle[0]
		x.idle = x.idle[1:]
		x.sources[s] = source{worker: w, live: true}
	} else if int(s) >= MaxSources || !x.budget.take(sourceBytes) {
		return NoSource
	} else {
		x.sources = append(x.sources, source{worker: w, live: true})
	}
	x.attached++
	return s
}

// Detach ends a source. Lookups that begin afterwards do not find it; what it held
// is given back bit by bit, by later writes and by Sweep.
func (x *Index) Detach(s Source) {
	src := x.source(s)
	if src == nil {
		return
	}
	for t := range tiers {
		x.endLane(s, dynamo.Tier(t))
	}
	for _, e := range src.expected {
		x.end(e.lane)
	}
	*src = source{}
	x.idle = append(x.idle, s)
	x.attached--
}

// source returns what is known of a living source, or nil.
func (x *Index) source(s Source) *source {
	if int(s) >= len(x.sources) || !x.sources[s].live {
		return nil
	}
	return &x.sources[s]
}

// lane returns the lane of a source's tier and begins one if there is none.
func (x *Index) lane(s Source, t dynamo.Tier) uint32 {
	src := x.source(s)
	if src == nil || int(t) >= tiers {
		return 0
	}
	if src.lanes[t] == 0 {
		src.lanes[t] = x.lanes.open(&x.budget, s, t, false)
	}
	return src.lanes[t]
}

// Clear forgets all blocks of a source's tier, in the same way as Detach.
func (x *Index) Clear(s Source, t dynamo.Tier) {
	src := x.source(s)
	if src == nil || int(t) >= tiers {
		return
	}
	x.endLane(s, t)
	x.tidy()
}

func (x *Index) endLane(s Source, t dynamo.Tier) {
	src := &x.sources[s]
	if l := src.lanes[t]; l != 0 {
		x.end(l)
		src.lanes[t] = 0
	}
	x.dropEngine(src, t)
}

// end ends a lane and leaves its holdings to sweep.
func (x *Index) end(l uint32) {
	x.held -= x.lanes.all[l].blocks
	x.lanes.gone += x.lanes.all[l].blocks
	x.lanes.all[l].blocks = 0
	x.lanes.end(l)
}

// State says how far a source's blocks are known.
func (x *Index) State(s Source) State {
	if src := x.source(s); src != nil {
		return src.state
	}
	return Approximate
}

// SetState notes what the caller knows.
func (x *Index) SetState(s Source, st State) {
	if src := x.source(s); src != nil {
		src.state = st
	}
}
