package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/tokens"
)

// epoch is the moment at which the virtual clock begins.
var epoch = time.Unix(1, 0)

// simulation is a run under way.
type simulation struct {
	config  Config
	now     int64 // ns since the start
	back    int64 // Config.Return
	events  queue
	plan    *plan
	router  *router
	prefill *router // of the prefill workers; nil without any
	workers []*worker
	meter   *meter
	fault   error // of an invariant
	room    int   // tokens of the longest sequence that every worker takes

	spare       []*request
	changes     []change
	preemptions uint64

	handovers handovers

	selective bool       // the index is told of marked blocks alone
	foresight *foresight // nil takes all for shared
}

// Run plays the trace and returns what came of it. It ends early, with the cause, when
// ctx does.
func Run(ctx context.Context, c Config) (*Result, error) {
	s, err := newSimulation(c)
	if err != nil {
		return nil, err
	}
	defer s.plan.stop()
	if s.selective && c.Again && s.router.index != nil {
		if s.foresight, err = foresee(ctx, &s.config, maxHeld+16*c.blocks()); err != nil {
			return nil, err
		}
	}
	if err := s.play(ctx); err != nil {
		return nil, err
	}
	return s.close()
}

func newSimulation(c Config) (*simulation, error) {
	if err := c.Validate(); err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: err.Error()}
	}
	s := &simulation{config: c, back: int64(c.Return), room: 1 << 62, selective: c.selective()}
	s.meter = newMeter(&s.config)
	var err error
	if s.router, err = newRouter(s, s.config.Wait); err != nil {
		return nil, err
	}
	if s.config.disaggregated() {
		if s.prefill, err = newRouter(s, min(s.config.Wait, prefillWait)); err != nil {
			return nil, err
		}
	}
	for i := range s.config.Fleet {
		g := &s.config.Fleet[i]
		s.room = min(s.room, s.config.scheduler(g).MaxContext)
		for range g.Count {
			w, err := newWorker(s, len(s.workers), g)
			if err != nil {
				return nil, fmt.Errorf("make worker %d: %w", len(s.workers), err)
			}
			s.workers = append(s.workers, w)
			if g.Role == placement.Prefill {
				s.prefill.join(w)
			} else {
				s.router.join(w)
			}
		}
	}
	s.plan = newPlan(&s.config, s.trace, s.unused)
	return s, nil
}

// trace yields what is played.
func (s *simulation) trace(yield func(trace.Request, error) bool) {
	if f := s.foresight; f != nil && f.held != nil {
		f.trace(yield)
		return
	}
	s.config.Trace(yield)
}

// close checks what holds in the end, and sums the run up.
func (s *simulation) close() (*Result, error) {
	switch {
	case s.plan.err != nil:
		return nil, s.plan.err
	case s.meter.started == 0:
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the trace has no requests; give one that has"}
	case s.fault == nil:
		s.quiet()
	}
	if s.fault != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInternal, Message: "the simulation breaks an invariant: " + s.fault.Error(), Err: s.fault}
	}
	return s.result(), nil
}

// play takes events until there are none, or an invariant is broken.
func (s *simulation) play(ctx context.Context) error {
	for n := 0; s.fault == nil; n++ {
		if n&0xfff == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.send()
		if len(s.events) == 0 {
			return nil
		}
		e := s.events.pop()
		if e.at < s.now {
			panic("BUG: sim: time goes backwards")
		}
		s.now = e.at
		s.take(&e)
	}
	return nil
}

// send sends the requests that are due before anything else happens.
func (s *simulation) send() {
	for {
		due, ok := s.plan.peek()
		if !ok || len(s.events) > 0 && due > s.events[0].at {
			return
		}
		r := s.plan.pop()
		s.prepare(r)
		s.meter.sent(due)
		s.at(event{at: due + int64(s.config.Ingress), kind: kindDecide, number: uint64(r.number), r: r})
	}
}

// take lets an event happen.
func (s *simulation) take(e *event) {
	switch e.kind {
	case kindIndex:
		s.workers[e.number].apply()
	case kindStarted:
		s.started(e.r)
	case kindHanded:
		s.handOver(e.r)
	case kindEnded:
		s.end(e.r)
	case kindExpire:
		s.expire(e)
	case kindDecide:
		s.arrive(e.r)
	case kindDeliver:
		e.r.worker.deliver(e.r)
	case kindLetGo:
		e.r.before.worker.letGo(e.r)
	case kindArrived:
		if w := s.workers[e.number]; w.link.stamp == e.stamp {
			w.arrived()
		}
	case kindStep:
		if w := s.workers[e.number]; w.stamp == e.stamp {
			w.step()
		}
	}
}

// at makes an event due.
func (s *simulation) at(e event) { s.events.push(e) }

// end is the end of a request for router and client.
func (s *simulation) end(r *request) {
	router := s.routerOf(r)
	if r.err != nil && router.retry(r) {
		return
	}
	router.release(r)
	if r.part != partWhole {
		if r.part == partPrompt && r.err != nil {
			s.fallBack(r)
			return
		}
		s.letGo(r)
	}
	s.meter.finish(r, s.now)
	s.plan.end(r, s.now)
	s.release(r)
}

// prepare makes the blocks of a request, as workers and index name them.
func (s *simulation) prepare(r *request) {
	size := s.config.BlockSize
	full, shared := r.Input/size, s.foresight.tokens(&r.Request)/size
	r.Request = r.Reblock(size)
	if r.told = full; s.selective {
		r.told = min(full, shared, len(r.Hashes))
	}
	r.blocks, r.hashes = r.blocks[:0], r.hashes[:0]
	before := uint64(0)
	for i := range full {
		h := ownBlocks ^ uint64(r.number)<<24 ^ uint64(i)
		if i < len(r.Hashes) {
			h = r.Hashes[i]
		}
		// A trace's hashes should be chained ones. Those that are not are made such here:
		// a pool of hashes takes it that what is before a block is the same for equal ones.
		if before = mix(before ^ h); i < r.told {
			before |= mark
		} else if before >= mark {
			before &^= 1 << 63
		}
		r.blocks = append(r.blocks, tokens.Block{Local: dynamo.LocalHash(h), Hash: dynamo.BlockHash(before)})
		r.hashes = append(r.hashes, dynamo.BlockHash(before))
	}
	r.wanted = max(1, min(r.Output, s.room-r.Input))
}

// mark is in the hashes of blocks that the index is told of; of others' it is in one of
// 64 answers', which does no harm.
const mark = 0x3f << 58

// ownBlocks sets the blocks of a prompt apart that the trace says nothing of.
const ownBlocks = 0x6f776e20626c6f63

// unused returns a request without anything in it.
func (s *simulation) unused() *request {
	if last := len(s.spare) - 1; last >= 0 {
		r := s.spare[last]
		s.spare = s.spare[:last]
		return r
	}
	return new(request)
}

// release keeps the memory of a request that has ended for another. One that has an
// expiry to come, or is known to workers of two parts, is left alone.
func (s *simulation) release(r *request) {
	if r.expiring || r.part != partWhole {
		return
	}
	*r = request{blocks: r.blocks[:0], hashes: r.hashes[:0], route: route{excluded: r.excluded[:0]}}
	s.spare = append(s.spare, r)
}
