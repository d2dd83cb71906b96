package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Options of one transfer.
type Options struct {
	// Notify is told to the peer when the bytes are in place, after what earlier
	// posts to it notify. Nil: nothing; empty is told. It is not copied.
	Notify []byte
	// Acknowledge ends the leases of the remote descriptors when the transfer is
	// done, before the notification.
	Acknowledge bool
	// Checksum compares what left one memory with what is in the other: byte by byte
	// where both are mapped, by the XXH3-64 of each segment over a connection. Where
	// they differ the transfer ends with KindCorrupt.
	Checksum bool
	// Deadline ends the transfer. Zero: Config.Timeout from the post on.
	Deadline time.Time
}

// Transfer is one post of a list.
type Transfer struct {
	a     *Agent
	list  *List
	op    Op
	opt   Options
	note  *note // nil if nothing is told
	done  chan struct{}
	timer *time.Timer // of a begun one

	mu struct {
		sync.Mutex
		stop   func(cause error) // what cancelling does; nil: nothing yet
		free   func()            // lets go of a timer
		asked  error             // why it was cancelled
		ended  bool
		err    error
		path   Path
		posted time.Time
		took   time.Duration
	}
}

// Stats describes a transfer.
type Stats struct {
	Path     Path // that moved it, or is at it
	Bytes    int64
	Segments int
	Duration time.Duration // from the post to the end; 0 until then
}

// closed is the Done of transfers that ended within Post.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Post begins a transfer and returns before it is done, unless it is so small that
// it is copied at once. A transfer that is refused here has no effect.
func (a *Agent) Post(l *List, op Op, o Options) (*Transfer, error) {
	if l == nil || l.peer.a != a || op > Write {
		return nil, invalid("the list was not prepared by this agent, or the direction is none")
	}
	if len(o.Notify) > MaxNotifyBytes {
		return nil, invalid("a notification of %d bytes; %d are possible", len(o.Notify), MaxNotifyBytes)
	}
	t := &Transfer{a: a, list: l, op: op, opt: o, done: closed}
	t.mu.posted = time.Now()
	if err := l.hold(); err != nil {
		return nil, err
	}
	if o.Notify != nil || o.Acknowledge {
		var err error
		if t.note, err = l.peer.notes.reserve(o, l); err != nil {
			l.unhold()
			return nil, err
		}
	}
	late := !o.Deadline.IsZero() && !t.mu.posted.Before(o.Deadline)
	if l.bytes <= inlineBytes && !late && a.inline(t) {
		return t, nil
	}
	if err := a.start(t); err != nil {
		l.unhold()
		l.peer.notes.drop(t.note)
		return nil, err
	}
	return t, nil
}

// hold keeps the local memories of a list.
func (l *List) hold() error {
	for i, m := range l.locals {
		if !m.hold() {
			for _, h := range l.locals[:i] {
				h.unhold()
			}
			return coded(dynamo.KindNotFound, CodeMemory, "memory %q was deregistered; prepare the list anew", m.name)
		}
	}
	return nil
}

func (l *List) unhold() {
	for _, m := range l.locals {
		m.unhold()
	}
}

// inline does a small transfer within Post, if a rail can.
func (a *Agent) inline(t *Transfer) bool {
	j := job{t.list, t.op, t.opt.Checksum}
	for _, r := range t.list.peer.rails {
		if !r.serves(t.list.media[0], t.list.media[1]) {
			continue
		}
		t.mu.path = r.path
		switch r := r.rail.(type) {
		case inliner:
			if !a.running() {
				return false
			}
			done, err := r.inline(&j)
			if done {
				t.end(err)
			}
			return done
		case beginner:
			return a.begin(t, &j, r)
		}
		return false
	}
	return false
}

// begin sends a small transfer within Post, if the rail can.
func (a *Agent) begin(t *Transfer, j *job, r beginner) bool {
	deadline := t.deadline()
	left := deadline.Sub(t.mu.posted)
	if left <= 0 || !a.enlist(t) {
		return false
	}
	t.done = make(chan struct{})
	t.timer = time.AfterFunc(left, func() { t.cancel(errLate) })
	if r.begin(t, j) {
		return true
	}
	t.timer.Stop()
	t.stoppable(nil, nil)
	a.delist(t)
	return false
}

// enlist counts a transfer among the live ones.
func (a *Agent) enlist(t *Transfer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.state != stateRunning || len(a.mu.live) >= a.cfg.MaxActive+a.cfg.MaxQueued {
		return false
	}
	a.mu.live[t] = struct{}{}
	a.count.active.Inc()
	return true
}

func (a *Agent) delist(t *Transfer) {
	a.mu.Lock()
	delete(a.mu.live, t)
	a.mu.Unlock()
	a.count.active.Dec()
}

func (a *Agent) running() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.state == stateRunning
}

// settle ends a transfer that begin sent, once, or lets the next rail take it over.
func (t *Transfer) settle(err error) {
	t.timer.Stop()
	if err == nil || !another(err) {
		t.over(err)
		return
	}
	t.a.count.retries[t.mu.path].Inc()
	within, expire := context.WithDeadline(context.Background(), t.deadline())
	ctx, cancel := context.WithCancelCause(within)
	t.stoppable(cancel, expire)
	if !t.a.spawn(func() { t.run(ctx) }) {
		t.over(errStopped)
	}
}

func (t *Transfer) deadline() time.Time {
	if t.opt.Deadline.IsZero() {
		return t.mu.posted.Add(t.a.cfg.Timeout)
	}
	return t.opt.Deadline
}

// start begins a transfer, or puts it into the queue.
func (a *Agent) start(t *Transfer) error {
	within, expire := context.WithDeadline(context.Background(), t.deadline())
	ctx, cancel := context.WithCancelCause(within)
	t.done = make(chan struct{})
	t.stoppable(cancel, expire)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.mu.state != stateRunning:
		expire()
		return errStopped
	case a.mu.active < a.cfg.MaxActive:
		a.mu.active++
		a.wg.Go(func() {
			for f := func() { t.run(ctx) }; f != nil; f = a.next() {
				f()
			}
		})
	case len(a.mu.queue) >= a.cfg.MaxQueued:
		expire()
		return &dynamo.Error{Kind: dynamo.KindExhausted, Message: "the agent has as many transfers waiting as it may; wait for some, or post larger lists"}
	default:
		a.mu.queue = append(a.mu.queue, queued{t, func() { t.run(ctx) }})
		context.AfterFunc(ctx, func() { a.unqueue(t, ctx) })
	}
	a.mu.live[t] = struct{}{}
	a.count.active.Inc()
	return nil
}

// queued is a transfer that waits for its turn.
type queued struct {
	t     *Transfer
	begin func()
}

// next takes what a goroutine that has ended a transfer does next.
func (a *Agent) next() func() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.mu.queue) == 0 {
		a.mu.active--
		return nil
	}
	q := a.mu.queue[0]
	a.mu.queue[0] = queued{}
	a.mu.queue = a.mu.queue[1:]
	return q.begin
}

// unqueue ends a transfer whose time is over before its turn has come.
func (a *Agent) unqueue(t *Transfer, ctx context.Context) {
	a.mu.Lock()
	i := slices.IndexFunc(a.mu.queue, func(q queued) bool { return q.t == t })
	if i >= 0 {
		a.mu.queue = slices.Delete(a.mu.queue, i, i+1)
	}
	a.mu.Unlock()
	if i >= 0 {
		t.over(ended(ctx))
	}
}

// run is an active transfer.
func (t *Transfer) run(ctx context.Context) { t.over(t.attempt(ctx)) }

// attempt tries the peer's rails, those that have just failed last.
func (t *Transfer) attempt(ctx context.Context) error {
	j := &job{t.list, t.op, t.opt.Checksum}
	now := time.Now()
	var failures []error
	for _, second := range []bool{false, true} {
		for _, r := range t.list.peer.rails {
			if r.resting(now) != second || !r.serves(t.list.media[0], t.list.media[1]) {
				continue
			}
			if ctx.Err() != nil {
				return ended(ctx)
			}
			t.by(r.path)
			err := r.move(ctx, j)
			switch {
			case err == nil:
				return nil
			case ctx.Err() != nil:
				return ended(ctx)
			case !another(err):
				return err
			}
			t.a.count.retries[r.path].Inc()
			r.rest(time.Now())
			failures = append(failures, fmt.Errorf("by %s: %w", r.path, err))
			if len(failures) > 1 {
				failures = []error{fmt.Errorf("%w; %w", failures[0], failures[1])} // one line
			}
		}
	}
	return lost(errors.Join(failures...), "no path to %q is left", t.list.peer.Name())
}

func (t *Transfer) by(p Path) {
	t.mu.Lock()
	t.mu.path = p
	t.mu.Unlock()
}

// over ends a transfer that is enlisted.
func (t *Transfer) over(err error) {
	t.a.delist(t)
	t.end(err)
}

// end settles a transfer, once. What the peer waits for comes before what is counted
// here; and before everything where nobody can wait here yet.
func (t *Transfer) end(err error) {
	within := t.done == closed
	if within && err == nil {
		t.list.peer.notes.ready(t.note)
	}
	t.list.unhold()
	t.mu.Lock()
	t.mu.ended, t.mu.err, t.mu.took = true, err, time.Since(t.mu.posted)
	path, free := t.mu.path, t.mu.free
	t.mu.Unlock()
	if !within {
		close(t.done)
	}
	if free != nil {
		free()
	}
	if err != nil {
		t.a.count.failures[dynamo.KindOf(err)].Inc()
		t.list.peer.notes.drop(t.note)
		return
	}
	if !within {
		t.list.peer.notes.ready(t.note)
	}
	t.a.count.transfers[path][t.op].Inc()
	t.a.count.bytes[path][t.op].Add(float64(t.list.bytes))
}

// stoppable says how the transfer is cancelled from here on.
func (t *Transfer) stoppable(stop func(cause error), free func()) {
	t.mu.Lock()
	t.mu.stop, t.mu.free = stop, free
	asked := t.mu.asked
	t.mu.Unlock()
	if asked != nil && stop != nil {
		stop(asked)
	}
}

func (t *Transfer) cancel(cause error) {
	t.mu.Lock()
	if t.mu.asked == nil {
		t.mu.asked = cause
	}
	stop, over := t.mu.stop, t.mu.ended
	t.mu.Unlock()
	if stop != nil && !over {
		stop(cause)
	}
}

// Done is closed when the transfer has ended. From then on it touches no local
// memory; what it may have left on the way to the peer's, the peer's fence refuses
// once the lease has ended.
func (t *Transfer) Done() <-chan struct{} { return t.done }

// Poll reports whether the transfer has ended, and how.
func (t *Transfer) Poll() (ended bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.mu.ended, t.mu.err
}

// Wait waits for the end of the transfer and returns its error, or for the end of
// ctx, which does not end the transfer.
func (t *Transfer) Wait(ctx context.Context) error {
	select {
	case <-t.done:
	default:
		select {
		case <-t.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	_, err := t.Poll()
	return err
}

// Cancel asks the transfer to end; it has ended when Done is closed. One that is
// done stays done.
func (t *Transfer) Cancel() { t.cancel(errCancelled) }

// Stats describes the transfer so far.
func (t *Transfer) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{t.mu.path, t.list.bytes, len(t.list.segments), t.mu.took}
}
