package vllm

import (
	"context"
	"errors"
	"math"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo/engine"
)

// tally is what the streams tell of the server's fill, and what its metrics add.
type tally struct {
	waiting, running atomic.Int64 // our requests before and after their first id
	held             atomic.Int64 // blocks they fill, as if none was shared
	steps            atomic.Uint64
	polled           atomic.Pointer[polled]
}

// polled is what one reading of the metrics said.
type polled struct {
	running, waiting int // others' requests: what the server counted beyond ours
	used             int // blocks; -1 if the server does not say
	steps            uint64
	until            time.Time // when it is too old to be believed
}

// Load says how full the server is: our own requests at this moment, others' and the
// cache's as the metrics had it at the last reading. It never blocks.
func (e *Engine) Load() engine.Load {
	t := &e.tally
	l := engine.Load{
		Running: int(t.running.Load()), Waiting: int(t.waiting.Load()), KVUsed: int(t.held.Load()), Steps: t.steps.Load(),
		Down: e.down.Load() || e.deserted.Load(),
	}
	if d := e.found.Load(); d != nil {
		l.KVBlocks = d.info.KVBlocks
	}
	if p := t.polled.Load(); p != nil {
		l.Steps += p.steps
		if time.Now().Before(p.until) {
			l.Running += p.running
			l.Waiting += p.waiting
			if p.used >= 0 {
				l.KVUsed = p.used
			}
		}
	}
	l.KVUsed = min(l.KVUsed, l.KVBlocks)
	return l
}

// poll reads the metrics every PollEvery until ctx ends. A server that comes back
// after a silence is examined: it may be another one.
func (e *Engine) poll(ctx context.Context) error {
	tick := time.NewTicker(e.config.PollEvery)
	defer tick.Stop()
	silent := false
	for readings := 1; ; readings++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d := e.found.Load()
		page, err := e.readMetrics(ctx, d)
		if err != nil {
			e.config.Metrics.polled(pollFailed)
			silent = true
			e.deserted.Store(errors.Is(err, syscall.ECONNREFUSED)) // slow metrics say nothing of the rest
			continue
		}
		e.config.Metrics.polled(pollRead)
		e.tally.polled.Store(e.readLoad(d, page))
		if silent {
			if err := e.same(ctx, d); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			silent = false
			e.deserted.Store(false)
		}
		if readings%lookPolls == 0 {
			e.lookForAdapters(ctx, d)
		}
	}
}

func (e *Engine) readMetrics(ctx context.Context, d *discovered) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	b, err := e.get(ctx, d.base, "/metrics")
	return string(b), err
}

// readLoad takes from the metrics what the streams do not tell.
func (e *Engine) readLoad(d *discovered, page string) *polled {
	running, waiting, steps := 0.0, 0.0, 0.0
	used, ranks := 0.0, 0
	samples(page, "vllm:", func(name, labels, value string) {
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || !(v >= 0 && v < math.MaxInt32*1024) {
			return
		}
		switch name {
		case d.names.running:
			running += v
		case d.names.waiting:
			waiting += v
		case d.names.steps:
			steps += v
		case d.names.usage:
			used += min(v, 1) * float64(d.blocksOf(label(labels, "engine")))
			ranks++
		}
	})
	t := &e.tally
	p := &polled{
		running: max(0, int(running)-int(t.running.Load())), waiting: max(0, int(waiting)-int(t.waiting.Load())),
		used: -1, steps: uint64(steps), until: time.Now().Add(freshPolls * (e.config.PollEvery + pollTimeout)),
	}
	if ranks > 0 {
		p.used = int(math.Round(used))
	}
	return p
}
