package node

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/disagg"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/router/placement"
)

// A model has two routers: one over its prefill workers, one over all others. Above
// them package disagg has prompts computed on the one side and answers go on at the
// other, as long as there are workers on both.

// sides counts the workers of a model that could take a request.
type sides struct{ prefill, others atomic.Int32 }

func (s *sides) hasPrefill() bool { return s.prefill.Load() > 0 }
func (s *sides) hasOthers() bool  { return s.others.Load() > 0 }

// routerOf is the router that has m, or will have it.
func (mod *servedModel) routerOf(m *member) *router.Router {
	if m.prefill {
		return mod.prefill
	}
	return mod.router
}

// recountLocked notes which sides of m's model have somebody, after a change of m.
func (f *fleet) recountLocked(mod *servedModel) {
	if mod == nil {
		return
	}
	var prefill, others int32
	for _, m := range f.mu.members {
		switch {
		case m.model != mod || !m.up || m.instance.Draining || m.load.Down:
		case m.prefill:
			prefill++
		default:
			others++
		}
	}
	mod.sides.prefill.Store(prefill)
	mod.sides.others.Store(others)
}

// newPrefillRouter makes the router over the prefill workers of a model. Where they
// are full or gone a request is soon better off without them.
func (n *Node) newPrefillRouter(name string) (*router.Router, error) {
	return n.newPatientRouter(name, min(prefillWait, n.cfg.Cluster.WorkerWait))
}

// newPatientRouter makes a router where requests wait that long for a worker.
func (n *Node) newPatientRouter(name string, wait time.Duration) (*router.Router, error) {
	c := n.cfg.Cluster.Routing.router()
	c.Wait, c.Model, c.Restored = wait, name, n.restored
	c.Logger, c.Metrics, c.Tracer = n.cfg.Logger, n.metrics.router, n.tracer
	return router.New(c)
}

// splitter decides for the requests of a model whether their prompts are computed apart. It
// asks the routers of the two sides, and books nothing.
type splitter struct {
	mode            placement.SplitMode
	prefill, others *router.Router
	mu              struct {
		sync.Mutex
		handovers placement.HandoverTimes
	}
}

// moving is what a request's context has while it is served in two parts.
type moving struct {
	tokens int           // whose KV the decode side lacks
	wait   time.Duration // that it would have had there in any case
	trip   engine.Trip
}

type movingKey struct{}

// split implements disagg.Config.Split.
func (s *splitter) split(ctx context.Context, r *dynamo.Request) (context.Context, bool) {
	p := placement.Parts{Mode: s.mode}
	if r.Routing != nil {
		p.Asked = r.Routing.Mode
	}
	if p.Mode == placement.SplitAuto && p.Asked == dynamo.RoutingAny {
		s.quote(&p, r)
	}
	d := placement.DecideSplit(&p)
	ctx = router.WithSplit(ctx, d)
	if d.Apart && (d.Reason == placement.SplitByCost || d.Reason == placement.SplitUnknown) {
		m := &moving{tokens: p.Decode.New, wait: time.Duration(p.Decode.Terms.Wait * float64(time.Millisecond))}
		ctx = context.WithValue(engine.WithTrip(ctx, &m.trip), movingKey{}, m)
	}
	return ctx, d.Apart
}

// quote asks the two sides. One of which nothing was measured yet is taken to be as fast as
// the other.
func (s *splitter) quote(p *placement.Parts, r *dynamo.Request) {
	prompt := disagg.PromptOf(r)
	p.Prefill, p.Whole = s.prefill.Quote(prompt, placement.Prefill), s.others.Quote(r, placement.Whole)
	if p.Prefill.Known != p.Whole.Known && p.Prefill.Found && p.Whole.Found {
		if p.Prefill.Known {
			assume(s.others, s.prefill)
			p.Whole = s.others.Quote(r, placement.Whole)
		} else {
			assume(s.prefill, s.others)
			p.Prefill = s.prefill.Quote(prompt, placement.Prefill)
		}
	}
	p.Decode = s.others.Quote(r, placement.Decode)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.Handover = s.mu.handovers.Millis(placement.Pair{Prefill: p.Prefill.Worker, Decode: p.Decode.Worker}, p.Decode.New)
}

// assume has those workers of r that are not known taken for as fast as others are.
func assume(r, others *router.Router) {
	if model, ok := others.Measured(); ok {
		r.Assume(model)
	}
}

// moved implements disagg.Config.Moved.
func (s *splitter) moved(ctx context.Context, took time.Duration) {
	m, ok := ctx.Value(movingKey{}).(*moving)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.handovers.Observe(placement.Pair{Prefill: m.trip.Prefill.Worker, Decode: m.trip.Decode.Worker}, m.tokens, max(took-m.wait, 0))
}

// newDisagg puts the two sides of a model together.
func (n *Node) newDisagg(mod *servedModel) (engine.Engine, error) {
	mode, err := placement.ParseSplitMode(n.cfg.Cluster.Routing.Split)
	if err != nil {
		return nil, err
	}
	if mod.splitter == nil {
		mod.splitter = &splitter{mode: mode, prefill: mod.prefill, others: mod.router}
	}
	return disagg.New(disagg.Config{
		Prefill: mod.prefill, Decode: mod.router, HasPrefill: mod.sides.hasPrefill, HasDecode: mod.sides.hasOthers,
		Split: mod.splitter.split, Moved: mod.splitter.moved, Logger: n.cfg.Logger, Metrics: n.metrics.disagg,
	})
}
