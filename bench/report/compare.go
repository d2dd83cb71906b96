package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// Verdict is what a ratio and its interval say.
type Verdict string

// The verdicts. Unknown is where no interval could be found.
const (
	Faster       Verdict = "faster"
	Slower       Verdict = "slower"
	NoDifference Verdict = "no difference seen"
	Unknown      Verdict = "–"
)

// Comparison sets runs side by side. The first is what the others are measured by.
type Comparison struct {
	Runs        []*Run
	Differences []Difference
	Rows        []Row
	// Notes say what a reader has to know: where intervals come from, which records
	// were not used.
	Notes []string
}

// Difference is something that is not the same in all runs; a missing value is "".
type Difference struct {
	What   string
	Values []string
}

// Row is a metric: its value in each run, and the ratio of each to the first.
type Row struct {
	// ID is the metric's name in conditions, as in ttft_p99; Name is for people.
	ID, Name string
	Values   []float64
	// Ratios and Verdicts have an entry for each run; that of the first is 1. A ratio
	// without interval has NaN bounds, one that does not exist is NaN.
	Ratios   []stats.Interval
	Verdicts []Verdict

	measures quantity
}

// CompareOptions are the options of a comparison.
type CompareOptions struct {
	// Bootstrap says how intervals are found.
	Bootstrap stats.Bootstrap
}

// statistics are those of a latency that are compared.
var statistics = []struct {
	id, name string
	of       stats.Statistic
	summary  func(s stats.Summary) float64
}{
	{"mean", "mean", stats.Mean(), func(s stats.Summary) float64 { return s.Mean }},
	{"p50", "p50", stats.AtQuantile(0.5), func(s stats.Summary) float64 { return s.P50 }},
	{"p90", "p90", stats.AtQuantile(0.9), func(s stats.Summary) float64 { return s.P90 }},
	{"p99", "p99", stats.AtQuantile(0.99), func(s stats.Summary) float64 { return s.P99 }},
}

// latency is a metric that is compared.
type latency struct {
	id, name string
	of       func(r *bench.Result) (stats.Summary, *stats.Histogram)
	record   func(r *bench.Record) (float64, bool) // nil if records do not have it
}

var latencies = []latency{
	{"ttft", "Time to first token",
		func(r *bench.Result) (stats.Summary, *stats.Histogram) { return r.TTFT, r.TTFTHist },
		func(r *bench.Record) (float64, bool) { return r.TTFT(), r.First > 0 }},
	{"itl", "Inter-token latency",
		func(r *bench.Result) (stats.Summary, *stats.Histogram) { return r.ITL, r.ITLHist },
		(*bench.Record).ITL},
	{"icl", "Gap between events",
		func(r *bench.Result) (stats.Summary, *stats.Histogram) { return r.ICL, r.ICLHist }, nil},
	{"tpot", "Time per output token",
		func(r *bench.Result) (stats.Summary, *stats.Histogram) { return r.TPOT, nil },
		(*bench.Record).TPOT},
	{"e2e", "Request latency",
		func(r *bench.Result) (stats.Summary, *stats.Histogram) { return r.E2E, r.E2EHist },
		func(r *bench.Record) (float64, bool) { return r.E2E(), true }},
}

// Compare sets two or more runs side by side.
func Compare(runs []*Run, o CompareOptions) (*Comparison, error) {
	if len(runs) < 2 || len(runs) > maxRuns {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("a comparison takes 2 to %d runs, not %d", maxRuns, len(runs))}
	}
	c := &Comparison{Runs: runs, Differences: differences(runs)}
	for _, run := range runs {
		if run.Note != "" {
			c.Notes = append(c.Notes, "Records not used: "+run.Note+".")
		}
	}
	for _, m := range latencies {
		c.Rows = append(c.Rows, compareLatency(runs, m, o)...)
	}
	c.Rows = append(c.Rows, compareRates(runs, o)...)
	c.note()
	return c, nil
}

// note says where the intervals come from.
func (c *Comparison) note() {
	for i, run := range c.Runs[1:] {
		how := "over the histograms, as not both runs have records"
		switch {
		case pairsOf(c.Runs[0], run) != nil:
			how = "over the requests of the records in pairs, request i of one run with request i of the other"
		case run.Records != nil && c.Runs[0].Records != nil:
			how = "over the requests of the records, not in pairs, as the runs' requests are not the same"
		}
		c.Notes = append(c.Notes, fmt.Sprintf("%s/A: 95 %% bootstrap intervals %s; of rates, over stretches of %d seconds.", letter(i+1), how, blockSeconds))
	}
	c.Notes = append(c.Notes, "They cover chance within these runs. What differs from run to run (placement, frequency, neighbours) takes several runs of each to see.")
}

// pair is a request that two runs answered whole.
type pair struct{ from, to *bench.Record }

// pairsOf returns the requests that both runs answered, if they are the same requests
// in most of their answers; else nil.
func pairsOf(from, to *Run) []pair {
	if from.Records == nil || to.Records == nil {
		return nil
	}
	byIndex := make(map[int]*bench.Record, len(from.Records))
	for i := range from.Records {
		if r := &from.Records[i]; r.Whole() {
			byIndex[r.Index] = r
		}
	}
	var out []pair
	for i := range to.Records {
		r := &to.Records[i]
		if f := byIndex[r.Index]; f != nil && r.Whole() && f.Input == r.Input {
			out = append(out, pair{f, r})
		}
	}
	if 10*len(out) < 9*max(from.Result.Requests, to.Result.Requests) {
		return nil
	}
	return out
}

func compareLatency(runs []*Run, m latency, o CompareOptions) []Row {
	rows := make([]Row, len(statistics))
	for i, s := range statistics {
		rows[i] = Row{ID: m.id + "_" + s.id, Name: m.name + ", " + s.name, measures: duration}
	}
	for at, run := range runs {
		summary, _ := m.of(run.Result)
		ratios := make([]stats.Interval, len(statistics))
		if at > 0 {
			ratios = latencyRatios(runs[0], run, m, o)
		}
		for i, s := range statistics {
			rows[i].Values = append(rows[i].Values, s.summary(summary))
			rows[i].add(at, ratios[i], false)
		}
	}
	if slices.Max(rows[0].Values) == 0 {
		return nil // no run has it
	}
	return rows
}

// add adds the ratio of the run at: its value is that of the values shown.
func (r *Row) add(at int, ratio stats.Interval, higherIsFaster bool) {
	if at == 0 {
		r.Ratios, r.Verdicts = append(r.Ratios, stats.Interval{Value: 1, Low: 1, High: 1}), append(r.Verdicts, Unknown)
		return
	}
	ratio.Value = math.NaN()
	if r.Values[0] != 0 {
		ratio.Value = r.Values[at] / r.Values[0]
	}
	verdict := NoDifference
	switch {
	case math.IsNaN(ratio.Value) || math.IsNaN(ratio.Low) || math.IsNaN(ratio.High):
		verdict = Unknown
	case ratio.Excludes(1) && (ratio.Low > 1) == higherIsFaster:
		verdict = Faster
	case ratio.Excludes(1):
		verdict = Slower
	}
	r.Ratios, r.Verdicts = append(r.Ratios, ratio), append(r.Verdicts, verdict)
}

// latencyRatios are the intervals of each of statistics, to over from: of pairs where
// the requests are the same, of records where there are, else of histograms.
func latencyRatios(from, to *Run, m latency, o CompareOptions) []stats.Interval {
	out := make([]stats.Interval, len(statistics))
	asked := make([]stats.Statistic, len(statistics))
	for i, s := range statistics {
		asked[i] = s.of
		out[i] = stats.Interval{Value: math.NaN(), Low: math.NaN(), High: math.NaN()}
	}
	if m.record != nil {
		var a, b []float64
		for _, p := range pairsOf(from, to) {
			x, ok := m.record(p.from)
			y, okToo := m.record(p.to)
			if ok && okToo {
				a, b = append(a, x), append(b, y)
			}
		}
		if len(a) > 0 {
			few := o.Bootstrap
			if few.Resamples == 0 {
				few.Resamples = min(max(20_000_000/len(a), 500), 2000)
			}
			return few.PairedRatios(a, b, asked)
		}
	}
	a, binned := sampleOf(from, m)
	b, binnedToo := sampleOf(to, m)
	if a == nil || b == nil {
		return out
	}
	for i := range out {
		out[i] = o.Bootstrap.Ratio(a, b, asked[i])
		if binned || binnedToo { // each is within 0.1 %
			out[i].Low, out[i].High = out[i].Low*0.998, out[i].High*1.002
		}
	}
	return out
}

// sampleOf is the metric's values in a run; nil if it does not hold them.
func sampleOf(run *Run, m latency) (s stats.Sample, binned bool) {
	if m.record != nil && run.Records != nil {
		var values []float64
		for i := range run.Records {
			if r := &run.Records[i]; r.Whole() {
				if v, ok := m.record(r); ok {
					values = append(values, v)
				}
			}
		}
		return stats.Sorted(values), false
	}
	if _, h := m.of(run.Result); h != nil {
		if n := run.Result.Requests; h.Count() > n && n > 0 {
			// Several values of one request are alike: they tell no more than one.
			return &thinned{h.Sample(), n}, true
		}
		return h.Sample(), true
	}
	return nil, false
}

// thinned is a sample that counts for n values, of which it has more.
type thinned struct {
	stats.Sample
	n int
}

// Count is how many values the sample counts for.
func (t *thinned) Count() int { return t.n }

// Order is the value of that rank among n evenly spread ones.
func (t *thinned) Order(k int) float64 {
	all := t.Sample.Count()
	return t.Sample.Order(min(int((float64(k)+0.5)/float64(t.n)*float64(all)), all-1))
}

// blockSeconds is how long neighbours of a series are taken to be alike.
const blockSeconds = 5

func compareRates(runs []*Run, o CompareOptions) []Row {
	var out []Row
	for _, m := range []struct {
		id, name string
		measures quantity
		of       func(r *bench.Result) float64
		series   func(s stretch) float64
	}{
		{"request_throughput", "Answers per second", requestRate, func(r *bench.Result) float64 { return r.RequestThroughput }, func(s stretch) float64 { return s.finished }},
		{"output_throughput", "Output tokens per second", tokenRate, func(r *bench.Result) float64 { return r.OutputThroughput }, func(s stretch) float64 { return s.tokens }},
		{"goodput", "Goodput", requestRate, func(r *bench.Result) float64 { return r.Goodput }, nil},
		{"failed_share", "Failed requests", share, failedShare, nil},
		{"cached_share", "Prompt tokens from cache", share, cachedShare, nil},
	} {
		row := Row{ID: m.id, Name: m.name, measures: m.measures}
		for at, run := range runs {
			row.Values = append(row.Values, m.of(run.Result))
			ratio := stats.Interval{Low: math.NaN(), High: math.NaN()}
			if m.series != nil && at > 0 {
				ratio = o.Bootstrap.BlockRatio(rates(runs[0].Result, m.series), rates(run.Result, m.series), blockSeconds)
			}
			row.add(at, ratio, true)
		}
		if slices.Max(row.Values) > 0 {
			out = append(out, row)
		}
	}
	return out
}

// rates are the values of a series, second by second; nil if they are too few to tell
// chance from load.
func rates(r *bench.Result, of func(s stretch) float64) []float64 {
	all := stretches(r)
	if len(all) < 2*blockSeconds {
		return nil
	}
	out := make([]float64, len(all))
	for i, s := range all {
		out[i] = of(s)
	}
	return out
}

func failedShare(r *bench.Result) float64 {
	n := errorCount(r)
	return float64(n) / float64(max(n+r.Requests, 1))
}

func cachedShare(r *bench.Result) float64 {
	in := r.InputTokens.Mean * float64(r.InputTokens.Count)
	if in == 0 {
		return 0
	}
	return float64(r.CachedTokens) / in
}

// outputFlags say where results go, not what is measured.
var outputFlags = []string{"output", "records", "gaps", "json", "quiet", "pid"}

// differences are what is not the same in all runs, what matters most first.
func differences(runs []*Run) []Difference {
	var out []Difference
	add := func(what string, of func(r *bench.Result) string) {
		d := Difference{What: what}
		for _, run := range runs {
			d.Values = append(d.Values, clipped(of(run.Result), maxValueShown))
		}
		if len(slices.Compact(slices.Clone(d.Values))) > 1 {
			out = append(out, d)
		}
	}
	add("machine", func(r *bench.Result) string { return r.Machine })
	add("version", func(r *bench.Result) string { return r.Version })
	add("client was the bottleneck", func(r *bench.Result) string { return r.Client.Why })
	add("ended early", func(r *bench.Result) string { return r.Partial })
	names := map[string]bool{}
	for _, run := range runs {
		for name := range run.Result.Config {
			names[name] = !slices.Contains(outputFlags, name)
		}
	}
	maps.DeleteFunc(names, func(_ string, matters bool) bool { return !matters })
	for _, name := range slices.Sorted(maps.Keys(names)) {
		add("--"+name, func(r *bench.Result) string { return r.Config[name] })
	}
	add("requests answered", func(r *bench.Result) string { return strconv.Itoa(r.Requests) })
	add("requests failed", func(r *bench.Result) string { return strconv.Itoa(errorCount(r)) })
	add("mean prompt", func(r *bench.Result) string { return tokens.text(math.Round(r.InputTokens.Mean)) })
	add("mean answer", func(r *bench.Result) string { return tokens.text(math.Round(r.OutputTokens.Mean)) })
	add("output lengths from", func(r *bench.Result) string { return r.TokensFrom })
	add("goodput targets", func(r *bench.Result) string { return targetText(r) })
	return out
}

func targetText(r *bench.Result) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.GoodputTargets)) {
		parts = append(parts, name+" ≤ "+duration.text(r.GoodputTargets[name].Seconds()))
	}
	return strings.Join(parts, ", ")
}
