package perfmodel

import "math"

// OnlineConfig configures an Online.
type OnlineConfig struct {
	// Forgetting is the weight that an observation keeps per later one, in (0, 1]. 1
	// remembers everything; 0.999 is a memory of about a thousand steps. Default 0.999.
	Forgetting float64
	// Prior is what is believed before the first observation; zero for nothing.
	Prior ClosedForm
	// PriorSteps is how many observations the prior is worth. Default 0.001: it
	// decides only where nothing is observed.
	PriorSteps float64
}

// DefaultOnlineConfig returns the defaults.
func DefaultOnlineConfig() OnlineConfig {
	return OnlineConfig{Forgetting: 0.999, PriorSteps: 1e-3}
}

// Validate refuses what no estimator can work with.
func (c *OnlineConfig) Validate() error {
	if !(c.Forgetting > 0.5) || c.Forgetting > 1 {
		return invalid("forgetting", "must be above 0.5 and at most 1, is %v", c.Forgetting)
	}
	if !(c.PriorSteps > 0) || c.PriorSteps > 1e6 {
		return invalid("prior_steps", "must be above 0 and at most 1e6, is %v", c.PriorSteps)
	}
	if c.Prior == (ClosedForm{}) {
		return nil
	}
	return c.Prior.Validate()
}

// typical are magnitudes of a step's row; the prior is equally firm along each.
var typical = vector{1, 1e3, 1e6, 1, 32, 3e4}

const (
	warmup       = 2 * coefficients // observations before outliers are told apart
	spreadMemory = 0.98             // what the estimate of the noise keeps per observation
	sideMemory   = 0.995            // what the score of a side keeps per observation
	spreadStart  = 0.3              // of the relative error, before it is known
	spreadLeast  = 1e-3             // of the relative error; clocks are no better
	typicalStep  = 0.01             // seconds, before a step is seen
)

// Online follows the closed form of a running engine by recursive least squares of
// the relative error with exponential forgetting, in information form: it keeps the
// 6×6 normal equations, so each observation is a rank-one update and the state is
// exactly that of weighted batch least squares. Coefficients are never negative.
//
// Directions that observations do not excite (a constant batch, decode without
// prefill for hours) do not blow up: what forgetting takes is replaced by a small
// pull towards the present estimate, so they keep their value while their
// uncertainty grows to the prior's. Outliers weigh less the farther they are, and
// raise the noise estimate, so a machine that changes for good is followed.
type Online struct {
	config OnlineConfig
	// sides hold the estimate, over rows divided by typical, under either rule of who
	// pays the fixed part of a mixed step: prefill in the first, decode in the second.
	sides [2]side
	at    int // the side whose rule its own estimate obeys
	model ClosedForm
	firm  float64 // weight of the prior along each typical direction
	noise float64 // mean square of the relative error
	count int
}

// NewOnline returns an estimator that believes c.Prior.
func NewOnline(c OnlineConfig) (*Online, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	o := &Online{config: c, noise: spreadStart * spreadStart}
	o.believe(typicalStep)
	return o, nil
}

// believe starts from the prior, weighed as observations of steps of so many seconds.
func (o *Online) believe(seconds float64) {
	o.firm = o.config.PriorSteps / (seconds * seconds)
	for k := range o.sides {
		s := &o.sides[k]
		*s = side{free: everything}
		for i, p := range o.config.Prior.vector() {
			s.x[i] = p * typical[i]
			s.g.a[i][i] = o.firm
			s.g.b[i] = o.firm * s.x[i]
			s.g.yy += o.firm * s.x[i] * s.x[i]
		}
		s.full, s.known = s.g.factor(everything)
	}
	o.choose()
}

// Observe takes a measured step in. It refuses an empty batch and a duration that
// is not positive and at most MaxStepSeconds.
func (o *Online) Observe(b *Batch, seconds float64) error {
	if err := measured("seconds", seconds); err != nil {
		return err
	}
	r, ok := scaledRow(b, o.at)
	if !ok {
		return invalid("batch", "has neither new tokens nor decoding sequences")
	}
	if o.count == 0 {
		o.believe(seconds)
	}
	base, weight := seconds, 1.0
	if o.count >= warmup {
		predicted := dot(r, o.sides[o.at].x)
		base = max(predicted, seconds/8)
		e := (seconds - predicted) / base
		weight = huber(e, math.Sqrt(o.noise+o.variance(r)/(base*base)))
		e = min(math.Abs(e), outlierAt*math.Sqrt(o.noise))
		o.noise = max(spreadLeast*spreadLeast, spreadMemory*o.noise+(1-spreadMemory)*e*e)
	}
	for k := range o.sides {
		s := &o.sides[k]
		r, _ := scaledRow(b, k)
		e := min(math.Abs(seconds-dot(r, s.x))/base, outlierAt*math.Sqrt(o.noise)+1e-9)
		s.square = sideMemory*s.square + (1-sideMemory)*e*e
		s.learn(r, seconds, weight/(base*base), o.config.Forgetting, o.firm)
	}
	o.count++
	o.choose()
	return nil
}

// learn forgets and takes a row in. What forgetting takes is replaced by a pull
// towards the present estimate; in all the pull never exceeds the prior's weight.
func (s *side) learn(r vector, y, weight, keep, firm float64) {
	if keep < 1 {
		pull := (1 - keep) * firm
		s.g.yy *= keep
		for i := range s.g.a {
			for j := range s.g.a[i] {
				s.g.a[i][j] *= keep
			}
			s.g.a[i][i] += pull
			s.g.b[i] = keep*s.g.b[i] + pull*s.x[i]
			s.g.yy += pull * s.x[i] * s.x[i]
		}
	}
	s.g.add(r, y, weight)
	s.x, s.free = s.g.nonNegative(s.free)
	s.full, s.known = s.g.factor(everything)
}

// choose takes the side that obeys its own rule; if both or neither do, the one that
// has predicted better.
func (o *Online) choose() {
	prefill, decode := &o.sides[0], &o.sides[1]
	first, second := prefill.x[0] >= prefill.x[3], decode.x[0] <= decode.x[3]
	o.at = 0
	if first == second && decode.square < prefill.square || !first && second {
		o.at = 1
	}
	var v vector
	for i, x := range o.sides[o.at].x {
		v[i] = x / typical[i]
	}
	o.model = closedForm(v)
}

// scaledRow is b's row over typical magnitudes, under the rule of a side.
func scaledRow(b *Batch, side int) (vector, bool) {
	r, ok := row(b, side == 0)
	for i := range r {
		r[i] /= typical[i]
	}
	return r, ok
}

// variance is that of the mean prediction for a row.
func (o *Online) variance(r vector) float64 {
	s := &o.sides[o.at]
	if !s.known {
		return math.Inf(1)
	}
	return o.noise * max(0, dot(r, s.full.solve(r)))
}

// Predict says how long b takes and how sure that is: the standard error of the
// mean, which for steps unlike all observed is larger than the prediction. It does
// not allocate.
func (o *Online) Predict(b *Batch) (seconds, standardError float64) {
	r, _ := scaledRow(b, o.at)
	return o.model.StepSeconds(b), math.Sqrt(o.variance(r))
}

// Model returns the present estimate, which is valid once a step was observed.
func (o *Online) Model() ClosedForm { return o.model }

// Count returns the number of observations taken in.
func (o *Online) Count() int { return o.count }

// RelativeNoise is the estimated standard deviation of a step around its prediction,
// relative to it.
func (o *Online) RelativeNoise() float64 { return math.Sqrt(o.noise) }
