package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/transfer"
	"github.com/dynamo-go/dynamo/transfer/transfertest"
)

// lendingPair makes two agents of which both lend to the kernel what is large enough.
func lendingPair(t *testing.T, change func(i int, c *transfer.Config)) *transfertest.Pair {
	t.Helper()
	return pair(t, transfer.PathTCP, func(i int, c *transfer.Config) {
		c.ZeroCopy = transfer.ZeroCopyAlways
		if change != nil {
			change(i, c)
		}
	})
}

// TestZeroCopy: the path tcp conforms where it lends, and it does lend.
func TestZeroCopy(t *testing.T) {
	transfer.NeedLending(t)
	r := obs.NewRegistry()
	m := transfer.NewMetrics(r)
	transfertest.Run(t, func(t *testing.T) *transfertest.Pair {
		return lendingPair(t, func(_ int, c *transfer.Config) { c.Metrics = m })
	})
	if n := lentBytes(t, r); n < 100<<20 {
		t.Errorf("%d bytes were lent", n)
	}
}

// lentBytes reads the metrics of what was lent.
func lentBytes(t *testing.T, r *obs.Registry) (bytes int64) {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		var n float64
		if at := strings.LastIndexByte(line, ' '); strings.HasPrefix(line, "dynamo_transfer_lent_bytes_total{") && at > 0 {
			if _, err := fmt.Sscan(line[at:], &n); err != nil {
				t.Fatal(err)
			}
			bytes += int64(n)
		}
	}
	return bytes
}

// relay stands between A, which dials it, and B. It can hold what goes one way, and looks
// for bytes that must not be there.
type relay struct {
	buffer int // of its sockets towards A and B, in bytes; 0: the system's
	bad    byte
	faulty func(net.Conn) net.Conn // gives connections a fault

	turn  [2]chan struct{} // by direction, that of writes first: who reads needs it
	wg    sync.WaitGroup
	mu    sync.Mutex
	found int
}

func newRelay() *relay {
	r := &relay{}
	for i := range r.turn {
		r.turn[i] = make(chan struct{}, 1)
		r.turn[i] <- struct{}{}
	}
	return r
}

// dial connects A to B through the relay.
func (r *relay) dial(ctx context.Context, network, address string) (net.Conn, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	mine, err := l.Accept()
	if err != nil {
		return nil, err
	}
	b, err := net.Dial(network, address)
	if err != nil {
		_, _ = a.Close(), mine.Close()
		return nil, err
	}
	for _, c := range []net.Conn{mine, b} {
		if r.buffer > 0 {
			_ = c.(*net.TCPConn).SetReadBuffer(r.buffer)
		}
	}
	r.wg.Go(func() { r.pass(b, mine, r.turn[0]) })
	r.wg.Go(func() { r.pass(mine, b, r.turn[1]) })
	return a, nil
}

// pass reads until the end, even if nobody takes it.
func (r *relay) pass(to, from net.Conn, turn chan struct{}) {
	b := make([]byte, 32<<10)
	if r.faulty != nil {
		to = r.faulty(to)
	}
	bad := bytes.Repeat([]byte{r.bad}, 64)
	for {
		<-turn
		turn <- struct{}{}
		n, err := from.Read(b)
		if r.bad != 0 && bytes.Contains(b[:n], bad) {
			r.mu.Lock()
			r.found++
			r.mu.Unlock()
		}
		if _, werr := to.Write(b[:n]); werr != nil && r.faulty != nil {
			_, _ = from.Close(), to.Close()
			return
		}
		if err != nil {
			_ = to.Close()
			return
		}
	}
}

// TestZeroCopyFaults: what is lent arrives as it was, or not at all, over a connection
// that flips a bit or breaks.
func TestZeroCopyFaults(t *testing.T) {
	transfer.NeedLending(t)
	const size = 192 << 10
	faults{size: size, part: size / 2, step: 2 * size / 97, pair: func(t *testing.T, fault func(c net.Conn, b []byte) bool) (*transfertest.Pair, *atomic.Int64) {
		at := &atomic.Int64{}
		at.Store(1 << 62)
		r := newRelay()
		r.faulty = func(c net.Conn) net.Conn { return &wire{c, at, fault} }
		return lendingPair(t, func(_ int, c *transfer.Config) { c.Connections, c.Dial = 1, r.dial }), at
	}}.run(t)
}

// TestLentIsQuiet: when a write was cancelled, or the lease of what is read was revoked,
// while the kernel has bytes that a peer does not take, then nothing sends what the memory
// holds from then on.
func TestLentIsQuiet(t *testing.T) {
	transfer.NeedLending(t)
	for _, op := range []transfer.Op{transfer.Write, transfer.Read} {
		t.Run(op.String(), func(t *testing.T) {
			for range 2 {
				lentIsQuiet(t, op)
			}
		})
	}
}

func lentIsQuiet(t *testing.T, op transfer.Op) {
	const size, bad = 4 << 20, 0xEE
	r := newRelay()
	r.bad, r.buffer = bad, 64<<10 // so that most stays with the sender
	p := lendingPair(t, func(_ int, c *transfer.Config) { c.Connections, c.Dial = 1, r.dial })
	a := memory(t, p.A, transfer.Section{Name: "own"}, size)
	b := memory(t, p.B, transfer.Section{Name: "kv"}, size)
	lease, err := b.Lend(transfer.Range{Length: size}, true, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		t.Fatal(err)
	}
	list := func(bytes int64) *transfer.List {
		l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, bytes)}, []transfer.Descriptor{lease.At(0, bytes)})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if err := begin(t, p.A, list(1), op).Wait(t.Context()); err != nil { // it connects
		t.Fatal(err)
	}
	sender, m, turn := p.A, a, r.turn[0]
	if op == transfer.Read {
		sender, m, turn = p.B, b, r.turn[1]
	}
	<-turn
	x := begin(t, p.A, list(size), op)
	for parts := 0; parts == 0; parts, _ = transfer.Lent(sender) {
		time.Sleep(time.Millisecond)
	}
	begun := time.Now()
	if op == transfer.Write {
		x.Cancel()
		if err := x.Wait(t.Context()); dynamo.KindOf(err) != dynamo.KindCancelled {
			t.Errorf("%v, want it cancelled", err)
		}
	} else {
		lease.Revoke()
		<-lease.Done()
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the memory was quiet after %v", took)
	}
	if parts, _ := transfer.Lent(sender); parts > 0 && op == transfer.Write {
		t.Errorf("the kernel has %d parts of memory that is quiet", parts)
	}
	for i := range m.Bytes() {
		m.Bytes()[i] = bad
	}
	turn <- struct{}{}
	x.Cancel()
	_ = x.Wait(t.Context())
	for parts := 1; parts > 0; parts, _ = transfer.Lent(sender) {
		time.Sleep(time.Millisecond)
	}
	peer.Close()
	r.wg.Wait()
	if r.found > 0 {
		t.Errorf("what was written after the end was sent, in %d places", r.found)
	}
}

func begin(t *testing.T, a *transfer.Agent, l *transfer.List, op transfer.Op) *transfer.Transfer {
	t.Helper()
	x, err := a.Post(l, op, transfer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestLentIsReused: memory that is written anew as soon as a transfer, or a lease, has
// ended does not change what arrives, whether the peer reads quickly or hardly.
func TestLentIsReused(t *testing.T) {
	transfer.NeedLending(t)
	const size = 512 << 10
	for _, buffer := range []int{0, 64 << 10} {
		r := newRelay()
		r.buffer = buffer
		p := lendingPair(t, func(i int, c *transfer.Config) {
			if buffer > 0 {
				c.Dial = r.dial
			}
		})
		a := memory(t, p.A, transfer.Section{Name: "own"}, size)
		b := memory(t, p.B, transfer.Section{Name: "kv"}, size)
		peer, err := p.A.Import(p.B.Export())
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		for i := range 30 {
			op := transfer.Op(i % 2)
			from, to := a, b
			if op == transfer.Read {
				from, to = b, a
			}
			pattern(want, byte(i))
			copy(from.Bytes(), want)
			lease, err := b.Lend(transfer.Range{Length: size}, true, time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, size)}, []transfer.Descriptor{lease.At(0, size)})
			if err != nil {
				t.Fatal(err)
			}
			x, err := p.A.Post(l, op, transfer.Options{Acknowledge: true})
			if err == nil {
				err = x.Wait(t.Context())
			}
			if err != nil {
				t.Fatal(err)
			}
			if op == transfer.Read {
				<-lease.Done()
			}
			clear(from.Bytes())
			if !bytes.Equal(to.Bytes(), want) {
				t.Fatalf("%s %d: other bytes have arrived", op, i)
			}
			<-lease.Done()
		}
		if _, rings := transfer.Lent(p.A); rings == 0 {
			t.Error("nothing was lent")
		}
	}
}

// TestNoRing: where the system refuses, what is sent is copied.
func TestNoRing(t *testing.T) {
	r := obs.NewRegistry()
	m := transfer.NewMetrics(r)
	for _, err := range []error{syscall.ENOSYS, syscall.EPERM, syscall.EMFILE} {
		p := lendingPair(t, func(_ int, c *transfer.Config) { c.Metrics = m })
		transfer.RefuseRings(p.A, err)
		transfer.RefuseRings(p.B, err)
		a := memory(t, p.A, transfer.Section{Name: "own"}, 1<<20)
		b := memory(t, p.B, transfer.Section{Name: "kv", Access: transfer.AccessWrite}, 1<<20)
		pattern(a.Bytes(), 5)
		peer, err := p.A.Import(p.B.Export())
		if err != nil {
			t.Fatal(err)
		}
		l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 1<<20)}, []transfer.Descriptor{b.At(0, 1<<20)})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			if err := begin(t, p.A, l, transfer.Op((i+1)%2)).Wait(t.Context()); err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
				t.Fatalf("%v, or other bytes", err)
			}
		}
	}
	if n := lentBytes(t, r); n != 0 {
		t.Errorf("%d bytes were lent without a ring", n)
	}
}

// TestRingsEnd: a ring lasts no longer than its connection, on either side.
func TestRingsEnd(t *testing.T) {
	transfer.NeedLending(t)
	before := rings(t)
	p := lendingPair(t, nil)
	a := memory(t, p.A, transfer.Section{Name: "own"}, 1<<20)
	b := memory(t, p.B, transfer.Section{Name: "kv", Access: transfer.AccessWrite}, 1<<20)
	for i := range 4 {
		peer, err := p.A.Import(p.B.Export())
		if err != nil {
			t.Fatal(err)
		}
		l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 1<<20)}, []transfer.Descriptor{b.At(0, 1<<20)})
		if err != nil {
			t.Fatal(err)
		}
		for op := range transfer.Op(2) {
			if err := begin(t, p.A, l, op).Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 && rings(t) == before {
			t.Error("nothing was lent")
		}
		peer.Close()
	}
	p.Stop()
	for deadline := time.Now().Add(10 * time.Second); rings(t) > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d rings are left, of %d before", rings(t), before)
		}
	}
}

// rings counts those of this process.
func rings(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && strings.Contains(to, "io_uring") {
			n++
		}
	}
	return n
}
