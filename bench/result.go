package bench

import (
	"time"

	"github.com/dynamo-go/dynamo/bench/stats"
)

// Result is what a run found. Latencies are in seconds, lengths in tokens, rates per
// second of Duration. Names in brackets are those of aiperf and genai-perf.
type Result struct {
	// Config is the run's configuration: flag name to value, secrets left out.
	Config map[string]string
	// Started is when the measured part began, and Duration how long it took, from
	// the first request due to the last answer.
	Started  time.Time
	Duration time.Duration
	// Machine says what the client ran on, Version which program.
	Machine string
	Version string
	// Partial says why the run ended early; empty if it did not.
	Partial string

	// Requests is the number of measured requests that got a whole answer, Errors of
	// those that did not, by class, and Cancelled of those the client gave up by
	// intent (--cancel-rate). Latencies and lengths are of the whole answers only.
	Requests  int
	Errors    map[string]int
	Cancelled int
	// ErrorDetails has the text of the first error of each class.
	ErrorDetails map[string]string

	// TTFT is from the time a request was due to the first event with content
	// [time_to_first_token].
	TTFT stats.Summary
	// TTST is from the first such event to the second [time_to_second_token].
	TTST stats.Summary
	// ITL is per request: (last content − first content) / (output tokens − 1)
	// [inter_token_latency].
	ITL stats.Summary
	// ICL is the gap between two events with content as they arrived, over all
	// requests [inter_chunk_latency]; vLLM's benchmark calls it ITL.
	ICL stats.Summary
	// TPOT is per request: (end of the answer − first content) / (output tokens − 1),
	// as vLLM's benchmark has it.
	TPOT stats.Summary
	// E2E is from the time a request was due to the end of its answer
	// [request_latency].
	E2E stats.Summary
	// InputTokens and OutputTokens are lengths per request [input_sequence_length,
	// output_sequence_length].
	InputTokens, OutputTokens stats.Summary
	// TokensFrom says where output lengths come from: usage (the server told),
	// tokenizer, chunks (events with content), or several of these, joined by "+".
	TokensFrom string

	// RequestThroughput is whole answers per second [request_throughput];
	// OutputThroughput and InputThroughput are their tokens per second
	// [output_token_throughput].
	RequestThroughput, OutputThroughput, InputThroughput float64
	// Goodput is whole answers per second that kept every one of GoodputTargets
	// (ttft, itl, e2e) [goodput]; 0 without targets.
	Goodput        float64
	GoodputTargets map[string]time.Duration
	// CachedTokens is the sum of prompt tokens that the server said it had cached.
	CachedTokens int64
	// Chunks is the number of events with content.
	Chunks int64
	// Mismatched counts answers whose prompt length, as the server told it, is not
	// the one asked for, where that was exact.
	Mismatched int
	// TemplateTokens is how many tokens the server counted beyond those of the text
	// sent: what its chat template adds.
	TemplateTokens int

	// Client says how the load generator itself did, Processes what the watched
	// processes used.
	Client    ClientHealth
	Processes []ProcessUse
	// Series has an entry for each second of Duration.
	Series []Second
	// TTFTHist, ITLHist, ICLHist and E2EHist are the distributions behind the summaries.
	TTFTHist, ITLHist, ICLHist, E2EHist *stats.Histogram
	// InputHist and OutputHist are the distributions of the lengths.
	InputHist, OutputHist *stats.Histogram
}

// ClientHealth says whether the figures are the server's or the client's.
type ClientHealth struct {
	// CPUSeconds is the processor time of this process during the measured part, and
	// CPUShare that time over the time of all processors it may use.
	CPUSeconds float64
	CPUShare   float64
	// LateP99 is how long after they were due the requests of an open loop were
	// sent, at the 99th percentile.
	LateP99 time.Duration
	// Bottleneck says that the client limited the run, and Why how.
	Bottleneck bool
	Why        string
}

// ProcessUse is what a watched process and its threads used during the measured part.
type ProcessUse struct {
	Name string
	PID  int
	// CPUSeconds is user and system time, RSSBytes the resident memory at the end and
	// PeakBytes its high-water mark.
	CPUSeconds          float64
	RSSBytes, PeakBytes int64
}

// Second is one second of a run.
type Second struct {
	// At is the second's number, from 0.
	At int
	// Started, Finished and Errors count requests sent, answered whole and failed in
	// it; InFlight is how many were open at its end.
	Started, Finished, Errors, InFlight int
	// Tokens is the number of output tokens (events with content) that came in it.
	Tokens int
	// TTFTP50, TTFTP99 and ITLP50 are of the requests whose answer ended in it, in
	// seconds; 0 if none did.
	TTFTP50, TTFTP99, ITLP50 float64
}

// Record is one request: a line of --records. Times are nanoseconds since the run's
// start; 0 is never. A request that was not sent has only Scheduled.
type Record struct {
	// Index numbers requests in the order of the schedule.
	Index int `json:"index"`
	// Scheduled is when it was due, Sent when it was written, First and Last when
	// the first and last event with content came, End when the answer ended.
	Scheduled int64 `json:"scheduled_ns"`
	Sent      int64 `json:"sent_ns"`
	First     int64 `json:"first_ns,omitzero"`
	Second    int64 `json:"second_ns,omitzero"`
	Last      int64 `json:"last_ns,omitzero"`
	End       int64 `json:"end_ns"`
	// Input and Output are lengths in tokens; Cached is how many of Input the server
	// had. Chunks is the number of events with content.
	Input  int `json:"input_tokens"`
	Output int `json:"output_tokens"`
	Cached int `json:"cached_tokens,omitzero"`
	Chunks int `json:"chunks,omitzero"`
	// Status is the HTTP status, 0 if none came. Error is the class of what went
	// wrong and Detail its text; empty for a whole answer. Cancelled says that the
	// client gave up by intent.
	Status    int    `json:"status"`
	Error     string `json:"error,omitzero"`
	Detail    string `json:"detail,omitzero"`
	Cancelled bool   `json:"cancelled,omitzero"`
	// Finish is the answer's finish_reason.
	Finish string `json:"finish,omitzero"`
	// Session and Turn are those of the trace.
	Session string `json:"session,omitzero"`
	Turn    int    `json:"turn,omitzero"`
	// Gaps are the times between events with content, if asked for.
	Gaps []int64 `json:"gaps_ns,omitzero"`
}

// Whole says that the answer came whole.
func (r *Record) Whole() bool { return r.Error == "" && !r.Cancelled }

// TTFT is the time to first content in seconds, from when the request was due.
func (r *Record) TTFT() float64 { return seconds(r.First - r.Scheduled) }

// E2E is the time to the end of the answer in seconds, from when the request was due.
func (r *Record) E2E() float64 { return seconds(r.End - r.Scheduled) }

// ITL is the mean time between output tokens in seconds; false for fewer than two.
func (r *Record) ITL() (float64, bool) {
	if r.Output < 2 || r.First == 0 {
		return 0, false
	}
	return seconds(r.Last-r.First) / float64(r.Output-1), true
}

// TPOT is like ITL but up to the end of the answer.
func (r *Record) TPOT() (float64, bool) {
	if r.Output < 2 || r.First == 0 {
		return 0, false
	}
	return seconds(r.End-r.First) / float64(r.Output-1), true
}

func seconds(ns int64) float64 { return float64(ns) / 1e9 }
