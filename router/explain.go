package router

import (
	"cmp"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/placement"
)

// Explanation says why a request went where it did, as
// GET /v1/requests/{id}/explain shows it. Times are in milliseconds.
type Explanation struct {
	Request  string               `json:"request"`
	Model    string               `json:"model"`
	Attempts []AttemptExplanation `json:"attempts"`
}

// AttemptExplanation is about one decision for it.
type AttemptExplanation struct {
	At           time.Time `json:"at"`
	Request      string    `json:"request"` // with what tells choices and stages apart
	Attempt      int       `json:"attempt"`
	Policy       string    `json:"policy"`
	Seed         uint64    `json:"seed"`
	QueueMillis  float64   `json:"queue_ms"`
	PromptTokens int       `json:"prompt_tokens"`
	Blocks       int       `json:"blocks"`
	BlockSize    int       `json:"block_size"`
	// Winner is empty when there was none. Tie says what told it from the others.
	Winner     string `json:"winner"`
	WinnerRank int    `json:"winner_rank"`
	Tie        string `json:"tie"`
	Sticky     bool   `json:"sticky"` // it serves the request's group
	// Candidates are the best, best first; Others are those that are left out.
	Candidates []CandidateExplanation `json:"candidates"`
	Others     OthersExplanation      `json:"others"`
	// Words say why it was decided so, and whether and why the prompt is computed apart
	// from the answer.
	Words []string `json:"words"`
	// PredictedMillis is the time to the first token that was predicted, if the
	// policy predicts, and ObservedMillis the time from the decision to it.
	PredictedMillis float64 `json:"predicted_ttft_ms,omitzero"`
	ObservedMillis  float64 `json:"observed_ttft_ms,omitzero"`
	TotalMillis     float64 `json:"total_ms,omitzero"`
	// PredictedCached are the tokens of the prompt that the winner was thought to
	// hold, ObservedCached those it says it held; absent until it says so.
	PredictedCached int  `json:"predicted_cached_tokens"`
	ObservedCached  *int `json:"observed_cached_tokens,omitzero"`
	// Outcome is how the attempt ended, empty until it has; Code is the worker's.
	Outcome string `json:"outcome"`
	Code    string `json:"code,omitzero"`
	// Fetch is about KV that another worker was to lend; absent if none was.
	Fetch *FetchExplanation `json:"fetch,omitzero"`
	// Record is the decision's record, from which the winner follows again.
	Record []byte `json:"record"`
}

// CandidateExplanation is about one worker.
type CandidateExplanation struct {
	Worker    string             `json:"worker"`
	Rank      int                `json:"rank"`
	Verdict   string             `json:"verdict"`
	Overlap   map[string]int     `json:"overlap"` // blocks, by tier: "device" and "slower"
	Terms     map[string]float64 `json:"terms,omitzero"`
	Cost      float64            `json:"cost"`
	Load      int                `json:"load"`
	ReportAge float64            `json:"report_age_ms"` // -1: none has come
	// Measured says that its speed was known and not assumed; Confidence is how far
	// predictions for it can be relied on by now, 0…1.
	Measured   bool    `json:"measured"`
	Confidence float64 `json:"confidence"`
}

// OthersExplanation is about those that are left out.
type OthersExplanation struct {
	Count int `json:"count"`
	// BestCost bounds their costs from below; absent if none could have won.
	BestCost *float64 `json:"best_cost,omitzero"`
}

// Explain says why a request went where it did, and whether its decisions are still
// known: the last ones are.
func (r *Router) Explain(id dynamo.RequestID) (Explanation, bool) {
	r.mu.Lock()
	entries := r.mu.journal.of(id)
	confidence := map[string]float64{}
	for _, m := range r.mu.list {
		if len(entries) > 0 {
			confidence[m.ID.String()] = m.estimate.Calibration().Confidence()
		}
	}
	r.mu.Unlock()
	x := Explanation{Request: string(id), Model: r.config.Model}
	for i := range entries {
		a := entries[i].explain()
		for k := range a.Candidates {
			a.Candidates[k].Confidence = confidence[a.Candidates[k].Worker]
		}
		x.Attempts = append(x.Attempts, a)
	}
	return x, len(entries) > 0
}

// Model is the name of the model that it routes for.
func (r *Router) Model() string { return r.config.Model }

// Records returns the records of the last decisions, oldest first, for those that
// make them once more.
func (r *Router) Records() [][]byte {
	r.mu.Lock()
	entries := r.mu.journal.last(JournalSize)
	r.mu.Unlock()
	var all [][]byte
	for _, e := range slices.Backward(entries) {
		all = append(all, e.record[:e.bytes])
	}
	return all
}

func (e *entry) explain() AttemptExplanation {
	rec := e.parse()
	words := placement.Explain(&rec)
	a := AttemptExplanation{
		At: e.decided, Request: string(e.request), Attempt: e.attempt, Policy: rec.Policy.String(), Seed: rec.Seed, QueueMillis: milliseconds(e.waited),
		PromptTokens: e.prompt, BlockSize: rec.BlockSize, Blocks: e.prompt / max(rec.BlockSize, 1), Tie: words.Reason, Sticky: rec.Group,
		ObservedMillis: milliseconds(e.first), TotalMillis: milliseconds(e.total), PredictedCached: e.held, Code: e.code,
		Record: slices.Clone(e.record[:e.bytes]),
	}
	for i := range rec.Best {
		a.Candidates = append(a.Candidates, explainCandidate(&rec, &rec.Best[i]))
	}
	if rec.Outcome == placement.Fit && len(rec.Best) > 0 {
		w := &rec.Best[0]
		a.Winner, a.WinnerRank = w.Worker.String(), w.Rank
		if hasTerms(&w.Terms) {
			a.PredictedMillis = w.Terms.Wait + w.Terms.Prefill + w.Terms.Load
		}
	}
	if left := rec.Candidates - len(rec.Best); left > 0 {
		a.Others.Count = left
		if rec.Fit > len(rec.Best) && rec.Bound < maxCost {
			a.Others.BestCost = &rec.Bound
		}
	}
	a.Words = append([]string{words.Decision, words.Reason}, words.Otherwise...)
	a.Words = slices.DeleteFunc(append(a.Words, words.Rest, e.fetch.words(), e.split.Words()), func(s string) bool { return s == "" })
	a.Fetch = e.fetch
	if e.cached >= 0 {
		a.ObservedCached = &e.cached
	}
	if e.total > 0 || rec.Outcome != placement.Fit {
		a.Outcome = cmp.Or(e.outcomeName(), rec.Outcome.String())
	}
	return a
}

// outcomeName is how the attempt ended.
func (e *entry) outcomeName() string {
	if e.total == 0 {
		return ""
	}
	if e.outcome == refused {
		return "refused"
	}
	return outcomes[e.outcome]
}

func explainCandidate(rec *placement.Record, b *placement.Entry) CandidateExplanation {
	c := CandidateExplanation{
		Worker: b.Worker.String(), Rank: b.Rank, Verdict: placement.Fit.String(), Overlap: map[string]int{"device": b.Held, "slower": b.Slower},
		Cost: min(b.Cost, maxCost), Load: b.Load, ReportAge: -1,
	}
	switch {
	case b.Aside:
		c.Verdict = "aside"
	case b.Doubted:
		c.Verdict = "doubted"
	}
	c.Measured = b.Known
	if b.ReportAge >= 0 {
		c.ReportAge = milliseconds(b.ReportAge)
	}
	if t := &b.Terms; hasTerms(t) {
		c.Terms = map[string]float64{
			"wait_ms": t.Wait, "prefill_ms": t.Prefill, "load_ms": t.Load, "slowdown_ms": t.Slowdown, "decode_ms": t.Decode + t.Evict, "late_ms": t.Late,
		}
	}
	return c
}

func hasTerms(t *placement.Terms) bool { return *t != placement.Terms{} }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
