package event_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/event/eventtest"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

const testWorker = dynamo.WorkerID(0x77)

// link is a worker's server and a frontend's peer.
type link struct {
	bus  *event.RPC
	peer *rpc.Peer
}

// connect serves a bus on l and connects a peer by dial; both end with the test.
func connect(t testing.TB, l net.Listener, dial func(context.Context, string, string) (net.Conn, error)) *link {
	t.Helper()
	config := rpc.DefaultConfig()
	config.Key, config.Dial = []byte("a cluster key for tests only"), dial
	server, err := rpc.NewServer(rpc.ServerConfig{Config: config, Worker: testWorker, Epoch: 1})
	if err != nil {
		t.Fatal(err)
	}
	k := &link{}
	k.bus = event.NewRPC(func(event.Source) *rpc.Peer { return k.peer })
	k.bus.Register(server)
	client, err := rpc.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	k.peer = client.Peer(rpc.PeerConfig{Addresses: []string{"tcp://" + l.Addr().String()}, Worker: testWorker, Epoch: 1})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) }) // ends by Close
	running.Go(func() { _ = k.peer.Run(ctx) }) // ends by cancel
	t.Cleanup(func() {
		cancel()
		if err := server.Close(); err != nil {
			t.Errorf("closing the server: %v", err)
		}
		running.Wait()
	})
	if err := k.peer.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *link) fixture(cut, mend func()) eventtest.Fixture {
	return eventtest.Fixture{Worker: testWorker, Publish: k.bus, Subscribe: k.bus, Cut: cut, Mend: mend}
}

func TestRPC(t *testing.T) {
	for name, cut := range map[string]func(*testnet.Network){
		// The peer finds out by silence.
		"partition": func(n *testnet.Network) {
			n.PartitionBoth("worker", "frontend")
			time.Sleep(4 * time.Second)
		},
		"reset": func(n *testnet.Network) { n.Reset("worker", "frontend") },
	} {
		t.Run(name, func(t *testing.T) {
			eventtest.RunBubble(t, func(t *testing.T) eventtest.Fixture {
				n := testnet.New()
				l, err := n.Host("worker").Listen(":0")
				if err != nil {
					t.Fatal(err)
				}
				k := connect(t, l, n.Host("frontend").Dial)
				return k.fixture(func() { cut(n) }, n.HealAll)
			})
		})
	}
}

// A worker with as many subscribers as it can have says so; one that leaves makes
// room.
func TestMaxSubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		l, err := n.Host("worker").Listen(":0")
		if err != nil {
			t.Fatal(err)
		}
		k := connect(t, l, n.Host("frontend").Dial)
		p := newPublisher(t, 1<<10)
		detach, err := k.bus.Attach(p)
		if err != nil {
			t.Fatal(err)
		}
		defer detach()
		var streams []*rpc.Stream
		open := func() {
			call := rpc.Call{Method: event.Method, Request: event.AppendRequest(nil, p.Source(), event.Cursor{})}
			s, err := k.peer.Open(t.Context(), call)
			if err != nil {
				t.Fatal(err)
			}
			streams = append(streams, s)
		}
		for range event.MaxSubscribers {
			open()
		}
		synctest.Wait()
		for range 2 {
			open()
			s := streams[len(streams)-1]
			if _, err := s.Recv(); dynamo.KindOf(err) != dynamo.KindExhausted {
				t.Errorf("one too many: got %v, want %v", err, dynamo.KindExhausted)
			}
		}
		streams[0].Cancel(nil)
		<-streams[0].Done()
		open()
		if _, err := streams[len(streams)-1].Recv(); err != nil {
			t.Errorf("after one has left: %v", err)
		}
	})
}

// Garbage as a request is refused.
func TestBadRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		l, err := n.Host("worker").Listen(":0")
		if err != nil {
			t.Fatal(err)
		}
		k := connect(t, l, n.Host("frontend").Dial)
		s, err := k.peer.Open(t.Context(), rpc.Call{Method: event.Method, Request: []byte("garbage")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("got %v, want %v", err, dynamo.KindInvalid)
		}
	})
}

// Over real sockets, where time is real.
func TestRPCSockets(t *testing.T) {
	eventtest.Run(t, func(t *testing.T) eventtest.Fixture {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c := &cable{}
		k := connect(t, l, c.dial)
		return k.fixture(func() { c.set(true) }, func() { c.set(false) })
	})
}

// cable is a way to dial that can be cut.
type cable struct {
	mu struct {
		sync.Mutex
		cut   bool
		conns []net.Conn
	}
}

func (c *cable) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c.mu.Lock()
	cut := c.mu.cut
	c.mu.Unlock()
	if cut {
		return nil, net.ErrClosed
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.mu.conns = append(c.mu.conns, conn)
	}
	return conn, err
}

func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.cut = cut
	for ; cut && len(c.mu.conns) > 0; c.mu.conns = c.mu.conns[1:] {
		_ = c.mu.conns[0].Close() // its end is what is wanted
	}
}
