package bench

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo/bench/stats"
)

// series are the values of one metric: exact up to maxSamples, and always a
// histogram.
type series struct {
	values []float64
	hist   stats.Histogram
}

func (s *series) add(v float64) {
	s.hist.Record(v)
	if len(s.values) <= maxSamples {
		s.values = append(s.values, v)
	}
}

func (s *series) summary() stats.Summary {
	if len(s.values) > maxSamples {
		return s.hist.Summary()
	}
	return stats.Summarize(stats.NewExact(s.values))
}

// recent are values of the running second.
type recent []float64

func (r *recent) add(v float64) {
	if len(*r) < maxSecondSamples {
		*r = append(*r, v)
	}
}

// meter counts what happens in a phase. Its methods may be called by several
// goroutines.
type meter struct {
	cfg     *Config
	mode    string
	start   time.Time
	started atomic.Int64
	ended   atomic.Int64
	tokens  atomic.Int64 // events with content
	records chan *Record // nil for none

	mu struct {
		sync.Mutex
		whole, failed, cancelled                  int
		errors                                    map[string]int
		ttft, ttst, itl, tpot, e2e, in, out, late series
		icl                                       stats.Histogram
		ttftNow, itlNow                           recent
		good                                      int
		cached, inSum, outSum, chunks             int64
		from                                      [3]bool // tokensFrom
		overhead, mismatched                      int
		overheadKnown                             bool
		last                                      int64 // end of the last request
		series                                    []Second
		before                                    Second // totals at the end of the last entry
		firstDetail                               map[string]string
	}
}

// Sources of output lengths, in the order of preference.
const (
	fromUsage = iota
	fromTokenizer
	fromChunks
)

var sources = [...]string{fromUsage: "usage", fromTokenizer: "tokenizer", fromChunks: "chunks"}

func newMeter(c *Config, mode string, start time.Time) *meter {
	m := &meter{cfg: c, mode: mode, start: start}
	m.mu.errors, m.mu.firstDetail = map[string]int{}, map[string]string{}
	return m
}

// gaps counts gaps between events with content.
func (m *meter) gaps(ns []int64) {
	if len(ns) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range ns {
		m.mu.icl.Record(seconds(g))
	}
}

// sent counts a request that is about to be written, late after it was due.
func (m *meter) sent(late int64) {
	m.started.Add(1)
	if m.mode != modeClosed {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.mu.late.add(seconds(max(late, 0)))
	}
}

// outcome is what became of a request, beside its record.
type outcome struct {
	record Record
	from   int // of the output's length
	told   int // the prompt's length as the server told it; 0 if it did not
}

// finish counts a request that has ended, and returns the number of failed ones.
func (m *meter) finish(o *outcome) (failed int) {
	r := &o.record
	m.ended.Add(1)
	if m.records != nil {
		m.records <- r
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.last = max(m.mu.last, r.End)
	m.mu.chunks += int64(r.Chunks)
	switch {
	case r.Cancelled:
		m.mu.cancelled++
	case r.Error != "":
		m.mu.failed++
		class := r.Error
		if m.mu.errors[class] == 0 && len(m.mu.errors) >= maxErrorClasses {
			class = ClassOther
		}
		if m.mu.errors[class]++; m.mu.errors[class] == 1 {
			m.mu.firstDetail[class] = r.Detail
		}
	default:
		m.wholeLocked(o)
	}
	return m.mu.failed
}

func (m *meter) wholeLocked(o *outcome) {
	r := &o.record
	m.mu.whole++
	m.mu.e2e.add(r.E2E())
	m.mu.in.add(float64(r.Input))
	m.mu.out.add(float64(r.Output))
	m.mu.inSum += int64(r.Input)
	m.mu.outSum += int64(r.Output)
	m.mu.cached += int64(r.Cached)
	m.mu.from[o.from] = true
	if r.First > 0 {
		m.mu.ttft.add(r.TTFT())
		m.mu.ttftNow.add(r.TTFT())
	}
	if r.Second > 0 {
		m.mu.ttst.add(seconds(r.Second - r.First))
	}
	itl, ok := r.ITL()
	if ok {
		m.mu.itl.add(itl)
		m.mu.itlNow.add(itl)
	}
	if tpot, ok := r.TPOT(); ok {
		m.mu.tpot.add(tpot)
	}
	if m.kept(r, itl) {
		m.mu.good++
	}
	m.lengthLocked(o)
}

// lengthLocked compares a prompt's length with what the server counted: templates
// add the same number of tokens to each.
func (m *meter) lengthLocked(o *outcome) {
	if o.told == 0 || m.cfg.Tokenizer == nil && !m.cfg.PromptIDs {
		return
	}
	extra := o.told - o.record.Input
	if !m.mu.overheadKnown {
		m.mu.overhead, m.mu.overheadKnown = extra, true
	}
	if extra != m.mu.overhead || m.cfg.PromptIDs && extra != 0 {
		m.mu.mismatched++
	}
}

// kept says whether an answer kept every target.
func (m *meter) kept(r *Record, itl float64) bool {
	for name, d := range m.cfg.Goodput {
		v := r.E2E()
		switch name {
		case "ttft":
			if v = r.TTFT(); r.First == 0 {
				return false
			}
		case "itl":
			v = itl
		}
		if v > d.Seconds() {
			return false
		}
	}
	return len(m.cfg.Goodput) > 0
}

// second closes an entry of the series at the second's end.
func (m *meter) second(at int) {
	started, ended, tokens := m.started.Load(), m.ended.Load(), m.tokens.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	ttft, itl := stats.Sorted(m.mu.ttftNow), stats.Sorted(m.mu.itlNow)
	s := Second{
		At: at, Started: int(started) - m.mu.before.Started, Finished: m.mu.whole - m.mu.before.Finished,
		Errors: m.mu.failed - m.mu.before.Errors, InFlight: int(started - ended), Tokens: int(tokens) - m.mu.before.Tokens,
		TTFTP50: stats.Quantile(ttft, 0.5), TTFTP99: stats.Quantile(ttft, 0.99), ITLP50: stats.Quantile(itl, 0.5),
	}
	m.mu.before = Second{Started: int(started), Finished: m.mu.whole, Errors: m.mu.failed, Tokens: int(tokens)}
	m.mu.ttftNow, m.mu.itlNow = m.mu.ttftNow[:0], m.mu.itlNow[:0]
	if len(m.mu.series) < maxSeconds {
		m.mu.series = append(m.mu.series, s)
	}
}

// result fills in what the meter knows.
func (m *meter) result(r *Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r.Duration = time.Duration(m.mu.last)
	r.Requests, r.Errors, r.Cancelled = m.mu.whole, m.mu.errors, m.mu.cancelled
	r.TTFT, r.TTST, r.ITL, r.TPOT, r.E2E = m.mu.ttft.summary(), m.mu.ttst.summary(), m.mu.itl.summary(), m.mu.tpot.summary(), m.mu.e2e.summary()
	r.ICL = m.mu.icl.Summary()
	r.InputTokens, r.OutputTokens = m.mu.in.summary(), m.mu.out.summary()
	for i, name := range sources {
		if m.mu.from[i] {
			if r.TokensFrom != "" {
				r.TokensFrom += "+"
			}
			r.TokensFrom += name
		}
	}
	if s := r.Duration.Seconds(); s > 0 {
		r.RequestThroughput = float64(m.mu.whole) / s
		r.InputThroughput, r.OutputThroughput = float64(m.mu.inSum)/s, float64(m.mu.outSum)/s
		r.Goodput = float64(m.mu.good) / s
	}
	r.GoodputTargets = m.cfg.Goodput
	r.CachedTokens, r.Chunks, r.Mismatched = m.mu.cached, m.mu.chunks, m.mu.mismatched
	r.ErrorDetails = m.mu.firstDetail
	r.TemplateTokens = m.mu.overhead
	r.Series = m.mu.series
	r.TTFTHist, r.ITLHist, r.ICLHist, r.E2EHist = &m.mu.ttft.hist, &m.mu.itl.hist, &m.mu.icl, &m.mu.e2e.hist
	r.InputHist, r.OutputHist = &m.mu.in.hist, &m.mu.out.hist
	if m.mode != modeClosed {
		r.Client.LateP99 = time.Duration(m.mu.late.summary().P99 * 1e9)
	}
}
