package vllm

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts what the engines of a process meet. A nil *Metrics counts nothing.
type Metrics struct {
	errors   *prometheus.CounterVec
	restarts prometheus.Counter
	polls    *prometheus.CounterVec
	handed   *prometheus.CounterVec
	events   *kvwire.Metrics
}

// NewMetrics registers the families, once per registry.
func NewMetrics(r *obs.Registry) *Metrics {
	return &Metrics{
		errors:   r.Counters("dynamo_vllm_errors_total", "Requests that the vLLM server failed or refused, by kind of error.", "kind"),
		restarts: r.Counter("dynamo_vllm_restarts_total", "Times the supervised vLLM server was started again."),
		polls:    r.Counters("dynamo_vllm_polls_total", "Readings of the vLLM server's metrics, by outcome.", "outcome"),
		handed:   r.Counters("dynamo_vllm_handovers_total", "Handovers of KV to and from vLLM servers: kept for another server, or none though it was asked for; taken to be fetched, unfit for that, or failed to come.", "outcome"),
		events:   kvwire.NewMetrics(r),
	}
}

// The values of the labels outcome.
const (
	pollRead   = "read"
	pollFailed = "failed"

	handoverKept   = "kept"
	handoverNone   = "none"
	handoverTaken  = "taken"
	handoverUnfit  = "unfit"
	handoverFailed = "failed"
)

func (m *Metrics) failed(err error) {
	if m != nil {
		m.errors.WithLabelValues(dynamo.KindOf(err).String()).Inc()
	}
}

func (m *Metrics) polled(outcome string) {
	if m != nil {
		m.polls.WithLabelValues(outcome).Inc()
	}
}

func (m *Metrics) handover(outcome string) {
	if m != nil {
		m.handed.WithLabelValues(outcome).Inc()
	}
}

func (m *Metrics) restarted() {
	if m != nil {
		m.restarts.Inc()
	}
}

func (m *Metrics) wire() *kvwire.Metrics {
	if m == nil {
		return nil
	}
	return m.events
}
