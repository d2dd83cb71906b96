package testnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo/internal/testnet"
)

// link makes one connection from host a to host b.
func link(t *testing.T, n *testnet.Network) (a, b net.Conn) {
	t.Helper()
	l, err := n.Host("b").Listen("b:0")
	if err != nil {
		t.Fatal(err)
	}
	if a, err = n.Host("a").Dial(t.Context(), "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []io.Closer{a, b, l} {
			c.Close() // most tests have closed or broken it
		}
		if got := n.Connections(); got != 0 {
			t.Errorf("%d connections are left after both ends are closed", got)
		}
	})
	return a, b
}

// message is the next bytes that a read returns.
func message(t *testing.T, c net.Conn) string {
	t.Helper()
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		t.Errorf("read: %v", err)
	}
	return string(b[:n])
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if n, err := io.WriteString(c, s); n != len(s) || err != nil {
		t.Errorf("write %q: %d, %v", s, n, err)
	}
}

// silent checks that nothing can be read for an hour.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Hour))
	n, err := c.Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read from a silent connection: %d, %v", n, err)
	}
	c.SetReadDeadline(time.Time{})
}

func took(t *testing.T, want time.Duration, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if got := time.Since(begin); got != want {
		t.Errorf("took %v, want %v", got, want)
	}
}

func TestStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := link(t, testnet.New())
		data := bytes.Repeat([]byte("0123456789abcdef!"), 20_000)
		for _, c := range [][2]net.Conn{{a, b}, {b, a}} {
			go func() {
				if n, err := c[0].Write(data); n != len(data) || err != nil {
					t.Errorf("write: %d, %v", n, err)
				}
				if c[0] == b {
					c[0].Close()
				}
			}()
			got := make([]byte, len(data))
			if _, err := io.ReadFull(c[1], got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read: %v; equal %v", err, bytes.Equal(got, data))
			}
		}
		if _, err := a.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read after the other side closed: %v, want EOF", err)
		}
		if _, err := a.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("write after the other side closed: %v, want EPIPE", err)
		}
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read after close: %v, want net.ErrClosed", err)
		}
		if err := b.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("second close: %v, want net.ErrClosed", err)
		}
		if got := a.LocalAddr().String() + " " + a.RemoteAddr().String(); got != "a:32768 b:10000" || got != b.RemoteAddr().String()+" "+b.LocalAddr().String() {
			t.Errorf("addresses %s", got)
		}
	})
}

func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := link(t, testnet.New())
		a.SetWriteDeadline(time.Now().Add(time.Second))
		took(t, time.Second, func() {
			n, err := a.Write(make([]byte, 1<<20))
			if n != testnet.BufferBytes || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write without a reader: %d, %v", n, err)
			}
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("%v is no timeout", err)
			}
		})
		a.SetWriteDeadline(time.Time{})
		var wg sync.WaitGroup
		for _, s := range []string{"x", "y"} { // writes do not mix
			wg.Go(func() {
				if n, err := a.Write(bytes.Repeat([]byte(s), 100_000)); n != 100_000 || err != nil {
					t.Errorf("write: %d, %v", n, err)
				}
			})
		}
		synctest.Wait()
		got := make([]byte, testnet.BufferBytes+200_000)
		if _, err := io.ReadFull(b, got); err != nil {
			t.Error(err)
		}
		wg.Wait()
		text := string(got[testnet.BufferBytes:])
		if first := text[:1]; strings.TrimLeft(strings.TrimLeft(text, first), string('x'+'y'-first[0])) != "" {
			t.Error("the bytes of two writes are mixed")
		}
		go func() {
			time.Sleep(time.Second)
			b.SetReadDeadline(time.Now()) // ends a read that waits
			time.Sleep(time.Second)
			b.Close()
		}()
		took(t, time.Second, func() {
			if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read: %v, want a deadline", err)
			}
		})
		took(t, time.Second, func() { // a blocked writer learns that the reader is gone
			if n, err := a.Write(make([]byte, 1<<20)); n != testnet.BufferBytes || !errors.Is(err, syscall.EPIPE) {
				t.Errorf("write to a closed connection: %d, %v", n, err)
			}
		})
	})
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := link(t, n)
		n.Delay("a", "b", 3*time.Second)
		send(t, a, "slow")
		n.Delay("a", "b", time.Second)
		send(t, a, "fast")
		time.Sleep(time.Second)
		took(t, 2*time.Second, func() {
			if got := message(t, b); got != "slowfast" {
				t.Errorf("read %q", got)
			}
		})
		took(t, 0, func() {
			send(t, b, "back")
			message(t, a)
		})
		n.Delay("b", "a", time.Second)
		took(t, 2*time.Second, func() { // there and back
			c, err := n.Host("a").Dial(t.Context(), "tcp", "b:10000")
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
		took(t, time.Second, func() { // the close travels too
			send(t, a, "last")
			a.Close()
			if got, err := io.ReadAll(b); string(got) != "last" || err != nil {
				t.Errorf("read %q, %v", got, err)
			}
		})
		n.HealAll()
	})
}

func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := link(t, n)
		n.Delay("a", "b", time.Second)
		send(t, a, "under way ")
		n.Partition("a", "b")
		send(t, a, "held")
		silent(t, b)
		send(t, b, "heard")
		if got := message(t, a); got != "heard" {
			t.Errorf("the open direction gave %q", got)
		}
		// Without acknowledgements the buffer of the open direction fills.
		b.SetWriteDeadline(time.Now().Add(time.Second))
		go io.Copy(io.Discard, a)
		if got, err := b.Write(make([]byte, 1<<20)); got != testnet.BufferBytes-len("heard") || err == nil {
			t.Errorf("wrote %d unacknowledged bytes, %v", got, err)
		}
		b.SetWriteDeadline(time.Time{})
		for _, hosts := range [][2]string{{"a", "b:10000"}, {"b", "a:10000"}} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			took(t, time.Minute, func() {
				if _, err := n.Host(hosts[0]).Dial(ctx, "tcp", hosts[1]); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("dial in a partition: %v, want the context's error", err)
				}
			})
			cancel()
		}
		took(t, 127*time.Second, func() {
			if _, err := n.Host("a").Dial(t.Context(), "tcp", "b:10000"); !errors.Is(err, syscall.ETIMEDOUT) {
				t.Errorf("dial in a partition: %v, want ETIMEDOUT", err)
			}
		})
		go func() {
			time.Sleep(time.Minute)
			n.Heal("b", "a")
		}()
		took(t, time.Minute+time.Second, func() {
			if got := message(t, b); got != "under way held" {
				t.Errorf("healed: %q", got)
			}
		})
		send(t, b, strings.Repeat("x", testnet.BufferBytes))
		n.PartitionBoth("a", "b")
		send(t, a, "end")
		a.Close()
		silent(t, b)
		n.HealAll()
		if got, err := io.ReadAll(b); string(got) != "end" || err != nil {
			t.Errorf("closed in a partition and healed: %q, %v", got, err)
		}
	})
}

// failsAtOnce checks that a connection is broken in both directions.
func failsAtOnce(t *testing.T, c net.Conn) {
	t.Helper()
	took(t, 0, func() {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v, want ECONNRESET", err)
		}
		if _, err := c.Write(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v, want ECONNRESET", err)
		}
	})
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := link(t, n)
		send(t, a, "lost")
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("waiting read: %v, want ECONNRESET", err)
			}
		})
		synctest.Wait()
		if got := n.Reset("a", "c"); got != 0 {
			t.Errorf("reset of other hosts broke %d", got)
		}
		if got := n.Reset("b", "a"); got != 1 {
			t.Errorf("reset broke %d, want 1", got)
		}
		wg.Wait()
		failsAtOnce(t, a)
		failsAtOnce(t, b)
		if got := n.Connections(); got != 0 {
			t.Errorf("%d connections live", got)
		}
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := link(t, n)
		send(t, b, "sent before")
		n.Pause("b")
		if got := message(t, a); got != "sent before" {
			t.Errorf("read %q", got)
		}
		b.SetDeadline(time.Now().Add(time.Second)) // nothing fires in a stopped process
		send(t, a, "unread")
		var wg sync.WaitGroup
		wg.Go(func() {
			took(t, time.Hour+time.Second, func() {
				if _, err := b.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("read while paused: %v", err)
				}
			})
		})
		took(t, time.Hour, func() {
			wg.Go(func() {
				if _, err := b.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("write while paused: %v", err)
				}
				b.SetWriteDeadline(time.Time{})
				send(t, b, "late")
			})
			silent(t, a)
		})
		// The machine still takes connections and bytes.
		c, err := n.Host("a").Dial(t.Context(), "tcp", "b:10000")
		if err != nil {
			t.Fatal(err)
		}
		a.SetWriteDeadline(time.Now().Add(time.Second))
		if got, err := a.Write(make([]byte, 1<<20)); got != testnet.BufferBytes-len("unread") || err == nil {
			t.Errorf("wrote %d to a paused host, %v", got, err)
		}
		c.Close()
		n.Resume("b")
		wg.Wait()
		if got := message(t, a); got != "late" {
			t.Errorf("after resume: %q", got)
		}
		n.Pause("b")
		b.Close()
		silent(t, a)
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read of one's own closed connection: %v", err)
		}
		n.Resume("b")
		if _, err := a.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read after resume: %v, want EOF", err)
		}
	})
}

// TestPausedHost wants a paused host neither to take connections nor to make them.
func TestPausedHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := n.Host("a"), n.Host("b")
		la, err := a.Listen(":1")
		if err != nil {
			t.Fatal(err)
		}
		lb, err := b.Listen(":1")
		if err != nil {
			t.Fatal(err)
		}
		n.Pause("b")
		near, err := a.Dial(t.Context(), "tcp", "b:1")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Hour)
			n.Resume("b")
		}()
		var wg sync.WaitGroup
		wg.Go(func() {
			took(t, time.Hour, func() {
				if c, err := b.Dial(t.Context(), "tcp", "a:1"); err == nil {
					c.Close()
				}
			})
		})
		took(t, time.Hour, func() {
			if c, err := lb.Accept(); err == nil {
				c.Close()
			}
		})
		wg.Wait()
		n.Pause("b")
		lb.Close()
		if c, err := a.Dial(t.Context(), "tcp", "b:1"); err != nil {
			t.Errorf("dial to a listener that a paused host closed: %v", err)
		} else {
			c.Close()
		}
		n.Resume("b")
		if _, err := a.Dial(t.Context(), "tcp", "b:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial after resume: %v", err)
		}
		near.Close()
		la.Close()
		if got := n.Connections(); got != 0 {
			t.Errorf("%d connections left", got)
		}
	})
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		a, b := link(t, n)
		old := n.Host("b")
		c, err := n.Host("c").Dial(t.Context(), "tcp", "b:10000")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		n.Pause("b")
		n.PartitionBoth("b", "c")
		n.Kill("b")
		failsAtOnce(t, a)
		failsAtOnce(t, b)
		silent(t, c)
		n.Heal("b", "c")
		failsAtOnce(t, c)
		if _, err := n.Host("a").Dial(t.Context(), "tcp", "b:10000"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial to a killed host: %v, want ECONNREFUSED", err)
		}
		if _, err := old.Dial(t.Context(), "tcp", "a:1"); err == nil {
			t.Error("a killed host dials")
		}
		if _, err := old.Listen(":0"); err == nil {
			t.Error("a killed host listens")
		}
		l, err := n.Host("b").Listen("b:10000") // a new process at the same address
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if c, err = n.Host("a").Dial(t.Context(), "tcp", "b:10000"); err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

func TestListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		h := n.Host("a")
		tests := []struct{ listen, want string }{
			{"a:0", "a:10000"}, {"127.0.0.1:0", "a:10001"}, {":80", "a:80"}, {"0.0.0.0:10002", "a:10002"}, {"[::]:0", "a:10003"},
			{"localhost:10002", ""}, {"b:1", ""}, {"a", ""}, {"a:x", ""}, {"a:65536", ""},
			{"unix:///run/x", "/run/x"}, {"/run/x", ""}, {"/run/y", "/run/y"},
		}
		for _, tt := range tests {
			l, err := h.Listen(tt.listen)
			if (err == nil) != (tt.want != "") || err == nil && l.Addr().String() != tt.want {
				t.Errorf("Listen(%q): %v, want %q", tt.listen, err, tt.want)
			}
		}
		dials := []struct {
			from, network, addr string
			ok                  bool
		}{
			{"a", "tcp", "127.0.0.1:80", true}, {"b", "tcp", "a:80", true}, {"b", "tcp", "localhost:80", false}, {"b", "tcp", "c:80", false},
			{"a", "unix", "/run/x", true}, {"b", "unix", "/run/x", false}, {"a", "udp", "a:80", false}, {"a", "tcp", "a", false},
		}
		for _, tt := range dials {
			c, err := n.Host(tt.from).Dial(t.Context(), tt.network, tt.addr)
			if (err == nil) != tt.ok {
				t.Errorf("%s dials %s %s: %v", tt.from, tt.network, tt.addr, err)
			}
			if err == nil {
				c.Close()
			}
		}
	})
}

func TestListenerClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		l, err := n.Host("b").Listen(":0")
		if err != nil {
			t.Fatal(err)
		}
		var queued []net.Conn
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for {
			c, err := n.Host("a").Dial(ctx, "tcp", "b:10000")
			if err != nil { // the backlog is full
				break
			}
			queued = append(queued, c)
		}
		if len(queued) != 128 {
			t.Errorf("%d connections wait for Accept, want 128", len(queued))
		}
		if _, err := l.Accept(); err != nil {
			t.Error(err)
		}
		l.Close()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept after close: %v", err)
		}
		failsAtOnce(t, queued[1])
		silent(t, queued[0])
	})
}
