package kvwire_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/internal/testnet"
)

const topic = "kv-events"

// world is an engine and a subscriber in a network in memory.
type world struct {
	t   *testing.T
	n   *testnet.Network
	pub *kvwire.Publisher
	src kvwire.Source

	config kvwire.Config
	cancel context.CancelCauseFunc
	done   chan struct{}
	pause  chan struct{} // if set, the consumer waits for it after each delivery
	count  int

	mu struct {
		sync.Mutex
		got []string // delivered, and not yet asked for
		ups []bool   // what Changed was told
	}
}

func newWorld(t *testing.T, c kvwire.PublisherConfig) *world {
	w := &world{t: t, n: testnet.New(), config: kvwire.DefaultConfig()}
	w.src = kvwire.Source{Endpoint: "tcp://engine:5557", ReplayEndpoint: "tcp://engine:5558", Topic: "kv"}
	w.config.Dial = w.n.Host("worker").Dial
	w.config.Changed = func(up bool, _ error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.mu.ups = append(w.mu.ups, up)
	}
	w.start(c)
	return w
}

// start begins a life of the engine.
func (w *world) start(c kvwire.PublisherConfig) {
	c.Topic = topic
	if c.Ring == 0 {
		c.Ring = 1000
	}
	w.pub = kvwire.NewPublisher(c)
	h := w.n.Host("engine")
	for _, s := range []struct {
		addr  string
		serve func(net.Listener) error
	}{{":5557", w.pub.Serve}, {":5558", w.pub.ServeReplay}} {
		l, err := h.Listen(s.addr)
		if err != nil {
			w.t.Fatal(err)
		}
		go func() { _ = s.serve(l) }() // an error ends it, and the test fails by what is missing
	}
}

// kill ends the engine.
func (w *world) kill() {
	w.n.Kill("engine")
	if err := w.pub.Close(); err != nil {
		w.t.Error(err)
	}
}

func (w *world) subscribe() {
	ctx, cancel := context.WithCancelCause(w.t.Context())
	w.cancel, w.done = cancel, make(chan struct{})
	go func() {
		defer close(w.done)
		for d, err := range kvwire.Subscribe(ctx, w.src, w.config) {
			w.add(describe(d, err))
			if w.pause != nil {
				<-w.pause
			}
		}
	}()
}

func (w *world) add(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.got = append(w.mu.got, s)
}

func describe(d kvwire.Delivery, err error) string {
	switch {
	case err != nil:
		return "error " + err.Error()
	case d.Kind == kvwire.DeliverReset && d.Partial:
		return "reset " + d.Reason.String() + " partial"
	case d.Kind == kvwire.DeliverReset:
		return "reset " + d.Reason.String()
	}
	return fmt.Sprintf("%d:%v", d.Seq, d.Batch.Timestamp)
}

// ups returns what Changed was told.
func (w *world) ups() []bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.mu.ups)
}

// payload is a batch whose time tells which it is.
func (w *world) payload() []byte {
	w.count++
	return pack(nil, []any{float64(w.count), []any{[]any{"AllBlocksCleared"}}, 0})
}

func (w *world) publish(n int) {
	for range n {
		w.pub.Publish(w.payload())
	}
	synctest.Wait()
}

func (w *world) drop(n int) {
	for range n {
		w.pub.Drop(w.payload())
	}
}

// want checks what was delivered since the last call; the runs of batches "0:1-3:4"
// go from number 0 with time 1 to number 3 with time 4.
func (w *world) want(want ...string) {
	w.t.Helper()
	synctest.Wait()
	var all []string
	for _, s := range want {
		var a, ta, b, tb int
		if n, _ := fmt.Sscanf(s, "%d:%d-%d:%d", &a, &ta, &b, &tb); n == 4 {
			for i := a; i <= b; i++ {
				all = append(all, fmt.Sprintf("%d:%d", i, ta+i-a))
			}
			continue
		}
		all = append(all, s)
	}
	w.mu.Lock()
	got := w.mu.got
	w.mu.got = nil
	w.mu.Unlock()
	if !slices.Equal(got, all) {
		w.t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), strings.Join(all, ", "))
	}
}

func (w *world) end() {
	w.cancel(nil)
	if w.pause != nil {
		close(w.pause)
	}
	<-w.done
	w.kill()
	if n := w.n.Connections(); n != 0 {
		w.t.Errorf("%d connections are left open", n)
	}
}

// run runs f in a bubble, with the engine before and after it learned to tell the
// topic in replays.
func run(t *testing.T, c kvwire.PublisherConfig, f func(w *world)) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprintf("old=%v", old), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.OldReplay = old
				w := newWorld(t, c)
				f(w)
				w.end()
			})
		})
	}
}

func TestLive(t *testing.T) {
	run(t, kvwire.PublisherConfig{}, func(w *world) {
		w.subscribe()
		w.want("reset joined")
		w.publish(3)
		w.want("0:1-2:3")
		time.Sleep(time.Minute)
		w.want()
		w.publish(1)
		w.want("3:4")
		w.cancel(&dynamo.Error{Kind: dynamo.KindCancelled, Message: "enough"})
		w.want("error enough")
		if ups := w.ups(); !slices.Equal(ups, []bool{true}) {
			w.t.Errorf("connection changes %v, want [true]", ups)
		}
	})
}

func TestLateJoin(t *testing.T) {
	run(t, kvwire.PublisherConfig{}, func(w *world) {
		w.publish(5)
		w.subscribe()
		w.want("reset joined", "0:1-4:5")
		w.publish(1)
		w.want("5:6")
	})
	run(t, kvwire.PublisherConfig{Ring: 3}, func(w *world) {
		w.publish(5)
		w.subscribe()
		w.want("reset joined partial", "2:3-4:5")
		w.publish(1)
		w.want("5:6")
	})
}

// TestLossyReplay: holes in the answers are asked for again.
func TestLossyReplay(t *testing.T) {
	run(t, kvwire.PublisherConfig{LoseEvery: 4}, func(w *world) {
		w.publish(21)
		w.subscribe()
		w.want("reset joined", "0:1-20:21")
		w.drop(10)
		w.publish(1)
		w.want("21:22-31:32")
	})
}

func TestGap(t *testing.T) {
	run(t, kvwire.PublisherConfig{Ring: 8}, func(w *world) {
		w.subscribe()
		w.publish(2)
		w.drop(4)
		w.publish(2)
		w.want("reset joined", "0:1-7:8")
		w.drop(7) // the ring begins with the first that is missing
		w.publish(1)
		w.want("8:9-15:16")
		w.drop(10)
		w.publish(1) // one: the ring might move on between two, before it is asked
		w.want("reset gap partial", "19:20-26:27")
	})
}

// TestSilence: the last messages were dropped, and none comes that tells of it.
func TestSilence(t *testing.T) {
	run(t, kvwire.PublisherConfig{}, func(w *world) {
		w.subscribe()
		w.publish(1)
		w.drop(2)
		w.want("reset joined", "0:1")
		time.Sleep(2 * time.Second)
		w.want("1:2-2:3")
	})
}

func TestRestart(t *testing.T) {
	run(t, kvwire.PublisherConfig{}, func(w *world) {
		w.subscribe()
		w.publish(3)
		w.want("reset joined", "0:1-2:3")
		w.kill()
		time.Sleep(10 * time.Second)
		w.want()
		w.start(kvwire.PublisherConfig{})
		w.publish(5) // more than before: numbers alone do not tell
		time.Sleep(5 * time.Second)
		w.want("reset restart", "0:4-4:8")
		w.kill()
		w.start(kvwire.PublisherConfig{})
		w.publish(2) // fewer
		time.Sleep(5 * time.Second)
		w.want("reset restart", "0:9-1:10")
		w.kill()
		w.start(kvwire.PublisherConfig{})
		time.Sleep(5 * time.Second)
		w.want("reset restart")
		w.publish(1)
		w.want("0:11")
		w.pub.Restart() // behind the same connection
		w.publish(2)
		w.want("reset restart", "0:12-1:13")
	})
}

// TestReborn: a gap is to be repaired, and it is another life that answers.
func TestReborn(t *testing.T) {
	run(t, kvwire.PublisherConfig{}, func(w *world) {
		w.subscribe()
		w.publish(3)
		w.want("reset joined", "0:1-2:3")
		w.pub.Restart()
		w.drop(4)
		w.publish(1)
		time.Sleep(time.Second)
		w.want("reset restart", "0:4-4:8")
		if got, want := w.ups(), []bool{true, false, true}; !slices.Equal(got, want) {
			w.t.Errorf("connection changes %v, want %v", got, want)
		}
		w.pub.Restart()
		w.drop(6)
		time.Sleep(10 * time.Second)
		w.want("reset restart", "0:9-5:14")
	})
}

func TestReconnect(t *testing.T) {
	run(t, kvwire.PublisherConfig{Ring: 4}, func(w *world) {
		w.subscribe()
		w.publish(3)
		w.want("reset joined", "0:1-2:3")
		w.n.Reset("worker", "engine")
		w.drop(2)
		time.Sleep(time.Second)
		w.want("3:4-4:5") // the same life: nothing is forgotten
		w.n.Reset("worker", "engine")
		w.drop(5)
		time.Sleep(time.Second)
		w.want("reset joined partial", "6:7-9:10")
	})
}

func TestNoReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, kvwire.PublisherConfig{})
		w.src.ReplayEndpoint = ""
		w.subscribe()
		w.want("reset joined partial")
		w.publish(2)
		w.want("reset joined", "0:1-1:2")
		w.drop(1)
		w.publish(1)
		w.want("reset gap partial", "3:4")
		w.n.Reset("worker", "engine")
		time.Sleep(time.Second)
		w.publish(1)
		w.want("reset joined partial", "4:5")
		w.end()
	})
}

// TestReplayGone: the replay socket does not answer, or is another one.
func TestReplayGone(t *testing.T) {
	for _, endpoint := range []string{"tcp://engine:1", "tcp://engine:5557"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, kvwire.PublisherConfig{})
			w.src.ReplayEndpoint = endpoint
			w.publish(1)
			w.subscribe()
			time.Sleep(500 * time.Millisecond)
			w.publish(2)
			w.want("reset joined partial", "1:2-2:3")
			time.Sleep(time.Minute)
			w.drop(1)
			w.publish(1)
			time.Sleep(time.Minute)
			w.want("reset gap partial", "4:5")
			w.end()
		})
	}
}

// TestSlowConsumer: the engine drops what does not fit, and all of it comes.
func TestSlowConsumer(t *testing.T) {
	run(t, kvwire.PublisherConfig{Ring: 20000}, func(w *world) {
		w.pause = make(chan struct{}, 20000)
		w.subscribe()
		synctest.Wait()
		for range 4 {
			w.publish(1000)
		}
		w.want("reset joined")
		for range 4001 {
			w.pause <- struct{}{}
		}
		time.Sleep(5 * time.Second)
		w.want("0:1-3999:4000")
	})
}

// TestDeadPeer: the network is cut and nobody says so.
func TestDeadPeer(t *testing.T) {
	run(t, kvwire.PublisherConfig{}, func(w *world) {
		w.subscribe()
		w.publish(1)
		time.Sleep(time.Minute) // pings are answered
		w.want("reset joined", "0:1")
		w.n.PartitionBoth("worker", "engine")
		time.Sleep(time.Minute)
		if ups := w.ups(); len(ups) < 2 || ups[1] {
			w.t.Errorf("connection changes %v, want the loss among them", ups)
		}
		w.n.HealAll()
		w.publish(1)
		time.Sleep(30 * time.Second)
		w.want("1:2")
	})
}

func TestUnreadable(t *testing.T) {
	run(t, kvwire.PublisherConfig{}, func(w *world) {
		w.subscribe()
		w.publish(1)
		w.pub.Publish([]byte("garbage"))
		w.publish(1)
		w.want("reset joined", "0:1", "reset corrupt partial", "2:2")
	})
}

func TestBadSource(t *testing.T) {
	for _, src := range []kvwire.Source{{Endpoint: "http://x:1"}, {Endpoint: "tcp://x"}, {Endpoint: "tcp://x:0"}, {Endpoint: "ipc://"}, {Endpoint: "tcp://x:1", ReplayEndpoint: "y"}} {
		n := 0
		for _, err := range kvwire.Subscribe(t.Context(), src, kvwire.DefaultConfig()) {
			n++
			if err == nil || dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("%+v: got %v, want an invalid source", src, err)
			}
		}
		if n != 1 {
			t.Errorf("%+v: %d deliveries, want 1", src, n)
		}
	}
	if got, want := (kvwire.Source{Endpoint: "tcp://h:5557", ReplayEndpoint: "tcp://h:5558"}).ForRank(2), (kvwire.Source{Endpoint: "tcp://h:5559", ReplayEndpoint: "tcp://h:5560"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := (kvwire.Config{}).Validate(); err == nil {
		t.Error("an empty configuration is valid")
	}
}
