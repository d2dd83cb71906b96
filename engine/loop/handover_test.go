package loop_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// desk lends blocks, which are read for a while after they were recalled.
type desk struct {
	wake                func()
	reading             time.Duration
	told, recalled, ids int
	mu                  struct {
		sync.Mutex
		returned []*loop.Task
	}
}

func (d *desk) handOver(t *loop.Task, kept *sched.Action) []byte {
	d.told++
	d.ids += len(kept.IDs)
	if len(kept.IDs) != kept.Tokens || len(kept.Blocks)*4 < kept.Tokens {
		panic(fmt.Sprintf("%+v", kept))
	}
	if t.Request.ID == "nowhere" {
		return nil
	}
	return []byte("here")
}

func (d *desk) Recall(t *loop.Task) {
	d.recalled++
	back := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.mu.returned = append(d.mu.returned, t)
	}
	if d.reading == 0 {
		back()
		return
	}
	time.AfterFunc(d.reading, func() {
		back()
		d.wake()
	})
}

func (d *desk) Returned() *loop.Task {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.mu.returned) == 0 {
		return nil
	}
	t := d.mu.returned[0]
	d.mu.returned = d.mu.returned[1:]
	return t
}

// lending runs an engine whose KV d lends.
func lending(t *testing.T, d *desk, a *adder) *loop.Engine {
	c := config(a)
	c.Card.Role = engine.RolePrefill
	c.Handover, c.Lease, c.Loans = d.handOver, time.Minute, d
	e, _, _ := start(t, c)
	d.wake = e.Wake
	return e
}

func leases(t *testing.T, e *loop.Engine) int {
	t.Helper()
	if err := e.Check(); err != nil {
		t.Error(err)
	}
	return e.Stats().Scheduler.KV.Leases
}

// TestLoans: blocks that are read still stay nobody else's, and nobody waits for that.
func TestLoans(t *testing.T) {
	for _, reading := range []time.Duration{0, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			d := &desk{reading: reading}
			e := lending(t, d, &adder{})
			for chunk, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: prompt(10), MaxTokens: 5, Prefill: true}) {
				if err != nil || string(chunk.Handover) != "here" || len(chunk.Tokens) != 1 {
					t.Fatalf("got %+v, %v", chunk, err)
				}
				time.Sleep(time.Second)
				break
			}
			want := 0
			if reading > 0 {
				want = 1
			}
			if n := leases(t, e); n != want || e.Stats().Busy() != 0 {
				t.Errorf("read for %v: %d leases and %d requests are left, want %d and none", reading, n, e.Stats().Busy(), want)
			}
			time.Sleep(2 * time.Hour)
			if n := leases(t, e); n != 0 || d.recalled != 1 {
				t.Errorf("read for %v: %d leases after a while, %d recalled", reading, n, d.recalled)
			}
		})
	}
}

// TestGiveUp has an engine give up its requests: each says where its KV is, after what it
// has said, and goes on where it has none, or nobody could come for it.
func TestGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &desk{}
		e := lending(t, d, &adder{step: func(int) error { time.Sleep(time.Millisecond); return nil }})
		var asking sync.WaitGroup
		for i := range 20 { // 16 of them run
			r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprint(i)), Tokens: prompt(9), MaxTokens: 100}
			asking.Go(func() {
				whole, err := enginetest.Collect(t.Context(), lending(t, &desk{}, &adder{}), r)
				if err != nil {
					t.Error(err)
				}
				var got []dynamo.TokenID
				for chunk, err := range e.Generate(t.Context(), r) {
					if err != nil {
						t.Errorf("request %s: %v", r.ID, err)
						return
					}
					if got = append(got, chunk.Tokens...); chunk.Handover != nil {
						if chunk.Finish != dynamo.FinishNone || len(got) == 0 || len(got) == 100 || !slices.Equal(got, whole.Tokens[:len(got)]) {
							t.Errorf("request %s: %d ids, then %+v", r.ID, len(got), chunk)
						}
						return
					}
				}
				if !slices.Equal(got, whole.Tokens) {
					t.Errorf("request %s: got %v, want %v", r.ID, got, whole.Tokens)
				}
			})
		}
		time.Sleep(40 * time.Millisecond)
		e.HandOver()
		asking.Wait()
		if n := leases(t, e); d.told != 16 || n != 0 || e.Stats().Busy() > 0 {
			t.Errorf("%d requests were given up, %d leases and %d requests are left; want 16 and none", d.told, n, e.Stats().Busy())
		}
		// One that nobody can come for fails so that it goes on elsewhere.
		time.AfterFunc(10*time.Millisecond, e.HandOver)
		_, err := enginetest.Collect(t.Context(), e, &dynamo.Request{ID: "nowhere", Tokens: prompt(9), MaxTokens: 100})
		if code, lost := engine.Lost(err); !lost || code != engine.CodeDraining {
			t.Errorf("got %v", err)
		}
		if n := leases(t, e); n != 0 {
			t.Errorf("%d leases are left", n)
		}
	})
}
