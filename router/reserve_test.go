package router_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/tokens"
)

// asking is an Ask with a prompt.
func asking(id string, ids []dynamo.TokenID) *router.Ask {
	q := request(id)
	q.Tokens, q.MaxTokens = ids, 100
	return &router.Ask{Request: q}
}

// quiet fails unless nothing is booked, wherever it is counted.
func quiet(t *testing.T, r *router.Router) {
	t.Helper()
	idle(t, r)
	all, err := r.Survey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range all {
		if o.Booked != 0 || o.BookedTokens != 0 || o.PrefillTokens != 0 || o.KVTokens != 0 {
			t.Errorf("at the end: worker %v has booked %d (%d tokens), prefill %d, KV %d; want 0", o.Worker, o.Booked, o.BookedTokens, o.PrefillTokens, o.KVTokens)
		}
	}
}

// A selection says who holds what of the prompt, books nothing, asks nobody, and can
// be explained; hashes say the same as tokens do.
func TestSelect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, engines := caching(t, 3, func(c *router.Config) { c.PredictTTL = 0 })
		ids := text(1, 4*blockSize+2)
		apply(t, r, 2, stored(blockSize, ids))
		hashed := asking("h", nil)
		hashed.Hashes, hashed.BlockSize, hashed.Length = tokens.AppendHashes(nil, 0, blockSize, ids), blockSize, len(ids)
		for _, a := range []*router.Ask{asking("a", ids), hashed} {
			c, err := r.Select(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			want := 4 * blockSize
			if c.Worker != 2 || c.Held != [4]int{want, want, want, want} || c.NewTokens != 2 || c.PromptTokens != len(ids) || c.BlockSize != blockSize || c.Rank == nil || *c.Rank != 0 {
				t.Errorf("got %+v, want worker 2 with %d tokens held and 2 to compute", c, want)
			}
			x, known := r.Explain(a.Request.ID)
			if !known || x.Attempts[0].Winner != dynamo.WorkerID(2).String() {
				t.Errorf("explanation: %+v, %v", x, known)
			}
		}
		other, err := r.Select(t.Context(), asking("b", text(7, 4*blockSize)))
		if err != nil || other.Held != [4]int{} || other.NewTokens != 4*blockSize || other.Rank != nil {
			t.Errorf("a prompt that nobody holds: %+v, %v", other, err)
		}
		for _, e := range engines {
			if e.asked.Load() != 0 {
				t.Error("a selection has asked a worker")
			}
		}
		quiet(t, r)
	})
}

// Who is asked for in turn has turns, whether or not it is reserved.
func TestSelectTurns(t *testing.T) {
	r := open(t, func(c *router.Config) { c.Mode = "round-robin" })
	for i := range 3 {
		addWith(t, r, i+1, nil, 0)
	}
	seen := map[dynamo.WorkerID]int{}
	for i := range 30 {
		c, err := r.Select(t.Context(), asking(fmt.Sprint("q", i), text(1, 3)))
		if err != nil {
			t.Fatal(err)
		}
		seen[c.Worker]++
	}
	if seen[1] != 10 || seen[2] != 10 || seen[3] != 10 {
		t.Errorf("turns: %v, want 10 each", seen)
	}
}

// Those that may not be chosen are not, and what nobody can take is refused by kind.
func TestSelectRefuses(t *testing.T) {
	r := open(t, leastLoaded)
	if _, err := r.Select(t.Context(), asking("none", text(1, 3))); err == nil || dynamo.KindOf(err) != dynamo.KindUnavailable {
		t.Errorf("without workers: %v", err)
	}
	for i := range 3 {
		addWith(t, r, i+1, nil, 1)
	}
	one := asking("allowed", text(1, 3))
	one.Allowed = []dynamo.WorkerID{3}
	two := asking("excluded", text(1, 3))
	two.Excluded = []dynamo.WorkerID{1, 2}
	pinned := asking("pinned", text(1, 3))
	pinned.Request.Routing = &dynamo.Routing{Worker: 3}
	for _, a := range []*router.Ask{one, two, pinned} {
		if c, err := r.Select(t.Context(), a); err != nil || c.Worker != 3 {
			t.Errorf("%s: got worker %v, %v, want 3", a.Request.ID, c.Worker, err)
		}
	}
	if _, err := r.Reserve(t.Context(), pinned, time.Minute, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Reserve(t.Context(), pinned, time.Minute, nil); err == nil || dynamo.KindOf(err) != dynamo.KindExhausted {
		t.Errorf("at a full worker: %v", err)
	}
	pinned.Request.Routing = &dynamo.Routing{Worker: 9}
	if _, err := r.Reserve(t.Context(), pinned, time.Minute, nil); err == nil || dynamo.KindOf(err) != dynamo.KindNotFound {
		t.Errorf("at an unknown worker: %v", err)
	}
	bad := asking("bad", text(1, 3))
	bad.Request.Routing = &dynamo.Routing{Overrides: dynamo.RoutingOverrides{Policy: "nope"}}
	if _, err := r.Select(t.Context(), bad); err == nil || dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("with an unknown policy: %v", err)
	}
	r.Retire()
	if _, err := r.Select(t.Context(), one); err == nil || dynamo.KindOf(err) != dynamo.KindUnavailable {
		t.Errorf("after others have taken over: %v", err)
	}
}

// Each call about a reservation counts once, and none after its end.
func TestReservationOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := caching(t, 1, func(*router.Config) {})
		var ends []router.End
		v, err := r.Reserve(t.Context(), asking("a", text(1, 10)), time.Minute, func(_ *router.Reservation, e router.End) { ends = append(ends, e) })
		if err != nil {
			t.Fatal(err)
		}
		load := func() [3]int {
			all, _ := r.Survey(nil)
			return [3]int{all[0].Booked, all[0].PrefillTokens, all[0].KVTokens}
		}
		step := func(what string, did, want bool, loads [3]int) {
			t.Helper()
			if did != want || load() != loads {
				t.Errorf("%s: told %v, loads %v, want %v, %v", what, did, load(), want, loads)
			}
		}
		step("a token too early", v.Grow(3), true, [3]int{1, 10, 0})
		time.Sleep(20 * time.Millisecond)
		step("first token", v.PrefillDone(4), true, [3]int{1, 0, 10})
		step("again", v.PrefillDone(0), false, [3]int{1, 0, 10})
		step("a block", v.Grow(blockSize), true, [3]int{1, 0, 14})
		step("release", v.Release(t.Context(), router.Completed, 4), true, [3]int{})
		step("again", v.Release(t.Context(), router.Failed, 4), false, [3]int{})
		step("a block after the end", v.Grow(4), false, [3]int{})
		step("first token after the end", v.PrefillDone(4), false, [3]int{})
		time.Sleep(time.Hour)
		if !slices.Equal(ends, []router.End{router.Completed}) {
			t.Errorf("ends: %v, want one", ends)
		}
		x, _ := r.Explain("a")
		if a := x.Attempts[0]; a.Outcome != "completed" || a.ObservedMillis != 20 || a.ObservedCached == nil || *a.ObservedCached != 4 {
			t.Errorf("explanation: outcome %q, first token after %v ms, cached %v", a.Outcome, a.ObservedMillis, a.ObservedCached)
		}
		quiet(t, r)
	})
}

// A reservation that nobody speaks of ends by itself, a lease after the last word.
func TestReservationLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := caching(t, 1, func(*router.Config) {})
		began := time.Now()
		var ended time.Duration
		v, err := r.Reserve(t.Context(), asking("a", text(1, 10)), time.Minute, func(_ *router.Reservation, e router.End) {
			if ended = time.Since(began); e != router.Expired {
				t.Errorf("ended by %v", e)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		v.PrefillDone(0)
		time.Sleep(50 * time.Second)
		v.Grow(1)
		time.Sleep(time.Hour)
		synctest.Wait()
		if want := 160 * time.Second; ended != want {
			t.Errorf("it ended after %v, want %v", ended, want)
		}
		if v.Release(t.Context(), router.Completed, 0) {
			t.Error("it could be released after its lease")
		}
		quiet(t, r)
	})
}

// What a client says of a worker is learned as if the router had seen it, and one that
// waits gets the place that is given back.
func TestReservationTeaches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, end := range []router.End{router.Refused, router.Lost, router.Stalled, router.Leaving} {
			r := open(t, leastLoaded)
			addWith(t, r, 1, nil, 0)
			addWith(t, r, 2, nil, 0)
			v, err := r.Reserve(t.Context(), asking("a", text(1, 3)), time.Minute, nil)
			if err != nil {
				t.Fatal(err)
			}
			v.Release(t.Context(), end, 0)
			for i := range 3 {
				c, err := r.Select(t.Context(), asking(fmt.Sprint("b", i), text(1, 3)))
				if err != nil || c.Worker == v.Choice.Worker {
					t.Errorf("after %v at worker %v: got worker %v, %v", end, v.Choice.Worker, c.Worker, err)
				}
			}
			quiet(t, r)
		}
		r := open(t, leastLoaded)
		addWith(t, r, 1, nil, 1)
		v, err := r.Reserve(t.Context(), asking("a", text(1, 3)), time.Minute, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(3*time.Second, func() { v.Release(context.Background(), router.Completed, 0) })
		waits := asking("b", text(1, 3))
		waits.Wait = true
		next, err := r.Reserve(t.Context(), waits, time.Minute, nil)
		if err != nil || next.Choice.Waited != 3*time.Second {
			t.Fatalf("one that waits: %v, waited %v", err, next.Choice.Waited)
		}
		next.Release(t.Context(), router.Completed, 0)
		quiet(t, r)
	})
}

// Whatever clients do, and forget to do, while workers come and go: nothing stays
// booked, and nothing is released twice.
func TestReservationsQuiesce(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { churnReservations(t, seed) })
		})
	}
}

func churnReservations(t *testing.T, seed uint64) {
	r, _ := caching(t, 3, func(c *router.Config) { c.Wait = 2 * time.Second })
	if err := r.Add(router.Worker{ID: 9, Epoch: 1, Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 2}); err != nil {
		t.Fatal(err)
	}
	r.SetUp(9, 1, true)
	var clients sync.WaitGroup
	var mu sync.Mutex
	made, ended, released := 0, 0, 0
	for k := range 60 {
		rnd := rand.New(rand.NewPCG(seed, uint64(k)))
		clients.Go(func() {
			time.Sleep(time.Duration(rnd.IntN(5000)) * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rnd.IntN(4000))*time.Millisecond)
			defer cancel()
			a := asking(fmt.Sprint(seed, "-", k), text(rnd.IntN(5), 1+rnd.IntN(40)))
			if a.Wait = rnd.IntN(2) == 0; rnd.IntN(3) == 0 {
				a.Request.Routing = &dynamo.Routing{Worker: 9}
			}
			v, err := r.Reserve(ctx, a, time.Duration(500+rnd.IntN(3000))*time.Millisecond, func(*router.Reservation, router.End) {
				mu.Lock()
				ended++
				mu.Unlock()
			})
			if err != nil {
				return
			}
			mu.Lock()
			made++
			mu.Unlock()
			for range rnd.IntN(6) {
				var calls sync.WaitGroup
				for range 1 + rnd.IntN(2) {
					op, n := rnd.IntN(5), rnd.IntN(20)
					calls.Go(func() {
						switch op {
						case 0, 1:
							v.PrefillDone(n - 1)
						case 2, 3:
							v.Grow(n)
						case 4:
							if v.Release(ctx, router.End(n%8), n) {
								mu.Lock()
								released++
								mu.Unlock()
							}
						}
					})
				}
				calls.Wait()
				time.Sleep(time.Duration(rnd.IntN(1500)) * time.Millisecond)
			}
		})
	}
	time.Sleep(2 * time.Second)
	r.Remove(2, 1)
	time.Sleep(time.Second)
	if err := r.Add(router.Worker{ID: 2, Epoch: 2, Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 100}); err != nil {
		t.Fatal(err)
	}
	r.SetUp(2, 2, true)
	clients.Wait()
	time.Sleep(time.Minute)
	quiet(t, r)
	mu.Lock()
	defer mu.Unlock()
	if made == 0 || released == 0 || ended != made || released > made {
		t.Errorf("%d made, %d ended, %d released by clients", made, ended, released)
	}
}
