package placement

import (
	"math"
	"time"

	"github.com/dynamo-go/dynamo/perfmodel"
)

// table is candidates worked out, each at its index: what decisions ask of all of them in
// few bytes each, and what they ask of a few apart from that.
type table struct {
	rows    []row
	prices  []price
	details []detail
	// blocks are the prices once more, as costBlocks takes them; none where there is no
	// such code.
	blocks []block
	// Of the request: what each candidate has to compute of it, which overlap says so,
	// from 1, and what that costs. overlaps are all 0 between decisions.
	tokens, pairs []float32
	overlaps      []int32
	costs         []float32
}

// row is a candidate worked out. It holds as long as the candidate does not change, and
// until a time.
type row struct {
	until int64 // nanoseconds, as price.since is
	score Score // before anything is known of the request
	role  Role
}

// detail is what the record of a decision says of a candidate, beside its price: who it
// is, and of what the price's numbers are made.
type detail struct {
	key          Key
	name         uint64 // of which its ties are made
	rank         int32
	reported     int64 // when its report came; never: none has
	step         float32
	others       float32 // of answer, what those that run lose
	othersLength float32 // of length, the same
	known        bool    // its model is its own
}

const (
	never  = math.MinInt64
	always = math.MaxInt64
)

// resize makes the table one of n candidates. Those that it gains are to be worked out.
func (t *table) resize(n int) {
	t.rows, t.prices, t.details, t.overlaps = resized(t.rows, n), resized(t.prices, n), resized(t.details, n), resized(t.overlaps, n)
	blocks := (n + lanes - 1) / lanes
	if hasCostBlocks {
		t.blocks = resized(t.blocks, blocks)
	}
	t.tokens, t.pairs, t.costs = resized(t.tokens, blocks*lanes), resized(t.pairs, blocks*lanes), resized(t.costs, blocks*lanes)
}

func resized[T any](s []T, n int) []T {
	if n > len(s) {
		return append(s, make([]T, n-len(s))...)
	}
	return s[:n]
}

// work works a candidate out at a time, which is also given in the rows' nanoseconds.
func (t *table) work(i int, c *Candidate, m *perfmodel.ClosedForm, at time.Time, now int64) {
	r, p, x := &t.rows[i], &t.prices[i], &t.details[i]
	fresh := c.fresh(at)
	*r = row{until: always, score: c.stand(at, fresh), role: c.Role}
	for _, t := range [...]*time.Time{&c.HeldUntil, &c.DoubtedUntil} {
		if later(*t, at) {
			r.until = min(r.until, now+int64(t.Sub(at)))
		}
	}
	*p, *x = c.price(m, int(r.score.Load), at, now)
	x.key, x.rank, x.name, x.known, x.reported = c.Key, c.Rank, c.name(), m == &c.Model, never
	if !c.Report.At.IsZero() {
		x.reported = now - int64(at.Sub(c.Report.At))
		if fresh {
			r.until = min(r.until, x.reported+int64(ReportFresh))
		}
	}
	if hasCostBlocks {
		t.blocks[i/lanes].set(i%lanes, p)
	}
}

// hold takes in what the candidates hold of a request, until release. Whoever holds some in
// slower tiers has no number of tokens to compute.
func (t *table) hold(r *Request, whole *features) {
	fill(t.tokens, whole.tokens)
	fill(t.pairs, whole.pairs)
	n, size, slower := len(t.rows), r.size(), float32(math.NaN())
	overlaps, tokens, pairs := t.overlaps[:n], t.tokens[:n], t.pairs[:n]
	for k := range r.Overlaps {
		o := &r.Overlaps[k]
		i := int(o.Candidate)
		if uint(i) >= uint(n) {
			continue
		}
		overlaps[i] = int32(k + 1)
		held, all := r.onDevice(o)
		if tokens[i], pairs[i] = left(size, held); !all {
			tokens[i] = slower
		}
	}
}

// fill makes all of s v.
func fill(s []float32, v float32) {
	for i := range min(len(s), 2*lanes) {
		s[i] = v
	}
	for n := 2 * lanes; n < len(s); n *= 2 {
		copy(s[n:], s[:n])
	}
}

func (t *table) release(r *Request) {
	for k := range r.Overlaps {
		if i := r.Overlaps[k].Candidate; uint(i) < uint(len(t.rows)) {
			t.overlaps[i] = 0
		}
	}
}

// cost costs all candidates by their prices, for the request that is held. What is not below
// maxCost is not said by the price.
func (t *table) cost(f features, now int64) []float32 {
	if hasCostBlocks && len(t.blocks) > 0 {
		costBlocks(&t.costs[0], &t.blocks[0], len(t.blocks), &t.tokens[0], &t.pairs[0], &f, now)
		return t.costs[:len(t.rows)]
	}
	for i := range t.prices {
		f.tokens, f.pairs = t.tokens[i], t.pairs[i]
		t.costs[i] = t.prices[i].of(&f, now)
	}
	return t.costs[:len(t.rows)]
}
