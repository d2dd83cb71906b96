// Package node turns a Config into a running process of one role: a worker with
// its engine, a frontend for the workers that discovery finds, or both in one. It
// is the only place where components are wired; cmd runs one per process, tests
// and the cluster simulator run many in one.
//
// It owns no decision of its own: what to load is the model's business, what to
// answer the frontend's, where to send it the router's, what to compute the
// engine's.
//
// Laws:
//   - New checks, Run does: it loads, serves, and returns when everything it
//     started has ended.
//   - Start of an engine: weights and tokenizer are loaded at the same time; then
//     the engine runs; then requests are served (a worker is registered); then
//     Ready is called. A frontend is ready at once: models come with workers.
//   - Stop, when Run's context is cancelled: the frontend refuses new requests;
//     those in progress end, or are cancelled after DrainTimeout; then the
//     connections to workers end. A worker leaves the store, refuses new requests,
//     lets those in progress end or hands them over after DrainTimeout; then its
//     engine stops and memory is released. A drain that ran out of time is no
//     error.
//   - Goroutines, each ended before Run returns: those that serve HTTP, that run
//     the engines' loops, that read the tokenizer while weights load, and the
//     fleet's (see there).
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/router"
)

// Node is one serving process.
type Node struct {
	cfg      Config
	log      *slog.Logger
	registry *obs.Registry
	tracer   *obs.Tracer
	metrics  clusterMetrics
	recorder *frontend.Recorder   // nil: requests are not recorded
	vllm     func() *vllm.Metrics // one for all servers
	tiers    *tiers
	peering  *peering // nil unless this is a worker
	// restored is what an earlier life of this process knew of the workers' KV caches;
	// nil: nothing.
	restored *router.Snapshot
	// crowd is set where this is one of several workers of a process.
	crowd *crowd
}

// Ready says what is being served.
type Ready struct {
	// Addr is the bound address, host and port.
	Addr string
	// Worker is the name of a worker in its cluster, of one of several; zero for other
	// roles. Workers is how many there are, where there may be several.
	Worker  dynamo.WorkerID
	Workers int
	// Card is the engine's; empty for a frontend alone.
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
	if c.Listener == nil && c.Role != RoleWorker {
		err = errors.Join(err, errors.New("a node that serves HTTP needs a listener"))
	}
	if c.Role != RoleFrontend && c.Role != RoleRouter && (c.ModelPath == "" || c.ModelName == "") {
		err = errors.Join(err, errors.New("a node with an engine needs a model's path and a name for it"))
	}
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: c, log: obs.For(c.Logger, "node"), registry: obs.NewRegistry().WithProcess()}
	n.metrics = newClusterMetrics(n.registry, c.Role)
	n.vllm = sync.OnceValue(func() *vllm.Metrics { return vllm.NewMetrics(n.registry) })
	n.tiers = newTiers(n.registry)
	return n, nil
}

// Run loads the model, serves until ctx is cancelled, drains and stops. It
// returns nil after a drain, in time or not, and otherwise why it could not
// serve. It is called once.
func (n *Node) Run(ctx context.Context) (err error) {
	if n.cfg.Listener != nil {
		defer n.cfg.Listener.Close() // a second close of a served listener does nothing
	}
	if err := removeStale(n.cfg.AddrFile); err != nil {
		return err
	}
	if err := n.openRecorder(); err != nil {
		return err
	}
	n.cfg.Tracing.Logger = n.cfg.Logger
	if n.tracer, err = obs.NewTracer(n.cfg.Tracing); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.tracer.Shutdown()) }()
	switch n.cfg.Role {
	case RoleFrontend:
		return n.runFrontend(ctx)
	case RoleRouter:
		return n.runRouter(ctx)
	case RoleWorker:
		if n.cfg.Worker.Count > 1 {
			return n.runCrowd(ctx)
		}
		return n.runWorker(ctx)
	}
	return n.runServe(ctx)
}

// runServe is the whole system in this process.
func (n *Node) runServe(ctx context.Context) error {
	l := &local{}
	var err error
	process, key := newProcess()
	for i := 0; i < n.cfg.Engines && err == nil; i++ {
		var h *hosted
		if h, err = n.resident(i, process, key).host(ctx, nil, uint64(i)); err == nil {
			l.all = append(l.all, h)
		}
	}
	if err == nil {
		err = n.serve(ctx, l)
	}
	for _, h := range l.all {
		err = errors.Join(err, h.release())
	}
	return err
}

func (n *Node) loaded() {
	if n.cfg.Loaded != nil {
		n.cfg.Loaded()
	}
}

// release gives the model's memory back.
func (h *hosted) release() error {
	if h.close == nil {
		return nil
	}
	return h.close()
}

// serve runs the engines and the frontend over them, and ends both.
func (n *Node) serve(ctx context.Context, l *local) error {
	key, err := n.tenantKey()
	if err != nil {
		return err
	}
	all := l.all
	s, err := n.server(key, l.instances, l.routers)
	if err != nil {
		return err
	}
	if all[0].stats != nil {
		engineMetrics(n.registry, func() loop.Stats { return sumStats(all) })
	}
	if all[0].late != nil {
		lateMetric(n.registry, func() (sum time.Duration) {
			for _, h := range all {
				sum += h.late()
			}
			return sum
		})
	}
	if err = n.addLocal(s, l); err != nil {
		return err
	}
	// The engines end after the frontend, whose requests need them to the last;
	// if one ends before, something is wrong with all of them.
	serving, stopServing := context.WithCancelCause(ctx)
	defer stopServing(nil)
	running, stopEngine := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopEngine(nil)
	var g errgroup.Group
	for _, h := range all {
		if h.run == nil {
			continue
		}
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
	g.Go(func() error { return n.recorder.Run(running) })
	g.Go(func() error {
		n.serveKV(running, all[0])
		return nil
	})
	g.Go(func() error {
		n.followAdapters(running, s, l)
		return nil
	})
	n.loaded()
	err = n.announce(all[0])
	if err != nil {
		stopServing(err)
	}
	err = errors.Join(err, g.Wait())
	n.log.Info("stopped", obs.KeyModel, all[0].card.Model)
	return err
}

// errStopping is why the engine's loop ends when a node stops.
var errStopping = errors.New("the server is stopping")

// announce tells that requests are served: the listener has taken connections
// since before the model was loaded.
func (n *Node) announce(h *hosted) error {
	if h.ready.Addr == "" {
		h.ready.Addr = n.cfg.Listener.Addr().String()
	}
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

// server builds the HTTP server, without models.
func (n *Node) server(clusterKey []byte, instances func() []frontend.Instance, routers func() []*router.Router) (*frontend.Server, error) {
	c := frontend.DefaultConfig()
	c.MaxRunning, c.MaxQueue, c.MaxWait = n.cfg.MaxRunning, n.cfg.MaxQueue, n.cfg.MaxWait
	c.BodyLimitBytes, c.RequestTimeout, c.DrainTimeout = n.cfg.BodyLimitBytes, n.cfg.RequestTimeout, n.cfg.DrainTimeout
	c.Pprof, c.Version, c.Logger = n.cfg.Pprof, n.cfg.Version, n.cfg.Logger
	c.Registry, c.Tracer, c.Instances, c.Recorder = n.registry, n.tracer, instances, n.recorder
	var err error
	if c.APIKeys, err = n.apiKeys(); err != nil {
		return nil, err
	}
	c.TenantHeader = n.cfg.Cluster.Routing.TenantHeader
	if c.APIKeys != nil || c.TenantHeader != "" {
		c.ClusterKey = clusterKey
	}
	c.Explain = func(id dynamo.RequestID) (any, bool) { return explain(routers(), id) }
	c.ExplainKept, c.RouterState = router.JournalSize, func() any { return routerState(routers()) }
	c.RouterRecords = func() any { return routerRecords(routers()) }
	return frontend.New(c)
}

// tenantKey is the cluster key, where nobody but API keys needs one.
func (n *Node) tenantKey() ([]byte, error) {
	if n.cfg.APIKey == "" && n.cfg.APIKeysFile == "" && n.cfg.Cluster.Routing.TenantHeader == "" {
		return nil, nil
	}
	if path := n.cfg.Cluster.KeyFile; path != "" {
		return discovery.ReadKey(path)
	}
	return discovery.MakeKey(n.cfg.StateDir)
}

// apiKeys reads the API keys.
func (n *Node) apiKeys() (*frontend.Keys, error) {
	if n.cfg.APIKey == "" && n.cfg.APIKeysFile == "" {
		return nil, nil
	}
	keys := frontend.NewKeys()
	if n.cfg.APIKey != "" {
		if err := keys.Add("", n.cfg.APIKey); err != nil {
			return nil, err
		}
	}
	if n.cfg.APIKeysFile != "" {
		f, err := os.Open(n.cfg.APIKeysFile)
		if err != nil {
			return nil, fmt.Errorf("--api-keys: %w", err)
		}
		defer f.Close()
		if err := keys.Read(io.LimitReader(f, maxKeysBytes)); err != nil {
			return nil, fmt.Errorf("read %s: %w", n.cfg.APIKeysFile, err)
		}
	}
	return keys, nil
}
