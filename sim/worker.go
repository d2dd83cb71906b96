package sim

import (
	"fmt"
	"math"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/tokens"
)

// request is one request of the trace on its way.
type request struct {
	trace.Request
	number int
	due    int64 // when it is sent
	waits  int   // requests it waits for
	waited bool
	after  int64 // the latest end of those that it waited for
	turn   *turn // nil if nobody waits for it

	blocks []tokens.Block
	hashes []dynamo.BlockHash
	told   int // how many of them, from the first, the index is told of and asked for
	route
	worker *worker

	wanted, made, cached int
	first, last          int64 // when the first and the last token were made

	part    part
	base    int     // tokens of the parts before
	before  *before // of the part under way; nil for a first one
	present bool    // its KV came from the worker of the part before
	second  int64   // when its second token was made, in two parts
	lacks   int     // tokens whose KV the second worker was thought to lack
	delay   int64   // ns for which it was thought to wait there
	err     error
}

// worker is an engine under the virtual clock: the loop of engine/loop as a state
// machine.
type worker struct {
	sim    *simulation
	number int
	router *router // whose member it is, and which of them
	seat   int
	group  *Group
	model  perfmodel.Model
	s      *sched.Scheduler

	inbox   []*request
	busy    bool   // a step, or a stretch, is under way
	stamp   uint32 // of the event that ends it
	begun   int64
	batch   perfmodel.Batch
	results []sched.Result
	flight  *sched.Batch // nil in a stretch
	ahead   int          // steps of the stretch that are under way
	steps   int          // for Config.Check

	kept map[sched.ID]keeping // whose KV is kept for other workers
	link link                 // over which KV comes

	pending []change // KV events on their way to the index; those before taken are there
	taken   int
	shadow  *shadow // nil without Config.Check
}

// id is what routers call the worker.
func (w *worker) id() dynamo.WorkerID { return dynamo.WorkerID(w.number + 1) }

func newWorker(s *simulation, number int, g *Group) (*worker, error) {
	scheduler, err := sched.New(s.config.scheduler(g))
	if err != nil {
		return nil, err
	}
	w := &worker{sim: s, number: number, group: g, model: s.config.model(g), s: scheduler}
	if s.config.Check && s.config.events() {
		w.shadow = &shadow{parent: map[dynamo.BlockHash]dynamo.BlockHash{}}
	}
	return w, nil
}

// deliver takes a request in. One under way computes until its step is over.
func (w *worker) deliver(r *request) {
	w.inbox = append(w.inbox, r)
	switch {
	case !w.busy:
		w.turn()
	case w.flight == nil:
		w.cut()
	}
}

// turn takes in what has come and begins a step, or a stretch of them. None is under
// way.
func (w *worker) turn() {
	for _, r := range w.inbox {
		w.submit(r)
	}
	clear(w.inbox)
	w.inbox = w.inbox[:0]
	if len(w.link.ended) > 0 {
		w.arrivals()
	}
	if !w.sim.config.Stepwise && w.stretch() {
		return
	}
	batch, actions := w.s.Next(w.sim.moment())
	w.handle(actions)
	if len(actions) > 0 {
		w.publish()
	}
	w.busy, w.flight = batch != nil, batch
	if batch == nil {
		return
	}
	w.begun = w.sim.now
	w.shape(batch)
	w.until(w.begun + w.duration())
}

// submit gives a request to the scheduler, which may refuse it.
func (w *worker) submit(r *request) {
	q := sched.Request{
		ID: sched.ID(r.number + 1), Ref: r, Length: r.Input + r.base, Blocks: r.blocks, Key: uint64(r.number+1) << 20, MaxTokens: r.goal() - r.base, Priority: r.Priority,
	}
	switch {
	case r.part == partAnswer:
		q.External = r.Input
	case r.part == partPrompt && r.wanted > 1:
		q.Hold = lease
	}
	if err := w.s.Submit(q, w.sim.moment()); err != nil {
		r.err = err
		w.sim.at(event{at: w.sim.now + w.sim.back, kind: kindEnded, number: uint64(r.number), r: r})
	}
}

// until makes the step under way end at a time.
func (w *worker) until(at int64) {
	w.stamp++
	w.sim.at(event{at: at, kind: kindStep, stamp: w.stamp, number: uint64(w.number)})
}

// shape describes a batch to the model of time, as the mocker does.
func (w *worker) shape(b *sched.Batch) {
	m := &w.batch
	m.Chunks, m.Decodes, m.KVTokens = m.Chunks[:0], 0, 0
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Count == 1 && e.Sample && (e.Output > 0 || e.Ref.(*request).present) {
			m.Decodes++
			m.KVTokens += e.Start + 1
			continue
		}
		m.Chunks = append(m.Chunks, perfmodel.Chunk{New: e.Count, Context: e.Start})
	}
}

// duration is how long the batch takes, in nanoseconds.
func (w *worker) duration() int64 {
	x := min(w.model.StepSeconds(&w.batch)*float64(time.Second), float64(maxStep))
	n := int64(x)
	if x-float64(n) >= 0.5 { // math.Round, without the call
		n++
	}
	return n
}

// stretch begins a stretch of steps, or its next part, and reports whether there is
// one.
func (w *worker) stretch() bool {
	n, kv, ok := w.s.Stretch()
	if !ok {
		return false
	}
	m := &w.batch
	m.Chunks, m.Decodes, m.KVTokens = m.Chunks[:0], n, kv
	w.busy, w.flight = true, nil
	w.hop()
	return true
}

// hop sets out for the next step of the stretch that can be seen from outside. It
// reports false when the stretch is over.
func (w *worker) hop() bool {
	w.ahead = w.s.Ahead()
	if w.ahead == 0 {
		return false
	}
	w.begun = w.sim.now
	_, end := w.walk(w.ahead, math.MaxInt64)
	w.until(end)
	return true
}

// walk adds the times of steps of the stretch up, from the last that has been made,
// until so many are done or one ends at or after a time.
func (w *worker) walk(most int, until int64) (steps int, end int64) {
	kv := w.batch.KVTokens
	for end = w.begun; steps < most && (steps == 0 || end < until); steps++ {
		end += w.duration()
		w.batch.KVTokens += w.batch.Decodes
	}
	w.batch.KVTokens = kv
	return steps, end
}

// cut ends the stretch at the end of the step that is under way.
func (w *worker) cut() {
	steps, end := w.walk(w.ahead, w.sim.now)
	if steps < w.ahead {
		w.ahead = steps
		w.until(end)
	}
}

// step is the end of a step or of a part of a stretch.
func (w *worker) step() {
	if w.flight == nil {
		w.skip()
		if len(w.inbox) > 0 || !w.hop() {
			w.turn()
		}
		return
	}
	w.done()
	w.turn()
}

// skip accounts for the steps that are over.
func (w *worker) skip() {
	s := w.sim
	for _, ref := range w.s.Skip(w.ahead) {
		w.router.grown(ref.(*request))
	}
	s.meter.made(w)
	w.batch.KVTokens += w.ahead * w.batch.Decodes
	w.count(w.ahead)
	w.publish()
}

// done accounts for a step that is over.
func (w *worker) done() {
	s, b, size := w.sim, w.flight, w.sim.config.BlockSize
	for len(w.results) < len(b.Entries) {
		w.results = append(w.results, sched.Result{})
	}
	made := 0
	for i := range b.Entries {
		e := &b.Entries[i]
		r := e.Ref.(*request)
		if e.Sample {
			made++
			w.token(r, e.Output)
		}
		if e.Output > 0 && e.Count == 1 && (e.Start+1)%size == 0 {
			w.router.grown(r)
		}
	}
	s.meter.add(s.now, made)
	w.flight = nil
	w.handle(w.s.Done(w.results[:len(b.Entries)], s.moment()))
	w.count(1)
	w.publish()
}

// token notes output number n of r.
func (w *worker) token(r *request, n int) {
	s := w.sim
	n += r.base
	if n < r.made || s.config.Stepwise && n != r.made {
		s.broken("I2: request %d has %d tokens, and %d comes next", r.number, r.made, n)
	}
	if r.made == r.base {
		if r.base == 0 {
			r.first = s.now
		} else {
			r.second = s.now
		}
		s.at(event{at: s.now + s.back, kind: kindStarted, number: uint64(r.number), r: r})
	}
	r.made, r.last = n+1, s.now
}

// handle acts on what the scheduler decided.
func (w *worker) handle(actions []sched.Action) {
	s := w.sim
	for i := range actions {
		a := &actions[i]
		switch a.Kind {
		case sched.Admitted:
			if r := a.Ref.(*request); !a.Again {
				if r.found = a.Cached; r.part != partAnswer {
					r.cached = a.Cached
				}
			}
		case sched.Preempted:
			s.preemptions++
		case sched.Ended:
			r := a.Ref.(*request)
			if a.Reason != sched.ReasonFinished || r.made != r.goal() {
				s.broken("I1: request %d ended (%v) with %d tokens of %d", r.number, a.Reason, r.made, r.goal())
			}
			ended := kindEnded
			if r.made < r.wanted {
				ended = kindHanded
			}
			s.at(event{at: s.now + s.back, kind: ended, number: uint64(r.number), r: r})
		case sched.Load:
			w.load(a)
		case sched.Leased:
			w.keep(a)
		case sched.LeaseEnded:
			w.ended(a.ID)
		}
	}
}

// count counts steps, and looks at the whole worker now and then if that is wanted.
func (w *worker) count(steps int) {
	w.steps += steps
	if w.sim.config.Check && w.steps >= checkEvery {
		w.steps = 0
		w.check()
	}
}

func (w *worker) check() {
	if err := w.s.Check(); err != nil {
		w.sim.broken("worker %d: %v", w.number, err)
	}
}

// broken ends the run: an invariant does not hold.
func (s *simulation) broken(format string, args ...any) {
	if s.fault == nil {
		s.fault = fmt.Errorf("after %v: "+format, append([]any{time.Duration(s.now)}, args...)...)
	}
}
