package report_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/report"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// stored writes what a comparison reads of a run, with records or not, and reads it back.
func stored(t *testing.T, r *bench.Result, records []bench.Record) *report.Run {
	t.Helper()
	dir := t.TempDir()
	text, err := report.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, report.ResultFile), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if records != nil {
		var lines bytes.Buffer
		for i := range records {
			if err := json.MarshalWrite(&lines, &records[i]); err != nil {
				t.Fatal(err)
			}
			lines.WriteByte('\n')
		}
		if err := os.WriteFile(filepath.Join(dir, report.RecordsFile), lines.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run, err := report.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func compared(t *testing.T, runs ...*report.Run) *report.Comparison {
	t.Helper()
	c, err := report.Compare(runs, report.CompareOptions{Bootstrap: stats.Bootstrap{Seed: 1, Resamples: 300}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func row(t *testing.T, c *report.Comparison, id string) report.Row {
	t.Helper()
	for _, r := range c.Rows {
		if r.ID == id {
			return r
		}
	}
	t.Fatalf("no row %s", id)
	return report.Row{}
}

func TestVerdicts(t *testing.T) {
	base, baseRecords := sample(1500, 1, 1)
	slow, slowRecords := sample(1500, 1, 1.05) // the same requests, 5 % slower
	other, otherRecords := sample(1500, 9, 1)  // other requests, as fast
	fast, _ := sample(1500, 5, 0.6)            // others, much faster
	a := stored(t, base, baseRecords)
	for _, c := range []struct {
		name string
		b    *report.Run
		want report.Verdict
		note string
	}{
		{"pairs show 5 %", stored(t, slow, slowRecords), report.Slower, "in pairs"},
		{"other requests, as fast", stored(t, other, otherRecords), report.NoDifference, "not in pairs"},
		{"histograms", stored(t, fast, nil), report.Faster, "over the histograms"},
		{"histograms, 5 %", stored(t, slow, nil), report.NoDifference, "over the histograms"},
	} {
		got := compared(t, a, c.b)
		if r := row(t, got, "ttft_p50"); r.Verdicts[1] != c.want {
			t.Errorf("%s: ttft_p50 is %s (%+v), want %s", c.name, r.Verdicts[1], r.Ratios[1], c.want)
		}
		if notes := strings.Join(got.Notes, "\n"); !strings.Contains(notes, c.note) {
			t.Errorf("%s: got notes %s, want %q in them", c.name, notes, c.note)
		}
	}
}

// Throughput is better when it is higher; latency when it is lower.
func TestDirections(t *testing.T) {
	base, _ := sample(1500, 1, 1)
	double, _ := sample(1500, 1, 1)
	for i := range double.Series {
		double.Series[i].Finished *= 2
		double.Series[i].Tokens *= 2
	}
	double.RequestThroughput *= 2
	double.OutputThroughput *= 2
	c := compared(t, stored(t, base, nil), stored(t, double, nil))
	for _, id := range []string{"request_throughput", "output_throughput"} {
		r := row(t, c, id)
		if r.Verdicts[1] != report.Faster || r.Ratios[1].Excludes(2) || r.Ratios[1].Low < 1.3 {
			t.Errorf("%s: got %s %+v", id, r.Verdicts[1], r.Ratios[1])
		}
	}
	if r := row(t, c, "goodput"); r.Verdicts[1] != report.Unknown || r.Ratios[1].Value != 1 {
		t.Errorf("goodput: got %s %+v", r.Verdicts[1], r.Ratios[1])
	}
	same := compared(t, stored(t, base, nil), stored(t, base, nil))
	for _, r := range same.Rows {
		if r.Verdicts[1] == report.Faster || r.Verdicts[1] == report.Slower {
			t.Errorf("a run against itself: %s is %s, %+v", r.ID, r.Verdicts[1], r.Ratios[1])
		}
	}
	if len(same.Differences) > 0 {
		t.Errorf("a run against itself: %+v", same.Differences)
	}
}

// The gaps of one request are alike: a hundred times as many of them do not make the
// interval narrower.
func TestGapsCountByRequest(t *testing.T) {
	width := func(times int) float64 {
		r := &bench.Result{Requests: 200, ICLHist: new(stats.Histogram)}
		for i := range 200 {
			for range times {
				r.ICLHist.Record(0.01 * (1 + 0.5*math.Sin(float64(i))))
			}
		}
		r.ICL = r.ICLHist.Summary()
		i := row(t, compared(t, &report.Run{Result: r}, &report.Run{Result: r}), "icl_mean").Ratios[1]
		return i.High - i.Low
	}
	if one, many := width(1), width(100); many < 0.8*one {
		t.Errorf("got an interval %v wide of one gap a request, %v of 100", one, many)
	}
}

func TestDifferencesComeFirstAndNameTheFlag(t *testing.T) {
	a, _ := sample(300, 1, 1)
	b, _ := sample(300, 1, 1)
	b.Machine, b.Config["request-rate"], b.Client.Why = "a larger one", "60", "late"
	delete(b.Config, "arrival")
	c := compared(t, stored(t, a, nil), stored(t, b, nil))
	var got []string
	for _, d := range c.Differences {
		got = append(got, fmt.Sprintf("%s: %s", d.What, strings.Join(d.Values, " → ")))
	}
	want := []string{"machine: 2 × Intel Xeon, linux/amd64 → a larger one", "client was the bottleneck:  → late", "--arrival: poisson → ", "--request-rate: 50 → 60"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var text bytes.Buffer
	if err := c.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if first, second := strings.Index(text.String(), "--request-rate"), strings.Index(text.String(), "ttft_p50"); first < 0 || second < first {
		t.Errorf("got\n%s", &text)
	}
}

func TestRecordsOfAnotherRunAreNotUsed(t *testing.T) {
	r, records := sample(300, 1, 1)
	for name, c := range map[string]struct {
		records []bench.Record
		broken  string
		want    string
	}{
		"fewer":    {records[:200], "", "another run"},
		"no JSON":  {nil, "{\"index\":0}\nhello\n", "line 2"},
		"too long": {nil, strings.Repeat("x", 17<<20), "too long"},
	} {
		run := stored(t, r, c.records)
		if c.broken != "" {
			if err := os.WriteFile(filepath.Join(run.Name, report.RecordsFile), []byte(c.broken), 0o644); err != nil {
				t.Fatal(err)
			}
			var err error
			if run, err = report.Open(run.Name); err != nil {
				t.Fatal(err)
			}
		}
		if run.Records != nil || !strings.Contains(run.Note, c.want) {
			t.Errorf("%s: got %d records, note %q; want %q in it", name, len(run.Records), run.Note, c.want)
		}
	}
}

func TestConditions(t *testing.T) {
	a, _ := sample(1500, 1, 1)
	b, _ := sample(1500, 3, 2)
	b.Goodput, a.Goodput = 0, 0
	c := compared(t, stored(t, a, nil), stored(t, b, nil), stored(t, a, nil))
	for text, want := range map[string]string{
		"ttft_p50>1.5": "[1]", "ttft_p50 > 1.5": "[1]", "ttft_p50<1.5": "[2]", "ttft_p50>=1": "[1 2]", "ttft_p50<=1": "[2]",
		"ttft_p50.low>1.5": "[1]", "ttft_p50.high>3": "[]", "itl_mean.high<0.5": "[]", "request_throughput<0.5": "[]",
	} {
		condition, err := report.ParseCondition(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, err := condition.Holds(c)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, %v; want %s", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"": "condition", "ttft_p50": "condition", "ttft>1": "no metric", "ttft_p50>": "not a number", "ttft_p50>x": "not a number",
		"ttft_p50>NaN": "not a number", "ttft_p50.mid>1": ".mid", "ttft_p50=1": "condition", "ttft_p50.>1": "may stand",
	} {
		if _, err := report.ParseCondition(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q in it", text, err, want)
		}
	}
	for _, text := range []string{"goodput<1", "tpot_mean>1", "failed_share.low>1"} {
		condition, err := report.ParseCondition(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := condition.Holds(c); err == nil {
			t.Errorf("%s: got %v, want an error", text, got)
		}
	}
}

func TestComparisonPagesAndJSON(t *testing.T) {
	a, _ := sample(1200, 1, 1)
	b, _ := sample(1200, 2, 1.3)
	c := compared(t, stored(t, a, nil), stored(t, b, nil), stored(t, a, nil))
	var page, text bytes.Buffer
	if err := c.WriteHTML(&page); err != nil {
		t.Fatal(err)
	}
	if elements, _ := wellFormed(t, page.Bytes()); elements["svg"] != 2+4+4 {
		t.Errorf("got %d plots, want 10", elements["svg"])
	}
	if err := c.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	var got struct {
		Metrics []struct {
			Metric string
			Values []float64
			Ratios []struct {
				Ratio, Low, High float64
				Verdict          string
			}
		}
	}
	if err := json.Unmarshal(text.Bytes(), &got, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	m := got.Metrics[1]
	if m.Metric != "ttft_p50" || len(m.Values) != 3 || len(m.Ratios) != 2 || m.Ratios[0].Verdict != "slower" || !(m.Ratios[0].Low > 1) {
		t.Errorf("got %+v", m)
	}
	if _, err := report.Compare([]*report.Run{{Result: a}}, report.CompareOptions{}); err == nil {
		t.Error("one run was compared")
	}
}

// A legend names runs by the last part of their names where those tell them apart and
// have room.
func TestLegendsNameTheRuns(t *testing.T) {
	for _, tt := range []struct {
		names []string
		want  string // a legend's last line
	}{
		{[]string{"out/round-robin", "out/kv/result.json"}, "B kv"},
		{[]string{"one/kv", "two/kv"}, "B"},
		{[]string{"out/round-robin", "out/a-name-that-leaves-no-room-for-the-others"}, "B"},
	} {
		var runs []*report.Run
		for i, name := range tt.names {
			r, _ := sample(600, uint64(i+1), 1)
			runs = append(runs, &report.Run{Name: filepath.FromSlash(name), Result: r})
		}
		dir := t.TempDir()
		if err := compared(t, runs...).WritePlots(dir); err != nil {
			t.Fatal(err)
		}
		svg, err := os.ReadFile(filepath.Join(dir, "compare-ttft.svg"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(svg, []byte(">"+tt.want+"<")) {
			t.Errorf("%v: the legend does not have %q", tt.names, tt.want)
		}
	}
}
