package report

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// latencyPlots are the distributions of r.
func latencyPlots(r *bench.Result) []*chart {
	var out []*chart
	for _, m := range []struct {
		id, title, target string
		of                *stats.Histogram
	}{
		{"ttft", "Time to first token", "ttft", r.TTFTHist},
		{"itl", "Inter-token latency, mean of each request", "itl", r.ITLHist},
		{"e2e", "Request latency, end to end", "e2e", r.E2EHist},
		{"icl", "Gaps between events, all requests", "", r.ICLHist},
	} {
		if m.of == nil || m.of.Count() == 0 {
			continue
		}
		c := distributionPlot(m.id, m.title, []named{{of: m.of}})
		if target, ok := r.GoodputTargets[m.target]; ok {
			c.rules = append(c.rules, rule{target.Seconds(), "target " + duration.text(target.Seconds())})
		}
		out = append(out, c)
	}
	return out
}

// named is a distribution of a run.
type named struct {
	name   string
	colour int
	of     *stats.Histogram
}

// distributionPlot is the cumulative distribution of each of runs. With one run its
// percentiles are marked.
func distributionPlot(id, title string, runs []named) *chart {
	c := &chart{id: id, title: title, xName: "time"}
	c.y = linearAxis(share, 0, 1, 4)
	low, high := math.Inf(1), 0.0
	for _, run := range runs {
		s := run.of.Sample()
		l := line{name: run.name, colour: run.colour, dashed: run.colour%2 == 1, text: func(p point) string {
			return fmt.Sprintf("%s of requests within %s", percent(p.y), duration.text(p.x))
		}}
		if id == "icl" {
			l.text = func(p point) string {
				return fmt.Sprintf("%s of gaps within %s", percent(p.y), duration.text(p.x))
			}
		}
		for q := range quantiles() {
			l.points = append(l.points, point{stats.Quantile(s, q), q})
		}
		if len(runs) == 1 {
			for _, q := range []float64{0.5, 0.9, 0.99} {
				v := stats.Quantile(s, q)
				l.marks = append(l.marks, mark{point{v, q}, fmt.Sprintf("p%.0f %s", q*100, duration.text(v))})
			}
			c.note = fmt.Sprintf("Half within %s, 99 %% within %s; the slowest took %s.",
				duration.text(stats.Quantile(s, 0.5)), duration.text(stats.Quantile(s, 0.99)), duration.text(run.of.Max()))
		}
		low, high = min(low, lowest(run.of)), max(high, run.of.Max())
		c.lines = append(c.lines, l)
	}
	c.x = valueAxis(duration, low, high, 6)
	if !c.x.log && low < high/3 {
		c.x = linearAxis(duration, 0, high, 5)
	}
	return c
}

// lowest is where an axis for h begins: its first value above 0, but not in the last
// thousandth of the requests, which would squeeze the rest.
func lowest(h *stats.Histogram) float64 {
	if v := h.Quantile(0.001); v > 0 {
		return v
	}
	for b := range h.Buckets() {
		if b.Lower > 0 {
			return b.Lower
		}
	}
	return 0
}

// quantiles yields the places of a distribution's points: even ones, and closer
// together in the tail.
func quantiles() func(yield func(float64) bool) {
	return func(yield func(float64) bool) {
		const body = cdfPoints * 3 / 4
		for i := range body {
			if !yield(0.95 * float64(i) / body) {
				return
			}
		}
		for i := 0; i <= cdfPoints-body; i++ {
			left := 1 - float64(i)/(cdfPoints-body)
			if !yield(1 - 0.05*left*left) {
				return
			}
		}
	}
}

// percent is a part of 1 with the digits that its distance from 1 needs.
func percent(v float64) string {
	switch {
	case v >= 0.9995 && v < 1:
		return fmt.Sprintf("%.2f %%", v*100)
	case v > 0.95 && v < 1:
		return fmt.Sprintf("%.1f %%", v*100)
	}
	return fmt.Sprintf("%.0f %%", v*100)
}

// stretch is one or several seconds of a run, as rates and means.
type stretch struct {
	middle, width                              float64
	started, finished, errors, tokens          float64 // per second
	inFlight, ttftP50, ttftP99, itlP50, latest float64
}

// stretches sums up the series so that it has at most maxSeriesPoints. A last second
// that the run did not fill counts by its part, and not at all if that is small.
func stretches(r *bench.Result) []stretch {
	n := len(r.Series)
	group := (n + maxSeriesPoints - 1) / maxSeriesPoints
	var out []stretch
	for at := 0; at < n; at += group {
		part := r.Series[at:min(at+group, n)]
		first, last := float64(part[0].At), float64(part[len(part)-1].At+1)
		if total := r.Duration.Seconds(); total > first && total < last {
			last = total
		}
		s := stretch{width: last - first, middle: (first + last) / 2, latest: last}
		if s.width < 0.3*float64(group) && len(out) > 0 {
			continue
		}
		answers := 0.0
		for _, e := range part {
			s.started += float64(e.Started) / s.width
			s.finished += float64(e.Finished) / s.width
			s.errors += float64(e.Errors) / s.width
			s.tokens += float64(e.Tokens) / s.width
			s.inFlight += float64(e.InFlight) / float64(len(part))
			weight := float64(e.Finished)
			answers += weight
			s.ttftP50 += e.TTFTP50 * weight
			s.itlP50 += e.ITLP50 * weight
			s.ttftP99 = max(s.ttftP99, e.TTFTP99)
		}
		if answers > 0 {
			s.ttftP50, s.itlP50 = s.ttftP50/answers, s.itlP50/answers
		}
		out = append(out, s)
	}
	return out
}

// track is a line over time: its values, and how they are told.
type track struct {
	name   string
	colour int
	dashed bool
	of     func(s stretch) float64
	// sparse says that 0 is no value.
	sparse bool
}

// timePlot draws tracks over the stretches of runs; several runs have one track each.
func timePlot(id, title string, q quantity, runs [][]stretch, tracks []track) *chart {
	c := &chart{id: id, title: title, xName: "since the start"}
	most, end := 0.0, 0.0
	for i, t := range tracks {
		all := runs[min(i, len(runs)-1)]
		l := line{name: t.name, colour: t.colour, dashed: t.dashed, fill: len(tracks) == 1}
		l.text = func(p point) string {
			s := fmt.Sprintf("%s at %s", q.text(p.y), clockText(time.Duration(p.x*1e9)))
			if t.name != "" {
				s = t.name + ": " + s
			}
			return s
		}
		for _, s := range all {
			v := t.of(s)
			if t.sparse && v == 0 {
				continue
			}
			l.points = append(l.points, point{s.middle, v})
			most = max(most, v)
		}
		if len(all) > 0 {
			end = max(end, all[len(all)-1].latest)
		}
		c.lines = append(c.lines, l)
	}
	c.x = openAxis(duration, 0, end, 6)
	c.y = linearAxis(q, 0, most, 4)
	return c
}

// seriesPlots are the figures of r over time; none if it was over too soon.
func seriesPlots(r *bench.Result) []*chart {
	all := stretches(r)
	if len(all) < 3 {
		return nil
	}
	runs := [][]stretch{all}
	rate := timePlot("requests", "Requests per second", requestRate, runs, []track{
		{name: "sent", colour: 1, dashed: true, of: func(s stretch) float64 { return s.started }},
		{name: "answered", colour: 0, of: func(s stretch) float64 { return s.finished }},
	})
	rate.note = fmt.Sprintf("%s answered on average.", requestRate.text(r.RequestThroughput))
	tokensOut := timePlot("tokens", "Output tokens per second", tokenRate, runs, []track{{of: func(s stretch) float64 { return s.tokens }}})
	tokensOut.note = fmt.Sprintf("%s on average.", tokenRate.text(r.OutputThroughput))
	inFlight := timePlot("in-flight", "Requests in flight", plain, runs, []track{{of: func(s stretch) float64 { return s.inFlight }}})
	most := slices.MaxFunc(all, func(a, b stretch) int { return int(a.inFlight - b.inFlight) })
	inFlight.note = fmt.Sprintf("At most %s, at the ends of seconds.", plain.text(math.Round(most.inFlight)))
	first := timePlot("ttft-series", "Time to first token, by time of answer", duration, runs, []track{
		{name: "p99", colour: 1, dashed: true, of: func(s stretch) float64 { return s.ttftP99 }, sparse: true},
		{name: "p50", colour: 0, of: func(s stretch) float64 { return s.ttftP50 }, sparse: true},
	})
	first.note = "Does it hold through the run, or does a queue build up?"
	out := []*chart{tokensOut, rate, inFlight, first}
	if r.ITL.Count > 0 {
		c := timePlot("itl-series", "Inter-token latency, median", duration, runs, []track{{of: func(s stretch) float64 { return s.itlP50 }, sparse: true}})
		c.note = "Of the requests that ended at the time."
		out = append(out, c)
	}
	if n := errorCount(r); n > 0 {
		c := timePlot("errors", "Failed requests per second", requestRate, runs, []track{{colour: 1, of: func(s stretch) float64 { return s.errors }}})
		c.note = fmt.Sprintf("%d in all: %s.", n, clipped(strings.Join(slices.Sorted(maps.Keys(r.Errors)), ", "), 50))
		out = append(out, c)
	}
	return out
}

// lengthPlots are the histograms of lengths that are not all the same.
func lengthPlots(r *bench.Result) []*chart {
	var out []*chart
	for _, m := range []struct {
		id, title string
		of        *stats.Histogram
	}{{"input-lengths", "Prompt lengths", r.InputHist}, {"output-lengths", "Answer lengths", r.OutputHist}} {
		if m.of != nil && m.of.Count() > 0 && m.of.Min() < m.of.Max() {
			out = append(out, lengthPlot(m.id, m.title, m.of))
		}
	}
	return out
}

func lengthPlot(id, title string, h *stats.Histogram) *chart {
	c := &chart{id: id, title: title, xName: "length"}
	c.x = valueAxis(tokens, h.Min(), h.Max()+1, 6)
	step := niceStep((h.Max()+1-h.Min())/maxBars, true)
	bounds := func(v float64) (low, high float64) {
		low = math.Floor(v/step) * step
		return low, low + step
	}
	if c.x.log {
		width := math.Log(c.x.high/c.x.low) / maxBars
		bounds = func(v float64) (low, high float64) {
			i := math.Floor(math.Log(v/c.x.low)/width + 1e-9)
			return c.x.low * math.Exp(i*width), c.x.low * math.Exp((i+1)*width)
		}
	} else {
		low, _ := bounds(h.Min())
		_, high := bounds(h.Max())
		c.x = openAxis(tokens, low, high, 6)
	}
	most := 0.0
	for b := range h.Buckets() {
		v := math.Ceil(b.Lower) // lengths are whole
		if b.Upper-b.Lower > 1 {
			v = (b.Lower + b.Upper) / 2
		}
		low, high := bounds(v)
		if n := len(c.bars); n == 0 || c.bars[n-1].low < low {
			c.bars = append(c.bars, bar{low: low, high: high})
		}
		last := &c.bars[len(c.bars)-1]
		last.y += float64(b.Count)
		most = max(most, last.y)
	}
	for i := range c.bars {
		b := &c.bars[i]
		first, last := math.Ceil(b.low), math.Ceil(b.high)-1
		if last <= first {
			b.text = fmt.Sprintf("%.0f requests of %.0f tokens", b.y, first)
		} else {
			b.text = fmt.Sprintf("%.0f requests of %.0f to %.0f tokens", b.y, first, last)
		}
	}
	c.y = linearAxis(plain, 0, most, 4)
	c.y.unit = strings.TrimSpace(c.y.unit + " requests")
	c.note = fmt.Sprintf("Median %s, from %s to %s.", tokens.text(math.Round(h.Quantile(0.5))), plain.text(h.Min()), tokens.text(h.Max()))
	return c
}
