package transfer

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts what the agents of a process do. A nil *Metrics counts nothing.
type Metrics struct {
	bytes, transfers, failures, retries, notifications, leases, lent *prometheus.CounterVec
	active, draining                                                 prometheus.Gauge
}

// NewMetrics registers the families, once per registry.
func NewMetrics(r *obs.Registry) *Metrics {
	return &Metrics{
		bytes:         r.Counters("dynamo_transfer_moved_bytes_total", "Bytes of transfers that are done, by path and direction.", "path", "op"),
		transfers:     r.Counters("dynamo_transfer_transfers_total", "Transfers that are done, by path and direction.", "path", "op"),
		failures:      r.Counters("dynamo_transfer_failures_total", "Transfers that ended otherwise, by the kind of error.", "kind"),
		retries:       r.Counters("dynamo_transfer_retries_total", "Transfers that a path failed and the next one took over, by the path that failed.", "path"),
		notifications: r.Counters("dynamo_transfer_notifications_total", "Notifications sent, received, repeated by a peer, and dropped because it stayed away.", "event"),
		leases:        r.Counters("dynamo_transfer_leases_total", "Leases of memory that ended, by how.", "outcome"),
		lent:          r.Counters("dynamo_transfer_lent_bytes_total", "Bytes that the path tcp lent to the kernel, by whether it sent them from where they lay (in_place) or copied them after all (copied).", "outcome"),
		active:        r.Gauge("dynamo_transfer_active_transfers", "Transfers in progress."),
		draining:      r.Gauge("dynamo_transfer_draining_leases", "Leases that have ended while a peer may still touch their pages."),
	}
}

// counters are the children in use, looked up once.
type counters struct {
	bytes, transfers [pathCount][2]prometheus.Counter
	retries          [pathCount]prometheus.Counter
	failures         [dynamo.KindCorrupt + 1]prometheus.Counter
	leases           [outcomes]prometheus.Counter
	active, draining prometheus.Gauge

	sent, received, repeated, dropped prometheus.Counter
	lentSent, lentCopied              prometheus.Counter
}

// children returns the counters of m; without Metrics they count into the void.
func (m *Metrics) children() *counters {
	if m == nil {
		m = NewMetrics(obs.NewRegistry())
	}
	c := &counters{active: m.active, draining: m.draining}
	c.lentSent, c.lentCopied = m.lent.WithLabelValues("in_place"), m.lent.WithLabelValues("copied")
	for p := range pathCount {
		for _, op := range []Op{Read, Write} {
			c.bytes[p][op] = m.bytes.WithLabelValues(p.String(), op.String())
			c.transfers[p][op] = m.transfers.WithLabelValues(p.String(), op.String())
		}
		c.retries[p] = m.retries.WithLabelValues(p.String())
	}
	for k := range c.failures {
		c.failures[k] = m.failures.WithLabelValues(dynamo.Kind(k).String())
	}
	for o := range c.leases {
		c.leases[o] = m.leases.WithLabelValues(Outcome(o).String())
	}
	for _, n := range []struct {
		to    *prometheus.Counter
		event string
	}{{&c.sent, "sent"}, {&c.received, "received"}, {&c.repeated, "repeated"}, {&c.dropped, "dropped"}} {
		*n.to = m.notifications.WithLabelValues(n.event)
	}
	return c
}
