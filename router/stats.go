package router

import (
	"cmp"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/router/placement"
)

// Stats are the exact counts of a Router.
type Stats struct {
	// Booked requests are in progress at workers, with BookedTokens between them;
	// Waiting ones wait for a worker.
	Booked, BookedTokens, Waiting int
	// Decisions that named a worker, and Refusals of workers that were followed by
	// another decision.
	Decisions, Refusals uint64
	// Ended counts requests; Refused of them found no worker, Abandoned were
	// cancelled or too late.
	Ended, Refused, Abandoned uint64
	// Workers are those in the set, in the order of their ids.
	Workers []WorkerStats
}

// WorkerStats are what the router knows of a worker.
type WorkerStats struct {
	ID    dynamo.WorkerID
	Epoch uint64
	State placement.State
	// Suspect says that it is passed over for a moment, having lost a request.
	Suspect bool
	// Booked and BookedTokens are this router's.
	Booked, BookedTokens int
	// Fault is why it lost the last request that it was sent, in its own words, though
	// its connection is up: the engine behind it is gone, say. Empty if it did not.
	Fault string
	// Load is its last report, which came at Reported; zero if none did.
	Load     engine.Load
	Reported time.Time
	Labels   map[string]string
}

// Stats returns the counts of this moment.
func (r *Router) Stats() Stats {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.mu.stats
	s.Workers = make([]WorkerStats, len(r.mu.list))
	for i, m := range r.mu.list {
		c := &r.mu.fleet.Candidates()[i]
		s.Workers[i] = WorkerStats{
			ID: m.ID, Epoch: m.Epoch, State: c.State, Suspect: c.Lost && now.Before(c.HeldUntil),
			Booked: c.Booked, BookedTokens: c.BookedTokens, Fault: m.fault, Load: m.load, Reported: c.Report.At, Labels: m.Labels,
		}
	}
	slices.SortFunc(s.Workers, func(a, b WorkerStats) int { return cmp.Compare(a.ID, b.ID) })
	return s
}

// groups remembers which worker serves a group, for the last maxGroups of them.
type groups struct {
	workers map[dynamo.RequestID]placement.Key
	order   []dynamo.RequestID // a ring once it is full
	next    int
}

func (g *groups) set(group dynamo.RequestID, k placement.Key) {
	if _, known := g.workers[group]; !known {
		if len(g.order) < maxGroups {
			g.order = append(g.order, group)
		} else {
			delete(g.workers, g.order[g.next])
			g.order[g.next] = group
			g.next = (g.next + 1) % maxGroups
		}
	}
	g.workers[group] = k
}
