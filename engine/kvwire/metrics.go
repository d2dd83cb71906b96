package kvwire

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts what the subscriptions and translators of a process do. A nil
// *Metrics counts nothing.
type Metrics struct {
	batches, gaps, ignored prometheus.Counter
	resets                 *prometheus.CounterVec
}

// NewMetrics registers the families, once per registry.
func NewMetrics(r *obs.Registry) *Metrics {
	return &Metrics{
		batches: r.Counter("dynamo_kvwire_batches_total", "Batches of KV events received from engines."),
		gaps:    r.Counter("dynamo_kvwire_gaps_total", "Times messages of an engine were missed, repaired by a replay or not."),
		ignored: r.Counter("dynamo_kvwire_ignored_events_total", "KV events of engines that could not be used: blocks never stored, unknown parents, content that token ids do not determine."),
		resets:  r.Counters("dynamo_kvwire_resets_total", "Times what an engine's KV cache holds had to be learned anew.", "reason"),
	}
}

func (m *Metrics) batch() {
	if m != nil {
		m.batches.Inc()
	}
}

func (m *Metrics) gap() {
	if m != nil {
		m.gaps.Inc()
	}
}

func (m *Metrics) reset(r Reason) {
	if m != nil {
		m.resets.WithLabelValues(r.String()).Inc()
	}
}

func (m *Metrics) ignore(n int) {
	if m != nil && n > 0 {
		m.ignored.Add(float64(n))
	}
}
