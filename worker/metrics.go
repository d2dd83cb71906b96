package worker

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// The outcomes of requests.
const (
	outcomeOK         = "ok"
	outcomeRefused    = "refused"     // full, before any work
	outcomeDraining   = "draining"    // leaving, before any work
	outcomeHandedOver = "handed_over" // leaving, midway
	outcomeCancelled  = "cancelled"
	outcomeDeadline   = "deadline"
	outcomeInvalid    = "invalid"
	outcomeFailed     = "failed"
)

// The outcomes of drains.
const (
	drainFinished   = "finished"    // all requests ended by themselves
	drainHandedOver = "handed_over" // some were handed over
	drainForced     = "forced"      // some did not even end then
)

// Metrics are the families of the workers of a process. A nil *Metrics counts
// nothing.
type Metrics struct {
	requests, drains *prometheus.CounterVec
	ready            prometheus.Gauge
	inFlight         atomic.Int64
}

// NewMetrics defines the families.
func NewMetrics(r *obs.Registry) *Metrics {
	m := &Metrics{
		requests: r.Counters("dynamo_worker_requests_total", "Requests that came to this worker, by how they ended there.", "outcome"),
		drains:   r.Counters("dynamo_worker_drains_total", "Drains of this worker, by how they ended.", "outcome"),
		ready:    r.Gauge("dynamo_worker_ready", "Workers of this process (1 or 0, if there is one) that are registered and take requests."),
	}
	r.GaugeFunc("dynamo_worker_in_flight_requests", "Requests that the workers of this process have accepted and not ended.", func() float64 { return float64(m.inFlight.Load()) })
	for _, o := range []string{outcomeOK, outcomeRefused, outcomeDraining, outcomeHandedOver, outcomeCancelled, outcomeDeadline, outcomeInvalid, outcomeFailed} {
		m.requests.WithLabelValues(o)
	}
	for _, o := range []string{drainFinished, drainHandedOver, drainForced} {
		m.drains.WithLabelValues(o)
	}
	return m
}

func (m *Metrics) request(outcome string) {
	if m != nil {
		m.requests.WithLabelValues(outcome).Inc()
	}
}

func (m *Metrics) drain(outcome string) {
	if m != nil {
		m.drains.WithLabelValues(outcome).Inc()
	}
}

// isReady notes that a worker has become ready (1), or is not any more (-1).
func (m *Metrics) isReady(change float64) {
	if m != nil {
		m.ready.Add(change)
	}
}

// begun notes that a worker has so many more requests in progress.
func (m *Metrics) begun(change int64) {
	if m != nil {
		m.inFlight.Add(change)
	}
}

// outcome says how a request that was accepted has ended.
func outcome(err error) string {
	if err == nil {
		return outcomeOK
	}
	if code, lost := engine.Lost(err); lost {
		switch code {
		case engine.CodeDraining:
			return outcomeHandedOver
		case engine.CodeRefused:
			return outcomeRefused
		}
	}
	switch dynamo.KindOf(err) {
	case dynamo.KindInvalid, dynamo.KindNotFound:
		return outcomeInvalid
	case dynamo.KindCancelled:
		return outcomeCancelled
	case dynamo.KindDeadline:
		return outcomeDeadline
	}
	return outcomeFailed
}
