package placement

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
)

// Policy says what makes one worker better than another.
type Policy uint8

// The policies.
const (
	// RoundRobin takes the worker whose last turn is longest ago.
	RoundRobin Policy = iota
	// Random takes any.
	Random
	// LeastLoaded takes the one that is filled least relative to its capacity.
	LeastLoaded
	// PowerOfTwo takes the less loaded of two random ones.
	PowerOfTwo
)

var policies = [...]string{RoundRobin: "round-robin", Random: "random", LeastLoaded: "least-loaded", PowerOfTwo: "power-of-two"}

// Policies lists the names that ParsePolicy knows.
func Policies() []string { return slices.Clone(policies[:]) }

// String returns the policy's name.
func (p Policy) String() string {
	if int(p) < len(policies) {
		return policies[p]
	}
	return "policy(" + strconv.Itoa(int(p)) + ")"
}

// ParsePolicy reads what String prints.
func ParsePolicy(name string) (Policy, bool) {
	i := slices.Index(policies[:], name)
	return Policy(max(i, 0)), i >= 0
}

// Key names one life of a worker.
type Key struct {
	ID    dynamo.WorkerID
	Epoch uint64
}

// Request is what a decision knows of a request.
type Request struct {
	ID dynamo.RequestID
	// Seed makes random choices and tells equal costs apart; see Seed.
	Seed uint64
	// Now is the moment of the decision, against which ages are taken.
	Now time.Time
	// Sticky is the worker that serves the request's group, which wins whatever
	// the costs if it may; zero for none.
	Sticky Key
	// Excluded are workers that may not win.
	Excluded []Key
	// Adapter is what the worker must list; empty asks nothing.
	Adapter string
	// Ranks says how well each kind of worker suits the request, by
	// Candidate.Kind; nil: all alike.
	Ranks []Rank
}

// Rank says how well a kind of worker suits a request. One of a higher rank wins
// only when none of a lower is left: they are all down, draining, lost or doubted.
// Full ones are waited for.
type Rank uint8

// Unable is the rank of workers that cannot serve the request at all.
const Unable Rank = 255

// Seed returns the seed of one attempt at a request: equal for the same request,
// number of ids it resumes and attempt, unrelated otherwise.
func Seed(id dynamo.RequestID, resumed, attempt int) uint64 {
	return mix(xxh3.HashString(string(id)) ^ mix(uint64(resumed)<<20^uint64(attempt)))
}

// State says whether a worker can be used.
type State uint8

// The states.
const (
	Down     State = iota // not connected
	Up                    // in use
	Draining              // leaves, and takes nothing new
)

var states = [...]string{Down: "down", Up: "up", Draining: "draining"}

// String returns the state's name.
func (s State) String() string {
	if int(s) < len(states) {
		return states[s]
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// Candidate is what a decision knows of a worker.
type Candidate struct {
	Key
	State State
	// Kind numbers the workers' cards: those of one kind can do the same.
	Kind int
	// HeldUntil keeps the worker from winning before that time: it has refused, or
	// lost, a request a moment ago. Lost says which of them.
	HeldUntil time.Time
	Lost      bool
	// DoubtedUntil lets the worker win before that time only when no other may: it
	// has stalled on a request.
	DoubtedUntil time.Time
	// MaxRunning and MaxQueue are the requests it takes; MaxRunning 0 is unknown
	// and bounds nothing.
	MaxRunning, MaxQueue int
	// Booked and BookedTokens are the requests that the router has in progress at
	// it, exactly.
	Booked, BookedTokens int
	// Turn is the number of the router's decision that it won last; 0 is never.
	Turn uint64
	// Report is what it said of itself last.
	Report Report
	// Adapters are those it has; the slice does not change.
	Adapters []string
}

// Report is a worker's own count of its requests, other routers' included.
type Report struct {
	// At is when it came; zero is never.
	At time.Time
	// Requests are those it ran or had waiting, and Booked is how many of them the
	// router had booked when the report came.
	Requests, Booked int
	// MaxRunning is what it says it runs at once; it stands in for the candidate's
	// own, and bounds nothing. 0 is unknown.
	MaxRunning int
}

// Verdict says why a candidate may not win; Fit if it may.
type Verdict uint8

// The verdicts.
const (
	Fit Verdict = iota
	IsDown
	IsDraining
	IsLost
	IsHeld
	IsExcluded
	IsFull
	Lacks    // the adapter that is asked for
	IsUnable // it could take a request, but not this one
	IsLesser // a worker of a lower rank is left
)

var verdicts = [...]string{Fit: "fit", IsDown: "down", IsDraining: "draining", IsLost: "lost", IsHeld: "held", IsExcluded: "excluded", IsFull: "full", Lacks: "lacks", IsUnable: "unable", IsLesser: "lesser"}

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
	// Doubted ones come after all others that are fit.
	Doubted bool
	// Sampled says that PowerOfTwo drew it.
	Sampled bool
	// Load is the requests it is taken to hold: those booked and, as far as its
	// report is fresh, Others that other routers sent it.
	Load, Others int
	// Fill is the load, with this request, relative to the capacity.
	Fill float64
	// Cost is what the policy makes of that. Equal costs are told apart by Tokens,
	// those booked where the policy asks for the load, and at last by Tie.
	Cost   float64
	Tokens int
	Tie    uint64
}

// None is the winner of a decision that no candidate is fit for.
const None = -1

// Decision is the record of one decision: its inputs, what became of each
// candidate, and the winner.
type Decision struct {
	Policy     Policy
	Request    Request
	Candidates []Candidate
	Scores     []Score // parallel to Candidates
	// Winner is an index of Candidates, or None.
	Winner int
	// Sticky says that the winner won because it serves the request's group.
	Sticky bool
}

// Decide chooses among the candidates. The record refers to r.Excluded and the
// candidates and does not copy them; scores is space for its Scores.
func Decide(p Policy, r Request, candidates []Candidate, scores []Score) Decision {
	d := Decision{Policy: p, Request: r, Candidates: candidates, Scores: scores[:0], Winner: None}
	for i := range candidates {
		d.Scores = append(d.Scores, score(p, &r, &candidates[i]))
	}
	if r.Ranks != nil {
		d.passOver()
	}
	if p == PowerOfTwo {
		d.sample()
	}
	for i := range d.Scores {
		s := &d.Scores[i]
		if s.Verdict != Fit {
			continue
		}
		if candidates[i].Key == r.Sticky && !s.Doubted {
			d.Winner, d.Sticky = i, true
			return d
		}
		if d.Winner == None || before(s, &d.Scores[d.Winner]) < 0 {
			d.Winner = i
		}
	}
	return d
}

// Again makes the decision once more from its record and returns the winner.
func (d *Decision) Again() int {
	return Decide(d.Policy, d.Request, d.Candidates, nil).Winner
}

// Order lists the fit candidates, best first.
func (d *Decision) Order() []int {
	var order []int
	for i := range d.Scores {
		if d.Scores[i].Verdict == Fit {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int {
		if d.Sticky && (a == d.Winner) != (b == d.Winner) {
			return map[bool]int{true: -1, false: 1}[a == d.Winner]
		}
		return before(&d.Scores[a], &d.Scores[b])
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
		case IsUnable, IsLesser:
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

func score(p Policy, r *Request, c *Candidate) Score {
	s := Score{Doubted: later(c.DoubtedUntil, r.Now), Load: c.Booked, Tie: mix(r.Seed ^ mix(uint64(c.ID)) ^ c.Epoch)}
	if others := c.Report.Requests - c.Report.Booked; others > 0 && r.Now.Sub(c.Report.At) < ReportFresh {
		s.Others = others
		s.Load += others
	}
	capacity := c.MaxRunning
	if capacity <= 0 {
		capacity = c.Report.MaxRunning
	}
	if capacity <= 0 {
		capacity = assumedCapacity
	}
	s.Fill = float64(s.Load+1) / float64(capacity)
	switch p {
	case RoundRobin:
		s.Cost = float64(c.Turn)
	case LeastLoaded, PowerOfTwo:
		s.Cost, s.Tokens = s.Fill, c.BookedTokens
	}
	s.Verdict = verdict(r, c, s.Load)
	return s
}

// rank is that of a candidate.
func (r *Request) rank(c *Candidate) Rank {
	if r.Ranks == nil {
		return 0
	}
	return r.Ranks[c.Kind]
}

// passOver takes those out that are unable, and those of a higher rank than the
// lowest of which a worker is left. When none is left at all, each may win that can.
func (d *Decision) passOver() {
	r, most := &d.Request, Unable-1
	for i := range d.Candidates {
		c := &d.Candidates[i]
		lost := c.Lost && later(c.HeldUntil, r.Now)
		if c.State == Up && !lost && !later(c.DoubtedUntil, r.Now) && d.Scores[i].Verdict != Lacks {
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

func verdict(r *Request, c *Candidate, load int) Verdict {
	switch {
	case r.Adapter != "" && !slices.Contains(c.Adapters, r.Adapter):
		return Lacks
	case c.State == Down:
		return IsDown
	case c.State == Draining:
		return IsDraining
	case later(c.HeldUntil, r.Now):
		if c.Lost {
			return IsLost
		}
		return IsHeld
	case len(r.Excluded) > 0 && slices.Contains(r.Excluded, c.Key):
		return IsExcluded
	case c.MaxRunning > 0 && load >= c.MaxRunning+c.MaxQueue:
		return IsFull
	}
	return Fit
}

// later reports whether t is set and after now.
func later(t, now time.Time) bool { return !t.IsZero() && now.Before(t) }

// sample marks the two fit candidates, undoubted ones first, with the lowest ties
// and makes all others cost more than any of them.
func (d *Decision) sample() {
	least := [2]int{None, None}
	earlier := func(i, j int) bool {
		a, b := &d.Scores[i], &d.Scores[j]
		if a.Doubted != b.Doubted {
			return b.Doubted
		}
		return a.Tie < b.Tie
	}
	for i := range d.Scores {
		switch {
		case d.Scores[i].Verdict != Fit:
		case least[0] == None || earlier(i, least[0]):
			least[0], least[1] = i, least[0]
		case least[1] == None || earlier(i, least[1]):
			least[1] = i
		}
	}
	for _, i := range least {
		if i != None {
			d.Scores[i].Sampled = true
		}
	}
	for i := range d.Scores {
		if s := &d.Scores[i]; !s.Sampled {
			s.Cost = math.Inf(1)
		}
	}
}

// before compares fit candidates, the better one first.
func before(a, b *Score) int {
	if a.Doubted != b.Doubted {
		if a.Doubted {
			return 1
		}
		return -1
	}
	if a.Cost != b.Cost {
		return cmp.Compare(a.Cost, b.Cost)
	}
	if a.Cost == math.Inf(1) && a.Fill != b.Fill {
		return cmp.Compare(a.Fill, b.Fill)
	}
	if a.Tokens != b.Tokens {
		return cmp.Compare(a.Tokens, b.Tokens)
	}
	return cmp.Compare(a.Tie, b.Tie)
}

// mix is the finalizer of SplitMix64: every bit of x reaches every bit of the
// result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
