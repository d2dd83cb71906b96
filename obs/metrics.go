package obs

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Registry holds the metrics of one process or, in tests, of one component.
// Defining a name twice is a bug and panics.
type Registry struct {
	r *prometheus.Registry
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{prometheus.NewRegistry()}
}

// WithProcess adds the Go runtime's and the process's own metrics.
func (r *Registry) WithProcess() *Registry {
	r.Register(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Register adds collectors made elsewhere.
func (r *Registry) Register(cs ...prometheus.Collector) { r.r.MustRegister(cs...) }

// Handler serves the registry in Prometheus' text format.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.r, promhttp.HandlerOpts{EnableOpenMetrics: false})
}

// Counter defines a counter without labels.
func (r *Registry) Counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	r.Register(c)
	return c
}

// Counters defines a counter family. Callers keep its children: looking one up
// for each event is slow.
func (r *Registry) Counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.Register(c)
	return c
}

// Gauge defines a gauge without labels.
func (r *Registry) Gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	r.Register(g)
	return g
}

// Gauges defines a gauge family.
func (r *Registry) Gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	r.Register(g)
	return g
}

// GaugeFunc defines a gauge that is read when it is scraped. f is called from
// the scraper's goroutine and must not block.
func (r *Registry) GaugeFunc(name, help string, f func() float64) {
	r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
}

// CounterFunc defines a counter that is read when it is scraped.
func (r *Registry) CounterFunc(name, help string, f func() float64) {
	r.Register(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f))
}

// Histograms defines a histogram family with the given upper bounds.
func (r *Registry) Histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	r.Register(h)
	return h
}

// The upper bounds of the reference's histograms, so that its dashboards and
// recording rules carry over.
var (
	BucketsFirstToken   = []float64{0, .0022, .0047, .01, .022, .047, .1, .22, .47, 1, 2.2, 4.7, 10, 22, 48, 100, 220, 480}
	BucketsInterToken   = []float64{0, .0018, .0033, .0059, .011, .02, .035, .064, .12, .21, .38, .69, 1.2, 2.3, 4.1, 7.4, 13, 24, 44, 80}
	BucketsDuration     = []float64{0, 2, 4, 8, 16, 32, 64, 130, 260, 510}
	BucketsInputTokens  = []float64{0, 100, 210, 430, 870, 1800, 3600, 7400, 15000, 31000, 63000, 130000}
	BucketsOutputTokens = []float64{0, 100, 210, 430, 880, 1800, 3700, 7600, 16000, 32000}
	BucketsStage        = []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 2.5, 5}
)
