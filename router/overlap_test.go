package router_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/tokens"
)

const blockSize = 4

func leastLoaded(c *router.Config) { c.Mode = "least-loaded" }

// modes are the policies that place a request which says nothing of where it is to
// go: all but the one that demands it.
func modes() []string {
	return slices.DeleteFunc(placement.Policies(), func(name string) bool { return name == "direct" })
}

// text is one of n tokens; those of different kinds share no block.
func text(kind, n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(kind*1000 + i)
	}
	return ids
}

// caching is a router over n workers with a KV cache, in mode kv.
func caching(t *testing.T, n int, change func(*router.Config)) (*router.Router, []*scripted) {
	t.Helper()
	r := open(t, func(c *router.Config) {
		c.Mode = "kv"
		change(c)
	})
	var all []*scripted
	for i := range n {
		e := takes(time.Second)
		w := router.Worker{ID: dynamo.WorkerID(i + 1), Epoch: 1, Engine: e, Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 100}
		if err := r.Add(w); err != nil {
			t.Fatal(err)
		}
		r.SetUp(w.ID, w.Epoch, true)
		all = append(all, e)
	}
	return r, all
}

// stored is the event of a worker that has come to hold the blocks of ids.
func stored(size int, ids []dynamo.TokenID) event.Delivery {
	b := event.KVBatch{BlockSize: size}
	e := event.KVEvent{Kind: kvbm.Stored}
	for _, block := range tokens.AppendBlocks(nil, 0, size, ids) {
		e.Blocks = append(e.Blocks, event.KVBlock{Block: block})
	}
	b.Events = append(b.Events, e)
	return event.Delivery{Kind: event.Event, Payload: b.Append(nil)}
}

func removed(ids []dynamo.TokenID, from int) event.Delivery {
	b := event.KVBatch{BlockSize: blockSize}
	e := event.KVEvent{Kind: kvbm.Removed}
	for _, block := range tokens.AppendBlocks(nil, 0, blockSize, ids)[from:] {
		e.Hashes = append(e.Hashes, block.Hash)
	}
	b.Events = append(b.Events, e)
	return event.Delivery{Kind: event.Event, Payload: b.Append(nil)}
}

// deliver has a worker's subscription deliver d alone, and reports whether it was
// taken in; otherwise the worker's cache would be begun anew.
func deliver(r *router.Router, id dynamo.WorkerID, d event.Delivery) (taken bool) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_ = r.FollowKV(ctx, event.DefaultFollowConfig(event.Source{Worker: id, Epoch: 1}, func(context.Context, event.Source, event.Position) iter.Seq2[event.Delivery, error] {
		return func(yield func(event.Delivery, error) bool) {
			taken = yield(d, nil)
			cancel()
		}
	}), nil)
	return taken
}

func apply(t *testing.T, r *router.Router, id int, d event.Delivery) {
	t.Helper()
	if !deliver(r, dynamo.WorkerID(id), d) {
		t.Fatalf("a delivery is refused: %+v", d)
	}
}

// sent asks with a prompt and returns the number of the worker that was asked.
func sent(t *testing.T, r *router.Router, all []*scripted, id string, ids []dynamo.TokenID, change func(*dynamo.Request)) int {
	t.Helper()
	q := request(id)
	q.Tokens = ids
	if change != nil {
		change(q)
	}
	before := make([]int64, len(all))
	for i, e := range all {
		before[i] = e.asked.Load()
	}
	if _, err := enginetest.Collect(t.Context(), r, q); err != nil {
		t.Fatal(err)
	}
	for i, e := range all {
		if e.asked.Load() > before[i] {
			return i + 1
		}
	}
	t.Fatal("nobody was asked")
	return 0
}

// A prompt goes to the worker that holds its beginning, as long as that says so, and
// nowhere else by policies that look at it.
func TestOverlap(t *testing.T) {
	for _, mode := range []string{"kv", "dynamo", "lmetric", "sticky"} {
		t.Run(mode, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, all := caching(t, 4, func(c *router.Config) { c.Mode, c.PredictTTL = mode, 0 })
				for kind := range 4 {
					apply(t, r, kind+1, stored(blockSize, text(kind, 400)))
				}
				for i := range 12 {
					kind := i * 5 % 4
					if got, want := sent(t, r, all, fmt.Sprint(i), text(kind, 420), nil), kind+1; got != want {
						t.Errorf("a prompt that worker %d holds went to %d", want, got)
					}
				}
				apply(t, r, 1, removed(text(0, 400), 0))
				apply(t, r, 2, stored(blockSize, text(0, 400)))
				if got := sent(t, r, all, "moved", text(0, 420), nil); got != 2 {
					t.Errorf("what worker 1 has dropped and 2 has stored went to %d", got)
				}
				r.Remove(2, 1)
				if got := sent(t, r, all, "gone", text(0, 420), nil); got == 2 {
					t.Error("a prompt went to a worker that has left")
				}
				idle(t, r)
			})
		})
	}
}

// What a worker was sent a moment ago it is expected to hold, though it has not said
// so; and no longer than for a while.
func TestPredicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, all := caching(t, 4, func(c *router.Config) { c.PredictTTL = 5 * time.Second })
		for id := range 4 {
			apply(t, r, id+1, stored(blockSize, text(9, 8))) // so that all are known to send events
		}
		first := sent(t, r, all, "1", text(1, 800), nil)
		if got := sent(t, r, all, "2", text(1, 800), nil); got != first {
			t.Errorf("a prompt that worker %d was sent a second ago went to %d", first, got)
		}
		if x := explained(t, r, "2"); x.Attempts[0].PredictedCached != 800 {
			t.Errorf("of 800 tokens %d were thought to be held", x.Attempts[0].PredictedCached)
		}
		time.Sleep(7 * time.Second)
		sent(t, r, all, "3", text(1, 800), nil)
		if x := explained(t, r, "3"); x.Attempts[0].PredictedCached != 0 {
			t.Errorf("after 7 s %d tokens are thought to be held that the worker has said nothing of", x.Attempts[0].PredictedCached)
		}
		idle(t, r)
	})
}

// A worker that sends no events is known by what it was sent.
func TestSilentWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, all := caching(t, 2, func(c *router.Config) { c.PredictTTL = time.Second })
		for i := range 30 {
			sent(t, r, all, fmt.Sprint(i), text(i, 400), nil)
		}
		where := sent(t, r, all, "a", text(77, 400), nil)
		time.Sleep(30 * time.Second)
		if got := sent(t, r, all, "b", text(77, 420), nil); got != where {
			t.Errorf("a prompt that worker %d was sent went to %d", where, got)
		}
		for _, w := range r.State().Workers {
			if w.Cache != "approximate" {
				t.Errorf("worker %s is said to be %s", w.ID, w.Cache)
			}
		}
		idle(t, r)
	})
}

// A gap, a reset and a snapshot; hostile payloads; blocks of another size.
func TestCacheStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, all := caching(t, 3, func(c *router.Config) { c.PredictTTL = 0 })
		state := func() string { return r.State().Workers[0].Cache }
		if state() != "none" {
			t.Errorf("before anything came: %s", state())
		}
		apply(t, r, 1, event.Delivery{Kind: event.Reset})
		d := stored(blockSize, text(1, 400))
		d.Kind = event.Snapshot
		apply(t, r, 1, d)
		if state() != "repairing" {
			t.Errorf("amid a snapshot: %s", state())
		}
		apply(t, r, 1, event.Delivery{Kind: event.Snapshot, Last: true})
		if s := r.State(); state() != "exact" || s.Workers[0].Blocks != 100 || s.Index.Blocks != 100 {
			t.Errorf("after it: %s, %+v", state(), s.Index)
		}
		if got := sent(t, r, all, "1", text(1, 420), nil); got != 1 {
			t.Errorf("went to %d", got)
		}
		apply(t, r, 1, event.Delivery{Kind: event.Gap})
		if state() != "repairing" {
			t.Errorf("after a gap: %s", state())
		}
		apply(t, r, 1, event.Delivery{Kind: event.Reset, Last: true})
		if s := r.State(); state() != "exact" || s.Index.Blocks != 0 {
			t.Errorf("after a reset to nothing: %s, %+v", state(), s.Index)
		}
		if deliver(r, 1, event.Delivery{Kind: event.Event, Payload: []byte{1, 0, 0, 0}}) { // blocks without tokens
			t.Error("nonsense is taken in")
		}
		apply(t, r, 9, stored(blockSize, text(1, 400))) // nobody knows it
		// Blocks of another size have an index of their own.
		apply(t, r, 2, stored(2*blockSize, text(1, 400)))
		apply(t, r, 3, stored(blockSize, text(1, 200)))
		if got := sent(t, r, all, "2", text(1, 420), nil); got != 2 {
			t.Errorf("400 tokens in blocks of 8 against 200 in blocks of 4: went to %d", got)
		}
		for size := 100; size < 120; size++ {
			d := stored(size, text(1, 400))
			deliver(r, 1, d) // those beyond a bound are refused
		}
		idle(t, r)
	})
}

func explained(t *testing.T, r *router.Router, id string) router.Explanation {
	t.Helper()
	x, known := r.Explain(dynamo.RequestID(id))
	if !known {
		t.Fatalf("nothing is known of %s", id)
	}
	if _, err := json.Marshal(x); err != nil {
		t.Fatal(err)
	}
	return x
}

// An explanation names the winner, the others and what was thought and came true, and
// its record leads to the same winner again.
func TestExplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, all := caching(t, 12, func(c *router.Config) { c.PredictTTL = 0 })
		apply(t, r, 7, stored(blockSize, text(3, 400)))
		sent(t, r, all, "chat-1", text(3, 420), nil)
		x := explained(t, r, "chat")
		if len(x.Attempts) != 1 {
			t.Fatalf("got %+v", x)
		}
		a := x.Attempts[0]
		if a.Winner != dynamo.WorkerID(7).String() || a.Policy != "kv" || a.PredictedCached != 400 || a.Outcome != "completed" || a.ObservedMillis != 1000 {
			t.Errorf("got %+v", a)
		}
		if len(a.Candidates) != 8 || a.Others.Count != 4 || a.Candidates[0].Overlap["device"] != 100 || a.Candidates[1].Overlap["device"] != 0 {
			t.Errorf("got the candidates %+v and %+v others", a.Candidates, a.Others)
		}
		if words := strings.Join(a.Words, "\n"); !strings.Contains(words, a.Winner) || !strings.Contains(words, "would have won") {
			t.Errorf("in words: %s", words)
		}
		rec, err := placement.ParseRecord(a.Record)
		if err != nil || rec.Again() != 0 || rec.Best[0].Worker != 7 {
			t.Errorf("the record: %+v, %v", rec, err)
		}
		if _, known := r.Explain("cha"); known {
			t.Error("a part of an id is explained")
		}
		if s := r.State(); len(s.Recent) != 1 || s.Recent[0].Overlap != 100 || s.Recent[0].Worker != a.Winner {
			t.Errorf("the state has %+v", s.Recent)
		}
		idle(t, r)
	})
}

// A request that names its worker goes there, and nowhere if there is no such worker.
func TestPinned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, all := caching(t, 3, func(*router.Config) {})
		apply(t, r, 1, stored(blockSize, text(3, 400)))
		pin := func(id dynamo.WorkerID) func(*dynamo.Request) {
			return func(q *dynamo.Request) { q.Routing = &dynamo.Routing{Worker: id} }
		}
		for _, id := range []dynamo.WorkerID{3, 2, 3} {
			if got := sent(t, r, all, "p", text(3, 420), pin(id)); got != int(id) {
				t.Errorf("a request for worker %v went to %d", id, got)
			}
		}
		q := request("nowhere")
		pin(44)(q)
		_, err := enginetest.Collect(t.Context(), r, q)
		if dynamo.KindOf(err) != dynamo.KindNotFound || !strings.Contains(err.Error(), "names worker 000000000000002c") {
			t.Errorf("a worker that does not exist: got %v", err)
		}
		bad := request("odd")
		bad.Routing = &dynamo.Routing{Overrides: dynamo.RoutingOverrides{Policy: "best"}}
		if _, err := enginetest.Collect(t.Context(), r, bad); dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "round-robin") {
			t.Errorf("a policy that does not exist: got %v", err)
		}
		if names := modes(); !slices.Contains(names, "kv") {
			t.Errorf("got the policies %v", names)
		}
		idle(t, r)
	})
}

// A worker that is known to be slow is not left for one of its kind of which nothing is
// known: that one is no faster.
func TestSpeedOfPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, all := caching(t, 3, func(c *router.Config) { c.PredictTTL = 0 })
		apply(t, r, 1, stored(blockSize, text(1, 400)))
		apply(t, r, 2, stored(blockSize, text(8, 8)))
		apply(t, r, 3, stored(blockSize, text(9, 8)))
		for i := range 60 {
			if got := sent(t, r, all, fmt.Sprint(i), text(1, 420), nil); got != 1 {
				t.Fatalf("request %d went to %d, which holds nothing of it", i, got)
			}
		}
		if x := explained(t, r, "59"); !x.Attempts[0].Candidates[1].Measured || x.Attempts[0].PredictedMillis < 300 {
			t.Errorf("of workers that take a second a request it is believed: %+v", x.Attempts[0])
		}
		idle(t, r)
	})
}
