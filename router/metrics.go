package router

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router/placement"
)

// outcome is how a request, or one attempt at it, ended.
type outcome uint8

const (
	panicked  outcome = iota // until something better is known
	completed                // the sequence came to its end
	failed                   // an error of the request's or the engine's own
	lost                     // the worker was lost, stalled or left after the first chunk
	abandoned                // cancelled, given up, or past its deadline
	exhausted                // every worker stayed full
	noWorker                 // there was none
	refused                  // of an attempt: the next worker is asked
)

var outcomes = [...]string{panicked: "panic", completed: "completed", failed: "failed", lost: "lost", abandoned: "abandoned", exhausted: "exhausted", noWorker: "no_worker"}

// reason is why a worker did not take a request.
type reason uint8

const (
	reasonRefused reason = iota
	reasonDraining
	reasonLost
)

var reasons = [...]string{reasonRefused: "refused", reasonDraining: "draining", reasonLost: "lost"}

// Metrics are the families of package router. The routers of several models share
// them: gauges are their sums.
type Metrics struct {
	requests                  [len(outcomes)]prometheus.Counter
	refusals                  [len(reasons)]prometheus.Counter
	decisions                 [3]prometheus.Counter // by free choice, for a group, none
	waits                     prometheus.Observer
	workers                   [3]prometheus.Gauge // by placement.State
	ratio                     prometheus.Observer // predicted over observed time to the first token
	prompt, cached, predicted prometheus.Counter  // tokens of prompts
	indexBlocks, indexBytes   prometheus.Gauge
	floods, unknown           prometheus.Counter
	indexEvictions            prometheus.Counter
	repairs                   [2]prometheus.Counter // in place, by beginning anew
	booked                    prometheus.Gauge
	fetches                   [len(lendings)]prometheus.Counter
	fetchedTokens             prometheus.Counter
	lendSeconds               prometheus.Observer
	waiting                   prometheus.Gauge
}

// The indices of Metrics.decisions.
const (
	decidedFree = iota
	decidedGroup
	decidedNone
)

// The indices of Metrics.repairs.
const (
	repairDone = iota
	repairAnew
)

// NewMetrics defines the families in r.
func NewMetrics(r *obs.Registry) *Metrics {
	m := &Metrics{
		booked:  r.Gauge("dynamo_router_booked_requests", "Requests booked at workers; 0 when none is in progress."),
		waiting: r.Gauge("dynamo_router_waiting_requests", "Requests that wait for a worker that can take them."),
		waits:   r.Histograms("dynamo_router_wait_seconds", "Time that requests waited for a worker, of those that had to.", obs.BucketsStage).WithLabelValues(),
	}
	m.ratio = r.Histograms("dynamo_router_ttft_prediction_ratio", "Predicted over observed time to the first token.", []float64{0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4, 10}).WithLabelValues()
	m.prompt = r.Counter("dynamo_router_prompt_tokens_total", "Tokens of the prompts of requests that workers have answered.")
	m.cached = r.Counter("dynamo_router_cached_tokens_total", "Those of them that the workers had in their KV caches.")
	m.predicted = r.Counter("dynamo_router_predicted_cached_tokens_total", "Those of them that the prefix index said the workers had.")
	m.indexBlocks = r.Gauge("dynamo_router_index_blocks", "Blocks in the prefix index, one for each holder.")
	m.indexBytes = r.Gauge("dynamo_router_index_bytes", "Memory of the prefix index.")
	m.floods = r.Counter("dynamo_router_isolated_workers_total", "Times a worker's KV events were too many and were passed over for a while.")
	m.unknown = r.Counter("dynamo_router_unknown_events_total", "KV events of workers of a later version that were passed over, as they are not understood.")
	m.indexEvictions = r.Counter("dynamo_router_index_evicted_blocks_total", "Blocks given up for want of memory; the index is too small if there are any.")
	m.fetchedTokens = r.Counter("dynamo_router_fetched_tokens_total", "Tokens of prompts whose KV workers have fetched from others instead of computing it.")
	m.lendSeconds = r.Histograms("dynamo_router_lend_seconds", "Time that workers took to say where KV is that they were asked to lend.", obs.BucketsStage).WithLabelValues()
	fetches := r.Counters("dynamo_router_fetches_total", "Requests for which KV was to be fetched from another worker, by what became of it: fetched, or computed because it was gone, refused, slow to be lent, or lost; or the request ended before it was asked for.", "outcome")
	for i, label := range lendings {
		m.fetches[i] = fetches.WithLabelValues(label)
	}
	repairs := r.Counters("dynamo_router_index_repairs_total", "Differences between the prefix index and a worker's KV cache that nobody had noticed before, by what became of them.", "outcome")
	for i, label := range []string{repairDone: "repaired", repairAnew: "anew"} {
		m.repairs[i] = repairs.WithLabelValues(label)
	}
	requests := r.Counters("dynamo_router_requests_total", "Requests by how they ended at the router.", "outcome")
	for i, label := range outcomes {
		m.requests[i] = requests.WithLabelValues(label)
	}
	refusals := r.Counters("dynamo_router_refusals_total", "Attempts that a worker did not take and that went to the next, by reason.", "reason")
	for i, label := range reasons {
		m.refusals[i] = refusals.WithLabelValues(label)
	}
	decisions := r.Counters("dynamo_router_decisions_total", "Decisions for a worker: by policy, for the worker of the request's group, or for none.", "outcome")
	for i, label := range []string{decidedFree: "policy", decidedGroup: "group", decidedNone: "none"} {
		m.decisions[i] = decisions.WithLabelValues(label)
	}
	workers := r.Gauges("dynamo_router_workers", "Workers by state.", "state")
	for i := range m.workers {
		m.workers[i] = workers.WithLabelValues(placement.State(i).String())
	}
	return m
}
