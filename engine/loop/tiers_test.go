package loop_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// cellar is tiers that have everything, take a while to bring it, and fail at times.
type cellar struct {
	t     *testing.T
	wake  func()
	delay time.Duration
	fails func() bool
	open  map[*loop.Task]*time.Timer
	brought, cancelled,
	computed int
	mu struct {
		sync.Mutex
		ended []*loop.Task
	}
}

func (c *cellar) External(t *loop.Task, found int) int {
	return max(found, len(t.Request.Tokens)/4*4)
}

func (c *cellar) Begin(t *loop.Task, start, n int, blocks []int32) {
	if c.open[t] != nil || len(blocks)*4 != n || start%4 != 0 {
		c.t.Errorf("begin at %d, %d ids into %v; open: %v", start, n, blocks, c.open[t] != nil)
	}
	c.open[t] = time.AfterFunc(c.delay, func() {
		c.mu.Lock()
		c.mu.ended = append(c.mu.ended, t)
		c.mu.Unlock()
		c.wake()
	})
}

func (c *cellar) Cancel(t *loop.Task) {
	if c.open[t] == nil {
		c.t.Error("cancelled without a beginning")
		return
	}
	c.cancelled++
	c.open[t].Stop()
	delete(c.open, t)
}

func (c *cellar) Ended() (*loop.Task, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.mu.ended) > 0 {
		t := c.mu.ended[0]
		c.mu.ended = c.mu.ended[1:]
		if c.open[t] != nil {
			delete(c.open, t)
			c.brought++
			return t, !c.fails()
		}
	}
	return nil, false
}

func (c *cellar) Arriving() *loop.Task { return nil }

func (c *cellar) Computed(b *sched.Batch, _ time.Duration) { c.computed += b.Tokens }

// TestTiers has requests wait for KV from below, some of it in vain, and some callers
// give up meanwhile: every answer is what it should be, and nothing is left.
func TestTiers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 1))
		c := &cellar{t: t, delay: 50 * time.Millisecond, open: map[*loop.Task]*time.Timer{}, fails: func() bool { return r.IntN(3) == 0 }}
		a := &adder{}
		conf := config(a)
		conf.Tiers = c
		e, cancel, ended := start(t, conf)
		c.wake = e.Wake
		var all sync.WaitGroup
		var cached atomic.Int64
		for i := range 60 {
			all.Go(func() {
				ctx := t.Context()
				patience := time.Hour
				if i%5 == 0 {
					patience = time.Duration(i) * time.Millisecond
				}
				ctx, stop := context.WithTimeout(ctx, patience)
				defer stop()
				ids := prompt(8 + i)
				ids[0] = dynamo.TokenID(i % 7)
				got, err := enginetest.Collect(ctx, e, &dynamo.Request{Tokens: ids, MaxTokens: 3})
				if i%5 == 0 {
					return
				}
				var sum dynamo.TokenID
				for _, id := range ids {
					sum += id
				}
				if err != nil || len(got.Tokens) != 3 || got.Tokens[0] != 2+sum%200 {
					t.Errorf("request %d: %v, %v", i, got.Tokens, err)
				}
				if got.Cached >= len(ids) {
					t.Errorf("request %d: %d of %d ids cached", i, got.Cached, len(ids))
				}
				if got.Cached > 0 {
					cached.Add(1)
				}
			})
			time.Sleep(3 * time.Millisecond)
		}
		all.Wait()
		if err := e.Check(); err != nil || e.Stats().Busy() > 0 || len(c.open) > 0 {
			t.Errorf("%v, %d busy, %d open", err, e.Stats().Busy(), len(c.open))
		}
		if c.brought < 10 || c.cancelled == 0 || cached.Load() == 0 || c.computed == 0 {
			t.Errorf("the test is too weak: %d brought, %d cancelled, %d cached", c.brought, c.cancelled, cached.Load())
		}
		cancel()
		<-ended
	})
}
