package trace

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"time"
)

// The processes by which sessions begin.
const (
	ArrivalPoisson  = "poisson"  // gaps of exponential length
	ArrivalConstant = "constant" // equal gaps
	ArrivalGamma    = "gamma"    // gaps of gamma length with the given CV: above 1 bursty, below 1 regular
	ArrivalRamp     = "ramp"     // Poisson whose rate goes from Rate to To within Period, and stays there
	ArrivalSine     = "sine"     // Poisson whose rate swings around Rate by the share Amplitude, once a Period
)

// Arrival says when things begin.
type Arrival struct {
	// Process is one of the constants.
	Process string
	// Rate is how many come in a second, on average.
	Rate float64
	// CV is the coefficient of variation of the gaps, for gamma.
	CV float64
	// To is the last rate of a ramp.
	To float64
	// Period is the length of a ramp, or of one swing: 24 h for days.
	Period time.Duration
	// Amplitude is the share of Rate by which it swings, 0 to 1.
	Amplitude float64
}

// Arrivals lists the processes.
func Arrivals() []string {
	return []string{ArrivalPoisson, ArrivalConstant, ArrivalGamma, ArrivalRamp, ArrivalSine}
}

// Validate reports all faults at once.
func (a *Arrival) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !(a.Rate > 0 && a.Rate <= 1e6) {
		fault("--rate is %v; it must be above 0 and at most a million a second", a.Rate)
	}
	switch a.Process {
	case ArrivalPoisson, ArrivalConstant:
	case ArrivalGamma:
		if !(a.CV >= 0.01 && a.CV <= 100) {
			fault("--burstiness is %v; it must be within 0.01 and 100", a.CV)
		}
	case ArrivalRamp:
		if !(a.To > 0 && a.To <= 1e6) || a.Period <= 0 {
			fault("a ramp needs --rate-to above 0 and --period above 0; they are %v and %v", a.To, a.Period)
		}
	case ArrivalSine:
		if !(a.Amplitude >= 0 && a.Amplitude <= 1) || a.Period <= 0 {
			fault("a swing needs --amplitude within 0 and 1 and --period above 0; they are %v and %v", a.Amplitude, a.Period)
		}
	default:
		fault("--arrival: %q is none of %v", a.Process, Arrivals())
	}
	return errors.Join(faults...)
}

// Times yields the times of arrivals for ever, from a seed.
func (a *Arrival) Times(seed uint64) iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		r := newRandom(seed, saltGap)
		for sum := 0.0; ; {
			switch a.Process {
			case ArrivalConstant:
				sum++
			case ArrivalGamma:
				sum += r.gamma(1 / (a.CV * a.CV))
			default:
				sum += r.exp()
			}
			t := a.when(sum)
			if t > maxMillis/1000 || !yield(seconds(t)) {
				return
			}
		}
	}
}

// when returns the time in seconds at which n arrivals are due: the inverse of the
// summed rate.
func (a *Arrival) when(n float64) float64 {
	period := a.Period.Seconds()
	switch a.Process {
	case ArrivalRamp:
		slope := (a.To - a.Rate) / period
		if whole := (a.Rate + a.To) / 2 * period; n >= whole {
			return period + (n-whole)/a.To
		}
		if slope == 0 {
			return n / a.Rate
		}
		return 2 * n / (a.Rate + math.Sqrt(a.Rate*a.Rate+2*slope*n)) // of the two roots the stable one
	case ArrivalSine:
		w := 2 * math.Pi / period
		due := func(t float64) float64 { return a.Rate * (t + a.Amplitude*(1-math.Cos(w*t))/w) }
		lo, hi := 0.0, n/a.Rate // the swing only adds, so that n is due by then
		for range 60 {
			if m := (lo + hi) / 2; due(m) < n {
				lo = m
			} else {
				hi = m
			}
		}
		return hi
	}
	return n / a.Rate
}
