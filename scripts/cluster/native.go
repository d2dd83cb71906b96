package main

import (
	"context"
	"fmt"
	"time"
)

// nativeKill kills workers that compute a model, whose answers depend on all that
// was generated: sampling, penalties, log probabilities, stop strings, choices.
func nativeKill(ctx context.Context, t *trial) error {
	s := shape{frontends: 2, workers: 3, worker: []string{"--kv-cache-bytes=192MiB", "--context-length=2048", "--step-tokens=128"}}
	if err := t.start(ctx, s); err != nil {
		return err
	}
	c := t.cluster
	l, err := t.startLoad(ctx)
	if err != nil {
		return err
	}
	var faults []fault
	for i := range 4 {
		faults = append(faults, t.markLoss(ctx))
		w := c.workers[i]
		w.kill()
		if _, err := c.addWorker(ctx, c.newID()); err != nil {
			return err
		}
		if err := sleep(ctx, 1500*time.Millisecond); err != nil {
			return err
		}
	}
	t.verdict(ctx, "n>1, seeds, penalties, logprobs, stop strings: kill -9", l, 4*nativeStreams, faults...)
	if err := t.cutPrefill(ctx); err != nil {
		return err
	}
	const id = "dd00000000000f55"
	p, err := c.strayWorker(id, "--precision=f32")
	if err != nil {
		return err
	}
	t.check("a worker of another precision is refused, and why", t.refused(ctx, id, "numeric class"), "")
	p.kill()
	return nil
}

// cutPrefill lets clients go away while their long prompts are being read.
func (t *trial) cutPrefill(ctx context.Context) error {
	const clients = 6
	c := t.cluster
	going, leave := context.WithCancel(ctx)
	defer leave()
	client := newClient()
	defer client.CloseIdleConnections()
	events := make(chan int, clients)
	for i := range clients {
		go func() {
			n := 0
			r := completion("long", i, 1500, 200)
			_, _ = stream(going, client, c.frontends[i%2].url, &r, func(time.Time) { n++ }) // it ends with going
			events <- n
		}()
	}
	if err := until(ctx, findTimeout, func() error {
		list, _, err := c.status(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, s := range list {
			n += s.Running + s.Waiting
		}
		if n < clients {
			return fmt.Errorf("%d requests are with the workers, want %d", n, clients)
		}
		return nil
	}); err != nil {
		return err
	}
	leave()
	left := time.Now()
	err := c.idle(ctx, 3*time.Second)
	begun := 0
	for range clients {
		if <-events > 0 {
			begun++
		}
	}
	t.check("clients go away while their prompts are read", err, "clients=%d of them with tokens=%d idle-after=%s", clients, begun, short(time.Since(left)))
	return nil
}
