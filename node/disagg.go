package node

import (
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo/disagg"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/router"
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
	c.Wait, c.Model = wait, name
	c.Logger, c.Metrics, c.Tracer = n.cfg.Logger, n.metrics.router, n.tracer
	return router.New(c)
}

// newDisagg puts the two sides of a model together.
func (n *Node) newDisagg(mod *servedModel) (engine.Engine, error) {
	return disagg.New(disagg.Config{
		Prefill: mod.prefill, Decode: mod.router, HasPrefill: mod.sides.hasPrefill, HasDecode: mod.sides.hasOthers,
		Logger: n.cfg.Logger, Metrics: n.metrics.disagg,
	})
}
