package report

import (
	"math"
	"strconv"
)

// axis maps values to a place between 0 and 1 and knows where its ticks are.
type axis struct {
	low, high float64
	log       bool
	ticks     []tick
	unit      string
}

type tick struct {
	at   float64
	text string
}

// place is where v lies: 0 is the low end, 1 the high one. What lies outside is put at
// the nearer end.
func (a *axis) place(v float64) float64 {
	low, high := a.low, a.high
	if a.log {
		v, low, high = math.Log(max(v, low)), math.Log(low), math.Log(high)
	}
	return min(max((v-low)/(high-low), 0), 1)
}

// linearAxis covers low to high with about n round steps. Its ends are ticks.
func linearAxis(q quantity, low, high float64, n int) axis {
	if !(high > low) {
		high = low + max(math.Abs(low), 1)
		if q == duration && low == 0 {
			high = 1e-3
		}
	}
	divisor, unit := q.scale(high)
	step := niceStep((high-low)/divisor/float64(n), whole(q) && divisor == 1)
	first, last := math.Floor(low/divisor/step+1e-9), math.Ceil(high/divisor/step-1e-9)
	a := axis{low: first * step * divisor, high: max(last*step*divisor, high), unit: unit}
	after := decimals(step)
	// Values that lie too close together for their size have no steps between them.
	for i := 0; i <= maxTicks && first+float64(i) <= last; i++ {
		v := (first + float64(i)) * step
		a.ticks = append(a.ticks, tick{v * divisor, strconv.FormatFloat(v, 'f', after, 64)})
	}
	return a
}

// decimals is how many digits after the point tell multiples of step apart.
func decimals(step float64) int {
	after := max(0, -int(math.Floor(math.Log10(step)+1e-9)))
	if shifted := step * math.Pow(10, float64(after)); math.Abs(shifted-math.Round(shifted)) > 1e-6 {
		after++
	}
	return after
}

// openAxis is like linearAxis but ends where the values end, as time does.
func openAxis(q quantity, low, high float64, n int) axis {
	a := linearAxis(q, low, high, n)
	if high > low {
		a.low, a.high = low, high
	}
	inside := a.ticks[:0]
	for _, t := range a.ticks {
		if t.at >= a.low-1e-9*(a.high-a.low) && t.at <= a.high+1e-9*(a.high-a.low) {
			inside = append(inside, t)
		}
	}
	a.ticks = inside
	return a
}

// whole says that q comes in whole numbers.
func whole(q quantity) bool { return q == plain || q == tokens }

// niceStep is the least of 1, 2, 2.5 and 5 times a power of ten that is not below v;
// with integer, a whole one.
func niceStep(v float64, integer bool) float64 {
	if integer && v <= 1 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if step := m * power; step >= v*(1-1e-9) && !(integer && step != math.Trunc(step)) {
			return step
		}
	}
	return 10 * power
}

// logAxis covers low to high, both above 0, with ticks at powers of ten, and at 2 and
// 5 times them where there is room for n.
func logAxis(q quantity, low, high float64, n int) axis {
	if !(high > low) {
		low, high = low/2, low*2
	}
	a := axis{low: low, high: high, log: true}
	decades := math.Log10(high / low)
	steps := []float64{1, 2, 5}
	if 3*decades > float64(n) {
		steps = steps[:1]
	}
	divisor, unit := q.scale(math.Sqrt(low * high))
	a.unit = unit
	for e := math.Floor(math.Log10(low)) - 1; e <= math.Ceil(math.Log10(high)); e++ {
		for _, m := range steps {
			v := m * math.Pow(10, e)
			if v >= low*(1-1e-9) && v <= high*(1+1e-9) {
				a.ticks = append(a.ticks, tick{v, strconv.FormatFloat(cleaned(v/divisor), 'f', -1, 64)})
			}
		}
	}
	return a
}

// cleaned is v without what its computation added in the last places.
func cleaned(v float64) float64 {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 6, 64), 64)
	if err != nil {
		return v
	}
	return rounded
}

// valueAxis is logarithmic where positive values spread over more than two decades.
func valueAxis(q quantity, low, high float64, n int) axis {
	if low > 0 && high > 100*low {
		return logAxis(q, low, high, n+3)
	}
	return openAxis(q, low, high, n)
}
