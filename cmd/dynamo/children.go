package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dynamo-go/dynamo/hub"
	"github.com/dynamo-go/dynamo/node"
)

// Limits of worker processes.
const (
	maxWorkers = 256
	// A worker process that ends by itself is started again after restartMin,
	// doubled with each end that follows soon after its start, up to restartMax.
	restartMin, restartMax = 500 * time.Millisecond, 30 * time.Second
	// stopGrace is how long a worker may take beyond its drain time-out before it
	// is killed.
	stopGrace = 5 * time.Second
	// maxWorkerLine bounds a line of a worker's output.
	maxWorkerLine = 64 << 10
)

// serveProcesses runs the frontend in this process and each worker in one of its
// own. They find each other in the store that was asked for, or in a directory of
// their own.
func (c *serveCmd) serveProcesses(ctx context.Context, a *app, kctx *kong.Context, h *hub.Hub, cfg node.Config, view *console) error {
	l, err := node.Listen(c.HTTPHost, c.HTTPPort)
	if err != nil {
		return err
	}
	ref, _ := a.settings.model(c.Model)
	began := time.Now()
	// The model is fetched once, before several workers ask for it.
	m, err := h.Resolve(ctx, ref)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	if a.settings.origin("discovery-backend") == "default" {
		dir, err := os.MkdirTemp("", "dynamo-serve-")
		if err != nil {
			return errors.Join(fmt.Errorf("make a run directory: %w", err), l.Close())
		}
		defer os.RemoveAll(dir)
		c.RunDir, c.DiscoveryBackend = dir, "file:"+dir
		c.clusterFlags.apply(&cfg.Cluster)
	}
	name := m.Name
	if c.ModelName != "" {
		name = c.ModelName
	}
	w := &workers{app: a, args: c.workerArgs(a, kctx, ref, name), patience: c.DrainTimeout + stopGrace, ready: make(chan string, c.workers()), roles: c.roles()}
	serving := make(chan node.Ready, 1)
	cfg.Role, cfg.Listener, cfg.Engines = node.RoleFrontend, l, 1
	cfg.MaxRunning = c.MaxRunning * c.workers()
	cfg.Ready = func(r node.Ready) { serving <- r }
	n, err := node.New(cfg)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return w.around(ctx, n, c.workers(), func(up context.Context) {
		if r, ok := w.allReady(up, serving, c.workers()); ok {
			view.end()
			fmt.Fprintf(a.stdout, "ready: %s at %s (%d workers; %.1f s)\n\n%s", name, httpURL(r.Addr), c.workers(), time.Since(began).Seconds(), c.try(r.Addr, name))
			fmt.Fprintf(a.stdout, "look:  dynamo status --discovery-backend %s\n", c.DiscoveryBackend)
		}
	})
}

// around runs n workers and the frontend; ready is called beside them. The
// workers outlive the frontend, whose answers they finish.
func (w *workers) around(ctx context.Context, front *node.Node, n int, ready func(context.Context)) error {
	alive, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	up, fail := context.WithCancelCause(ctx)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { w.keep(alive, i, fail) })
	}
	all.Go(func() { ready(up) })
	err := front.Run(up)
	if cause := context.Cause(up); err == nil && cause != nil && ctx.Err() == nil {
		err = cause
	}
	fail(nil)
	stop(nil)
	all.Wait()
	return err
}

// workerArgs is the command line of the workers: what serve was given and workers
// understand, and where to find the frontend.
func (c *serveCmd) workerArgs(a *app, kctx *kong.Context, ref, name string) []string {
	own := []string{"addr-file", "pprof", "threads", "model-name", "rpc-port", "system-port", "worker-id", "discovery-backend", "run-dir", "num-workers", "kv-transfer-port"}
	args := []string{"worker", ref, "--with-parent", "--discovery-backend=" + c.DiscoveryBackend, "--run-dir=" + c.RunDir}
	var worker *kong.Node
	for _, n := range kctx.Model.Children {
		if n.Name == "worker" {
			worker = n
		}
	}
	for _, f := range kctx.Flags() {
		known := slices.ContainsFunc(worker.AllFlags(true), func(group []*kong.Flag) bool {
			return slices.ContainsFunc(group, func(g *kong.Flag) bool { return g.Name == f.Name })
		})
		if !known || slices.Contains(own, f.Name) || f.Tag.Has("secret") || f.Name == "help" || a.settings.origin(f.Name) == "default" {
			continue
		}
		args = append(args, "--"+f.Name+"="+fmt.Sprint(kctx.FlagValue(f)))
	}
	threads := c.Threads
	if threads == 0 {
		threads = max(1, runtime.GOMAXPROCS(0)/c.workers())
	}
	return append(args, "--model-name="+name, "--threads="+strconv.Itoa(threads))
}

// roles are the parts of the workers, each once for each of them.
func (c *serveFlags) roles() []string {
	return slices.Concat(slices.Repeat([]string{"agg"}, c.NumWorkers), slices.Repeat([]string{"prefill"}, c.Prefill), slices.Repeat([]string{"decode"}, c.Decode))
}

// workers keeps the processes.
type workers struct {
	app      *app
	args     []string
	patience time.Duration
	ready    chan string
	roles    []string // of each worker
}

// allReady waits for the frontend and for n workers.
func (w *workers) allReady(ctx context.Context, serving <-chan node.Ready, n int) (r node.Ready, ok bool) {
	for got := 0; got <= n; got++ {
		select {
		case r = <-serving:
		case <-w.ready:
		case <-ctx.Done():
			return r, false
		}
	}
	return r, true
}

// keep runs worker number i until alive ends, again and again. A worker that was
// never ready fails the whole command.
func (w *workers) keep(alive context.Context, i int, fail context.CancelCauseFunc) {
	wait, wasReady := restartMin, false
	for {
		began := time.Now()
		ready, err := w.run(alive, w.roles[i])
		if alive.Err() != nil {
			return
		}
		wasReady = wasReady || ready
		if !wasReady {
			fail(fmt.Errorf("worker %d ended before it was ready: %w", i+1, err))
			return
		}
		if time.Since(began) > restartMax {
			wait = restartMin
		}
		fmt.Fprintf(w.app.stderr, "dynamo: worker %d ended (%v); starting it again in %v\n", i+1, err, wait)
		select {
		case <-time.After(wait):
		case <-alive.Done():
			return
		}
		wait = min(2*wait, restartMax)
	}
}

// run runs one worker process to its end, which alive's end brings about.
func (w *workers) run(alive context.Context, role string) (ready bool, err error) {
	self, err := os.Executable()
	if err != nil {
		return false, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, append(slices.Clip(w.args), "--disaggregation-mode="+role)...)
	cmd.Stderr = os.Stderr
	cmd.Env = os.Environ()
	// A process group of its own: Ctrl-C reaches this process alone, which stops
	// the workers when their answers have ended.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe() // whose end tells the worker that this process is gone
	if err != nil {
		return false, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("start a worker: %w", err)
	}
	ended := make(chan struct{})
	var stopping sync.WaitGroup
	stopping.Go(func() { w.stop(alive, cmd.Process, stdin, ended) })
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, maxWorkerLine)
	for lines.Scan() {
		if line := lines.Text(); strings.HasPrefix(line, "ready: ") && !ready {
			ready = true
			select {
			case w.ready <- line:
			default: // a worker that was started again; nobody waits for it
			}
		}
	}
	_, _ = io.Copy(io.Discard, stdout) // after a line too long; Wait must not be kept from ending
	err = cmd.Wait()
	close(ended)
	stopping.Wait()
	if err == nil {
		err = errors.New("exit status 0")
	}
	return ready, err
}

// stop asks a worker to drain once alive ends, and kills it when it does not
// come to an end.
func (w *workers) stop(alive context.Context, p *os.Process, stdin io.Closer, ended <-chan struct{}) {
	select {
	case <-ended:
		return
	case <-alive.Done():
	}
	stdin.Close()
	select {
	case <-ended:
	case <-time.After(w.patience):
		_ = p.Kill() // it may have ended just now
	}
}

// untilEnd returns a context that ends when r does. Its goroutine ends with r.
func untilEnd(ctx context.Context, r io.Reader) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, r) // an error is an end too
		cancel(interrupted{syscall.SIGHUP})
	}()
	return ctx
}

// defaultRunDir is the user's run directory: below XDG_RUNTIME_DIR if the system
// has one, else below the temporary directory.
func defaultRunDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "dynamo")
	}
	return filepath.Join(os.TempDir(), "dynamo-"+strconv.Itoa(os.Getuid()))
}
