package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// sameID starts a second worker with the name of one that serves.
func sameID(ctx context.Context, t *trial) error {
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f, first := t.mark(ctx), c.workers[0]
	p, err := c.strayWorker(first.id)
	if err != nil {
		return err
	}
	code, err := p.end(ctx, startTimeout)
	if text := p.text()[strings.IndexByte(p.text(), '\n'):]; err == nil && (code == 0 || !strings.Contains(text, first.id)) {
		err = fmt.Errorf("exit code %d, and the message does not name worker %s: %s", code, first.id, p.tail())
	}
	t.check("a second worker of the same id refuses to start", err, "exit=%d", code)
	t.check("the first one serves on", errors.Join(c.found(ctx, c.workers...), c.serves(ctx, first)), "")
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	t.verdict(ctx, "two workers with the same id", l, manyStreams, f)
	return nil
}

// restartWorker kills a worker and starts it again with its name and address.
func restartWorker(ctx context.Context, t *trial) error {
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	c := t.cluster
	before, _, err := c.status(ctx)
	if err != nil {
		return err
	}
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f, old := t.markLoss(ctx), c.workers[0]
	_, port, err := net.SplitHostPort(old.rpc)
	if err != nil {
		return err
	}
	old.kill()
	w, err := c.addWorker(ctx, old.id, "--rpc-port="+port)
	back := time.Since(f.at)
	if err == nil {
		err = c.serves(ctx, w)
	}
	after, _, e := c.status(ctx)
	if err = errors.Join(err, e); err == nil {
		was, is := of(before, old.id), of(after, old.id)
		if is.Epoch <= was.Epoch || w.rpc != old.rpc || len(after) != len(before) {
			err = fmt.Errorf("was %+v at %s, is %+v at %s; %d workers", was, old.rpc, is, w.rpc, len(after))
		}
	}
	t.check("a worker restarts at its address with a new epoch", err, "ready-after=%s", short(back))
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	t.verdict(ctx, "kill -9 and restart with the same id and address", l, manyStreams, f)
	return nil
}

// oddWorkers starts workers that cannot or must not join.
func oddWorkers(ctx context.Context, t *trial) error {
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f := t.mark(ctx)
	if err := errors.Join(t.wrongKey(ctx), t.wrongCard(ctx), t.badPaths(ctx)); err != nil {
		return err
	}
	t.check("the cluster's own workers are still used", c.found(ctx, c.workers...), "")
	t.verdict(ctx, "odd workers", l, manyStreams, f)
	return nil
}

// wrongKey starts a worker with another cluster key.
func (t *trial) wrongKey(ctx context.Context) error {
	c := t.cluster
	if err := c.makeKey("other.key"); err != nil {
		return err
	}
	const id = "dd00000000000f22"
	p, err := c.strayWorker(id, "--cluster-key-file="+filepath.Join(c.dir, "other.key"))
	if err != nil {
		return err
	}
	err = until(ctx, findTimeout, func() error {
		said := strings.Join(strings.Split(p.text(), "\n")[1:], "\n")
		for _, f := range c.frontends {
			for line := range strings.Lines(f.text()) {
				if strings.Contains(line, id) {
					said += line
				}
			}
		}
		if !strings.Contains(said, "cluster key") {
			return fmt.Errorf("neither the worker nor a frontend says that the cluster keys differ: %s", said)
		}
		return nil
	})
	t.check("a worker with another cluster key is refused, and why", errors.Join(err, t.unused(ctx, id)), "")
	p.kill()
	return nil
}

// unused checks that no frontend holds a worker for ready.
func (t *trial) unused(ctx context.Context, id string) error {
	for _, f := range t.cluster.alive() {
		h, err := f.health(ctx)
		if err != nil {
			return err
		}
		if h.state(id) == "ready" {
			return fmt.Errorf("%s holds it for ready", f.name)
		}
	}
	return nil
}

// wrongCard starts a worker that serves another thing under the same name.
func (t *trial) wrongCard(ctx context.Context) error {
	c := t.cluster
	const id = "dd00000000000f33"
	p, err := c.strayWorker(id, "--context-length=1024")
	if err != nil {
		return err
	}
	t.check("a worker of another card under the same name is refused, and why", t.refused(ctx, id, "context length"), "")
	p.kill()
	return nil
}

// refused waits until every frontend says, in /health and in its log, that a
// worker is refused and why.
func (t *trial) refused(ctx context.Context, id, why string) error {
	return until(ctx, startTimeout, func() error {
		for _, f := range t.cluster.alive() {
			h, err := f.health(ctx)
			if err != nil {
				return err
			}
			if s := h.state(id); !strings.Contains(s, "refused") || !strings.Contains(s, why) {
				return fmt.Errorf("/health of %s says %q, which does not name the %s", f.name, s, why)
			}
			if text := f.text(); !strings.Contains(text, id) || !strings.Contains(text, why) {
				return fmt.Errorf("the log of %s does not name the %s", f.name, why)
			}
		}
		return nil
	})
}

// badPaths starts parts whose directories cannot be written. A path below a file
// cannot be made by anybody, root included.
func (t *trial) badPaths(ctx context.Context) error {
	if t.store != storeFile {
		return nil // the paths are the file store's
	}
	c := t.cluster
	file := filepath.Join(c.dir, "plain")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	bad := filepath.Join(file, "dir")
	for _, args := range [][]string{
		{"worker", model, "--engine=echo", "--discovery-backend=file:" + bad, "--run-dir=" + c.run},
		{"frontend", "--http-port=0", "--discovery-backend=file:" + bad, "--run-dir=" + c.run},
		{"worker", model, "--engine=echo", "--discovery-backend=file", "--run-dir=" + bad},
	} {
		out, err := command(ctx, c.o.bin, args...)
		if said := out.stdout + out.stderr; err == nil && (out.code == 0 || !strings.Contains(said, file)) {
			err = fmt.Errorf("%s: exit code %d, and the message does not name %s: %s", strings.Join(args, " "), out.code, file, said)
		}
		t.check(args[0]+": a path that cannot be written is named", err, "exit=%d %s", out.code, args[len(args)-2])
	}
	return nil
}

// serveWorkers kills a worker process of 'dynamo serve --num-workers'.
func serveWorkers(ctx context.Context, t *trial) error {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	addr := filepath.Join(t.dir, "serve.addr")
	p, err := spawn(t.dir, "serve", t.o.bin, "serve", model, "--engine=echo", "--echo-itl="+itl.String(), "--num-workers=3", "--router-mode=round-robin", "--http-port=0",
		"--addr-file="+addr, "--state-dir="+filepath.Join(t.dir, "state"))
	if err != nil {
		return err
	}
	p.addr = addr
	t.cluster = &cluster{o: t.o, dir: t.dir, frontends: []*frontend{{process: p}}}
	c := t.cluster
	if err := until(ctx, startTimeout, func() error {
		if !p.running() {
			return fmt.Errorf("serve ended: %s", p.tail())
		}
		return c.frontendReadyByFile(c.frontends[0])
	}); err != nil {
		return err
	}
	if err := until(ctx, startTimeout, func() error {
		if n := len(children(p)); n != 3 {
			return fmt.Errorf("%d worker processes, want 3", n)
		}
		_, err := t.newLoad(ctx, echoRequests()[:1])
		return err
	}); err != nil {
		return err
	}
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f, before := t.markLoss(ctx), children(p)
	if err := syscall.Kill(before[0], syscall.SIGKILL); err != nil {
		return err
	}
	err = until(ctx, findTimeout, func() error {
		if now := children(p); len(now) != 3 || slices.Equal(now, before) {
			return fmt.Errorf("worker processes were %v and are %v", before, now)
		}
		return nil
	})
	t.check("serve --num-workers 3 starts a killed worker again", err, "after=%s", short(time.Since(f.at)))
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	t.verdict(ctx, "kill -9 of a worker of serve", l, manyStreams, f)
	workers := children(p)
	t.leaves(ctx, "serve ends on SIGTERM", p, func() error { return p.signal(syscall.SIGTERM) })
	err = nil
	for _, pid := range workers {
		if syscall.Kill(pid, 0) == nil {
			err = errors.Join(err, fmt.Errorf("worker process %d outlives serve", pid), syscall.Kill(pid, syscall.SIGKILL))
		}
	}
	t.check("no worker process outlives serve", err, "")
	return nil
}

// frontendReadyByFile learns a frontend's address without waiting for a line of
// its output.
func (c *cluster) frontendReadyByFile(f *frontend) error {
	addr, err := f.address()
	f.url = "http://" + addr
	return err
}

// children lists the child processes of p.
func children(p *process) []int {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.cmd.Process.Pid)) // the pattern is well formed
	var pids []int
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // a thread that is gone has none
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	slices.Sort(pids)
	return pids
}
