package placement

import (
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
	table      table
	stale      []int32 // rows to be worked out, each once
	scores     []Score
	prior      perfmodel.ClosedForm
	base       time.Time // from which the rows' times are counted
	soonest    int64     // no row ends before
	turns      turns
}

// Candidates are those of the fleet, to be read: the next change may move them.
func (f *Fleet) Candidates() []Candidate { return f.candidates }

// Len is how many there are.
func (f *Fleet) Len() int { return len(f.candidates) }

// Add adds a candidate and returns its index, which it keeps until another is removed.
func (f *Fleet) Add(c Candidate) int {
	f.candidates = append(f.candidates, c)
	f.table.resize(len(f.candidates))
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
	f.candidates = f.candidates[:last]
	f.table.resize(last)
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
	if r := &f.table.rows[i]; r.until != never {
		r.until = never
		f.stale = append(f.stale, int32(i))
	}
}

// Decide chooses among the candidates. The decision is valid until the next one, or
// change.
func (f *Fleet) Decide(p Params, r Request) (d Decision) {
	d.Params, d.Request = p, r
	d.now = f.refresh(&d.Params, r.Now)
	d.Candidates, d.table = f.candidates, &f.table
	d.Scores = slices.Grow(f.scores[:0], len(f.candidates))[:len(f.candidates)]
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
		for i := range f.table.rows {
			f.table.rows[i].until = always
			f.touch(i)
		}
	}
	for _, i := range f.stale {
		if int(i) < len(f.candidates) {
			f.work(p, int(i), at, now)
		}
	}
	f.stale = f.stale[:0]
	if f.soonest <= now {
		f.soonest = always
		for i := range f.table.rows {
			row := &f.table.rows[i]
			if row.until <= now {
				f.work(p, i, at, now)
			}
			f.soonest = min(f.soonest, row.until)
		}
	}
	return now
}

func (f *Fleet) work(p *Params, i int, at time.Time, now int64) {
	c := &f.candidates[i]
	if f.turns.valid && f.turns.of[i] != c.Turn {
		f.turns.move(int32(i), c.Turn)
	}
	f.table.work(i, c, p.model(c), at, now)
	f.soonest = min(f.soonest, f.table.rows[i].until)
}
