package engine

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
)

// AdmitConfig says how many requests an Admit lets through and how many it keeps
// waiting.
type AdmitConfig struct {
	// MaxRunning is the number of requests in progress at once. Default 256.
	MaxRunning int
	// MaxQueue is the number of requests that wait for their turn; one more is
	// refused with KindExhausted. 0 refuses whenever MaxRunning are in progress.
	// Default 1024.
	MaxQueue int
	// MaxWait is the longest a request waits for its turn before it is refused
	// with KindExhausted; 0 waits as long as the request's own deadline allows.
	// Default 1 minute.
	MaxWait time.Duration
}

// DefaultAdmitConfig returns the defaults.
func DefaultAdmitConfig() AdmitConfig {
	return AdmitConfig{MaxRunning: 256, MaxQueue: 1024, MaxWait: time.Minute}
}

// Validate reports all faults at once.
func (c AdmitConfig) Validate() error {
	var faults []error
	if c.MaxRunning < 1 {
		faults = append(faults, fmt.Errorf("--max-running is %d; it must be 1 or more", c.MaxRunning))
	}
	if c.MaxQueue < 0 {
		faults = append(faults, fmt.Errorf("--max-queue is %d; it must be 0 or more", c.MaxQueue))
	}
	if c.MaxWait < 0 {
		faults = append(faults, fmt.Errorf("--max-wait is %v; it must be 0 (no limit) or more", c.MaxWait))
	}
	return errors.Join(faults...)
}

// AdmitStats are the exact counts of an Admit. Every request it was asked for is
// in exactly one of Running, Queued, Done, and the four ways of not being let
// through.
type AdmitStats struct {
	// Running and Queued are the requests in progress and waiting at the moment.
	Running, Queued int
	// Done counts requests that were let through and have ended, well or not.
	Done uint64
	// RejectedFull met a full queue, RejectedWait waited for MaxWait,
	// RejectedDraining came while draining.
	RejectedFull, RejectedWait, RejectedDraining uint64
	// Abandoned were cancelled, or met their own deadline, while they waited.
	Abandoned uint64
}

// Admit is an Engine that lets at most MaxRunning requests through to the next
// one and keeps MaxQueue more waiting, first come first served. It holds no
// goroutine: requests wait in their callers'. A request counts as one whatever
// its N.
type Admit struct {
	next   Engine
	config AdmitConfig

	mu struct {
		sync.Mutex
		stats      AdmitStats
		head, tail *waiter // the queue; its length is stats.Queued
		draining   bool
		drained    chan struct{} // closed when draining and nothing is left; nil until Drain
		service    time.Duration // moving average of the time a request runs
	}
}

var _ Engine = (*Admit)(nil)

// waiter is a request in the queue. Whoever takes it out of the queue under the
// lock, its own goroutine or the one that hands it a place, settles its fate.
type waiter struct {
	turn       chan struct{} // closed when it holds a place
	prev, next *waiter
	queued     bool
}

// NewAdmit returns an Admit in front of next.
func NewAdmit(next Engine, c AdmitConfig) (*Admit, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Admit{next: next, config: c}, nil
}

// Generate implements Engine.
func (a *Admit) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		if err := a.enter(ctx, r); err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		began := time.Now()
		defer func() { a.leave(time.Since(began)) }()
		for chunk, err := range a.next.Generate(ctx, r) {
			if !yield(chunk, err) {
				return
			}
		}
	}
}

// Stats returns the counts of this moment.
func (a *Admit) Stats() AdmitStats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.stats
}

// Drain refuses new requests from now on with KindUnavailable and returns when
// those in progress and those waiting have ended, or ctx does, with an error that
// says how many are left. It may be called again to wait longer.
func (a *Admit) Drain(ctx context.Context) error {
	a.mu.Lock()
	a.mu.draining = true
	if a.mu.drained == nil {
		a.mu.drained = make(chan struct{})
		a.finishDrainLocked()
	}
	drained := a.mu.drained
	a.mu.Unlock()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
	}
	s := a.Stats()
	return fmt.Errorf("drain with %d requests in progress and %d waiting: %w", s.Running, s.Queued, context.Cause(ctx))
}

// enter returns nil once the request holds a place.
func (a *Admit) enter(ctx context.Context, r *dynamo.Request) error {
	if err := a.ended(ctx, r); err != nil {
		return err
	}
	w, err := a.placeOrQueue()
	if w == nil || err != nil {
		return err
	}
	return a.wait(ctx, r, w)
}

// ended refuses a request that is over before it begins.
func (a *Admit) ended(ctx context.Context, r *dynamo.Request) error {
	var err error
	switch {
	case ctx.Err() != nil:
		err = ContextError(ctx)
	case !r.Deadline.IsZero() && !time.Now().Before(r.Deadline):
		err = DeadlineError(nil)
	default:
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.stats.Abandoned++
	return err
}

// placeOrQueue takes a place (and returns nothing), queues (and returns the
// waiter), or refuses.
func (a *Admit) placeOrQueue() (*waiter, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.mu.stats
	switch {
	case a.mu.draining:
		s.RejectedDraining++
		return nil, &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the server is shutting down and takes no new requests; send this one elsewhere or later", RetryAfter: retryMin}
	case s.Running < a.config.MaxRunning:
		s.Running++
		return nil, nil
	case s.Queued >= a.config.MaxQueue:
		s.RejectedFull++
		return nil, &dynamo.Error{
			Kind: dynamo.KindExhausted, Code: "queue_full", RetryAfter: a.retryAfterLocked(),
			Message: fmt.Sprintf("the server is full: %d requests are in progress and %d wait; try again later", s.Running, s.Queued),
		}
	}
	w := &waiter{turn: make(chan struct{}), prev: a.mu.tail, queued: true}
	if w.prev == nil {
		a.mu.head = w
	} else {
		w.prev.next = w
	}
	a.mu.tail = w
	s.Queued++
	return w, nil
}

// wait returns nil once w holds a place.
func (a *Admit) wait(ctx context.Context, r *dynamo.Request, w *waiter) error {
	var timeout <-chan time.Time
	limit, byDeadline := a.config.MaxWait, false
	if !r.Deadline.IsZero() {
		if left := time.Until(r.Deadline); limit == 0 || left < limit {
			limit, byDeadline = max(left, 0), true
		}
	}
	if limit > 0 || byDeadline {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-w.turn:
		return nil
	case <-ctx.Done():
		a.abandon(w, func(s *AdmitStats) { s.Abandoned++ })
		return ContextError(ctx)
	case <-timeout:
	}
	if byDeadline {
		a.abandon(w, func(s *AdmitStats) { s.Abandoned++ })
		return DeadlineError(nil)
	}
	retry := a.abandon(w, func(s *AdmitStats) { s.RejectedWait++ })
	return &dynamo.Error{
		Kind: dynamo.KindExhausted, Code: "queue_timeout", RetryAfter: retry,
		Message: fmt.Sprintf("the request waited %v for its turn; the server is overloaded, try again later", a.config.MaxWait),
	}
}

// abandon takes w out of the queue, or gives back the place it was handed in the
// same moment, and returns a hint when to come again.
func (a *Admit) abandon(w *waiter, count func(*AdmitStats)) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	count(&a.mu.stats)
	if w.queued {
		a.unlinkLocked(w)
	} else {
		a.vacateLocked()
	}
	a.finishDrainLocked()
	return a.retryAfterLocked()
}

// leave ends a request that ran for the given time.
func (a *Admit) leave(ran time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.service == 0 {
		a.mu.service = ran
	}
	a.mu.service += (ran - a.mu.service) / 8
	a.mu.stats.Done++
	a.vacateLocked()
	a.finishDrainLocked()
}

// vacateLocked hands a place to the first waiter, or frees it.
func (a *Admit) vacateLocked() {
	w := a.mu.head
	if w == nil {
		a.mu.stats.Running--
		return
	}
	a.unlinkLocked(w)
	close(w.turn)
}

func (a *Admit) unlinkLocked(w *waiter) {
	if w.prev == nil {
		a.mu.head = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		a.mu.tail = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next, w.queued = nil, nil, false
	a.mu.stats.Queued--
}

func (a *Admit) finishDrainLocked() {
	if a.mu.drained == nil || a.mu.stats.Running+a.mu.stats.Queued > 0 {
		return
	}
	select {
	case <-a.mu.drained:
	default:
		close(a.mu.drained)
	}
}

// retryAfterLocked estimates when a place is free: the time the queue takes to
// empty at the average pace, within retryMin and retryMax.
func (a *Admit) retryAfterLocked() time.Duration {
	rounds := float64(a.mu.stats.Queued+1) / float64(a.config.MaxRunning)
	estimate := time.Duration(rounds * float64(a.mu.service))
	return min(max(estimate.Round(time.Second), retryMin), retryMax)
}
