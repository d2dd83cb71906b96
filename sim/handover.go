package sim

import (
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/stats"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/tokens"
)

// part is which part of a request is under way, and how it came to be.
type part uint8

const (
	partWhole    part = iota // all of it, at one worker
	partPrompt               // its prompt and first token, at a prefill worker
	partAnswer               // the rest, at another worker, with the KV of the first
	partFallback             // all of it, after the prefill side had failed
)

// before is the first part of a request whose answer goes on elsewhere.
type before struct {
	worker  *worker
	booking placement.Booking
	gone    bool  // it has been told, or is about to be, that its KV is not needed any more
	taken   bool  // the KV has been asked for, which is done once
	handed  int64 // when that was said
}

// Handovers says what became of the requests to a fleet with prefill workers.
type Handovers struct {
	// Apart were served in two parts, Whole by one worker, and Fallback as well, after the
	// prefill side had failed.
	Apart, Whole, Fallback int
	// Bytes is the KV that was moved; Lost counts requests whose KV was kept no longer when
	// it was asked for, and was computed again.
	Bytes float64
	Lost  int
	// Transfer is how long KV was on its way, and Gap the time between the first token, of
	// the one worker, and the second, of the other; in seconds.
	Transfer, Gap stats.Summary
}

// handovers counts.
type handovers struct {
	sum           Handovers
	transfer, gap stats.Histogram
	learned       placement.HandoverTimes
}

// handed is what was counted; nil for a fleet without prefill workers.
func (s *simulation) handed() *Handovers {
	if s.prefill == nil {
		return nil
	}
	h := s.handovers.sum
	h.Transfer, h.Gap = s.handovers.transfer.Summary(), s.handovers.gap.Summary()
	return &h
}

// routerOf is the router that has the part of r which is under way.
func (s *simulation) routerOf(r *request) *router {
	if r.part == partPrompt {
		return s.prefill
	}
	return s.router
}

// arrive takes a request in.
func (s *simulation) arrive(r *request) {
	switch {
	case s.prefill == nil:
	case s.split(r):
		r.part = partPrompt
	default:
		s.handovers.sum.Whole++
	}
	s.routerOf(r).arrive(r)
}

// started is the first token of what is under way of r.
func (s *simulation) started(r *request) {
	s.routerOf(r).started(r)
	if r.part == partAnswer {
		s.begun(r)
	}
}

// expire is that a request has waited long enough for a worker, in the part in which the
// wait was begun.
func (s *simulation) expire(e *event) {
	if e.stamp == uint32(e.r.part) {
		s.routerOf(e.r).expire(e.r)
	}
}

// split decides whether r is served in two parts, as package node does.
func (s *simulation) split(r *request) bool {
	p := placement.Parts{Mode: s.config.Split}
	if p.Mode == placement.SplitAuto {
		p.Prefill, p.Whole = s.prefill.quote(r, placement.Prefill), s.router.quote(r, placement.Whole)
		switch {
		case p.Prefill.Known && !p.Whole.Known && s.router.assume(s.prefill):
			p.Whole = s.router.quote(r, placement.Whole)
		case p.Whole.Known && !p.Prefill.Known && s.prefill.assume(s.router):
			p.Prefill = s.prefill.quote(r, placement.Prefill)
		}
		p.Decode = s.router.quote(r, placement.Decode)
		p.Handover = s.handovers.learned.Millis(placement.Pair{Prefill: p.Prefill.Worker, Decode: p.Decode.Worker}, p.Decode.New)
	}
	d := placement.DecideSplit(&p)
	r.lacks, r.delay = p.Decode.New, int64(p.Decode.Terms.Wait*float64(time.Millisecond))
	return d.Apart
}

// assume takes workers of which nothing was measured for as fast as one of another router,
// and reports whether there is one.
func (r *router) assume(other *router) bool {
	i := slices.IndexFunc(other.estimates, func(e estimate) bool { return e.Known() })
	if i < 0 {
		return false
	}
	for k := range r.estimates {
		if !r.estimates[k].Known() {
			_ = r.fleet.Touch(k).SetModel(other.estimates[i].Model()) // one that is refused leaves what was there
		}
	}
	return true
}

// quote is what a part of q would cost at the worker that it would go to.
func (r *router) quote(q *request, role placement.Role) placement.Quote {
	if r.queued > 0 {
		return placement.Quote{}
	}
	r.request(q)
	r.asked.Role = role
	d := r.fleet.Decide(r.params, r.asked)
	return d.Quote()
}

// handOver is the word that the prompt of r is computed, and where: the answer goes on
// elsewhere.
func (s *simulation) handOver(r *request) {
	if r.made != 1 {
		s.broken("I2: request %d is handed over with %d tokens, where it has one", r.number, r.made)
	}
	r.before = &before{worker: r.worker, booking: r.booking, handed: s.now}
	r.route = route{excluded: r.excluded[:0]}
	r.worker, r.part, r.base = nil, partAnswer, r.made
	s.handovers.sum.Apart++
	if size := s.config.BlockSize; (r.Input+r.base)%size == 0 { // the first token fills a block
		last := uint64(0)
		if n := len(r.blocks); n > 0 {
			last = uint64(r.blocks[n-1].Hash)
		}
		h := ownBlocks ^ uint64(r.number)<<24 ^ uint64(len(r.blocks))
		r.blocks = append(r.blocks, tokens.Block{Local: dynamo.LocalHash(h), Hash: dynamo.BlockHash(mix(last^h) &^ (1 << 63))})
	}
	s.router.arrive(r)
}

// fallBack has all of r served by the other side, since the prefill side did not.
func (s *simulation) fallBack(r *request) {
	s.handovers.sum.Fallback++
	r.route = route{excluded: r.excluded[:0]}
	r.worker, r.err, r.part = nil, nil, partFallback
	s.router.arrive(r)
}

// goal is how many tokens r has when the part under way is over.
func (r *request) goal() int {
	if r.part == partPrompt {
		return 1
	}
	return r.wanted
}

// begun is the first token of the second part: what the first one keeps is needed no
// more.
func (s *simulation) begun(r *request) {
	pair := placement.Pair{Prefill: r.before.worker.id(), Decode: r.worker.id()}
	s.handovers.learned.Observe(pair, r.lacks, time.Duration(max(s.now-r.before.handed-r.delay, 0)))
	s.handovers.gap.Record(float64(r.second-r.first) / float64(time.Second))
	s.letGo(r)
}

// letGo ends the first part of r at router and worker.
func (s *simulation) letGo(r *request) {
	b := r.before
	if b == nil || b.gone {
		return
	}
	b.gone = true
	s.prefill.free(b.worker, &b.booking)
	s.at(event{at: s.now + int64(s.config.Dispatch), kind: kindLetGo, number: uint64(r.number), r: r})
}

// keeping is KV that is kept for another worker, until a time.
type keeping struct {
	r     *request
	until int64
}

// keep notes that the worker keeps the KV of a request whose prompt it has computed.
func (w *worker) keep(a *sched.Action) {
	r := a.Ref.(*request)
	if a.Tokens != r.Input {
		w.sim.broken("I4: worker %d keeps the KV of %d tokens of request %d, which has %d", w.number, a.Tokens, r.number, r.Input)
	}
	if w.kept == nil {
		w.kept = map[sched.ID]keeping{}
	}
	w.kept[a.ID] = keeping{r, w.sim.now + int64(lease)}
}

// ended is the end of what the worker keeps for another: it was let go, or its time is
// over.
func (w *worker) ended(id sched.ID) {
	k := w.kept[id]
	delete(w.kept, id)
	if k.r.before == nil || !k.r.before.gone && w.sim.now < k.until {
		w.sim.broken("I4: worker %d gives up the KV of request %d, which it has to keep", w.number, k.r.number)
	}
}

// letGo frees what the worker keeps for r.
func (w *worker) letGo(r *request) {
	w.handle(w.s.EndLease(sched.ID(r.number+1), w.sim.moment()))
	w.publish()
	if !w.busy {
		w.turn() // others may have waited for the room
	}
}

// load asks the worker that computed the prompt of a request for its KV.
func (w *worker) load(a *sched.Action) {
	s, r := w.sim, a.Ref.(*request)
	b := r.before
	if b == nil {
		s.broken("I4: worker %d is to load KV for request %d, which is nowhere", w.number, r.number)
		return
	}
	if b.taken || b.worker.kept[a.ID].r != r {
		s.handovers.sum.Lost++
		w.link.fail(w, r)
		return
	}
	b.taken = true
	n := r.Input
	if s.config.TransferMissing {
		n -= a.Start
	}
	size := float64(n) * float64(b.worker.group.bytesPerToken())
	s.handovers.sum.Bytes += size
	w.link.begin(w, r, size)
}

// arrivals tells the scheduler of the KV that was brought, or will not be.
func (w *worker) arrivals() {
	s := w.sim
	for _, t := range w.link.ended {
		id := sched.ID(t.r.number + 1)
		switch b := t.r.before; {
		case t.failed:
			w.handle(w.s.KVFailed(id, s.moment()))
		case b.gone:
			s.broken("I4: the KV of request %d came from worker %d, which has let go of it", t.r.number, b.worker.number)
		case b.worker.kept[id].r != t.r: // its time was over before all of it had come
			s.handovers.sum.Lost++
			w.handle(w.s.KVFailed(id, s.moment()))
		default:
			t.r.present = true
			w.handle(w.s.KVArrived(id, s.moment()))
		}
	}
	clear(w.link.ended)
	w.link.ended = w.link.ended[:0]
	w.publish()
}
