package kvbm

// Stats are counts of a pool: blocks by state at the moment, and totals since it
// was made.
type Stats struct {
	// Free, Partial, Complete, Held, Idle and Loading add up to Capacity.
	Free, Partial, Complete, Held, Idle, Loading, Capacity int
	// Leases is the number of leases.
	Leases int
	// Registered, Duplicates and Refused count registrations by outcome, Evicted
	// the idle blocks given up for others.
	Registered, Duplicates, Refused, Evicted uint64
	// Asked and Found count the blocks Match was asked for and found.
	Asked, Found uint64
}

// Stats returns the counts.
func (p *Pool) Stats() Stats {
	s := p.stats
	s.Free, s.Partial, s.Complete = p.counts[stateFree], p.counts[statePartial], p.counts[stateComplete]
	s.Held, s.Idle, s.Loading = p.counts[stateHeld], p.counts[stateIdle], p.counts[stateLoading]
	s.Capacity, s.Leases = p.config.Blocks, len(p.leases.due)
	return s
}
