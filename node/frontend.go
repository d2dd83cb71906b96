package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/router"
)

// runFrontend serves HTTP for the workers that discovery finds.
func (n *Node) runFrontend(ctx context.Context) error {
	store, err := n.openStore()
	if err != nil {
		return err
	}
	defer store.Close()
	key, err := n.clusterKey(store)
	if err != nil {
		return err
	}
	rc := n.rpcConfig(key)
	if rc.TLS, err = n.cfg.Cluster.tlsConfig(); err != nil {
		return err
	}
	client, err := rpc.NewClient(rc)
	if err != nil {
		return err
	}
	bus, err := n.openBus()
	if err != nil {
		return err
	}
	if bus != nil {
		defer bus.Close()
	}
	var f *fleet
	s, err := n.server(key, func() []frontend.Instance { return f.instances() }, func() []*router.Router { return f.routers() })
	if err != nil {
		return err
	}
	f = newFleet(n, s, client, bus)
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
		return s.Serve(ctx, n.cfg.Listener)
	})
	g.Go(func() error { return n.recorder.Run(following) })
	err = n.announce(&hosted{})
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
		w := router.Worker{ID: dynamo.WorkerID(i + 1), Epoch: 1, Engine: h.engine, Card: h.card, MaxRunning: n.cfg.MaxRunning, MaxQueue: n.localQueue()}
		if err := r.Add(w); err != nil {
			return nil, err
		}
		r.SetUp(w.ID, w.Epoch, true)
	}
	e, err := n.newMigrate(r, h.card)
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
