package daemon

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts what clients do. A nil *Metrics counts nothing.
type Metrics struct {
	clients  prometheus.Gauge
	requests *prometheus.CounterVec
	blocks   *prometheus.CounterVec
}

// NewMetrics registers the families, once per registry.
func NewMetrics(r *obs.Registry) *Metrics {
	return &Metrics{
		clients:  r.Gauge("dynamo_daemon_connections", "Connections of clients of the KV daemon."),
		requests: r.Counters("dynamo_daemon_requests_total", "Requests to the KV daemon, by operation and how they ended.", "operation", "outcome"),
		blocks:   r.Counters("dynamo_daemon_blocks_total", "KV blocks that clients asked for or brought, by what came of it: found, put, refused, got, got converted, dropped, or given up over a quota.", "outcome"),
	}
}

func (m *Metrics) connections(n int) {
	if m != nil {
		m.clients.Set(float64(n))
	}
}

func (m *Metrics) request(op byte, outcome string) {
	if m != nil {
		m.requests.WithLabelValues(opName(op), outcome).Inc()
	}
}

func (m *Metrics) block(outcome string, n int) {
	if m != nil && n > 0 {
		m.blocks.WithLabelValues(outcome).Add(float64(n))
	}
}
