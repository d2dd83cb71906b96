package report

import (
	"encoding/csv"
	"io"
	"strconv"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// csvHeader are the columns of result.csv: those of genai-perf's, with the unit in its
// own column.
var csvHeader = []string{"metric", "unit", "avg", "min", "p25", "p50", "p75", "p90", "p95", "p99", "max", "std", "count"}

// WriteCSV writes a row for each metric of r. Latencies are in milliseconds, as
// aiperf's and genai-perf's are; a metric that is one figure has only avg.
func WriteCSV(w io.Writer, r *bench.Result) error {
	out := csv.NewWriter(w)
	rows := [][]string{csvHeader}
	for _, m := range []struct {
		name string
		of   stats.Summary
	}{
		{"time_to_first_token", r.TTFT}, {"time_to_second_token", r.TTST}, {"inter_token_latency", r.ITL},
		{"inter_chunk_latency", r.ICL}, {"time_per_output_token", r.TPOT}, {"request_latency", r.E2E},
	} {
		rows = append(rows, summaryRow(m.name, "ms", m.of, 1e3))
	}
	rows = append(rows, summaryRow("input_sequence_length", "tokens", r.InputTokens, 1), summaryRow("output_sequence_length", "tokens", r.OutputTokens, 1))
	single := func(name, unit string, v float64) {
		row := make([]string, len(csvHeader))
		row[0], row[1], row[2] = name, unit, figure(v)
		rows = append(rows, row)
	}
	single("request_throughput", "requests/s", r.RequestThroughput)
	single("output_token_throughput", "tokens/s", r.OutputThroughput)
	single("input_token_throughput", "tokens/s", r.InputThroughput)
	if len(r.GoodputTargets) > 0 {
		single("goodput", "requests/s", r.Goodput)
	}
	single("request_count", "requests", float64(r.Requests))
	single("error_request_count", "requests", float64(errorCount(r)))
	single("cancelled_request_count", "requests", float64(r.Cancelled))
	single("cached_tokens", "tokens", float64(r.CachedTokens))
	single("benchmark_duration", "s", r.Duration.Seconds())
	return out.WriteAll(rows)
}

func summaryRow(name, unit string, s stats.Summary, scale float64) []string {
	row := []string{name, unit}
	for _, v := range []float64{s.Mean, s.Min, s.P25, s.P50, s.P75, s.P90, s.P95, s.P99, s.Max, s.Std} {
		row = append(row, figure(v*scale))
	}
	return append(row, strconv.Itoa(s.Count))
}

// figure is v to the nanosecond, if it is milliseconds, without needless digits.
func figure(v float64) string {
	text := strconv.FormatFloat(finite(v), 'f', 6, 64)
	end := len(text)
	for text[end-1] == '0' {
		end--
	}
	if text[end-1] == '.' {
		end--
	}
	return text[:end]
}

// errorCount is the number of requests that failed.
func errorCount(r *bench.Result) int {
	n := 0
	for _, c := range r.Errors {
		n += c
	}
	return n
}
