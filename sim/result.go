package sim

import (
	"time"

	"github.com/dynamo-go/dynamo/bench"
)

// Result is what a simulation found.
type Result struct {
	// Bench is what a load run on real processes would have found, as far as it can be
	// known: latencies from when requests were due, rates over the virtual time. Its
	// Started, Machine, Version and Config are the caller's to fill in.
	Bench *bench.Result
	// Records has one entry for each request, in the order they ended, if
	// Config.Records.
	Records []bench.Record
	// Hash is made of what became of each request: which worker served it, when, and
	// with how much of it cached. Equal runs have equal hashes.
	Hash uint64
	// HitRate is the share of the prompts' tokens that was found in workers' caches.
	HitRate float64
	// Steps are the batches computed by all workers, Preemptions the requests that
	// lost their blocks, Decisions the router's.
	Steps, Preemptions, Decisions uint64
	// Handovers is nil for a fleet without prefill workers.
	Handovers *Handovers
	// Workers is the number of requests that each worker served.
	Workers []int
}

// result sums the run up.
func (s *simulation) result() *Result {
	m := s.meter
	m.turn(m.last + int64(time.Second) - 1)
	r := &Result{Records: m.records, Hash: m.hash, Preemptions: s.preemptions, Decisions: s.router.decisions, Handovers: s.handed()}
	if s.prefill != nil {
		r.Decisions += s.prefill.decisions
	}
	if m.inSum > 0 {
		r.HitRate = float64(m.cached) / float64(m.inSum)
	}
	for _, w := range s.workers {
		st := w.s.Stats()
		r.Steps += st.Steps
		r.Workers = append(r.Workers, int(st.Accepted))
	}
	for i := range m.series {
		if i < len(m.tokens) {
			m.series[i].Tokens = int(m.tokens[i])
		}
	}
	ttft, itl, e2e, in, out := m.ttft, m.itl, m.e2e, m.in, m.out // not m's, which would keep the whole simulation
	b := &bench.Result{
		Duration: time.Duration(m.last), Requests: m.whole, Errors: m.errors, ErrorDetails: m.details,
		TTFT: m.ttft.Summary(), ITL: m.itl.Summary(), TPOT: m.tpot.Summary(), E2E: m.e2e.Summary(),
		InputTokens: m.in.Summary(), OutputTokens: m.out.Summary(), TokensFrom: "simulation",
		GoodputTargets: m.config.Goodput, CachedTokens: m.cached, Chunks: m.outSum, Series: m.series,
		TTFTHist: &ttft, ITLHist: &itl, E2EHist: &e2e, InputHist: &in, OutputHist: &out,
	}
	if seconds := b.Duration.Seconds(); seconds > 0 {
		b.RequestThroughput, b.Goodput = float64(m.whole)/seconds, float64(m.good)/seconds
		b.InputThroughput, b.OutputThroughput = float64(m.inSum)/seconds, float64(m.outSum)/seconds
	}
	r.Bench = b
	return r
}
