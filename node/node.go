// Package node turns a Config into a running process: it loads the model, its
// tokenizer and its chat template, puts the engine behind the HTTP frontend,
// and starts and stops them in order. cmd runs one per process; tests may run
// many.
//
// It owns no decision of its own: what to load is the model's business, what to
// answer the frontend's, what to compute the engine's.
//
// Laws:
//   - New checks, Run does: it loads, serves, and returns when everything it
//     started has ended.
//   - Start: weights and tokenizer are loaded at the same time; then the engine
//     runs; then requests are served; then Ready is called.
//   - Stop, when Run's context is cancelled: the frontend refuses new requests;
//     those in progress end, or are cancelled after DrainTimeout; the engine
//     stops; memory is released. A drain that ran out of time is no error.
//   - Goroutines, each ended before Run returns: one that serves HTTP, one that
//     runs the engine's loop, one that reads the tokenizer while weights load.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/obs"
)

// Node is one serving process.
type Node struct {
	cfg Config
	log *slog.Logger
}

// Ready says what is being served.
type Ready struct {
	// Addr is the bound address, host and port.
	Addr string
	// Card is the engine's.
	Card engine.Card
	// WeightBytes and KVBytes are what the model and its KV cache may use.
	WeightBytes, KVBytes int64
	// Threads compute with kernels of Level; zero and empty without a native
	// engine.
	Threads int
	Level   string
}

// Describe sums r up in a few words.
func (r *Ready) Describe() string {
	s := r.Card.Engine + " engine"
	if r.Level != "" {
		s += fmt.Sprintf(", %s on %s, %d threads, weights %s, KV cache %s", r.Card.NumericClass, r.Level, r.Threads, size(r.WeightBytes), size(r.KVBytes))
	}
	return s + fmt.Sprintf(", context %d", r.Card.ContextLength)
}

// New checks the configuration; it loads and starts nothing.
func New(c Config) (*Node, error) {
	err := c.Validate()
	if c.Listener == nil || c.ModelPath == "" || c.ModelName == "" {
		err = errors.Join(err, errors.New("a node needs a listener, a model's path and a name for it"))
	}
	if err != nil {
		return nil, err
	}
	return &Node{cfg: c, log: obs.For(c.Logger, "node")}, nil
}

// Run loads the model, serves until ctx is cancelled, drains and stops. It
// returns nil after a drain, in time or not, and otherwise why it could not
// serve. It is called once.
func (n *Node) Run(ctx context.Context) error {
	defer n.cfg.Listener.Close() // a second close of a served listener does nothing
	if err := removeStale(n.cfg.AddrFile); err != nil {
		return err
	}
	h, err := n.host(ctx)
	if err != nil {
		return err
	}
	err = n.serve(ctx, h)
	if h.close != nil {
		err = errors.Join(err, h.close())
	}
	return err
}

// serve runs the engine and the frontend over it, and ends both.
func (n *Node) serve(ctx context.Context, h *hosted) error {
	s, err := n.frontend(h)
	if err != nil {
		return err
	}
	// The engine ends after the frontend, whose requests need it to the last;
	// if it ends before, the frontend has nothing to serve with.
	serving, stopServing := context.WithCancelCause(ctx)
	defer stopServing(nil)
	running, stopEngine := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopEngine(nil)
	var g errgroup.Group
	if h.run != nil {
		g.Go(func() error {
			err := h.run(running)
			if running.Err() != nil {
				return nil // asked to
			}
			stopServing(errors.New("the engine ended"))
			if err == nil {
				err = errors.New("it gave no reason")
			}
			return fmt.Errorf("run the engine: %w", err)
		})
	}
	g.Go(func() error {
		defer stopEngine(errStopping)
		return s.Serve(serving, n.cfg.Listener)
	})
	err = n.announce(h)
	if err != nil {
		stopServing(err)
	}
	err = errors.Join(err, g.Wait())
	n.log.Info("stopped", obs.KeyModel, h.card.Model)
	return err
}

// errStopping is why the engine's loop ends when a node stops.
var errStopping = errors.New("the server is stopping")

// announce tells that requests are served: the listener has taken connections
// since before the model was loaded.
func (n *Node) announce(h *hosted) error {
	h.ready.Addr = n.cfg.Listener.Addr().String()
	if n.cfg.AddrFile != "" {
		if err := writeAddrFile(n.cfg.AddrFile, h.ready.Addr); err != nil {
			return err
		}
	}
	n.log.Info("serving", obs.KeyModel, h.card.Model, "path", n.cfg.ModelPath, obs.KeyAddress, h.ready.Addr)
	if n.cfg.Ready != nil {
		n.cfg.Ready(h.ready)
	}
	return nil
}

// frontend builds the HTTP server with the one model.
func (n *Node) frontend(h *hosted) (*frontend.Server, error) {
	c := frontend.DefaultConfig()
	c.MaxRunning, c.MaxQueue, c.MaxWait = n.cfg.MaxRunning, n.cfg.MaxQueue, n.cfg.MaxWait
	c.BodyLimitBytes, c.RequestTimeout, c.DrainTimeout = n.cfg.BodyLimitBytes, n.cfg.RequestTimeout, n.cfg.DrainTimeout
	c.Pprof, c.Version, c.Logger = n.cfg.Pprof, n.cfg.Version, n.cfg.Logger
	c.Registry = obs.NewRegistry().WithProcess()
	if h.stats != nil {
		engineMetrics(c.Registry, h.stats)
	}
	var err error
	if c.APIKeys, c.ClusterKey, err = n.keys(); err != nil {
		return nil, err
	}
	s, err := frontend.New(c)
	if err != nil {
		return nil, err
	}
	vars := chat.NewDict(len(h.meta.special))
	for name, text := range h.meta.special {
		vars.Set(name, chat.String(text))
	}
	return s, s.AddModel(&frontend.Model{
		Card: h.card, Engine: h.engine, Tokenizer: h.meta.tokenizer, Template: h.meta.template,
		Vars: vars, Defaults: h.meta.sampling.defaults(n.cfg.Sampling), Created: time.Now(),
	})
}

// keys reads the API keys, and the cluster key that keeps their tenants apart.
func (n *Node) keys() (*frontend.Keys, []byte, error) {
	if n.cfg.APIKey == "" && n.cfg.APIKeysFile == "" {
		return nil, nil, nil
	}
	keys := frontend.NewKeys()
	if n.cfg.APIKey != "" {
		if err := keys.Add("", n.cfg.APIKey); err != nil {
			return nil, nil, err
		}
	}
	if n.cfg.APIKeysFile != "" {
		f, err := os.Open(n.cfg.APIKeysFile)
		if err != nil {
			return nil, nil, fmt.Errorf("--api-keys: %w", err)
		}
		defer f.Close()
		if err := keys.Read(io.LimitReader(f, maxKeysBytes)); err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", n.cfg.APIKeysFile, err)
		}
	}
	key, err := ClusterKey(n.cfg.StateDir)
	return keys, key, err
}
