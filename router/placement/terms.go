package placement

import (
	"slices"
	"time"

	"github.com/dynamo-go/dynamo/perfmodel"
)

// Terms are what a request is predicted to cost at a candidate, in milliseconds.
type Terms struct {
	// Wait is until its prompt is begun: what is left of the step in progress, the
	// prompts before it, and a place in the batch and in the KV cache.
	Wait float64
	// Prefill is for computing what the candidate does not hold, beside the batch
	// that runs.
	Prefill float64
	// Load is for bringing what it holds in slower tiers to the device, and what a peer
	// lends.
	Load float64
	// Slowdown is what others lose: the steps of those that run take longer while the
	// prompt is computed, and with one sequence more; and who comes next finds the
	// machine at work, or a longer queue.
	Slowdown float64
	// Decode is what the answer's own steps take.
	Decode float64
	// Evict is what computing that again costs which has to be given up for it, by
	// the likelihood that it is wanted again.
	Evict float64
	// Late is what a late first token costs beyond the time itself: the time to it
	// squared, over what it takes on an idle machine that holds as much of the prompt as
	// whoever holds most of it. A wait that is short beside what has to be computed costs
	// little more than its time, and one of twice that thrice. Without it a sum of times
	// would let one short prompt wait for seconds to spare each of thirty answers a tenth
	// of one. What is held counts, for the turn of a conversation that has to compute thirty
	// milliseconds of a prompt of one second is as late after a second as any other such one.
	// Those that come after it are later too, by what it takes.
	Late float64
}

// total is the cost of the policy kv.
func (t Terms) total() float64 {
	return t.Wait + t.Prefill + t.Load + t.Slowdown + t.Decode + t.Evict + t.Late
}

// first is the time to the first token.
func (t Terms) first() float64 { return t.Wait + t.Prefill + t.Load }

// neutral is believed of a candidate as long as nothing better is known: vLLM with a
// model of 8 B parameters on an H200.
var neutral = perfmodel.ClosedForm{
	PrefillFixedSeconds: 7.61e-3, PrefillSecondsPerToken: 18.5e-6, PrefillSecondsPerPair: 1.65e-9,
	DecodeFixedSeconds: 4.86e-3, DecodeSecondsPerSequence: 3.5e-6, DecodeSecondsPerKVToken: 44.5e-9,
}

// work is what a candidate has before it.
type work struct {
	tokens, pairs float64
	since         time.Time // when it was so much
	prompts       int
}

// backlog is the prompts that are pending: by the last report and what was booked
// and done since, or by what is booked alone.
func (c *Candidate) backlog(at time.Time) work {
	w := work{float64(c.PrefillTokens), c.PrefillPairs, c.PrefillSince, c.Prefills}
	if rp := &c.Report; rp.Detailed && c.fresh(at) {
		tokens := float64(max(rp.PrefillTokens+c.PrefillTokens-rp.PrefillBooked, 0))
		if w.tokens > 0 {
			w.pairs *= tokens / w.tokens
		}
		w.tokens, w.prompts = tokens, max(w.prompts, 1)
		if rp.At.After(w.since) {
			w.since = rp.At
		}
	}
	return w
}

// kvTokens are those whose KV is held: by the last report and what was booked and
// freed since, or by what is booked alone.
func (c *Candidate) kvTokens(at time.Time) int {
	if rp := &c.Report; rp.Detailed && c.fresh(at) {
		return max(c.KVTokens, rp.KVTokens+c.KVTokens-rp.KVBooked)
	}
	return c.KVTokens
}

// costTotal costs everybody in milliseconds, all that a request costs. Those that are
// worked out have been costed when they were admitted.
func (d *Decision) costTotal() {
	if !d.byPrice {
		for i := range d.Scores {
			if d.Scores[i].Verdict == Fit {
				d.Scores[i].Cost = finite(d.Terms(i).total())
			}
		}
		return
	}
	if d.table != nil {
		return
	}
	for i := range d.Scores {
		s, c := &d.Scores[i], &d.Candidates[i]
		if s.Verdict == Fit {
			p, _ := c.price(d.Params.model(c), int(s.Load), d.Request.Now, d.now)
			d.charge(i, &p)
		}
	}
}

// priced reports whether costs are made of prices.
func (d *Decision) priced() bool {
	return d.Params.Policy == KV && d.Request.Role == Whole && d.Request.Tokens > 0 && d.Request.Peer == (Peer{})
}

// need is how much KV the request may need.
func (d *Decision) need() float32 { return float32(d.Request.size() + d.Request.output()) }

// features are those of the request where nothing of it is held.
func (d *Decision) features() features {
	size, output := d.Request.size(), d.Request.output()
	length := float32(output) * (float32(size) + float32(output)/2)
	most := d.mostHeld()
	return features{float32(size), float32(pairs(size, 0)), float32(output), length, float32(size - most), float32(pairs(size-most, most)), d.need()}
}

// hold takes away from what is to be computed of a prompt of this size what is held.
func (f *features) hold(size, held int) {
	f.tokens, f.pairs = left(size, held)
}

// left is what is to be computed of a prompt of this size of which so much is held, the
// last token at least, and the pairs with what that attends to.
func left(size, held int) (tokens, attended float32) {
	held = min(held, size-1)
	return float32(size - held), float32(pairs(size-held, held))
}

// mostHeld is how much of the prompt those hold on the device that hold most of it, all
// but the last token at most. Those that the request may not go to again do not count:
// what one that refused it was expected to hold is no measure of the others.
func (d *Decision) mostHeld() int {
	if d.most == 0 {
		blocks := uint32(0)
		for k := range d.Request.Overlaps {
			o := &d.Request.Overlaps[k]
			if uint(o.Candidate) >= uint(len(d.Candidates)) || len(d.Request.Excluded) > 0 && slices.Contains(d.Request.Excluded, d.Candidates[o.Candidate].Key) {
				continue
			}
			blocks = max(blocks, o.Blocks[0])
		}
		d.most = 1 + max(min(int(min(blocks, maxBlocks))*max(d.Request.BlockSize, 0), d.Request.size()-1), 0)
	}
	return d.most - 1
}

// charge costs a candidate by its price, or where that does not say by Terms.
func (d *Decision) charge(i int, p *price) {
	s, f := &d.Scores[i], d.whole
	if s.overlap > 0 {
		held, ok := d.onDevice(i)
		if !ok {
			s.Cost = finite(d.Terms(i).total())
			return
		}
		f.hold(d.Request.size(), held)
	}
	if s.Cost = p.of(&f, d.now); !(s.Cost < maxCost) {
		s.Cost = finite(d.Terms(i).total())
	}
}

// costFirst costs everybody in milliseconds to the first token.
func (d *Decision) costFirst() {
	for i := range d.Scores {
		if d.Scores[i].Verdict == Fit {
			d.Scores[i].Cost = finite(d.Terms(i).first())
		}
	}
}

// Terms are those of a candidate, whatever the policy.
func (d *Decision) Terms(i int) Terms {
	c := &d.Candidates[i]
	m := d.Params.model(c)
	b := c.batch(m, int(d.Scores[i].Load), d.Request.Now)
	return d.termsOf(i, m, &b, d.held(i))
}

// batch is what runs at a candidate, in seconds.
type batch struct {
	running, kv, stepTokens float64
	shared                  float64 // what a step takes for those that run
	step                    float64 // a whole step of theirs
	mixed                   float64 // what a step that computes prompts takes beside them
	// behind is how many prompts come after one and are delayed by it: one meanwhile and,
	// where prompts are pending, those that come until the queue is empty: as many as wait,
	// and half as many again while those are computed, and so on. It is their first tokens
	// that are late: as the cost of a time T is T+T²/ideal with Late, that of a delay is by
	// 1+2T/ideal larger, and they are taken to be as late as the one they come after.
	behind float64
}

func (c *Candidate) batch(m *perfmodel.ClosedForm, load int, at time.Time) batch {
	slots := c.MaxRunning
	if slots <= 0 {
		slots = load
	}
	b := batch{running: float64(clamp(load-c.Prefills, 0, slots)), stepTokens: float64(c.StepTokens), mixed: m.PrefillFixedSeconds}
	b.behind = 1 + 2*float64(clamp(c.Prefills, 0, maxRequests))
	if c.StepTokens <= 0 {
		b.stepTokens = assumedStepTokens
	}
	if b.running > 0 {
		b.kv = float64(clamp(c.kvTokens(at), 0, maxTokens))
		b.shared = m.DecodeSecondsPerSequence*b.running + m.DecodeSecondsPerKVToken*b.kv
		b.step = m.DecodeFixedSeconds + b.shared
		b.mixed = max(m.DecodeFixedSeconds, m.PrefillFixedSeconds) + b.shared
	}
	return b
}

// wait is the time until what is pending is computed, and how much of that may be over
// already since a time.
func (c *Candidate) wait(m *perfmodel.ClosedForm, b *batch, at time.Time) (wait, head float64, since time.Time) {
	w := c.backlog(at)
	if w.tokens <= 0 {
		return b.step / 2, 0, at
	}
	wait = m.PrefillSecondsPerToken*w.tokens + m.PrefillSecondsPerPair*w.pairs + (1+w.tokens/b.stepTokens)*b.mixed
	if w.since.IsZero() {
		return wait, 0, at
	}
	// It is at work on the first of them; how far it is nobody says.
	return wait, wait / float64(max(w.prompts, 1)), w.since
}

// places is how many answers' time passes until there is a place in the batch.
func (c *Candidate) places(load int) float64 {
	if c.MaxRunning <= 0 || load < c.MaxRunning {
		return 0
	}
	return float64(load-c.MaxRunning+1) / float64(c.MaxRunning)
}

// evict is what a token costs whose place another has to give up: computing that again,
// if it is wanted again. The more of the cache is in use, the younger, and likelier to
// be wanted, is what has to go.
func (c *Candidate) evict(m *perfmodel.ClosedForm, kv float64) float64 {
	used := clampFloat(kv/float64(c.KVCapacity), 0, 1)
	return clampFloat(c.Reuse, 0, 1) * used * used * m.PrefillSecondsPerToken
}

// termsOf are those of a candidate that holds so much of the prompt in each tier.
func (d *Decision) termsOf(i int, m *perfmodel.ClosedForm, b *batch, held [4]int) Terms {
	r, c, load := &d.Request, &d.Candidates[i], int(d.Scores[i].Load)
	wait, head, since := c.wait(m, b, r.Now)
	t := Terms{Wait: wait - clampFloat(r.Now.Sub(since).Seconds(), 0, head)}

	var n, own float64
	size, output := r.size(), float64(r.output())
	if r.Role != Decode && size > 0 {
		computed, cached := d.loaded(c, m, held, &t)
		n = float64(computed)
		own = b.own(m, n, pairs(computed, cached))
		t.Prefill = own + n/b.stepTokens*(b.mixed-m.PrefillFixedSeconds)
		if c.Prefills == 0 {
			t.Prefill += b.mixed
		}
		t.Slowdown = (b.running + b.behind) * own
	}
	if r.Role != Prefill {
		// Those that run are half way through answers like this one, so they are there for
		// half of it; who comes after them is not known, and the same everywhere.
		grown := m.DecodeSecondsPerSequence + m.DecodeSecondsPerKVToken*(float64(size)+output/2)
		t.Slowdown += b.running * output / 2 * grown
		t.Decode = output * (m.DecodeFixedSeconds + grown + b.shared/2)
	}
	t.Wait += c.places(load) * output * b.step
	if c.KVCapacity > 0 {
		need := n + output
		if over := b.kv + need - float64(c.KVCapacity); over > 0 && b.kv > 0 {
			t.Wait += min(over, b.kv) / b.kv * output * b.step
		}
		t.Evict = need * c.evict(m, b.kv)
	}
	if first := t.first(); size > 0 {
		most := d.mostHeld()
		ideal := max(m.PrefillFixedSeconds+b.own(m, float64(size-most), pairs(size-most, most)), leastIdleSeconds)
		t.Late = first * (first + 2*b.behind*own) / ideal
	}
	return Terms{t.Wait * 1e3, t.Prefill * 1e3, t.Load * 1e3, t.Slowdown * 1e3, t.Decode * 1e3, t.Evict * 1e3, t.Late * 1e3}
}

// own is what computing so many tokens of a prompt takes of itself, beyond the first step.
func (b *batch) own(m *perfmodel.ClosedForm, tokens, pairs float64) float64 {
	return (m.PrefillSecondsPerToken+m.PrefillFixedSeconds/b.stepTokens)*tokens + m.PrefillSecondsPerPair*pairs
}

// loaded decides what is computed though it lies in a slower tier, or can be had of a
// peer: what is faster computed than brought. It returns how many tokens are computed and
// how many not.
func (d *Decision) loaded(c *Candidate, m *perfmodel.ClosedForm, held [4]int, t *Terms) (computed, cached int) {
	computed, cached = d.loadedTiers(c, m, held, t)
	if n, seconds := d.fetched(c, m, cached); n > 0 {
		t.Load += seconds
		computed, cached = computed-n, cached+n
	}
	return computed, cached
}

// loadedTiers is loaded for the candidate's own tiers.
func (d *Decision) loadedTiers(c *Candidate, m *perfmodel.ClosedForm, held [4]int, t *Terms) (computed, cached int) {
	size := d.Request.size()
	cached = held[0]
	for tier, shares := 1, [4]float64{0, 0.25, 0.75, 1}; tier < 4; tier++ {
		if held[tier] == 0 {
			continue
		}
		each, compute := c.LoadSecondsPerToken[tier-1], m.PrefillSecondsPerToken+m.PrefillSecondsPerPair*float64(cached)
		if !(each > 0) {
			each = shares[tier] * compute
		}
		if each >= compute {
			break // what follows would have to attend to what is not there
		}
		t.Load += each * float64(held[tier])
		cached += held[tier]
	}
	computed = max(size-cached, min(1, size))
	return computed, size - computed
}

// known says whether there is a model of the candidate.
func (c *Candidate) known() bool {
	return c.Model.PrefillSecondsPerToken > 0 || c.Model.DecodeFixedSeconds > 0
}

// model is that of a candidate, or what stands in for it.
func (p *Params) model(c *Candidate) *perfmodel.ClosedForm {
	switch {
	case c.known():
		return &c.Model
	case p.Prior != (perfmodel.ClosedForm{}):
		return &p.Prior
	}
	return &neutral
}

func clampFloat(x, least, most float64) float64 {
	if !(x > least) {
		return least
	}
	return min(x, most)
}
