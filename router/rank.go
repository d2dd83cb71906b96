package router

import "github.com/dynamo-go/dynamo"

// rankLocked chooses among the data-parallel ranks of a worker and books the request
// there: the one that the request names, the one that holds most of its prompt, or the
// one with the fewest requests of this router. -1 leaves it to the worker, which is
// not known to have several.
func (r *Router) rankLocked(c *call, m *member, candidate int) int {
	n := int(m.ranks.Load())
	if n < 2 {
		return -1
	}
	for len(m.rankBooked) < n {
		m.rankBooked = append(m.rankBooked, 0)
	}
	rank := c.look.rank(candidate)
	if g := c.q.Routing; g != nil && g.Rank != nil {
		if rank = *g.Rank; rank < 0 || rank >= n {
			return -1 // the worker says what is wrong with it
		}
	}
	if rank < 0 {
		m.rankNext++ // equal ones in turn
		rank = m.rankNext % n
		for i := range n {
			if k := (m.rankNext + i) % n; m.rankBooked[k] < m.rankBooked[rank] {
				rank = k
			}
		}
	}
	m.rankBooked[rank]++
	return rank
}

// atRank is the request as the worker gets it.
func (c *call) atRank(rank int) *dynamo.Request {
	g := c.q.Routing
	if rank < 0 || g != nil && g.Rank != nil {
		return c.q
	}
	q, routing := *c.q, dynamo.Routing{}
	if g != nil {
		routing = *g
	}
	routing.Rank, q.Routing = &rank, &routing
	return &q
}
