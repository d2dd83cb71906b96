package trace

import (
	"math"
	"math/bits"
	"time"
)

// Salts keep what is made for different purposes apart.
const (
	saltShareGPT uint64 = 0x5368617265475054 + iota
	saltSynth
	saltNode
	saltSegment
	saltBlock
	saltSub
	saltGroup
	saltEpoch
	saltUnique
	saltTail
	saltTokens
	saltJitter
	saltGap
	saltPick
	saltDelta
)

// mix combines two numbers into one whose bits depend on all of theirs.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^0x9e3779b97f4a7c15, bits.RotateLeft64(b, 32)^0xd1b54a32d192ed03)
	h := hi ^ lo ^ a + bits.RotateLeft64(b, 17)
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}

// random is a stream of numbers that depends on its key alone.
type random struct{ key, n uint64 }

func newRandom(parts ...uint64) random {
	var key uint64
	for _, p := range parts {
		key = mix(key, p)
	}
	return random{key: key}
}

// bits64 is 64 random bits.
func (r *random) bits64() uint64 {
	r.n++
	return mix(r.key, r.n)
}

// float is uniform in (0,1).
func (r *random) float() float64 { return (float64(r.bits64()>>11) + 0.5) / (1 << 53) }

// below is uniform in 0…n-1.
func (r *random) below(n int) int {
	hi, _ := bits.Mul64(r.bits64(), uint64(n))
	return int(hi)
}

// normal has mean 0 and variance 1.
func (r *random) normal() float64 {
	return math.Sqrt(-2*math.Log(r.float())) * math.Cos(2*math.Pi*r.float())
}

// exp has mean 1.
func (r *random) exp() float64 { return -math.Log(r.float()) }

// gamma has the given shape and mean 1 (Marsaglia and Tsang 2000).
func (r *random) gamma(shape float64) float64 {
	k, boost := shape, 1.0
	if k < 1 {
		boost = math.Pow(r.float(), 1/k)
		k++
	}
	d := k - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.normal()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v = v * v * v
		if math.Log(r.float()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v * boost / shape
		}
	}
}

// geometric counts trials until the first success, 1 and more, with the given
// mean.
func (r *random) geometric(mean float64) int {
	if mean <= 1 {
		return 1
	}
	n := 1 + math.Floor(math.Log(r.float())/math.Log(1-1/mean))
	return int(min(n, 1e6))
}

// zipf draws ranks 0…n-1 with weights 1/(rank+1)^s.
type zipf struct{ sums []float64 }

func newZipf(n int, s float64) zipf {
	z := zipf{make([]float64, n)}
	sum := 0.0
	for i := range z.sums {
		sum += math.Pow(float64(i+1), -s)
		z.sums[i] = sum
	}
	return z
}

func (z zipf) draw(r *random) int {
	if len(z.sums) < 2 {
		return 0
	}
	x := r.float() * z.sums[len(z.sums)-1]
	lo, hi := 0, len(z.sums)-1
	for lo < hi {
		if m := (lo + hi) / 2; z.sums[m] < x {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// seconds is a number of seconds as a duration, to the microsecond, so that it is
// the same after being written and read.
func seconds(s float64) time.Duration { return millis(s * 1000) }
