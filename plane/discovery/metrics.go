package discovery

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts what the stores of a process do. A nil *Metrics counts nothing.
type Metrics struct {
	stale, instances          prometheus.Gauge
	problems, reregistrations prometheus.Counter

	mu struct {
		sync.Mutex
		stale int // watches that are stale
	}
}

// NewMetrics registers the families, once per registry.
func NewMetrics(r *obs.Registry) *Metrics {
	return &Metrics{
		stale:           r.Gauge("dynamo_discovery_stale", "Whether the store cannot be read and this process goes on with its last view (1) or not (0)."),
		instances:       r.Gauge("dynamo_discovery_instances", "Instances in the views of this process's watches."),
		problems:        r.Counter("dynamo_discovery_problems_total", "Entries of the store that were passed over because they are no instances."),
		reregistrations: r.Counter("dynamo_discovery_reregistrations_total", "Times an instance of this process was registered again because the store had lost it."),
	}
}

// Reregistered counts an instance that the store had lost.
func (m *Metrics) Reregistered() {
	if m != nil {
		m.reregistrations.Inc()
	}
}

// Watch begins the counting of one watch.
func (m *Metrics) Watch() *WatchMetrics { return &WatchMetrics{m: m} }

// WatchMetrics counts for one watch; it belongs to the watch's goroutine.
type WatchMetrics struct {
	m         *Metrics
	stale     bool
	instances int
}

// Stale tells whether the view is stale.
func (w *WatchMetrics) Stale(stale bool) {
	if w.m == nil || w.stale == stale {
		return
	}
	w.stale = stale
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if stale {
		w.m.mu.stale++
	} else {
		w.m.mu.stale--
	}
	w.m.stale.Set(min(1, float64(w.m.mu.stale)))
}

// Instances tells how many instances the view has.
func (w *WatchMetrics) Instances(n int) {
	if w.m != nil {
		w.m.instances.Add(float64(n - w.instances))
		w.instances = n
	}
}

// Problems counts entries that were passed over.
func (w *WatchMetrics) Problems(n int) {
	if w.m != nil {
		w.m.problems.Add(float64(n))
	}
}

// End takes the watch out of the gauges.
func (w *WatchMetrics) End() {
	w.Stale(false)
	w.Instances(0)
}
