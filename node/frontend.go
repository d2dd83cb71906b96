package node

import (
	"context"
	"errors"
	"net"

	"golang.org/x/sync/errgroup"

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
