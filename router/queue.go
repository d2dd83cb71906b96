package router

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/router/placement"
)

// queue holds the requests that wait, first come first served among those that the
// same workers can take: one whose adapter no worker with room has is passed by, and
// who asks for no adapter is not. The timer wakes them when time alone may make room;
// it runs only while something waits and there is such a time.
type queue struct {
	head, tail *waiter
	n          int
	waiting    map[string]int // those that wait, by the adapter they ask for
	stuck      []string       // adapters that wakeLocked has found no worker for
	passed     []*call        // that it found none for because of what they are
	timer      *time.Timer
}

// waiter is a request in the queue. Whoever takes it out under the lock, its own
// goroutine or the one that books it, settles its fate.
type waiter struct {
	c          *call
	b          booking       // of a worker once it has a place
	turn       chan struct{} // closed then
	prev, next *waiter
	queued     bool
	err        error // instead of b
}

// queueLocked makes c wait, finds it a place after all, or refuses it.
func (r *Router) queueLocked(c *call, now time.Time) (*waiter, error) {
	if r.mu.retired {
		return nil, r.refuseLocked(c, noWorker, engine.CodeReplaced)
	}
	// Who refused it is held for a moment anyway; after that it may have room.
	c.excluded = c.excluded[:0]
	if g := c.q.Routing; g != nil && g.Worker != 0 && !r.knownLocked(g.Worker) {
		r.countLocked(failed)
		return nil, unknownWorker(g.Worker, len(r.mu.list))
	}
	if !r.listedLocked(c.q.Adapter) {
		return nil, r.refuseLocked(c, noWorker, engine.CodeNoWorker)
	}
	if len(r.mu.list) > 0 && !r.mu.kinds.able(r.mu.kinds.rank(c)) {
		if err := r.mu.kinds.refusal(c); err != nil {
			r.countLocked(failed)
			return nil, err
		}
		return nil, r.refuseLocked(c, noWorker, engine.CodeNoWorker)
	}
	q := &r.mu.queue
	if q.n > 0 && q.n >= r.config.Queue {
		return nil, r.refuseLocked(c, exhausted, "queue_full")
	}
	w := &waiter{c: c, turn: make(chan struct{}), prev: q.tail, queued: true}
	if w.prev == nil {
		q.head = w
	} else {
		w.prev.next = w
	}
	q.tail = w
	q.n++
	if q.waiting == nil {
		q.waiting = map[string]int{}
	}
	q.waiting[c.q.Adapter]++
	r.waitingLocked()
	r.wakeLocked(now)
	if w.queued && (!now.Before(c.arrived.Add(r.config.Wait)) || r.config.Queue == 0) {
		return nil, r.giveUpLocked(w, now)
	}
	return w, nil
}

// knownLocked reports whether there is a worker of that id, in whatever state.
func (r *Router) knownLocked(id dynamo.WorkerID) bool {
	return slices.ContainsFunc(r.mu.list, func(m *member) bool { return m.ID == id })
}

func unknownWorker(id dynamo.WorkerID, known int) error {
	return &dynamo.Error{Kind: dynamo.KindNotFound, Code: "unknown_worker", Message: fmt.Sprintf(
		"the request names worker %v, which is none of the %d of this model; leave the worker out, or name one that GET /v1/router lists", id, known)}
}

// listedLocked reports whether a wait for an adapter makes sense: a worker has it,
// in whatever state, or there is no worker at all. Those that are there and do not
// have it are not likely to get it while a request waits.
func (r *Router) listedLocked(adapter string) bool {
	return adapter == "" || len(r.mu.candidates) == 0 || r.havingLocked(adapter) > 0
}

// havingLocked counts the workers that have an adapter.
func (r *Router) havingLocked(adapter string) (n int) {
	for i := range r.mu.candidates {
		if slices.Contains(r.mu.candidates[i].Adapters, adapter) {
			n++
		}
	}
	return n
}

// wait returns once w holds a place, or may wait no longer.
func (r *Router) wait(ctx context.Context, w *waiter) (booking, error) {
	engine.Placed(ctx, 0, nil)
	began := time.Now()
	until, byDeadline := w.c.arrived.Add(r.config.Wait), false
	if d := w.c.q.Deadline; !d.IsZero() && d.Before(until) {
		until, byDeadline = d, true
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	var over error
	select {
	case <-w.turn:
	case <-ctx.Done():
		over = engine.ContextError(ctx)
	case <-timer.C:
		if byDeadline {
			over = engine.DeadlineError(nil)
		}
	}
	now := time.Now()
	if mm := r.config.Metrics; mm != nil {
		mm.waits.Observe(now.Sub(began).Seconds())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !w.queued {
		return w.b, w.err // if it is over as well, the worker's engine says so
	}
	if over == nil {
		r.wakeLocked(now)
		if !w.queued {
			return w.b, w.err
		}
		return booking{}, r.giveUpLocked(w, now)
	}
	r.unlinkLocked(w)
	r.countLocked(abandoned)
	return booking{}, over
}

// wakeLocked books the requests that wait, in their order, as far as there is
// room.
func (r *Router) wakeLocked(now time.Time) {
	q := &r.mu.queue
	if q.head == nil {
		return
	}
	var again time.Time
	q.stuck, q.passed = q.stuck[:0], q.passed[:0]
	defer func() { clear(q.passed) }() // they are not kept from the collector
	for w, next := q.head, (*waiter)(nil); w != nil && len(q.stuck) < len(q.waiting); w = next {
		next = w.next
		adapter := w.c.q.Adapter
		if slices.Contains(q.stuck, adapter) || q.passedLocked(w.c, r.mu.kinds.rank(w.c)) {
			continue
		}
		d := r.decideLocked(w.c, now)
		if d.Winner == placement.None {
			if at := d.Next(); again.IsZero() || !at.IsZero() && at.Before(again) {
				again = at
			}
			if d.Particular() {
				q.passed = append(q.passed, w.c)
				continue // another one that waits may have use for whom it has none
			}
			if adapter == "" {
				break // nobody is fit for anything
			}
			q.stuck = append(q.stuck, adapter)
			continue
		}
		w.b = r.bookLocked(w.c, &d)
		r.unlinkLocked(w)
		close(w.turn)
	}
	if q.n > 0 {
		r.armLocked(again, now)
	}
}

// passedLocked reports whether one as c is was found no worker for a moment ago.
func (q *queue) passedLocked(c *call, ranks []placement.Rank) bool {
	for _, p := range q.passed {
		if p.q.Adapter == c.q.Adapter && slices.Equal(p.ranks, ranks) {
			return true
		}
	}
	return false
}

// armLocked has the queue looked at again at the given time; never if it is zero.
func (r *Router) armLocked(at, now time.Time) {
	q := &r.mu.queue
	switch {
	case at.IsZero():
		if q.timer != nil {
			q.timer.Stop()
		}
	case q.timer == nil:
		q.timer = time.AfterFunc(at.Sub(now), r.wakeByTime)
	default:
		q.timer.Reset(at.Sub(now))
	}
}

// wakeByTime runs in the timer's goroutine, and ends.
func (r *Router) wakeByTime() {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeLocked(now)
}

func (r *Router) unlinkLocked(w *waiter) {
	q := &r.mu.queue
	if w.prev == nil {
		q.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		q.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	q.n--
	if a := w.c.q.Adapter; q.waiting[a] > 1 {
		q.waiting[a]--
	} else {
		delete(q.waiting, a)
	}
	r.waitingLocked()
	if q.n == 0 && q.timer != nil {
		q.timer.Stop()
	}
}

// waitingLocked publishes the length of the queue.
func (r *Router) waitingLocked() {
	if mm := r.config.Metrics; mm != nil {
		mm.waiting.Add(float64(r.mu.queue.n - r.mu.stats.Waiting))
	}
	r.mu.stats.Waiting = r.mu.queue.n
}

// Retire refuses all that wait and all that come: others serve the name now, with
// a Router of their own.
func (r *Router) Retire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.retired = true
	for w := r.mu.queue.head; w != nil; w = r.mu.queue.head {
		w.err = r.refuseLocked(w.c, noWorker, engine.CodeReplaced)
		r.unlinkLocked(w)
		close(w.turn)
	}
}

// giveUpLocked ends the wait of w, which no worker can take.
func (r *Router) giveUpLocked(w *waiter, now time.Time) error {
	r.unlinkLocked(w)
	d := r.decideLocked(w.c, now)
	r.mu.journal.keep(&d, w.c)
	if d.Outcome() == placement.IsFull {
		return r.refuseLocked(w.c, exhausted, "queue_timeout")
	}
	return r.refuseLocked(w.c, noWorker, engine.CodeNoWorker)
}

// nobodyLocked says why there is no worker for c. It names no address and no worker's
// own words, which are for those who run the cluster: see WorkerStats.Fault.
func (r *Router) nobodyLocked(c *call, model string) string {
	known := len(r.mu.list)
	switch {
	case known > 0 && r.mu.kinds.able(r.mu.kinds.rank(c)):
	case known > 0 && c.unable != nil:
		return fmt.Sprintf("none of the %d workers of model %s that are known can serve this request: %v", known, model, c.unable)
	case known > 0:
		return fmt.Sprintf("the answer cannot go on at any of the %d workers of model %s that are known: their engines would go on otherwise", known, model)
	}
	since := "there has been one all the time, but for this request" // it has just come, or has refused
	if !r.mu.without.IsZero() {
		since = fmt.Sprintf("none has answered for %v", time.Since(r.mu.without).Round(time.Second))
	}
	return fmt.Sprintf("no worker of model %s came up within %v: %s (%d are known); start one, or try again later", model, r.config.Wait, since, known)
}

// refuseLocked makes the error of a request that gets no worker.
func (r *Router) refuseLocked(c *call, o outcome, code string) error {
	r.countLocked(o)
	if mm := r.config.Metrics; mm != nil {
		mm.decisions[decidedNone].Inc()
	}
	name := cmp.Or(r.config.Model, c.q.Model)
	e := &dynamo.Error{Kind: dynamo.KindExhausted, Code: code, RetryAfter: retryAfter}
	model := name
	if c.q.Adapter != "" {
		model += " that have the adapter " + strconv.Quote(c.q.Adapter)
	}
	switch {
	case code == engine.CodeReplaced:
		e.Kind = dynamo.KindUnavailable
		e.Message = fmt.Sprintf("other workers serve model %s now, which answer otherwise than those that this request was for; send it again", name)
	case o == noWorker && c.q.Adapter != "":
		e.Kind = dynamo.KindUnavailable
		e.Message = fmt.Sprintf("no worker of model %s that has the adapter %q can be reached (%d are known, %d have it); load it into one, or try again later", name, c.q.Adapter, len(r.mu.list), r.havingLocked(c.q.Adapter))
	case o == noWorker:
		e.Kind, e.Message = dynamo.KindUnavailable, r.nobodyLocked(c, model)
	case code == "queue_full":
		e.Message = fmt.Sprintf("the workers of model %s are full and %d requests wait for them; try again later", model, r.mu.queue.n)
	default:
		e.Message = fmt.Sprintf("the workers of model %s stayed full for %v; try again later, or start more of them", model, r.config.Wait)
	}
	return e
}
