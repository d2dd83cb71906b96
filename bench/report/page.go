package report

import (
	"bytes"
	_ "embed" // the page
	"fmt"
	"html/template"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/stats"
)

//go:embed page.html
var pageText string

// pageTemplate is the page of a run and that of a comparison. It is well-formed XML:
// its script holds neither < nor &.
var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"svg": func(c *chart) template.HTML { return template.HTML(c.svg(false)) }, // escaped by the chart
}).Parse(pageText))

// page is what the template shows.
type page struct {
	Title, Subtitle string
	Facts           []string
	Warnings        []warning
	Tiles           []tile
	Sections        []section
}

type warning struct{ Head, Text string }

type tile struct{ Name, Value, Unit, Note string }

type section struct {
	Title, Note string
	Charts      []*chart
	Table       *table
}

// table is rows of cells; the first column is a heading.
type table struct {
	Head    []string
	Rows    [][]string
	Numbers bool
}

// Readings is the chart's readout for the page's script.
func (c *chart) Readings() string { return c.readings() }

// WriteHTML writes the page of r: one file that needs nothing else.
func WriteHTML(w io.Writer, r *bench.Result) error {
	p := &page{
		Title: "dynamo bench", Subtitle: subtitle(r), Facts: facts(r), Warnings: warnings(r), Tiles: tiles(r),
		Sections: []section{
			{Title: "Latency", Note: "Share of requests (vertical) that took at most the time (horizontal). Times count from when a request was due.", Charts: latencyPlots(r)},
			{Title: "Percentiles", Table: percentileTable(r)},
			{Title: "Over time", Note: seriesNote(r), Charts: seriesPlots(r)},
			{Title: "Lengths", Charts: lengthPlots(r)},
			{Title: "Targets", Table: targetTable(r)},
			{Title: "Errors", Table: errorTable(r)},
			{Title: "Processes", Note: clientNote(r), Table: processTable(r)},
			{Title: "Configuration", Table: configTable(r)},
		},
	}
	return p.write(w)
}

func (p *page) write(w io.Writer) error {
	p.Sections = slices.DeleteFunc(p.Sections, func(s section) bool { return len(s.Charts) == 0 && s.Table == nil })
	var text bytes.Buffer
	if err := pageTemplate.Execute(&text, p); err != nil {
		return fmt.Errorf("page of the report: %w", err)
	}
	if _, err := w.Write(bytes.Map(visible, text.Bytes())); err != nil {
		return fmt.Errorf("page of the report: %w", err)
	}
	return nil
}

// visible replaces what neither a page nor a terminal should be sent: control
// characters, and bytes that are no text.
func visible(r rune) rune {
	if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r == 0xfffe || r == 0xffff {
		return '\ufffd'
	}
	return r
}

func subtitle(r *bench.Result) string {
	parts := slices.DeleteFunc([]string{r.Config["model"], strings.TrimSuffix(strings.TrimPrefix(r.Config["url"], "["), "]")}, func(s string) bool { return s == "" })
	return clipped(strings.Join(parts, " at "), maxValueShown)
}

func facts(r *bench.Result) []string {
	out := []string{
		r.Started.UTC().Format("2 January 2006 15:04:05 UTC"),
		clockText(r.Duration),
		strconv.Itoa(r.Requests) + " answers",
	}
	for _, s := range []string{r.Machine, r.Version} {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// warnings are what a reader has to know before believing the figures.
func warnings(r *bench.Result) []warning {
	var out []warning
	if r.Client.Bottleneck {
		out = append(out, warning{"The client was the bottleneck.", sentence(r.Client.Why) + " These figures are the load generator's, at least in part."})
	}
	if r.Partial != "" {
		out = append(out, warning{"The run ended early.", sentence(r.Partial)})
	}
	if n := errorCount(r); n > 0 {
		out = append(out, warning{fmt.Sprintf("%d of %d requests failed.", n, n+r.Requests), "Latencies are of whole answers only."})
	}
	if r.Mismatched > 0 {
		out = append(out, warning{fmt.Sprintf("%d prompts had another length than asked for,", r.Mismatched), "as the server counts: its tokenizer is not the one that made them."})
	}
	if n := r.TTFT.Count; n > 0 && n < 100 {
		out = append(out, warning{"Few requests.", fmt.Sprintf("A 99th percentile of %d values is little more than the largest.", n)})
	}
	return out
}

// sentence is s with a full stop.
func sentence(s string) string {
	if s == "" || strings.HasSuffix(s, ".") {
		return s
	}
	return s + "."
}

func tiles(r *bench.Result) []tile {
	latency := func(name string, s stats.Summary) tile {
		number, unit := duration.split(s.P50)
		return tile{name, number, unit, "p99 " + duration.text(s.P99)}
	}
	rate := func(name string, q quantity, v float64, note string) tile {
		number, unit := q.split(v)
		return tile{name, number, strings.TrimSpace(unit), note}
	}
	var out []tile
	if r.TTFT.Count > 0 {
		out = append(out, latency("First token, median", r.TTFT))
	}
	if r.ITL.Count > 0 {
		out = append(out, latency("Between tokens, median", r.ITL))
	}
	if r.E2E.Count > 0 {
		out = append(out, latency("Whole answer, median", r.E2E))
	}
	out = append(out,
		rate("Output", tokenRate, r.OutputThroughput, "input "+tokenRate.text(r.InputThroughput)),
		rate("Answers", requestRate, r.RequestThroughput, strconv.Itoa(r.Requests)+" in "+clockText(r.Duration)))
	if len(r.GoodputTargets) > 0 {
		note := "none answered"
		if r.RequestThroughput > 0 {
			note = share.text(r.Goodput/r.RequestThroughput) + " kept the targets"
		}
		out = append(out, rate("Goodput", requestRate, r.Goodput, note))
	}
	if in := r.InputTokens.Mean * float64(r.InputTokens.Count); r.CachedTokens > 0 && in > 0 {
		number, unit := share.split(float64(r.CachedTokens) / in)
		out = append(out, tile{"Prompt tokens from cache", number, unit, tokens.text(float64(r.CachedTokens))})
	}
	if n := errorCount(r); n > 0 {
		out = append(out, tile{"Failed", strconv.Itoa(n), "", share.text(float64(n)/float64(n+r.Requests)) + " of requests"})
	}
	return out
}

// metrics lists the summaries of r that hold values, with their quantities.
func metrics(r *bench.Result) []metric {
	all := []metric{
		{"ttft", "Time to first token", duration, r.TTFT, r.TTFTHist},
		{"ttst", "First to second token", duration, r.TTST, nil},
		{"itl", "Inter-token latency", duration, r.ITL, r.ITLHist},
		{"icl", "Gap between events", duration, r.ICL, r.ICLHist},
		{"tpot", "Time per output token", duration, r.TPOT, nil},
		{"e2e", "Request latency", duration, r.E2E, r.E2EHist},
		{"input", "Prompt length", tokens, r.InputTokens, r.InputHist},
		{"output", "Answer length", tokens, r.OutputTokens, r.OutputHist},
	}
	return slices.DeleteFunc(all, func(m metric) bool { return m.of.Count == 0 })
}

type metric struct {
	id, name string
	measures quantity
	of       stats.Summary
	hist     *stats.Histogram
}

func percentileTable(r *bench.Result) *table {
	t := &table{Head: []string{"", "Mean", "Std", "Min", "p50", "p90", "p95", "p99", "p99.9", "Max", "Count"}, Numbers: true}
	for _, m := range metrics(r) {
		row := []string{m.name}
		for _, v := range []float64{m.of.Mean, m.of.Std, m.of.Min, m.of.P50, m.of.P90, m.of.P95, m.of.P99, m.of.P999, m.of.Max} {
			if m.measures == tokens {
				row = append(row, digits(v, max(3, len(strconv.Itoa(int(v))))))
			} else {
				row = append(row, m.measures.text(v))
			}
		}
		t.Rows = append(t.Rows, append(row, strconv.Itoa(m.of.Count)))
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return t
}

func seriesNote(r *bench.Result) string {
	if n := len(r.Series); n > maxSeriesPoints {
		return fmt.Sprintf("Each point is %d seconds; a p99 is the highest of them.", (n+maxSeriesPoints-1)/maxSeriesPoints)
	}
	return "Each point is one second."
}

// targetTable says how many answers kept each target by itself.
func targetTable(r *bench.Result) *table {
	if len(r.GoodputTargets) == 0 {
		return nil
	}
	t := &table{Head: []string{"", "Target", "Kept by"}, Numbers: true}
	hist := map[string]*stats.Histogram{"ttft": r.TTFTHist, "itl": r.ITLHist, "e2e": r.E2EHist}
	for _, name := range slices.Sorted(maps.Keys(r.GoodputTargets)) {
		target, kept := r.GoodputTargets[name].Seconds(), "–"
		if h := hist[name]; h != nil && h.Count() > 0 {
			kept = share.text(within(h, target))
		}
		t.Rows = append(t.Rows, []string{strings.ToUpper(name), duration.text(target), kept})
	}
	all := "–"
	if r.RequestThroughput > 0 {
		all = share.text(r.Goodput / r.RequestThroughput)
	}
	t.Rows = append(t.Rows, []string{"All of them", "", all})
	return t
}

// within is the part of h's values that are at most v.
func within(h *stats.Histogram, v float64) float64 {
	n := 0
	for b := range h.Buckets() {
		if (b.Lower+b.Upper)/2 > v {
			break
		}
		n += b.Count
	}
	return float64(n) / float64(h.Count())
}

func errorTable(r *bench.Result) *table {
	if errorCount(r) == 0 && r.Cancelled == 0 {
		return nil
	}
	classes := slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int {
		if d := r.Errors[b] - r.Errors[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	t := &table{Head: []string{"", "Requests", "The first said"}}
	rest := 0
	for i, class := range classes {
		if i >= maxClassesShown {
			rest += r.Errors[class]
			continue
		}
		t.Rows = append(t.Rows, []string{class, strconv.Itoa(r.Errors[class]), clipped(r.ErrorDetails[class], maxValueShown)})
	}
	if rest > 0 {
		t.Rows = append(t.Rows, []string{"other classes", strconv.Itoa(rest), ""})
	}
	if r.Cancelled > 0 {
		t.Rows = append(t.Rows, []string{"given up by intent", strconv.Itoa(r.Cancelled), "not an error: --cancel-rate"})
	}
	return t
}

func processTable(r *bench.Result) *table {
	t := &table{Head: []string{"", "PID", "CPU", "Cores", "Per 1k answers", "Memory", "Peak"}, Numbers: true}
	row := func(name, pid string, cpu float64, rss, peak string) {
		cores, each := "–", "–"
		if s := r.Duration.Seconds(); s > 0 {
			cores = digits(cpu/s, 3)
		}
		if r.Requests > 0 {
			each = duration.text(cpu / float64(r.Requests) * 1000)
		}
		t.Rows = append(t.Rows, []string{name, pid, duration.text(cpu), cores, each, rss, peak})
	}
	for _, p := range r.Processes {
		row(p.Name, strconv.Itoa(p.PID), p.CPUSeconds, mebibytes(p.RSSBytes), mebibytes(p.PeakBytes))
	}
	row("this client", "", r.Client.CPUSeconds, "", "")
	return t
}

// clientNote says how the client itself did.
func clientNote(r *bench.Result) string {
	note := fmt.Sprintf("The client used %s of its processors.", share.text(r.Client.CPUShare))
	if r.Client.LateP99 > 0 {
		note += fmt.Sprintf(" 99 %% of its requests were sent within %s of when they were due.", duration.text(r.Client.LateP99.Seconds()))
	}
	return note
}

func mebibytes(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

func configTable(r *bench.Result) *table {
	t := &table{Head: []string{"", "Value"}}
	for _, name := range slices.Sorted(maps.Keys(r.Config)) {
		t.Rows = append(t.Rows, []string{name, clipped(r.Config[name], maxValueShown)})
	}
	if r.TokensFrom != "" {
		t.Rows = append(t.Rows, []string{"(output lengths from)", r.TokensFrom})
	}
	if len(t.Rows) == 0 {
		return nil
	}
	return t
}
