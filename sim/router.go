package sim

import (
	"fmt"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/router/placement"
)

// route is where a request goes.
type route struct {
	booking   placement.Booking
	excluded  []placement.Key // workers that refused it
	sent      int64           // when it was sent to its worker
	predicted float64         // milliseconds from then to its first token
	paced     int64           // when it had the last token that was counted
	prefills  uint64          // of its worker by then
	found     int             // tokens that its worker had
	counted   bool            // a whole block was filled then

	queue    *router // where it waits for a worker; nil: it does not
	expiring bool    // its kindExpire is to come
}

// estimate is what the router has learned of a worker.
type estimate struct {
	*placement.Estimator
	prefills uint64 // prompts computed
}

// router is the router's shell under the virtual clock: it books, asks kvindex and
// placement, and lets requests wait in turn while no worker can take one. A fleet with
// prefill workers has one for them, and one for the others.
type router struct {
	sim       *simulation
	params    placement.Params
	overlaps  bool  // the policy asks who holds what
	wait      int64 // how long a request waits
	fleet     placement.Fleet
	members   []*worker  // of the fleet
	estimates []estimate // of each worker; none where they are known, or of no use
	index     *kvindex.Index
	sources   []kvindex.Source // of each member
	workers   []int32          // of each source, its member
	hits      []kvindex.Overlap
	held      []placement.Overlap
	asked     placement.Request
	decisions uint64
	waiting   []*request // in the order they came; those before first are gone
	first     int
	queued    int
	expired   int64 // when expectations were ended last
}

func newRouter(s *simulation, wait time.Duration) (*router, error) {
	r := &router{sim: s, wait: int64(wait), params: s.config.Policy, overlaps: s.config.Policy.Policy.UsesOverlap()}
	if r.overlaps || s.config.events() {
		c := kvindex.DefaultConfig()
		c.MaxBytes = indexBytes(&s.config)
		index, err := kvindex.New(c)
		if err != nil {
			return nil, fmt.Errorf("make the index: %w", err)
		}
		r.index = index
	}
	return r, nil
}

// indexBytes is enough for all blocks of the fleet.
func indexBytes(c *Config) int64 {
	return min(kvindex.MaxBytes, max(kvindex.DefaultConfig().MaxBytes, 64*c.blocks()))
}

// join makes a worker known.
func (r *router) join(w *worker) {
	g, c := w.group, &r.sim.config
	w.router, w.seat = r, len(r.members)
	r.members = append(r.members, w)
	key := placement.Key{ID: w.id(), Epoch: 1}
	cand := placement.Candidate{
		Key: key, State: placement.Up, MaxRunning: g.MaxRunning, MaxQueue: g.MaxQueue,
		StepTokens: g.StepTokens, KVCapacity: g.Blocks * c.BlockSize,
	}
	switch {
	case c.Known:
		cand.Model = r.sim.fitted(g)
	case r.overlaps: // the others have no use for it
		r.estimates = append(r.estimates, estimate{Estimator: placement.NewEstimator(perfmodel.ClosedForm{})})
	}
	r.fleet.Add(cand)
	if r.index == nil {
		return
	}
	id := r.index.Attach(kvindex.Worker{ID: key.ID, Epoch: key.Epoch})
	r.sources = append(r.sources, id)
	for len(r.workers) <= int(id) {
		r.workers = append(r.workers, -1)
	}
	r.workers[id] = int32(w.seat)
}

// arrive takes a request in: it is placed, or waits, or is refused.
func (r *router) arrive(q *request) {
	s := r.sim
	if r.queued == 0 && r.place(q) {
		return
	}
	if r.queued >= s.config.Queue {
		r.refuse(q)
		return
	}
	q.queue, q.expiring = r, true
	r.queued++
	r.waiting = append(r.waiting, q)
	s.at(event{at: s.now + r.wait, kind: kindExpire, stamp: uint32(q.part), number: uint64(q.number), r: q})
}

// refuse ends a request that finds no worker.
func (r *router) refuse(q *request) {
	q.err = &dynamo.Error{Kind: dynamo.KindExhausted, Code: "overloaded", Message: "every worker is full, and so is the queue or the time to wait in it over"}
	at := r.sim.now + r.sim.back
	if q.part == partPrompt { // the client does not hear of it
		at = r.sim.now
	}
	r.sim.at(event{at: at, kind: kindEnded, number: uint64(q.number), r: q})
}

// expire refuses a request that has waited too long.
func (r *router) expire(q *request) {
	q.expiring = false
	if q.queue == r {
		q.queue = nil
		r.queued--
		r.refuse(q)
	}
}

// wake places those that wait, as far as there is room.
func (r *router) wake() {
	for r.queued > 0 {
		q := r.waiting[r.first]
		if q != nil && q.queue == r {
			if !r.place(q) {
				return
			}
			q.queue = nil
			r.queued--
		}
		r.waiting[r.first] = nil
		r.first++
	}
	r.waiting, r.first = r.waiting[:0], 0
}

// place books q at the best worker and sends it there. It reports false when none
// can take it.
func (r *router) place(q *request) bool {
	s := r.sim
	r.request(q)
	d := r.fleet.Choose(r.params, &r.asked)
	if d.Winner == placement.None {
		return false
	}
	cached := 0
	for i := range r.held {
		if int(r.held[i].Candidate) == d.Winner {
			cached = min(int(r.held[i].Blocks[dynamo.TierDevice])*s.config.BlockSize, q.Input-1)
		}
	}
	r.decisions++
	if len(r.estimates) > 0 {
		q.predicted, q.sent = d.FirstMS, s.now
	}
	c := r.fleet.Touch(d.Winner)
	c.Turn = r.decisions
	q.booking = placement.Booking{Tokens: q.Input + q.wanted, Prompt: q.Input + q.base, New: q.Input - cached}
	if q.part == partAnswer { // its KV comes from elsewhere
		q.booking.New = 0
	}
	c.Book(&q.booking, s.moment())
	q.worker = r.members[d.Winner]
	r.expect(q)
	s.at(event{at: s.now + int64(s.config.Dispatch), kind: kindDeliver, number: uint64(q.number), r: q})
	return true
}

// expect tells the index what the worker that q is sent to will hold.
func (r *router) expect(q *request) {
	c := &r.sim.config
	ttl := c.PredictTTL
	if c.Approximate {
		ttl = c.ApproximateTTL
	}
	if told := q.hashes[:q.told]; r.overlaps && ttl > 0 && len(told) > 0 {
		r.index.Expect(r.sources[q.worker.seat], told, r.sim.moment().Add(ttl))
	}
}

// request makes what placement is told of q.
func (r *router) request(q *request) {
	s, p := r.sim, &r.asked
	*p = placement.Request{
		Seed: mix(s.config.Seed ^ mix(uint64(q.number)<<8^uint64(len(q.excluded)))), Now: s.moment(), Excluded: q.excluded,
		Tokens: q.Input + q.base, BlockSize: s.config.BlockSize,
	}
	if r.params.Policy == placement.Session {
		p.Session = placement.Hash(q.Session)
	}
	r.held = r.held[:0]
	if r.overlaps {
		if s.now-r.expired >= int64(expireEvery) {
			r.expired = s.now
			r.index.Expire(p.Now)
		}
		r.hits = r.index.Find(q.hashes[:q.told], r.hits[:0])
		for i := range r.hits {
			r.held = append(r.held, placement.Overlap{Candidate: r.workers[r.hits[i].Source], Blocks: r.hits[i].Blocks})
		}
		p.Overlaps = r.held
	}
}

// started takes in that the first token of q has come.
func (r *router) started(q *request) {
	i, now := q.worker.seat, r.sim.now
	c := r.fleet.Touch(i)
	sample := c.Started(&q.booking, r.sim.moment())
	c.Reuse += (float64(q.found)/float64(q.Input) - c.Reuse) * reuseWeight
	if len(r.estimates) > 0 {
		e := &r.estimates[i]
		e.prefills++
		q.paced, q.prefills = now, e.prefills
		if q.part != partAnswer {
			e.First(sample, q.predicted, time.Duration(now-q.sent))
			e.believe(c)
		}
	}
}

// grown takes in that the answer to q has filled a block.
func (r *router) grown(q *request) {
	i, now, size := q.worker.seat, r.sim.now, r.sim.config.BlockSize
	c := r.fleet.Touch(i)
	c.Grown(&q.booking, size)
	if len(r.estimates) == 0 {
		return
	}
	e := &r.estimates[i]
	if c.Prefills == 0 && q.prefills == e.prefills && q.counted && now > q.paced {
		e.Gap(c.Running(time.Duration(now-q.paced) / time.Duration(size)))
		e.believe(c)
	}
	q.paced, q.prefills, q.counted = now, e.prefills, true
}

// believe has placement use what is known of a worker's speed.
func (e *estimate) believe(c *placement.Candidate) {
	if e.Known() {
		_ = c.SetModel(e.Model()) // one that is refused leaves what was there
	}
}

// release takes q, which has ended, off its worker's load.
func (r *router) release(q *request) {
	if q.worker != nil {
		r.free(q.worker, &q.booking)
	}
}

// free takes a booking off a worker's load.
func (r *router) free(w *worker, b *placement.Booking) {
	c := r.fleet.Touch(w.seat)
	c.Release(b, r.sim.moment())
	if c.Booked < 0 || c.BookedTokens < 0 {
		r.sim.broken("I1: the bookings at worker %d are %d with %d tokens", w.number, c.Booked, c.BookedTokens)
	}
	r.wake()
}

// retry places a request anew that its worker refused for being full; others fail.
func (r *router) retry(q *request) bool {
	if dynamo.KindOf(q.err) != dynamo.KindExhausted || q.worker == nil || len(q.excluded) >= maxRefusals {
		return false
	}
	c := r.fleet.Touch(q.worker.seat)
	q.excluded = append(q.excluded, c.Key)
	c.Release(&q.booking, r.sim.moment())
	q.err, q.worker = nil, nil
	r.arrive(q)
	return true
}

// fitted is a group's model of time as placement takes it: itself, or the closed form
// nearest to it.
func (s *simulation) fitted(g *Group) perfmodel.ClosedForm {
	m := s.config.model(g)
	if closed, ok := m.(*perfmodel.ClosedForm); ok {
		return *closed
	}
	var steps []perfmodel.Observation
	observe := func(b perfmodel.Batch) {
		steps = append(steps, perfmodel.Observation{Batch: b, Seconds: m.StepSeconds(&b)})
	}
	for _, n := range []int{16, 64, 256, 1024, 4096, g.StepTokens} {
		for _, context := range []int{0, 1024, 8192} {
			observe(perfmodel.Batch{Chunks: []perfmodel.Chunk{{New: n, Context: context}}})
		}
	}
	for n := 1; n <= g.MaxRunning; n *= 2 {
		for _, context := range []int{128, 1024, 8192} {
			observe(perfmodel.Batch{Decodes: n, KVTokens: min(n*context, g.Blocks*s.config.BlockSize)})
		}
	}
	fit, err := perfmodel.Fit(steps)
	if err != nil {
		return perfmodel.ClosedForm{}
	}
	return fit.Model
}

// moment is the virtual time as packages take it that are told the time.
func (s *simulation) moment() time.Time { return epoch.Add(time.Duration(s.now)) }

// mix is the finalizer of SplitMix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
