package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/worker"
)

// crowd is what the workers of one process share: each has an identity, an engine,
// a listener and a registration of its own, as if it were alone, but the store, the
// tokenizer's files, the metrics and the health server are the process's.
type crowd struct {
	n     *Node
	store discovery.Store
	key   []byte // the cluster's
	// vocabulary is the digest that all have.
	vocabulary func() string

	mu struct {
		sync.Mutex
		meta    func() (*metadata, error) // nil once all have what they need of it
		hosted  []*hosted
		workers []*worker.Worker
		ready   int
	}
}

// runCrowd hosts Worker.Count workers. It returns when all have ended; one that
// ends by itself once all have served leaves the others alone, as another process
// would.
func (n *Node) runCrowd(ctx context.Context) (err error) {
	store, err := n.openStore()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	c := &crowd{n: n, store: keptOpen{store}}
	if c.key, err = n.clusterKey(store); err != nil {
		return err
	}
	c.mu.meta = sync.OnceValues(n.readMetadata)
	// What is wrong for all is found once.
	if _, err := c.metadata(); err != nil {
		return err
	}
	if n.cfg.Engine == EngineMocker {
		if err := n.cfg.Mocker.load(); err != nil {
			return err
		}
	}
	c.vocabulary = sync.OnceValue(func() string {
		m, _ := c.metadata() // it was read by then
		return vocabularyDigest(m.tokenizer)
	})
	if n.cfg.Worker.Unix && n.cfg.Cluster.RunDir != "" {
		sweepSockets(n.cfg.Cluster.RunDir)
	}
	engineMetrics(n.registry, c.stats)
	lateMetric(n.registry, c.late)
	return n.withSystem(ctx, c.health, c.run)
}

// keptOpen is a store that is closed by somebody else.
type keptOpen struct{ discovery.Store }

// Close does nothing.
func (keptOpen) Close() error { return nil }

// run runs the workers until all have ended.
func (c *crowd) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	var mu sync.Mutex
	var failures []error
	for i := range c.n.cfg.Worker.Count {
		m := c.member(i)
		running.Go(func() { // ends with ctx
			err := c.runMember(ctx, m, i)
			if err == nil {
				return
			}
			mu.Lock()
			failures = append(failures, err)
			mu.Unlock()
			if !c.allReady() {
				stop(err) // something is wrong with all of them
				return
			}
			c.n.log.Error("a worker of this process has ended", obs.KeyError, err)
		})
	}
	running.Wait()
	switch len(failures) {
	case 0:
		return nil
	case 1:
		return failures[0]
	}
	return fmt.Errorf("%d of %d workers failed, the first: %w", len(failures), c.n.cfg.Worker.Count, failures[0])
}

// runMember runs worker i when its time has come.
func (c *crowd) runMember(ctx context.Context, m *Node, i int) error {
	if wait := time.Duration(i) * c.n.cfg.Worker.stagger(); wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return m.runWorker(ctx)
}

// member is worker i as a node of its own.
func (c *crowd) member(i int) *Node {
	own := *c.n
	own.crowd = c
	w := &own.cfg.Worker
	if w.ID != 0 {
		w.ID += dynamo.WorkerID(i)
	}
	if w.Port != 0 {
		w.Port += uint16(i)
	}
	if m := &own.cfg.Mocker; m.FaultyWorkers > 0 && i >= m.FaultyWorkers {
		m.Faults = DefaultMockerConfig().Faults
	}
	own.cfg.Cluster.Store = c.store
	own.cfg.Listener, own.cfg.AddrFile, own.cfg.Loaded = nil, "", nil
	own.cfg.Ready = c.oneReady
	return &own
}

// metadata is what the model's files say, read once.
func (c *crowd) metadata() (*metadata, error) {
	c.mu.Lock()
	read := c.mu.meta
	c.mu.Unlock()
	return read()
}

// add takes in a worker that is about to run.
func (c *crowd) add(h *hosted, w *worker.Worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.hosted, c.mu.workers = append(c.mu.hosted, h), append(c.mu.workers, w)
}

// oneReady announces the process when its last worker serves.
func (c *crowd) oneReady(r Ready) {
	c.mu.Lock()
	c.mu.ready++
	all := c.mu.ready == c.n.cfg.Worker.Count
	if all {
		c.mu.meta = nil
	}
	c.mu.Unlock()
	if !all {
		return
	}
	c.n.loaded()
	if path := c.n.cfg.AddrFile; path != "" {
		if err := writeAddrFile(path, r.Addr); err != nil {
			c.n.log.Error("announce", obs.KeyError, err)
		}
	}
	if c.n.cfg.Ready != nil {
		r.Workers = c.n.cfg.Worker.Count
		c.n.cfg.Ready(r)
	}
}

func (c *crowd) allReady() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.ready == c.n.cfg.Worker.Count
}

// members returns the workers so far.
func (c *crowd) members() ([]*hosted, []*worker.Worker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.hosted, c.mu.workers // appended to only
}

// stats adds up the counts of the engines.
func (c *crowd) stats() loop.Stats {
	all, _ := c.members()
	var sum loop.Stats
	for _, h := range all {
		if h.stats != nil {
			s := h.stats()
			sum.Add(&s)
		}
	}
	return sum
}

func (c *crowd) late() (sum time.Duration) {
	all, _ := c.members()
	for _, h := range all {
		if h.late != nil {
			sum += h.late()
		}
	}
	return sum
}

// health reports whether all workers serve, and how many are in which state.
func (c *crowd) health() (bool, any) {
	_, all := c.members()
	states := map[string]int{}
	for _, w := range all {
		states[w.Status().State]++
	}
	return states[worker.StateReady] == c.n.cfg.Worker.Count, map[string]any{"workers": c.n.cfg.Worker.Count, "states": states}
}
