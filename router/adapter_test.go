package router_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/router"
)

// addWith adds a worker that has adapters.
func addWith(t *testing.T, r *router.Router, id int, e engine.Engine, running int, adapters ...string) {
	t.Helper()
	w := router.Worker{ID: dynamo.WorkerID(id), Epoch: 1, Engine: e, Card: engine.Card{Model: "m", Adapters: adapters}, MaxRunning: running}
	if err := r.Add(w); err != nil {
		t.Fatal(err)
	}
	r.SetUp(w.ID, w.Epoch, true)
}

// askFor asks for an adapter; "" is the model itself.
func askFor(t *testing.T, r engine.Engine, id, adapter string) error {
	q := request(id)
	q.Adapter = adapter
	_, err := enginetest.Collect(t.Context(), r, q)
	return err
}

// Workers are equal for the model itself, and only those that have an adapter are
// asked for it.
func TestAdapterFilters(t *testing.T) {
	for _, mode := range modes() {
		t.Run(mode, func(t *testing.T) {
			r := open(t, func(c *router.Config) { c.Mode = mode })
			plain, both, one := takes(0), takes(0), takes(0)
			addWith(t, r, 1, plain, 0)
			addWith(t, r, 2, both, 0, "a", "b")
			addWith(t, r, 3, one, 0, "b")
			for i := range 60 {
				if err := askFor(t, r, fmt.Sprint("base", i), ""); err != nil {
					t.Fatal(err)
				}
			}
			was := [3]int64{plain.asked.Load(), both.asked.Load(), one.asked.Load()}
			if mode != "least-loaded" && (was[0] == 0 || was[1] == 0 || was[2] == 0) {
				t.Errorf("the model's requests went to %v, want all three workers", was)
			}
			for i := range 30 {
				if err := askFor(t, r, fmt.Sprint("a", i), "a"); err != nil {
					t.Fatal(err)
				}
			}
			if got, want := both.asked.Load()-was[1], int64(30); got != want || plain.asked.Load() != was[0] || one.asked.Load() != was[2] {
				t.Errorf("of 30 requests for adapter a the one worker that has it got %d", got)
			}
			for i := range 30 {
				if err := askFor(t, r, fmt.Sprint("b", i), "b"); err != nil {
					t.Fatal(err)
				}
			}
			if plain.asked.Load() != was[0] {
				t.Error("a worker without the adapter was asked for it")
			}
			idle(t, r)
		})
	}
}

// An adapter that none of the workers has is refused at once; one whose worker is
// away is waited for; both say so.
func TestAdapterNobodyHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, defaults)
		addWith(t, r, 1, takes(0), 0)
		addWith(t, r, 2, takes(0), 0, "a")
		began := time.Now()
		err := askFor(t, r, "1", "b")
		if got, want := code(err), "unavailable no_worker"; got != want || time.Since(began) != 0 {
			t.Errorf("got %s after %v, want %s at once", got, time.Since(began), want)
		}
		if !strings.Contains(err.Error(), `model m that has the adapter "b"`) || !strings.Contains(err.Error(), "2 are known, 0 have it") {
			t.Errorf("the error does not say what is wrong: %v", err)
		}
		r.SetUp(2, 1, false)
		err = askFor(t, r, "2", "a")
		if got, want := code(err), "unavailable no_worker"; got != want || time.Since(began) != 10*time.Second {
			t.Errorf("got %s after %v, want %s after the wait for a worker", got, time.Since(began), want)
		}
		if !strings.Contains(err.Error(), `"a"`) || !strings.Contains(err.Error(), "2 are known, 1 have it") {
			t.Errorf("the error does not say what is wrong: %v", err)
		}
		if err := askFor(t, r, "3", ""); err != nil {
			t.Errorf("the model itself: %v", err)
		}
		idle(t, r)
	})
}

// A worker that gets an adapter serves those that wait for it, and one that loses it
// is asked for it no more.
func TestAdapterComesAndGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, defaults)
		first, second := takes(0), takes(0)
		addWith(t, r, 1, first, 0, "a")
		addWith(t, r, 2, second, 0)
		r.SetUp(1, 1, false)
		began := time.Now()
		var got error
		var asking sync.WaitGroup
		asking.Go(func() { got = askFor(t, r, "1", "a") })
		time.Sleep(3 * time.Second)
		r.SetAdapters(2, 1, []string{"a"})
		asking.Wait()
		if got != nil || time.Since(began) != 3*time.Second || second.asked.Load() != 1 {
			t.Errorf("got %v after %v, want an answer of the worker that has just got the adapter", got, time.Since(began))
		}
		r.SetUp(1, 1, true)
		r.SetAdapters(2, 1, nil)
		for i := range 5 {
			if err := askFor(t, r, fmt.Sprint(i), "a"); err != nil {
				t.Fatal(err)
			}
		}
		if got := second.asked.Load(); got != 1 {
			t.Errorf("the worker that has lost the adapter was asked %d times, want once", got)
		}
		r.SetAdapters(9, 1, nil) // not known: no matter
		idle(t, r)
	})
}

// Requests that wait for a worker with an adapter hold nobody up who can be served
// elsewhere, not even where the queue is full; among themselves they keep their
// order, and they get the worker's places in it.
func TestAdapterHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, func(c *router.Config) { c.Queue, c.Wait = 3, time.Hour })
		special, plain := takes(10*time.Second), takes(10*time.Second)
		addWith(t, r, 1, special, 1, "a")
		began := time.Now()
		var mu sync.Mutex
		ended := map[string]time.Duration{}
		var all sync.WaitGroup
		ask := func(id, adapter string) {
			all.Go(func() {
				if err := askFor(t, r, id, adapter); err != nil {
					t.Errorf("%s: %v", id, err)
				}
				mu.Lock()
				ended[id] = time.Since(began)
				mu.Unlock()
			})
			synctest.Wait()
		}
		for i := range 4 { // one runs, three wait and fill the queue
			ask(fmt.Sprint("a", i), "a")
		}
		addWith(t, r, 2, plain, 1)
		ask("base0", "")
		if s := r.Stats(); s.Waiting != 3 || s.Booked != 2 {
			t.Errorf("got %d waiting and %d booked, want 3 and the model's own request at the other worker", s.Waiting, s.Booked)
		}
		if got, want := code(askFor(t, r, "base1", "")), "exhausted queue_full"; got != want {
			t.Errorf("both workers full, the queue full: got %s, want %s", got, want)
		}
		all.Wait()
		for id, want := range map[string]time.Duration{"a0": 10 * time.Second, "a1": 20 * time.Second, "a2": 30 * time.Second, "a3": 40 * time.Second, "base0": 10 * time.Second} {
			if got := ended[id]; got != want {
				t.Errorf("%s ended after %v, want %v", id, got, want)
			}
		}
		idle(t, r)
	})
}

// Whoever waits for any worker is not passed by for ever by those who wait for an
// adapter, nor the other way round: a place goes to whoever came first and can use
// it.
func TestAdapterOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, func(c *router.Config) { c.Wait = time.Hour })
		addWith(t, r, 1, takes(10*time.Second), 1, "a")
		addWith(t, r, 2, takes(4*time.Second), 1)
		began := time.Now()
		var mu sync.Mutex
		var order []string
		var all sync.WaitGroup
		for _, id := range []string{"0", "1", "a2", "3", "a4", "5", "6"} {
			all.Go(func() {
				adapter := ""
				if id[0] == 'a' {
					adapter = "a"
				}
				if err := askFor(t, r, id, adapter); err != nil {
					t.Errorf("%s: %v", id, err)
				}
				mu.Lock()
				order = append(order, fmt.Sprintf("%s@%d", id, time.Since(began)/time.Second))
				mu.Unlock()
			})
			synctest.Wait()
		}
		all.Wait()
		got := strings.Join(order, " ")
		// Worker 1 is free at 10, 20 and 30, worker 2 at 4, 8 and so on.
		if want := "0@4 3@8 1@10 5@12 6@16 a2@20 a4@30"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		idle(t, r)
	})
}
