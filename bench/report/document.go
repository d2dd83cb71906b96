package report

import (
	"fmt"
	"math"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// schema numbers the form of result.json. Fields may be added under one number; a
// field that changes its meaning or goes takes the next.
const schema = 1

// lenient is how JSON is written: in one order, and whatever bytes a server put into
// the text of an error.
var lenient = json.JoinOptions(json.Deterministic(true), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true))

// document is result.json. Its names carry the units.
type document struct {
	Schema   int               `json:"schema"`
	Started  time.Time         `json:"started"`
	Duration float64           `json:"duration_seconds"`
	Machine  string            `json:"machine"`
	Version  string            `json:"version"`
	Partial  string            `json:"partial,omitempty"`
	Config   map[string]string `json:"config"`

	Requests  int            `json:"requests"`
	Errors    map[string]int `json:"errors"`
	Cancelled int            `json:"cancelled"`
	// ErrorDetails has the text of the first error of each class.
	ErrorDetails map[string]string `json:"error_details,omitempty"`

	TTFT         summary `json:"ttft_seconds"`
	TTST         summary `json:"ttst_seconds"`
	ITL          summary `json:"itl_seconds"`
	ICL          summary `json:"icl_seconds"`
	TPOT         summary `json:"tpot_seconds"`
	E2E          summary `json:"e2e_seconds"`
	InputTokens  summary `json:"input_tokens"`
	OutputTokens summary `json:"output_tokens"`
	TokensFrom   string  `json:"output_tokens_from"`

	RequestThroughput float64            `json:"requests_per_second"`
	OutputThroughput  float64            `json:"output_tokens_per_second"`
	InputThroughput   float64            `json:"input_tokens_per_second"`
	Goodput           float64            `json:"goodput_requests_per_second"`
	GoodputTargets    map[string]float64 `json:"goodput_targets_seconds,omitempty"`
	CachedTokens      int64              `json:"cached_tokens"`
	Chunks            int64              `json:"chunks"`
	Mismatched        int                `json:"mismatched_prompts"`
	TemplateTokens    int                `json:"template_tokens"`

	Client     client       `json:"client"`
	Processes  []process    `json:"processes,omitempty"`
	Series     []second     `json:"series"`
	Histograms distribution `json:"histograms"`
}

type summary struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	Std   float64 `json:"std"`
	Min   float64 `json:"min"`
	P25   float64 `json:"p25"`
	P50   float64 `json:"p50"`
	P75   float64 `json:"p75"`
	P90   float64 `json:"p90"`
	P95   float64 `json:"p95"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

type client struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	CPUShare   float64 `json:"cpu_share"`
	LateP99    float64 `json:"late_p99_seconds"`
	Bottleneck bool    `json:"bottleneck"`
	Why        string  `json:"why,omitempty"`
}

type process struct {
	Name       string  `json:"name"`
	PID        int     `json:"pid"`
	CPUSeconds float64 `json:"cpu_seconds"`
	RSSBytes   int64   `json:"rss_bytes"`
	PeakBytes  int64   `json:"peak_bytes"`
}

type second struct {
	At       int     `json:"at_seconds"`
	Started  int     `json:"started"`
	Finished int     `json:"finished"`
	Errors   int     `json:"errors"`
	InFlight int     `json:"in_flight"`
	Tokens   int     `json:"tokens"`
	TTFTP50  float64 `json:"ttft_p50_seconds"`
	TTFTP99  float64 `json:"ttft_p99_seconds"`
	ITLP50   float64 `json:"itl_p50_seconds"`
}

type distribution struct {
	TTFT   *stats.Histogram `json:"ttft_seconds,omitempty"`
	ITL    *stats.Histogram `json:"itl_seconds,omitempty"`
	ICL    *stats.Histogram `json:"icl_seconds,omitempty"`
	E2E    *stats.Histogram `json:"e2e_seconds,omitempty"`
	Input  *stats.Histogram `json:"input_tokens,omitempty"`
	Output *stats.Histogram `json:"output_tokens,omitempty"`
}

// finite is v, or 0 where JSON has no word for it.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

func storedSummary(s stats.Summary) summary {
	out := summary(s)
	for _, v := range []*float64{&out.Mean, &out.Std, &out.Min, &out.P25, &out.P50, &out.P75, &out.P90, &out.P95, &out.P99, &out.P999, &out.Max} {
		*v = finite(*v)
	}
	return out
}

// newDocument is r as it is stored.
func newDocument(r *bench.Result) *document {
	d := &document{
		Schema: schema, Started: r.Started.UTC(), Duration: r.Duration.Seconds(), Machine: r.Machine, Version: r.Version,
		Partial: r.Partial, Config: r.Config, Requests: r.Requests, Errors: r.Errors, Cancelled: r.Cancelled,
		TTFT: storedSummary(r.TTFT), TTST: storedSummary(r.TTST), ITL: storedSummary(r.ITL), ICL: storedSummary(r.ICL),
		TPOT: storedSummary(r.TPOT), E2E: storedSummary(r.E2E),
		InputTokens: storedSummary(r.InputTokens), OutputTokens: storedSummary(r.OutputTokens), TokensFrom: r.TokensFrom,
		RequestThroughput: finite(r.RequestThroughput), OutputThroughput: finite(r.OutputThroughput),
		InputThroughput: finite(r.InputThroughput), Goodput: finite(r.Goodput),
		CachedTokens: r.CachedTokens, Chunks: r.Chunks, Mismatched: r.Mismatched,
		TemplateTokens: r.TemplateTokens, ErrorDetails: r.ErrorDetails,
		Client: client{CPUSeconds: finite(r.Client.CPUSeconds), CPUShare: finite(r.Client.CPUShare),
			LateP99: r.Client.LateP99.Seconds(), Bottleneck: r.Client.Bottleneck, Why: r.Client.Why},
		Histograms: distribution{TTFT: r.TTFTHist, ITL: r.ITLHist, ICL: r.ICLHist, E2E: r.E2EHist, Input: r.InputHist, Output: r.OutputHist},
	}
	if len(r.GoodputTargets) > 0 {
		d.GoodputTargets = map[string]float64{}
		for name, t := range r.GoodputTargets {
			d.GoodputTargets[name] = t.Seconds()
		}
	}
	for _, p := range r.Processes {
		d.Processes = append(d.Processes, process(p))
	}
	for _, s := range r.Series {
		d.Series = append(d.Series, second(s))
	}
	return d
}

// result is d as the rest of the program knows it.
func (d *document) result() *bench.Result {
	r := &bench.Result{
		Started: d.Started, Duration: toDuration(d.Duration), Machine: d.Machine, Version: d.Version,
		Partial: d.Partial, Config: d.Config, Requests: d.Requests, Errors: d.Errors, Cancelled: d.Cancelled,
		TTFT: stats.Summary(d.TTFT), TTST: stats.Summary(d.TTST), ITL: stats.Summary(d.ITL), ICL: stats.Summary(d.ICL),
		TPOT: stats.Summary(d.TPOT), E2E: stats.Summary(d.E2E),
		InputTokens: stats.Summary(d.InputTokens), OutputTokens: stats.Summary(d.OutputTokens), TokensFrom: d.TokensFrom,
		RequestThroughput: d.RequestThroughput, OutputThroughput: d.OutputThroughput,
		InputThroughput: d.InputThroughput, Goodput: d.Goodput,
		CachedTokens: d.CachedTokens, Chunks: d.Chunks, Mismatched: d.Mismatched,
		TemplateTokens: d.TemplateTokens, ErrorDetails: d.ErrorDetails,
		Client: bench.ClientHealth{CPUSeconds: d.Client.CPUSeconds, CPUShare: d.Client.CPUShare,
			LateP99: toDuration(d.Client.LateP99), Bottleneck: d.Client.Bottleneck, Why: d.Client.Why},
		TTFTHist: d.Histograms.TTFT, ITLHist: d.Histograms.ITL, ICLHist: d.Histograms.ICL, E2EHist: d.Histograms.E2E,
		InputHist: d.Histograms.Input, OutputHist: d.Histograms.Output,
	}
	for name, t := range d.GoodputTargets {
		if r.GoodputTargets == nil {
			r.GoodputTargets = map[string]time.Duration{}
		}
		r.GoodputTargets[name] = toDuration(t)
	}
	for _, p := range d.Processes {
		r.Processes = append(r.Processes, bench.ProcessUse(p))
	}
	for _, s := range d.Series {
		r.Series = append(r.Series, bench.Second(s))
	}
	return r
}

// toDuration is seconds as a Duration, exact to the nanosecond up to a few months.
func toDuration(seconds float64) time.Duration {
	return time.Duration(math.Round(min(max(seconds, -1e9), 1e9) * 1e9))
}

// Marshal is r as result.json.
func Marshal(r *bench.Result) ([]byte, error) {
	text, err := json.Marshal(newDocument(r), lenient)
	if err != nil {
		return nil, fmt.Errorf("result as JSON: %w", err)
	}
	return append(layout(text), '\n'), nil
}

// layout breaks text into lines, one field of the outermost object or one entry of
// the series each: it diffs and greps, and is not long.
func layout(text []byte) []byte {
	out := make([]byte, 0, len(text)+len(text)/16)
	depth, inText, escaped := 0, false, false
	for i, c := range text {
		switch {
		case escaped:
			escaped = false
		case inText && c == '\\':
			escaped = true
		case c == '"':
			inText = !inText
		case inText:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
			if depth == 0 {
				out = append(out, '\n')
			}
		}
		out = append(out, c)
		if inText {
			continue
		}
		switch {
		case depth == 1 && (c == '{' || c == ','):
			out = append(out, "\n  "...)
		case depth == 2 && c == ',' && text[i+1] == '{':
			out = append(out, "\n    "...)
		case c == ':':
			out = append(out, ' ')
		}
	}
	return out
}

// Unmarshal reads result.json.
func Unmarshal(text []byte) (*bench.Result, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "not a result.json of dynamo bench", Err: err}
	}
	if d.Schema != schema {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("schema %d of result.json is not the one this version reads (%d); compare with the version that wrote it", d.Schema, schema)}
	}
	return d.result(), nil
}
