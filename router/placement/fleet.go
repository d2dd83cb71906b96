package placement

import (
	"math"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo/perfmodel"
)

// Fleet is the candidates for the requests of one model, with what decisions ask of each
// worked out when it changes and not when it is asked: of a thousand candidates a few
// change between two decisions. It decides as Decide does, for one goroutine at a
// time.
type Fleet struct {
	candidates []Candidate
	rows       []row
	stale      []int32 // rows to be worked out, each once
	scores     []Score
	prior      perfmodel.ClosedForm
	base       time.Time // from which the rows' times are counted
	soonest    int64     // no row ends before
	turns      turns
	holds      []int32 // of each candidate, its overlap's number from 1; all 0 between decisions
}

// Candidates are those of the fleet, to be read: the next change may move them.
func (f *Fleet) Candidates() []Candidate { return f.candidates }

// Len is how many there are.
func (f *Fleet) Len() int { return len(f.candidates) }

// Add adds a candidate and returns its index, which it keeps until another is removed.
func (f *Fleet) Add(c Candidate) int {
	f.candidates = append(f.candidates, c)
	f.rows = append(f.rows, row{})
	f.turns.valid = false
	i := len(f.candidates) - 1
	f.touch(i)
	return i
}

// Remove takes a candidate out; the last one gets its index.
func (f *Fleet) Remove(i int) {
	last := len(f.candidates) - 1
	f.candidates[i] = f.candidates[last]
	f.candidates[last] = Candidate{}
	f.candidates, f.rows = f.candidates[:last], f.rows[:last]
	f.turns.valid = false
	if i < last {
		f.touch(i)
	}
}

// Touch returns a candidate to be changed, until the fleet is asked for anything else.
func (f *Fleet) Touch(i int) *Candidate {
	f.touch(i)
	return &f.candidates[i]
}

func (f *Fleet) touch(i int) {
	if r := &f.rows[i]; r.until != never {
		r.until = never
		f.stale = append(f.stale, int32(i))
	}
}

// Decide chooses among the candidates. The decision is valid until the next one, or
// change.
func (f *Fleet) Decide(p Params, r Request) (d Decision) {
	d.Params, d.Request = p, r
	d.now = f.refresh(&d.Params, r.Now)
	d.Candidates, d.rows = f.candidates, f.rows
	d.Scores = slices.Grow(f.scores[:0], len(f.rows))[:len(f.rows)]
	f.scores = d.Scores
	d.make()
	return d
}

// refresh works out what has changed, by itself or by the passing of time, and returns
// the time in the rows' nanoseconds.
func (f *Fleet) refresh(p *Params, at time.Time) int64 {
	if f.base.IsZero() {
		f.base, f.soonest = at, always
	}
	now := int64(at.Sub(f.base))
	if p.Prior != f.prior {
		f.prior, f.stale = p.Prior, f.stale[:0]
		for i := range f.rows {
			f.rows[i].until = always
			f.touch(i)
		}
	}
	for _, i := range f.stale {
		if int(i) < len(f.rows) {
			f.work(p, int(i), at, now)
		}
	}
	f.stale = f.stale[:0]
	if f.soonest <= now {
		f.soonest = always
		for i := range f.rows {
			if f.rows[i].until <= now {
				f.work(p, i, at, now)
			}
			f.soonest = min(f.soonest, f.rows[i].until)
		}
	}
	return now
}

func (f *Fleet) work(p *Params, i int, at time.Time, now int64) {
	c := &f.candidates[i]
	if f.turns.valid && f.turns.of[i] != c.Turn {
		f.turns.move(int32(i), c.Turn)
	}
	f.rows[i] = c.row(p.model(c), at, now)
	f.soonest = min(f.soonest, f.rows[i].until)
}

// row is a candidate worked out. It holds as long as the candidate does not change, and
// until a time.
type row struct {
	until int64 // nanoseconds, as since is
	standing
	price
}

// standing says whether a candidate may win and how much it holds.
type standing struct {
	load, others int32
	verdict      Verdict
	role         Role
	doubted      bool
}

// price makes the cost of kv for a request that is computed and answered at one place
// out of features of it. All are milliseconds, but for behind and delayed, which are
// numbers of requests.
type price struct {
	since       int64   // when the first prompt that is pending was begun
	head        float32 // of first, that the passing of time takes away
	first       float32 // to the first token, whatever the request
	token, pair float32 // of the prompt, of itself
	beside      float32 // of a token, for those that run
	places      float32 // to the first token, of each of the answer's
	idle        float32 // a step of an idle machine
	behind      float32 // twice those that come after the prompt
	delayed     float32 // those that a prompt delays
	evict       float32 // of a token, for what has to be given up
	answer      float32 // of each of the answer's tokens, beyond the first token
	length      float32 // the same, of each that it attends to
	room        float32 // tokens; a request that needs more is priced by Terms
}

const (
	never  = math.MinInt64
	always = math.MaxInt64
)

// row works a candidate out at a time, which is also given in the row's nanoseconds.
func (c *Candidate) row(m *perfmodel.ClosedForm, at time.Time, now int64) row {
	r := row{until: always, standing: c.stand(at)}
	for _, t := range [...]time.Time{c.HeldUntil, c.DoubtedUntil} {
		if later(t, at) {
			r.until = min(r.until, now+int64(t.Sub(at)))
		}
	}
	if c.fresh(at) {
		r.until = min(r.until, now+int64(c.Report.At.Add(ReportFresh).Sub(at)))
	}
	r.price = c.price(m, int(r.load), at, now)
	return r
}

// stand says whether c can take a request, and how many it holds.
func (c *Candidate) stand(at time.Time) standing {
	s := standing{role: c.Role, load: int32(clamp(c.Booked, 0, maxRequests)), doubted: later(c.DoubtedUntil, at)}
	if others := c.Report.Requests - c.Report.Booked; others > 0 && c.fresh(at) {
		s.others = int32(min(others, maxRequests))
		s.load += s.others
	}
	switch {
	case c.State == Down:
		s.verdict = IsDown
	case c.State == Draining:
		s.verdict = IsDraining
	case later(c.HeldUntil, at):
		if s.verdict = IsHeld; c.Lost {
			s.verdict = IsLost
		}
	case c.MaxRunning > 0 && int(s.load) >= c.MaxRunning+c.MaxQueue:
		s.verdict = IsFull
	}
	return s
}

// price works out what Terms says of every request.
func (c *Candidate) price(m *perfmodel.ClosedForm, load int, at time.Time, now int64) price {
	b := c.batch(m, load, at)
	wait, head, since := c.wait(m, &b, at)
	if c.Prefills == 0 {
		wait += b.mixed
	}
	p := price{
		since: now - int64(at.Sub(since)), head: float32(head * 1e3), first: float32(wait * 1e3), room: math.MaxFloat32,
		token: float32(1e3 * b.own(m, 1, 0)), pair: float32(1e3 * m.PrefillSecondsPerPair),
		beside: float32(1e3 * (b.mixed - m.PrefillFixedSeconds) / b.stepTokens), places: float32(1e3 * c.places(load) * b.step),
		idle: float32(1e3 * m.PrefillFixedSeconds), behind: float32(2 * b.behind), delayed: float32(b.running + b.behind),
	}
	answer := m.DecodeFixedSeconds + b.shared/2 + (1+b.running/2)*m.DecodeSecondsPerSequence
	if c.KVCapacity > 0 {
		evict := c.evict(m, b.kv)
		p.evict, answer = float32(1e3*evict), answer+evict
		p.room = float32(float64(c.KVCapacity) - b.kv)
	}
	p.answer = float32(1e3 * answer)
	p.length = float32(1e3 * (1 + b.running/2) * m.DecodeSecondsPerKVToken)
	return p
}

// features are what a price is multiplied with: the tokens to be computed and the pairs
// with what they attend to, the tokens of the answer, those times the length of the
// sequence, and what whoever holds most of the prompt has to compute.
type features struct{ tokens, pairs, answer, length, least, leastPairs float32 }

// of is the cost in milliseconds.
func (p *price) of(f *features, now int64) float32 {
	own := p.token*f.tokens + p.pair*f.pairs
	first := p.first + own + p.beside*f.tokens + p.places*f.answer
	if p.head > 0 {
		if done := float32(now-p.since) * 1e-6; done > 0 {
			first -= min(done, p.head)
		}
	}
	ideal := max(p.idle+p.token*f.least+p.pair*f.leastPairs, leastIdleSeconds*1e3)
	return first + first*(first+p.behind*own)/ideal + p.delayed*own + p.evict*f.tokens + p.answer*f.answer + p.length*f.length
}
