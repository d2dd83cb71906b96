package index

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// object is a JSON object that is written member by member, in order.
type object struct{ out []byte }

func (o *object) member(name string) {
	if len(o.out) == 0 {
		o.out = append(o.out, '{')
	} else {
		o.out = append(o.out, ',')
	}
	o.out = append(strconv.AppendQuote(o.out, name), ':')
}

func (o *object) text(name, v string) { o.member(name); o.out = strconv.AppendQuote(o.out, v) }

func (o *object) int(name string, v int64) { o.member(name); o.out = strconv.AppendInt(o.out, v, 10) }

func (o *object) hex(name string, v uint64) { o.text(name, fmt.Sprintf("%016x", v)) }

func (o *object) float(name string, v float64, digits int) {
	o.member(name)
	o.out = strconv.AppendFloat(o.out, v, 'f', digits, 64)
}

// percentiles sorts took.
func (o *object) percentiles(name string, took []time.Duration) {
	slices.Sort(took)
	o.float(name+"p50_us", micros(took, 0.5), 2)
	o.float(name+"p99_us", micros(took, 0.99), 2)
	o.float(name+"p999_us", micros(took, 0.999), 2)
}

// micros is a percentile of sorted durations.
func micros(took []time.Duration, p float64) float64 {
	if len(took) == 0 {
		return 0
	}
	return float64(took[int(float64(len(took)-1)*p)].Nanoseconds()) / 1e3
}

func (o *object) bytes() []byte { return append(o.out, '}') }
