package event

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts what the publishers and subscribers of a process do. A nil
// *Metrics counts nothing.
type Metrics struct {
	published, gaps, resets *prometheus.CounterVec
}

// NewMetrics registers the families, once per registry.
func NewMetrics(r *obs.Registry) *Metrics {
	return &Metrics{
		published: r.Counters("dynamo_event_published_events_total", "Events published by this process.", "topic"),
		gaps:      r.Counters("dynamo_event_gaps_total", "Times a subscriber of this process missed events, repaired or not.", "topic"),
		resets:    r.Counters("dynamo_event_resets_total", "Times a subscriber of this process began a source anew: first contact, another life of it, or events that could no longer be had.", "topic"),
	}
}

// counters are the children for one topic.
type counters struct {
	published, gaps, resets prometheus.Counter
}

// of returns the children for a topic; topics are constants of the program.
func (m *Metrics) of(topic string) *counters {
	if m == nil {
		return nil
	}
	return &counters{m.published.WithLabelValues(topic), m.gaps.WithLabelValues(topic), m.resets.WithLabelValues(topic)}
}

func (c *counters) publish() {
	if c != nil {
		c.published.Inc()
	}
}

// deliver counts what a subscriber sees.
func (c *counters) deliver(k Kind) {
	switch {
	case c == nil:
	case k == Gap:
		c.gaps.Inc()
	case k == Reset:
		c.resets.Inc()
	}
}
