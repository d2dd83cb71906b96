package kernel

import "math"

// RMSNorm writes (x·r)·weight to dst, r = 1/sqrt(mean(x²)+eps). The squares are
// summed in 16 lanes. dst may be x; all three have the same length.
func (k *Kernels) RMSNorm(dst, x, weight []float32, eps float32) {
	n := len(x)
	dst, weight = dst[:n], weight[:n]
	if n == 0 || k.rmsNormFast(dst, x, weight, eps) {
		return
	}
	var l [lanes]float32
	for i, v := range x {
		l[i%lanes] = fma32(v, v, l[i%lanes])
	}
	r := rmsScale(fold16(&l), n, eps)
	for i, v := range x {
		dst[i] = float32(v*r) * weight[i]
	}
}

// rmsScale is the factor RMSNorm applies, from the sum of n squares. The square
// root of a float32 taken in float64 and narrowed equals the float32 one.
func rmsScale(sum float32, n int, eps float32) float32 {
	mean := sum / float32(n)
	return 1 / float32(math.Sqrt(float64(mean+eps)))
}

// SiluMul writes gate/(1+exp(-gate))·up to dst, which may be gate or up.
func (k *Kernels) SiluMul(dst, gate, up []float32) {
	n := len(dst)
	gate, up = gate[:n], up[:n]
	if n == 0 || k.siluMulFast(dst, gate, up) {
		return
	}
	for i, g := range gate {
		dst[i] = float32(g/(1+exp32(-g))) * up[i]
	}
}

// Add adds x to dst.
func (k *Kernels) Add(dst, x []float32) {
	n := len(dst)
	x = x[:n]
	if n == 0 || k.addFast(dst, x) {
		return
	}
	for i, v := range x {
		dst[i] += v
	}
}

// Rope rotates the pairs of each of the heads in x (heads·headDim values) by
// the angles whose cosines and sines are given, headDim/2 each:
//
//	a, b = a·cos - b·sin, b·cos + a·sin   (each product rounded)
//
// Pair i is (i, i+headDim/2), or (2i, 2i+1) when interleaved.
func (k *Kernels) Rope(x []float32, cos, sin []float32, heads, headDim int, interleaved bool) {
	half := headDim / 2
	cos, sin = cos[:half], sin[:half]
	x = x[:heads*headDim]
	if !interleaved && half > 0 && k.ropeFast(x, cos, sin, heads, half) {
		return
	}
	for ; len(x) > 0; x = x[headDim:] {
		if interleaved {
			for i, c := range cos {
				a, b := x[2*i], x[2*i+1]
				x[2*i], x[2*i+1] = float32(a*c)-float32(b*sin[i]), float32(b*c)+float32(a*sin[i])
			}
			continue
		}
		lo, hi := x[:half], x[half:2*half]
		for i, c := range cos {
			a, b := lo[i], hi[i]
			lo[i], hi[i] = float32(a*c)-float32(b*sin[i]), float32(b*c)+float32(a*sin[i])
		}
	}
}

// LogSumExp returns the largest value of x, which is not empty, and
// log Σ exp(x): x[i] - logSumExp is the log-probability of i. The exponentials
// of x - max are summed in 16 lanes; NaN values are ignored by max alone.
func (k *Kernels) LogSumExp(x []float32) (max, logSumExp float32) {
	max, sum, ok := k.logSumExpFast(x)
	if !ok {
		max = maxOf(x) + 0 // a zero maximum is +0, whichever zero came first
		var l [lanes]float32
		for i, v := range x {
			l[i%lanes] += exp32(v - max)
		}
		sum = fold16(&l)
	}
	if !(sum > 0) || math.IsInf(float64(sum), 0) {
		return max, float32(math.NaN())
	}
	return max, float32(float64(max) + log64(float64(sum)))
}

// maxOf returns the largest value, ignoring NaN, -Inf if there is none.
func maxOf(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

// Argmax returns the index of the largest value of x, the first of equal ones.
// NaN values are never the largest; without any other value it returns 0.
func (k *Kernels) Argmax(x []float32) int {
	if i, ok := k.argmaxFast(x); ok {
		return i
	}
	m, at := float32(math.Inf(-1)), 0
	for i, v := range x {
		if v > m {
			m, at = v, i
		}
	}
	return at
}
