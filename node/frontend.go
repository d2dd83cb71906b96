package node

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event/nats"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/router"
)

// runFrontend serves HTTP for the workers that discovery finds.
func (n *Node) runFrontend(ctx context.Context) error {
	p, err := n.openPlanes()
	if err != nil {
		return err
	}
	defer p.close()
	var f *fleet
	s, err := n.server(p.key, func() []frontend.Instance { return f.instances() }, func() []*router.Router { return f.routers() })
	if err != nil {
		return err
	}
	f = newFleet(n, s, p.client, p.bus)
	if n.cfg.Cluster.Routers != nil {
		n.cfg.Cluster.Routers(f.routers)
	}
	return n.serveFleet(ctx, f, p.store, s.Serve)
}

// planes are what a role without engines reaches the workers by.
type planes struct {
	store  discovery.Store
	key    []byte
	client *rpc.Client
	bus    *nats.Bus // nil: events come over the request connections
}

// openPlanes opens the store, the request plane and the event plane.
func (n *Node) openPlanes() (*planes, error) {
	store, err := n.openStore()
	if err != nil {
		return nil, err
	}
	p := &planes{store: store}
	if p.key, err = n.clusterKey(store); err == nil {
		rc := n.rpcConfig(p.key)
		if rc.TLS, err = n.cfg.Cluster.tlsConfig(); err == nil {
			p.client, err = rpc.NewClient(rc)
		}
	}
	if err == nil {
		p.bus, err = n.openBus()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *planes) close() {
	if p.bus != nil {
		p.bus.Close()
	}
	_ = p.store.Close() // the process is done with it either way
}

// serveFleet follows the workers and serves HTTP by serve, until ctx ends.
func (n *Node) serveFleet(ctx context.Context, f *fleet, store discovery.Store, serve func(context.Context, net.Listener) error) error {
	// The workers' connections outlive the HTTP server, whose answers come over
	// them.
	following, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	var g errgroup.Group
	g.Go(func() error {
		f.follow(following, store)
		return nil
	})
	g.Go(func() error {
		defer stop(errStopping)
		return serve(ctx, n.cfg.Listener)
	})
	g.Go(func() error { return n.recorder.Run(following) })
	err := n.announce(&hosted{})
	if err != nil {
		stop(err)
		err = errors.Join(err, n.cfg.Listener.Close())
	}
	err = errors.Join(err, g.Wait())
	n.log.Info("stopped")
	return err
}

// newRouter makes the router of one model.
func (n *Node) newRouter(name string) (*router.Router, error) {
	return n.newPatientRouter(name, n.cfg.Cluster.WorkerWait)
}

// newMigrate puts migration above a router.
func (n *Node) newMigrate(next engine.Engine, card engine.Card) (engine.Engine, error) {
	c := engine.DefaultMigrateConfig()
	c.Card = card
	c.Limit, c.StallTimeout = n.cfg.Cluster.MigrationLimit, n.cfg.Cluster.StallTimeout
	c.Logger, c.Metrics = n.cfg.Logger, n.metrics.migrate
	return engine.NewMigrate(next, c)
}

// addLocal serves the engines of this process under one name.
func (n *Node) addLocal(s *frontend.Server, all []*hosted) (*router.Router, error) {
	h := all[0]
	r, err := n.newRouter(h.card.Model)
	if err != nil {
		return nil, err
	}
	for i, h := range all {
		w := router.Worker{ID: dynamo.WorkerID(i + 1), Epoch: 1, Engine: h.engine, Card: h.card, MaxRunning: n.cfg.MaxRunning, MaxQueue: n.localQueue(), StepTokens: h.stepTokens}
		if err := r.Add(w); err != nil {
			return nil, err
		}
		r.SetUp(w.ID, w.Epoch, true)
	}
	e, err := n.newMigrate(sharing{r}, h.card)
	if err != nil {
		return nil, err
	}
	card := h.card
	card.Adapters = localAdapters(all)
	return r, s.AddModel(&frontend.Model{
		Card: card, Engine: e, Tokenizer: h.meta.tokenizer, Template: h.meta.template,
		Vars: templateVars(h.meta.special), Defaults: samplingDefaults(h.meta.sampling.advised(n.cfg.Sampling)), Created: time.Now(),
	})
}

// localInstances lists the engines of this process for /health.
func localInstances(all []*hosted) []frontend.Instance {
	list := make([]frontend.Instance, 0, len(all))
	for i, h := range all {
		in := frontend.Instance{Namespace: "dynamo", Component: "backend", Endpoint: "generate", ID: dynamo.WorkerID(i + 1), Address: "in-process", Model: h.card.Model, State: "ready"}
		if h.load != nil {
			in.Load = h.load()
		}
		list = append(list, in)
	}
	return slices.Clip(list)
}
