package sched

import "github.com/dynamo-go/dynamo/kvbm"

// Stats are counts of a scheduler.
type Stats struct {
	// Waiting, Running and Loading are sequences at the moment; Running does not
	// include Loading. An ended sequence counts while it has something in flight.
	Waiting, Running, Loading int
	// Uncomputed are tokens, of those that wait or run, that are still to be computed:
	// of prompts, and of what is computed again after a preemption. What those that wait
	// may find in the pool is as it was when they were first counted.
	Uncomputed int
	// Accepted and Refused count submissions; Ended the ends by reason.
	Accepted, Refused uint64
	Ended             [ReasonFailed + 1]uint64
	// Steps and Tokens count batches and the tokens in them.
	Steps, Tokens uint64
	// Preemptions, Loads and LoadsFailed count events.
	Preemptions, Loads, LoadsFailed uint64
	// KV is the pool's.
	KV kvbm.Stats
}

// Stats returns the counts.
func (s *Scheduler) Stats() Stats {
	out := s.stats
	out.Waiting, out.KV = len(s.waiting), s.pool.Stats()
	for _, q := range s.running {
		if q.phase == phaseLoading {
			out.Loading++
		} else {
			out.Running++
		}
		if n := q.remaining(); n > 1 { // 1 is the next token of an answer
			out.Uncomputed += n
		}
	}
	for _, q := range s.waiting {
		if q.guess < 0 {
			found, _ := s.pool.Peek(q.query(s.config.BlockSize))
			q.guess = found * s.config.BlockSize
		}
		out.Uncomputed += max(q.chain.Len()-q.guess, 0)
	}
	return out
}
