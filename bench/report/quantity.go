package report

import (
	"math"
	"strconv"
	"time"
)

// quantity is what a number measures; it knows how the number is told.
type quantity uint8

const (
	plain    quantity = iota // a count
	duration                 // seconds
	tokens
	tokenRate   // tokens a second
	requestRate // requests a second
	share       // a part of 1
	ratio
)

// scale is the factor and unit in which values up to most are told.
func (q quantity) scale(most float64) (divisor float64, unit string) {
	most = math.Abs(most)
	switch q {
	case duration:
		switch {
		case most < 1e-6:
			return 1e-9, "ns"
		case most < 1e-3:
			return 1e-6, "µs"
		case most < 1:
			return 1e-3, "ms"
		case most < 600:
			return 1, "s"
		}
		return 60, "min"
	case share:
		return 0.01, "%"
	case ratio:
		return 1, "×"
	}
	divisor, prefix := 1.0, ""
	switch {
	case most >= 1e9:
		divisor, prefix = 1e9, "G"
	case most >= 1e6:
		divisor, prefix = 1e6, "M"
	case most >= 1e4:
		divisor, prefix = 1e3, "k"
	}
	switch q {
	case tokens:
		return divisor, prefix + " tokens"
	case tokenRate:
		return divisor, prefix + " tok/s"
	case requestRate:
		return divisor, prefix + " req/s"
	}
	return divisor, prefix
}

// split is v as a number of three digits and its unit.
func (q quantity) split(v float64) (number, unit string) {
	if v == 0 && q == duration {
		return "0", "ms"
	}
	divisor, unit := q.scale(v)
	if (q == plain || q == tokens) && divisor == 1 && v == math.Trunc(v) {
		return strconv.Itoa(int(v)), unit
	}
	return digits(v/divisor, 3), unit
}

// text is v with its unit.
func (q quantity) text(v float64) string {
	number, unit := q.split(v)
	if q == duration || q == share {
		return number + " " + unit
	}
	return number + unit // its unit brings the space, before or after the prefix
}

// digits is v rounded to n significant digits, never in scientific notation.
func digits(v float64, n int) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return "0"
	}
	after := n - 1 - int(math.Floor(math.Log10(math.Abs(v))+1e-9))
	return strconv.FormatFloat(v, 'f', max(after, 0), 64)
}

// clockText is a span of time as people say it.
func clockText(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
