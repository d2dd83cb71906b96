package router

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router/placement"
)

// Router is an Engine that hands each request to one of its workers.
type Router struct {
	config   Config
	params   placement.Params
	log      *slog.Logger
	prefixes *prefixes

	mu struct {
		sync.Mutex
		members map[placement.Key]*member
		list    []*member
		fleet   placement.Fleet // what placement sees of list, in its order
		kinds   kinds
		groups  groups
		journal journal
		queue   queue
		retired bool      // others serve the name
		without time.Time // since when no worker is there that answers; zero if one is
		told    time.Time // when the log was told of it last
		stats   Stats
		hits    hits
		shadow  *placement.Shadow // nil: no other policy is asked
		output  length            // of the answers that came to their end
		states  [3]int            // as the metrics have them
	}
}

var _ engine.Engine = (*Router)(nil)

// New returns a Router without workers; the error lists the faults of c.
func New(c Config) (*Router, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	r := &Router{config: c, params: c.params(), log: obs.For(c.Logger, "router")}
	r.prefixes = newPrefixes(c.index(), c.Metrics, r.log)
	if c.Shadow != "" {
		other := c.params()
		other.Policy, _ = placement.ParsePolicy(c.Shadow)
		r.mu.shadow = &placement.Shadow{Params: other}
	}
	r.mu.queue.Queue = placement.NewQueue[*waiter](placement.QueueConfig{Limit: max(c.Queue, 1)})
	r.mu.members, r.mu.without = map[placement.Key]*member{}, time.Now()
	r.mu.groups.workers = map[dynamo.RequestID]placement.Key{}
	return r, nil
}

// call is one request while it is with the router.
type call struct {
	q         *dynamo.Request
	arrived   time.Time
	begun     *engine.Card // of the engine that the answer so far is from; nil if there is none
	unable    error        // why a kind of worker cannot serve it
	ranks     []placement.Rank
	rankRoom  [4]placement.Rank
	ranked    uint64 // the kinds' changes when ranks was made
	attempts  int
	params    placement.Params  // the router's, with what the request says of its own
	look      *lookup           // who holds its beginning; nil: nobody asks
	load      placement.Booking // at the worker that it is booked at
	held      int               // tokens of the prompt that it was thought to hold
	dispatch  time.Time         // when it was booked
	predicted float64           // milliseconds from then to its first token; 0: nobody has
	paced     time.Time         // when the pace of its answer was looked at last
	prefilled uint64            // the prompts of its worker that had come to their first token then
	cached    int               // tokens of the prompt that it says it held; -1: it has not
	excluded  []placement.Key   // refused it, since it last waited
	role      placement.Role    // the part that is asked about; Whole where one is served
	split     *placement.Split  // how it came to be asked for, whole or in part; nil: nobody decided
	borrows   bool              // KV may be fetched for it
	hint      *hint             // from where, at the worker that it is booked at; nil: from nowhere
	lists     *Ask              // says which workers may be chosen; nil: all
	room      [4]placement.Key
}

// Generate implements engine.Engine. The worker's sequence runs in the caller's
// goroutine.
func (r *Router) Generate(ctx context.Context, q *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		c := &call{q: q, arrived: time.Now(), begun: engine.Begun(ctx), params: r.params, split: splitOf(ctx)}
		c.excluded = c.room[:0]
		if err := c.override(); err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		if c.params.Policy.UsesOverlap() {
			c.look = r.prefixes.look(q, c.arrived)
			defer c.look.done()
			c.borrows = r.borrows(q)
		}
		for {
			b, err := r.take(ctx, c)
			if err != nil {
				r.complain(ctx, err)
				yield(dynamo.Chunk{}, err)
				return
			}
			e := r.attempt(ctx, c, b, yield)
			if e.outcome == refused {
				c.again(&e)
				continue
			}
			if e.err != nil {
				yield(dynamo.Chunk{}, e.err)
			}
			return
		}
	}
}

// again makes c ready for the next worker after one that could not serve it. A worker that
// was lost may have taken the KV that the request comes with, and some engines give it
// once: who asks them again is given what has taken its place.
func (c *call) again(e *ending) {
	if e.code != engine.CodeLost || len(c.q.Handover) == 0 {
		return
	}
	q := *c.q
	q.Handover, c.q = nil, &q
}

// booking is a place that a request holds at a worker.
type booking struct {
	m        *member
	ups      uint64 // how often the worker had been said to be up
	decision uint64 // its number in the journal
	rank     int    // of the worker's data-parallel ranks the one to serve it; -1: any
	waiting  int    // requests that waited just then
}

// ending is how an attempt came out.
type ending struct {
	outcome outcome
	err     error  // what the caller is to be told
	code    string // of engine's, when the worker failed
	fault   error  // and its own word of it
	began   bool   // it has answered
}

// attempt asks the worker that c is booked at, and ends the booking before it
// returns.
func (r *Router) attempt(ctx context.Context, c *call, b booking, yield func(dynamo.Chunk, error) bool) (e ending) {
	defer func() { r.release(ctx, c, b, &e) }()
	engine.PlacedAt(ctx, engine.Place{Worker: b.m.ID, Rank: max(b.rank, 0), Card: &b.m.Card, Waiting: b.waiting})
	began, ended, grown := false, false, 0
	q, enough := c.atRank(b.rank), func() {}
	if c.hint != nil {
		var done func()
		q, enough, done = r.borrow(ctx, c, q)
		defer done()
	}
	for chunk, err := range b.m.Engine.Generate(ctx, q) {
		enough()
		if err != nil {
			e = r.judge(ctx, err, began)
			return e
		}
		if !began && len(chunk.Tokens)+len(chunk.Text) > 0 || chunk.Finish != dynamo.FinishNone {
			r.started(c, b, &chunk, grown)
			grown = 0
		} else if grown += len(chunk.Tokens); grown >= growthStep {
			r.grown(c, b, grown)
			grown = 0
		}
		began, ended = true, chunk.Finish != dynamo.FinishNone || len(chunk.Handover) > 0
		e.began = true
		if !yield(chunk, nil) {
			e.outcome = abandoned
			if ended {
				e.outcome = completed
			}
			return e
		}
	}
	e.outcome = completed
	return e
}

// judge says what a worker's error means for the request.
func (r *Router) judge(ctx context.Context, err error, began bool) ending {
	code, workerFailed := engine.Lost(err)
	e := ending{outcome: failed, err: err, code: code, began: began}
	if workerFailed {
		e.fault = err
	}
	switch kind := dynamo.KindOf(err); {
	case workerFailed && !began && code != engine.CodeStalled && ctx.Err() == nil:
		e.outcome, e.err = refused, nil
	case workerFailed:
		e.outcome = lost
	case kind == dynamo.KindCancelled, kind == dynamo.KindDeadline:
		e.outcome = abandoned
	}
	return e
}

// take returns with a place at a worker, or with the error that the request ends
// with.
func (r *Router) take(ctx context.Context, c *call) (booking, error) {
	_, span := r.config.Tracer.Start(ctx, "router.choose")
	b, err := r.place(ctx, c)
	if span != nil && err == nil {
		span.Set(slog.String(obs.KeyWorker, b.m.ID.String()))
	}
	span.End(err)
	if err == nil {
		r.expect(c, b)
	}
	if err == nil && r.log.Enabled(ctx, slog.LevelDebug) {
		r.log.LogAttrs(ctx, slog.LevelDebug, "worker chosen", slog.String(obs.KeyRequest, string(c.q.ID)),
			slog.String(obs.KeyWorker, b.m.ID.String()), slog.Int("attempt", c.attempts), slog.Duration(obs.KeyDuration, time.Since(c.arrived)))
	}
	return b, err
}

// place takes a place at once where there is one, or waits for it.
func (r *Router) place(ctx context.Context, c *call) (booking, error) {
	now := time.Now()
	r.mu.Lock()
	if err := r.endedLocked(ctx, c, now); err != nil {
		r.mu.Unlock()
		return booking{}, err
	}
	if r.mu.queue.Len() > 0 {
		r.wakeLocked(now) // time alone may have made room
	}
	// Life 4: router takes one plan, the worker that placement chooses, and books the request there before it is sent
	// Those that wait for other workers have no use for the place, nor, where the
	// workers differ, has any that wakeLocked has just found none for.
	if r.mu.queue.Len() == 0 || r.mu.kinds.used > 1 || r.mu.queue.Waiting(c.class()) == 0 {
		if b, found := r.chooseLocked(c, now); found {
			r.mu.Unlock()
			return b, nil
		}
	}
	w, err := r.queueLocked(c, now)
	placed := err == nil && !w.ticket.Queued()
	r.mu.Unlock()
	switch {
	case err != nil:
		return booking{}, err
	case placed:
		return w.b, nil
	}
	return r.wait(ctx, w)
}

// endedLocked refuses a request that is over.
func (r *Router) endedLocked(ctx context.Context, c *call, now time.Time) error {
	var err error
	switch {
	case ctx.Err() != nil:
		err = engine.ContextError(ctx)
	case !c.q.Deadline.IsZero() && !now.Before(c.q.Deadline):
		err = engine.DeadlineError(nil)
	default:
		return nil
	}
	r.countLocked(abandoned)
	return err
}

// decideLocked asks placement. The record refers to the router's own slices.
func (r *Router) decideLocked(c *call, now time.Time) placement.Decision {
	q := placement.Request{
		ID: c.q.ID, Seed: placement.Seed(c.q.ID, len(c.q.Resume), c.attempts), Now: now, Excluded: c.excluded, Adapter: c.q.Adapter,
		Ranks: r.mu.kinds.rank(c), Role: c.role, Tokens: len(c.q.Tokens) + len(c.q.Resume), Expected: r.expectedLocked(c.q),
	}
	if c.q.Group != "" {
		q.Sticky = r.mu.groups.workers[c.q.Group]
	}
	if c.q.Routing != nil {
		c.route(&q)
	}
	if c.lists != nil {
		q.Excluded, q.Ranks = r.unlistedLocked(c, q.Ranks)
	}
	if c.look != nil {
		c.look.place(&q, r.mu.fleet.Len())
	}
	if c.borrows {
		q.Peer = r.lenderLocked(&q)
	}
	return r.mu.fleet.Decide(c.params, q)
}

// chooseLocked books c at the best worker, if there is one for it.
func (r *Router) chooseLocked(c *call, now time.Time) (booking, bool) {
	d := r.decideLocked(c, now)
	if d.Winner == placement.None {
		return booking{}, false
	}
	return r.bookLocked(c, &d), true
}

// bookLocked books c at the winner of d.
func (r *Router) bookLocked(c *call, d *placement.Decision) booking {
	m := r.mu.list[d.Winner]
	b := booking{m: m, ups: m.ups, decision: r.mu.journal.keep(d, c), waiting: r.mu.queue.Len(), rank: r.rankLocked(c, m, d.Winner)}
	c.attempts++
	m.booked++
	c.held, c.dispatch, c.cached = c.look.held(&d.Request, d.Winner), d.Request.Now, -1
	c.load.Tokens, c.load.Prompt = m.tokens(c.q), d.Request.Tokens
	c.load.New = max(c.load.Prompt-c.held, 0)
	t := d.Terms(d.Winner)
	c.predicted = t.Wait + t.Prefill + t.Load
	if len(c.q.Handover) > 0 { // its KV comes from elsewhere
		c.load.New, c.predicted = 0, t.Wait
	}
	c.hint = r.hintLocked(c, d)
	if r.mu.shadow != nil {
		r.mu.shadow.Observe(d)
	}
	cand := r.mu.fleet.Touch(d.Winner) // from here on d is no longer as it was decided
	cand.Book(&c.load, d.Request.Now)
	if e := r.mu.journal.at(b.decision); e != nil {
		e.held = c.held
	}
	s := &r.mu.stats
	s.Decisions++
	cand.Turn = s.Decisions
	s.Booked++
	s.BookedTokens += c.load.Tokens
	if g := c.q.Group; g != "" && !d.Sticky {
		r.mu.groups.set(g, m.key())
	}
	if mm := r.config.Metrics; mm != nil {
		mm.booked.Inc()
		if d.Sticky {
			mm.decisions[decidedGroup].Inc()
		} else {
			mm.decisions[decidedFree].Inc()
		}
	}
	return b
}

// release ends a booking: it takes the load off the worker, learns from how the
// attempt ended, and lets those in that wait for the room.
func (r *Router) release(ctx context.Context, c *call, b booking, e *ending) {
	now := time.Now()
	r.mu.Lock()
	b.m.booked--
	if b.rank >= 0 {
		b.m.rankBooked[b.rank]--
	}
	r.mu.stats.Booked--
	r.mu.stats.BookedTokens -= c.load.Tokens
	if j := r.mu.journal.at(b.decision); j != nil {
		j.total, j.outcome, j.code, j.cached = max(now.Sub(c.dispatch), 1), e.outcome, e.code, c.cached
	}
	r.countHitsLocked(c, b.m)
	r.unhintLocked(c, b)
	if b.m.index >= 0 {
		cand := r.mu.fleet.Touch(b.m.index)
		cand.Release(&c.load, now)
		if e.outcome != refused && !cand.Lost {
			cand.HeldUntil = time.Time{}
		}
		r.learnLocked(b, cand, e, now)
	}
	c.load = placement.Booking{}
	if r.mu.stats.Booked < 0 || b.m.booked < 0 {
		r.mu.Unlock()
		panic("BUG: a booking ended twice")
	}
	if mm := r.config.Metrics; mm != nil {
		mm.booked.Dec()
	}
	if e.outcome == refused {
		c.excluded = append(c.excluded, b.m.key())
		r.mu.stats.Refusals++
	} else {
		r.countLocked(e.outcome)
	}
	r.wakeLocked(now)
	r.mu.Unlock()
	r.tell(ctx, c, b, e)
}

// learnLocked draws the conclusion from a worker's failure.
func (r *Router) learnLocked(b booking, cand *placement.Candidate, e *ending, now time.Time) {
	m := b.m
	if e.code == "" && e.began && m.fault != "" {
		m.fault = ""
		r.missLocked(now)
	}
	switch e.code {
	case engine.CodeRefused:
		cand.HeldUntil, cand.Lost = now.Add(refusedHold), false
	case engine.CodeLost:
		// Word of the connection that is newer than the booking knows better.
		if m.ups == b.ups && m.up {
			cand.HeldUntil, cand.Lost = now.Add(lostHold), true
			r.faultLocked(m, e.fault, now)
		}
	case engine.CodeStalled:
		cand.DoubtedUntil = now.Add(stalledDoubt)
		m.doubtSteps = m.load.Steps
	case engine.CodeDraining:
		m.draining = true
		r.stateLocked(m)
	}
}

// tell counts and logs what a worker did to a request.
func (r *Router) tell(ctx context.Context, c *call, b booking, e *ending) {
	if e.code == "" {
		return
	}
	if mm := r.config.Metrics; mm != nil && e.outcome == refused {
		switch e.code {
		case engine.CodeRefused:
			mm.refusals[reasonRefused].Inc()
		case engine.CodeDraining:
			mm.refusals[reasonDraining].Inc()
		default:
			mm.refusals[reasonLost].Inc()
		}
	}
	r.log.LogAttrs(ctx, slog.LevelDebug, "worker failed a request", slog.String(obs.KeyRequest, string(c.q.ID)),
		slog.String(obs.KeyWorker, b.m.ID.String()), slog.String("code", e.code), slog.Bool("next", e.outcome == refused))
}

func (r *Router) countLocked(o outcome) {
	switch o {
	case exhausted, noWorker:
		r.mu.stats.Refused++
	case abandoned:
		r.mu.stats.Abandoned++
	}
	r.mu.stats.Ended++
	if mm := r.config.Metrics; mm != nil {
		mm.requests[o].Inc()
	}
}
