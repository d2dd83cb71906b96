package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/event/nats"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/worker"
)

// WorkerConfig is what only a worker needs to know.
type WorkerConfig struct {
	// ID names the worker; zero draws a name. (--worker-id)
	ID dynamo.WorkerID
	// Host and Port are listened on for frontends; port 0 takes a free one.
	// Default 127.0.0.1 and 0. (--rpc-host, --rpc-port)
	Host string
	Port uint16
	// Advertise replaces the address frontends are told. (--rpc-advertise)
	Advertise string
	// Unix also listens on a socket in the run directory. (--rpc-unix)
	Unix bool
	// Labels say where the worker stands. (--label)
	Labels map[string]string
	// Count is the number of workers in this process, each with an identity of its
	// own; ID and Port, if they are given, are the first one's. More than one is for
	// the mocker and echo engines. Default 1. (--num-workers)
	Count int
	// Role is engine.RolePrefill for workers that compute prompts for others,
	// engine.RoleDecode for workers that go on with what those computed, or empty for
	// workers that do both. The native engine, vLLM and the mocker know the difference. Default
	// empty. (--disaggregation-mode)
	Role string
	// KVTransfer says how KV moves to and from other workers.
	KVTransfer KVTransferConfig
	// Stagger is the time between the starts of two of Count workers; a negative one
	// suits it to their number: 0, 100 ms from 33 on, 200 ms from 129 on. Default 0.
	// (--stagger-delay)
	Stagger time.Duration
	// Weights names the weights: workers of other engines serve the model's name
	// together with this one if they name them alike. Empty: only workers that are
	// alike in everything do. (--weights-id)
	Weights string
	// Listeners replace Host, Port and Unix in tests; their addresses are
	// advertised as they are.
	Listeners []net.Listener
}

// validate finds the faults of several workers in one process.
func (w *WorkerConfig) validate(engine string) error {
	var faults []error
	if w.Count < 1 || w.Count > maxHosted || w.Count > 1 && engine != EngineMocker && engine != EngineEcho {
		faults = append(faults, fmt.Errorf("--num-workers is %d; a process may host 1 to %d workers of --engine mocker or echo, and one of any other", w.Count, maxHosted))
	}
	if w.Count > 1 && int(w.Port) > 0 && int(w.Port)+w.Count > 1<<16 {
		faults = append(faults, fmt.Errorf("--rpc-port is %d and --num-workers %d; each worker takes the next port, and there are none above 65535", w.Port, w.Count))
	}
	if w.Count > 1 && (w.Advertise != "" || len(w.Listeners) > 0) {
		faults = append(faults, fmt.Errorf("--rpc-advertise names one address, and there are %d workers; leave it out, and give --rpc-host 0.0.0.0 to be reached by this host's name", w.Count))
	}
	if !w.canDisaggregate(engine) {
		faults = append(faults, fmt.Errorf("--disaggregation-mode is %s; --engine native, without --kv-transfer off, vllm and mocker have prefill and decode workers, this one is agg", w.Role))
	}
	faults = append(faults, w.KVTransfer.validate())
	if w.Stagger > maxStagger {
		faults = append(faults, fmt.Errorf("--stagger-delay is %v; it must be at most %v, or negative for one that suits --num-workers", w.Stagger, maxStagger))
	}
	return errors.Join(faults...)
}

// stagger is the time between the starts of two workers.
func (w *WorkerConfig) stagger() time.Duration {
	switch {
	case w.Stagger >= 0:
		return w.Stagger
	case w.Count > 128:
		return 200 * time.Millisecond
	case w.Count > 32:
		return 100 * time.Millisecond
	}
	return 0
}

// place is where a worker is reached.
type place struct {
	listeners []net.Listener
	addresses []string
	bound     string // the TCP address, for people
}

func (p *place) close() error {
	var errs []error
	for _, l := range p.listeners {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// listen takes the worker's addresses.
func (n *Node) listen(id dynamo.WorkerID, epoch uint64) (*place, error) {
	w := &n.cfg.Worker
	p := &place{}
	for _, l := range w.Listeners {
		p.listeners = append(p.listeners, l)
		p.addresses = append(p.addresses, "tcp://"+l.Addr().String())
		p.bound = l.Addr().String()
	}
	if len(p.listeners) > 0 {
		return p, nil
	}
	l, err := listenTCP(w.Host, w.Port, "rpc-")
	if err != nil {
		return nil, fmt.Errorf("listen for frontends: %w", err)
	}
	p.listeners, p.bound = append(p.listeners, l), l.Addr().String()
	if w.Unix && n.cfg.Cluster.RunDir != "" {
		if n.crowd == nil {
			sweepSockets(n.cfg.Cluster.RunDir)
		}
		u, path, err := listenUnix(n.cfg.Cluster.RunDir, id, epoch)
		if err != nil {
			n.log.Warn("no Unix socket; frontends of this host use TCP", obs.KeyError, err)
		} else {
			p.listeners = append(p.listeners, u)
			p.addresses = append(p.addresses, "unix://"+path)
		}
	}
	tcp, err := advertised(w.Advertise, p.bound)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	p.addresses = append(p.addresses, "tcp://"+tcp)
	return p, nil
}

// listenUnix takes a socket of its own in the run directory. The file goes with
// the listener's end.
func listenUnix(dir string, id dynamo.WorkerID, epoch uint64) (net.Listener, string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, "", err
	}
	path := filepath.Join(dir, id.String()+"-"+strconv.FormatUint(epoch, 36)+".sock")
	l, err := net.Listen("unix", path)
	return l, path, err
}

// sweepSockets removes the sockets of workers that were killed: nobody listens.
func sweepSockets(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, "*-*.sock")) // the pattern is a good one
	for _, path := range left[:min(len(left), maxSweep)] {
		c, err := net.DialTimeout("unix", path, sweepTimeout)
		if err == nil {
			c.Close()
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.Remove(path) // another worker may have been faster
		}
	}
}

// advertised is the TCP address others are told: as given, or the bound one with
// this host's name in place of an unspecified address.
func advertised(given, bound string) (string, error) {
	if given != "" {
		host, port, err := net.SplitHostPort(given)
		if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" {
			return "", &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--rpc-advertise: %q is not HOST:PORT", given)}
		}
		return given, nil
	}
	host, port, err := net.SplitHostPort(bound)
	if err != nil {
		return "", fmt.Errorf("read the bound address: %w", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		if host, err = os.Hostname(); err != nil {
			return "", fmt.Errorf("find this host's name (give --rpc-advertise): %w", err)
		}
	}
	return net.JoinHostPort(host, port), nil
}

// identity draws what names this life of the worker. Epochs grow with time, so
// that of two lives the later one is known.
func (n *Node) identity() (dynamo.WorkerID, uint64) {
	id := n.cfg.Worker.ID
	for id == 0 {
		var b [8]byte
		rand.Read(b[:]) // never fails
		id = dynamo.WorkerID(binary.LittleEndian.Uint64(b[:]))
	}
	return id, uint64(time.Now().UnixNano())
}

// runWorker hosts an engine for the frontends of the cluster. What can be wrong
// with its place is found before the model is loaded.
func (n *Node) runWorker(ctx context.Context) (err error) {
	id, epoch := n.identity()
	m, err := n.join(id, epoch)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	n.know(m.key, id, m.place)
	kc := event.DefaultKVConfig()
	kc.Worker, kc.Epoch, kc.BlockSize, kc.Logger, kc.Metrics = id, epoch, model.BlockSize, n.cfg.Logger, n.metrics.event
	if n.cfg.Engine == EngineMocker {
		kc.BlockSize = n.cfg.Mocker.BlockSize
		if f := n.cfg.Mocker.Faults; f.LoseEvents > 0 {
			kc.Lose = func(number uint64) bool { return f.LosesEvents(uint64(id), number) }
		}
	}
	if n.crowd != nil {
		kc.RingBytes = min(kc.RingBytes, max(hostedRing/n.cfg.Worker.Count, minRing))
	}
	if m.kv, err = event.NewKVSource(kc); err != nil {
		return err
	}
	h, err := n.host(ctx, m.kv, uint64(id))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.release()) }()
	if n.cfg.Worker.Weights != "" {
		h.vocabulary = n.vocabulary(h.meta)
	}
	// Frontends have the text; a worker keeps only the files it was read from.
	h.meta.tokenizer, h.meta.template = nil, nil
	n.loaded()
	defer m.tellDigests(ctx)()
	w, err := worker.New(n.workerConfig(h, m, id, epoch))
	if err != nil {
		return err
	}
	if n.crowd != nil {
		n.crowd.add(h, w)
		return w.Run(ctx)
	}
	if h.stats != nil {
		engineMetrics(n.registry, h.stats)
	}
	if h.late != nil {
		lateMetric(n.registry, h.late)
	}
	return n.withSystem(ctx, func() (bool, any) {
		s := w.Status()
		return s.State == worker.StateReady, s
	}, w.Run)
}

// vocabulary is the digest of what the ids stand for.
func (n *Node) vocabulary(meta *metadata) string {
	if n.crowd != nil {
		return n.crowd.vocabulary()
	}
	return vocabularyDigest(meta.tokenizer)
}

// membership is what a worker needs to take part in its cluster.
type membership struct {
	key    []byte
	store  discovery.Store
	server *rpc.Server
	place  *place
	bus    *nats.Bus // nil: events go over the request connections
	kv     *event.KVSource
}

// join takes the worker's place, without telling anybody.
func (n *Node) join(id dynamo.WorkerID, epoch uint64) (m *membership, err error) {
	m = &membership{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.close())
		}
	}()
	if m.store, err = n.openStore(); err != nil {
		return m, err
	}
	key, err := n.clusterKey(m.store)
	if err != nil {
		return m, err
	}
	m.key = key
	n.tiers.know(key)
	sc := rpc.ServerConfig{Config: n.rpcConfig(key), Worker: id, Epoch: epoch}
	if sc.TLS, err = n.cfg.Cluster.tlsConfig(); err != nil {
		return m, err
	}
	if sc.TLS != nil && len(sc.TLS.Certificates) == 0 {
		return m, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "--tls-ca: a worker demands certificates of frontends and must show one, too; give --tls-cert and --tls-key"}
	}
	if m.server, err = rpc.NewServer(sc); err != nil {
		return m, err
	}
	if m.bus, err = n.openBus(); err != nil {
		return m, err
	}
	m.place, err = n.listen(id, epoch)
	return m, err
}

func (m *membership) close() error {
	var errs []error
	if m.place != nil {
		errs = append(errs, m.place.close())
	}
	if m.bus != nil {
		errs = append(errs, m.bus.Close())
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	return errors.Join(errs...)
}

// tellDigests has the digests of the KV caches published until end is called.
func (m *membership) tellDigests(ctx context.Context) (end func()) {
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = m.kv.Run(ctx) }) // its error is that ctx has ended
	return func() {
		stop()
		running.Wait()
	}
}

// workerConfig describes the worker to its host.
func (n *Node) workerConfig(h *hosted, m *membership, id dynamo.WorkerID, epoch uint64) worker.Config {
	c := worker.DefaultConfig()
	c.Instance = discovery.Instance{
		Path: n.cfg.Cluster.path(), ID: id, Epoch: epoch, Addresses: m.place.addresses, Host: discovery.HostID(),
		Card: n.card(h), Started: time.Now(), Version: n.cfg.Version,
	}
	c.Engine, c.EngineRun, c.Load, c.Adapters = n.foretelling(h, m.kv), h.run, h.load, h.adapters
	c.KV, c.HandOver = h.kv, h.handOver
	c.Store, c.Server, c.Listeners = m.store, m.server, m.place.listeners
	c.Publishers, c.EventMetrics = []*event.Publisher{m.kv.Publisher()}, n.metrics.event
	if m.bus != nil {
		c.Bus = m.bus
	}
	c.Artifacts = map[string]func() ([]byte, error){}
	for _, a := range []artifact{h.meta.vocabularyFile, h.meta.templateFile} {
		if a.digest != "" {
			c.Artifacts[a.digest] = func() ([]byte, error) {
				time.AfterFunc(artifactSettle, n.loaded) // it has been sent by then
				return a.read()
			}
		}
	}
	c.DrainTimeout, c.Logger, c.Metrics = n.cfg.DrainTimeout, n.cfg.Logger, n.metrics.worker
	c.MaxRunning, c.MaxQueue = n.cfg.MaxRunning, n.cfg.MaxQueue
	c.Tracer = n.tracer
	c.Ready = func() {
		h.ready.Addr, h.ready.Worker = m.place.bound, id
		if err := n.announce(h); err != nil {
			n.log.Error("announce", obs.KeyError, err)
		}
	}
	return c
}

// card is what the cluster is told of the model.
func (n *Node) card(h *hosted) *discovery.Card {
	c := &discovery.Card{
		Card: h.card, Format: discovery.CardFormat, Special: h.meta.special, Ranks: max(h.ranks, 1),
		Labels: n.cfg.Worker.Labels, KVBlocks: h.kvBlocks, StepTokens: h.stepTokens, MaxRunning: n.cfg.MaxRunning, MaxQueue: n.cfg.MaxQueue,
		Migration: engine.MigrationClass(&h.card), Sampling: h.meta.sampling.advised(n.cfg.Sampling),
	}
	c.Weights, c.Vocabulary = n.cfg.Worker.Weights, h.vocabulary
	v, t := h.meta.vocabularyFile, h.meta.templateFile
	c.Tokenizer = discovery.Artifact{Name: v.name, Digest: v.digest, Bytes: v.size}
	c.Template = discovery.Artifact{Name: t.name, Digest: t.digest, Bytes: t.size}
	return c
}

// withSystem serves health and metrics beside run, if there is a listener for
// them.
func (n *Node) withSystem(ctx context.Context, health func() (bool, any), run func(context.Context) error) error {
	if n.cfg.Listener == nil {
		return run(ctx)
	}
	s := &http.Server{
		Handler:           obs.SystemHandler(obs.SystemConfig{Registry: n.registry, Pprof: n.cfg.Pprof, Health: health}),
		ReadHeaderTimeout: systemTimeout, ReadTimeout: systemTimeout, IdleTimeout: time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(n.cfg.Listener) }() // ends with Close below
	err := run(ctx)
	err = errors.Join(err, s.Close())
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve health and metrics: %w", e))
	}
	return err
}
