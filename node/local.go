package node

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/transfer"
)

// local is what serves in the process of its frontend: engines under one name. Those that
// compute prompts for others come last, so that the first one stands for them all.
type local struct {
	all []*hosted
	mod *servedModel // its routers and sides alone; nil before it is served
}

// validateParts finds faults in who of the engines of a process does what.
func (c *Config) validateParts() error {
	switch {
	case c.Prefill == 0 && c.Decode == 0:
		return nil
	case c.Prefill < 0 || c.Decode < 0 || c.Prefill+c.Decode > c.Engines || c.Prefill == c.Engines:
		return fmt.Errorf("--prefill is %d and --decode %d, of %d engines; somebody has to go on with the answers", c.Prefill, c.Decode, c.Engines)
	case c.Engine != EngineNative && c.Engine != EngineMocker:
		return fmt.Errorf("--prefill and --decode with --in-process are for --engine native and mocker, this one is %s; leave --in-process out", c.Engine)
	}
	return nil
}

// resident is the node that hosts engine i: its part, and where there are engines that hand
// KV over, how it reaches the others, which is by copying.
func (n *Node) resident(i int, process *transfer.Process, key []byte) *Node {
	own := *n.attached(i)
	switch whole := n.cfg.Engines - n.cfg.Prefill - n.cfg.Decode; {
	case i >= n.cfg.Engines-n.cfg.Prefill:
		own.cfg.Worker.Role = engine.RolePrefill
	case i >= whole:
		own.cfg.Worker.Role = engine.RoleDecode
	}
	if n.cfg.Prefill > 0 {
		own.cfg.Worker.KVTransfer = KVTransferConfig{Path: TransferAuto, Process: process}
		own.peering = &peering{key: key, name: fmt.Sprintf("engine %d", i+1)}
	}
	return &own
}

// newProcess returns what the engines of this process have in common to move KV, and a key
// that nobody else has.
func newProcess() (*transfer.Process, []byte) {
	key := make([]byte, transfer.MinKeyBytes)
	_, _ = rand.Read(key) // it never fails
	return transfer.NewProcess(), key
}

// routers lists those of the model, the one that answers come from first.
func (l *local) routers() []*router.Router {
	switch {
	case l.mod == nil:
		return nil
	case l.mod.sides.hasPrefill():
		return []*router.Router{l.mod.router, l.mod.prefill}
	}
	return []*router.Router{l.mod.router}
}

// routerOf is the router that has an engine.
func (l *local) routerOf(h *hosted) *router.Router {
	if h.card.Role == engine.RolePrefill {
		return l.mod.prefill
	}
	return l.mod.router
}

// route makes the routers and gives them the engines.
func (n *Node) route(l *local) (err error) {
	mod := &servedModel{name: l.all[0].card.Model}
	if mod.router, err = n.newRouter(mod.name); err != nil {
		return err
	}
	if mod.prefill, err = n.newPrefillRouter(mod.name); err != nil {
		return err
	}
	l.mod = mod
	for i, h := range l.all {
		r := l.routerOf(h)
		w := router.Worker{ID: dynamo.WorkerID(i + 1), Epoch: 1, Engine: h.engine, Card: h.card, MaxRunning: n.cfg.MaxRunning, MaxQueue: n.localQueue(), StepTokens: h.stepTokens}
		if err := r.Add(w); err != nil {
			return err
		}
		r.SetUp(w.ID, w.Epoch, true)
		if r == mod.prefill {
			mod.sides.prefill.Add(1)
		} else {
			mod.sides.others.Add(1)
		}
	}
	return nil
}

// addLocal serves the engines of this process under one name.
func (n *Node) addLocal(s *frontend.Server, l *local) error {
	if err := n.route(l); err != nil {
		return err
	}
	h := l.all[0]
	card := h.card
	card.Adapters, card.Role = localAdapters(l.all), ""
	next := engine.Engine(l.mod.router)
	if l.mod.sides.hasPrefill() {
		both, err := n.newDisagg(l.mod)
		if err != nil {
			return err
		}
		next = both
	} else {
		next = sharing{next}
	}
	e, err := n.newMigrate(next, card)
	if err != nil {
		return err
	}
	return s.AddModel(&frontend.Model{
		Card: card, Engine: e, Tokenizer: h.meta.tokenizer, Template: h.meta.template,
		Vars: templateVars(h.meta.special), Defaults: samplingDefaults(h.meta.sampling.advised(n.cfg.Sampling)), Created: time.Now(),
	})
}

// instances lists the engines for /health.
func (l *local) instances() []frontend.Instance {
	list := make([]frontend.Instance, 0, len(l.all))
	for i, h := range l.all {
		in := frontend.Instance{Namespace: "dynamo", Component: "backend", Endpoint: "generate", ID: dynamo.WorkerID(i + 1), Address: "in-process", Model: h.card.Model, State: "ready"}
		if h.load != nil {
			in.Load = h.load()
		}
		list = append(list, in)
	}
	return slices.Clip(list)
}
