package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/selection"
)

// SelectionConfig says how long and how many reservations RoleRouter keeps.
type SelectionConfig struct {
	// Lease is how long a reservation stays booked after the last call about it.
	// Default 5 minutes. (--reservation-lease)
	Lease time.Duration
	// Reservations is how many are open at once. Default 100,000.
	// (--max-reservations)
	Reservations int
	// RPC is where the service is offered over rpc too, to those who have the cluster
	// key; the node closes it. Nil: over HTTP alone. RPCAddrFile receives the bound
	// address once it is. (--rpc, --rpc-addr-file)
	RPC         net.Listener
	RPCAddrFile string
	// WorkersFile has workers that are known from the start, beside those that discovery
	// finds: on each line a JSON object as POST /workers takes it. Empty: none.
	// (--workers-file)
	WorkersFile string
}

// DefaultSelectionConfig returns the defaults.
func DefaultSelectionConfig() SelectionConfig {
	d := selection.DefaultConfig()
	return SelectionConfig{Lease: d.Lease, Reservations: d.Reservations}
}

// selection is the configuration of the selection service.
func (c *Config) selection() selection.Config {
	return selection.Config{Key: c.APIKey, Lease: c.Selection.Lease, Reservations: c.Selection.Reservations, DrainTimeout: c.DrainTimeout, Logger: c.Logger}
}

// runRouter serves selections among the workers that discovery finds.
func (n *Node) runRouter(ctx context.Context) error {
	if err := removeStale(n.cfg.Selection.RPCAddrFile); err != nil {
		return err
	}
	p, err := n.openPlanes()
	if err != nil {
		return err
	}
	defer p.close()
	shelf := &shelf{}
	c := n.cfg.selection()
	c.Registry = n.registry
	c.Addresses = func(id dynamo.WorkerID, epoch uint64) []string { return shelf.fleet.addresses(memberKey{id, epoch}) }
	routers := func() []*router.Router { return append(shelf.fleet.routers(), shelf.server.Routers()...) }
	c.Explain = func(id dynamo.RequestID) (any, bool) { return explain(routers(), id) }
	c.State = func() any { return routerState(routers()) }
	c.NewRouters = func(model string) (answers, prompts *router.Router, err error) {
		if answers, err = n.newRouter(model); err == nil {
			prompts, err = n.newPrefillRouter(model)
		}
		return answers, prompts, err
	}
	if shelf.server, err = selection.New(c); err != nil {
		return err
	}
	shelf.fleet = newFleet(n, shelf, p.client, p.bus)
	if path := n.cfg.Selection.WorkersFile; path != "" {
		text, err := readBounded(path, maxConfigBytes)
		if err == nil {
			err = shelf.server.AddWorkers(text)
		}
		if err != nil {
			return fmt.Errorf("--workers-file: %s: %w", path, err)
		}
	}
	return n.serveFleet(ctx, shelf.fleet, p.store, func(ctx context.Context, l net.Listener) error {
		return n.serveSelections(ctx, shelf.server, p.key, l)
	})
}

// serveSelections serves the selection service over all its transports until ctx ends,
// or one of them does.
func (n *Node) serveSelections(ctx context.Context, s *selection.Server, key []byte, l net.Listener) error {
	if n.cfg.Selection.RPC == nil {
		return s.Serve(ctx, l)
	}
	sc := rpc.ServerConfig{Config: n.rpcConfig(key)}
	var err error
	if sc.TLS, err = n.cfg.Cluster.tlsConfig(); err != nil {
		return errors.Join(err, l.Close())
	}
	if path := n.cfg.Selection.RPCAddrFile; path != "" {
		if err := writeAddrFile(path, n.cfg.Selection.RPC.Addr().String()); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Serve(ctx, l) })
	g.Go(func() error { return s.ServeRPC(ctx, sc, n.cfg.Selection.RPC) })
	return g.Wait()
}

// AskRouter calls a method of the selection service that is offered over rpc at address,
// HOST:PORT, with a JSON object, and returns the JSON of the answer.
func (v *Cluster) AskRouter(ctx context.Context, address, method string, message []byte) (answer []byte, err error) {
	err = v.reach(ctx, rpc.PeerConfig{Addresses: []string{"tcp://" + address}}, func(ctx context.Context, p *rpc.Peer) (err error) {
		answer, err = selection.NewClient(p).Call(ctx, method, message)
		return err
	})
	return answer, err
}

// shelf puts the fleet's models into a selection service: of each its routers and what
// turns text into ids. Nobody is asked to generate.
type shelf struct {
	fleet  *fleet
	server *selection.Server
}

var _ modelServer = (*shelf)(nil)

// AddModel implements modelServer.
func (s *shelf) AddModel(m *frontend.Model) error {
	s.fleet.mu.Lock()
	mod := s.fleet.mu.models[m.Card.Model]
	s.fleet.mu.Unlock()
	if mod == nil {
		return nil // its grace has ended meanwhile
	}
	s.server.AddModel(&selection.Model{
		Name: m.Card.Model, Router: mod.router, Prefill: mod.prefill, ContextLength: m.Card.ContextLength, Adapters: slices.Clone(m.Card.Adapters),
		Tokenizer: m.Tokenizer, Template: m.Template, Vars: m.Vars,
	})
	return nil
}

// RemoveModel implements modelServer.
func (s *shelf) RemoveModel(name string) { s.server.RemoveModel(name) }

// SetAdapters implements modelServer.
func (s *shelf) SetAdapters(name string, adapters []string) { s.server.SetAdapters(name, adapters) }

// addresses are where a worker is reached, as discovery has them.
func (f *fleet) addresses(k memberKey) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m := f.mu.members[k]; m != nil {
		return slices.Clone(m.instance.Addresses)
	}
	return nil
}
