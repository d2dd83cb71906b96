package rpc

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts what the servers and clients of a process do. A nil *Metrics
// counts nothing.
type Metrics struct {
	connections                      *prometheus.GaugeVec
	reconnects                       prometheus.Counter
	opened, refused, lost, strangers *prometheus.CounterVec
	sent, received                   prometheus.Counter
}

// NewMetrics registers the families, once per registry.
func NewMetrics(r *obs.Registry) *Metrics {
	return &Metrics{
		connections: r.Gauges("dynamo_rpc_connections", "Connections of the request plane whose peer has proved itself.", "side"),
		reconnects:  r.Counter("dynamo_rpc_reconnects_total", "Connections made to peers that had been connected before."),
		opened:      r.Counters("dynamo_rpc_streams_opened_total", "Streams opened by this process, or taken in by it.", "side"),
		refused:     r.Counters("dynamo_rpc_streams_refused_total", "Streams this process refused before any work.", "reason"),
		lost:        r.Counters("dynamo_rpc_connections_lost_total", "Connections that ended, by cause.", "side", "cause"),
		strangers:   r.Counters("dynamo_rpc_handshakes_refused_total", "Connections that ended before the peer had proved itself.", "side", "reason"),
		sent:        r.Counter("dynamo_rpc_sent_bytes_total", "Bytes sent over the request plane, TLS not counted."),
		received:    r.Counter("dynamo_rpc_received_bytes_total", "Bytes received over the request plane, TLS not counted."),
	}
}

// The values of the labels "side", "reason" and "cause".
const (
	sideClient = "client"
	sideServer = "server"

	refusedUnknown = "unknown_endpoint"
	refusedAdmit   = "admission"
	refusedLimit   = "stream_limit"
	refusedClosing = "closing"

	lostClosed   = "closed"
	lostLeft     = "left"
	lostSilent   = "silent"
	lostProtocol = "protocol"
	lostBroken   = "broken"
)

// counters are the children that one side's connections use.
type counters struct {
	connections    prometheus.Gauge
	opened         prometheus.Counter
	sent, received prometheus.Counter
	side           string
	m              *Metrics
}

// of returns the children of a side; without Metrics they count into the void.
func (m *Metrics) of(side string) *counters {
	if m == nil {
		m = NewMetrics(obs.NewRegistry())
	}
	return &counters{m.connections.WithLabelValues(side), m.opened.WithLabelValues(side), m.sent, m.received, side, m}
}

func (c *counters) refuse(reason string) { c.m.refused.WithLabelValues(reason).Inc() }

func (c *counters) lose(cause string) { c.m.lost.WithLabelValues(c.side, cause).Inc() }

func (c *counters) strange(err error) {
	reason := "other"
	switch code(err) {
	case CodeVersion, CodeKey, CodeIdentity, CodeCrowded, codeGarbage:
		reason = code(err)[len("peer_"):]
	}
	c.m.strangers.WithLabelValues(c.side, reason).Inc()
}
