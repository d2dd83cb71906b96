package stats

import (
	"math"
	"slices"
)

// Sample is a set of values that can be asked by rank.
type Sample interface {
	// Count is how many values there are.
	Count() int
	// Order is the value that k others do not exceed, for k from 0 to Count−1.
	Order(k int) float64
	// Mean and Std are mean and standard deviation, 0 without values.
	Mean() float64
	Std() float64
}

// Summary is what is usually told of a set of values, all in their unit. Without
// values all of it is 0.
type Summary struct {
	Count int
	Mean  float64
	Std   float64
	Min   float64
	P25   float64
	P50   float64
	P75   float64
	P90   float64
	P95   float64
	P99   float64
	P999  float64 // 99.9
	Max   float64
}

// Summarize sums s up.
func Summarize(s Sample) Summary {
	n := s.Count()
	if n == 0 {
		return Summary{}
	}
	return Summary{
		Count: n, Mean: s.Mean(), Std: s.Std(), Min: s.Order(0), Max: s.Order(n - 1),
		P25: Quantile(s, 0.25), P50: Quantile(s, 0.5), P75: Quantile(s, 0.75), P90: Quantile(s, 0.9),
		P95: Quantile(s, 0.95), P99: Quantile(s, 0.99), P999: Quantile(s, 0.999),
	}
}

// Quantile is the value at rank q·(n−1), between two values in proportion; 0 without
// values. q outside 0 to 1 is taken as the nearer end.
func Quantile(s Sample, q float64) float64 {
	n := s.Count()
	if n == 0 {
		return 0
	}
	k, share := rank(n, q)
	v := s.Order(k)
	if share == 0 {
		return v
	}
	return v + share*(s.Order(k+1)-v)
}

// rank splits q·(n−1) into a whole rank and what is over.
func rank(n int, q float64) (k int, share float64) {
	r := min(max(q, 0), 1) * float64(n-1)
	whole := math.Floor(r)
	return int(whole), r - whole
}

// Exact is a Sample of values that are all kept.
type Exact struct {
	sorted    []float64
	mean, std float64
}

var _, _ Sample = (*Exact)(nil), (*binned)(nil)

// NewExact makes a Sample of values, which it copies.
func NewExact(values []float64) *Exact { return Sorted(slices.Clone(values)) }

// Sorted makes a Sample of values, which it sorts and keeps.
func Sorted(values []float64) *Exact {
	e := &Exact{sorted: values}
	slices.Sort(values)
	if len(values) == 0 {
		return e
	}
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	e.mean = sum / float64(len(values))
	squares := 0.0
	for _, v := range values {
		squares += (v - e.mean) * (v - e.mean)
	}
	e.std = math.Sqrt(squares / float64(len(values)))
	return e
}

// Count is how many values there are.
func (e *Exact) Count() int { return len(e.sorted) }

// Order is the value that k others do not exceed.
func (e *Exact) Order(k int) float64 { return e.sorted[k] }

// Mean is the mean, 0 without values.
func (e *Exact) Mean() float64 { return e.mean }

// Std is the standard deviation of the population, 0 without values.
func (e *Exact) Std() float64 { return e.std }

// Values are the values in ascending order; they belong to e.
func (e *Exact) Values() []float64 { return e.sorted }
