package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

var testKey = []byte("a cluster key for tests only")

// pair is a server on the host "work" and a peer on the host "front", in a
// bubble.
type pair struct {
	t       *testing.T
	net     *testnet.Network
	server  *rpc.Server
	client  *rpc.Client
	peer    *rpc.Peer
	stop    context.CancelFunc // ends the peer
	running sync.WaitGroup
	log     *lines // the server's
	mu      struct {
		sync.Mutex
		changes []string
		during  bool
	}
}

// options change what connect makes.
type options struct {
	server    func(*rpc.ServerConfig)
	client    func(*rpc.Config)
	peer      func(*rpc.PeerConfig)
	onChange  func(up bool)
	unwelcome bool // the peer will not come up
}

// connect returns a pair that is connected.
func connect(t *testing.T, handlers map[string]rpc.Endpoint, o options) *pair {
	t.Helper()
	p := &pair{t: t, net: testnet.New(), log: &lines{}}
	cfg := rpc.DefaultConfig()
	cfg.Key = testKey
	sc := rpc.ServerConfig{Config: cfg, Worker: 7, Epoch: 3}
	sc.Logger = slog.New(slog.NewTextHandler(p.log, nil))
	if o.server != nil {
		o.server(&sc)
	}
	p.server = p.serve(sc, handlers)
	cfg.Dial = p.net.Host("front").Dial
	if o.client != nil {
		o.client(&cfg)
	}
	var err error
	if p.client, err = rpc.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	pc := rpc.PeerConfig{Addresses: []string{"tcp://work:7000"}, Worker: 7, Epoch: 3}
	pc.Changed = func(up bool, err error) {
		p.mu.Lock()
		if p.mu.during {
			t.Error("Changed is called while it is called")
		}
		p.mu.during = true
		p.mu.changes = append(p.mu.changes, fmt.Sprint(up, " ", err))
		p.mu.Unlock()
		if o.onChange != nil {
			o.onChange(up)
		}
		p.mu.Lock()
		p.mu.during = false
		p.mu.Unlock()
	}
	if o.peer != nil {
		o.peer(&pc)
	}
	p.peer = p.client.Peer(pc)
	ctx, cancel := context.WithCancel(t.Context())
	p.stop = cancel
	p.running.Go(func() { _ = p.peer.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		if err := p.server.Close(); err != nil {
			t.Error(err)
		}
		p.running.Wait()
	})
	if !o.unwelcome {
		if err := p.peer.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the server has the client's last word of the handshake, too
	}
	return p
}

// serve starts a server on "work", port 7000.
func (p *pair) serve(sc rpc.ServerConfig, handlers map[string]rpc.Endpoint) *rpc.Server {
	p.t.Helper()
	s, err := rpc.NewServer(sc)
	if err != nil {
		p.t.Fatal(err)
	}
	for m, h := range handlers {
		s.Handle(m, h)
	}
	l, err := p.net.Host("work").Listen("work:7000")
	if err != nil {
		p.t.Fatal(err)
	}
	p.running.Go(func() {
		if err := s.Serve(l); err != nil && !errors.Is(err, net.ErrClosed) {
			p.t.Error(err)
		}
	})
	return s
}

func (p *pair) changes() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.mu.changes...)
}

// open opens a stream that must open.
func open(t *testing.T, p *rpc.Peer, method, request string) *rpc.Stream {
	t.Helper()
	s, err := p.Open(t.Context(), rpc.Call{Method: method, Request: []byte(request)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// all reads the stream to its end.
func all(s *rpc.Stream) (messages []string, err error) {
	for {
		m, err := s.Recv()
		if err != nil {
			return messages, err
		}
		messages = append(messages, string(m))
	}
}

// bubble runs f in a bubble.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// lines collects a log.
type lines struct {
	mu struct {
		sync.Mutex
		b strings.Builder
	}
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.b.String()
}

// asError returns err as it must be.
func asError(t *testing.T, err error) *dynamo.Error {
	t.Helper()
	var e *dynamo.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want a *dynamo.Error", err)
	}
	return e
}

func wantCode(t *testing.T, err error, kind dynamo.Kind, code string) {
	t.Helper()
	if e := asError(t, err); e.Kind != kind || e.Code != code {
		t.Fatalf("got error of kind %v, code %q: %v; want %v, %q", e.Kind, e.Code, err, kind, code)
	}
}

// hold keeps a stream open until its context ends, and returns the cause.
func hold(ctx context.Context, _ *rpc.Stream) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// mirror sends back what comes until the client has sent all.
func mirror(_ context.Context, s *rpc.Stream) error {
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(m); err != nil {
			return err
		}
	}
}

// count sends the request so many times.
func count(n int) func(context.Context, *rpc.Stream) error {
	return func(_ context.Context, s *rpc.Stream) error {
		for range n {
			if err := s.Send(s.Request()); err != nil {
				return err
			}
		}
		return nil
	}
}

// elapsed fails unless about so much time has passed since began.
func elapsed(t *testing.T, began time.Time, low, high time.Duration) {
	t.Helper()
	if d := time.Since(began); d < low || d > high {
		t.Fatalf("it took %v, want %v to %v", d, low, high)
	}
}

var lost = engine.CodeLost
