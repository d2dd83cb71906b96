package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
)

// The engines of workers.
const (
	engineEcho   = "echo"
	engineNative = "native"
)

// model is what every cluster serves.
const model = "smollm2"

// shape says what a cluster is made of.
type shape struct {
	frontends, workers int
	engine             string
	itl                time.Duration // of the echo engine
	proxied            bool          // workers are reached through a proxy only
	ownKey             bool          // the cluster key lies outside the store
	runDir             string        // in place of the scenario's own
	storeInRun         bool          // the file store lies in the run directory
	worker, frontend   []string      // further flags
}

// cluster is a running one. One goroutine uses it.
type cluster struct {
	shape
	o         *options
	dir, run  string
	kind      string
	store     store
	frontends []*frontend
	workers   []*worker
	others    []*process
	started   int // workers, for their names and those of logs
}

// frontend is a running frontend.
type frontend struct {
	*process
	url string
}

// worker is one life of a worker.
type worker struct {
	*process
	id    string // 16 hexadecimal digits
	rpc   string // HOST:PORT it listens on
	proxy *proxy // nil for none
}

// startCluster starts everything and waits until each frontend has found each
// worker.
func startCluster(ctx context.Context, o *options, kind, dir string, s shape) (c *cluster, err error) {
	c = &cluster{shape: s, o: o, dir: dir, kind: kind, run: s.runDir}
	if c.run == "" {
		c.run = filepath.Join(dir, "run")
	}
	if c.store = newStore(kind, dir, o); s.storeInRun {
		c.store = &fileStore{dir: c.run}
	}
	if err := errors.Join(os.MkdirAll(c.dir, 0o700), c.makeKey("cluster.key"), c.store.start(ctx)); err != nil {
		return c, err
	}
	for range s.frontends {
		if _, err := c.startFrontend(); err != nil {
			return c, err
		}
	}
	for range s.workers {
		if _, err := c.startWorker(c.newID()); err != nil {
			return c, err
		}
	}
	for _, f := range c.frontends {
		if err := c.frontendReady(ctx, f); err != nil {
			return c, err
		}
	}
	for _, w := range c.workers {
		if err := c.workerReady(ctx, w); err != nil {
			return c, err
		}
	}
	return c, c.found(ctx, c.workers...)
}

// makeKey writes a cluster key.
func (c *cluster) makeKey(name string) error {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(rand.Uint32())
	}
	return os.WriteFile(filepath.Join(c.dir, name), []byte(hex.EncodeToString(key)+"\n"), 0o600)
}

// newID names workers so that neither form of the name, hexadecimal or decimal,
// occurs by chance in what a process prints.
func (c *cluster) newID() string { return fmt.Sprintf("%016x", 0xdd0000000000000+c.started+1) }

// clusterFlags are those that every part is given.
func (c *cluster) clusterFlags() []string {
	args := []string{"--discovery-backend=" + c.store.backend(), "--run-dir=" + c.run, "--state-dir=" + filepath.Join(c.dir, "state")}
	if c.kind == storeEtcd || c.ownKey {
		args = append(args, "--cluster-key-file="+filepath.Join(c.dir, "cluster.key"))
	}
	return args
}

func (c *cluster) startFrontend() (*frontend, error) {
	name := "frontend-" + strconv.Itoa(len(c.frontends)+1)
	addr := filepath.Join(c.dir, name+".addr")
	// In turn, so that every worker has requests when it is killed.
	args := append([]string{"frontend", "--http-port=0", "--router-mode=round-robin", "--addr-file=" + addr}, c.clusterFlags()...)
	p, err := spawn(c.dir, name, c.o.bin, append(args, c.frontend...)...)
	if err != nil {
		return nil, err
	}
	p.addr = addr
	f := &frontend{process: p}
	c.frontends = append(c.frontends, f)
	return f, nil
}

func (c *cluster) frontendReady(ctx context.Context, f *frontend) error {
	if _, err := f.isReady(ctx); err != nil {
		return err
	}
	addr, err := f.address()
	f.url = "http://" + addr
	return err
}

// startWorker starts a worker; later flags replace earlier ones.
func (c *cluster) startWorker(id string, flags ...string) (*worker, error) {
	w, args, err := c.prepareWorker(id)
	if err != nil {
		return nil, err
	}
	if w.process, err = c.spawnWorker(append(args, flags...)); err != nil {
		return nil, err
	}
	c.workers = append(c.workers, w)
	return w, nil
}

// strayWorker starts a worker that is not expected to serve.
func (c *cluster) strayWorker(id string, flags ...string) (*process, error) {
	_, args, err := c.prepareWorker(id)
	if err != nil {
		return nil, err
	}
	p, err := c.spawnWorker(append(args, flags...))
	if err == nil {
		c.others = append(c.others, p)
	}
	return p, err
}

func (c *cluster) prepareWorker(id string) (*worker, []string, error) {
	w := &worker{id: id}
	args := append([]string{"worker", model, "--worker-id=" + id, "--engine=" + c.engine, "--threads=1"}, c.clusterFlags()...)
	if c.engine == engineEcho {
		args = append(args, "--echo-itl="+c.itl.String())
	}
	if c.proxied {
		var err error
		if w.proxy, err = newProxy(); err != nil {
			return nil, nil, err
		}
		args = append(args, "--no-rpc-unix", "--rpc-advertise="+w.proxy.address())
	}
	return w, append(args, c.worker...), nil
}

func (c *cluster) spawnWorker(args []string) (*process, error) {
	c.started++
	name := "worker-" + strconv.Itoa(c.started)
	addr := filepath.Join(c.dir, name+".addr")
	p, err := spawn(c.dir, name, c.o.bin, append(args, "--addr-file="+addr)...)
	if err != nil {
		return nil, err
	}
	p.addr = addr
	return p, nil
}

// workerReady waits for the worker and learns its address.
func (c *cluster) workerReady(ctx context.Context, w *worker) error {
	_, err := w.isReady(ctx)
	if err != nil {
		return err
	}
	if w.rpc, err = w.address(); err != nil {
		return err
	}
	if w.proxy != nil {
		w.proxy.forward(w.rpc)
	}
	return nil
}

// addWorker starts a worker and waits until both frontends use it.
func (c *cluster) addWorker(ctx context.Context, id string, flags ...string) (*worker, error) {
	w, err := c.startWorker(id, flags...)
	if err != nil {
		return nil, err
	}
	if err := c.workerReady(ctx, w); err != nil {
		return w, err
	}
	return w, c.found(ctx, w)
}

// alive lists the frontends that run.
func (c *cluster) alive() []*frontend {
	var list []*frontend
	for _, f := range c.frontends {
		if f.running() && f.url != "" {
			list = append(list, f)
		}
	}
	return list
}

// found waits until every frontend is healthy and says that the workers are
// ready.
func (c *cluster) found(ctx context.Context, workers ...*worker) error {
	return until(ctx, findTimeout, func() error {
		for _, f := range c.alive() {
			h, err := f.health(ctx)
			if err != nil {
				return err
			}
			if len(workers) > 0 && h.Status != "healthy" {
				return fmt.Errorf("%s is %q", f.name, h.Status)
			}
			for _, w := range workers {
				if state := h.state(w.id); state != "ready" {
					return fmt.Errorf("%s says that worker %s is %q", f.name, w.id, state)
				}
			}
		}
		return nil
	})
}

// status is what 'dynamo status --json' says of a worker.
type status struct {
	Worker  string `json:"worker"`
	Epoch   uint64 `json:"epoch"`
	Model   string `json:"model"`
	Engine  string `json:"engine"`
	State   string `json:"state"`
	Running int    `json:"running"`
	Waiting int    `json:"waiting"`
	Error   string `json:"error"`
}

// status runs 'dynamo status --json'.
func (c *cluster) status(ctx context.Context) (list []status, out output, err error) {
	out, err = command(ctx, c.o.bin, append([]string{"status", "--json"}, c.clusterFlags()...)...)
	if err != nil {
		return nil, out, err
	}
	if err := json.Unmarshal([]byte(out.stdout), &list); err != nil {
		return nil, out, fmt.Errorf("dynamo status --json (exit %d): %w: %s%s", out.code, err, out.stdout, out.stderr)
	}
	return list, out, nil
}

// of finds a worker in a status.
func of(list []status, id string) status {
	for _, s := range list {
		if s.Worker == id {
			return s
		}
	}
	return status{State: "missing"}
}

// serves waits until the worker has requests in progress.
func (c *cluster) serves(ctx context.Context, w *worker) error {
	return until(ctx, findTimeout, func() error {
		list, _, err := c.status(ctx)
		if err != nil {
			return err
		}
		if s := of(list, w.id); s.Running == 0 {
			return fmt.Errorf("worker %s: %+v", w.id, s)
		}
		return nil
	})
}

// idle waits until no worker has a request.
func (c *cluster) idle(ctx context.Context, within time.Duration) error {
	return until(ctx, within, func() error {
		list, _, err := c.status(ctx)
		if err != nil {
			return err
		}
		for _, s := range list {
			if s.Running+s.Waiting > 0 {
				return fmt.Errorf("worker %s still has %d running, %d waiting", s.Worker, s.Running, s.Waiting)
			}
		}
		return nil
	})
}

// stop ends every process.
func (c *cluster) stop() {
	all := c.others
	for _, f := range c.frontends {
		all = append(all, f.process)
	}
	for _, w := range c.workers {
		all = append(all, w.process)
		if w.proxy != nil {
			w.proxy.close()
		}
	}
	for _, p := range all {
		_ = p.signal(syscall.SIGKILL) // it may have ended
	}
	for _, p := range all {
		<-p.ended
	}
	if c.store != nil {
		c.store.stop()
	}
}
