package placement

import "slices"

// Choice is the winner of a decision, and nothing of the others.
type Choice struct {
	// Winner is an index of the candidates, or None.
	Winner int
	// FirstMS is the predicted time until its first token, in milliseconds; 0 if the
	// policy does not ask who holds what.
	FirstMS float64
}

// Choose makes the decision that Decide makes, for who keeps no record of it: a
// simulation. By turns it looks at few candidates.
func (f *Fleet) Choose(p Params, r *Request) Choice {
	if p.Policy == RoundRobin && r.plain() {
		f.refresh(&p, r.Now)
		return Choice{Winner: f.next(r)}
	}
	var d Decision
	d.Params, d.Request, d.alone = p, *r, true
	d.now = f.refresh(&d.Params, r.Now)
	d.Candidates, d.table = f.candidates, &f.table
	d.Scores = slices.Grow(f.scores[:0], len(f.candidates))[:len(f.candidates)]
	f.scores = d.Scores
	if d.byPrice = d.priced() && r.plain(); d.byPrice {
		d.cheapest()
	} else {
		d.make()
	}
	c := Choice{Winner: d.Winner}
	if d.Winner != None && p.Policy.UsesOverlap() {
		c.FirstMS = d.Terms(d.Winner).first()
	}
	return c
}

// plain reports whether the request suits every candidate of its role alike.
func (r *Request) plain() bool {
	return r.Sticky == Key{} && len(r.Excluded) == 0 && r.Adapter == "" && r.Ranks == nil && r.Pin == (Pin{}) && len(r.Required) == 0 && len(r.Preferred) == 0
}

// cheapest finds the winner of a decision whose costs are made of prices. Scores are
// made of those alone that a price does not say enough of.
func (d *Decision) cheapest() {
	d.Winner, d.whole = None, d.features()
	d.table.hold(&d.Request, &d.whole)
	rows, costs, role := d.table.rows, d.table.cost(d.whole, d.now), d.Request.Role
	var best Score
	for i := range rows {
		score, cost := &rows[i].score, costs[i]
		if score.Verdict != Fit || cost > best.Cost && cost < maxCost && d.Winner != None && !best.Doubted || !rows[i].role.takes(role) {
			continue
		}
		if !(cost < maxCost) {
			d.Scores[i] = *score
			d.Scores[i].overlap = d.table.overlaps[i]
			cost = finite(d.Terms(i).total())
		}
		x := Score{Doubted: score.Doubted, Cost: cost}
		if d.Winner == None || x.Doubted == best.Doubted && x.Cost < best.Cost {
			d.Winner, best = i, x
			continue
		}
		if x.Doubted != best.Doubted || x.Cost == best.Cost {
			a, b := d.chosen(i, &x), d.chosen(d.Winner, &best)
			if (rule{}).compare(a, b) < 0 {
				d.Winner, best = i, x
			}
		}
	}
	if i := d.Winner; i != None {
		d.Scores[i] = rows[i].score
		d.Scores[i].overlap = d.table.overlaps[i]
	}
	d.table.release(&d.Request)
}

// chosen is a candidate with a score that is not among the decision's.
func (d *Decision) chosen(i int, s *Score) contender {
	c := &d.Candidates[i]
	return contender{id: uint64(c.ID), rank: uint16(c.Rank), doubted: s.Doubted, cost: s.Cost, tie: d.tie(i)}
}

// turns lists candidates by their last turns, the longest ago first. Whoever gets a
// turn moves to the end.
type turns struct {
	valid      bool
	of         []uint64 // of each candidate
	prev, next []int32  // of each; the last one is the ring's beginning and end
}

// sort makes the list.
func (t *turns) sort(candidates []Candidate) {
	n := len(candidates)
	t.valid, t.of = true, t.of[:0]
	t.prev, t.next = slices.Grow(t.prev[:0], n+1)[:n+1], slices.Grow(t.next[:0], n+1)[:n+1]
	order := make([]int32, n)
	for i := range candidates {
		t.of = append(t.of, candidates[i].Turn)
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		switch {
		case t.of[a] < t.of[b]:
			return -1
		case t.of[a] > t.of[b]:
			return 1
		}
		return 0
	})
	last := int32(n)
	for _, i := range order {
		t.prev[i], t.next[last] = last, i
		last = i
	}
	t.prev[n], t.next[last] = last, int32(n)
}

// move gives a candidate another turn, most often the latest.
func (t *turns) move(i int32, turn uint64) {
	t.next[t.prev[i]], t.prev[t.next[i]] = t.next[i], t.prev[i]
	t.of[i] = turn
	end := int32(len(t.of))
	after := t.prev[end]
	for after != end && t.of[after] > turn {
		after = t.prev[after]
	}
	t.prev[i], t.next[i] = after, t.next[after]
	t.prev[t.next[i]], t.next[after] = i, i
}

// next is the winner by turns.
func (f *Fleet) next(r *Request) int {
	t, d := &f.turns, Decision{Request: Request{Seed: r.Seed}, Candidates: f.candidates}
	if !t.valid {
		t.sort(f.candidates)
	}
	winner, best, end := None, contender{}, int32(len(t.of))
	for i := t.next[end]; i != end; i = t.next[i] {
		row := &f.table.rows[i]
		if row.score.Verdict != Fit || !row.role.takes(r.Role) {
			continue
		}
		x := contender{doubted: row.score.Doubted, cost: 0 - float32(t.of[t.prev[end]]-t.of[i])}
		if winner != None && !best.doubted && x.cost > best.cost {
			break // as are all that follow
		}
		c := &f.candidates[i]
		x.id, x.rank, x.tie = uint64(c.ID), uint16(c.Rank), d.tie(int(i))
		if winner == None || (rule{}).compare(x, best) < 0 {
			winner, best = int(i), x
		}
	}
	return winner
}
