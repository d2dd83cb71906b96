package mocker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/perfmodel"
)

// computer lets the time of a batch pass and spells the answers. It belongs to the
// goroutine of its rank's loop, but for Begin and late.
type computer struct {
	config *Config
	card   engine.Card
	rank   int
	batch  perfmodel.Batch
	tokens int // generated so far

	timer *time.Timer // nil before the first wait
	due   time.Time   // the end of the last step
	going bool        // there has been something to compute since
	late  atomic.Int64
}

var _ loop.Computer = (*computer)(nil)

var errCrash = errors.New("the mocker crashed, as it was told to (--fault crash)")

// Begin implements loop.Computer.
func (c *computer) Begin(r *dynamo.Request) any {
	p := c.plan(r)
	p.source = c.source(r)
	return &p
}

// stalled implements loop.Config.Stalled.
func (c *computer) stalled() bool {
	return c.config.Faults.StallAfter > 0 && c.tokens >= c.config.Faults.StallAfter
}

// idle implements loop.Config.Idle.
func (c *computer) idle() { c.going = false }

// Compute implements loop.Computer.
func (c *computer) Compute(ctx context.Context, b *sched.Batch, results []sched.Result) error {
	if k := c.config.Faults.CrashAfter; k > 0 && c.tokens >= k {
		return &loop.End{Err: errCrash}
	}
	if err := c.pass(ctx, c.duration(b)); err != nil {
		return err
	}
	c.going = true
	for i := range b.Entries {
		e := &b.Entries[i]
		if !e.Sample {
			continue
		}
		t := e.Ref.(*loop.Task)
		if t.Room == 0 {
			results[i] = t.Complete()
			continue
		}
		id := c.id(t, t.State.(*plan), e.Output)
		var lp dynamo.TokenLogprob
		if t.Request.Sampling.Logprobs {
			lp = c.logprob(id, t.Request.Sampling.TopLogprobs)
		}
		results[i] = t.Post(e, id, lp)
		c.tokens++
	}
	return nil
}

// Close implements loop.Computer.
func (c *computer) Close() error {
	if c.timer != nil {
		c.timer.Stop()
	}
	return nil
}

// duration is how long the batch takes.
func (c *computer) duration(b *sched.Batch) time.Duration {
	if c.config.Speedup == 0 {
		return 0
	}
	m := &c.batch
	m.Chunks, m.Decodes, m.KVTokens = m.Chunks[:0], 0, 0
	for i := range b.Entries {
		e := &b.Entries[i]
		t := e.Ref.(*loop.Task)
		if len(e.Tokens) == 1 && e.Sample && (e.Output > len(t.Request.Resume) || t.State.(*plan).source.present) {
			m.Decodes++
			m.KVTokens += e.Start + 1
			continue
		}
		m.Chunks = append(m.Chunks, perfmodel.Chunk{New: len(e.Tokens), Context: e.Start})
	}
	seconds := c.config.Model.StepSeconds(m) / c.config.Speedup
	if len(m.Chunks) == 0 {
		seconds /= c.config.DecodeSpeedup
	}
	if slow := c.config.Faults.Slow; slow > 0 {
		seconds *= slow
	}
	if !(seconds >= 0) {
		panic(fmt.Sprintf("BUG: mocker: a step of %v seconds", seconds))
	}
	return time.Duration(math.Round(min(seconds*float64(time.Second), float64(maxStep))))
}

// pass returns when d has passed. A step that follows another begins when that one
// was due to end, so that late wake-ups do not add up.
func (c *computer) pass(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return nil
	}
	now := time.Now()
	begin := now
	if c.going {
		lag := now.Sub(c.due)
		begin = c.due
		if lag > catchUp {
			c.late.Add(int64(lag - catchUp))
			begin = now.Add(-catchUp)
		}
	}
	c.due = begin.Add(d)
	wait := c.due.Sub(now)
	if wait <= 0 {
		return ctx.Err()
	}
	if c.timer == nil {
		c.timer = time.NewTimer(wait)
	} else {
		c.timer.Reset(wait)
	}
	select {
	case <-c.timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
