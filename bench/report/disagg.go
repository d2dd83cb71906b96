package report

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// Moved says what KV was moved for the requests of a run.
type Moved struct {
	// Apart counts requests whose prompts were computed by one worker and whose answers
	// went on at another.
	Apart int
	// Bytes is the KV that was moved, and Transfer how long each was on its way, in
	// seconds; without a Count it is not known.
	Bytes    float64
	Transfer stats.Summary
	// Overhead is by how much the gap between the first and the second token exceeds the
	// mean of the answer's other gaps, in seconds.
	Overhead stats.Summary
}

// Load is a run under one load.
type Load struct {
	// Offered is the load: requests a second for each GPU, or with Closed the requests
	// open at once.
	Offered float64
	Closed  bool
	Result  *bench.Result
	// HitRate is the share of the prompts' tokens that was found in caches.
	HitRate float64
	Moved   Moved
}

// Deployment is one way to serve, under several loads.
type Deployment struct {
	// Name is short, for legends; What says what it is.
	Name, What string
	// GPUs are the workers that it takes.
	GPUs  int
	Loads []Load
}

// Disagg sets deployments side by side that serve the same requests.
type Disagg struct {
	Subtitle string
	Facts    []string
	// TTFT and ITL are the targets of goodput.
	TTFT, ITL time.Duration
	// Deployments have equal loads, one at least; the first is what the others are
	// measured by. There are at most MaxDeployments.
	Deployments []Deployment
	// Ratios are deployments of other ratios of prefill to decode workers; none will do.
	Ratios []Deployment
	// At is the load at which distributions are shown.
	At int
}

// MaxDeployments bounds the deployments of one report.
const MaxDeployments = maxRuns

// measure is a figure of a run.
type measure struct {
	id, name string
	measures quantity
	of       func(d *Deployment, l *Load) float64 // NaN: not known
}

func known(v float64, is bool) float64 {
	if !is {
		return math.NaN()
	}
	return v
}

// perUser is the tokens a second that a user sees.
func (l *Load) perUser() float64 {
	if l.Result.ITL.P50 <= 0 {
		return 0
	}
	return 1 / l.Result.ITL.P50
}

func (d *Deployment) each(v float64) float64 { return v / float64(max(d.GPUs, 1)) }

// measures are the rows of the tables.
var measures = []measure{
	{"ttft_p50", "Time to first token, p50", duration, func(_ *Deployment, l *Load) float64 { return l.Result.TTFT.P50 }},
	{"ttft_p99", "Time to first token, p99", duration, func(_ *Deployment, l *Load) float64 { return l.Result.TTFT.P99 }},
	{"itl_p50", "Inter-token latency, p50", duration, func(_ *Deployment, l *Load) float64 { return l.Result.ITL.P50 }},
	{"itl_p99", "Inter-token latency, p99", duration, func(_ *Deployment, l *Load) float64 { return l.Result.ITL.P99 }},
	{"e2e_p50", "Whole answer, p50", duration, func(_ *Deployment, l *Load) float64 { return l.Result.E2E.P50 }},
	{"output_per_gpu", "Output per GPU", tokenRate, func(d *Deployment, l *Load) float64 { return d.each(l.Result.OutputThroughput) }},
	{"output_per_user", "Output per user", tokenRate, func(_ *Deployment, l *Load) float64 { return l.perUser() }},
	{"goodput_per_gpu", "Goodput per GPU", requestRate, func(d *Deployment, l *Load) float64 { return d.each(l.Result.Goodput) }},
	{"kept", "Answers within the targets", share, func(_ *Deployment, l *Load) float64 {
		return known(l.Result.Goodput/l.Result.RequestThroughput, l.Result.RequestThroughput > 0)
	}},
	{"hit_rate", "Prompt tokens found in caches", share, func(_ *Deployment, l *Load) float64 { return l.HitRate }},
	{"apart", "Prompts computed apart", share, func(_ *Deployment, l *Load) float64 {
		return known(float64(l.Moved.Apart)/float64(max(l.Result.Requests, 1)), l.Result.Requests > 0)
	}},
	{"moved_gb_per_request", "KV moved for each of them, GB", plain, func(_ *Deployment, l *Load) float64 {
		return known(l.Moved.Bytes/1e9/float64(max(l.Moved.Apart, 1)), l.Moved.Apart > 0 && l.Moved.Bytes > 0)
	}},
	{"transfer_p50", "Transfer, p50", duration, func(_ *Deployment, l *Load) float64 {
		return known(l.Moved.Transfer.P50, l.Moved.Transfer.Count > 0)
	}},
	{"transfer_p99", "Transfer, p99", duration, func(_ *Deployment, l *Load) float64 {
		return known(l.Moved.Transfer.P99, l.Moved.Transfer.Count > 0)
	}},
	{"overhead_p50", "Hand-over beyond a step, p50", duration, func(_ *Deployment, l *Load) float64 {
		return known(l.Moved.Overhead.P50, l.Moved.Overhead.Count > 0)
	}},
	{"overhead_share", "The same, as a share of the time to first token", share, func(_ *Deployment, l *Load) float64 {
		return known(l.Moved.Overhead.P50/l.Result.TTFT.P50, l.Moved.Overhead.Count > 0 && l.Result.TTFT.P50 > 0)
	}},
	{"failed", "Failed requests", plain, func(_ *Deployment, l *Load) float64 { return float64(errorCount(l.Result)) }},
}

// text is a figure, or a sign that there is none.
func (m *measure) text(v float64) string {
	if math.IsNaN(v) {
		return "–"
	}
	return m.measures.text(v)
}

// Overhead is by how much each record's gap between first and second token exceeds the
// mean of its other gaps, of answers that have three tokens or more.
func Overhead(records []bench.Record) stats.Summary {
	var h stats.Histogram
	for i := range records {
		r := &records[i]
		if !r.Whole() || r.Second == 0 || r.Chunks < 3 {
			continue
		}
		rest := float64(r.Last-r.Second) / float64(r.Chunks-2)
		h.Record(max(float64(r.Second-r.First)-rest, 0) / 1e9)
	}
	return h.Summary()
}

// best is the load at which a deployment has most goodput.
func (d *Deployment) best() int {
	best := 0
	for i := range d.Loads {
		if d.Loads[i].Result.Goodput > d.Loads[best].Result.Goodput {
			best = i
		}
	}
	return best
}

func (l *Load) text() string {
	if l.Closed {
		return fmt.Sprintf("%s requests at once", plain.text(l.Offered))
	}
	return requestRate.text(l.Offered) + " per GPU"
}

// table is the figures at the load that is compared.
func (d *Disagg) table() *table {
	t := &table{Head: []string{""}, Numbers: true}
	for i := range d.Deployments {
		t.Head = append(t.Head, d.Deployments[i].Name)
	}
	for k := range measures {
		m, row, seen := &measures[k], []string{measures[k].name}, false
		for i := range d.Deployments {
			v := m.of(&d.Deployments[i], &d.Deployments[i].Loads[d.At])
			seen = seen || !math.IsNaN(v)
			row = append(row, m.text(v))
		}
		if seen {
			t.Rows = append(t.Rows, row)
		}
	}
	return t
}

// goodputTable is the most goodput of each deployment, over all loads.
func (d *Disagg) goodputTable() *table {
	t := &table{Head: []string{"", "Most goodput per GPU", "of the first", "At a load of", "TTFT p99", "ITL p50", "Output per GPU", "per user"}, Numbers: true}
	first := 0.0
	for i, dep := range slices.Concat(d.Deployments, d.Ratios) {
		l := &dep.Loads[dep.best()]
		good := dep.each(l.Result.Goodput)
		if i == 0 {
			first = good
		}
		part := "–"
		if first > 0 {
			part = fmt.Sprintf("%.2f×", good/first)
		}
		t.Rows = append(t.Rows, []string{dep.Name, requestRate.text(good), part, l.text(), duration.text(l.Result.TTFT.P99), duration.text(l.Result.ITL.P50),
			tokenRate.text(dep.each(l.Result.OutputThroughput)), tokenRate.text(l.perUser())})
	}
	return t
}

// curve draws y over x, a line for each deployment, through its loads.
func curve(id, title, note, xName string, xq, yq quantity, all []Deployment, x, y func(d *Deployment, l *Load) float64) *chart {
	c := &chart{id: id, title: title, note: note, xName: xName}
	right, top, low := 0.0, 0.0, math.Inf(1)
	for i := range all {
		d := &all[i]
		l := line{name: d.Name, colour: i % maxRuns, dashed: i%2 == 1}
		l.text = func(p point) string { return fmt.Sprintf("%s: %s at %s", d.Name, yq.text(p.y), xq.text(p.x)) }
		for k := range d.Loads {
			p := point{x(d, &d.Loads[k]), y(d, &d.Loads[k])}
			if math.IsNaN(p.x + p.y) {
				continue
			}
			l.points = append(l.points, p)
			if right, top = max(right, p.x), max(top, p.y); p.y > 0 {
				low = min(low, p.y)
			}
		}
		if len(l.points) > 0 {
			c.lines = append(c.lines, l)
		}
	}
	c.x, c.y = openAxis(xq, 0, right, 6), linearAxis(yq, 0, top, 4)
	if yq == duration && top > wideSpread*low {
		c.y, c.note = logAxis(yq, low, top, 5), strings.TrimSpace(c.note+" Logarithmic.")
	}
	if len(c.lines) == 0 {
		return nil
	}
	return c
}

// paretoPlot is what each GPU gives against what each user gets.
func paretoPlot(id string, all []Deployment) *chart {
	return curve(id, "Throughput against speed", "Up and to the right is better; each point is a load.", "output per user", tokenRate, tokenRate, all,
		func(_ *Deployment, l *Load) float64 { return l.perUser() }, func(d *Deployment, l *Load) float64 { return d.each(l.Result.OutputThroughput) })
}

// goodputPlot is what of a load is served well.
func (d *Disagg) goodputPlot(id string, all []Deployment) *chart {
	note := fmt.Sprintf("Answers with a first token within %s and %s between tokens.", duration.text(d.TTFT.Seconds()), duration.text(d.ITL.Seconds()))
	return d.over(id, "Goodput per GPU", note, requestRate, all, func(dep *Deployment, l *Load) float64 { return dep.each(l.Result.Goodput) })
}

// over draws a figure over the load.
func (d *Disagg) over(id, title, note string, q quantity, all []Deployment, y func(d *Deployment, l *Load) float64) *chart {
	xq, name := requestRate, "load per GPU"
	if all[0].Loads[0].Closed {
		xq, name = plain, "requests at once"
	}
	return curve(id, title, note, name, xq, q, all, func(_ *Deployment, l *Load) float64 { return l.Offered }, y)
}

// loadPlots are figures over the load.
func (d *Disagg) loadPlots() []*chart {
	all := []*chart{d.goodputPlot("goodput", d.Deployments)}
	for _, id := range []string{"ttft_p50", "ttft_p99", "itl_p50", "itl_p99", "output_per_gpu", "transfer_p50", "overhead_p50", "hit_rate"} {
		m := &measures[slices.IndexFunc(measures, func(m measure) bool { return m.id == id })]
		all = append(all, d.over(strings.ReplaceAll(id, "_", "-"), m.name, "", m.measures, d.Deployments, m.of))
	}
	return drawn(all...)
}

// latencyPlots are the distributions at the load that is compared.
func (d *Disagg) latencyPlots() []*chart {
	var out []*chart
	for _, m := range []struct {
		id, title string
		of        func(r *bench.Result) *stats.Histogram
	}{
		{"ttft", "Time to first token", func(r *bench.Result) *stats.Histogram { return r.TTFTHist }},
		{"itl", "Inter-token latency, mean of each request", func(r *bench.Result) *stats.Histogram { return r.ITLHist }},
	} {
		var all []named
		for i := range d.Deployments {
			if h := m.of(d.Deployments[i].Loads[d.At].Result); h != nil && h.Count() > 0 {
				all = append(all, named{name: d.Deployments[i].Name, colour: i % maxRuns, of: h})
			}
		}
		if len(all) == 0 {
			continue
		}
		c := distributionPlot(m.id, m.title, all)
		if target := map[string]time.Duration{"ttft": d.TTFT, "itl": d.ITL}[m.id]; target > 0 {
			c.rules = append(c.rules, rule{target.Seconds(), "target " + duration.text(target.Seconds())})
		}
		out = append(out, c)
	}
	return out
}

// paretoPlots is the curves of all deployments.
func (d *Disagg) paretoPlots() []*chart { return drawn(paretoPlot("pareto", d.Deployments)) }

// drawn are the charts that show anything.
func drawn(all ...*chart) []*chart {
	return slices.DeleteFunc(all, func(c *chart) bool { return c == nil })
}

// ratioPlots are the curves of the ratios.
func (d *Disagg) ratioPlots() []*chart {
	if len(d.Ratios) == 0 {
		return nil
	}
	return drawn(paretoPlot("ratios-pareto", d.Ratios), d.goodputPlot("ratios-goodput", d.Ratios))
}

// whatTable says what the deployments are.
func (d *Disagg) whatTable() *table {
	t := &table{Head: []string{"", ""}}
	for _, dep := range slices.Concat(d.Deployments, d.Ratios) {
		t.Rows = append(t.Rows, []string{dep.Name, dep.What})
	}
	return t
}

// WriteText writes the figures for a terminal.
func (d *Disagg) WriteText(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) // Flush tells of errors
	for _, row := range d.whatTable().Rows {
		fmt.Fprintf(out, "%s\t%s\n", row[0], row[1])
	}
	fmt.Fprintf(out, "\nAt %s\n", d.Deployments[0].Loads[d.At].text())
	for _, t := range []*table{d.table(), d.goodputTable()} {
		fmt.Fprintln(out, strings.Join(t.Head, "\t"))
		for _, row := range t.Rows {
			fmt.Fprintln(out, strings.Join(row, "\t"))
		}
		fmt.Fprintln(out)
	}
	return out.Flush()
}

// disaggDocument is the report as JSON: figures in seconds, tokens, or per second; what is
// not known is missing.
type disaggDocument struct {
	Schema      int                  `json:"schema"`
	Facts       []string             `json:"facts"`
	TTFT        float64              `json:"ttft_target_seconds"`
	ITL         float64              `json:"itl_target_seconds"`
	At          int                  `json:"compared_load"`
	Deployments []deploymentDocument `json:"deployments"`
	Ratios      []deploymentDocument `json:"ratios,omitempty"`
}

type deploymentDocument struct {
	Name  string         `json:"name"`
	What  string         `json:"what"`
	GPUs  int            `json:"gpus"`
	Loads []loadDocument `json:"loads"`
}

type loadDocument struct {
	Offered float64            `json:"offered"`
	Closed  bool               `json:"closed_loop,omitzero"`
	Metrics map[string]float64 `json:"metrics"`
}

func storedDeployments(all []Deployment) []deploymentDocument {
	var out []deploymentDocument
	for i := range all {
		d := &all[i]
		doc := deploymentDocument{Name: d.Name, What: d.What, GPUs: d.GPUs}
		for k := range d.Loads {
			l := loadDocument{Offered: d.Loads[k].Offered, Closed: d.Loads[k].Closed, Metrics: map[string]float64{}}
			for _, m := range measures {
				if v := m.of(d, &d.Loads[k]); !math.IsNaN(v) {
					l.Metrics[m.id] = finite(v)
				}
			}
			doc.Loads = append(doc.Loads, l)
		}
		out = append(out, doc)
	}
	return out
}

// WriteJSON writes the figures for programs.
func (d *Disagg) WriteJSON(w io.Writer) error {
	text, err := json.Marshal(disaggDocument{schema, d.Facts, d.TTFT.Seconds(), d.ITL.Seconds(), d.At, storedDeployments(d.Deployments), storedDeployments(d.Ratios)}, lenient)
	if err != nil {
		return fmt.Errorf("disaggregation as JSON: %w", err)
	}
	_, err = w.Write(append(layout(text), '\n'))
	return err
}

// WriteHTML writes the page: one file that needs nothing else.
func (d *Disagg) WriteHTML(w io.Writer) error {
	p := &page{Title: "dynamo bench disagg", Subtitle: d.Subtitle, Facts: d.Facts}
	for i := range d.Deployments {
		dep := &d.Deployments[i]
		for _, w := range warnings(dep.Loads[d.At].Result) {
			p.Warnings = append(p.Warnings, warning{dep.Name + ": " + w.Head, w.Text})
		}
	}
	p.Sections = []section{
		{Title: "What is compared", Table: d.whatTable()},
		{Title: "At " + d.Deployments[0].Loads[d.At].text(), Table: d.table()},
		{Title: "Most goodput", Note: "The load at which most answers a second kept both targets.", Table: d.goodputTable()},
		{Title: "Throughput per GPU against speed per user", Charts: d.paretoPlots()},
		{Title: "Over the load", Charts: d.loadPlots()},
		{Title: "Latency at " + d.Deployments[0].Loads[d.At].text(), Note: "Share of requests (vertical) that took at most the time (horizontal).", Charts: d.latencyPlots()},
		{Title: "Ratios of prefill to decode workers", Charts: d.ratioPlots()},
	}
	return p.write(w)
}

// Write writes disagg.json, report.html and each plot as SVG and as PNG into dir, which it
// makes.
func (d *Disagg) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var text, html bytes.Buffer
	if err := d.WriteJSON(&text); err != nil {
		return err
	}
	if err := d.WriteHTML(&html); err != nil {
		return err
	}
	files := map[string][]byte{"disagg.json": text.Bytes(), PageFile: html.Bytes()}
	for _, c := range slices.Concat(d.paretoPlots(), d.loadPlots(), d.ratioPlots()) {
		c.addFiles(files, c.id)
	}
	for _, c := range d.latencyPlots() {
		c.addFiles(files, c.id+"-distribution")
	}
	return writeFiles(dir, files)
}
