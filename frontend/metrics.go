package frontend

import (
	"maps"
	"slices"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/prometheus/client_golang/prometheus"
)

// unknownModel is the label of requests for models that are not served, so that
// clients cannot make labels.
const unknownModel = "unknown_model"

// The values of the label endpoint.
const (
	endpointChat       = "chat_completions"
	endpointCompletion = "completions"
	endpointTokenize   = "tokenize"
	endpointDetokenize = "detokenize"
)

// metrics are the families of the frontend; names, labels and buckets are the
// reference's where it has them.
type metrics struct {
	requests, started           *prometheus.CounterVec
	inflight, active            *prometheus.GaugeVec
	disconnected                prometheus.Gauge
	firstToken, interToken      *prometheus.HistogramVec
	duration                    *prometheus.HistogramVec
	input, output, cached       *prometheus.HistogramVec
	outputTokens, transfers     *prometheus.CounterVec
	contextLength, blockSize    *prometheus.GaugeVec
	templateTime, tokenizerTime prometheus.Histogram
	ready                       *prometheus.GaugeVec
	queued                      *queueGauge
}

func newMetrics(r *obs.Registry, instances func() []Instance) *metrics {
	m := &metrics{
		requests:      r.Counters("dynamo_frontend_requests_total", "Requests ended, by outcome.", "model", "endpoint", "request_type", "status", "error_type"),
		started:       r.Counters("dynamo_frontend_requests_started_total", "Requests for a served model that were decoded.", "model", "endpoint", "request_type"),
		inflight:      r.Gauges("dynamo_frontend_inflight_requests", "Requests between decoding and the end of the answer (the older name of active_requests).", "model"),
		active:        r.Gauges("dynamo_frontend_active_requests", "Requests between decoding and the end of the answer.", "model"),
		disconnected:  r.Gauge("dynamo_frontend_disconnected_clients", "Clients that went away before their answer was complete, since the start."),
		firstToken:    r.Histograms("dynamo_frontend_time_to_first_token_seconds", "Time from the arrival of a request to its first token.", obs.BucketsFirstToken, "model"),
		interToken:    r.Histograms("dynamo_frontend_inter_token_latency_seconds", "Time between the tokens of a choice; of several in one chunk their mean, counted once.", obs.BucketsInterToken, "model"),
		duration:      r.Histograms("dynamo_frontend_request_duration_seconds", "Time from the arrival of a request to its end.", obs.BucketsDuration, "model"),
		input:         r.Histograms("dynamo_frontend_input_sequence_tokens", "Tokens of a prompt.", obs.BucketsInputTokens, "model"),
		output:        r.Histograms("dynamo_frontend_output_sequence_tokens", "Tokens generated for a choice.", obs.BucketsOutputTokens, "model"),
		cached:        r.Histograms("dynamo_frontend_cached_tokens", "Tokens of a prompt found in the KV cache.", obs.BucketsInputTokens, "model"),
		outputTokens:  r.Counters("dynamo_frontend_output_tokens_total", "Tokens generated, as they come.", "model"),
		transfers:     r.Counters("dynamo_frontend_transfer_params_dropped_total", "Fields of clients' requests that tell an engine where KV blocks come from or go to (kv_transfer_params, ec_transfer_params), which no engine gets.", "model"),
		contextLength: r.Gauges("dynamo_frontend_model_context_length", "Longest sequence of a served model in tokens.", "model"),
		blockSize:     r.Gauges("dynamo_frontend_model_kv_cache_block_size", "KV cache block size of a served model in tokens.", "model"),
		ready:         r.Gauges("dynamo_frontend_model_ready", "Whether the frontend serves a model (1) or its last worker is gone (0).", "model"),
		queued:        &queueGauge{desc: prometheus.NewDesc("dynamo_frontend_queued_requests", "Requests waiting to be let through to the engine.", []string{"model"}, nil)},
	}
	m.templateTime = r.Histograms("dynamo_frontend_template_seconds", "Time to render the chat template of a request.", obs.BucketsStage).WithLabelValues().(prometheus.Histogram)
	m.tokenizerTime = r.Histograms("dynamo_frontend_tokenize_seconds", "Time to encode the prompts of a request.", obs.BucketsStage).WithLabelValues().(prometheus.Histogram)
	r.Register(m.queued)
	if instances != nil {
		r.Register(&workersGauge{
			desc:      prometheus.NewDesc("dynamo_frontend_model_workers", "Workers of a served model that take requests.", []string{"model"}, nil),
			queued:    m.queued,
			instances: instances,
		})
	}
	return m
}

// serve shows a model that is served.
func (m *metrics) serve(c *engine.Card, a *engine.Admit) {
	m.contextLength.WithLabelValues(c.Model).Set(float64(c.ContextLength))
	m.blockSize.WithLabelValues(c.Model).Set(float64(c.BlockSize))
	m.ready.WithLabelValues(c.Model).Set(1)
	m.queued.set(c.Model, a)
}

// unserve shows that a model is served no longer. Its counters stay: they say
// what has been.
func (m *metrics) unserve(label string) {
	m.contextLength.DeleteLabelValues(label)
	m.blockSize.DeleteLabelValues(label)
	if m.queued.has(label) {
		m.ready.WithLabelValues(label).Set(0)
	}
	m.queued.set(label, nil)
}

// modelMetrics are the children of one model, looked up once.
type modelMetrics struct {
	inflight, active       prometheus.Gauge
	firstToken, interToken prometheus.Observer
	duration               prometheus.Observer
	input, output, cached  prometheus.Observer
	outputTokens           prometheus.Counter
	transfers              prometheus.Counter
	started, succeeded     [2][2]prometheus.Counter // by chat or completion, unary or stream
}

func (m *metrics) model(label string) *modelMetrics {
	mm := &modelMetrics{
		inflight:     m.inflight.WithLabelValues(label),
		active:       m.active.WithLabelValues(label),
		transfers:    m.transfers.WithLabelValues(label),
		firstToken:   m.firstToken.WithLabelValues(label),
		interToken:   m.interToken.WithLabelValues(label),
		duration:     m.duration.WithLabelValues(label),
		input:        m.input.WithLabelValues(label),
		output:       m.output.WithLabelValues(label),
		cached:       m.cached.WithLabelValues(label),
		outputTokens: m.outputTokens.WithLabelValues(label),
	}
	for e, endpoint := range []string{endpointChat, endpointCompletion} {
		for s, kind := range []string{"unary", "stream"} {
			mm.started[e][s] = m.started.WithLabelValues(label, endpoint, kind)
			mm.succeeded[e][s] = m.requests.WithLabelValues(label, endpoint, kind, "success", "")
		}
	}
	return mm
}

// failed counts a request that did not succeed.
func (m *metrics) failed(label, endpoint string, stream bool, k dynamo.Kind) {
	kind := "unary"
	if stream {
		kind = "stream"
	}
	m.requests.WithLabelValues(label, endpoint, kind, "error", k.String()).Inc()
}

// queueGauge reads the queues of the models' admission when it is scraped.
type queueGauge struct {
	desc *prometheus.Desc
	mu   struct {
		sync.Mutex
		gates map[string]*engine.Admit
	}
}

// Describe implements prometheus.Collector.
func (q *queueGauge) Describe(out chan<- *prometheus.Desc) { out <- q.desc }

// Collect implements prometheus.Collector.
func (q *queueGauge) Collect(out chan<- prometheus.Metric) {
	q.mu.Lock()
	read := make(map[string]int, len(q.mu.gates))
	for label, a := range q.mu.gates {
		read[label] = a.Stats().Queued
	}
	q.mu.Unlock()
	for label, n := range read {
		out <- prometheus.MustNewConstMetric(q.desc, prometheus.GaugeValue, float64(n), label)
	}
}

func (q *queueGauge) set(label string, a *engine.Admit) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.gates == nil {
		q.mu.gates = map[string]*engine.Admit{}
	}
	if a == nil {
		delete(q.mu.gates, label)
		return
	}
	q.mu.gates[label] = a
}

// has reports whether a model is served.
func (q *queueGauge) has(label string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.gates[label] != nil
}

// labels returns the served models.
func (q *queueGauge) labels() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Keys(q.mu.gates))
}

// workersGauge counts the workers of the served models when it is scraped.
type workersGauge struct {
	desc      *prometheus.Desc
	queued    *queueGauge // knows the served models
	instances func() []Instance
}

// Describe implements prometheus.Collector.
func (w *workersGauge) Describe(out chan<- *prometheus.Desc) { out <- w.desc }

// Collect implements prometheus.Collector.
func (w *workersGauge) Collect(out chan<- prometheus.Metric) {
	count := map[string]int{}
	for _, i := range w.instances() {
		if i.State == StateReady {
			count[i.Model]++
		}
	}
	for _, label := range w.queued.labels() {
		out <- prometheus.MustNewConstMetric(w.desc, prometheus.GaugeValue, float64(count[label]), label)
	}
}
