package kernel

import (
	"math"
	"math/big"
	"testing"
)

// fmaBig is a*b+c rounded once, by arbitrary precision.
func fmaBig(a, b, c float32) float32 {
	x := new(big.Float).SetPrec(2000).SetFloat64(float64(a))
	x.Mul(x, big.NewFloat(float64(b)))
	x.Add(x, big.NewFloat(float64(c)))
	f, _ := x.Float32()
	return f
}

func TestFMA32RoundsOnce(t *testing.T) {
	r := newRand(20)
	for i := 0; i < 60000; i++ {
		a, b, c := math.Float32frombits(r.Uint32()), math.Float32frombits(r.Uint32()), math.Float32frombits(r.Uint32())
		switch i % 3 {
		case 1: // sums whose float64 rounding lands on a float32 midpoint
			a, b = 1+float32(r.IntN(8))*0x1p-12, 1+float32(r.IntN(8))*0x1p-13
			c = float32(math.Ldexp(float64(1+r.IntN(3)), -60+r.IntN(70)))
			if r.IntN(2) == 0 {
				c = -c
			}
		case 2: // subnormal results
			a, b = float32(math.Ldexp(1+r.Float64(), -70)), float32(math.Ldexp(1+r.Float64(), -70-r.IntN(12)))
			c = math.Float32frombits(r.Uint32() & 0x807fffff)
		}
		if a != a || b != b || c != c || math.IsInf(float64(a), 0) || math.IsInf(float64(b), 0) || math.IsInf(float64(c), 0) {
			continue
		}
		if got, want := fma32(a, b, c), fmaBig(a, b, c); got != want {
			t.Fatalf("fma32(%g, %g, %g) = %g, want %g", a, b, c, got, want)
		}
	}
}

func TestExp32Accuracy(t *testing.T) {
	worst := 0.0
	for x := float32(-87); x < 88.5; x += 0.00713 {
		want := math.Exp(float64(x))
		f := float32(want)
		ulp := float64(math.Nextafter32(f, float32(math.Inf(1))) - f)
		worst = max(worst, math.Abs(float64(exp32(x))-want)/ulp)
	}
	t.Logf("largest error %.3f units in the last place", worst)
	if worst > 1.5 {
		t.Errorf("largest error is %.3f units in the last place", worst)
	}
	for _, c := range []struct{ x, want float32 }{
		{0, 1}, {float32(math.Inf(-1)), 0}, {float32(math.Inf(1)), float32(math.Inf(1))}, {-200, 0}, {200, float32(math.Inf(1))},
	} {
		if got := exp32(c.x); got != c.want {
			t.Errorf("exp32(%g) = %g, want %g", c.x, got, c.want)
		}
	}
	for x := float32(-104); x < -87; x += 0.01 {
		if got, want := exp32(x), math.Exp(float64(x)); math.Abs(float64(got)-want) > 0x1p-149 {
			t.Errorf("exp32(%g) = %g, want %g", x, got, want)
		}
	}
	if x := exp32(float32(math.NaN())); x == x {
		t.Errorf("exp32(NaN) = %g", x)
	}
}

func TestLog64Accuracy(t *testing.T) {
	r := newRand(21)
	for i := 0; i < 20000; i++ {
		x := math.Exp(r.Float64()*40 - 10)
		if got, want := log64(x), math.Log(x); math.Abs(got-want) > 1e-15*math.Max(1, math.Abs(want)) {
			t.Fatalf("log64(%g) = %g, want %g", x, got, want)
		}
	}
}

func TestHalfRoundTrip(t *testing.T) {
	for h := 0; h < 1<<16; h++ {
		f := halfToFloat(uint16(h))
		if f != f {
			continue
		}
		if got := floatToHalf(f); got != uint16(h) {
			t.Fatalf("half %04x becomes %g becomes %04x", h, f, got)
		}
	}
	// Between neighbours the nearer wins, and the even one at the middle.
	for h := uint16(0); h < 0x7bff; h++ {
		a, b := float64(halfToFloat(h)), float64(halfToFloat(h+1))
		even := h + h&1
		for _, c := range []struct {
			x    float64
			want uint16
		}{{a + (b-a)*0.499, h}, {(a + b) / 2, even}, {a + (b-a)*0.501, h + 1}} {
			if got := floatToHalf(float32(c.x)); got != c.want {
				t.Fatalf("floatToHalf(%g) = %04x, want %04x", c.x, got, c.want)
			}
		}
	}
	if floatToHalf(65520) != 0x7c00 || floatToHalf(-1e9) != 0xfc00 || floatToHalf(65519) != 0x7bff {
		t.Error("values beyond the range do not become infinite")
	}
}

func TestBfloatRoundsToNearestEven(t *testing.T) {
	for _, c := range []struct {
		bits uint32
		want uint16
	}{{0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81}, {0x7fc00000, 0x7fc0}, {0x7f800001, 0x7fc0}, {0xff7fffff, 0xff80}} {
		if got := floatToBfloat(math.Float32frombits(c.bits)); got != c.want {
			t.Errorf("floatToBfloat(%08x) = %04x, want %04x", c.bits, got, c.want)
		}
	}
}
