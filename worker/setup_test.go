package worker_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/echo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/worker"
)

const itl = 10 * time.Millisecond

var path = discovery.Path{Namespace: "test", Component: "backend", Endpoint: "generate"}

// cluster is a network with a store and frontends' side of it.
type cluster struct {
	t       *testing.T
	network *testnet.Network
	store   *discovery.Mem
	ctx     context.Context // ends the peers
	running sync.WaitGroup
}

// newCluster returns a cluster whose peers end with the test.
func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, network: testnet.New(), store: discovery.NewMem()}
	ctx, cancel := context.WithCancel(context.Background())
	c.ctx = ctx
	t.Cleanup(func() {
		cancel()
		c.running.Wait()
	})
	return c
}

// hosted is a worker that runs.
type hosted struct {
	*worker.Worker
	c        *cluster
	config   worker.Config
	address  string
	stop     context.CancelFunc
	ended    chan error    // gets what Run returns
	ready    chan struct{} // closed when Ready is called
	registry *obs.Registry
}

func rpcConfig() rpc.Config {
	c := rpc.DefaultConfig()
	c.Key = bytes.Repeat([]byte("k"), rpc.MinKeyBytes)
	return c
}

// start runs a worker with an echo engine at 10 ms a token.
func (c *cluster) start(host string, id dynamo.WorkerID, change func(*worker.Config)) *hosted {
	c.t.Helper()
	ec := echo.DefaultConfig()
	ec.ITL = itl
	e, err := echo.New(ec)
	if err != nil {
		c.t.Fatal(err)
	}
	l, err := c.network.Host(host).Listen(":0")
	if err != nil {
		c.t.Fatal(err)
	}
	h := &hosted{c: c, ended: make(chan error, 1), ready: make(chan struct{}), registry: obs.NewRegistry(), address: "tcp://" + l.Addr().String()}
	server, err := rpc.NewServer(rpc.ServerConfig{Config: rpcConfig(), Worker: id, Epoch: 1})
	if err != nil {
		c.t.Fatal(err)
	}
	h.config = worker.DefaultConfig()
	h.config.Instance = discovery.Instance{
		Path: path, ID: id, Epoch: 1, Addresses: []string{h.address}, Started: time.Now(),
		Card: &discovery.Card{Card: e.Card(), Format: discovery.CardFormat, Ranks: 1, Migration: "replay"},
	}
	h.config.Engine, h.config.Store, h.config.Server = e, c.store.Handle(), server
	h.config.Listeners, h.config.Metrics = []net.Listener{l}, worker.NewMetrics(h.registry)
	h.config.Ready = func() { close(h.ready) }
	if change != nil {
		change(&h.config)
	}
	if h.Worker, err = worker.New(h.config); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	c.t.Cleanup(cancel)
	go func() { h.ended <- h.Run(ctx) }()
	return h
}

// awaitReady fails the test if the worker ends before.
func (h *hosted) awaitReady() *hosted {
	h.c.t.Helper()
	select {
	case <-h.ready:
	case err := <-h.ended:
		h.c.t.Fatalf("the worker ended before it was ready: %v", err)
	}
	return h
}

// peer connects to the worker.
func (h *hosted) peer() *rpc.Peer {
	h.c.t.Helper()
	rc := rpcConfig()
	rc.Dial = h.c.network.Host("client").Dial
	client, err := rpc.NewClient(rc)
	if err != nil {
		h.c.t.Fatal(err)
	}
	p := client.Peer(rpc.PeerConfig{Addresses: []string{h.address}, Worker: h.config.Instance.ID, Epoch: 1})
	h.c.running.Go(func() { _ = p.Run(h.c.ctx) })
	if err := p.Wait(h.c.t.Context()); err != nil {
		h.c.t.Fatal(err)
	}
	return p
}

// engine is the worker's engine as a frontend has it.
func (h *hosted) engine() *remote.Engine {
	return remote.New(h.peer(), h.config.Instance.Card.Card, remote.DefaultConfig())
}

// listed are the ids in the store.
func (c *cluster) listed() (ids []dynamo.WorkerID) {
	c.store.SetDown(false)
	for u := range c.store.Handle().Watch(c.t.Context(), path) {
		for _, i := range u.Instances {
			ids = append(ids, i.ID)
		}
		break
	}
	return ids
}

// answer is what one request came to.
type answer struct {
	tokens int
	err    error
	took   time.Duration
}

// ask asks e for n tokens in a goroutine of its own.
func ask(t *testing.T, e engine.Engine, n int) chan answer {
	c := make(chan answer, 1)
	r := &dynamo.Request{ID: "r", Tokens: []dynamo.TokenID{1, 2, 3}, MaxTokens: n, IgnoreEOS: true}
	began := time.Now()
	go func() {
		a, err := enginetest.Collect(t.Context(), e, r)
		c <- answer{len(a.Tokens), err, time.Since(began)}
	}()
	return c
}

// scripted is an engine that a test writes.
type scripted func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool)

func (s scripted) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) { s(ctx, r, yield) }
}

// afterCanary is an engine that passes the trial and then does what next does.
func afterCanary(next scripted) scripted {
	return func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		if r.ID == "canary" {
			yield(dynamo.Chunk{Tokens: r.Tokens[:1], Finish: dynamo.FinishLength, Usage: dynamo.Usage{Prompt: len(r.Tokens), Completion: 1}}, nil)
			return
		}
		next(ctx, r, yield)
	}
}

func code(err error) string {
	if e, ok := errors.AsType[*dynamo.Error](err); ok {
		return e.Code
	}
	return ""
}

// metric checks lines of the worker's metrics.
func (h *hosted) metric(lines ...string) {
	h.c.t.Helper()
	w := httptest.NewRecorder()
	h.registry.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	all := strings.Split(w.Body.String(), "\n")
	for _, l := range lines {
		if !slices.Contains(all, l) {
			h.c.t.Errorf("metrics lack %q", l)
		}
	}
}
