package router

import (
	"context"
	"fmt"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/router/placement"
)

// queue holds the requests that wait, first come first served. The timer wakes
// them when time alone may make room; it runs only while something waits and there
// is such a time.
type queue struct {
	head, tail *waiter
	n          int
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
}

// queueLocked makes c wait, finds it a place after all, or refuses it.
func (r *Router) queueLocked(c *call, now time.Time) (*waiter, error) {
	// Who refused it is held for a moment anyway; after that it may have room.
	c.excluded = c.excluded[:0]
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
	r.waitingLocked()
	r.wakeLocked(now)
	if w.queued && (!now.Before(c.arrived.Add(r.config.Wait)) || r.config.Queue == 0) {
		return nil, r.giveUpLocked(w, now)
	}
	return w, nil
}

// wait returns once w holds a place, or may wait no longer.
func (r *Router) wait(ctx context.Context, w *waiter) (booking, error) {
	engine.Placed(ctx, 0)
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
		return w.b, nil // if it is over as well, the worker's engine says so
	}
	if over == nil {
		r.wakeLocked(now)
		if !w.queued {
			return w.b, nil
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
	for q.head != nil {
		w := q.head
		d := r.decideLocked(w.c, now)
		if d.Winner == placement.None {
			r.armLocked(d.Next(), now)
			return
		}
		r.mu.records.keep(&d)
		w.b = r.bookLocked(w.c, &d)
		r.unlinkLocked(w)
		close(w.turn)
	}
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

// giveUpLocked ends the wait of w, which no worker can take.
func (r *Router) giveUpLocked(w *waiter, now time.Time) error {
	r.unlinkLocked(w)
	d := r.decideLocked(w.c, now)
	r.mu.records.keep(&d)
	if d.Outcome() == placement.IsFull {
		return r.refuseLocked(w.c, exhausted, "queue_timeout")
	}
	return r.refuseLocked(w.c, noWorker, engine.CodeNoWorker)
}

// refuseLocked makes the error of a request that gets no worker.
func (r *Router) refuseLocked(c *call, o outcome, code string) error {
	r.countLocked(o)
	if mm := r.config.Metrics; mm != nil {
		mm.decisions[decidedNone].Inc()
	}
	model := r.config.Model
	if model == "" {
		model = c.q.Model
	}
	e := &dynamo.Error{Kind: dynamo.KindExhausted, Code: code, RetryAfter: retryAfter}
	switch {
	case o == noWorker:
		e.Kind = dynamo.KindUnavailable
		e.Message = fmt.Sprintf("no worker of model %s came up within %v (%d are known); start one, or try again later", model, r.config.Wait, len(r.mu.list))
	case code == "queue_full":
		e.Message = fmt.Sprintf("the workers of model %s are full and %d requests wait for them; try again later", model, r.mu.queue.n)
	default:
		e.Message = fmt.Sprintf("the workers of model %s stayed full for %v; try again later, or start more of them", model, r.config.Wait)
	}
	return e
}
