package nats_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/event/eventtest"
	"github.com/dynamo-go/dynamo/plane/event/nats"
)

// broker is an embedded server that can be stopped and started again.
type broker struct {
	t       testing.TB
	options server.Options
	s       *server.Server
}

func newBroker(t testing.TB, maxPayload int32) *broker {
	b := &broker{t: t, options: server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, MaxPayload: maxPayload}}
	b.start()
	b.options.Port = b.s.Addr().(*net.TCPAddr).Port // the same one after a stop
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	o := b.options
	s, err := server.NewServer(&o)
	if err != nil {
		b.t.Fatal(err)
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		b.t.Fatal("the NATS server does not start")
	}
	b.s = s
}

func (b *broker) stop() {
	b.s.Shutdown()
	b.s.WaitForShutdown()
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

// open connects to a broker. Heartbeats are fast so that tests are, and silence is
// nothing that they wait for.
func open(t testing.TB, b *broker, c *cable) *nats.Bus {
	t.Helper()
	config := nats.DefaultConfig(b.s.ClientURL(), "a namespace.*")
	config.Heartbeat, config.Silence = 100*time.Millisecond, time.Minute
	return openWith(t, config, c)
}

func openWith(t testing.TB, config nats.Config, c *cable) *nats.Bus {
	t.Helper()
	if c != nil {
		config.Dial = c.dial
	}
	bus, err := nats.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bus.Close() }) // always nil
	return bus
}

func TestBus(t *testing.T) {
	for name, maxPayload := range map[string]int32{"usual": 1 << 20, "small": 512} {
		t.Run(name, func(t *testing.T) {
			eventtest.Run(t, func(t *testing.T) eventtest.Fixture {
				b, c := newBroker(t, maxPayload), &cable{}
				return eventtest.Fixture{
					Worker: 0xabcdef, Publish: open(t, b, nil), Subscribe: open(t, b, c),
					Cut: func() { c.set(true) }, Mend: func() { c.set(false) },
				}
			})
		})
	}
}

// The server's own loss is a cut, too.
func TestServerLoss(t *testing.T) {
	eventtest.Run(t, func(t *testing.T) eventtest.Fixture {
		b := newBroker(t, 1<<20)
		return eventtest.Fixture{Worker: 1, Publish: open(t, b, nil), Subscribe: open(t, b, nil), Cut: b.stop, Mend: b.start}
	})
}

// While the server is away nothing that a worker does waits for it.
func TestNothingBlocks(t *testing.T) {
	b := newBroker(t, 1<<20)
	bus := open(t, b, nil)
	p, err := event.NewPublisher(event.DefaultPublisherConfig(event.Source{Topic: "test", Worker: 1, Epoch: 1}))
	if err != nil {
		t.Fatal(err)
	}
	detach, err := bus.Attach(p)
	if err != nil {
		t.Fatal(err)
	}
	b.stop()
	start := time.Now()
	payload := make([]byte, 10_000)
	for range 10_000 {
		p.Publish(payload) // 100 MB, which no buffer on the way holds
	}
	for range 3 {
		for _, err := range bus.Subscribe(t.Context(), p.Source(), event.Position{}) {
			if got, want := dynamo.KindOf(err), dynamo.KindUnavailable; got != want {
				t.Errorf("subscribing without a server: got %v, want %v", err, want)
			}
		}
	}
	detach()
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("publishing, subscribing and detaching without a server took %v", took)
	}
	b.start()
}

// A publisher that is cut off without a farewell is noticed by its silence.
func TestSilence(t *testing.T) {
	b, c := newBroker(t, 1<<20), &cable{}
	config := nats.DefaultConfig(b.s.ClientURL(), "dynamo")
	config.Heartbeat, config.Silence = 50*time.Millisecond, 500*time.Millisecond
	worker, frontend := openWith(t, config, c), openWith(t, config, nil)
	p, err := event.NewPublisher(event.DefaultPublisherConfig(event.Source{Topic: "test", Worker: 1, Epoch: 1}))
	if err != nil {
		t.Fatal(err)
	}
	detach, err := worker.Attach(p)
	if err != nil {
		t.Fatal(err)
	}
	defer detach()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var failed error
	for _, failed = range frontend.Subscribe(ctx, p.Source(), event.Position{}) {
		c.set(true) // after the first delivery
	}
	if failed == nil || dynamo.KindOf(failed) != dynamo.KindUnavailable {
		t.Errorf("got %v, want %v", failed, dynamo.KindUnavailable)
	}
}

func TestOpenFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil { // nobody listens there any more
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, url string
		kind      dynamo.Kind
	}{
		{"nobody there", "nats://user:secret@" + address, dynamo.KindUnavailable},
		{"no URL", "nats://user:secret@%zz", dynamo.KindInvalid},
		{"another scheme", "http://user:secret@" + address, dynamo.KindInvalid},
		{"empty", "", dynamo.KindInvalid},
	} {
		_, err := nats.Open(nats.DefaultConfig(c.url, "dynamo"))
		switch {
		case err == nil:
			t.Errorf("%s: no error", c.name)
		case dynamo.KindOf(err) != c.kind:
			t.Errorf("%s: got %v, want %v", c.name, dynamo.KindOf(err), c.kind)
		case !strings.Contains(err.Error(), "--nats-server"):
			t.Errorf("%s: %q does not name the flag", c.name, err)
		case strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: %q tells the password", c.name, err)
		}
	}
}
