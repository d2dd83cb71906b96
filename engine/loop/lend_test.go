package loop_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/loop"
)

// lender is an engine that lends what it has.
func lender(t *testing.T, d *desk, a *adder, change func(*loop.Config)) *loop.Engine {
	c := config(a)
	c.Card.Lends = true
	c.Handover, c.Lease, c.Loans = d.handOver, time.Minute, d
	change(&c)
	e, _, _ := start(t, c)
	d.wake = e.Wake
	return e
}

// TestLend asks an engine for what it has of prompts: it computes nothing, keeps what it
// says, until it is told to let go, and ends at once where it has nothing, or no way to it.
func TestLend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		e := lender(t, d, &adder{}, func(*loop.Config) {})
		wish := &dynamo.Request{Tokens: append(prompt(22), prompt(8)...), Lend: true}
		if a, err := enginetest.Collect(t.Context(), e, wish); err != nil || a.Finish != dynamo.FinishLength || len(a.Tokens) != 0 || d.told != 0 {
			t.Errorf("of nothing it lends %+v, %v", a, err)
		}
		if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: prompt(22), MaxTokens: 5}); err != nil {
			t.Fatal(err)
		}
		computed := e.Stats().Scheduler.Tokens
		for chunk, err := range e.Generate(t.Context(), wish) {
			if err != nil || string(chunk.Handover) != "here" || len(chunk.Tokens) != 0 || d.ids != 20 {
				t.Fatalf("got %+v, %v, of %d ids", chunk, err, d.ids)
			}
			if n := leases(t, e); n != 1 {
				t.Errorf("%d leases, want 1", n)
			}
			break
		}
		nowhere := *wish
		nowhere.ID = "nowhere"
		if a, err := enginetest.Collect(t.Context(), e, &nowhere); err != nil || a.Finish != dynamo.FinishLength {
			t.Errorf("where nobody can come for it: %+v, %v", a, err)
		}
		if n := leases(t, e); n != 0 || e.Stats().Busy() != 0 || e.Stats().Scheduler.Tokens != computed {
			t.Errorf("%d leases are left, %d tokens computed", n, e.Stats().Scheduler.Tokens-computed)
		}
		refuses := lender(t, &desk{}, &adder{}, func(c *loop.Config) { c.Card.Lends = false })
		if _, err := enginetest.Collect(t.Context(), refuses, wish); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("who does not lend says %v", err)
		}
	})
}

// TestLendMany has many ask at once: some are lent to, and the others told that there is
// nothing, or refused where too many are there at a moment; and who goes away lets go.
func TestLendMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		e := lender(t, d, &adder{}, func(*loop.Config) {})
		if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: prompt(22), MaxTokens: 5}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		var mu sync.Mutex
		lent, ended := 0, 0
		for range 100 {
			asking.Go(func() {
				for chunk, err := range e.Generate(ctx, &dynamo.Request{Tokens: prompt(22), Lend: true}) {
					mu.Lock()
					switch {
					case chunk.Handover != nil:
						lent++
					case err == nil && chunk.Finish == dynamo.FinishLength, dynamo.KindOf(err) == dynamo.KindExhausted:
						ended++
					}
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		if lent != 64 || ended != 36 || leases(t, e) != 64 {
			t.Errorf("%d are lent to, %d told that there is nothing", lent, ended)
		}
		cancel()
		asking.Wait()
		if n := leases(t, e); n != 0 || e.Stats().Busy() != 0 {
			t.Errorf("%d leases are left", n)
		}
	})
}

// TestLendTiers brings what lies below the pool first, and lends nothing where that fails
// or its caller has gone.
func TestLendTiers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails := false
		d, c := &desk{}, &cellar{t: t, delay: time.Second, fails: func() bool { return fails }, open: map[*loop.Task]*time.Timer{}}
		e := lender(t, d, &adder{}, func(lc *loop.Config) { lc.Tiers = c })
		c.wake = e.Wake
		wish := &dynamo.Request{Tokens: prompt(22), Lend: true}
		began := time.Now()
		for chunk, err := range e.Generate(t.Context(), wish) {
			if err != nil || string(chunk.Handover) != "here" || d.ids != 20 || time.Since(began) != time.Second {
				t.Errorf("got %+v, %v, of %d ids after %v", chunk, err, d.ids, time.Since(began))
			}
			break
		}
		fails = true
		wish = &dynamo.Request{Tokens: append([]dynamo.TokenID{9}, prompt(22)...), Lend: true}
		if a, err := enginetest.Collect(t.Context(), e, wish); err != nil || a.Finish != dynamo.FinishLength {
			t.Errorf("what is not brought: %+v, %v", a, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := enginetest.Collect(ctx, e, wish); err == nil {
			t.Error("it does not end with its caller")
		}
		time.Sleep(time.Minute)
		if n := leases(t, e); n != 0 || e.Stats().Busy() != 0 || e.Stats().Scheduler.KV.Loading != 0 {
			t.Errorf("it holds %+v", e.Stats().Scheduler.KV)
		}
	})
}
