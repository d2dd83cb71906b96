package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// loseStore takes the store away in each way there is, for longer than leases
// last, and kills a worker meanwhile.
func loseStore(ctx context.Context, t *trial) error {
	s := usual
	s.ownKey = true // or the key would be lost with the directory
	if err := t.start(ctx, s); err != nil {
		return err
	}
	for _, o := range t.cluster.store.outages() {
		if err := t.outage(ctx, o); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	return nil
}

// outage goes through one outage under load.
func (t *trial) outage(ctx context.Context, o outage) error {
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f := t.markLoss(ctx)
	back, err := o.lose(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, t.o.outage/2); err != nil {
		return err
	}
	stale, err := c.stale(ctx)
	if err == nil && o.marked && stale < len(c.alive()) {
		err = fmt.Errorf("%d of %d frontends mark their view as stale", stale, len(c.alive()))
	}
	dead := c.workers[0]
	c.workers = c.workers[1:]
	dead.kill()
	err = errors.Join(err, until(ctx, deadPeer, func() error { return t.notReady(ctx, dead) }))
	t.check(o.name+": a worker dies meanwhile", err, "stale-frontends=%d", stale)
	if err := errors.Join(sleep(ctx, t.o.outage/2), back(ctx)); err != nil {
		return err
	}
	returned := time.Now()
	err = until(ctx, findTimeout, func() error {
		n, err := c.stale(ctx)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d frontends still mark their view as stale", n)
		}
		return err
	})
	fresh := time.Since(returned)
	w, e := c.addWorker(ctx, c.newID())
	if err = errors.Join(err, e); err == nil {
		err = c.serves(ctx, w)
	}
	t.check(o.name+": recovery, a new worker is found", err, "fresh-after=%s served-after=%s", short(fresh), short(time.Since(returned)))
	t.check(o.name+": dynamo status is right afterwards", c.settled(ctx), "after=%s", short(time.Since(returned)))
	t.verdict(ctx, fmt.Sprintf("%s for %v", o.name, t.o.outage), l, manyStreams, f)
	return nil
}

// notReady checks that no frontend holds a worker for ready.
func (t *trial) notReady(ctx context.Context, w *worker) error {
	for _, f := range t.cluster.alive() {
		h, err := f.health(ctx)
		if err != nil {
			return err
		}
		if h.state(w.id) == "ready" {
			return fmt.Errorf("%s holds worker %s for ready", f.name, w.id)
		}
	}
	return nil
}

// settled waits until 'dynamo status' lists the workers that run, all ready, and
// nobody else.
func (c *cluster) settled(ctx context.Context) error {
	return until(ctx, findTimeout, func() error {
		list, out, err := c.status(ctx)
		if err != nil {
			return err
		}
		running := 0
		for _, w := range c.workers {
			if !w.running() {
				continue
			}
			running++
			if s := of(list, w.id); s.State != "ready" {
				return fmt.Errorf("dynamo status says of worker %s: %+v", w.id, s)
			}
		}
		if len(list) != running || out.code != 0 {
			return fmt.Errorf("dynamo status (exit %d) lists %d workers, want %d: %s", out.code, len(list), running, out.stdout)
		}
		return nil
	})
}

// fillDisk fills the file system that holds the run directory and the store.
func fillDisk(ctx context.Context, t *trial) error {
	const what = "disk full in the run directory"
	disk := filepath.Join(t.dir, "disk")
	if err := os.MkdirAll(disk, 0o700); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk).CombinedOutput(); err != nil {
		t.skip(what, "a tmpfs cannot be mounted here: "+strings.TrimSpace(string(out)))
		return nil
	}
	defer func() {
		t.cluster.stop()
		_ = exec.Command("umount", disk).Run() // a mount that stays shows when the directory is removed
	}()
	s := usual
	s.runDir, s.storeInRun = filepath.Join(disk, "run"), true
	if err := t.start(ctx, s); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f := t.mark(ctx)
	filler := filepath.Join(disk, "filler")
	written, err := fill(filler)
	if err == nil {
		return fmt.Errorf("64 KiB of disk took %d bytes", written)
	}
	t.note("disk is full after %d bytes: %v", written, err)
	const late = "dd00000000000f11"
	p, err := c.strayWorker(late)
	if err != nil {
		return err
	}
	err = until(ctx, stopTimeout, func() error {
		if !strings.Contains(p.text(), "no space left") {
			return fmt.Errorf("the worker does not say that there is no space: %s", p.tail())
		}
		return nil
	})
	t.check(what+": a new worker says so", err, "")
	if err := sleep(ctx, 12*time.Second); err != nil {
		return err
	}
	t.check(what+": all workers are still there", c.settled(ctx), "")
	if err := os.Remove(filler); err != nil {
		return err
	}
	w, err := c.addWorker(ctx, c.newID())
	err = errors.Join(err, c.found(ctx, &worker{id: late}))
	if err == nil {
		err = c.serves(ctx, w)
	}
	t.check(what+": space again, that worker and another one serve", err, "")
	t.verdict(ctx, what, l, manyStreams, f)
	return nil
}

// fill writes a file until there is no space.
func fill(path string) (written int, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for page := make([]byte, 512); written < 1<<20; {
		n, err := f.Write(page)
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// jumpClock gives the store's files the times of other clocks: hosts that share a
// directory need not agree on the time, and a clock may be set while leases run.
func jumpClock(ctx context.Context, t *trial) error {
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
	f := t.mark(ctx)
	touched := 0
	dir := strings.TrimPrefix(c.store.backend(), "file:")
	for _, jump := range []time.Duration{-24 * time.Hour, 24 * time.Hour, -20 * 365 * 24 * time.Hour, 20 * 365 * 24 * time.Hour, -time.Hour} {
		for range 6 { // against the workers' own refreshing of their files
			n, err := age(dir, time.Now().Add(jump))
			if err != nil {
				return err
			}
			touched += n
			if err := sleep(ctx, 150*time.Millisecond); err != nil {
				return err
			}
		}
		if err := c.found(ctx, c.workers...); err != nil {
			t.check("clock jump", err, "")
		}
	}
	err = c.settled(ctx)
	after, _, e := c.status(ctx)
	err = errors.Join(err, e)
	for _, s := range before {
		if of(after, s.Worker).Epoch != s.Epoch {
			err = errors.Join(err, fmt.Errorf("worker %s was %+v and is %+v", s.Worker, s, of(after, s.Worker)))
		}
	}
	t.check("clock jump: no worker is lost", err, "by setting the times of the store's files up to 20 years back and ahead (%d times)", touched)
	t.verdict(ctx, "clock jump", l, manyStreams, f)
	return nil
}
