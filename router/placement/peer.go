package placement

import (
	"time"

	"github.com/dynamo-go/dynamo/perfmodel"
)

// Peer is a candidate that lends the KV it holds of a prompt to others of its kind. The
// zero Peer is none: then everybody computes what it does not hold itself.
type Peer struct {
	// Candidate is its index, and Blocks how many leading blocks it can lend.
	Candidate int32
	Blocks    uint32
	// Seconds and SecondsPerToken are what it takes to bring them to another.
	Seconds, SecondsPerToken float64
}

// Fetch is what the winner of a decision had better bring from the request's Peer.
type Fetch struct {
	// From is the peer's index, Tokens how many of the prompt it lends, and Lacks those of
	// them that the winner does not hold.
	From, Tokens, Lacks int
	// Seconds is how long that takes, and Saves by how much computing them takes longer.
	Seconds, Saves float64
	// Known says that the winner's speed was measured.
	Known bool
}

// Fetch says what the winner had better bring; false: nothing.
func (d *Decision) Fetch() (Fetch, bool) {
	if d.Winner == None || d.Request.Peer == (Peer{}) {
		return Fetch{}, false
	}
	var t Terms
	c := &d.Candidates[d.Winner]
	_, cached := d.loadedTiers(c, d.Params.model(c), d.held(d.Winner), &t)
	n, seconds := d.fetched(c, d.Params.model(c), cached)
	compute := computing(c, d.Params.model(c), n, cached)
	return Fetch{From: int(d.Request.Peer.Candidate), Tokens: cached + n, Lacks: n, Seconds: seconds, Saves: compute - seconds, Known: c.timed()}, n > 0
}

// timed says whether it is known how long the candidate takes to compute prompts.
func (c *Candidate) timed() bool { return c.Timed && c.known() }

// computing is how long n tokens behind so many take to compute, with their part of what a
// step takes: where all prompts are of one length nobody can tell that from the rest.
func computing(c *Candidate, m *perfmodel.ClosedForm, n, behind int) float64 {
	b := batch{stepTokens: float64(c.StepTokens)}
	if c.StepTokens <= 0 {
		b.stepTokens = assumedStepTokens
	}
	return b.own(m, float64(n), pairs(n, behind))
}

// fetched is how many tokens of the prompt are brought from the peer to a candidate that
// has the first cached ones, and how long that takes: those that it would take longer to
// compute, and none if they are few.
func (d *Decision) fetched(c *Candidate, m *perfmodel.ClosedForm, cached int) (tokens int, seconds float64) {
	p := &d.Request.Peer
	if p.Blocks == 0 || uint(p.Candidate) >= uint(len(d.Candidates)) {
		return 0, 0
	}
	lender := &d.Candidates[p.Candidate]
	n := min(int(min(p.Blocks, maxBlocks))*max(d.Request.BlockSize, 0), d.Request.size()-1) - cached
	if n < minFetchTokens || lender.Kind != c.Kind || lender.ID == c.ID {
		return 0, 0
	}
	seconds = p.Seconds + p.SecondsPerToken*float64(n)
	if !c.timed() {
		// It is taken to be very fast. What is measured is not to be compared with that; what
		// pays with a link that is very fast too pays all the more where computing is slower.
		seconds = min(seconds, assumed.fixed+assumed.each*float64(n))
	}
	if !(seconds < computing(c, m, n, cached)) {
		return 0, 0
	}
	return n, seconds
}

// Link learns how long KV takes from one worker to others. What it has seen counts for a
// while: a link that was slow once is tried again. The zero value has seen nothing.
type Link struct {
	time HandoverTime
	at   time.Time
}

// Observe takes in that so many tokens' KV took so long.
func (l *Link) Observe(tokens int, took time.Duration, now time.Time) {
	l.age(now)
	l.time.Observe(tokens, took)
	l.at = now
}

// Times are what it takes at a time, in seconds: of itself, and for each token.
func (l *Link) Times(now time.Time) (fixed, perToken float64) {
	l.age(now)
	times := l.time.line(assumed, assumedWeight)
	return times.fixed, times.each
}

// age forgets what is too old.
func (l *Link) age(now time.Time) {
	if now.Sub(l.at) > linkMemory {
		l.time = HandoverTime{}
	}
}
