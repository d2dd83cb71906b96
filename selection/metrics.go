package selection

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router"
)

// metrics are the families of this package.
type metrics struct {
	requests *prometheus.CounterVec
	open     prometheus.Gauge
	ended    *prometheus.CounterVec
	late     prometheus.Counter
}

func newMetrics(r *obs.Registry) *metrics {
	m := &metrics{
		requests: r.Counters("dynamo_selection_requests_total", "Requests to the selection service by route and outcome: ok, or the kind of error.", "route", "outcome"),
		open:     r.Gauge("dynamo_selection_reservations", "Reservations that are open; 0 when no request is in progress."),
		ended:    r.Counters("dynamo_selection_reservations_ended_total", "Reservations by how they ended; expired ones were never released.", "end"),
		late:     r.Counter("dynamo_selection_late_calls_total", "Calls about reservations that had ended or that had been told the same, which changed nothing."),
	}
	for _, end := range router.Ends() {
		m.ended.WithLabelValues(end)
	}
	return m
}

// routeLabel is a route's pattern without its method.
func routeLabel(pattern string) string {
	_, path, _ := strings.Cut(pattern, " ")
	return path
}
