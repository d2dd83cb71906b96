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

// queue holds the requests that wait; placement.Queue says in which order they are
// tried. The timer wakes them when time alone may make room; it runs only while
// something waits and there is such a time.
type queue struct {
	*placement.Queue[*waiter]
	passed []*call // that wakeLocked has found no worker for because of what they are
	timer  *time.Timer
}

// waiter is a request in the queue. Whoever takes it out under the lock, its own
// goroutine or the one that books it, settles its fate.
type waiter struct {
	ticket placement.Ticket[*waiter]
	c      *call
	b      booking       // of a worker once it has a place
	turn   chan struct{} // closed when b or err is set
	err    error         // instead of b
}

// class is equal for requests that the same workers can take, as far as their
// adapters, pins and labels say; what else they are Decide finds out.
func (c *call) class() uint64 {
	g := c.q.Routing
	if a := c.lists; a != nil {
		plain := *c
		plain.lists = nil
		return placement.Hash(fmt.Sprintf("%v %v %v", plain.class(), a.Allowed, a.Excluded))
	}
	if g == nil || g.Worker == 0 && g.Rank == nil && len(g.RequiredLabels) == 0 {
		return placement.Hash(c.q.Adapter)
	}
	return placement.Hash(fmt.Sprintf("%q %v %v %q", c.q.Adapter, g.Worker, g.Rank != nil, g.RequiredLabels))
}

// work is about how many milliseconds a worker computes for a request, what the one
// that holds most of it holds left out.
func (c *call) work() float64 {
	tokens := len(c.q.Tokens) + len(c.q.Resume)
	return 1 + float64(max(tokens-c.look.most(), 0))*assumedTokenMillis
}

// ticket is a request's place in the queue.
func (r *Router) ticket(w *waiter) {
	q := w.c.q
	w.ticket = placement.Ticket[*waiter]{
		Value: w, Class: w.c.class(), Priority: q.Priority, Deadline: q.Deadline, Arrived: w.c.arrived, Patience: r.config.Wait, CostMS: w.c.work(),
	}
	if q.Routing != nil {
		w.ticket.Tenant, w.ticket.Band = q.Routing.Tenant, q.Routing.StrictPriority
	}
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
	w := &waiter{c: c, turn: make(chan struct{})}
	r.ticket(w)
	displaced, ok := q.Push(&w.ticket)
	if !ok {
		return nil, r.refuseLocked(c, exhausted, "queue_full")
	}
	if displaced != nil {
		o := displaced.Value
		o.err = r.refuseLocked(o.c, exhausted, "queue_full")
		close(o.turn)
	}
	r.waitingLocked()
	r.wakeLocked(now)
	if w.ticket.Queued() && (!now.Before(c.arrived.Add(r.config.Wait)) || r.config.Queue == 0) {
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
	return adapter == "" || r.mu.fleet.Len() == 0 || r.havingLocked(adapter) > 0
}

// havingLocked counts the workers that have an adapter.
func (r *Router) havingLocked(adapter string) (n int) {
	all := r.mu.fleet.Candidates()
	for i := range all {
		if slices.Contains(all[i].Adapters, adapter) {
			n++
		}
	}
	return n
}

// wait returns once w holds a place, or may wait no longer.
func (r *Router) wait(ctx context.Context, w *waiter) (booking, error) {
	engine.Placed(ctx, 0, nil)
	began := time.Now()
	until := w.ticket.Due()
	byDeadline := until.Equal(w.c.q.Deadline)
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
	if !w.ticket.Queued() {
		return w.b, w.err // if it is over as well, the worker's engine says so
	}
	if over == nil {
		r.wakeLocked(now)
		if !w.ticket.Queued() {
			return w.b, w.err
		}
		return booking{}, r.giveUpLocked(w, now)
	}
	r.leaveLocked(w)
	r.countLocked(abandoned)
	return booking{}, over
}

// wakeLocked books the requests that wait, in their order, as far as there is room.
func (r *Router) wakeLocked(now time.Time) {
	q := &r.mu.queue
	if q.Len() == 0 {
		return
	}
	var again time.Time
	q.passed = q.passed[:0]
	defer func() { clear(q.passed) }() // they are not kept from the collector
	q.Serve(now, func(t *placement.Ticket[*waiter]) placement.Attempt {
		w := t.Value
		if q.passedLocked(w.c, r.mu.kinds.rank(w.c)) {
			return placement.Passed
		}
		if w.c.look != nil {
			w.c.look.find()
		}
		d := r.decideLocked(w.c, now)
		if d.Winner != placement.None {
			w.b = r.bookLocked(w.c, &d)
			close(w.turn)
			return placement.Placed
		}
		if at := d.Next(); again.IsZero() || !at.IsZero() && at.Before(again) {
			again = at
		}
		switch {
		case d.Particular():
			if w.c.lists == nil {
				q.passed = append(q.passed, w.c)
			}
			return placement.Passed // another one that waits may have use for whom it has none
		case w.ticket.Class == 0:
			return placement.Over // nobody is fit for anything
		}
		return placement.Blocked
	})
	r.waitingLocked()
	if q.Len() > 0 {
		r.armLocked(again, now)
	} else if q.timer != nil {
		q.timer.Stop()
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

// leaveLocked takes w out of the queue.
func (r *Router) leaveLocked(w *waiter) {
	q := &r.mu.queue
	q.Remove(&w.ticket)
	r.waitingLocked()
	if q.Len() == 0 && q.timer != nil {
		q.timer.Stop()
	}
}

// waitingLocked publishes the length of the queue.
func (r *Router) waitingLocked() {
	if mm := r.config.Metrics; mm != nil {
		mm.waiting.Add(float64(r.mu.queue.Len() - r.mu.stats.Waiting))
	}
	r.mu.stats.Waiting = r.mu.queue.Len()
}

// Retire refuses all that wait and all that come: others serve the name now, with
// a Router of their own.
func (r *Router) Retire() {
	defer r.prefixes.close() // once the lock is free
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.retired = true
	var all []*waiter
	r.mu.queue.All(func(t *placement.Ticket[*waiter]) { all = append(all, t.Value) })
	for _, w := range all {
		w.err = r.refuseLocked(w.c, noWorker, engine.CodeReplaced)
		r.leaveLocked(w)
		close(w.turn)
	}
}

// Close takes the router's index out of the gauges, which it shares with other routers,
// when it is to serve no more. Requests in progress go on, and count until they end.
func (r *Router) Close() { r.prefixes.close() }

// giveUpLocked ends the wait of w, which no worker can take.
func (r *Router) giveUpLocked(w *waiter, now time.Time) error {
	r.leaveLocked(w)
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

// retryLocked is when a request that is refused may come again.
func (r *Router) retryLocked(c *call) time.Duration {
	if r.mu.queue.Len() == 0 {
		return retryAfter
	}
	tenant, band := "", 0
	if g := c.q.Routing; g != nil {
		tenant, band = g.Tenant, g.StrictPriority
	}
	return r.mu.queue.RetryAfter(tenant, band, time.Now(), retryAfter)
}

// refuseLocked makes the error of a request that gets no worker.
func (r *Router) refuseLocked(c *call, o outcome, code string) error {
	r.countLocked(o)
	if mm := r.config.Metrics; mm != nil {
		mm.decisions[decidedNone].Inc()
	}
	name := cmp.Or(r.config.Model, c.q.Model)
	e := &dynamo.Error{Kind: dynamo.KindExhausted, Code: code, RetryAfter: r.retryLocked(c)}
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
		e.Message = fmt.Sprintf("the workers of model %s are full and %d requests wait for them; try again later", model, r.mu.queue.Len())
	default:
		e.Message = fmt.Sprintf("the workers of model %s stayed full for %v; try again later, or start more of them", model, r.config.Wait)
	}
	return e
}
