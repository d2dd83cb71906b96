//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// The columns of the table.
var columns = []string{"ours", "ours, sums", "machine", "NIXL", "NIXL tcp", "Mooncake"}

// row is one measure: how long each system took, in nanoseconds.
type row struct {
	name    string
	unit    string // GB/s, µs or ms
	bytes   int64  // of one sample, for GB/s
	samples map[string][]int64
}

type table struct{ rows []*row }

func (t *table) row(name, unit string, bytes int64) *row {
	r := &row{name, unit, bytes, map[string][]int64{}}
	t.rows = append(t.rows, r)
	return r
}

func (r *row) add(system string, ns int64) { r.samples[system] = append(r.samples[system], ns) }

// at returns the value of a system: of so many percent of the samples none takes longer.
func (r *row) at(system string, percent int) float64 {
	s := slices.Sorted(slices.Values(r.samples[system]))
	ns := float64(s[min(len(s)-1, len(s)*percent/100)])
	switch r.unit {
	case "GB/s":
		return float64(r.bytes) / ns
	case "ms":
		return ns / 1e6
	}
	return ns / 1e3
}

// ratio is how one system compares with another: of GB/s above 1 is better, of times
// below.
func (r *row) ratio(system, other string) string {
	if len(r.samples[system]) == 0 || len(r.samples[other]) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", r.at(system, 50)/r.at(other, 50))
}

// best is the best of some systems, by its median.
func (r *row) best(of []string) (best string) {
	for _, s := range of {
		if len(r.samples[s]) > 0 && (best == "" || (r.at(s, 50) > r.at(best, 50)) == (r.unit == "GB/s")) {
			best = s
		}
	}
	return best
}

func (t *table) print(to io.Writer) {
	w := tabwriter.NewWriter(to, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "measure\tunit\t%s\tours ÷ machine\tsums ÷ machine\tsums ÷ ours\tours ÷ best peer\n", strings.Join(columns, "\t"))
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s", r.name, r.unit)
		for _, c := range columns {
			switch {
			case len(r.samples[c]) == 0:
				fmt.Fprint(w, "\t–")
			case len(r.samples[c]) == 1:
				fmt.Fprintf(w, "\t%.4g", r.at(c, 50))
			default:
				fmt.Fprintf(w, "\t%.4g (%.4g)", r.at(c, 50), r.at(c, 99))
			}
		}
		sums := r.ratio("ours, sums", "ours")
		fmt.Fprintf(w, "\t%s\t%s\t%s\t%s\n", r.ratio("ours", "machine"), r.ratio("ours, sums", "machine"), sums, r.ratio("ours", r.best(columns[3:])))
	}
	_ = w.Flush() // what it writes to reports its faults
	fmt.Fprintln(to, "\nmedians, in brackets the 99th percentile of the time; machine: a copy by as many threads, a bare connection, O_DIRECT calls, a bare eventfd or, for tcp, a bare message one way")
}
