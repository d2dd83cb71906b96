package router

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
)

// hits count the prompts of requests that have ended, in tokens: how long they were,
// how much of them the workers say they held, and how much they were thought to hold.
type hits struct{ prompt, cached, predicted uint64 }

func (h *hits) add(c *call) {
	h.prompt += uint64(c.load.Prompt)
	h.cached += uint64(c.cached)
	h.predicted += uint64(c.held)
}

// countHitsLocked counts the prompt of an attempt that has been answered.
func (r *Router) countHitsLocked(c *call, m *member) {
	if c.cached < 0 {
		return
	}
	m.hits.add(c)
	r.mu.hits.add(c)
	if mm := r.config.Metrics; mm != nil {
		mm.prompt.Add(float64(c.load.Prompt))
		mm.cached.Add(float64(c.cached))
		mm.predicted.Add(float64(c.held))
	}
}

// UsesKV reports whether FollowKV is of use.
func (r *Router) UsesKV() bool { return r.params.Policy.UsesOverlap() && !r.config.Approximate }

// override takes in what the request says of its own routing.
func (c *call) override() error {
	g := c.q.Routing
	if g == nil {
		return nil
	}
	o := &g.Overrides
	if o.Policy != "" {
		policy, known := placement.ParsePolicy(o.Policy)
		if !known {
			return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("router_config_override: %q is no policy; there are %s", o.Policy, strings.Join(placement.Policies(), ", "))}
		}
		c.params.Policy = policy
	}
	for _, f := range []struct {
		to   *float64
		from *float64
	}{{&c.params.Reference.OverlapCredit, o.OverlapCredit}, {&c.params.Reference.PrefillScale, o.PrefillLoadScale}, {&c.params.Reference.Temperature, o.Temperature}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	if err := c.params.Validate(); err != nil {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "router_config_override: " + err.Error()}
	}
	return nil
}

// route says in q what the request asks of its worker.
func (c *call) route(q *placement.Request) {
	g := c.q.Routing
	q.Pin.ID = g.Worker
	if g.Rank != nil && g.Worker != 0 {
		q.Pin.Rank, q.Pin.HasRank = int32(*g.Rank), true
	}
	if g.Session != "" {
		q.Session = placement.Hash(g.Tenant + "\x00" + g.Session)
	}
	q.Required = g.RequiredLabels
	for _, p := range g.PreferredLabels {
		q.Preferred = append(q.Preferred, placement.Preference{Label: p.Label, Weight: p.Weight})
	}
}

// expectedLocked is how long the answer to q is taken to be, in tokens: as long as its client
// says or as others were, and no longer than it may be.
func (r *Router) expectedLocked(q *dynamo.Request) int {
	n := 0
	if q.Routing != nil {
		n = q.Routing.ExpectedOutput
	}
	if n == 0 {
		n = int(r.mu.output.mean())
	}
	if most := q.MaxTokens - len(q.Resume); n == 0 || n > most {
		n = min(most, unknownOutput)
	}
	return max(n, 1)
}

// length is a mean of the lengths of answers, in which older ones count less and less.
type length struct{ sum, weight float64 }

func (l *length) add(n int) {
	const keep = 0.99
	l.sum, l.weight = l.sum*keep+float64(n), l.weight*keep+1
}

func (l *length) mean() float64 {
	if l.weight == 0 {
		return 0
	}
	return l.sum / l.weight
}

// started notes that the first token has come, or that with n tokens since the last
// call the answer has come to its end.
func (r *Router) started(c *call, b booking, chunk *dynamo.Chunk, n int) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.cached < 0 {
		r.firstLocked(c, b, chunk.Cached, now)
	} else {
		r.pacedLocked(c, b, n+len(chunk.Tokens), now)
	}
	if chunk.Finish != dynamo.FinishNone && chunk.Usage.Completion > 0 {
		r.mu.output.add(chunk.Usage.Completion)
	}
	c.cached = max(c.cached, chunk.Cached, chunk.Usage.Cached, 0)
}

// firstLocked learns from the time to the first token.
func (r *Router) firstLocked(c *call, b booking, cached int, now time.Time) {
	took := now.Sub(c.dispatch)
	if e := r.mu.journal.at(b.decision); e != nil {
		e.first = took
	}
	m := b.m
	m.prefilled++
	c.paced, c.prefilled = now, m.prefilled
	m.ttft.add(milliseconds(took), c.predicted)
	if c.hint != nil {
		c.hint.fetchedLocked(c, cached, took, now)
	}
	if mm := r.config.Metrics; mm != nil && took > 0 {
		mm.ratio.Observe(c.predicted / milliseconds(took))
	}
	if m.index < 0 {
		return
	}
	cand := r.mu.fleet.Touch(m.index)
	prompt := c.load.Prompt
	s := cand.Started(&c.load, now)
	// What the worker says it held counts, not what it was thought to hold; but of a prompt
	// that was computed elsewhere it says what it had of it before that was brought.
	if m.tellsCached = m.tellsCached || cached > 0; m.tellsCached && len(c.q.Handover) == 0 {
		s.New = max(prompt-cached, 0)
		s.Pairs = float64(s.New) * (float64(prompt-s.New) + float64(s.New)/2)
	}
	if c.hint == nil { // else it is not computing alone that took so long
		m.estimate.First(s, c.predicted, took)
		r.believeLocked(m, cand, now)
	}
}

// pacedLocked learns from the time that n tokens of an answer took, if no prompt was
// computed meanwhile.
func (r *Router) pacedLocked(c *call, b booking, n int, now time.Time) {
	m := b.m
	if m.index < 0 {
		return
	}
	cand := r.mu.fleet.Touch(m.index)
	cand.Grown(&c.load, n)
	if cand.Prefills == 0 && c.prefilled == m.prefilled && n > 0 {
		m.estimate.Gap(cand.Running(now.Sub(c.paced) / time.Duration(n)))
		r.believeLocked(m, cand, now)
	}
	c.paced, c.prefilled = now, m.prefilled
}

// believeLocked has placement use what is known of a worker's speed, also for those of
// its kind of which nothing is known yet: to compare what is measured with what is
// assumed would favour whoever is assumed to be faster.
func (r *Router) believeLocked(m *member, cand *placement.Candidate, now time.Time) {
	if !m.estimate.Known() {
		return
	}
	model := m.estimate.Model()
	_ = cand.SetModel(model) // one that is refused leaves what was there
	cand.Timed = m.estimate.Timed()
	if now.Sub(m.shared) < shareEvery {
		return
	}
	m.shared = now
	for _, other := range r.mu.list {
		if other.kind == m.kind && !other.estimate.Known() {
			peer := r.mu.fleet.Touch(other.index)
			_ = peer.SetModel(model)
			peer.Timed = m.estimate.Timed()
		}
	}
}

// believedLocked is what is known of a worker of the same kind, for one that is new.
func (r *Router) believedLocked(m *member) perfmodel.ClosedForm {
	for _, other := range r.mu.list {
		if other.kind == m.kind && other.estimate.Known() {
			return other.estimate.Model()
		}
	}
	return perfmodel.ClosedForm{}
}

// grown notes that an answer has grown by n tokens.
func (r *Router) grown(c *call, b booking, n int) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pacedLocked(c, b, n, now)
}

// expect tells the index what the worker that c is booked at will hold.
func (r *Router) expect(c *call, b booking) {
	if c.look == nil {
		return
	}
	ttl := r.config.PredictTTL
	if r.config.Approximate || b.m.Silent {
		ttl = r.config.ApproximateTTL
	}
	if ttl > 0 && r.prefixes.expect(b.m, b.rank, c.look, c.dispatch, ttl, r.config.ApproximateTTL) {
		r.log.Warn("a worker sends no KV events; what it holds is guessed from what it was sent", slog.String(obs.KeyWorker, b.m.ID.String()))
	}
}
