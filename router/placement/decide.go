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
	// rows are the candidates worked out, and now the request's time in theirs.
	rows []row
	now  int64
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
	if d.rows != nil {
		d.admitRows()
	} else {
		for i := range d.Scores {
			st := d.Candidates[i].stand(r.Now)
			d.Scores[i].stand(&st, r.Role)
		}
	}
	if len(r.Excluded) > 0 {
		d.exclude()
	}
	if r.Adapter != "" || r.Pin != (Pin{}) || len(r.Required) > 0 || d.Params.Policy == Direct {
		d.pick()
	}
	d.overlap()
}

// overlap tells candidates what they hold of the prompt, and costs those again that
// are worked out.
func (d *Decision) overlap() {
	var whole features
	var need float32
	charge := d.rows != nil && d.priced()
	if charge && len(d.Request.Overlaps) > 0 {
		whole, need = d.features(), d.need()
	}
	for k := range d.Request.Overlaps {
		i := d.Request.Overlaps[k].Candidate
		if uint(i) >= uint(len(d.Scores)) {
			continue
		}
		s := &d.Scores[i]
		s.overlap = int32(k + 1)
		if charge && s.Verdict == Fit {
			d.charge(int(i), &d.rows[i].price, &whole, need)
		}
	}
}

// admitRows admits candidates that are worked out, and costs them while they are at
// hand.
func (d *Decision) admitRows() {
	role, priced := d.Request.Role, d.priced()
	f, need := d.features(), d.need()
	for i := range d.rows {
		row, s := &d.rows[i], &d.Scores[i]
		s.stand(&row.standing, role)
		if priced && row.verdict == Fit {
			if s.Cost = row.price.of(&f, d.now); need > row.room || !(s.Cost < maxCost) {
				s.Cost = finite(d.Terms(i).total())
			}
		}
	}
}

// stand begins a score.
func (s *Score) stand(st *standing, role Role) {
	s.Verdict, s.Doubted, s.Aside, s.Load, s.Others, s.Cost, s.overlap = st.verdict, st.doubted, false, st.load, st.others, 0, 0
	if st.role != Whole && st.role != role {
		s.Verdict = IsMiscast
	}
}

// held is how many tokens of the prompt a candidate holds, by the fastest tier they
// are in.
func (d *Decision) held(i int) (tokens [4]int) {
	if k := d.Scores[i].overlap; k > 0 {
		return d.Request.held(&d.Request.Overlaps[k-1])
	}
	return tokens
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
		if winner == None || d.before(rule, i, winner) {
			winner = i
		}
	}
	return winner
}

// rankAll finds the best of those that are fit. Most are passed by at a glance.
func (d *Decision) rankAll() {
	rule, most := d.rule(), len(d.top)
	if d.alone {
		most = 1
	}
	n, fit, worst := 0, 0, uint64(math.MaxUint64)
	for i := range d.Scores {
		s := &d.Scores[i]
		if s.Verdict != Fit {
			continue
		}
		fit++
		if n == most {
			if s.key() > worst || !d.before(rule, i, int(d.top[n-1])) {
				continue
			}
			n--
		}
		k := n
		for ; k > 0 && d.before(rule, i, int(d.top[k-1])); k-- {
			d.top[k] = d.top[k-1]
		}
		d.top[k] = int32(i)
		if n++; n == most && !rule.draws {
			worst = d.Scores[d.top[n-1]].key()
		}
	}
	d.tops, d.fit = n, fit
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

// before compares fit candidates; what a glance tells apart needs no more.
func (d *Decision) before(rule rule, i, j int) bool {
	if !rule.draws {
		if a, b := d.Scores[i].key(), d.Scores[j].key(); a != b {
			return a < b
		}
	}
	return rule.compare(d.contender(i), d.contender(j)) < 0
}

// contender is a candidate as the choice sees it.
func (d *Decision) contender(i int) contender {
	s, c := &d.Scores[i], &d.Candidates[i]
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
	return uint32(mix(d.Request.Seed^mix(uint64(c.ID))^c.Epoch^uint64(c.Rank)<<48) >> 32)
}

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
