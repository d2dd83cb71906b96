package s3

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts what the Buckets of a process do. A nil *Metrics counts nothing.
type Metrics struct {
	requests, bytes *prometheus.CounterVec
	rests           prometheus.Counter
	resting         prometheus.Gauge
}

// NewMetrics registers the families, once per registry.
func NewMetrics(r *obs.Registry) *Metrics {
	return &Metrics{
		requests: r.Counters("dynamo_s3_requests_total", "Requests to object stores, by what they ask and how they ended: served, missing, throttled, failed (a server, the network or the time), refused (by the store: credentials, bucket), abandoned by the caller; or spared, because the store is left alone.", "op", "outcome"),
		bytes:    r.Counters("dynamo_s3_moved_bytes_total", "Bytes of objects read from object stores (get) and written (put).", "op"),
		rests:    r.Counter("dynamo_s3_rests_total", "Times that an object store went on failing and was left alone."),
		resting:  r.Gauge("dynamo_s3_resting_stores", "Object stores that are left alone at the moment."),
	}
}

func (m *Metrics) request(op, outcome string) {
	if m != nil {
		m.requests.WithLabelValues(op, outcome).Inc()
	}
}

func (m *Metrics) moved(op string, n int) {
	if m != nil {
		m.bytes.WithLabelValues(op).Add(float64(n))
	}
}

func (m *Metrics) rest(began, over bool) {
	switch {
	case m == nil:
	case began:
		m.rests.Inc()
		m.resting.Inc()
	case over:
		m.resting.Dec()
	}
}
