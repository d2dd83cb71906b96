package stats

import "math"

// source is a stream of random bits (splitmix64), wholly told by its seed.
type source uint64

func (r *source) bits() uint64 {
	*r += 0x9e3779b97f4a7c15
	x := uint64(*r)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// uniform is in (0, 1).
func (r *source) uniform() float64 { return (float64(r.bits()>>12) + 0.5) / (1 << 52) }

// below is in 0 … n−1; its bias is below n/2^32.
func (r *source) below(n int) int { return int((r.bits() >> 32) * uint64(n) >> 32) }

// normal is standard normal (Box and Muller).
func (r *source) normal() float64 {
	return math.Sqrt(-2*math.Log(r.uniform())) * math.Cos(2*math.Pi*r.uniform())
}

// gamma has the given shape ≥ 1 and scale 1 (Marsaglia and Tsang).
func (r *source) gamma(shape float64) float64 {
	d := shape - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.normal()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v *= v * v
		if math.Log(r.uniform()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}

// beta has the given shapes, both ≥ 1; it is below 1.
func (r *source) beta(a, b float64) float64 {
	x, y := r.gamma(a), r.gamma(b)
	return min(x/(x+y), 1-1.0/(1<<53))
}
