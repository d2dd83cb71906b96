package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/report"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// benchView shows how a run goes: one line that is drawn again on a terminal, a line
// every plainEvery otherwise.
type benchView struct {
	out      io.Writer
	terminal bool
	mu       struct {
		sync.Mutex
		told  time.Time
		drawn bool
	}
}

func newBenchView(out io.Writer) *benchView {
	return &benchView{out: out, terminal: isTerminal(out)}
}

// show tells how far a run is.
func (v *benchView) show(p *bench.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.terminal {
		fmt.Fprintf(v.out, "\r\x1b[K%s", progressLine(p, true))
		v.mu.drawn = true
		return
	}
	if p.Final || time.Since(v.mu.told) >= plainEvery {
		v.mu.told = time.Now()
		fmt.Fprintln(v.out, progressLine(p, false))
	}
}

// end leaves the terminal on a line of its own.
func (v *benchView) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.mu.drawn {
		fmt.Fprint(v.out, "\r\x1b[K")
		v.mu.drawn = false
	}
}

// barWidth is the width of the bar, in characters.
const barWidth = 20

func progressLine(p *bench.Progress, bar bool) string {
	var b strings.Builder
	if p.WarmUp {
		b.WriteString("warm-up ")
	}
	if p.Done > 0 {
		if bar {
			full := int(p.Done*barWidth + 0.5)
			b.WriteString(strings.Repeat("█", full) + strings.Repeat("░", barWidth-full) + " ")
		}
		fmt.Fprintf(&b, "%3.0f%% ", 100*p.Done)
	}
	fmt.Fprintf(&b, "%s  %d done  %.0f req/s  %.0f tok/s  %d in flight", p.Elapsed.Round(time.Second), p.Finished, p.Rate, p.TokenRate, p.InFlight)
	if p.TTFTP50 > 0 {
		fmt.Fprintf(&b, "  TTFT %s/%s", milliseconds(p.TTFTP50), milliseconds(p.TTFTP99))
	}
	if p.ITLP50 > 0 {
		fmt.Fprintf(&b, "  ITL %s/%s", milliseconds(p.ITLP50), milliseconds(p.ITLP99))
	}
	if p.Errors > 0 {
		fmt.Fprintf(&b, "  %d errors", p.Errors)
	}
	if p.Left > 0 && !p.Final {
		fmt.Fprintf(&b, "  %s left", p.Left.Round(time.Second))
	}
	return b.String()
}

// milliseconds writes a latency to three digits or so.
func milliseconds(s float64) string {
	switch ms := 1000 * s; {
	case ms >= 100:
		return fmt.Sprintf("%.0f ms", ms)
	case ms >= 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms >= 1:
		return fmt.Sprintf("%.2f ms", ms)
	default:
		return fmt.Sprintf("%.3f ms", ms)
	}
}

// report writes the result: to the directory, and to the terminal.
func (c *benchRunCmd) report(a *app, r *bench.Result) error {
	if c.Output != "" {
		if err := report.Write(c.Output, r); err != nil {
			return err
		}
	}
	if c.JSON {
		text, err := report.Marshal(r)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.stdout, "%s\n", text)
		return err
	}
	if err := printResult(a.stdout, r); err != nil {
		return err
	}
	if c.Output != "" {
		_, err := fmt.Fprintf(a.stdout, "\nreport: %s/report.html\n", strings.TrimRight(c.Output, "/"))
		return err
	}
	return nil
}

// printResult writes a result for people.
func printResult(out io.Writer, r *bench.Result) error {
	if r.Partial != "" {
		fmt.Fprintf(out, "PARTIAL: the run ended early: %s\n", r.Partial)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tavg\tmin\tp50\tp90\tp95\tp99\tmax\tstd\t")
	latency := func(name string, s stats.Summary) { row(w, name, s, 1000, "%.3f") }
	latency("time to first token (ms)", r.TTFT)
	latency("time to second token (ms)", r.TTST)
	latency("inter token latency (ms)", r.ITL)
	latency("time per output token (ms)", r.TPOT)
	latency("inter chunk latency (ms)", r.ICL)
	latency("request latency (ms)", r.E2E)
	row(w, "input length (tokens)", r.InputTokens, 1, "%.0f")
	row(w, "output length (tokens)", r.OutputTokens, 1, "%.0f")
	if err := w.Flush(); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%d requests in %.2f s: %.2f req/s, %.1f output tok/s, %.1f input tok/s", r.Requests, r.Duration.Seconds(), r.RequestThroughput, r.OutputThroughput, r.InputThroughput)
	if len(r.GoodputTargets) > 0 {
		fmt.Fprintf(&b, ", goodput %.2f req/s", r.Goodput)
	}
	fmt.Fprintf(&b, "\noutput lengths from %s", orNone(r.TokensFrom))
	if r.CachedTokens > 0 {
		fmt.Fprintf(&b, ", %d prompt tokens were cached", r.CachedTokens)
	}
	if r.Mismatched > 0 {
		fmt.Fprintf(&b, "\nWARNING: %d prompts did not have the length asked for, as the server counts", r.Mismatched)
	}
	if r.Cancelled > 0 {
		fmt.Fprintf(&b, "\ngiven up by intent: %d", r.Cancelled)
	}
	for _, class := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(&b, "\nerror %s: %d; the first: %q", class, r.Errors[class], r.ErrorDetails[class])
	}
	for _, p := range r.Processes {
		fmt.Fprintf(&b, "\n%s (pid %d): %.2f CPU-s, %.3f per 1k requests, %.2f per 1M chunks, %s resident, %s at most", p.Name, p.PID, p.CPUSeconds, per(p.CPUSeconds, r.Requests, 1e3), per(p.CPUSeconds, int(r.Chunks), 1e6), mib(p.RSSBytes), mib(p.PeakBytes))
	}
	fmt.Fprintf(&b, "\nclient: %.2f CPU-s, %.0f %% of its processors", r.Client.CPUSeconds, 100*r.Client.CPUShare)
	if r.Client.LateP99 > 0 {
		fmt.Fprintf(&b, ", sent late by %s at p99", milliseconds(r.Client.LateP99.Seconds()))
	}
	if r.Client.Bottleneck {
		fmt.Fprintf(&b, "\nWARNING: the client itself was the bottleneck: %s", r.Client.Why)
	}
	_, err := fmt.Fprintln(out, b.String())
	return err
}

func row(w io.Writer, name string, s stats.Summary, scale float64, format string) {
	if s.Count == 0 {
		return
	}
	fmt.Fprint(w, name)
	for _, v := range []float64{s.Mean, s.Min, s.P50, s.P90, s.P95, s.P99, s.Max, s.Std} {
		fmt.Fprintf(w, "\t"+format, v*scale)
	}
	fmt.Fprint(w, "\t\n") // Flush tells of errors
}

func orNone(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

func per(total float64, n int, unit float64) float64 {
	if n == 0 {
		return 0
	}
	return total / float64(n) * unit
}
