package native

import (
	"cmp"
	"math"
	"slices"
)

// candidate is an id that may be drawn.
type candidate struct {
	id    int32
	logit float32
}

// compare is the one order of candidates: likelier first, equal ones by id. It is
// total, so every cut through it is unique.
func (c candidate) compare(o candidate) int {
	return cmp.Or(cmp.Compare(o.logit, c.logit), cmp.Compare(c.id, o.id))
}

// ahead reports whether c comes before o in the order of compare.
func (c candidate) ahead(o candidate) bool {
	return c.logit > o.logit || c.logit == o.logit && c.id < o.id
}

// field is a set of candidates in the order of their ids, its logits side by side
// for the vector kernels.
type field struct {
	ids    []int32
	logits []float32
}

// grow makes room for n candidates, and forgets what f holds.
func (f *field) grow(n int) {
	if cap(f.ids) < n || cap(f.logits) < n {
		f.ids, f.logits = make([]int32, n), make([]float32, n)
	}
	f.ids, f.logits = f.ids[:n], f.logits[:n]
}

func (f *field) cut(n int) { f.ids, f.logits = f.ids[:n], f.logits[:n] }

// gather makes f the ids of row whose logits are numbers of at least bound. (Here
// and in split every value is written and only the count depends on it: logits are
// random to a branch predictor.)
func (f *field) gather(row []float32, bound float32) {
	bound = max(bound, -math.MaxFloat32)
	f.grow(len(row))
	ids, logits, n := f.ids, f.logits, 0
	for id, v := range row {
		ids[n], logits[n] = int32(id), v
		n += one(v >= bound)
	}
	f.cut(n)
}

// one is 1 for true.
func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// keep reduces f to the candidates up to and including cut.
func (f *field) keep(cut candidate) {
	n := 0
	for i, v := range f.logits {
		c := candidate{f.ids[i], v}
		f.ids[n], f.logits[n] = c.id, c.logit
		n += one(!cut.ahead(c))
	}
	f.cut(n)
}

// sorted appends the candidates of f to dst, in their order.
func (f *field) sorted(dst []candidate) []candidate {
	for i, id := range f.ids {
		dst = append(dst, candidate{id, f.logits[i]})
	}
	slices.SortFunc(dst, candidate.compare)
	return dst
}

// split puts the candidates of f with logits of at least bound into upper and the
// others into lower.
func (f *field) split(bound float32, upper, lower *field) {
	upper.grow(len(f.ids))
	lower.grow(len(f.ids))
	u, l := 0, 0
	for i, v := range f.logits {
		id, up := f.ids[i], one(v >= bound)
		upper.ids[u], upper.logits[u] = id, v
		lower.ids[l], lower.logits[l] = id, v
		u += up
		l += 1 - up
	}
	upper.cut(u)
	lower.cut(l)
}

// exp64 is e^x for x ≤ 0 with a relative error below 1e-10. Every operation is
// rounded on its own (the conversions forbid fusing), so the result is the same on
// every machine; math.Exp promises no such thing.
func exp64(x float64) float64 {
	if x < -700 {
		return 0
	}
	const (
		log2E = 1.44269504088896338700e+00
		ln2Hi = 6.93147180369123816490e-01
		ln2Lo = 1.90821492927058770002e-10
	)
	n := math.RoundToEven(float64(x * log2E))
	r := float64(x-float64(n*ln2Hi)) - float64(n*ln2Lo)
	r2 := float64(r * r)
	r4 := float64(r2 * r2)
	// The Taylor polynomial of degree 9, evaluated in pairs: |r| ≤ ln2/2.
	p := 1 + r
	q := 1.0/2 + float64(r*(1.0/6))
	s := 1.0/24 + float64(r*(1.0/120))
	u := 1.0/720 + float64(r*(1.0/5040))
	v := 1.0/40320 + float64(r*(1.0/362880))
	low := p + float64(r2*q)
	high := s + float64(r2*u) + float64(r4*v)
	return float64((low + float64(r4*high)) * math.Float64frombits(uint64(int64(n)+1023)<<52))
}

// exp64Any is exp64 for either sign.
func exp64Any(x float64) float64 {
	if x > 0 {
		return 1 / exp64(-x)
	}
	return exp64(x)
}

// depth is the distance below the largest logit at which a probability is share
// times the largest, for a share in (0, 1]: where exp64(-depth) falls below it.
func depth(share float64) float64 {
	low, high := 0.0, 700.0
	for range 60 {
		if middle := (low + high) / 2; exp64(-middle) >= share {
			low = middle
		} else {
			high = middle
		}
	}
	return low
}
