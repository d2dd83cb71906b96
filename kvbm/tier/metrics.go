package tier

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
)

// Metrics counts what the Movers of a process do. A nil *Metrics counts nothing.
type Metrics struct {
	blocks                                    *prometheus.GaugeVec
	stored, loaded, evicted, skipped, failing *prometheus.CounterVec
	loads                                     *prometheus.CounterVec
	overlapped                                prometheus.Counter
}

// NewMetrics registers the families, once per registry.
func NewMetrics(r *obs.Registry) *Metrics {
	return &Metrics{
		blocks:     r.Gauges("dynamo_tier_blocks", "KV blocks in a tier below the device, by state.", "tier", "state"),
		stored:     r.Counters("dynamo_tier_stored_blocks_total", "KV blocks written to a tier.", "tier"),
		loaded:     r.Counters("dynamo_tier_read_blocks_total", "KV blocks read from a tier, checked.", "tier"),
		evicted:    r.Counters("dynamo_tier_evicted_blocks_total", "KV blocks given up for others.", "tier"),
		skipped:    r.Counters("dynamo_tier_skipped_blocks_total", "KV blocks a tier did not take in.", "tier", "reason"),
		failing:    r.Counters("dynamo_tier_failures_total", "What a tier did not do: its bytes were wrong (corrupt), it had an error (unread, unwritten), or not the block (missing).", "tier", "cause"),
		loads:      r.Counters("dynamo_tier_loads_total", "Loads of blocks into an engine by their end: all arrived, one failed, or late. Those cancelled are not counted.", "outcome"),
		overlapped: r.Counters("dynamo_tier_loads_overlapped_total", "Loads with whose first layers an engine computed while the last ones still came.").WithLabelValues(),
	}
}

// publishLocked tells the metrics what has changed since they were told last.
func (m *Mover) publishLocked() {
	if m.config.Metrics == nil {
		return
	}
	for t := dynamo.TierHost; t <= dynamo.TierRemote; t++ {
		if m.stores[t] == nil {
			continue
		}
		s := m.statsLocked(t)
		m.config.Metrics.add(t.String(), &m.mu.told[t], &s)
		m.mu.told[t] = s
	}
	old, now := &m.mu.counted, &m.mu.loads
	grow(m.config.Metrics.loads, old.Arrived, now.Arrived, "arrived")
	grow(m.config.Metrics.loads, old.Failed, now.Failed, "failed")
	grow(m.config.Metrics.loads, old.Late, now.Late, "late")
	m.config.Metrics.overlapped.Add(float64(now.Overlapped - old.Overlapped))
	m.mu.counted = m.mu.loads
}

// grow adds what a count has grown by.
func grow(v *prometheus.CounterVec, from, to uint64, labels ...string) {
	if to > from {
		v.WithLabelValues(labels...).Add(float64(to - from))
	}
}

// add counts what is in s beyond last.
func (m *Metrics) add(tier string, last, s *kvbm.TierStats) {
	for _, g := range []struct {
		state string
		n     int
	}{{"stored", s.Held}, {"storing", s.Storing}, {"quarantined", s.Quarantined}, {"free", s.Free}} {
		m.blocks.WithLabelValues(tier, g.state).Set(float64(g.n))
	}
	grow(m.stored, last.Stored, s.Stored, tier)
	grow(m.loaded, last.Loaded, s.Loaded, tier)
	grow(m.evicted, last.Evicted, s.Evicted, tier)
	for i := range s.Skipped {
		grow(m.skipped, last.Skipped[i], s.Skipped[i], tier, kvbm.Skip(i).String())
	}
	grow(m.failing, last.Corrupt, s.Corrupt, tier, "corrupt")
	grow(m.failing, last.Unread, s.Unread, tier, "unread")
	grow(m.failing, last.Missing, s.Missing, tier, "missing")
	grow(m.failing, last.Unwritten, s.Unwritten, tier, "unwritten")
}
