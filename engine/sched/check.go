package sched

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// Check tells what is wrong with the scheduler or its pool (I4, I5), or nil. It
// looks at everything and is for tests and simulations.
func (s *Scheduler) Check() error {
	s.settle()
	faults := []error{s.pool.Check()}
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if n := len(s.waiting); n > s.config.MaxWaiting+s.config.MaxRunning {
		fault("I5: %d sequences wait, limit %d and %d preempted", n, s.config.MaxWaiting, s.config.MaxRunning)
	}
	if n := len(s.running); n > s.config.MaxRunning {
		fault("I5: %d sequences run, limit %d", n, s.config.MaxRunning)
	}
	if !slices.IsSortedFunc(s.running, compare) {
		fault("the running are out of order")
	}
	live := 0
	for i, q := range s.waiting {
		if q.waitIndex != i || q.phase != phaseWaiting || len(q.table) != 0 || s.live[q.id] != q {
			fault("sequence %d waits with blocks, or is not where it says", q.id)
		}
		live++
	}
	var held, open, loading int
	for _, q := range s.running {
		if !q.ended {
			live++
		}
		if (s.live[q.id] == q) == q.ended || q.ended && q.phase == phaseRunning && !s.inFlight {
			fault("sequence %d runs, ended: %v", q.id, q.ended)
		}
		s.checkTable(q, fault)
		held, open, loading = held+len(q.held), open+len(q.open), loading+len(q.loading)
	}
	if live != len(s.live) {
		fault("%d sequences are somewhere of %d", live, len(s.live))
	}
	for i, q := range s.deadlines {
		if q.deadlineIndex != i || s.live[q.id] != q {
			fault("the deadline of sequence %d is not where it says", q.id)
		}
	}
	if kv := s.pool.Stats(); kv.Leases == 0 && (kv.Partial != open || kv.Loading != loading || kv.Held+kv.Complete > held) {
		fault("I4: the pool has %d partial, %d loading, %d held blocks; sequences hold %d, %d, %d", kv.Partial, kv.Loading, kv.Held+kv.Complete, open, loading, held)
	}
	return errors.Join(faults...)
}

// Held appends the blocks that the pool can match, in no order.
func (s *Scheduler) Held(dst []dynamo.BlockHash) []dynamo.BlockHash {
	s.settle()
	return s.pool.Registered(dst)
}

// checkTable compares a running sequence's blocks with its table and tokens.
func (s *Scheduler) checkTable(q *sequence, fault func(string, ...any)) {
	var ids []int32
	for _, h := range q.held {
		ids = append(ids, h.ID())
	}
	for _, b := range q.loading {
		ids = append(ids, b.ID())
	}
	for _, b := range q.open {
		ids = append(ids, b.ID())
	}
	size := s.config.BlockSize
	switch {
	case !slices.Equal(ids, q.table):
		fault("sequence %d: table %v, blocks %v", q.id, q.table, ids)
	case q.phase == phaseRunning && !q.void && (q.computed/size != len(q.held) || q.computed+q.inFlight > q.chain.Len() || q.remaining() < 1):
		fault("sequence %d: %d of %d tokens computed, %d in flight, %d blocks sealed", q.id, q.computed, q.chain.Len(), q.inFlight, len(q.held))
	case q.computed+q.inFlight > len(q.table)*size:
		fault("sequence %d: %d positions in %d blocks", q.id, q.computed+q.inFlight, len(q.table))
	}
}
