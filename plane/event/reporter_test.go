package event_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/event"
)

// reporting runs a reporter of a load that the test changes, in a bubble.
type reporting struct {
	*event.LoadReporter
	mu struct {
		sync.Mutex
		load engine.Load
	}
	asked atomic.Int64
}

func newReporting(t *testing.T) *reporting {
	r := &reporting{}
	c := event.DefaultLoadConfig()
	c.Worker, c.Epoch, c.Load = 3, 4, func() engine.Load {
		r.asked.Add(1)
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.mu.load
	}
	var err error
	if r.LoadReporter, err = event.NewLoadReporter(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: got %v, want %v", err, context.Canceled)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	synctest.Wait()
	return r
}

// step is what an engine does.
func (r *reporting) step() {
	r.mu.Lock()
	r.mu.load.Steps++
	r.mu.Unlock()
	r.Wake()
}

func (r *reporting) reports() uint64 { return r.Publisher().Position().Seq }

func TestLoadReporter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t)
		at := func(what string, want uint64) {
			t.Helper()
			synctest.Wait()
			if got := r.reports(); got != want {
				t.Errorf("%s: got %d reports, want %d", what, got, want)
			}
		}
		at("at the start", 1)
		time.Sleep(200 * time.Millisecond)
		r.step()
		at("a change after a while", 2)
		for range 49 {
			time.Sleep(time.Millisecond)
			r.step()
		}
		at("changes within 50 ms", 2)
		time.Sleep(time.Millisecond)
		at("after 50 ms", 3)
		for range 1000 { // a second of steps
			time.Sleep(time.Millisecond)
			r.step()
		}
		at("a second of steps", 23)
		time.Sleep(10 * time.Millisecond)
		r.step() // not at the moment of a report
		time.Sleep(990 * time.Millisecond)
		at("a quiet second", 24) // the last steps; the heartbeat is due in a moment
		time.Sleep(10 * time.Second)
		at("ten quiet seconds", 34)
		time.Sleep(100 * time.Millisecond) // past another one
		asked := r.asked.Load()
		for range 10 {
			r.Wake() // nothing has changed
			time.Sleep(60 * time.Millisecond)
		}
		at("woken in vain", 35)
		if got := r.asked.Load() - asked; got > 11 {
			t.Errorf("woken 10 times, asked %d times", got)
		}
	})
}

// What a follower of loads hears is the newest load, however late it comes.
func TestFollowLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReporting(t)
		b := newDirect(event.BatchBytes, 0)
		detach, err := b.Attach(r.Publisher())
		if err != nil {
			t.Fatal(err)
		}
		defer detach()
		for range 500 {
			r.step()
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		ctx, cancel := context.WithCancel(t.Context())
		var heard []engine.Load
		done := make(chan struct{})
		go func() {
			defer close(done)
			err := event.FollowLoad(ctx, event.DefaultFollowConfig(event.Source{Worker: 3, Epoch: 4}, b.Subscribe), func(l engine.Load) { heard = append(heard, l) })
			if !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
		}()
		synctest.Wait()
		if len(heard) != 1 || heard[0].Steps != 500 {
			t.Errorf("late: got %+v, want the newest load alone", heard)
		}
		b.cut()
		r.step()
		time.Sleep(300 * time.Millisecond)
		b.mend()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if last := heard[len(heard)-1]; last.Steps != 501 {
			t.Errorf("after a cut: got %+v, want 501 steps", last)
		}
		cancel()
		<-done
	})
}

func TestLoadConfigFaults(t *testing.T) {
	if _, err := event.NewLoadReporter(event.LoadConfig{}); dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("got %v, want %v", err, dynamo.KindInvalid)
	}
}

func TestWakeIsCheap(t *testing.T) {
	c := event.DefaultLoadConfig()
	c.Worker, c.Epoch, c.Load = 3, 4, func() engine.Load { return engine.Load{} }
	r, err := event.NewLoadReporter(c)
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(100, r.Wake); got != 0 {
		t.Errorf("Wake allocates %v times", got)
	}
}
