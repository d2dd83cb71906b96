package selection

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router"
)

// metrics are the families of this package.
type metrics struct {
	requests *prometheus.CounterVec
	open     prometheus.Gauge
	ended    *prometheus.CounterVec
	late     prometheus.Counter
	added    prometheus.Gauge
}

func newMetrics(r *obs.Registry) *metrics {
	m := &metrics{
		requests: r.Counters("dynamo_selection_requests_total", "Calls of the selection service by method, transport and outcome: ok, or the kind of error.", "method", "transport", "outcome"),
		open:     r.Gauge("dynamo_selection_reservations", "Reservations that are open; 0 when no request is in progress."),
		ended:    r.Counters("dynamo_selection_reservations_ended_total", "Reservations by how they ended; expired ones were never released.", "end"),
		late:     r.Counter("dynamo_selection_late_calls_total", "Calls about reservations that had ended or that had been told the same, which changed nothing."),
	}
	m.added = r.Gauge("dynamo_selection_added_workers", "Workers that clients have added, beside those that discovery finds.")
	for _, end := range router.Ends() {
		m.ended.WithLabelValues(end)
	}
	return m
}

// The transports.
const (
	overHTTP = "http"
	overRPC  = "rpc"
)

// count counts a call.
func (m *metrics) count(x *method, transport string, err *dynamo.Error) {
	outcome := "ok"
	if err != nil {
		outcome = err.Kind.String()
	}
	m.requests.WithLabelValues(x.name, transport, outcome).Inc()
}
