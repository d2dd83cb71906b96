package kernel

import "math"

// halfToFloat widens an IEEE binary16 value exactly. A NaN stays one.
func halfToFloat(h uint16) float32 {
	// The exponent and fraction moved into place are the value times 2^-112,
	// subnormals included; multiplying back is exact.
	m := uint32(h&0x7fff) << 13
	f := math.Float32bits(math.Float32frombits(m) * 0x1p112)
	if h&0x7c00 == 0x7c00 {
		f = m | 0x7f800000
	}
	return math.Float32frombits(f | uint32(h&0x8000)<<16)
}

// floatToHalf rounds to the nearest binary16 value, ties to even; values beyond
// its range become infinite.
func floatToHalf(f float32) uint16 {
	u := math.Float32bits(f)
	sign := uint16(u >> 16 & 0x8000)
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000:
		return sign | 0x7e00 | uint16(u>>13&0x3ff)
	case u >= 0x47800000:
		return sign | 0x7c00
	case u < 0x38800000:
		// Adding 0.5 aligns the fraction of a subnormal result with the low
		// bits of the sum, rounded to even by the addition.
		s := math.Float32frombits(u) + 0.5
		return sign | uint16(math.Float32bits(s)-0x3f000000)
	}
	u += 0xfff + u>>13&1
	return sign | uint16((u-(127-15)<<23)>>13)
}

// bfloatToFloat widens a bfloat16 value exactly.
func bfloatToFloat(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// floatToBfloat rounds to the nearest bfloat16 value, ties to even.
func floatToBfloat(f float32) uint16 {
	u := math.Float32bits(f)
	if u&0x7fffffff > 0x7f800000 {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}
