package bench

import (
	"container/heap"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo/bench/trace"
)

// node is a request that is held until it is due, and what waits for it.
type node struct {
	request
	due     int64 // ns since the start
	waits   int   // requests it waits for
	after   int64 // the latest end of those that it waited for
	waited  bool
	next    []*node // those that wait for it
	done    bool
	end     int64
	tracked bool
}

// byDue orders nodes by when they are due, then by index.
type byDue []*node

func (h byDue) Len() int { return len(h) }
func (h byDue) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].index < h[j].index
}
func (h byDue) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byDue) Push(x any) { *h = append(*h, x.(*node)) }

// Pop implements heap.Interface.
func (h *byDue) Pop() any {
	old := *h
	n := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return n
}

// schedule decides which request is due next. Requests of a trace wait for those
// before them in their session, or for those they name: such a request is due its
// delay after the last of them ended, or at its own time if it has no delay and
// that is later. A failed request counts as ended. It has no clock.
type schedule struct {
	cfg   *Config
	mode  string
	ahead int
	mu    struct {
		sync.Mutex
		ready  byDue
		parked int
		last   map[string]*node // of a session
		named  map[string]*node // by ID, until they have ended
	}
	// The rest belongs to the one goroutine that calls fill.
	source func() (trace.Request, error, bool)
	stop   func()
	times  func() (time.Duration, bool)
	index  int
	ended  bool
}

// newSchedule makes the schedule of a phase; its close has to be called.
func newSchedule(c *Config, mode string, synthetic bool, offset int) *schedule {
	s := &schedule{cfg: c, mode: mode, ahead: maxAhead, index: offset, stop: func() {}}
	s.mu.last, s.mu.named = map[string]*node{}, map[string]*node{}
	if mode == modeClosed {
		s.ahead = min(max(4*c.Concurrency, 64), maxAhead)
	}
	if mode == modeOpen {
		next, stop := iter.Pull(c.Arrival.Times(c.Seed ^ saltArrival))
		s.times, s.stop = next, stop
		s.ahead = 1024
	}
	if c.Trace != nil && !synthetic {
		next, stop := iter.Pull2(c.Trace)
		before := s.stop
		s.source, s.stop = next, func() { before(); stop() }
	}
	return s
}

func (s *schedule) close() { s.stop() }

// fill takes requests from the plan until enough are held or the plan ends; limit is
// how many requests there are at most, 0 for no bound.
func (s *schedule) fill(limit int) error {
	for !s.ended && s.held() < s.ahead {
		if limit > 0 && s.index >= limit {
			s.ended = true
			return nil
		}
		n := &node{request: request{index: s.index}}
		if s.source == nil {
			n.Request = s.cfg.synthetic(s.index)
		} else {
			q, err, ok := s.source()
			if err != nil {
				s.ended = true
				return err
			}
			if !ok {
				s.ended = true
				return nil
			}
			n.Request, n.tracked = q, true
			if n.ID == "" && n.Session == "" && len(n.Hashes) == 0 {
				n.ID = strconv.Itoa(s.index) // prompts without hashes differ
			}
		}
		s.cfg.cancels(&n.request)
		s.index++
		switch s.mode {
		case modeOpen:
			at, ok := s.times()
			if !ok {
				s.ended = true
				return nil
			}
			n.due = int64(at)
		case modeTrace:
			n.due = int64(float64(n.At) / s.cfg.Speedup)
		}
		if s.cfg.Duration > 0 && n.due > int64(s.cfg.Duration) {
			s.ended = true
			return nil
		}
		s.add(n)
	}
	return nil
}

func (s *schedule) held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.ready) + s.mu.parked
}

// add makes n ready, or lets it wait.
func (s *schedule) add(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n.tracked {
		if len(n.After) > 0 {
			for _, id := range n.After {
				s.waitLocked(n, s.mu.named[id])
			}
		} else if n.Session != "" {
			s.waitLocked(n, s.mu.last[n.Session])
		}
		if n.ID != "" {
			s.mu.named[n.ID] = n
		}
		if n.Session != "" {
			s.rememberLocked(n)
		}
	}
	if n.waits > 0 {
		s.mu.parked++
		return
	}
	s.readyLocked(n)
}

// waitLocked lets n wait for before, if that has not ended.
func (s *schedule) waitLocked(n, before *node) {
	switch {
	case before == nil || before == n:
	case before.done:
		n.waited, n.after = true, max(n.after, before.end)
	default:
		n.waits++
		n.waited = true
		before.next = append(before.next, n)
	}
}

func (s *schedule) rememberLocked(n *node) {
	if len(s.mu.last) >= maxSessions {
		for name, old := range s.mu.last {
			if old.done {
				delete(s.mu.last, name)
			}
		}
	}
	s.mu.last[n.Session] = n
}

// readyLocked computes when n is due and queues it.
func (s *schedule) readyLocked(n *node) {
	if n.waited {
		if delay := int64(float64(n.Delay) / s.cfg.Speedup); delay > 0 || s.mode != modeTrace {
			n.due = n.after + delay
		} else {
			n.due = max(n.due, n.after)
		}
	}
	heap.Push(&s.mu.ready, n)
}

// end says that n has ended. It returns whether others became ready.
func (s *schedule) end(n *node, at int64) bool {
	if !n.tracked {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n.done, n.end = true, at
	if s.mu.named[n.ID] == n {
		delete(s.mu.named, n.ID)
	}
	freed := false
	for _, w := range n.next {
		w.waits--
		w.after = max(w.after, at)
		if w.waits == 0 {
			s.mu.parked--
			s.readyLocked(w)
			freed = true
		}
	}
	n.next, n.Hashes, n.After = nil, nil, nil // a remembered node keeps only its end
	return freed
}

// peek returns when the next request is due; ok is false if none is ready, and idle
// says that none waits either.
func (s *schedule) peek() (due int64, ok, idle bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.ready) == 0 {
		return 0, false, s.mu.parked == 0
	}
	return s.mu.ready[0].due, true, false
}

// pop takes the next request.
func (s *schedule) pop() *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return heap.Pop(&s.mu.ready).(*node)
}
