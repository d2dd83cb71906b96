package rpc_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// faulty is a connection that keeps what it reads to itself while it is held,
// and whose writes fail once it is broken.
type faulty struct {
	net.Conn
	mu struct {
		sync.Mutex
		held   chan struct{}
		broken bool
	}
}

func (f *faulty) Read(b []byte) (int, error) {
	n, err := f.Conn.Read(b)
	f.mu.Lock()
	held := f.mu.held
	f.mu.Unlock()
	if held != nil {
		<-held
	}
	return n, err
}

func (f *faulty) Write(b []byte) (int, error) {
	f.mu.Lock()
	broken := f.mu.broken
	f.mu.Unlock()
	if broken {
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.EPIPE)}
	}
	return f.Conn.Write(b)
}

func (f *faulty) hold() (release func()) {
	held := make(chan struct{})
	f.mu.Lock()
	f.mu.held = held
	f.mu.Unlock()
	return func() {
		f.mu.Lock()
		f.mu.held = nil
		f.mu.Unlock()
		close(held)
	}
}

func (f *faulty) breakWrites() {
	f.mu.Lock()
	f.mu.broken = true
	f.mu.Unlock()
}

// TestWriteFails: what had arrived when a write fails is delivered, and what is
// still open fails soon after, once Changed was told; so does what is opened
// before the failure is known, or after.
func TestWriteFails(t *testing.T) {
	t.Run("opened before", func(t *testing.T) { writeFails(t, func() {}) })
	t.Run("opened after", func(t *testing.T) { writeFails(t, synctest.Wait) })
}

func writeFails(t *testing.T, wait func()) {
	bubble(t, func(t *testing.T) {
		var nc *faulty
		p := connect(t, map[string]rpc.Endpoint{"count": {Serve: count(300)}, "hold": {Serve: hold}}, options{client: func(c *rpc.Config) {
			dial := c.Dial
			c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				under, err := dial(ctx, network, address)
				nc = &faulty{Conn: under}
				return nc, err
			}
		}})
		nc, other := nc, open(t, p.peer, "hold", "")
		release := nc.hold()
		s := open(t, p.peer, "count", strings.Repeat("token", 40)) // more than one read takes in
		synctest.Wait()                                            // the answer and its end have arrived, and are not read
		nc.breakWrites()
		began := time.Now()
		time.AfterFunc(100*time.Millisecond, release)
		other.Cancel(nil) // a write that fails
		wait()
		late, lateErr := p.peer.Open(t.Context(), rpc.Call{Method: "hold"})
		if got, err := all(s); len(got) != 300 || !errors.Is(err, io.EOF) {
			t.Errorf("%d messages of 300, %v", len(got), err)
		}
		if lateErr == nil {
			_, lateErr = late.Recv()
		}
		wantCode(t, lateErr, dynamo.KindUnavailable, lost)
		if got := p.changes(); len(got) < 2 || !strings.HasPrefix(got[1], "false") || !strings.Contains(got[1], "broken pipe") {
			t.Errorf("Changed was told %q before a stream failed", got)
		}
		elapsed(t, began, 900*time.Millisecond, 1100*time.Millisecond)
	})
}

// TestLastWords closes the server of real sockets as soon as a handler has
// returned, while the client writes without pause: the answer arrives whole.
func TestLastWords(t *testing.T) {
	keys := certificates(t)
	rounds := 30
	if testing.Short() {
		rounds = 10
	}
	for _, c := range []struct {
		name, network string
		change        func(*rpc.ServerConfig, *rpc.Config)
	}{
		{"tcp", "tcp", nil},
		{"unix", "unix", nil},
		{"tls", "tcp", func(s *rpc.ServerConfig, c *rpc.Config) { s.TLS, c.TLS = keys.server, keys.client }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range rounds {
				lastWords(t, c.network, c.change)
			}
		})
	}
}

func lastWords(t *testing.T, network string, change func(*rpc.ServerConfig, *rpc.Config)) {
	t.Helper()
	returned := make(chan struct{})
	answer := func(ctx context.Context, s *rpc.Stream) error {
		defer close(returned)
		return count(300)(ctx, s)
	}
	server, p := realServer(t, network, func(l net.Listener) net.Listener { return l }, map[string]rpc.Endpoint{"answer": {Serve: answer}, "hold": {Serve: hold}}, change)
	var g sync.WaitGroup
	for range 2 {
		g.Go(func() { // ends with the connection
			for {
				s, err := p.Open(t.Context(), rpc.Call{Method: "hold"})
				if err != nil {
					return
				}
				s.Cancel(nil)
			}
		})
	}
	s := open(t, p, "answer", "token")
	<-returned
	began := time.Now()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 900*time.Millisecond {
		t.Errorf("Close took %v; the client reads and closes", d)
	}
	if got, err := all(s); len(got) != 300 || !errors.Is(err, io.EOF) {
		t.Errorf("%d messages of 300, %v", len(got), err)
	}
	g.Wait()
}

// TestCloseWaits: a closing server waits for a client to close, which one does at
// once that has no streams, and not for one that stands still.
func TestCloseWaits(t *testing.T) {
	for _, c := range []struct {
		name         string
		before       func(p *pair)
		least, most  time.Duration
		reconnection time.Duration
	}{
		{"idle", func(*pair) {}, 0, time.Millisecond, 50 * time.Millisecond},
		{"slow link", func(p *pair) { p.net.Delay("front", "work", 200*time.Millisecond) }, 200 * time.Millisecond, 210 * time.Millisecond, time.Second},
		{"paused", func(p *pair) { p.net.Pause("front") }, 990 * time.Millisecond, 1010 * time.Millisecond, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := connect(t, nil, options{})
				c.before(p)
				began := time.Now()
				if err := p.server.Close(); err != nil {
					t.Fatal(err)
				}
				elapsed(t, began, c.least, c.most)
				p.net.HealAll()
				p.net.Resume("front")
				cfg := rpc.DefaultConfig()
				cfg.Key = testKey
				p.server = p.serve(rpc.ServerConfig{Config: cfg, Worker: 7, Epoch: 3}, nil)
				began = time.Now()
				synctest.Wait()
				if err := p.peer.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				elapsed(t, began, 0, c.reconnection)
				if got := p.changes(); len(got) < 3 || !strings.Contains(got[1], "shutting down") || got[len(got)-1] != "true <nil>" {
					t.Errorf("Changed was told %q", got)
				}
			})
		})
	}
}

// TestCrossing: a stream that is opened while the news of a close is under way is
// told of it, although the server has nothing else to do for the client.
func TestCrossing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := connect(t, map[string]rpc.Endpoint{"hold": {Serve: hold}}, options{})
		p.net.Delay("front", "work", 50*time.Millisecond)
		p.net.Delay("work", "front", 50*time.Millisecond)
		began := time.Now()
		p.running.Go(func() {
			if err := p.server.Close(); err != nil {
				t.Error(err)
			}
			elapsed(t, began, 160*time.Millisecond, 170*time.Millisecond)
		})
		time.Sleep(10 * time.Millisecond)
		_, err := all(open(t, p.peer, "hold", ""))
		wantCode(t, err, dynamo.KindUnavailable, engine.CodeDraining)
		elapsed(t, began, 110*time.Millisecond, 120*time.Millisecond)
		p.running.Go(p.stop)
	})
}

// firstWords returns what each of n peers of an address hears first.
func firstWords(t *testing.T, n int, cfg rpc.Config, address string) []string {
	t.Helper()
	c, err := rpc.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for range n {
		ctx, stop := context.WithCancel(t.Context())
		p := c.Peer(rpc.PeerConfig{Addresses: []string{address}, Changed: func(_ bool, err error) {
			if ctx.Err() == nil {
				words = append(words, errors.Join(err, errors.New("")).Error())
			}
			stop()
		}})
		_ = p.Run(ctx) // it says nothing else
	}
	return words
}

// TestRefusedOverSockets: a client that TLS keeps out hears why, each time,
// although the server closes the connection while it writes.
func TestRefusedOverSockets(t *testing.T) {
	keys := certificates(t)
	anonymous := keys.client.Clone()
	anonymous.Certificates = nil
	attempts := 100
	if testing.Short() {
		attempts = 30
	}
	for _, c := range []struct {
		name           string
		server, client *tls.Config
		want           []string
	}{
		{"no certificate", keys.server, anonymous, []string{"certificate required"}},
		{"no TLS at the server", nil, keys.client, []string{"speaks no TLS", "give both sides --tls-"}},
		{"no TLS at the client", keys.server, nil, []string{"TLS"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := rpc.DefaultConfig()
			cfg.Key = testKey
			cfg.TLS = c.server
			s, err := rpc.NewServer(rpc.ServerConfig{Config: cfg, Worker: 7, Epoch: 3})
			if err != nil {
				t.Fatal(err)
			}
			l, address := listenOn(t, "tcp")
			var g sync.WaitGroup
			g.Go(func() {
				if err := s.Serve(l); err != nil {
					t.Error(err)
				}
			})
			cfg.TLS = c.client
			got := firstWords(t, attempts, cfg, address)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			g.Wait()
			for _, want := range c.want {
				if i := slices.IndexFunc(got, func(w string) bool { return !strings.Contains(w, want) }); i >= 0 || len(got) != attempts {
					t.Errorf("attempt %d of %d says %q, want %q in it", i, len(got), got[max(0, i)], want)
				}
			}
		})
	}
}

// TestHandshakeWriteFails: a client that cannot write says what the server has
// said, if it has said something.
func TestHandshakeWriteFails(t *testing.T) {
	for _, c := range []struct {
		name, says string
		close      bool
		want       string
		within     time.Duration
	}{
		{"refusal", "dynamo\r\n\x00\x01\x04\x00\x00\x08too many", true, "the server refuses: too many", time.Millisecond},
		{"no word", "", false, "send the hello: write tcp: write: broken pipe", 1100 * time.Millisecond},
		{"half a word", "dyn", false, "send the hello: write tcp: write: broken pipe", 1100 * time.Millisecond},
		{"other words", "HTTP/1.1 400 Bad Request\r\n\r\n", true, "another protocol is spoken there", time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				began := time.Now()
				first := make(chan struct{})
				told := sync.OnceFunc(func() { close(first) })
				p := connect(t, nil, options{unwelcome: true, onChange: func(bool) { told() }, client: func(cfg *rpc.Config) {
					cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
						near, far := net.Pipe()
						go func() { // ends when the client closes
							_, _ = io.WriteString(far, c.says)
							if c.close {
								_ = far.Close()
							}
						}()
						nc := &faulty{Conn: near}
						nc.breakWrites()
						return nc, nil
					}
				}})
				<-first
				elapsed(t, began, 0, c.within)
				p.stop()
				if got := p.changes(); !strings.Contains(got[0], c.want) {
					t.Errorf("the client says %q, want %q in it", got[0], c.want)
				}
			})
		})
	}
}
