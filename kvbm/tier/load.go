package tier

import (
	"sync"
	"time"
)

// Load is blocks on their way to an engine.
type Load struct {
	done  func(ok bool)
	timer *time.Timer
	from  [4]bool // the tiers that blocks come from, by dynamo.Tier
	mu    struct {
		sync.RWMutex // held for reading while a block is written
		over         bool
		left         int
	}
}

// Cancel gives the load up: on return its memory is written to no more, and its end
// is not told unless it has been.
func (l *Load) Cancel() {
	l.mu.Lock()
	l.mu.over = true
	l.mu.Unlock()
	l.timer.Stop()
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

// arrived notes that one of the blocks is there, or (not ok) that the load has failed:
// whether it counts still, and whether it is the last one, or the first failure, which is
// to be told.
func (l *Load) arrived(ok bool) (counts, tell bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.left--
	counts = !l.mu.over
	if tell = counts && (!ok || l.mu.left == 0); tell {
		l.mu.over = true
		l.timer.Stop()
	}
	return counts, tell
}
