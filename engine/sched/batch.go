package sched

import (
	"container/heap"
	"slices"
	"time"
)

// Next forms the next batch, or nil if there is nothing to compute, after ending
// what is due at now. There must be no batch in flight.
func (s *Scheduler) Next(now time.Time) (*Batch, []Action) {
	if s.inFlight {
		panic("BUG: sched: Next with a batch in flight")
	}
	s.settle()
	s.actions = s.actions[:0]
	s.expire(now)
	clear(s.batch.Entries)
	s.batch.Entries, s.batch.Tokens, s.flight = s.batch.Entries[:0], 0, s.flight[:0]
	s.budget = s.config.StepTokens
	preempted := s.decode()
	s.prefill()
	if !preempted {
		s.admit()
	}
	if len(s.batch.Entries) == 0 {
		return nil, s.actions
	}
	s.inFlight = true
	s.stats.Steps++
	s.stats.Tokens += uint64(s.batch.Tokens)
	return &s.batch, s.actions
}

// expire ends the sequences and leases whose time has come.
func (s *Scheduler) expire(now time.Time) {
	for len(s.deadlines) > 0 && !s.deadlines[0].deadline.After(now) {
		s.end(s.deadlines[0], ReasonDeadline)
	}
	s.expired = s.pool.ExpireLeases(s.expired[:0], now)
	for _, id := range s.expired {
		s.act(Action{Kind: LeaseEnded, ID: ID(id)})
	}
}

// decode schedules the sequences that need one token computed, and reports
// whether any had to be preempted for it. It begins at the end of the order at which
// none is preempted before the others, so that nobody in the batch is.
func (s *Scheduler) decode() (preempted bool) {
	if s.config.PreemptFirst {
		return s.decodeBackward()
	}
	for i := 0; i < len(s.running); {
		q := s.running[i]
		if q.computes() && q.remaining() == 1 {
			if !s.room(q, &preempted) {
				continue
			}
			s.add(q, 1)
		}
		i++
	}
	return preempted
}

// decodeBackward is decode from the last to the first.
func (s *Scheduler) decodeBackward() (preempted bool) {
	for i := len(s.running) - 1; i >= 0; i-- {
		q, before := s.running[i], len(s.running)
		if !q.computes() || q.remaining() != 1 {
			continue
		}
		if s.room(q, &preempted) {
			s.add(q, 1)
			i -= before - len(s.running) // those that went were before q
		} else {
			i -= before - len(s.running) - 1 // and q itself
		}
	}
	return preempted
}

// room sees to it that q has a block for its next token, at the cost of those
// that decode comes to later. It reports false when q itself had to go.
func (s *Scheduler) room(q *sequence, preempted *bool) bool {
	if q.computed < len(q.table)*s.config.BlockSize {
		return true
	}
	for !q.grow(s.pool) {
		v := s.victim()
		*preempted = true
		s.stats.Preemptions++
		s.act(Action{Kind: Preempted, ID: v.id, Ref: v.ref})
		s.requeue(v)
		if v == q {
			return false
		}
	}
	return true
}

// victim is the last of the running whose blocks can be taken, or the first with
// PreemptFirst. Those it passes over are being copied into. The sequence that asks
// can always be taken itself, and whoever is between is not in the batch yet.
func (s *Scheduler) victim() *sequence {
	if s.config.PreemptFirst {
		for _, q := range s.running {
			if q.phase == phaseRunning {
				return q
			}
		}
	}
	for _, q := range slices.Backward(s.running) {
		if q.phase == phaseRunning {
			return q
		}
	}
	panic("BUG: sched: nobody to preempt")
}

// prefill schedules chunks of the prompts under way.
func (s *Scheduler) prefill() {
	for _, q := range s.running {
		if s.budget == 0 {
			return
		}
		if q.computes() && q.inFlight == 0 && s.mayCompute(q) {
			s.add(q, min(q.remaining(), s.budget))
		}
	}
}

// mayCompute reports whether what is left of the step will do for q's prompt.
func (s *Scheduler) mayCompute(q *sequence) bool {
	return !s.config.WholePrompts || q.remaining() <= s.budget
}

// admit takes sequences from the queue while they fit. Those that wait for a
// prefix under way are passed over and keep their place.
func (s *Scheduler) admit() {
	for s.budget > 0 && len(s.running) < s.config.MaxRunning && len(s.waiting) > 0 {
		q := s.waiting[0]
		found, ok := s.fits(q)
		if !ok {
			break
		}
		s.ask(q, found)
		if s.comesSoon(q, found) {
			if len(s.deferred) == maxDeferred {
				break
			}
			heap.Pop(&s.waiting)
			s.deferred = append(s.deferred, q)
			continue
		}
		if s.config.WholePrompts && q.chain.Len()-found*s.config.BlockSize > s.budget {
			break
		}
		heap.Pop(&s.waiting)
		s.place(q)
		s.run(q)
		if q.phase == phaseRunning {
			s.add(q, min(q.remaining(), s.budget))
		}
	}
	for i, q := range s.deferred {
		heap.Push(&s.waiting, q)
		s.deferred[i] = nil
	}
	s.deferred = s.deferred[:0]
}

// fits reports whether q can have blocks for all its tokens, and how many of them
// are in the pool. What did not fit is not looked at again before there is more
// room.
func (s *Scheduler) fits(q *sequence) (found int, ok bool) {
	available, reserve := s.pool.Available(), s.config.watermark()
	if len(s.running) == 0 {
		reserve = 0
	} else if available <= q.blockedAt {
		return 0, false
	}
	found, idle := s.pool.Peek(q.query(s.config.BlockSize))
	if need := s.blocks(q.chain.Len()) - found + idle; need+reserve > available {
		q.blockedAt = available
		return found, false
	}
	return found, true
}

// ask learns for how many tokens of q KV can be brought.
func (s *Scheduler) ask(q *sequence, found int) {
	if q.asks == 0 {
		return
	}
	size := s.config.BlockSize
	n := s.config.External(q.ref, found*size)
	q.external = min(max(n, 0), q.chain.Len()-1) / size * size
}

// comesSoon reports whether a running sequence is computing what q needs next, or has
// it brought, so that q had better take it from the pool when it is there.
func (s *Scheduler) comesSoon(q *sequence, found int) bool {
	if !s.config.PrefixCaching || !q.mayShare() {
		return false
	}
	if q.asks > 0 && slices.ContainsFunc(s.running, func(r *sequence) bool {
		return r.phase == phaseLoading && !r.ended && q.awaitsLoad(r, found)
	}) {
		return true
	}
	if q.external > found*s.config.BlockSize {
		return false
	}
	return slices.ContainsFunc(s.running, func(r *sequence) bool {
		return r.phase == phaseRunning && !r.ended && q.awaits(r, found, s.config.BlockSize)
	})
}

// place gives q its blocks: those that are in the pool, those to be loaded, those
// to be computed.
func (s *Scheduler) place(q *sequence) {
	q.match(s.pool, s.config.BlockSize)
	q.phase = phaseRunning
	s.act(Action{Kind: Admitted, ID: q.id, Ref: q.ref, Cached: min(q.computed, q.prompt), Again: q.admissions > 0})
	q.admissions++
	first := len(q.table)
	for len(q.table) < q.external/s.config.BlockSize {
		b, ok := s.pool.Load()
		if !ok {
			panic("BUG: sched: no block for what fits")
		}
		q.loading = append(q.loading, b)
		q.table = append(q.table, b.ID())
	}
	start, end := first*s.config.BlockSize, q.external
	for len(q.table) < s.blocks(q.chain.Len()) {
		if !q.grow(s.pool) {
			panic("BUG: sched: no block for what fits")
		}
	}
	if end <= start {
		return
	}
	n := s.blocks(end)
	q.phase = phaseLoading
	s.stats.Loads++
	s.act(Action{Kind: Load, ID: q.id, Ref: q.ref, Blocks: q.table[first:n:n], Start: start, Tokens: end - start})
}

// blocks is the number of blocks n tokens take.
func (s *Scheduler) blocks(n int) int { return (n + s.config.BlockSize - 1) / s.config.BlockSize }

// add puts the next n tokens of q into the batch.
func (s *Scheduler) add(q *sequence, n int) {
	s.batch.Entries = append(s.batch.Entries, q.entry(n))
	s.batch.Tokens += n
	s.flight = append(s.flight, q)
	q.inFlight = n
	s.budget -= n
}

// Done reports the results of the batch in flight, one for each entry.
func (s *Scheduler) Done(results []Result, now time.Time) []Action {
	s.land(len(results))
	for i, q := range s.flight {
		if q.void {
			s.retry(q)
			continue
		}
		e, r := &s.batch.Entries[i], results[i]
		q.take(e, r.Token)
		q.seal(s.pool, s.config.BlockSize)
		switch {
		case q.ended:
			s.drop(q)
		case e.Sample && (r.Finished || e.Last):
			s.finish(q, now)
		}
	}
	return s.actions
}

// Fail reports that the batch in flight was not computed. Its sequences end, and
// none of its blocks is offered to others.
func (s *Scheduler) Fail(now time.Time) []Action {
	s.land(len(s.flight))
	for _, q := range s.flight {
		q.inFlight, q.void, q.missing = 0, false, false
		if q.ended {
			s.drop(q)
			continue
		}
		s.end(q, ReasonFailed)
	}
	return s.actions
}

// land begins Done and Fail.
func (s *Scheduler) land(results int) {
	if !s.inFlight || results != len(s.flight) {
		panic("BUG: sched: results for another batch than the one in flight")
	}
	for _, q := range s.flight {
		if q.phase == phaseLoading && !q.void {
			panic("BUG: sched: results for a sequence whose KV is still being loaded")
		}
	}
	s.actions = s.actions[:0]
	s.inFlight = false
}

// finish ends q with its answer complete, and keeps its KV if that is wanted.
func (s *Scheduler) finish(q *sequence, now time.Time) {
	if q.hold <= 0 {
		s.end(q, ReasonFinished)
		return
	}
	leased := Action{
		Kind: Leased, ID: q.id, Ref: q.ref, Blocks: q.table[:len(q.table):len(q.table)],
		Tokens: q.computed, IDs: q.chain.part(0, q.computed), Expires: now.Add(q.hold),
	}
	q.lease(s.pool, leased.Expires)
	s.end(q, ReasonFinished)
	s.act(leased)
}
