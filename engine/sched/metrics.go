package sched

import "github.com/dynamo-go/dynamo/kvbm"

// Stats are counts of a scheduler.
type Stats struct {
	// Waiting, Running and Loading are sequences at the moment; Running does not
	// include Loading. An ended sequence counts while it has something in flight.
	Waiting, Running, Loading int
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
	}
	return out
}
