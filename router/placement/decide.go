package placement

import (
	"math"
	"slices"
	"strconv"
	"time"
)

// Verdict says why a candidate may not win; Fit if it may.
type Verdict uint8

// The verdicts. Their numbers are in records, so they are append-only.
const (
	Fit Verdict = iota
	IsDown
	IsDraining
	IsLost
	IsHeld
	IsExcluded
	IsFull
	Lacks       // the adapter that is asked for
	IsUnable    // it could take a request, but not this one
	IsLesser    // a worker of a lower rank is left
	IsElsewhere // it is not the one that is named, or lacks a label that is required
	IsMiscast   // it does another part of the work
)

var verdicts = [...]string{
	Fit: "fit", IsDown: "down", IsDraining: "draining", IsLost: "lost", IsHeld: "held", IsExcluded: "excluded", IsFull: "full",
	Lacks: "lacks", IsUnable: "unable", IsLesser: "lesser", IsElsewhere: "elsewhere", IsMiscast: "miscast",
}

// String returns the verdict's name.
func (v Verdict) String() string {
	if int(v) < len(verdicts) {
		return verdicts[v]
	}
	return "verdict(" + strconv.Itoa(int(v)) + ")"
}

// Score is what a decision made of a candidate.
type Score struct {
	Verdict Verdict
	// Doubted ones come after all others that are fit, and those set Aside after
	// all that are neither: not drawn, not holding enough, holding too much.
	Doubted, Aside bool
	// Load is the requests it is taken to hold: those booked and, as far as its
	// report is fresh, Others that other routers sent it.
	Load, Others int32
	// Cost is what the policy makes of that; the lowest wins.
	Cost float32
	// overlap is the number of the candidate's in the request, from 1; 0 is none.
	overlap int32
}

// None is the winner of a decision that no candidate is fit for.
const None = -1

// Decision is one decision: its inputs, what became of each candidate, and the
// winner.
type Decision struct {
	Params     Params
	Request    Request
	Candidates []Candidate
	Scores     []Score // parallel to Candidates
	// Winner is an index of Candidates, or None.
	Winner int
	// Sticky says that the winner won because it serves the request's group.
	Sticky bool
	// low and high bound the costs of those that a draw is among.
	low, high float32
	// top are the best of the fit candidates, of which there are fit, best first.
	top  [recordEntries + 1]int32
	tops int
	fit  int
	// most is what mostHeld says, and one more; 0 is not known yet.
	most int
	// table is the candidates worked out, or nil, and now the request's time in its rows'.
	table *table
	now   int64
	// byPrice is what priced says, and whole the request then where nothing of it is held.
	byPrice bool
	whole   features
	// alone says that nobody but the winner is asked for.
	alone bool
}

// Decide chooses among the candidates. The decision refers to the slices of r and
// the candidates and does not copy them; scores is space for its Scores.
func Decide(p Params, r Request, candidates []Candidate, scores []Score) (d Decision) {
	d.Params, d.Request, d.Candidates = p, r, candidates
	d.Scores = slices.Grow(scores[:0], len(candidates))[:len(candidates)]
	d.make()
	return d
}

// make makes the decision.
func (d *Decision) make() {
	d.Winner = None
	if d.byPrice = d.priced(); d.byPrice {
		d.whole = d.features()
	}
	d.admit()
	if d.Request.Ranks != nil {
		d.passOver()
	}
	d.cost()
	if len(d.Request.Preferred) > 0 {
		d.prefer()
	}
	d.rankAll()
	if d.tops > 0 {
		d.Winner = int(d.top[0])
	}
	if d.Request.Sticky != (Key{}) {
		if i := d.grouped(); i != None {
			d.Winner, d.Sticky = i, true
		}
	}
}

// Again makes the decision once more from its inputs and returns the winner.
func (d *Decision) Again() int {
	again := Decide(d.Params, d.Request, d.Candidates, nil)
	return again.Winner
}

// admit finds out who may win, and how much each holds.
func (d *Decision) admit() {
	r := &d.Request
	switch {
	case d.table == nil:
		for i := range d.Scores {
			c := &d.Candidates[i]
			d.Scores[i] = c.stand(r.Now, c.fresh(r.Now))
			if !c.Role.takes(r.Role) {
				d.Scores[i].Verdict = IsMiscast
			}
		}
		d.overlap()
	case d.byPrice:
		d.admitPriced()
	default:
		d.admitRows()
		d.overlap()
	}
	if len(r.Excluded) > 0 {
		d.exclude()
	}
	if r.Adapter != "" || r.Pin != (Pin{}) || len(r.Required) > 0 || d.Params.Policy == Direct {
		d.pick()
	}
}

// overlap tells candidates what they hold of the prompt.
func (d *Decision) overlap() {
	for k := range d.Request.Overlaps {
		if i := d.Request.Overlaps[k].Candidate; uint(i) < uint(len(d.Scores)) {
			d.Scores[i].overlap = int32(k + 1)
		}
	}
}

// admitRows admits candidates that are worked out.
func (d *Decision) admitRows() {
	role, rows := d.Request.Role, d.table.rows
	for i := range rows {
		if d.Scores[i] = rows[i].score; !rows[i].role.takes(role) {
			d.Scores[i].Verdict = IsMiscast
		}
	}
}

// admitPriced admits and costs candidates that are worked out, while they are at hand.
func (d *Decision) admitPriced() {
	d.table.hold(&d.Request, &d.whole)
	role, rows, costs := d.Request.Role, d.table.rows, d.table.cost(d.whole, d.now)
	n := len(rows)
	scores, overlaps := d.Scores[:n], d.table.overlaps[:n]
	costs = costs[:n]
	for i := range rows {
		row, s := &rows[i], &scores[i]
		*s = row.score
		s.overlap = overlaps[i]
		if !row.role.takes(role) {
			s.Verdict = IsMiscast
		}
		if s.Verdict == Fit {
			if s.Cost = costs[i]; !(s.Cost < maxCost) {
				s.Cost = finite(d.Terms(i).total())
			}
		}
	}
	d.table.release(&d.Request)
}

// stand says whether c can take a request, and how many it holds.
func (c *Candidate) stand(at time.Time, fresh bool) (s Score) {
	s.Load, s.Doubted = int32(clamp(c.Booked, 0, maxRequests)), later(c.DoubtedUntil, at)
	if others := c.Report.Requests - c.Report.Booked; others > 0 && fresh {
		s.Others = int32(min(others, maxRequests))
		s.Load += s.Others
	}
	switch {
	case c.State == Down:
		s.Verdict = IsDown
	case c.State == Draining:
		s.Verdict = IsDraining
	case later(c.HeldUntil, at):
		if s.Verdict = IsHeld; c.Lost {
			s.Verdict = IsLost
		}
	case c.MaxRunning > 0 && int(s.Load) >= c.MaxRunning+c.MaxQueue:
		s.Verdict = IsFull
	}
	return s
}

// held is how many tokens of the prompt a candidate holds, by the fastest tier they
// are in.
func (d *Decision) held(i int) (tokens [4]int) {
	if k := d.Scores[i].overlap; k > 0 {
		return d.Request.held(&d.Request.Overlaps[k-1])
	}
	return tokens
}

// onDevice is how much of the prompt a candidate holds, if that is all on the device.
func (d *Decision) onDevice(i int) (tokens int, all bool) {
	k := d.Scores[i].overlap
	if k == 0 {
		return 0, true
	}
	return d.Request.onDevice(&d.Request.Overlaps[k-1])
}

// fresh reports whether the last report counts.
func (c *Candidate) fresh(now time.Time) bool {
	return !c.Report.At.IsZero() && now.Sub(c.Report.At) < ReportFresh
}

// exclude takes out those that the request may not go to again.
func (d *Decision) exclude() {
	for i := range d.Candidates {
		switch s := &d.Scores[i]; s.Verdict {
		case Fit, IsFull:
			if slices.Contains(d.Request.Excluded, d.Candidates[i].Key) {
				s.Verdict = IsExcluded
			}
		}
	}
}

// pick takes out those that the request may not go to at all.
func (d *Decision) pick() {
	for i := range d.Candidates {
		if v := d.Candidates[i].suits(&d.Request, d.Params.Policy == Direct); v != Fit && d.Scores[i].Verdict != IsMiscast {
			d.Scores[i].Verdict = v
		}
	}
}

// suits says whether c is one that the request may go to at all.
func (c *Candidate) suits(r *Request, direct bool) Verdict {
	switch {
	case r.Pin.ID != 0 && (r.Pin.ID != c.ID || r.Pin.HasRank && r.Pin.Rank != c.Rank), direct && r.Pin.ID == 0:
		return IsElsewhere
	case r.Adapter != "" && !slices.Contains(c.Adapters, r.Adapter):
		return Lacks
	}
	for _, label := range r.Required {
		if !slices.Contains(c.Labels, label) {
			return IsElsewhere
		}
	}
	return Fit
}

// passOver takes those out that are unable, and those of a higher rank than the
// lowest of which a worker is left. When none is left at all, each may win that can.
func (d *Decision) passOver() {
	r, most := &d.Request, Unable-1
	for i := range d.Candidates {
		c := &d.Candidates[i]
		switch d.Scores[i].Verdict {
		case Lacks, IsElsewhere, IsMiscast:
			continue
		}
		lost := c.Lost && later(c.HeldUntil, r.Now)
		if c.State == Up && !lost && !later(c.DoubtedUntil, r.Now) {
			most = min(most, r.rank(c))
		}
	}
	for i := range d.Scores {
		s, rank := &d.Scores[i], r.rank(&d.Candidates[i])
		switch {
		case s.Verdict != Fit:
		case rank == Unable:
			s.Verdict = IsUnable
		case rank > most:
			s.Verdict = IsLesser
		}
	}
}

// prefer lowers the cost of those that have labels that are preferred.
func (d *Decision) prefer() {
	for i := range d.Scores {
		factor := 1.0
		for _, p := range d.Request.Preferred {
			if p.Weight > 0 && slices.Contains(d.Candidates[i].Labels, p.Label) {
				factor *= 1 - min(p.Weight, 1)
			}
		}
		d.Scores[i].Cost = float32(float64(d.Scores[i].Cost) * factor)
	}
}

// grouped returns the best of those that serve the request's group and are beyond
// doubt.
func (d *Decision) grouped() int {
	winner, rule := None, d.rule()
	for i := range d.Scores {
		s := &d.Scores[i]
		if d.Candidates[i].Key != d.Request.Sticky || s.Verdict != Fit || s.Doubted {
			continue
		}
		if winner == None || rule.compare(d.contender(i), d.contender(winner)) < 0 {
			winner = i
		}
	}
	return winner
}

// rankAll finds the best of those that are fit. Most are passed by at a glance.
func (d *Decision) rankAll() {
	rule, most, scores := d.rule(), len(d.top), d.Scores
	if d.alone {
		most = 1
	}
	// worst is the cost of the last of the best, once there are so many and it is on no
	// level but the best.
	n, fit, worst := 0, 0, float32(math.Inf(1))
	var top [recordEntries + 1]int32
	var keys [recordEntries + 1]uint64 // of the best
	for i := range scores {
		s := &scores[i]
		if s.Verdict != Fit {
			continue
		}
		if fit++; s.Cost > worst {
			continue
		}
		k, key := n, s.key()
		for k > 0 && (key <= keys[k-1] || rule.draws) {
			if (key == keys[k-1] || rule.draws) && rule.compare(d.contender(i), d.contender(int(top[k-1]))) >= 0 {
				break
			}
			if k--; k+1 < most {
				top[k+1], keys[k+1] = top[k], keys[k]
			}
		}
		if k == most {
			continue
		}
		top[k], keys[k] = int32(i), key
		if n = min(n+1, most); n == most && !rule.draws && keys[n-1]>>32 == 0 {
			worst = scores[top[n-1]].Cost
		}
	}
	d.top, d.tops, d.fit = top, n, fit
}

// key sorts scores as a rule that does not draw sorts their contenders, as far as level
// and cost tell them apart.
func (s *Score) key() uint64 {
	bits := math.Float32bits(s.Cost)
	if bits>>31 == 0 {
		bits |= 1 << 31
	} else {
		bits = ^bits
	}
	key := uint64(bits)
	if s.Doubted {
		key |= 2 << 32
	}
	if s.Aside {
		key |= 1 << 32
	}
	return key
}

// contender is a candidate as the choice sees it.
func (d *Decision) contender(i int) contender {
	s := &d.Scores[i]
	if d.table != nil && d.byPrice {
		about := &d.table.details[i]
		return contender{id: uint64(about.key.ID), rank: uint16(about.rank), doubted: s.Doubted, aside: s.Aside, cost: s.Cost, tie: d.tieOf(about.name)}
	}
	c := &d.Candidates[i]
	x := contender{id: uint64(c.ID), rank: uint16(c.Rank), doubted: s.Doubted, aside: s.Aside, cost: s.Cost, tie: d.tie(i)}
	if p := d.Params.Policy; p == LeastLoaded || p == PowerOfTwo || p == Session && d.Request.Session == 0 {
		x.second = uint32(clamp(c.BookedTokens, 0, maxTokens))
	}
	return x
}

// tie is the key of a candidate that tells equal costs apart: made of the request's
// seed, or its session where that decides, and of who the candidate is.
func (d *Decision) tie(i int) uint32 {
	c := &d.Candidates[i]
	if d.Params.Policy == Session && d.Request.Session != 0 {
		// A worker keeps its sessions from one life to the next.
		return uint32(mix(d.Request.Session^mix(uint64(c.ID)^mix(uint64(c.Rank)))) >> 32)
	}
	return d.tieOf(c.name())
}

// tieOf is the key that is made of the seed.
func (d *Decision) tieOf(name uint64) uint32 { return uint32(mix(d.Request.Seed^name) >> 32) }

// name tells candidates apart.
func (c *Candidate) name() uint64 { return mix(uint64(c.ID)) ^ c.Epoch ^ uint64(c.Rank)<<48 }

// rule is how contenders are compared.
func (d *Decision) rule() rule {
	t := d.Params.Reference.Temperature
	return rule{draws: d.Params.Policy == Reference && t > 0, low: d.low, high: d.high, temperature: float32(t)}
}

// Order lists the fit candidates, best first.
func (d *Decision) Order() []int {
	var order []int
	for i := range d.Scores {
		if d.Scores[i].Verdict == Fit {
			order = append(order, i)
		}
	}
	rule := d.rule()
	slices.SortFunc(order, func(a, b int) int {
		if d.Sticky && (a == d.Winner) != (b == d.Winner) {
			return map[bool]int{true: -1, false: 1}[a == d.Winner]
		}
		return rule.compare(d.contender(a), d.contender(b))
	})
	return order
}

// Outcome sums a decision up: Fit when there is a winner; IsFull when a worker
// that is there could take the request later; IsDown when there is none to wait
// for.
func (d *Decision) Outcome() Verdict {
	if d.Winner != None {
		return Fit
	}
	for i := range d.Scores {
		if d.Request.rank(&d.Candidates[i]) == Unable {
			continue
		}
		switch d.Scores[i].Verdict {
		case IsFull, IsHeld, IsExcluded:
			return IsFull
		}
	}
	return IsDown
}

// Particular says that there is no winner because of what the request is: another
// one might find a worker at the same moment.
func (d *Decision) Particular() bool {
	if d.Winner != None {
		return false
	}
	for i := range d.Scores {
		switch d.Scores[i].Verdict {
		case IsUnable, IsLesser, IsElsewhere, IsMiscast:
			return true
		}
	}
	return false
}

// Next returns the earliest time, after the decision's, at which a candidate may
// become fit by the passing of time alone; zero if there is none.
func (d *Decision) Next() time.Time {
	var next time.Time
	sooner := func(t time.Time) {
		if t.After(d.Request.Now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for i := range d.Scores {
		c := &d.Candidates[i]
		switch d.Scores[i].Verdict {
		case IsHeld, IsLost:
			sooner(c.HeldUntil)
		case IsFull:
			if d.Scores[i].Others > 0 {
				sooner(c.Report.At.Add(ReportFresh))
			}
		}
	}
	return next
}

// later reports whether t is set and after now.
func later(t, now time.Time) bool { return !t.IsZero() && now.Before(t) }
