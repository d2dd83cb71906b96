package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/report"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// deployments is a report of two deployments under two loads, of which the second moves KV,
// and of a third of another ratio.
func deployments() *report.Disagg {
	load := func(offered, ttft, itl, good float64, moved report.Moved) report.Load {
		var first, gap stats.Histogram
		for i := range 200 {
			first.Record(ttft * (0.5 + float64(i)/200))
			gap.Record(itl * (0.5 + float64(i)/200))
		}
		return report.Load{Offered: offered, HitRate: 0.25, Moved: moved, Result: &bench.Result{
			Requests: 200, TTFT: first.Summary(), ITL: gap.Summary(), TTFTHist: &first, ITLHist: &gap,
			RequestThroughput: offered * 4, OutputThroughput: offered * 400, Goodput: good,
		}}
	}
	moved := report.Moved{Apart: 100, Bytes: 5e10, Transfer: stats.Summary{Count: 100, P50: 0.008, P99: 0.02}, Overhead: stats.Summary{Count: 100, P50: 0.01}}
	return &report.Disagg{
		Subtitle: "4 × gpu <simulated>", Facts: []string{"400 requests"}, TTFT: time.Second, ITL: 20 * time.Millisecond, At: 1,
		Deployments: []report.Deployment{
			{Name: "agg", What: "whole answers", GPUs: 4, Loads: []report.Load{load(1, 0.2, 0.01, 4, report.Moved{}), load(2, 0.8, 0.03, 2, report.Moved{})}},
			{Name: "fast", What: "prompts apart", GPUs: 4, Loads: []report.Load{load(1, 0.2, 0.008, 4, moved), load(2, 0.4, 0.01, 8, moved)}},
		},
		Ratios: []report.Deployment{{Name: "1P3D", What: "another", GPUs: 4, Loads: []report.Load{load(1, 0.5, 0.01, 3, moved), load(2, 3, 0.01, 1, moved)}}},
	}
}

func TestDisaggText(t *testing.T) {
	var out bytes.Buffer
	if err := deployments().WriteText(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"At 2.00 req/s per GPU", "Transfer, p50 – 8.00 ms", "KV moved for each of them, GB – 0.500", "Prompts computed apart 0 % 50.0 %",
		"agg 1.00 req/s 1.00× 1.00 req/s per GPU", "fast 2.00 req/s 2.00× 2.00 req/s per GPU", "1P3D 0.750 req/s 0.75×",
	} {
		if got := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(got, want) {
			t.Errorf("got\n%s\nwant %q in it", out.String(), want)
		}
	}
}

func TestDisaggFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	if err := deployments().Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"report.html", "disagg.json", "pareto.svg", "pareto.png", "goodput.png", "transfer-p50.svg", "ttft-distribution.png", "ratios-pareto.svg"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	html, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(bytes.NewReader(html)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the page is not well formed: %v", err)
		}
	}
	if !bytes.Contains(html, []byte("4 × gpu &lt;simulated&gt;")) {
		t.Error("the page does not escape its subtitle")
	}
	text, err := os.ReadFile(filepath.Join(dir, "disagg.json"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Deployments []struct {
			Name  string
			Loads []struct{ Metrics map[string]float64 }
		} `json:"deployments"`
	}
	if err := json.Unmarshal(text, &got, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatal(err)
	}
	m := got.Deployments[1].Loads[1].Metrics
	if _, has := got.Deployments[0].Loads[0].Metrics["transfer_p50"]; has || m["transfer_p50"] != 0.008 || m["goodput_per_gpu"] != 2 || m["moved_gb_per_request"] != 0.5 {
		t.Errorf("got %s", text)
	}
}

// TestOverhead: what counts is how much longer than the others the first gap is.
func TestOverhead(t *testing.T) {
	ms := int64(time.Millisecond)
	records := []bench.Record{
		{First: 10 * ms, Second: 40 * ms, Last: 80 * ms, Chunks: 6},                       // 30, and four of 10
		{First: 10 * ms, Second: 12 * ms, Last: 80 * ms, Chunks: 6},                       // shorter than the others
		{First: 10 * ms, Second: 40 * ms, Last: 40 * ms, Chunks: 2},                       // no others
		{First: 10 * ms, Second: 40 * ms, Last: 80 * ms, Chunks: 6, Error: "unavailable"}, // not whole
		{First: 10 * ms, Last: 80 * ms, Chunks: 6},                                        // not known
	}
	got := report.Overhead(records)
	if want := 0.020; got.Count != 2 || math.Abs(got.Max-want) > 0.02*want || got.Min > 1e-6 {
		t.Errorf("got %+v, want 0 and %v", got, want)
	}
}
