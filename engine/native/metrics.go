package native

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts the KV that engines give and take. Engines may share it; nil counts
// nothing.
type Metrics struct {
	given, unasked prometheus.Counter
	taken          [tookCount]prometheus.Counter
	overlapped     prometheus.Counter
	waited         prometheus.Observer
	bytes          prometheus.Counter
	seconds        prometheus.Observer
}

// took is what became of KV that another engine keeps.
type took int

const (
	tookTaken   took = iota // it is here
	tookRefused             // of another model, cluster or release
	tookLost                // gone, or not here in time
	tookCorrupt             // not what it was
	tookGivenUp             // the request is over
	tookCount
)

var tookNames = [tookCount]string{"taken", "refused", "lost", "corrupt", "given_up"}

// NewMetrics defines the families in r.
func NewMetrics(r *obs.Registry) *Metrics {
	m := &Metrics{
		given:   r.Counters("dynamo_native_handovers_total", "Requests whose KV was kept for another engine.").WithLabelValues(),
		unasked: r.Counters("dynamo_native_handovers_expired_total", "Requests whose KV nobody came for in time.").WithLabelValues(),
		bytes:   r.Counters("dynamo_native_handover_bytes_total", "Bytes of KV that were taken from other engines.").WithLabelValues(),
		seconds: r.Histograms("dynamo_native_handover_seconds", "Time that KV took from another engine to this one, its check included.", obs.BucketsStage).WithLabelValues(),
	}
	m.overlapped = r.Counters("dynamo_native_takeovers_overlapped_total", "Requests whose KV came from another engine and that were computed while its last layers still came.").WithLabelValues()
	m.waited = r.Histograms("dynamo_native_layers_wait_seconds", "Time that a step waited for layers of such a request.", obs.BucketsStage).WithLabelValues()
	taken := r.Counters("dynamo_native_takeovers_total", "Requests that came with word of where their KV is, by what became of it: taken, or computed here because it was refused (of another model, cluster or release), lost or corrupt; or the request was given_up.", "outcome")
	for o, name := range tookNames {
		m.taken[o] = taken.WithLabelValues(name)
	}
	return m
}

func (m *Metrics) gave() {
	if m != nil {
		m.given.Inc()
	}
}

func (m *Metrics) forgotten() {
	if m != nil {
		m.unasked.Inc()
	}
}

func (m *Metrics) overlap(waited time.Duration) {
	if m != nil {
		m.overlapped.Inc()
		m.waited.Observe(waited.Seconds())
	}
}

func (m *Metrics) took(o took, bytes int, d time.Duration) {
	if m == nil {
		return
	}
	m.taken[o].Inc()
	if o == tookTaken {
		m.bytes.Add(float64(bytes))
		m.seconds.Observe(d.Seconds())
	}
}
