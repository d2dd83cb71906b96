package node

import (
	"context"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/frontend"
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
	p, err := n.openPlanes()
	if err != nil {
		return err
	}
	defer p.close()
	shelf := &shelf{}
	c := n.cfg.selection()
	c.Registry = n.registry
	c.Addresses = func(id dynamo.WorkerID, epoch uint64) []string { return shelf.fleet.addresses(memberKey{id, epoch}) }
	c.Explain = func(id dynamo.RequestID) (any, bool) { return explain(shelf.fleet.routers(), id) }
	c.State = func() any { return routerState(shelf.fleet.routers()) }
	if shelf.server, err = selection.New(c); err != nil {
		return err
	}
	shelf.fleet = newFleet(n, shelf, p.client, p.bus)
	return n.serveFleet(ctx, shelf.fleet, p.store, shelf.server.Serve)
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
