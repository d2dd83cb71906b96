package kernel

import "math"

// lanes is the width every kernel is defined in: 16 float32 values, one
// AVX-512 register or two AVX2 registers.
const lanes = 16

// fma32 returns a*b+c rounded once to float32, as the hardware instruction
// does. The product of two float32 values is exact in float64; only the sum can
// be rounded twice, which matters when the first rounding lands on a midpoint
// between two float32 values or the result is subnormal.
func fma32(a, b, c float32) float32 {
	p := float64(a) * float64(b)
	s := p + float64(c)
	u := math.Float64bits(s)
	e := u >> 52 & 0x7ff
	if u&(1<<29-1) != 1<<28 && e > 1023-126 {
		return float32(s)
	}
	return fma32Slow(p, float64(c), s)
}

// fma32Slow rounds p+c, whose nearest float64 is s, to odd before narrowing it.
// A float64 has more than two bits over a float32, so the two roundings
// together equal one.
func fma32Slow(p, c, s float64) float32 {
	if s == 0 || math.IsInf(s, 0) || s != s {
		return float32(s)
	}
	t := s - p
	err := (p - (s - t)) + (c - t)
	u := math.Float64bits(s)
	if err != 0 && u&1 == 0 {
		if (err > 0) == (s > 0) {
			u++
		} else {
			u--
		}
	}
	return float32(math.Float64frombits(u))
}

// The constants of exp32: argument bounds at which the result has become 0 or
// infinite, log2(e), ln 2 in two parts (the high part has few bits, so n times
// it is exact), and the polynomial of Cephes' expf for (e^r-1-r)/r² on
// |r| ≤ ln2/2.
const (
	expLow    = -105.0
	expHigh   = 89.0
	expLog2E  = 1.44269504088896341
	expLn2Hi  = 0.693359375
	expLn2Lo  = -2.12194440e-4
	expCoeff0 = 1.9875691500e-4
	expCoeff1 = 1.3981999507e-3
	expCoeff2 = 8.3334519073e-3
	expCoeff3 = 4.1665795894e-2
	expCoeff4 = 1.6666665459e-1
	expCoeff5 = 5.0000001201e-1
)

// exp32 is the exponential of every kernel, within 2 units in the last place
// (results below the normal range within one subnormal unit). Each line is one
// rounded operation and is the same at every level.
func exp32(x float32) float32 {
	if x < expLow {
		x = expLow
	}
	if x > expHigh {
		x = expHigh
	}
	n := float32(math.RoundToEven(float64(float32(x * expLog2E))))
	r := fma32(n, -expLn2Hi, x)
	r = fma32(n, -expLn2Lo, r)
	p := fma32(expCoeff0, r, expCoeff1)
	p = fma32(p, r, expCoeff2)
	p = fma32(p, r, expCoeff3)
	p = fma32(p, r, expCoeff4)
	p = fma32(p, r, expCoeff5)
	p = fma32(p, float32(r*r), r)
	p = p + 1
	if p != p {
		return p
	}
	return scale2(p, int32(n))
}

// scale2 returns p·2^n with one rounding, for p near 1 and n in -152…129.
func scale2(p float32, n int32) float32 {
	a := n >> 1
	b := n - a
	p *= math.Float32frombits(uint32(a+127) << 23)
	return p * math.Float32frombits(uint32(b+127)<<23)
}

// fold16 adds 16 partial lanes in the fixed order 8, 4, 2, 1.
func fold16(l *[lanes]float32) float32 {
	for w := lanes / 2; w > 0; w /= 2 {
		for i := 0; i < w; i++ {
			l[i] += l[i+w]
		}
	}
	return l[0]
}

// log64 is the natural logarithm of a finite x > 0, with its operations spelled
// out so that no architecture fuses or replaces them. It follows FreeBSD's
// e_log.c: x = 2^k (1+f), log(1+f) = f - s·(f-R) with s = f/(2+f).
func log64(x float64) float64 {
	const (
		ln2Hi = 6.93147180369123816490e-01
		ln2Lo = 1.90821492927058770002e-10
		l1    = 6.666666666666735130e-01
		l2    = 3.999999999940941908e-01
		l3    = 2.857142874366239149e-01
		l4    = 2.222219843214978396e-01
		l5    = 1.818357216161805012e-01
		l6    = 1.531383769920937332e-01
		l7    = 1.479819860511658591e-01
	)
	f, e := math.Frexp(x)
	if f < math.Sqrt2/2 {
		f *= 2
		e--
	}
	f--
	k := float64(e)
	s := f / (2 + f)
	s2 := float64(s * s)
	s4 := float64(s2 * s2)
	t1 := float64(s2 * (l1 + float64(s4*(l3+float64(s4*(l5+float64(s4*l7)))))))
	t2 := float64(s4 * (l2 + float64(s4*(l4+float64(s4*l6)))))
	r := t1 + t2
	hfsq := float64(float64(0.5*f) * f)
	return float64(k*ln2Hi) - ((hfsq - (float64(s*(hfsq+r)) + float64(k*ln2Lo))) - f)
}
