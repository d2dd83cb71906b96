package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo/bench/report"
	"github.com/dynamo-go/dynamo/bench/stats"
	"github.com/dynamo-go/dynamo/sim"
)

// replayMetrics are what runs are told and compared by.
var replayMetrics = []struct {
	name   string
	unit   string
	scale  float64
	format string
	of     func(r *replayRun) float64
}{
	{"ttft_p50", "ms", 1e3, "%.1f", func(r *replayRun) float64 { return r.Bench.TTFT.P50 }},
	{"ttft_p90", "ms", 1e3, "%.1f", func(r *replayRun) float64 { return r.Bench.TTFT.P90 }},
	{"ttft_p99", "ms", 1e3, "%.1f", func(r *replayRun) float64 { return r.Bench.TTFT.P99 }},
	{"itl_p50", "ms", 1e3, "%.2f", func(r *replayRun) float64 { return r.Bench.ITL.P50 }},
	{"itl_p90", "ms", 1e3, "%.2f", func(r *replayRun) float64 { return r.Bench.ITL.P90 }},
	{"itl_p99", "ms", 1e3, "%.2f", func(r *replayRun) float64 { return r.Bench.ITL.P99 }},
	{"e2e_p50", "ms", 1e3, "%.0f", func(r *replayRun) float64 { return r.Bench.E2E.P50 }},
	{"e2e_p99", "ms", 1e3, "%.0f", func(r *replayRun) float64 { return r.Bench.E2E.P99 }},
	{"hit_rate", "%", 100, "%.1f", func(r *replayRun) float64 { return r.HitRate }},
	{"goodput", "req/s", 1, "%.2f", func(r *replayRun) float64 { return r.Bench.Goodput }},
	{"requests", "req/s", 1, "%.2f", func(r *replayRun) float64 { return r.Bench.RequestThroughput }},
	{"output", "tok/s", 1, "%.0f", func(r *replayRun) float64 { return r.Bench.OutputThroughput }},
	{"failed", "requests", 1, "%.0f", func(r *replayRun) float64 { return float64(r.failed()) }},
}

func (r *replayRun) failed() (n int) {
	for _, k := range r.Bench.Errors {
		n += k
	}
	return n
}

// show writes what came of the runs, modes of them for each trial.
func (c *replayCmd) show(a *app, runs []replayRun, modes int) error {
	comparison, err := c.compare(runs, modes)
	if err != nil {
		return err
	}
	if c.Output != "" {
		if err := c.write(runs[:modes], comparison); err != nil {
			return err
		}
	}
	if c.JSON {
		return printReplayJSON(a.stdout, runs, modes)
	}
	if err := printReplay(a.stdout, runs, modes); err != nil {
		return err
	}
	if comparison != nil && len(runs) == modes {
		fmt.Fprintln(a.stdout)
		if err := comparison.WriteText(a.stdout); err != nil {
			return err
		}
	}
	if c.Output != "" {
		_, err := fmt.Fprintf(a.stdout, "\nreports: %s\n", filepath.Clean(c.Output))
		return err
	}
	return nil
}

// compare sets the modes' runs of the first trial side by side; nil for one mode.
func (c *replayCmd) compare(runs []replayRun, modes int) (*report.Comparison, error) {
	if modes < 2 {
		return nil, nil
	}
	var sides []*report.Run
	for i := range runs[:modes] {
		sides = append(sides, &report.Run{Name: runs[i].mode, Result: runs[i].Bench, Records: runs[i].Records})
	}
	comparison, err := report.Compare(sides, report.CompareOptions{Bootstrap: stats.Bootstrap{Seed: c.Seed}})
	return comparison, asUsage(err)
}

// write writes a report of each mode, and of the comparison.
func (c *replayCmd) write(runs []replayRun, comparison *report.Comparison) error {
	for i := range runs {
		dir, err := c.directory(runs[i].mode)
		if err != nil {
			return err
		}
		if err := errors.Join(report.Write(dir, runs[i].Bench), writeRecords(filepath.Join(dir, report.RecordsFile), runs[i].Result)); err != nil {
			return err
		}
	}
	if comparison == nil {
		return nil
	}
	var page bytes.Buffer
	if err := comparison.WriteHTML(&page); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(c.Output, "compare.html"), page.Bytes(), 0o644), comparison.WritePlots(c.Output))
}

func writeRecords(path string, r *sim.Result) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	e := jsontext.NewEncoder(w)
	for i := range r.Records {
		if err := json.MarshalEncode(e, &r.Records[i]); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(w.Flush(), f.Close())
}

// printReplay writes the runs for people: a column for each mode, and with several
// trials the ratios to the first with their intervals.
func printReplay(out io.Writer, runs []replayRun, modes int) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight) // Flush tells of errors
	fmt.Fprint(w, "\t")
	for i := range modes {
		fmt.Fprintf(w, "%s\t", runs[i].mode)
		if i > 0 && len(runs) > modes {
			fmt.Fprintf(w, "/%s (95 %%)\t", runs[0].mode)
		}
	}
	fmt.Fprintln(w)
	for _, m := range replayMetrics {
		fmt.Fprintf(w, "%s (%s)\t", m.name, m.unit)
		for i := range modes {
			values, ratios := overTrials(runs, modes, i, m.of)
			fmt.Fprintf(w, m.format+"\t", m.scale*stats.NewExact(values).Mean())
			if i > 0 && len(runs) > modes {
				fmt.Fprintf(w, "%s\t", ratioOver(ratios))
			}
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	for i := range runs {
		r := &runs[i]
		total := r.Bench.Requests + r.failed()
		_, err := fmt.Fprintf(out, "%s, %v: %d requests over %.1f s, %d steps, %d preemptions; in %.2f s: %.0f requests a second, memory %s; outcome %016x\n",
			r.mode, r.trial, total, r.Bench.Duration.Seconds(), r.Steps, r.Preemptions, r.wall.Seconds(), float64(total)/r.wall.Seconds(), mib(r.memory), r.Hash)
		if err != nil {
			return err
		}
		if h := r.Handovers; h != nil {
			fmt.Fprintf(out, "  prompts computed apart for %d requests, %d whole, %d after the prefill side had failed; %.2f GB of KV moved, each within %s at p50 and %s at p99; from first to second token %s at p50, %s at p99\n",
				h.Apart, h.Whole, h.Fallback, h.Bytes/1e9, milliseconds(h.Transfer.P50), milliseconds(h.Transfer.P99), milliseconds(h.Gap.P50), milliseconds(h.Gap.P99))
		}
	}
	return nil
}

// overTrials are a metric's values of mode i, and their ratios to those of the first.
func overTrials(runs []replayRun, modes, i int, of func(r *replayRun) float64) (values, ratios []float64) {
	for k := 0; k < len(runs); k += modes {
		v, first := of(&runs[k+i]), of(&runs[k])
		values = append(values, v)
		if first > 0 {
			ratios = append(ratios, v/first)
		}
	}
	return values, ratios
}

func ratioOver(ratios []float64) string {
	if len(ratios) == 0 {
		return "–"
	}
	i := stats.Bootstrap{Seed: 1}.Interval(stats.NewExact(ratios), stats.Mean())
	return fmt.Sprintf("%.3f (%.3f – %.3f)", i.Value, i.Low, i.High)
}

// replayDocument is a run as JSON.
type replayDocument struct {
	Mode        string             `json:"mode"`
	Trace       string             `json:"trace,omitzero"`
	Seed        uint64             `json:"seed"`
	Requests    int                `json:"requests"`
	Failed      int                `json:"failed"`
	Duration    float64            `json:"duration_seconds"`
	Metrics     map[string]float64 `json:"metrics"`
	Steps       uint64             `json:"steps"`
	Preemptions uint64             `json:"preemptions"`
	Wall        float64            `json:"wall_seconds"`
	PerSecond   float64            `json:"requests_per_wall_second"`
	MemoryBytes int64              `json:"memory_bytes"`
	Outcome     string             `json:"outcome"`
	Handovers   *replayHandovers   `json:"handovers,omitempty"`
}

// replayHandovers is what became of the requests to a fleet with prefill workers.
type replayHandovers struct {
	Apart    int     `json:"apart"`
	Whole    int     `json:"whole"`
	Fallback int     `json:"fallback"`
	Bytes    float64 `json:"bytes"`
	Lost     int     `json:"lost"`
	Transfer float64 `json:"transfer_p50_ms"`
	Slowest  float64 `json:"transfer_p99_ms"`
	Gap      float64 `json:"gap_p50_ms"`
}

// printReplayJSON writes the runs for programs: latencies in ms, rates a second,
// shares in percent.
func printReplayJSON(out io.Writer, runs []replayRun, modes int) error {
	var all []replayDocument
	for i := range runs {
		r := &runs[i]
		d := replayDocument{
			Mode: r.mode, Trace: r.trial.file, Seed: r.trial.seed, Requests: r.Bench.Requests, Failed: r.failed(), Duration: r.Bench.Duration.Seconds(), Metrics: map[string]float64{},
			Steps: r.Steps, Preemptions: r.Preemptions, Wall: r.wall.Seconds(), PerSecond: float64(r.Bench.Requests+r.failed()) / r.wall.Seconds(),
			MemoryBytes: r.memory, Outcome: fmt.Sprintf("%016x", r.Hash),
		}
		for _, m := range replayMetrics {
			d.Metrics[m.name] = m.scale * m.of(r)
		}
		if h := r.Handovers; h != nil {
			d.Handovers = &replayHandovers{h.Apart, h.Whole, h.Fallback, h.Bytes, h.Lost, 1e3 * h.Transfer.P50, 1e3 * h.Transfer.P99, 1e3 * h.Gap.P50}
		}
		all = append(all, d)
	}
	text, err := json.Marshal(all, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return fmt.Errorf("runs as JSON: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s\n", text)
	return err
}
