package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// Condition is a statement about a ratio, for scripts that fail when it holds.
type Condition struct {
	text   string
	metric string // Row.ID
	bound  string // "", low or high: the ratio, or a bound of its interval
	above  bool
	equal  bool
	limit  float64
}

// ParseCondition reads METRIC[.low|.high] and one of > >= < <= and a number: for
// example ttft_p99>1.1, or ttft_p99.low>1.1 for a ratio that is surely above.
func ParseCondition(s string) (Condition, error) {
	c := Condition{text: strings.TrimSpace(s)}
	at := strings.IndexAny(s, "<>")
	if at < 0 {
		return c, invalid("%q is not a condition such as ttft_p99>1.1", s)
	}
	name, number := strings.TrimSpace(s[:at]), s[at+1:]
	c.above = s[at] == '>'
	number, c.equal = strings.CutPrefix(number, "=")
	c.metric, c.bound, _ = strings.Cut(name, ".")
	if strings.Contains(name, ".") && c.bound != "low" && c.bound != "high" {
		return c, invalid("%q: after the metric may stand .low or .high, not .%s", s, c.bound)
	}
	if !slices.Contains(metricNames(), c.metric) {
		return c, invalid("%q: %q is no metric; there are %s", s, c.metric, strings.Join(metricNames(), ", "))
	}
	var err error
	if c.limit, err = strconv.ParseFloat(strings.TrimSpace(number), 64); err != nil || math.IsNaN(c.limit) || math.IsInf(c.limit, 0) {
		return c, invalid("%q: %q is not a number", s, strings.TrimSpace(number))
	}
	return c, nil
}

func invalid(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
}

// metricNames are the names that conditions know.
func metricNames() []string {
	var out []string
	for _, m := range latencies {
		for _, s := range statistics {
			out = append(out, m.id+"_"+s.id)
		}
	}
	return append(out, "request_throughput", "output_throughput", "goodput", "failed_share", "cached_share")
}

// String is the condition as it was written.
func (c Condition) String() string { return c.text }

// Holds says for which runs of a comparison the condition holds, by their place in
// Runs. It is an error if the runs do not tell.
func (c Condition) Holds(of *Comparison) ([]int, error) {
	at := slices.IndexFunc(of.Rows, func(r Row) bool { return r.ID == c.metric })
	if at < 0 {
		return nil, invalid("%s cannot be judged: no run has %s", c, c.metric)
	}
	var out []int
	for i, ratio := range of.Rows[at].Ratios {
		if i == 0 {
			continue
		}
		v := ratio.Value
		switch c.bound {
		case "low":
			v = ratio.Low
		case "high":
			v = ratio.High
		}
		if math.IsNaN(v) {
			return nil, invalid("%s cannot be judged: there is no such ratio of %s to %s", c, of.Runs[i].Name, of.Runs[0].Name)
		}
		if v > c.limit && c.above || v < c.limit && !c.above || v == c.limit && c.equal {
			out = append(out, i)
		}
	}
	return out, nil
}
