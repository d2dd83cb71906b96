package sched

import (
	"container/heap"
	"fmt"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo/kvbm"
)

// Scheduler is the state machine. See the package comment. It is not safe for
// concurrent use.
type Scheduler struct {
	config Config
	pool   *kvbm.Pool
	epoch  time.Time // the first time it was told; ranks count from it
	orders uint64    // arrivals so far

	live      map[ID]*sequence // every sequence that has not ended
	waiting   waitQueue
	deadlines deadlines
	// running holds the sequences with blocks, in order; ended ones stay until
	// what they have in flight is back.
	running []*sequence
	spare   []*sequence
	// deferred are those passed over in the step being formed.
	deferred []*sequence

	batch    Batch
	flight   []*sequence // the sequences of batch.Entries
	inFlight bool
	budget   int // tokens left in the step being formed
	stretch  stretch

	actions []Action
	expired []kvbm.LeaseID
	stats   Stats
}

// New returns a scheduler with an empty pool.
func New(c Config) (*Scheduler, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configure the scheduler: %w", err)
	}
	pool, err := kvbm.New(c.pool())
	if err != nil {
		return nil, fmt.Errorf("make the KV pool: %w", err)
	}
	return &Scheduler{config: c, pool: pool, live: map[ID]*sequence{}}, nil
}

// Config returns what the scheduler was made with.
func (s *Scheduler) Config() Config { return s.config }

// Submit takes a request into the queue. It refuses, as a *dynamo.Error, what can
// never run (KindInvalid, with both numbers) and what exceeds the queue
// (KindExhausted). An id in use, by a sequence or a lease, panics.
func (s *Scheduler) Submit(r Request, now time.Time) error {
	s.settle()
	s.actions = s.actions[:0]
	if s.live[r.ID] != nil || s.pool.Leased(kvbm.LeaseID(r.ID)) {
		panic("BUG: sched: two sequences with one id")
	}
	if err := s.refuse(&r); err != nil {
		s.stats.Refused++
		return err
	}
	if s.epoch.IsZero() {
		s.epoch = now
	}
	q := s.unused()
	q.start(&r, &s.config)
	q.rank, q.order = s.rank(r.Priority, now), s.orders
	s.orders++
	s.live[q.id] = q
	heap.Push(&s.waiting, q)
	if !q.deadline.IsZero() {
		heap.Push(&s.deadlines, q)
	}
	s.stats.Accepted++
	return nil
}

// rank is a place in the order of all sequences: the time of arrival, less what
// the priority is worth. Since all age alike it does not change with time.
func (s *Scheduler) rank(priority int, now time.Time) int64 {
	p := int64(min(max(priority, -MaxPriority), MaxPriority))
	if s.config.Aging == 0 {
		return -p
	}
	return int64(now.Sub(s.epoch)) - p*int64(s.config.Aging)
}

// Cancel ends a sequence. One that has ended already is left alone.
func (s *Scheduler) Cancel(id ID, now time.Time) []Action {
	s.settle()
	s.actions = s.actions[:0]
	if q := s.live[id]; q != nil {
		s.end(q, ReasonCancelled)
	}
	return s.actions
}

// KVArrived reports that the copies of a Load have ended well.
func (s *Scheduler) KVArrived(id ID, now time.Time) []Action {
	s.actions = s.actions[:0]
	q := s.loading(id)
	for _, b := range q.loading {
		h, _ := s.pool.Arrived(b, q.content(len(q.held)), q.last())
		q.held = append(q.held, h)
	}
	q.loading = q.loading[:0]
	// The last of what was brought may lie in a block that is not full.
	q.computed = max(len(q.held)*s.config.BlockSize, q.external)
	q.phase, q.arriving = phaseRunning, false
	switch {
	case q.ended && q.inFlight > 0: // Done drops it
	case q.ended:
		s.drop(q)
	case q.lends:
		s.finish(q, now)
	}
	return s.actions
}

// KVFailed reports that the copies of a Load have ended otherwise, and write no
// more. The sequence waits for its turn to compute what they should have brought.
func (s *Scheduler) KVFailed(id ID, now time.Time) []Action {
	s.actions = s.actions[:0]
	q := s.loading(id)
	s.stats.LoadsFailed++
	if q.inFlight > 0 {
		s.void(q)
	} else if q.ended {
		s.drop(q)
		return s.actions
	}
	if q.lends {
		s.lendRest(q, now)
		return s.actions
	}
	q.external = 0
	q.asks = max(q.asks-1, 0)
	if q.void { // Done lets it wait
		return s.actions
	}
	q.arriving = false
	s.requeue(q)
	return s.actions
}

// loading finds the sequence of a Load; it may have ended.
func (s *Scheduler) loading(id ID) *sequence {
	i := slices.IndexFunc(s.running, func(q *sequence) bool { return q.id == id && q.phase == phaseLoading })
	if i < 0 {
		panic("BUG: sched: a report about KV that is not being loaded")
	}
	return s.running[i]
}

// EndLease releases the KV kept for a sequence. A lease that has ended already is
// left alone.
func (s *Scheduler) EndLease(id ID, now time.Time) []Action {
	s.actions = s.actions[:0]
	if s.pool.EndLease(kvbm.LeaseID(id)) {
		s.act(Action{Kind: LeaseEnded, ID: id})
	}
	return s.actions
}

// Yield ends a running sequence, between two steps, with its answer incomplete, and keeps
// its KV for so long. One that is not running, or of which nothing is computed, is left
// alone.
func (s *Scheduler) Yield(id ID, hold time.Duration, now time.Time) []Action {
	s.settle()
	s.actions = s.actions[:0]
	if q := s.live[id]; q != nil && q.phase == phaseRunning && q.inFlight == 0 && q.computed > 0 {
		q.hold = hold
		s.finish(q, now)
	}
	return s.actions
}

// ClearCache forgets all KV that no sequence and no lease holds.
func (s *Scheduler) ClearCache() {
	s.actions = s.actions[:0]
	s.pool.Clear()
}

// Events returns the KV events since the last call, if Config.Events.
func (s *Scheduler) Events() []kvbm.Event { return s.pool.Events() }

// NextWake is the earliest time at which Next would act without any event: the
// first deadline or lease expiry. It reports false when there is none.
func (s *Scheduler) NextWake() (time.Time, bool) {
	at, ok := s.pool.NextExpiry()
	if len(s.deadlines) > 0 {
		if first := s.deadlines[0].deadline; !ok || first.Before(at) {
			at, ok = first, true
		}
	}
	return at, ok
}

// end ends a live sequence. What it has in flight keeps its blocks until it is
// back.
func (s *Scheduler) end(q *sequence, why Reason) {
	s.act(Action{Kind: Ended, ID: q.id, Ref: q.ref, Reason: why})
	s.stats.Ended[why]++
	delete(s.live, q.id)
	s.waiting.remove(q)
	s.deadlines.remove(q)
	q.ended = true
	switch {
	case q.phase == phaseWaiting:
		s.recycle(q)
	case q.phase == phaseRunning && q.inFlight == 0:
		s.drop(q)
	}
}

// drop takes an ended sequence that has nothing in flight out of the running.
func (s *Scheduler) drop(q *sequence) {
	s.unrun(q)
	q.release(s.pool)
	s.recycle(q)
}

// requeue takes the blocks of a running sequence and lets it wait again.
func (s *Scheduler) requeue(q *sequence) {
	s.unrun(q)
	q.release(s.pool)
	q.phase, q.blockedAt = phaseWaiting, -1
	heap.Push(&s.waiting, q)
}

// run puts q among the running.
func (s *Scheduler) run(q *sequence) {
	at, _ := slices.BinarySearchFunc(s.running, q, compare)
	s.running = slices.Insert(s.running, at, q)
}

// unrun takes q out of the running.
func (s *Scheduler) unrun(q *sequence) {
	at, ok := slices.BinarySearchFunc(s.running, q, compare)
	if !ok {
		panic("BUG: sched: a running sequence is not among the running")
	}
	s.running = slices.Delete(s.running, at, at+1)
}

// unused returns a sequence to start.
func (s *Scheduler) unused() *sequence {
	if last := len(s.spare) - 1; last >= 0 {
		q := s.spare[last]
		s.spare = s.spare[:last]
		return q
	}
	return new(sequence)
}

// recycle keeps the buffers of an ended sequence for another.
func (s *Scheduler) recycle(q *sequence) {
	q.ref = nil
	if len(s.spare) < s.config.MaxRunning && q.chain.Len() <= maxSpareTokens {
		s.spare = append(s.spare, q)
	}
}

// act adds an action.
func (s *Scheduler) act(a Action) { s.actions = append(s.actions, a) }
