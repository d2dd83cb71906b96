package tier

import (
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
)

// Load is blocks on their way to an engine: group of layers after group of layers, the
// first of all blocks first.
//
// Each of its blocks has a job in the queue of the tier that it comes from. A worker that
// takes one of these does what is next in the load, group by group of whatever block, until
// it has brought a block to its end. So there is always something for it to do, the groups
// of a block come one at a time, and loads come in the order in which they began.
type Load struct {
	m       *Mover
	arrived func(groups int) // or nil
	done    func(ok bool)
	timer   *time.Timer
	groups  int     // that are told of one by one
	from    [4]bool // the tiers that blocks come from, by dynamo.Tier
	mu      struct {
		sync.RWMutex // held for reading while a block is written
		over         bool
		blocks       int            // that are to come
		left         [MaxGroups]int // blocks whose group is to come
		told         int            // groups
		waiting      [4][]*fetch    // by dynamo.Tier, in the order in which they go on
	}
}

// fetch is one block of a load.
type fetch struct {
	move kvbm.Move
	want Header
	into []byte // the engine's memory
	// groups are there; how the rest is divided, and its sums, the first of them said.
	groups int
	ends   Groups
	sums   [MaxGroups]uint64
	took   time.Duration
}

// newLoad returns a load of n blocks, none of which it knows yet.
func (m *Mover) newLoad(n int, arrived func(groups int), done func(ok bool)) *Load {
	l := &Load{m: m, arrived: arrived, done: done, groups: 1}
	if ends := m.config.Geometry.groups(); arrived != nil {
		l.groups = ends.count()
	}
	l.mu.blocks = n
	for i := range l.mu.left {
		l.mu.left[i] = n
	}
	return l
}

// add puts a block at the end of those that wait.
func (l *Load) add(f *fetch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.waiting[f.move.From] = append(l.mu.waiting[f.move.From], f)
}

// next takes the block out that goes on, of those that come from a tier.
func (l *Load) next(from dynamo.Tier) *fetch {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.mu.waiting[from][0]
	l.mu.waiting[from] = l.mu.waiting[from][1:]
	return f
}

// Cancel gives the load up: on return its memory is written to no more, and its end
// is not told unless it has been.
func (l *Load) Cancel() {
	l.mu.Lock()
	l.mu.over = true
	l.mu.Unlock()
	l.timer.Stop()
}

// Overlapped says that the engine has computed with what was there before all was.
func (l *Load) Overlapped() {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	l.m.mu.loads.Overlapped++
	l.m.publishLocked()
}

// write lets f write to the engine's memory, or reports that it may not.
func (l *Load) write(f func()) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.mu.over {
		return false
	}
	f()
	return true
}

// wanted reports whether there is still something to do.
func (l *Load) wanted() bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return !l.mu.over
}

// came notes that groups from from to to-1 of a block are there, and returns how many of
// all blocks are, if that is to be told, or 0.
func (l *Load) came(from, to int) (groups int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := from; i < to; i++ {
		l.mu.left[i]--
	}
	was := l.mu.told
	for l.mu.told < l.groups-1 && l.mu.left[l.mu.told] == 0 {
		l.mu.told++
	}
	if l.mu.told == was || l.mu.over {
		return 0
	}
	return l.mu.told
}

// ended notes that one of the blocks is there, or (not ok) that the load has failed:
// whether it counts still, and whether it is the last one, or the first failure, which is
// to be told.
func (l *Load) ended(ok bool) (counts, tell bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.blocks--
	counts = !l.mu.over
	if tell = counts && (!ok || l.mu.blocks == 0); tell {
		l.mu.over = true
		l.timer.Stop()
	}
	return counts, tell
}
