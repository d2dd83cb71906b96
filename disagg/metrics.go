package disagg

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts requests by who served them. Many Engines may share it; nil counts
// nothing.
type Metrics struct {
	requests [pathCount]prometheus.Counter
}

// path is who serves a request.
type path int

const (
	pathBoth     path = iota // each its part
	pathFallback             // the decode side, after the prefill side had failed
	pathDecode               // the decode side, for there is nobody on the other
	pathWhole                // the decode side, which is better or has to
	pathPrefill              // the prefill side, for there is nobody on the other
	pathCount
)

var pathNames = [pathCount]string{"handover", "fallback", "decode_only", "whole", "prefill_only"}

// pathOf is the path of what the decode side serves alone.
func pathOf(prefill bool) path {
	if prefill {
		return pathWhole
	}
	return pathDecode
}

// NewMetrics defines the families in r.
func NewMetrics(r *obs.Registry) *Metrics {
	m := &Metrics{}
	requests := r.Counters("dynamo_disagg_requests_total", "Requests by who served them: prefill and decode workers in turn (handover), decode workers after the prefill side had failed (fallback), decode workers because that costs less, or the KV is there, or it was said so (whole), or one side for want of the other.", "path")
	for p, name := range pathNames {
		m.requests[p] = requests.WithLabelValues(name)
	}
	return m
}

func (m *Metrics) count(p path) {
	if m != nil {
		m.requests[p].Inc()
	}
}
