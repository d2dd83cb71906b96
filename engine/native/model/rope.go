package model

import (
	"fmt"
	"math"
)

// RopeScaling stretches the rotary embedding beyond the context a model was
// first trained with.
type RopeScaling struct {
	// Type is "" (none), "linear" or "llama3".
	Type string
	// Factor divides the frequencies; with llama3 only the low ones.
	Factor float64
	// LowFactor, HighFactor and OriginalContext, of llama3, bound the wavelengths
	// between which frequencies go over from unchanged to divided.
	LowFactor, HighFactor float64
	OriginalContext       int
}

// check reports scalings that are not computed here, by name.
func (r RopeScaling) check(path string) error {
	switch r.Type {
	case "":
		return nil
	case "linear":
		if r.Factor > 0 && r.Factor < 1e6 {
			return nil
		}
	case "llama3":
		if r.Factor > 0 && r.Factor < 1e6 && r.LowFactor > 0 && r.HighFactor > r.LowFactor && r.OriginalContext > 0 {
			return nil
		}
	default:
		return invalid("%s uses rope scaling of type %q, which is not supported (linear and llama3 are): use another model", path, r.Type)
	}
	return invalid("%s has rope scaling %s with impossible numbers %s: download it again", path, r.Type,
		fmt.Sprintf("(factor %g, low %g, high %g, original context %d)", r.Factor, r.LowFactor, r.HighFactor, r.OriginalContext))
}

// frequencies returns the angle per position of each pair of a head, as
// transformers computes them. divisors, unless nil, come from the file and
// divide them further.
func (c *Config) frequencies(divisors []float32) []float32 {
	out := make([]float32, c.HeadDim/2)
	for i := range out {
		f := 1 / math.Pow(c.RopeTheta, float64(2*i)/float64(c.HeadDim))
		out[i] = float32(c.RopeScaling.apply(f))
		if divisors != nil {
			out[i] = float32(f) / divisors[i]
		}
	}
	return out
}

// apply scales one frequency.
func (r RopeScaling) apply(f float64) float64 {
	switch r.Type {
	case "linear":
		return f / r.Factor
	case "llama3":
		wavelength := 2 * math.Pi / f
		low, high := float64(r.OriginalContext)/r.LowFactor, float64(r.OriginalContext)/r.HighFactor
		switch {
		case wavelength < high:
			return f
		case wavelength > low:
			return f / r.Factor
		}
		smooth := (float64(r.OriginalContext)/wavelength - r.LowFactor) / (r.HighFactor - r.LowFactor)
		return (1-smooth)*f/r.Factor + smooth*f
	}
	return f
}

// angles writes the cosines and sines of one position. The angle is rounded to
// float32 first, as transformers does.
func angles(cos, sin, frequencies []float32, position int) {
	for i, f := range frequencies {
		s, c := math.Sincos(float64(float32(position) * f))
		cos[i], sin[i] = float32(c), float32(s)
	}
}
