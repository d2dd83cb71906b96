package stats

import (
	"math"
	"slices"
)

// Bootstrap says how intervals are found: by the percentile method over Resamples
// draws with replacement. It takes values as independent of each other; what differs
// from one run to the next is not in them.
type Bootstrap struct {
	// Seed makes the draws; the same seed and data give the same interval.
	Seed uint64
	// Resamples is the number of draws; 0 is 2,000.
	Resamples int
	// Confidence is the part of the draws inside the interval; 0 is 0.95.
	Confidence float64
}

// Interval is a figure and the bounds it lies within at the asked confidence.
type Interval struct{ Value, Low, High float64 }

// Excludes says that v is outside the interval.
func (i Interval) Excludes(v float64) bool { return v < i.Low || v > i.High }

// Statistic is what is asked of a Sample: its mean, or a quantile.
type Statistic struct {
	quantile float64
	mean     bool
}

// Mean is the statistic of the mean.
func Mean() Statistic { return Statistic{mean: true} }

// AtQuantile is the statistic of the quantile q, from 0 to 1.
func AtQuantile(q float64) Statistic { return Statistic{quantile: q} }

// Of is the statistic's value of s.
func (t Statistic) Of(s Sample) float64 {
	if t.mean {
		return s.Mean()
	}
	return Quantile(s, t.quantile)
}

// Interval is the interval of one statistic.
func (b Bootstrap) Interval(s Sample, t Statistic) Interval {
	if s.Count() == 0 {
		return Interval{}
	}
	r := source(b.Seed)
	draws, redraw := make([]float64, b.resamples()), t.redrawer(s)
	for i := range draws {
		draws[i] = redraw(&r)
	}
	return b.interval(t.Of(s), draws)
}

// Ratio is the interval of a statistic of to, divided by that of from. It is all NaN
// where one has no values or from's statistic is 0.
func (b Bootstrap) Ratio(from, to Sample, t Statistic) Interval {
	if from.Count() == 0 || to.Count() == 0 || t.Of(from) == 0 {
		return undefined()
	}
	r := source(b.Seed)
	draws := make([]float64, b.resamples())
	above, below := t.redrawer(to), t.redrawer(from)
	for i := range draws {
		draws[i] = above(&r) / below(&r)
	}
	return b.interval(t.Of(to)/t.Of(from), draws)
}

func undefined() Interval {
	return Interval{Value: math.NaN(), Low: math.NaN(), High: math.NaN()}
}

func (b Bootstrap) resamples() int {
	if b.Resamples <= 0 {
		return 2000
	}
	return min(b.Resamples, maxResamples)
}

// interval cuts the tails off draws, which it sorts. Draws that are not numbers (0/0)
// are left out.
func (b Bootstrap) interval(value float64, draws []float64) Interval {
	draws = slices.DeleteFunc(draws, math.IsNaN)
	if len(draws) == 0 {
		return undefined()
	}
	confidence := b.Confidence
	if confidence <= 0 || confidence >= 1 {
		confidence = 0.95
	}
	s := Sorted(draws)
	return Interval{Value: value, Low: Quantile(s, (1-confidence)/2), High: Quantile(s, (1+confidence)/2)}
}

// redrawer returns a function whose value is the statistic of one draw with
// replacement, of as many values as s has.
func (t Statistic) redrawer(s Sample) func(r *source) float64 {
	n := s.Count()
	if !t.mean {
		return func(r *source) float64 { return t.redrawQuantile(s, r) }
	}
	if n > resampleMeanMax {
		mean, spread := s.Mean(), s.Std()/math.Sqrt(float64(n))
		return func(r *source) float64 { return mean + r.normal()*spread }
	}
	values := make([]float64, n)
	for i := range values {
		values[i] = s.Order(i)
	}
	return func(r *source) float64 {
		sum := 0.0
		for range values {
			sum += values[r.below(n)]
		}
		return sum / float64(n)
	}
}

func (t Statistic) redrawQuantile(s Sample, r *source) float64 {
	n := s.Count()
	// The k-th smallest of n uniform numbers has a beta distribution, and given it the
	// next one is the smallest of the n−k above it: two numbers stand for n draws.
	k, share := rank(n, t.quantile)
	u := r.beta(float64(k+1), float64(n-k))
	v := s.Order(int(u * float64(n)))
	if share == 0 {
		return v
	}
	next := 1 - (1-u)*math.Pow(r.uniform(), 1/float64(n-k-1))
	return v + share*(s.Order(min(int(next*float64(n)), n-1))-v)
}

// BlockRatio is the interval of the ratio of the means of two series of rates: to over
// from. Neighbours in a series are alike, so it draws runs of block values.
func (b Bootstrap) BlockRatio(from, to []float64, block int) Interval {
	mean := Sorted(slices.Clone(from)).Mean()
	if len(from) == 0 || len(to) == 0 || mean == 0 {
		return undefined()
	}
	r := source(b.Seed)
	draws := make([]float64, b.resamples())
	for i := range draws {
		draws[i] = blockMean(to, block, &r) / blockMean(from, block, &r)
	}
	return b.interval(Sorted(slices.Clone(to)).Mean()/mean, draws)
}

// blockMean is the mean of as many values as there are, drawn in runs; a run that
// reaches the end goes on at the start.
func blockMean(values []float64, block int, r *source) float64 {
	n := len(values)
	block = min(max(block, 1), n)
	sum := 0.0
	for drawn := 0; drawn < n; {
		at := r.below(n)
		for range min(block, n-drawn) {
			sum += values[at]
			if at++; at == n {
				at = 0
			}
			drawn++
		}
	}
	return sum / float64(n)
}

// PairedRatios is like Ratio for each of t, where from[i] and to[i] are of the same
// request: both sides of a pair are drawn together, so what makes requests differ from
// each other does not widen the interval.
func (b Bootstrap) PairedRatios(from, to []float64, t []Statistic) []Interval {
	if len(from) != len(to) {
		panic("BUG: stats: pairs of unequal number")
	}
	out := make([]Interval, len(t))
	whole := [2]*Exact{NewExact(from), NewExact(to)}
	from, to = thin(from), thin(to)
	n := len(from)
	if n == 0 {
		for i := range out {
			out[i] = undefined()
		}
		return out
	}
	sides := [2]pairSide{newPairSide(from), newPairSide(to)}
	weight := make([]uint32, n)
	draws := make([][]float64, len(t))
	r := source(b.Seed)
	for range b.resamples() {
		clear(weight)
		for range n {
			weight[r.below(n)]++
		}
		for i, stat := range t {
			draws[i] = append(draws[i], sides[1].at(stat, weight)/sides[0].at(stat, weight))
		}
	}
	for i, stat := range t {
		out[i] = b.interval(stat.Of(whole[1])/stat.Of(whole[0]), draws[i])
	}
	return out
}

// thin keeps at most maxPairs of values, evenly spread.
func thin(values []float64) []float64 {
	if len(values) <= maxPairs {
		return values
	}
	kept := make([]float64, maxPairs)
	for i := range kept {
		kept[i] = values[i*len(values)/maxPairs]
	}
	return kept
}

// pairSide is one side of pairs: its values, and their places in ascending order.
type pairSide struct {
	values []float64
	order  []int32
}

func newPairSide(values []float64) pairSide {
	order := make([]int32, len(values))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(x, y int32) int {
		switch a, b := values[x], values[y]; {
		case a < b:
			return -1
		case a > b:
			return 1
		}
		return 0
	})
	return pairSide{values: values, order: order}
}

// at is a statistic of the values, each taken as often as its weight says.
func (s pairSide) at(t Statistic, weight []uint32) float64 {
	n := len(s.values)
	if t.mean {
		sum := 0.0
		for i, v := range s.values {
			sum += v * float64(weight[i])
		}
		return sum / float64(n)
	}
	k, share := rank(n, t.quantile)
	// Walk from the nearer end: the tail of a p99 is short.
	if k < n/2 {
		return s.walk(weight, k, share)
	}
	seen, upper := n, math.NaN()
	for i := n - 1; i >= 0; i-- {
		at := s.order[i]
		seen -= int(weight[at])
		if math.IsNaN(upper) && seen <= k+1 {
			upper = s.values[at]
		}
		if seen <= k {
			return s.values[at] + share*(upper-s.values[at])
		}
	}
	panic("BUG: stats: weights do not add up")
}

func (s pairSide) walk(weight []uint32, k int, share float64) float64 {
	seen, lower, found := 0, 0.0, false
	for _, at := range s.order {
		seen += int(weight[at])
		if !found && seen > k {
			lower, found = s.values[at], true
			if share == 0 {
				return lower
			}
		}
		if seen > k+1 {
			return lower + share*(s.values[at]-lower)
		}
	}
	return lower
}
