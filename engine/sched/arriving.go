package sched

import "time"

// KVArriving reports that what a Load is to bring comes in the order in which a step uses
// it, so that the sequence can be computed while the rest comes. KVArrived or KVFailed
// follows all the same: before Done or Fail if the sequence is in the batch in flight.
// After KVFailed what that batch computes of it is void; or there is KVLate. One that has
// ended, or that only lends, is left alone.
func (s *Scheduler) KVArriving(id ID, now time.Time) []Action {
	s.actions = s.actions[:0]
	if q := s.loading(id); !q.ended && !q.lends {
		q.arriving, q.computed = true, q.external
	}
	return s.actions
}

// KVLate reports that a sequence of the batch in flight was computed without all that its
// Load brings: that part of the batch is void, and KVArrived or KVFailed is still to come.
func (s *Scheduler) KVLate(id ID, now time.Time) []Action {
	s.actions = s.actions[:0]
	q := s.loading(id)
	if q.inFlight == 0 {
		panic("BUG: sched: KV is late for a sequence that is not computed")
	}
	q.arriving, q.void = false, true
	return s.actions
}

// computes reports whether q can be in a batch.
func (q *sequence) computes() bool {
	return q.phase == phaseRunning || q.phase == phaseLoading && q.arriving
}

// void has what is in flight of q count for nothing, because what it was computed from has
// not come.
func (s *Scheduler) void(q *sequence) {
	q.phase, q.arriving, q.void, q.missing = phaseRunning, false, true, true
}

// retry has a sequence whose part of the batch was void computed again: when its Load has
// ended, or from what that has brought, or from its tokens.
func (s *Scheduler) retry(q *sequence) {
	missing := q.missing
	q.inFlight, q.void, q.missing = 0, false, false
	switch {
	case q.phase == phaseLoading:
	case q.ended:
		s.drop(q)
	case missing:
		s.requeue(q)
	}
}
