package sim

import (
	"container/heap"
	"iter"
	"time"

	"github.com/dynamo-go/dynamo/bench/trace"
)

// turn is a request as those see it that wait for its end.
type turn struct {
	done bool
	end  int64
	next []*request
}

// byDue orders requests by when they are due, then by number.
type byDue []*request

func (h byDue) Len() int { return len(h) }
func (h byDue) Less(i, j int) bool {
	return h[i].due < h[j].due || h[i].due == h[j].due && h[i].number < h[j].number
}
func (h byDue) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byDue) Push(x any) { *h = append(*h, x.(*request)) }

// Pop implements heap.Interface.
func (h *byDue) Pop() any {
	old := *h
	r := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return r
}

// plan says which request is due next, as the load generator does with a trace: a
// request waits for the one before it in its session, or for those it names, and is
// due its delay after the last of them ended; or at its own time, if it has no delay
// and that is later.
type plan struct {
	speedup float64
	limit   int
	unused  func() *request
	next    func() (trace.Request, error, bool)
	stop    func()

	number  int
	ended   bool
	err     error
	horizon int64 // the time of the last request read
	chained bool  // some wait for others, so that reading ahead matters
	parked  int
	ready   byDue
	last    map[string]*turn // of a session
	named   map[string]*turn // by id, until they have ended
}

func newPlan(c *Config, all iter.Seq2[trace.Request, error], unused func() *request) *plan {
	p := &plan{speedup: c.Speedup, limit: c.Requests, unused: unused, last: map[string]*turn{}, named: map[string]*turn{}}
	p.next, p.stop = iter.Pull2(all)
	return p
}

// peek returns when the next request is due; false if none is, for now.
func (p *plan) peek() (due int64, ok bool) {
	for !p.ended && p.wants() {
		p.read()
	}
	if len(p.ready) == 0 {
		return 0, false
	}
	return p.ready[0].due, true
}

// wants reports whether a request that has not been read may be due before those
// that have.
func (p *plan) wants() bool {
	if p.chained {
		return len(p.ready)+p.parked < maxAhead
	}
	return len(p.ready) == 0 || p.ready[0].due >= p.horizon
}

// read takes one request from the trace.
func (p *plan) read() {
	if p.limit > 0 && p.number >= p.limit {
		p.ended = true
		return
	}
	q, err, ok := p.next()
	if err != nil || !ok {
		p.ended, p.err = true, err
		return
	}
	r := p.unused()
	r.number, r.Request = p.number, q
	p.number++
	r.due = p.scaled(q.At)
	p.horizon = max(p.horizon, r.due)
	p.add(r)
}

func (p *plan) scaled(d time.Duration) int64 { return int64(float64(d) / p.speedup) }

// add makes r ready, or lets it wait.
func (p *plan) add(r *request) {
	if len(r.After) > 0 {
		for _, id := range r.After {
			p.wait(r, p.named[id])
		}
	} else if r.Session != "" {
		p.wait(r, p.last[r.Session])
	}
	if r.ID != "" || r.Session != "" {
		p.chained = true
		r.turn = new(turn)
		if r.ID != "" {
			p.named[r.ID] = r.turn
		}
		if r.Session != "" {
			p.remember(r)
		}
	}
	if r.waits > 0 {
		p.parked++
		return
	}
	p.arm(r)
}

func (p *plan) wait(r *request, before *turn) {
	switch {
	case before == nil:
	case before.done:
		r.waited, r.after = true, max(r.after, before.end)
	default:
		r.waits++
		r.waited = true
		before.next = append(before.next, r)
	}
}

func (p *plan) remember(r *request) {
	if len(p.last) >= maxSessions {
		for name, old := range p.last {
			if old.done {
				delete(p.last, name)
			}
		}
	}
	p.last[r.Session] = r.turn
}

// arm queues a request that waits for nobody.
func (p *plan) arm(r *request) {
	if r.waited {
		if delay := p.scaled(r.Delay); delay > 0 {
			r.due = r.after + delay
		} else {
			r.due = max(r.due, r.after)
		}
	}
	heap.Push(&p.ready, r)
}

func (p *plan) pop() *request { return heap.Pop(&p.ready).(*request) }

// end says that r has ended, whole or not.
func (p *plan) end(r *request, at int64) {
	t := r.turn
	if t == nil {
		return
	}
	t.done, t.end = true, at
	if r.ID != "" && p.named[r.ID] == t {
		delete(p.named, r.ID)
	}
	for _, w := range t.next {
		w.waits--
		w.after = max(w.after, at)
		if w.waits == 0 {
			p.parked--
			p.arm(w)
		}
	}
	t.next = nil
}
