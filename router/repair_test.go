package router_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/tokens"
)

// kvWorker is a worker with a KV cache that tells of it over a network in memory, and
// a router that follows it but for what the test loses.
type kvWorker struct {
	t      *testing.T
	r      *router.Router
	source *event.KVSource
	rng    *rand.Rand
	log    strings.Builder
	count  *obs.Registry
	held   map[dynamo.BlockHash]bool
	lose   atomic.Int32 // so many events are lost
	later  atomic.Int32 // so many events are of a form that only a later version knows
	deaf   atomic.Bool  // questions are not understood
	// Bytes of answers and of snapshots, and the number of the latter.
	asked, snapshots, resets atomic.Int64
}

// watched runs f in a bubble with a worker that is followed.
func watched(t *testing.T, f func(*kvWorker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &kvWorker{t: t, rng: rand.New(rand.NewPCG(1, 2)), held: map[dynamo.BlockHash]bool{}}
		w.count = obs.NewRegistry()
		w.r = open(t, func(c *router.Config) {
			c.Mode, c.Metrics, c.Logger = "kv", router.NewMetrics(w.count), textLog(&w.log)
		})
		if err := w.r.Add(router.Worker{ID: 7, Epoch: 1, Engine: takes(time.Second), Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 100}); err != nil {
			t.Fatal(err)
		}
		kc := event.DefaultKVConfig()
		kc.Worker, kc.Epoch, kc.BlockSize = 7, 1, blockSize
		var err error
		if w.source, err = event.NewKVSource(kc); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = w.source.Run(ctx) })
		end := w.connectAndFollow()
		f(w)
		end()
		cancel()
		running.Wait()
	})
}

// connectAndFollow has the router follow the source until end is called.
func (w *kvWorker) connectAndFollow() (end func()) {
	peer, disconnect := w.connect()
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.follow(ctx, peer) })
	return func() {
		cancel()
		running.Wait()
		disconnect()
	}
}

// connect serves the source's events, and connects to it.
func (w *kvWorker) connect() (peer *rpc.Peer, end func()) {
	n := testnet.New()
	l, err := n.Host("worker").Listen(":0")
	if err != nil {
		w.t.Fatal(err)
	}
	config := rpc.DefaultConfig()
	config.Key, config.Dial = []byte("a cluster key for tests only"), n.Host("frontend").Dial
	server, err := rpc.NewServer(rpc.ServerConfig{Config: config, Worker: 7, Epoch: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	bus := event.NewRPC(nil)
	bus.Register(server)
	detach, err := bus.Attach(w.source.Publisher())
	if err != nil {
		w.t.Fatal(err)
	}
	client, err := rpc.NewClient(config)
	if err != nil {
		w.t.Fatal(err)
	}
	peer = client.Peer(rpc.PeerConfig{Addresses: []string{"tcp://" + l.Addr().String()}, Worker: 7, Epoch: 1})
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	running.Go(func() { _ = peer.Run(ctx) })
	return peer, func() {
		cancel()
		detach()
		if err := server.Close(); err != nil {
			w.t.Error(err)
		}
		running.Wait()
	}
}

// follow follows the worker's events, as a frontend does, but for what is lost.
func (w *kvWorker) follow(ctx context.Context, peer *rpc.Peer) {
	c := event.DefaultFollowConfig(event.Source{Worker: 7, Epoch: 1}, func(ctx context.Context, src event.Source, from event.Position) iter.Seq2[event.Delivery, error] {
		return func(yield func(event.Delivery, error) bool) {
			for d, err := range event.SubscribeRPC(ctx, peer, src, from) {
				switch {
				case err != nil:
				case d.Kind == event.Reset:
					w.resets.Add(1)
				case d.Kind == event.Snapshot:
					w.snapshots.Add(int64(len(d.Payload)))
				case w.lose.Load() > 0:
					w.lose.Add(-1)
					continue
				case w.later.Load() > 0:
					w.later.Add(-1)
					d.Payload = slices.Clone(d.Payload)
					d.Payload[4] |= 0x40
				}
				if !yield(d, err) {
					return
				}
			}
		}
	})
	_ = w.r.FollowKV(ctx, c, func(ctx context.Context, src event.Source, question []byte, take func([]byte) error) error {
		if w.deaf.Load() {
			return errors.New("what?")
		}
		w.asked.Add(int64(len(question)))
		return event.AskRPC(ctx, peer, src, question, func(m []byte) error {
			w.asked.Add(int64(len(m)))
			return take(m)
		})
	})
}

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// subscribed is from where a router follows worker 1.
func subscribed(r *router.Router, epoch uint64) (from event.Position) {
	ctx, cancel := context.WithCancel(context.Background())
	_ = r.FollowKV(ctx, event.DefaultFollowConfig(event.Source{Worker: 1, Epoch: epoch}, func(_ context.Context, _ event.Source, p event.Position) iter.Seq2[event.Delivery, error] {
		from = p
		cancel()
		return func(func(event.Delivery, error) bool) {}
	}), nil)
	return from
}

// store has the cache store a chain of new blocks, and returns them.
func (w *kvWorker) store(n int) []dynamo.BlockHash {
	ids := make([]dynamo.TokenID, n*blockSize)
	for i := range ids {
		ids[i] = dynamo.TokenID(w.rng.Uint32() >> 1)
	}
	e := event.KVEvent{Kind: kvbm.Stored}
	var all []dynamo.BlockHash
	for _, b := range tokens.AppendBlocks(nil, tokens.Root("", ""), blockSize, ids) {
		e.Blocks = append(e.Blocks, event.KVBlock{Block: b})
		w.held[b.Hash] = true
		all = append(all, b.Hash)
	}
	w.source.Publish(&event.KVBatch{Events: []event.KVEvent{e}})
	return all
}

// remove has the cache give blocks up.
func (w *kvWorker) remove(all []dynamo.BlockHash) {
	for _, h := range all {
		delete(w.held, h)
	}
	w.source.Publish(&event.KVBatch{Events: []event.KVEvent{{Kind: kvbm.Removed, Hashes: all}}})
}

// exact reports whether the router knows what the cache holds.
func (w *kvWorker) exact() bool {
	all, exact := w.r.Held(7, 1)
	if !exact || len(all) != 1 {
		return exact && len(w.held) == 0
	}
	return len(all[0].Hashes) == len(w.held) && !slices.ContainsFunc(all[0].Hashes, func(h dynamo.BlockHash) bool { return !w.held[h] })
}

// awaitExact waits until it does, and returns how long that took.
func (w *kvWorker) awaitExact() time.Duration {
	w.t.Helper()
	began := time.Now()
	for !w.exact() {
		if time.Since(began) > time.Minute {
			w.t.Fatal("the index never knows what the worker holds")
		}
		time.Sleep(500 * time.Millisecond)
	}
	return time.Since(began)
}

// An event that is lost and that nobody misses is found by the worker's digest, and
// what it said is fetched for a small part of what a snapshot takes.
func TestRepair(t *testing.T) {
	watched(t, func(w *kvWorker) {
		var chains [][]dynamo.BlockHash
		for range 400 {
			chains = append(chains, w.store(500))
		}
		w.awaitExact()
		time.Sleep(20 * time.Second)
		snapshot, resets := int64(16*len(w.held)), w.resets.Load()
		if w.asked.Load() > 0 {
			t.Errorf("%d bytes were asked for though nothing was lost", w.asked.Load())
		}
		for name, change := range map[string]func(){
			"stored":  func() { chains = append(chains, w.store(64)) },
			"removed": func() { w.remove(chains[0][400:464]) },
			"one":     func() { w.remove(chains[1][499:]) },
		} {
			w.asked.Store(0)
			w.lose.Store(1)
			change()
			time.Sleep(time.Second)
			if w.exact() {
				t.Fatalf("%s: the event was not lost", name)
			}
			took := time.Second + w.awaitExact()
			t.Logf("%s: repaired after %v with %d bytes, %.3f%% of a snapshot", name, took, w.asked.Load(), 100*float64(w.asked.Load())/float64(snapshot))
			if took > 10*time.Second || w.asked.Load() > snapshot/100 || w.asked.Load() == 0 {
				t.Errorf("%s: repaired after %v with %d bytes of %d", name, took, w.asked.Load(), snapshot)
			}
			time.Sleep(20 * time.Second)
		}
		if w.resets.Load() != resets {
			t.Errorf("the cache was begun anew %d times", w.resets.Load()-resets)
		}
	})
}

// What is stored and removed while a repair goes on is known after it.
func TestRepairUnderLoad(t *testing.T) {
	watched(t, func(w *kvWorker) {
		var live [][]dynamo.BlockHash
		for range 40 {
			live = append(live, w.store(50))
		}
		w.awaitExact()
		for i := range 40_000 {
			if i%18_000 == 100 { // the digests between must be right once
				w.lose.Store(2)
			}
			live = append(live, w.store(1+w.rng.IntN(4)))
			n := w.rng.IntN(len(live))
			w.remove(live[n])
			live[n] = live[len(live)-1]
			live = live[:len(live)-1]
			time.Sleep(time.Millisecond)
		}
		if took := w.awaitExact(); took > 10*time.Second || w.asked.Load() == 0 {
			t.Errorf("exact after %v, with %d bytes asked for", took, w.asked.Load())
		}
		if w.resets.Load() > 1 {
			t.Errorf("the cache was begun anew %d times", w.resets.Load()-1)
		}
	})
}

// Where so much was missed that all of it is no more, or the worker does not answer,
// its cache is begun anew.
func TestRepairAnew(t *testing.T) {
	for _, deaf := range []bool{false, true} {
		watched(t, func(w *kvWorker) {
			w.deaf.Store(deaf)
			first := w.store(1000)
			w.awaitExact()
			time.Sleep(15 * time.Second)
			resets := w.resets.Load()
			w.lose.Store(2)
			if deaf {
				w.lose.Store(1)
				w.remove(first[900:])
			} else {
				w.store(900)
				w.remove(first)
			}
			if took := w.awaitExact(); took > 10*time.Second {
				t.Errorf("deaf %v: exact after %v", deaf, took)
			}
			if got := w.resets.Load() - resets; got != 1 {
				t.Errorf("deaf %v: the cache was begun anew %d times, want once", deaf, got)
			}
		})
	}
}

// What a worker says that it is about to hold, because another router sent it that,
// counts as held for a while.
func TestForetold(t *testing.T) {
	watched(t, func(w *kvWorker) {
		other := takes(time.Second)
		if err := w.r.Add(router.Worker{ID: 8, Epoch: 1, Engine: other, Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 100}); err != nil {
			w.t.Fatal(err)
		}
		w.r.SetUp(7, 1, true)
		w.r.SetUp(8, 1, true)
		w.store(1)
		w.awaitExact()
		for i := range 8 {
			prompt := text(20+i, 400)
			w.source.Expect(0, blockSize, tokens.AppendHashes(nil, tokens.Root("", ""), blockSize, prompt))
			time.Sleep(time.Second)
			q := request(fmt.Sprint(i))
			q.Tokens, q.Root = append(slices.Clone(prompt), text(9, 20)...), tokens.Root("", "")
			if _, err := enginetest.Collect(w.t.Context(), w.r, q); err != nil {
				w.t.Fatal(err)
			}
		}
		if n := other.asked.Load(); n > 0 {
			w.t.Errorf("%d of 8 prompts that worker 7 had been sent went to another", n)
		}
		if !w.exact() {
			w.t.Error("what is expected counts as held")
		}
	})
}

// What a worker of a later version tells in a form that is not understood is passed
// over, without beginning its cache anew; what that lacks then is found by the digest.
func TestUnknownEvents(t *testing.T) {
	watched(t, func(w *kvWorker) {
		for range 100 {
			w.store(50)
		}
		w.awaitExact()
		time.Sleep(20 * time.Second)
		resets := w.resets.Load()
		w.later.Store(3)
		for range 3 {
			w.store(5)
		}
		w.store(1)
		time.Sleep(time.Second)
		if s := w.r.State().Workers[0]; s.Cache != "repairing" || s.Blocks != 5001 {
			t.Errorf("after unknown events the cache is %s with %d blocks, want it repairing with 5001", s.Cache, s.Blocks)
		}
		took := time.Second + w.awaitExact()
		if took > 10*time.Second || w.resets.Load() != resets {
			t.Errorf("exact after %v, begun anew %d times", took, w.resets.Load()-resets)
		}
		// Events of which the index has no need leave nothing to repair.
		time.Sleep(20 * time.Second)
		asked := w.asked.Load()
		w.later.Store(1)
		w.source.Publish(&event.KVBatch{Events: []event.KVEvent{{Kind: kvbm.Removed, Hashes: []dynamo.BlockHash{1}}}})
		time.Sleep(time.Second)
		if w.exact() {
			t.Error("exact though an event was not understood")
		}
		w.awaitExact()
		if w.asked.Load() != asked || w.resets.Load() != resets {
			t.Errorf("%d bytes asked for, begun anew %d times", w.asked.Load()-asked, w.resets.Load()-resets)
		}
		if s := scrape(t, w.count); !strings.Contains(s, "\ndynamo_router_unknown_events_total 4\n") {
			t.Errorf("the metric is not 4: %s", s)
		}
		if n := strings.Count(w.log.String(), "of a later version"); n != 1 {
			t.Errorf("the log is told %d times: %s", n, w.log.String())
		}
	})
}
