package router

import (
	"time"

	"github.com/dynamo-go/dynamo/router/placement"
)

// State is what a router knows at one moment, as GET /v1/router shows it.
type State struct {
	Model string    `json:"model"`
	Mode  string    `json:"mode"`
	At    time.Time `json:"at"`

	// Booked requests are in progress at workers, Waiting ones wait for one; the
	// others are counts since the router began.
	Booked    int    `json:"booked"`
	Waiting   int    `json:"waiting"`
	Decisions uint64 `json:"decisions"`
	Refusals  uint64 `json:"refusals"`
	Ended     uint64 `json:"ended"`
	Refused   uint64 `json:"refused"`
	Abandoned uint64 `json:"abandoned"`
	// PromptTokens are those of requests that have ended, CachedTokens those of them
	// that the workers had in their caches, PredictedTokens those that the index said
	// they had.
	PromptTokens    uint64 `json:"prompt_tokens"`
	CachedTokens    uint64 `json:"cached_tokens"`
	PredictedTokens uint64 `json:"predicted_tokens"`

	// Shadow is what another policy would have done, if one is asked.
	Shadow  *ShadowState  `json:"shadow,omitzero"`
	Index   IndexState    `json:"index"`
	Workers []WorkerState `json:"workers"`
	// Recent are the last decisions, newest first.
	Recent []RecentState `json:"recent"`
}

// ShadowState compares the policy in use with another one, decision by decision. Costs
// are those predicted by the policy kv.
type ShadowState struct {
	Mode          string `json:"mode"`
	Decisions     uint64 `json:"decisions"`
	Disagreements uint64 `json:"disagreements"`
	// Better and Worse count decisions for which the other policy's worker would have
	// cost less, or more.
	Better uint64 `json:"better"`
	Worse  uint64 `json:"worse"`
	// RegretMillis is by how much a decision costs more than the other policy's would
	// have, on average; below zero speaks for the policy in use.
	RegretMillis float64 `json:"regret_ms"`
}

// IndexState describes the prefix index: Blocks are counted once per holder.
type IndexState struct {
	Sources int    `json:"sources"`
	Blocks  uint64 `json:"blocks"`
	Bytes   int64  `json:"bytes"`
	Limit   int64  `json:"limit_bytes"`
}

// WorkerState describes a worker.
type WorkerState struct {
	ID     string            `json:"id"`
	Epoch  uint64            `json:"epoch"`
	State  string            `json:"state"` // "up", "down" or "draining"
	Labels map[string]string `json:"labels,omitempty"`
	Fault  string            `json:"fault,omitempty"`

	// Booked and BookedTokens are this router's; the others are its last report, of
	// ReportMillis ago (-1: none came).
	Booked       int   `json:"booked"`
	BookedTokens int   `json:"booked_tokens"`
	Running      int   `json:"running"`
	Queued       int   `json:"queued"`
	MaxRunning   int   `json:"max_running"`
	KVBlocks     int   `json:"kv_blocks"`
	KVUsed       int   `json:"kv_used"`
	ReportMillis int64 `json:"report_ms"`

	// Cache says how the index knows the worker's blocks ("exact", "repairing",
	// "approximate" or "none") and how many it counts.
	Cache  string `json:"cache"`
	Blocks uint64 `json:"blocks"`

	PromptTokens uint64 `json:"prompt_tokens"`
	CachedTokens uint64 `json:"cached_tokens"`
	// Confidence is how far predictions for the worker can be relied on, 0…1, and
	// ErrorP50 and ErrorP90 by which factor observed times to the first token exceed
	// predicted ones, the median and the ninth decile.
	Confidence float64 `json:"confidence"`
	ErrorP50   float64 `json:"ttft_error_p50"`
	ErrorP90   float64 `json:"ttft_error_p90"`
	// TTFTMillis is the mean of the last ones observed at the router, and
	// PredictedMillis what was predicted for the same requests; 0: none yet.
	TTFTMillis      float64 `json:"ttft_ms"`
	PredictedMillis float64 `json:"predicted_ttft_ms"`
}

// RecentState is one of the last decisions.
type RecentState struct {
	Request string    `json:"request"`
	At      time.Time `json:"at"`
	Worker  string    `json:"worker"`
	// Blocks are those of the prompt, Overlap those the worker was known to hold.
	Blocks      int     `json:"blocks"`
	Overlap     int     `json:"overlap"`
	CostMillis  float64 `json:"cost_ms"`
	QueueMillis float64 `json:"queue_ms"`
	Attempt     int     `json:"attempt"`
}

// State returns what the router knows at this moment.
func (r *Router) State() State {
	now := time.Now()
	stats := r.Stats()
	cached, index := r.prefixes.state(now)
	s := State{
		Model: r.config.Model, Mode: r.config.Mode, At: now, Booked: stats.Booked, Waiting: stats.Waiting, Decisions: stats.Decisions,
		Refusals: stats.Refusals, Ended: stats.Ended, Refused: stats.Refused, Abandoned: stats.Abandoned, Index: index,
		Workers: []WorkerState{}, Recent: []RecentState{},
	}
	r.mu.Lock()
	s.PromptTokens, s.CachedTokens, s.PredictedTokens = r.mu.hits.prompt, r.mu.hits.cached, r.mu.hits.predicted
	if sh := r.mu.shadow; sh != nil {
		n := sh.Stats()
		s.Shadow = &ShadowState{
			Mode: r.config.Shadow, Decisions: n.Decisions, Disagreements: n.Disagreements, Better: n.Better, Worse: n.Worse, RegretMillis: n.RegretMS(),
		}
	}
	recent := r.mu.journal.last(recentDecisions)
	for _, w := range stats.Workers {
		x := WorkerState{
			ID: w.ID.String(), Epoch: w.Epoch, State: w.State.String(), Labels: w.Labels, Fault: w.Fault, Booked: w.Booked, BookedTokens: w.BookedTokens,
			Running: w.Load.Running, Queued: w.Load.Waiting, MaxRunning: w.Load.MaxRunning, KVBlocks: w.Load.KVBlocks, KVUsed: w.Load.KVUsed, ReportMillis: -1,
			Cache: cacheStates[cacheNone],
		}
		if !w.Reported.IsZero() {
			x.ReportMillis = now.Sub(w.Reported).Milliseconds()
		}
		k := placement.Key{ID: w.ID, Epoch: w.Epoch}
		if c, known := cached[k]; known {
			x.Cache, x.Blocks = cacheStates[c.state], c.blocks
		}
		if m := r.mu.members[k]; m != nil {
			x.PromptTokens, x.CachedTokens = m.hits.prompt, m.hits.cached
			x.TTFTMillis, x.PredictedMillis = m.ttft.means()
			k := m.estimate.Calibration()
			x.Confidence, x.ErrorP50, x.ErrorP90 = k.Confidence(), k.Ratio(0.5), k.Ratio(0.9)
		}
		s.Workers = append(s.Workers, x)
	}
	r.mu.Unlock()
	for i := range recent {
		s.Recent = append(s.Recent, recent[i].recent())
	}
	return s
}

// recent is a decision in short.
func (e *entry) recent() RecentState {
	rec := e.parse()
	x := RecentState{Request: string(e.request), At: e.decided, Blocks: e.prompt / max(rec.BlockSize, 1), QueueMillis: milliseconds(e.waited), Attempt: e.attempt}
	if rec.Outcome == placement.Fit && len(rec.Best) > 0 {
		w := &rec.Best[0]
		x.Worker, x.Overlap, x.CostMillis = w.Worker.String(), w.Held+w.Slower, min(w.Cost, maxCost)
	}
	return x
}

// pace is a mean of times to the first token, of those observed and of those
// predicted for the same requests, in which older ones count less and less.
type pace struct{ observed, predicted, weight float64 }

func (p *pace) add(observed, predicted float64) {
	const keep = 0.95
	p.observed, p.predicted, p.weight = p.observed*keep+observed, p.predicted*keep+predicted, p.weight*keep+1
}

func (p *pace) means() (observed, predicted float64) {
	if p.weight == 0 {
		return 0, 0
	}
	return p.observed / p.weight, p.predicted / p.weight
}
