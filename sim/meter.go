package sim

import (
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/stats"
)

// meter measures as a client does: from when a request was due.
type meter struct {
	config *Config
	hash   uint64

	started, ended, whole, good, failed int
	errors                              map[string]int
	details                             map[string]string
	ttft, itl, tpot, e2e, in, out       stats.Histogram
	inSum, outSum, cached               int64
	last                                int64 // the end of the last request

	tokens          []int32 // made in each second
	series          []bench.Second
	before          bench.Second // totals at the end of the last second
	ttftNow, itlNow []float64
	records         []bench.Record
}

func newMeter(c *Config) *meter {
	return &meter{config: c, errors: map[string]int{}, details: map[string]string{}}
}

// sent counts a request that is sent at a time.
func (m *meter) sent(at int64) {
	m.turn(at)
	m.started++
}

// add counts tokens that were made at a time.
func (m *meter) add(at int64, n int) {
	second := int(at / int64(time.Second))
	if n == 0 || second >= maxSeconds {
		return
	}
	for len(m.tokens) <= second {
		m.tokens = append(m.tokens, 0)
	}
	m.tokens[second] += int32(n)
}

// made counts the tokens of the steps of w's stretch that end now.
func (m *meter) made(w *worker) {
	now := w.sim.now
	if w.begun/int64(time.Second) == now/int64(time.Second) {
		m.add(now, w.ahead*w.batch.Decodes)
		return
	}
	for steps := 0; steps < w.ahead; steps++ {
		_, w.begun = w.walk(1, 0)
		w.batch.KVTokens += w.batch.Decodes
		m.add(w.begun, w.batch.Decodes)
	}
	w.batch.KVTokens -= w.ahead * w.batch.Decodes
}

// finish counts a request that has ended, at a time.
func (m *meter) finish(r *request, at int64) {
	m.turn(at)
	m.ended++
	m.last = max(m.last, at)
	m.digest(r)
	rec := bench.Record{Index: r.number, Scheduled: r.due, Sent: r.due, End: at, Input: r.Input, Session: r.Session, Turn: r.Turn}
	if r.err != nil {
		m.failed++
		rec.Error, rec.Detail, rec.Status = dynamo.KindOf(r.err).String(), r.err.Error(), 429
		if m.errors[rec.Error]++; m.errors[rec.Error] == 1 {
			m.details[rec.Error] = rec.Detail
		}
	} else {
		back := int64(m.config.Return)
		rec.First, rec.Last, rec.Status, rec.Finish = r.first+back, r.last+back, 200, "length"
		rec.Output, rec.Cached, rec.Chunks = r.made, r.cached, r.made
		if r.second > 0 {
			rec.Second = r.second + back
		}
		m.answer(&rec)
	}
	if m.config.Records {
		m.records = append(m.records, rec)
	}
}

// answer counts a whole answer.
func (m *meter) answer(r *bench.Record) {
	m.whole++
	m.inSum += int64(r.Input)
	m.outSum += int64(r.Output)
	m.cached += int64(r.Cached)
	m.in.Record(float64(r.Input))
	m.out.Record(float64(r.Output))
	m.ttft.Record(r.TTFT())
	m.e2e.Record(r.E2E())
	itl, several := r.ITL()
	if several {
		m.itl.Record(itl)
		tpot, _ := r.TPOT()
		m.tpot.Record(tpot)
	}
	if len(m.ttftNow) < maxSecondSamples {
		m.ttftNow = append(m.ttftNow, r.TTFT())
		if several {
			m.itlNow = append(m.itlNow, itl)
		}
	}
	kept := len(m.config.Goodput) > 0
	for name, d := range m.config.Goodput {
		v := r.E2E()
		switch name {
		case "ttft":
			v = r.TTFT()
		case "itl":
			v = itl
		}
		kept = kept && v <= d.Seconds()
	}
	if kept {
		m.good++
	}
}

// digest adds a request to the hash of the outcome, in whatever order they end.
func (m *meter) digest(r *request) {
	h := uint64(r.number)
	worker := -1
	if r.worker != nil {
		worker = r.worker.number
	}
	for _, v := range []int64{r.due, int64(worker), r.first, r.last, int64(r.made), int64(r.cached)} {
		h = mix(h ^ uint64(v))
	}
	if r.before != nil {
		h = mix(h ^ uint64(r.before.worker.number)<<32 ^ uint64(r.second))
	}
	if r.err != nil {
		h = mix(h)
	}
	m.hash += h
}

// turn closes the seconds that are over at a time.
func (m *meter) turn(at int64) {
	for second := len(m.series); int64(second+1)*int64(time.Second) <= at && second < maxSeconds; second++ {
		m.second(second)
	}
}

func (m *meter) second(at int) {
	s := bench.Second{
		At: at, Started: m.started - m.before.Started, Finished: m.whole - m.before.Finished, Errors: m.failed - m.before.Errors,
		InFlight: m.started - m.ended,
	}
	if len(m.ttftNow) > 0 {
		ttft, itl := stats.Sorted(m.ttftNow), stats.Sorted(m.itlNow)
		s.TTFTP50, s.TTFTP99, s.ITLP50 = stats.Quantile(ttft, 0.5), stats.Quantile(ttft, 0.99), stats.Quantile(itl, 0.5)
	}
	m.before = bench.Second{Started: m.started, Finished: m.whole, Errors: m.failed}
	m.ttftNow, m.itlNow = m.ttftNow[:0], m.itlNow[:0]
	m.series = append(m.series, s)
}
