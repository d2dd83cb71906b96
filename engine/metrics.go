package engine

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
)

// MigrateMetrics are the families of migration; the first two have the names and
// labels of the reference. Many Migrates may share them; nil counts nothing.
type MigrateMetrics struct {
	migrations *prometheus.CounterVec
	limit      *prometheus.GaugeVec
	causes     *prometheus.CounterVec
	requests   *prometheus.CounterVec
	gap        prometheus.Observer
}

// NewMigrateMetrics defines the families in r.
func NewMigrateMetrics(r *obs.Registry) *MigrateMetrics {
	m := &MigrateMetrics{
		migrations: r.Counters("dynamo_frontend_model_migration_total", "Times a request went on at another worker, before its first token (new_request) or after it (ongoing_request).", "model", "migration_type"),
		limit:      r.Gauges("dynamo_frontend_model_migration_limit", "How often a request may go on at another worker.", "model"),
		causes:     r.Counters("dynamo_engine_migrations_total", "Workers that failed a request, by cause; whether or not the request could go on.", "cause"),
		requests:   r.Counters("dynamo_engine_migrated_requests_total", "Requests that a worker failed, by their class of migration and how they ended.", "class", "outcome"),
	}
	m.gap = r.Histograms("dynamo_engine_migration_gap_seconds", "Time from a worker's failure to the next chunk of the request, from another.", obs.BucketsStage).WithLabelValues()
	return m
}

// Forget takes back what is shown of a model that is served no more.
func (m *MigrateMetrics) Forget(model string) {
	if m != nil {
		m.limit.DeleteLabelValues(model)
	}
}

// causeLabels are the values of the label cause.
var causeLabels = map[string]string{CodeLost: "lost", CodeStalled: "stalled", CodeDraining: "draining", CodeRefused: "refused"}

// The values of the label outcome.
const (
	migratedCompleted = "completed" // answered as if nothing had happened
	migratedRefused   = "refused"   // may not migrate: its class, or the limit of 0
	migratedLimit     = "limit"     // failed more often than it may
	migratedFailed    = "failed"    // an error of another kind afterwards
	migratedAbandoned = "abandoned" // cancelled, or its deadline passed
)
