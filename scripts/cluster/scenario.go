package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// scenarios lists every failure, in the order in which they are run.
var scenarios = []*scenario{
	{name: "undisturbed", engine: engineEcho, run: undisturbed},
	{name: "first request", engine: engineEcho, run: firstRequestOfWorker},
	{name: "kill -9 of a worker", engine: engineEcho, run: killWorker},
	{name: "SIGSTOP of a worker", engine: engineEcho, run: stopWorker},
	{name: "kill -9 of a frontend", engine: engineEcho, run: killFrontend},
	{name: "TCP reset", engine: engineEcho, run: resetConnections},
	{name: "store lost", engine: engineEcho, run: loseStore},
	{name: "disk full", engine: engineEcho, store: storeFile, run: fillDisk},
	{name: "clock jump", engine: engineEcho, store: storeFile, run: jumpClock},
	{name: "same worker id", engine: engineEcho, run: sameID},
	{name: "worker restart", engine: engineEcho, run: restartWorker},
	{name: "drain", engine: engineEcho, run: drain},
	{name: "client gone", engine: engineEcho, run: clientGone},
	{name: "hostile peers", engine: engineEcho, run: hostilePeers},
	{name: "foreign entries", engine: engineEcho, run: foreignEntries},
	{name: "odd workers", engine: engineEcho, run: oddWorkers},
	{name: "serve", engine: engineEcho, store: storeFile, run: serveWorkers},
	{name: "native kill -9 of a worker", engine: engineNative, run: nativeKill},
}

// itl is the pace of the echo engine under load: long enough for a stream to
// live through a fault, short enough for many streams.
const itl = 10 * time.Millisecond

// usual is the cluster of most scenarios.
var usual = shape{frontends: 2, workers: 3, itl: itl}

// manyStreams is what a check of a worker's death counts at least.
const manyStreams = 200

// undisturbed is what everything else is compared with: nothing happens, and
// nothing differs.
func undisturbed(ctx context.Context, t *trial) error {
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	list, out, err := t.cluster.status(ctx)
	if err != nil {
		return err
	}
	t.check("dynamo status shows instances, models, health, load", t.statusShows(ctx, list, out), "workers=%d", len(list))
	if err := sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	t.verdict(ctx, "undisturbed", l, manyStreams)
	return nil
}

// statusShows checks both forms of 'dynamo status'.
func (t *trial) statusShows(ctx context.Context, list []status, out output) error {
	var errs []error
	if out.code != 0 {
		errs = append(errs, fmt.Errorf("exit code %d: %s", out.code, out.stderr))
	}
	running := 0
	for _, w := range t.cluster.workers {
		s := of(list, w.id)
		if s.State != "ready" || s.Model != model || s.Engine != t.engine || s.Epoch == 0 {
			errs = append(errs, fmt.Errorf("worker %s: %+v", w.id, s))
		}
		running += s.Running
	}
	if running == 0 {
		errs = append(errs, errors.New("no load is shown while requests run"))
	}
	table, err := command(ctx, t.o.bin, append([]string{"status"}, t.cluster.clusterFlags()...)...)
	if err != nil {
		return err
	}
	for _, w := range t.cluster.workers {
		if !strings.Contains(table.stdout, w.id) || !strings.Contains(table.stdout, model) {
			errs = append(errs, fmt.Errorf("the table lacks worker %s or its model: %s", w.id, table.stdout))
		}
	}
	return errors.Join(errs...)
}

// firstRequestOfWorker measures how soon a worker serves through a frontend that
// had none, and then how soon another one does.
func firstRequestOfWorker(ctx context.Context, t *trial) error {
	const rounds = 5
	var took [2][]time.Duration
	for range rounds {
		if err := t.start(ctx, shape{frontends: 1}); err != nil {
			return err
		}
		for i := range took {
			d, err := t.timeToFirst(ctx)
			if err != nil {
				return err
			}
			took[i] = append(took[i], d)
		}
		t.cluster.stop()
	}
	for i, what := range []string{"the first worker of a frontend", "a later worker"} {
		slices.Sort(took[i])
		var err error
		if quantile(took[i], 0.5) > firstRequest {
			err = fmt.Errorf("the median is longer than %v", firstRequest)
		}
		t.check(what+" serves after its ready line", err, "fastest=%s median=%s slowest=%s", short(took[i][0]), short(quantile(took[i], 0.5)), short(took[i][rounds-1]))
	}
	return nil
}

// timeToFirst starts a worker, asks until it answers, and ends it again. The time
// runs from the worker's ready line to the first event of the first answer.
func (t *trial) timeToFirst(ctx context.Context) (time.Duration, error) {
	c := t.cluster
	w, err := c.startWorker(c.newID())
	if err != nil {
		return 0, err
	}
	ready, err := w.isReady(ctx)
	if err != nil {
		return 0, err
	}
	client := newClient()
	defer client.CloseIdleConnections()
	r := completion("first", 0, 4, 1)
	var first time.Time
	err = until(ctx, findTimeout, func() error {
		_, err := stream(ctx, client, c.frontends[0].url, &r, func(at time.Time) {
			if first.IsZero() {
				first = at
			}
		})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("the first request: %w", err)
	}
	w.kill()
	return first.Sub(ready), until(ctx, findTimeout, func() error {
		h, err := c.frontends[0].health(ctx)
		if err == nil && h.state(w.id) == "ready" {
			err = errors.New("a dead worker counts as ready")
		}
		return err
	})
}

// killWorker kills one worker after the other under load.
func killWorker(ctx context.Context, t *trial) error {
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	faults := []fault{t.markLoss(ctx)}
	c.workers[0].kill()
	if err := sleep(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	faults = append(faults, t.markLoss(ctx))
	c.workers[1].kill()
	if err := sleep(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	t.verdict(ctx, "kill -9 of two workers, one after the other", l, manyStreams, faults...)
	return nil
}

// stopWorker stops a worker, waits until its requests have gone on elsewhere, and
// lets it go on.
func stopWorker(ctx context.Context, t *trial) error {
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f, w := t.markLoss(ctx), c.workers[0]
	if err := w.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err = until(ctx, deadPeer+time.Second, func() error {
		for _, f := range c.alive() {
			if h, err := f.health(ctx); err != nil || h.state(w.id) == "ready" {
				return errors.Join(err, fmt.Errorf("%s holds the stopped worker for ready", f.name))
			}
		}
		return nil
	})
	took := time.Since(f.at)
	if err == nil && took > deadPeer {
		err = fmt.Errorf("longer than %v", deadPeer)
	}
	t.check("SIGSTOP of a worker is noticed", err, "after=%s", short(took))
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	if err := w.signal(syscall.SIGCONT); err != nil {
		return err
	}
	woken := time.Now()
	err = errors.Join(c.found(ctx, w), c.serves(ctx, w))
	t.check("the worker serves again after SIGCONT", err, "after=%s", short(time.Since(woken)))
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	t.verdict(ctx, "SIGSTOP, then SIGCONT of a worker", l, manyStreams, f)
	return nil
}

// killFrontend kills one of two frontends.
func killFrontend(ctx context.Context, t *trial) error {
	if err := t.start(ctx, usual); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	l.bury(1)
	c.frontends[1].kill()
	if err := sleep(ctx, 2500*time.Millisecond); err != nil {
		return err
	}
	t.verdict(ctx, "kill -9 of a frontend: the other's streams", l, manyStreams/2)
	err = c.idle(ctx, 3*time.Second)
	t.check("workers drop the requests of the dead frontend", err, "")
	return nil
}

// resetConnections cuts the workers' connections again and again.
func resetConnections(ctx context.Context, t *trial) error {
	s := usual
	s.proxied, s.frontend = true, []string{"--migration-limit=16"}
	if err := t.start(ctx, s); err != nil {
		return err
	}
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	const rounds = 12
	var faults []fault
	cut := 0
	for i := range rounds {
		faults = append(faults, t.markLoss(ctx))
		cut += t.cluster.workers[i%len(t.cluster.workers)].proxy.reset()
		if err := sleep(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
	if err = nil; cut < rounds {
		err = fmt.Errorf("only %d connections were there to be reset in %d rounds", cut, rounds)
	}
	t.check("connections are made again after each reset", errors.Join(err, t.cluster.found(ctx, t.cluster.workers...)), "reset=%d", cut)
	t.verdict(ctx, "TCP reset mid-stream, every 300 ms", l, manyStreams, faults...)
	return nil
}

// drain lets workers and a frontend leave under load.
func drain(ctx context.Context, t *trial) error {
	s := usual
	s.workers = 4
	if err := t.start(ctx, s); err != nil {
		return err
	}
	c := t.cluster
	short, err := c.addWorker(ctx, c.newID(), "--drain-timeout=100ms")
	if err != nil {
		return err
	}
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	f := t.markLoss(ctx)
	t.leaves(ctx, "SIGTERM of a worker: its requests finish", c.workers[0].process, func() error { return c.workers[0].signal(syscall.SIGTERM) })
	t.leaves(ctx, "SIGTERM, --drain-timeout 100ms: requests are handed over", short.process, func() error { return short.signal(syscall.SIGTERM) })
	t.leaves(ctx, "dynamo drain WORKER", c.workers[1].process, func() error {
		out, err := command(ctx, c.o.bin, append([]string{"drain", c.workers[1].id}, c.clusterFlags()...)...)
		if err == nil && out.code != 0 {
			err = fmt.Errorf("exit code %d: %s", out.code, out.stderr)
		}
		return err
	})
	list, _, err := c.status(ctx)
	if n := len(list); err == nil && n != 2 {
		err = fmt.Errorf("dynamo status lists %d workers, want 2", n)
	}
	t.check("workers that left are not in the store", err, "left=%d", 3)
	if err := l.avoid(ctx, 1); err != nil {
		return err
	}
	t.leaves(ctx, "SIGTERM of a frontend: its streams end well", c.frontends[1].process, func() error { return c.frontends[1].signal(syscall.SIGTERM) })
	if err := sleep(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	t.verdict(ctx, "drains of three workers and a frontend", l, manyStreams, f)
	return nil
}

// leaves checks that a process ends with exit code 0 once it is asked to.
func (t *trial) leaves(ctx context.Context, what string, p *process, ask func() error) {
	began := time.Now()
	err := ask()
	code := 0
	if err == nil {
		code, err = p.end(ctx, stopTimeout)
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, p.tail())
	}
	t.check(what, err, "exit=%d after=%s", code, short(time.Since(began)))
}

// clientGone lets clients go away mid-stream and while their request waits.
func clientGone(ctx context.Context, t *trial) error {
	const clients = 60
	s := usual
	s.frontend, s.itl = []string{"--max-in-progress=10"}, 5*itl // so that some wait
	if err := t.start(ctx, s); err != nil {
		return err
	}
	c := t.cluster
	going, leave := context.WithCancel(ctx)
	defer leave()
	client := newClient()
	defer client.CloseIdleConnections()
	var streams sync.WaitGroup
	var count struct {
		sync.Mutex
		begun int
	}
	r := completion("endless", 1, 100, 5000)
	for i := range clients {
		streams.Go(func() {
			first := true
			_, _ = stream(going, client, c.frontends[i%len(c.frontends)].url, &r, func(time.Time) { // it ends with going
				if first {
					first = false
					count.Lock()
					count.begun++
					count.Unlock()
				}
			})
		})
	}
	if err := sleep(ctx, 1500*time.Millisecond); err != nil {
		return err
	}
	count.Lock()
	begun := count.begun
	count.Unlock()
	leave()
	left := time.Now()
	err := c.idle(ctx, 2*time.Second)
	t.check("clients go away: workers fall idle", err, "streaming=%d waiting=%d after=%s", begun, clients-begun, short(time.Since(left)))
	streams.Wait()
	l, err := t.newLoad(ctx, echoRequests()[:4])
	if err == nil {
		l.stop()
	}
	t.check("requests are served after that", err, "")
	return nil
}
