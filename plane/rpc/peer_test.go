package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// stuck sends one message and holds on, and tells the causes of its end.
func stuck(causes chan<- error) rpc.Endpoint {
	return rpc.Endpoint{Serve: func(ctx context.Context, s *rpc.Stream) error {
		if err := s.Send([]byte("first")); err != nil {
			return err
		}
		err := hold(ctx, s)
		causes <- err
		return err
	}}
}

// TestLost breaks the connection in every way there is, and counts the time
// until both sides know.
func TestLost(t *testing.T) {
	for _, c := range []struct {
		name       string
		hurt       func(p *pair)
		cure       func(p *pair)
		soonest    time.Duration
		latest     time.Duration
		reconnects bool
	}{
		{"reset", func(p *pair) { p.net.Reset("front", "work") }, nil, 0, 10 * time.Millisecond, true},
		{"kill", func(p *pair) { p.net.Kill("work") }, nil, 0, 10 * time.Millisecond, false},
		{"partition", func(p *pair) { p.net.PartitionBoth("front", "work") }, func(p *pair) { p.net.HealAll() }, time.Second, 3 * time.Second, true},
		{"one way", func(p *pair) { p.net.Partition("work", "front") }, func(p *pair) { p.net.HealAll() }, time.Second, 3 * time.Second, true},
		{"other way", func(p *pair) { p.net.Partition("front", "work") }, func(p *pair) { p.net.HealAll() }, time.Second, 3 * time.Second, true},
		{"pause", func(p *pair) { p.net.Pause("work") }, func(p *pair) { p.net.Resume("work") }, time.Second, 3 * time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				causes := make(chan error, 1)
				var mu sync.Mutex
				down := false
				p := connect(t, map[string]rpc.Endpoint{"stuck": stuck(causes)}, options{onChange: func(up bool) {
					time.Sleep(time.Millisecond) // whoever fails before this returns is seen below
					mu.Lock()
					down = !up
					mu.Unlock()
				}})
				s := open(t, p.peer, "stuck", "")
				sender := open(t, p.peer, "stuck", "")
				time.Sleep(10 * time.Second)
				began := time.Now()
				c.hurt(p)
				check := func(what string, err error) {
					mu.Lock()
					defer mu.Unlock()
					if !down {
						t.Errorf("%s failed before Changed was told: %v", what, err)
					}
				}
				var g sync.WaitGroup
				g.Go(func() {
					for {
						if err := sender.Send(make([]byte, 1000)); err != nil {
							check("Send", err)
							wantCode(t, err, dynamo.KindUnavailable, lost)
							return
						}
					}
				})
				if m, err := s.Recv(); string(m) != "first" || err != nil {
					t.Fatalf("what had arrived: %q, %v", m, err)
				}
				_, err := s.Recv()
				check("Recv", err)
				wantCode(t, err, dynamo.KindUnavailable, lost)
				elapsed(t, began, c.soonest, c.latest)
				<-s.Done()
				g.Wait()
				_, err = p.peer.Open(t.Context(), rpc.Call{Method: "stuck"})
				wantCode(t, err, dynamo.KindUnavailable, lost)
				if c.cure != nil {
					c.cure(p)
				}
				wantCode(t, <-causes, dynamo.KindUnavailable, lost)
				if !c.reconnects {
					return
				}
				if err := p.peer.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				again := open(t, p.peer, "stuck", "")
				if m, err := again.Recv(); string(m) != "first" {
					t.Fatalf("after reconnecting: %q, %v", m, err)
				}
				again.Cancel(nil)
				<-causes
			})
		})
	}
}

// TestIdle: pings keep an idle connection for ever.
func TestIdle(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, map[string]rpc.Endpoint{"count": {Serve: count(1)}}, options{})
		time.Sleep(time.Hour)
		if got, err := all(open(t, p.peer, "count", "x")); len(got) != 1 || !errors.Is(err, io.EOF) {
			t.Fatal(got, err)
		}
		if got := p.changes(); !slices.Equal(got, []string{"true <nil>"}) {
			t.Fatalf("the peer changed: %q", got)
		}
	})
}

// TestReconnect has the peer look for a server that comes late, from an address
// list whose first does not work.
func TestReconnect(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, nil, options{unwelcome: true, peer: func(c *rpc.PeerConfig) {
			c.Addresses = []string{"unix:///run/w.sock", "nonsense", "tcp://work:7000"}
		}, server: func(c *rpc.ServerConfig) { c.Epoch = 4 }})
		waiting, stop := context.WithTimeout(t.Context(), 10*time.Second)
		defer stop()
		if err := p.peer.Wait(waiting); dynamo.KindOf(err) != dynamo.KindDeadline {
			t.Fatalf("Wait: %v", err)
		}
		got := p.changes()
		if len(got) == 0 || !strings.Contains(got[0], "epoch 4) answers here") || !strings.Contains(got[0], "epoch 3)") || !strings.Contains(got[0], "nonsense") || !strings.Contains(got[0], "w.sock") {
			t.Fatalf("Changed was told %q", got)
		}
		if len(got) > 2 {
			t.Fatalf("the same reason was told %d times", len(got))
		}
		if log := p.log.String(); !strings.Contains(log, "a peer was refused") || !strings.Contains(log, "epoch 3") {
			t.Fatalf("the server's log: %s", log)
		}
		if err := p.server.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		cfg := rpc.DefaultConfig()
		cfg.Key = testKey
		p.server = p.serve(rpc.ServerConfig{Config: cfg, Worker: 7, Epoch: 3}, map[string]rpc.Endpoint{"count": {Serve: count(1)}})
		began := time.Now()
		if err := p.peer.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		elapsed(t, began, 0, time.Second)
	})
}

// TestConnections: a peer of several connections is down as soon as one is.
func TestConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, map[string]rpc.Endpoint{"count": {Serve: count(1)}}, options{client: func(c *rpc.Config) { c.Connections = 4 }})
		if got := p.net.Connections(); got != 4 {
			t.Fatalf("%d connections, want 4", got)
		}
		for range 5 {
			p.net.Reset("front", "work")
			synctest.Wait()
			if _, err := p.peer.Open(t.Context(), rpc.Call{Method: "count"}); err == nil {
				t.Fatal("a stream was opened while the peer is down")
			}
			if err := p.peer.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 8 {
				if got, err := all(open(t, p.peer, "count", "x")); len(got) != 1 || !errors.Is(err, io.EOF) {
					t.Fatal(got, err)
				}
			}
			time.Sleep(2 * time.Second)
		}
	})
}

// TestClose closes the server under streams, one of which takes its time.
func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		causes := make(chan error, 1)
		p := connect(t, map[string]rpc.Endpoint{"stuck": stuck(causes), "slow": {Serve: func(ctx context.Context, s *rpc.Stream) error {
			<-ctx.Done()
			time.Sleep(5 * time.Second)
			return s.Send([]byte("too late"))
		}}}, options{})
		s, slow := open(t, p.peer, "stuck", ""), open(t, p.peer, "slow", "")
		synctest.Wait()
		began := time.Now()
		closed := make(chan error)
		go func() { closed <- p.server.Close() }()
		if _, err := all(s); err == nil {
			t.Fatal("the stream goes on")
		} else {
			wantCode(t, err, dynamo.KindUnavailable, engine.CodeDraining)
		}
		if got := p.changes(); len(got) < 2 || !strings.Contains(got[1], "false") || !strings.Contains(got[1], "shutting down") {
			t.Fatalf("Changed was told %q before the stream ended", got)
		}
		wantCode(t, <-causes, dynamo.KindUnavailable, engine.CodeDraining)
		if _, err := p.peer.Open(t.Context(), rpc.Call{Method: "stuck"}); err == nil {
			t.Fatal("a closing server takes streams")
		}
		if err := errors.Join(<-closed, p.server.Close()); err != nil {
			t.Fatal(err)
		}
		elapsed(t, began, 5*time.Second, 6*time.Second)
		if _, err := all(slow); err == nil {
			t.Fatal("the slow stream ended well")
		}
		<-slow.Done()
	})
}

// TestStop ends Run under a stream.
func TestStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		causes := make(chan error, 1)
		p := connect(t, map[string]rpc.Endpoint{"stuck": stuck(causes)}, options{})
		s := open(t, p.peer, "stuck", "")
		synctest.Wait()
		p.stop()
		_, err := all(s)
		wantCode(t, err, dynamo.KindUnavailable, lost)
		wantCode(t, <-causes, dynamo.KindUnavailable, lost)
		synctest.Wait()
		if got := p.changes(); len(got) != 2 || !strings.HasPrefix(got[1], "false") {
			t.Fatalf("Changed was told %q", got)
		}
	})
}

// TestBackPressure fills the queues of a connection over a slow link, and loses
// nothing.
func TestBackPressure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, map[string]rpc.Endpoint{"flood": {Serve: func(_ context.Context, s *rpc.Stream) error {
			for {
				if err := s.Send(make([]byte, 1000)); err != nil {
					return err
				}
			}
		}}}, options{})
		var streams []*rpc.Stream
		for range 20 { // 5 MB of windows
			streams = append(streams, open(t, p.peer, "flood", ""))
		}
		p.net.Delay("work", "front", 200*time.Millisecond)
		time.Sleep(10 * time.Second)
		for _, s := range streams {
			for range 1000 {
				if _, err := s.Recv(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, s := range streams {
			s.Cancel(nil)
		}
		for _, s := range streams {
			<-s.Done()
		}
		if got := p.changes(); len(got) != 1 {
			t.Fatalf("the peer changed: %q", got)
		}
	})
}

// counting is a listener whose connections count their writes.
type counting struct {
	net.Listener
	writes *atomic.Int64
}

func (c counting) Accept() (net.Conn, error) {
	nc, err := c.Listener.Accept()
	return countingConn{nc, c.writes}, err
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// TestStep: what many streams send at once leaves in few writes.
func TestStep(t *testing.T) {
	const streams, steps = 64, 100
	var writes atomic.Int64
	var mu sync.Mutex
	step := sync.NewCond(&mu)
	at, started := 0, 0
	handler := func(_ context.Context, s *rpc.Stream) error {
		for i := 1; i <= steps; i++ {
			mu.Lock()
			for started++; at < i; {
				step.Wait()
			}
			mu.Unlock()
			if err := s.Send([]byte("token")); err != nil {
				return err
			}
		}
		return nil
	}
	p := realOn(t, "tcp", func(l net.Listener) net.Listener { return counting{l, &writes} }, map[string]rpc.Endpoint{"step": {Serve: handler}}, nil)
	var all []*rpc.Stream
	for range streams {
		all = append(all, open(t, p, "step", ""))
	}
	before := writes.Load()
	for i := 1; i <= steps; i++ {
		for ready := false; !ready; runtime.Gosched() {
			mu.Lock()
			ready = started == streams*i
			mu.Unlock()
		}
		mu.Lock()
		at = i
		mu.Unlock()
		step.Broadcast()
		for _, s := range all {
			if _, err := s.Recv(); err != nil {
				t.Fatal(err)
			}
		}
	}
	perStep := float64(writes.Load()-before) / steps
	t.Logf("%.1f writes for %d messages", perStep, streams)
	if perStep > streams/4 {
		t.Errorf("%.1f writes for %d messages sent at once", perStep, streams)
	}
}
