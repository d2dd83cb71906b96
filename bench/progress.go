package bench

import (
	"time"

	"github.com/dynamo-go/dynamo/bench/stats"
)

// Progress is how far a run is.
type Progress struct {
	// WarmUp says that the warm-up runs; all else is then about it.
	WarmUp bool
	// Final says that the phase has ended.
	Final bool
	// Elapsed is the time since the phase began.
	Elapsed time.Duration
	// Started, Finished, Errors and Cancelled count requests, InFlight those open.
	Started, Finished, Errors, Cancelled, InFlight int
	// Rate is whole answers per second and TokenRate events with content per second,
	// in the last second.
	Rate, TokenRate float64
	// TTFTP50 and so on are of the whole phase, in seconds.
	TTFTP50, TTFTP99, ITLP50, ITLP99 float64
	// Done is the share of the phase that is over, 0 to 1, and Left the time to its
	// end; 0 if nobody can tell.
	Done float64
	Left time.Duration
}

// progress describes the phase.
func (m *meter) progress(warm, final bool) *Progress {
	p := &Progress{WarmUp: warm, Final: final, Elapsed: time.Since(m.start), Started: int(m.started.Load())}
	m.mu.Lock()
	p.Finished, p.Errors, p.Cancelled = m.mu.whole, m.mu.failed, m.mu.cancelled
	if n := len(m.mu.series); n > 0 {
		p.Rate, p.TokenRate = float64(m.mu.series[n-1].Finished), float64(m.mu.series[n-1].Tokens)
	}
	p.TTFTP50, p.TTFTP99 = both(&m.mu.ttft.hist)
	p.ITLP50, p.ITLP99 = both(&m.mu.itl.hist)
	m.mu.Unlock()
	over := p.Finished + p.Errors + p.Cancelled
	p.InFlight = max(p.Started-over, 0)
	total, limit := m.cfg.Requests, m.cfg.Duration
	if total > 0 {
		p.Done = float64(over) / float64(total)
	}
	if limit > 0 {
		p.Done = max(p.Done, min(p.Elapsed.Seconds()/limit.Seconds(), 1))
	}
	if p.Done > 0 && !final {
		p.Left = time.Duration(float64(p.Elapsed) * (1 - p.Done) / p.Done)
	}
	return p
}

func both(h *stats.Histogram) (p50, p99 float64) {
	if h.Count() == 0 {
		return 0, 0
	}
	s := h.Sample()
	return stats.Quantile(s, 0.5), stats.Quantile(s, 0.99)
}
