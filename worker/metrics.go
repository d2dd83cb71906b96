package worker

import (
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

// metrics are the families of a worker. A nil *metrics counts nothing.
type metrics struct {
	requests, drains *prometheus.CounterVec
	ready            prometheus.Gauge
}

func newMetrics(r *obs.Registry, inFlight func() float64) *metrics {
	if r == nil {
		return nil
	}
	m := &metrics{
		requests: r.Counters("dynamo_worker_requests_total", "Requests that came to this worker, by how they ended there.", "outcome"),
		drains:   r.Counters("dynamo_worker_drains_total", "Drains of this worker, by how they ended.", "outcome"),
		ready:    r.Gauge("dynamo_worker_ready", "1 while this worker is registered and takes requests."),
	}
	r.GaugeFunc("dynamo_worker_in_flight_requests", "Requests that this worker has accepted and not ended.", inFlight)
	for _, o := range []string{outcomeOK, outcomeRefused, outcomeDraining, outcomeHandedOver, outcomeCancelled, outcomeDeadline, outcomeInvalid, outcomeFailed} {
		m.requests.WithLabelValues(o)
	}
	for _, o := range []string{drainFinished, drainHandedOver, drainForced} {
		m.drains.WithLabelValues(o)
	}
	return m
}

func (m *metrics) request(outcome string) {
	if m != nil {
		m.requests.WithLabelValues(outcome).Inc()
	}
}

func (m *metrics) drain(outcome string) {
	if m != nil {
		m.drains.WithLabelValues(outcome).Inc()
	}
}

func (m *metrics) setReady(v float64) {
	if m != nil {
		m.ready.Set(v)
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
