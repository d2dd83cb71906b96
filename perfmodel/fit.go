package perfmodel

import (
	"math"
	"strconv"
)

// Observation is one measured step.
type Observation struct {
	Batch   Batch
	Seconds float64
}

// Fitted is what Fit found.
type Fitted struct {
	// Model is the closed form of least squares.
	Model ClosedForm
	// StandardError holds the standard error of each coefficient, in its unit; it is
	// +Inf where the log does not determine the coefficient, and of no meaning for
	// one that is zero because a negative one would fit better.
	StandardError ClosedForm
	// RelativeError is the root mean square of (measured − predicted) / predicted
	// over the observations that are no outliers.
	RelativeError float64
	// Outliers is the number of observations farther than 3 robust standard deviations
	// from their prediction. They weigh less the farther they are, none from 6 on.
	Outliers int
	// Rank is the number of coefficients that the log determines, at most 6.
	Rank int
}

const (
	outlierAt   = 3  // robust standard deviations
	rounds      = 16 // of reweighting; a few settle it
	huberRounds = 4
)

// Fit finds the closed form that explains a log of steps: least squares of the
// relative error, over coefficients that are not negative, with the weight of
// outliers reduced. Noiseless logs give their coefficients back if their
// steps vary enough; a log with steps of one kind leaves the other kind free.
func Fit(log []Observation) (*Fitted, error) {
	if len(log) == 0 {
		return nil, invalid("log", "is empty; give it at least one step")
	}
	if len(log) > MaxObservations {
		return nil, invalid("log", "has %d steps, limit %d; thin it", len(log), MaxObservations)
	}
	for i := range log {
		if err := measured("step "+strconv.Itoa(i), log[i].Seconds); err != nil {
			return nil, err
		}
		if _, ok := row(&log[i].Batch, true); !ok {
			return nil, invalid("step "+strconv.Itoa(i), "has neither new tokens nor decoding sequences")
		}
	}
	sides := [2]side{fit(log, true), fit(log, false)}
	best := &sides[0]
	if sides[1].cost(log, best.spreads) < best.cost(log, best.spreads)*(1-1e-9) {
		best = &sides[1]
	}
	return best.fitted(log), nil
}

// fit fits with the fixed part of mixed steps given to one side. Reweighting begins
// with Huber's weights, which find the way from a bad start, and ends with ones
// that leave far outliers out.
func fit(log []Observation, prefillLarger bool) side {
	s := side{spreads: spreads{math.Inf(1), math.Inf(1)}}
	for round := range rounds {
		s.g = gram{}
		for i := range log {
			o := &log[i]
			r, _ := row(&o.Batch, prefillLarger)
			base, weight := o.Seconds, 1.0
			if round > 0 {
				predicted := dot(r, s.x)
				base = max(predicted, o.Seconds/8)
				e := (o.Seconds - predicted) / base
				if weight = huber(e, s.spreads.of(&o.Batch)); round > huberRounds {
					weight = bisquare(e, s.spreads.of(&o.Batch))
				}
			}
			s.g.add(r, o.Seconds, weight/(base*base))
		}
		before := s.x
		s.x, s.free = s.g.nonNegative(s.free)
		s.spreads = spread(log, s.x, prefillLarger)
		if round > huberRounds+1 && near(before, s.x) {
			break
		}
	}
	return s
}

// cost scores what a side found by the model's own rule for mixed steps; an outlier
// costs as much as any other.
func (s *side) cost(log []Observation, by spreads) float64 {
	m := closedForm(s.x)
	cost := 0.0
	for i := range log {
		p := m.StepSeconds(&log[i].Batch)
		e := min(math.Abs(log[i].Seconds-p)/p, outlierAt*by.of(&log[i].Batch))
		cost += e * e
	}
	return cost
}

// fitted describes a side.
func (s *side) fitted(log []Observation) *Fitted {
	f := &Fitted{Model: closedForm(s.x), Rank: s.g.rank()}
	kept, squares := 0, 0.0
	for i := range log {
		p := f.Model.StepSeconds(&log[i].Batch)
		e := (log[i].Seconds - p) / p
		if math.Abs(e) > outlierAt*s.spreads.of(&log[i].Batch) {
			f.Outliers++
			continue
		}
		kept++
		squares += e * e
	}
	f.RelativeError = math.Sqrt(squares / float64(max(1, kept)))
	f.StandardError = standardErrors(&s.g, s.free, f.RelativeError)
	return f
}

// bisquare is Tukey's weight: near 1 for small errors, 0 for those twice as far as
// an outlier begins.
func bisquare(e, scale float64) float64 {
	u := e / (2 * outlierAt * scale)
	if u = 1 - u*u; u <= 0 {
		return 0
	}
	return u * u
}

// huber is the weight of a relative error at a robust scale.
func huber(e, scale float64) float64 {
	if a := math.Abs(e); a > outlierAt*scale {
		return outlierAt * scale / a
	}
	return 1
}

// spreads are robust standard deviations of the relative error: of steps with new
// tokens, and of decode alone, which as a rule vary less.
type spreads [2]float64

func (s *spreads) of(b *Batch) float64 { return s[kind(b)] }

func kind(b *Batch) int {
	if n, _ := b.work(); n > 0 {
		return 0
	}
	return 1
}

// spreadFloor keeps small deviations from counting as outliers where most steps agree
// to the last digit, as with clocks of milliseconds.
const spreadFloor = 0.01

// spread estimates standard deviations from the median of the errors' sizes, found
// by counting in bins of equal ratio: to a hundredth, without a copy of the log.
func spread(log []Observation, x vector, prefillLarger bool) spreads {
	const bins, decades, smallest = 2048, 8, 1e-5
	var count [2][bins]int
	var all [2]int
	for i := range log {
		r, _ := row(&log[i].Batch, prefillLarger)
		p := max(dot(r, x), log[i].Seconds/8)
		e := max(math.Abs(log[i].Seconds-p)/p, smallest)
		k := kind(&log[i].Batch)
		count[k][min(int(math.Log10(e/smallest)/decades*bins), bins-1)]++
		all[k]++
	}
	var s spreads
	for k := range s {
		seen, at := 0, 0
		for ; at < bins-1; at++ {
			if seen += count[k][at]; 2*seen >= all[k] {
				break
			}
		}
		median := smallest * math.Pow(10, (float64(at)+0.5)/bins*decades)
		s[k] = max(spreadFloor, 1.4826*median)
	}
	return s
}

func near(a, b vector) bool {
	for i := range a {
		if math.Abs(a[i]-b[i]) > 1e-9*math.Abs(b[i]) {
			return false
		}
	}
	return true
}

// standardErrors are those of the free coefficients; dependent ones are +Inf.
func standardErrors(g *gram, set uint, scale float64) ClosedForm {
	var errs vector
	c, ok := g.factor(everything)
	if !ok {
		c, ok = g.factor(set)
	}
	for i := range errs {
		var unit vector
		unit[i] = 1
		inverse := 0.0
		if ok {
			inverse = c.solve(unit)[i]
		}
		if inverse > 0 {
			errs[i] = scale * math.Sqrt(inverse)
		} else {
			errs[i] = math.Inf(1)
		}
	}
	return closedForm(errs)
}
