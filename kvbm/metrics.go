package kvbm

import (
	"time"

	"github.com/dynamo-go/dynamo"
)

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
	s, c := p.stats, &p.counts
	s.Free, s.Complete, s.Loading = p.vacant(), c.complete, c.loading
	s.Held, s.Idle = c.registered-c.idle, c.idle
	s.Partial = p.config.Blocks - s.Free - s.Complete - s.Loading - c.registered
	s.Capacity, s.Leases = p.config.Blocks, len(p.leases.due)
	return s
}

// Skip says why a tier did not take a block in.
type Skip uint8

// The reasons.
const (
	SkipPolicy Skip = iota // its policy is against it
	SkipQueue              // too much is on its way there
	SkipBudget             // the write budget is used up
	SkipFull               // all its blocks are being read or written
	SkipDown               // it failed and is left alone for a while
	numSkips
)

// String returns the reason's name.
func (s Skip) String() string {
	return [...]string{"policy", "queue", "budget", "full", "down"}[s]
}

// TierStats are counts of one tier below the device: blocks at the moment, and totals
// since it was made.
type TierStats struct {
	// Storing, Held (stored), Leaving, Quarantined and Free add up to Capacity.
	Storing, Held, Leaving, Quarantined, Free, Capacity int
	// Reads and Writes are the blocks on their way out and in.
	Reads, Writes int
	// Down says that it is left alone after failures.
	Down bool
	// ReadOnly says that it could not be written, as when a disk is full, and takes in
	// nothing for a while.
	ReadOnly bool
	// Stored and Loaded count blocks written and read, Present those that were there
	// when they were offered, Evicted those given up for others.
	Stored, Loaded, Present, Evicted uint64
	// Failed counts what it did not do; Unwritten, Unread, Corrupt and Missing are
	// the parts of that: writes and reads with an error, reads of other bytes than the
	// block's and of nothing.
	Failed, Unread, Unwritten, Corrupt, Missing uint64
	// Skipped counts blocks not taken in, by reason.
	Skipped [numSkips]uint64
}

// Stats returns the counts of a tier below the device.
func (t *Tiers) Stats(tier dynamo.Tier, now time.Time) TierStats {
	i := int(tier) - 1
	ts := &t.tiers[i]
	s := ts.stats
	s.Storing, s.Held, s.Leaving = int(ts.counts[copyStoring]), int(ts.counts[copyStored]), int(ts.counts[copyLeaving])
	s.Quarantined, s.Free, s.Capacity = len(ts.bad), len(ts.free)+int(ts.slots-ts.fresh), int(ts.slots)
	s.Reads, s.Writes = int(ts.reads), int(ts.writes)
	s.Down = ts.slots > 0 && !t.up(i, now)
	s.ReadOnly = ts.slots > 0 && !s.Down && !t.open(i, now)
	return s
}
