package report

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo/bench/stats"
)

// letter names a run in tables and plots.
func letter(i int) string { return string(rune('A' + i)) }

// labels name the runs in the legends of plots: by letter and the last part of their
// name, if those differ and there is room, as in "B kv"; or else by letter.
func (c *Comparison) labels() []string {
	long, short := make([]string, len(c.Runs)), make([]string, len(c.Runs))
	seen, letters := map[string]bool{}, 0
	for i, run := range c.Runs {
		name := strings.TrimSuffix(run.Name, string(filepath.Separator)+ResultFile)
		name = shown([]string{filepath.Base(name)})[0]
		short[i], long[i] = letter(i), letter(i)+" "+name
		seen[name] = true
		letters += len([]rune(long[i]))
	}
	if len(seen) < len(c.Runs) || letters > maxLegendLetters-6*len(c.Runs) {
		return short
	}
	return long
}

// WriteText writes the comparison for a terminal.
func (c *Comparison) WriteText(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for i, run := range c.Runs {
		fmt.Fprintf(out, "%s\t%s\t%s\n", letter(i), shown([]string{run.Name})[0], run.Result.Started.UTC().Format(time.DateTime))
	}
	fmt.Fprintln(out)
	if len(c.Differences) > 0 {
		fmt.Fprint(out, "DIFFERENT")
		c.letters(out)
		fmt.Fprintln(out)
		for _, d := range c.Differences {
			fmt.Fprintf(out, "%s\t%s\n", shown([]string{d.What})[0], strings.Join(shown(d.Values), "\t"))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprint(out, "METRIC")
	c.letters(out)
	for i := range c.Runs[1:] {
		fmt.Fprintf(out, "\t%s/A (95 %%)\t", letter(i+1))
	}
	fmt.Fprintln(out)
	for _, row := range c.Rows {
		fmt.Fprintf(out, "%s\t%s\n", row.ID, strings.Join(row.cells(), "\t"))
	}
	fmt.Fprintln(out)
	for _, note := range c.Notes {
		fmt.Fprintln(out, shown([]string{note})[0])
	}
	return out.Flush()
}

func (c *Comparison) letters(w io.Writer) {
	for i := range c.Runs {
		fmt.Fprintf(w, "\t%s", letter(i))
	}
}

// shown is values with a sign where there is none, and without what would break a
// table.
func shown(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		if out[i] = strings.Map(visible, strings.Join(strings.Fields(v), " ")); v == "" {
			out[i] = "–"
		}
	}
	return out
}

// cells are the row's values, then ratio and verdict of each run but the first.
func (r *Row) cells() []string {
	var out []string
	for _, v := range r.Values {
		out = append(out, r.measures.text(v))
	}
	for i := range r.Ratios[1:] {
		out = append(out, ratioText(r.Ratios[i+1]), string(r.Verdicts[i+1]))
	}
	return out
}

// ratioText is a ratio with its interval, as far as there is one.
func ratioText(i stats.Interval) string {
	switch {
	case math.IsNaN(i.Value):
		return "–"
	case math.IsNaN(i.Low) || math.IsNaN(i.High):
		return fmt.Sprintf("%.3f", i.Value)
	}
	return fmt.Sprintf("%.3f (%.3f – %.3f)", i.Value, i.Low, i.High)
}

// comparisonDocument is a comparison as JSON.
type comparisonDocument struct {
	Schema      int                  `json:"schema"`
	Runs        []string             `json:"runs"`
	Differences []differenceDocument `json:"differences"`
	Metrics     []rowDocument        `json:"metrics"`
	Notes       []string             `json:"notes"`
}

type differenceDocument struct {
	What   string   `json:"what"`
	Values []string `json:"values"`
}

// rowDocument has the values in seconds, tokens or per second, and the ratios of all
// runs but the first; a bound that is not known is missing.
type rowDocument struct {
	Metric  string          `json:"metric"`
	Values  []float64       `json:"values"`
	Against []ratioDocument `json:"ratios"`
}

type ratioDocument struct {
	Ratio   *float64 `json:"ratio,omitempty"`
	Low     *float64 `json:"low,omitempty"`
	High    *float64 `json:"high,omitempty"`
	Verdict string   `json:"verdict,omitempty"`
}

// WriteJSON writes the comparison for programs.
func (c *Comparison) WriteJSON(w io.Writer) error {
	d := comparisonDocument{Schema: schema, Notes: c.Notes}
	for _, run := range c.Runs {
		d.Runs = append(d.Runs, run.Name)
	}
	for _, diff := range c.Differences {
		d.Differences = append(d.Differences, differenceDocument(diff))
	}
	number := func(v float64) *float64 {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return &v
	}
	for _, row := range c.Rows {
		out := rowDocument{Metric: row.ID}
		for _, v := range row.Values {
			out.Values = append(out.Values, finite(v))
		}
		for i, ratio := range row.Ratios[1:] {
			r := ratioDocument{Ratio: number(ratio.Value), Low: number(ratio.Low), High: number(ratio.High)}
			if v := row.Verdicts[i+1]; v != Unknown {
				r.Verdict = string(v)
			}
			out.Against = append(out.Against, r)
		}
		d.Metrics = append(d.Metrics, out)
	}
	text, err := json.Marshal(d, lenient)
	if err != nil {
		return fmt.Errorf("comparison as JSON: %w", err)
	}
	_, err = w.Write(append(layout(text), '\n'))
	return err
}

// WriteHTML writes the comparison as a page that needs nothing else, with the runs'
// plots over each other.
func (c *Comparison) WriteHTML(w io.Writer) error {
	p := &page{Title: "dynamo bench compare", Subtitle: c.headline()}
	for i, run := range c.Runs {
		p.Facts = append(p.Facts, fmt.Sprintf("%s: %s, %s", letter(i), clipped(run.Name, maxValueShown), run.Result.Started.UTC().Format("2 January 2006 15:04 UTC")))
		for _, w := range warnings(run.Result) {
			p.Warnings = append(p.Warnings, warning{letter(i) + ": " + w.Head, w.Text})
		}
	}
	different := &table{Head: []string{""}}
	metricTable := &table{Head: []string{""}, Numbers: true}
	for i := range c.Runs {
		different.Head, metricTable.Head = append(different.Head, letter(i)), append(metricTable.Head, letter(i))
	}
	for i := range c.Runs[1:] {
		metricTable.Head = append(metricTable.Head, letter(i+1)+"/A, 95 % interval", "")
	}
	for _, d := range c.Differences {
		different.Rows = append(different.Rows, append([]string{d.What}, shown(d.Values)...))
	}
	for _, row := range c.Rows {
		metricTable.Rows = append(metricTable.Rows, append([]string{row.Name}, row.cells()...))
	}
	if len(different.Rows) == 0 {
		different = nil
	}
	p.Sections = []section{
		{Title: "What is different", Table: different},
		{Title: "Ratios", Note: strings.Join(c.Notes, " "), Charts: c.ratioPlots()},
		{Title: "Metrics", Table: metricTable},
		{Title: "Latency", Note: "Share of requests (vertical) that took at most the time (horizontal).", Charts: c.distributionPlots()},
		{Title: "Over time", Charts: c.timePlots()},
	}
	return p.write(w)
}

// headline counts verdicts.
func (c *Comparison) headline() string {
	var parts []string
	for i := range c.Runs[1:] {
		count := map[Verdict]int{}
		for _, row := range c.Rows {
			count[row.Verdicts[i+1]]++
		}
		parts = append(parts, fmt.Sprintf("%s against A: faster in %d metrics, slower in %d, no difference seen in %d",
			letter(i+1), count[Faster], count[Slower], count[NoDifference]))
	}
	return strings.Join(parts, "; ")
}

// ratioPlots show for each run but the first the ratios with their intervals.
func (c *Comparison) ratioPlots() []*chart {
	var out []*chart
	colours := map[Verdict]int{Faster: 2, Slower: 1, NoDifference: 5}
	for i := range c.Runs[1:] {
		p := &chart{
			id: "ratios-" + strings.ToLower(letter(i+1)), title: fmt.Sprintf("%s over A", letter(i+1)), xName: "ratio",
			note: "95 % intervals: green faster, orange slower, grey not seen to differ.",
		}
		low, high := 0.9, 1.1
		for _, row := range c.Rows {
			r, verdict := row.Ratios[i+1], row.Verdicts[i+1]
			if verdict == Unknown || !(r.Low > 0) {
				continue
			}
			p.ranges = append(p.ranges, span{name: row.ID, low: r.Low, middle: r.Value, high: r.High, colour: colours[verdict],
				text: fmt.Sprintf("%s: %s, %s", row.Name, ratioText(r), verdict)})
			low, high = min(low, r.Low), max(high, r.High)
		}
		if len(p.ranges) == 0 {
			continue
		}
		if high/low > 4 {
			p.x = logAxis(ratio, low*0.95, high*1.05, 8)
		} else {
			p.x = linearAxis(ratio, low, high, 6)
		}
		p.x.unit = ""
		p.rules = []rule{{x: 1}}
		out = append(out, p)
	}
	return out
}

func (c *Comparison) distributionPlots() []*chart {
	var out []*chart
	labels := c.labels()
	for _, m := range latencies {
		var all []named
		var note []string
		for i, run := range c.Runs {
			s, h := m.of(run.Result)
			if h == nil || h.Count() == 0 {
				continue
			}
			all = append(all, named{name: labels[i], colour: i, of: h})
			note = append(note, fmt.Sprintf("%s %s, %s", letter(i), duration.text(s.P50), duration.text(s.P99)))
		}
		if len(all) < 2 {
			continue
		}
		p := distributionPlot(m.id, m.name, all)
		p.note = clipped("p50, p99: "+strings.Join(note, "; "), 72)
		out = append(out, p)
	}
	return out
}

func (c *Comparison) timePlots() []*chart {
	runs := make([][]stretch, len(c.Runs))
	for i, run := range c.Runs {
		if runs[i] = stretches(run.Result); len(runs[i]) < 3 {
			return nil
		}
	}
	var out []*chart
	labels := c.labels()
	for _, m := range []struct {
		id, title string
		measures  quantity
		of        func(s stretch) float64
		sparse    bool
	}{
		{"tokens", "Output tokens per second", tokenRate, func(s stretch) float64 { return s.tokens }, false},
		{"in-flight", "Requests in flight", plain, func(s stretch) float64 { return s.inFlight }, false},
		{"ttft-p50-series", "Time to first token, p50", duration, func(s stretch) float64 { return s.ttftP50 }, true},
		{"ttft-p99-series", "Time to first token, p99", duration, func(s stretch) float64 { return s.ttftP99 }, true},
	} {
		var tracks []track
		for i := range c.Runs {
			tracks = append(tracks, track{name: labels[i], colour: i, dashed: i%2 == 1, of: m.of, sparse: m.sparse})
		}
		out = append(out, timePlot(m.id, m.title, m.measures, runs, tracks))
	}
	return out
}
