package transfer_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/transfer"
	"github.com/dynamo-go/dynamo/transfer/transfertest"
)

// wire is a connection with a fault at one of its bytes, counted over both
// directions.
type wire struct {
	net.Conn
	at    *atomic.Int64 // bytes until the fault
	fault func(c net.Conn, b []byte) (stop bool)
}

func (w *wire) pass(b []byte) bool {
	left := w.at.Add(-int64(len(b)))
	if left >= 0 || left < -int64(len(b)) {
		return false
	}
	return w.fault(w.Conn, b[int64(len(b))+left:])
}

func (w *wire) Write(b []byte) (int, error) {
	own := bytes.Clone(b)
	if w.pass(own) {
		return 0, net.ErrClosed
	}
	return w.Conn.Write(own)
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if n > 0 && w.pass(b[:n]) {
		return 0, net.ErrClosed
	}
	return n, err
}

// faulty makes a pair over tcp whose A meets a fault after so many bytes.
func faulty(t *testing.T, fault func(c net.Conn, b []byte) bool) (*transfertest.Pair, *atomic.Int64) {
	at := &atomic.Int64{}
	at.Store(1 << 62)
	return pair(t, transfer.PathTCP, func(i int, c *transfer.Config) {
		c.Connections = 1
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &wire{nc, at, fault}, nil
		}
	}), at
}

func pattern(b []byte, seed byte) {
	for i := range b {
		b[i] = seed + byte(i>>8) ^ byte(i*31)
	}
}

// TestTCPFaults: a connection that flips a bit or breaks, at any byte of a
// transfer, its handshake included, ends in an error or in the right bytes.
func TestTCPFaults(t *testing.T) {
	faults{size: 24 << 10, part: 8 << 10, step: 97, pair: faulty}.run(t)
}

// faults are transfers of a size, cut in parts, each of which meets a fault so many bytes
// later than the last.
type faults struct {
	size, part, step int64
	pair             func(t *testing.T, fault func(c net.Conn, b []byte) bool) (*transfertest.Pair, *atomic.Int64)
}

func (k faults) run(t *testing.T) {
	for _, f := range []struct {
		name  string
		fault func(c net.Conn, b []byte) bool
	}{
		{"bit flip", func(_ net.Conn, b []byte) bool { b[0] ^= 16; return false }},
		{"broken", func(c net.Conn, b []byte) bool { _ = c.Close(); return true }},
		{"short write", func(c net.Conn, b []byte) bool { _, _ = c.Write(b[:1]); _ = c.Close(); return true }},
	} {
		t.Run(f.name, func(t *testing.T) {
			// Some faults, such as one in a length, end with the deadline, which is short
			// therefore. On a machine so busy that most transfers do, more time is given.
			for patience := 100 * time.Millisecond; ; patience *= 4 {
				failed, corrupt := k.meet(t, f.fault, patience)
				t.Logf("%d transfers failed within %v, %d of them corrupt", failed, patience, corrupt)
				if failed > 0 && (f.name != "bit flip" || corrupt > 0) {
					return
				}
				if patience > time.Second {
					t.Fatal("no fault was met")
				}
			}
		})
	}
}

// meet makes transfers of which each meets the fault at another byte, and counts those
// that failed.
func (k faults) meet(t *testing.T, fault func(c net.Conn, b []byte) bool, patience time.Duration) (failed, corrupt int) {
	p, at := k.pair(t, fault)
	size, length := k.size, k.part*7/8
	a := memory(t, p.A, transfer.Section{Name: "own", PageBytes: 4096}, size)
	b := memory(t, p.B, transfer.Section{Name: "kv", PageBytes: 4096}, size)
	for i := int64(0); i < 2*size; i += k.step {
		peer, err := p.A.Import(p.B.Export())
		if err != nil {
			t.Fatal(err)
		}
		lease, err := b.Lend(transfer.Range{Length: size}, true, time.Minute) // what a broken connection brings late is refused
		if err != nil {
			t.Fatal(err)
		}
		var own, theirs []transfer.Descriptor
		for at := int64(0); at < size; at += k.part {
			own, theirs = append(own, a.At(at, length)), append(theirs, lease.At(size-at-k.part, length))
		}
		op := transfer.Op(i % 2)
		pattern(a.Bytes(), byte(i))
		pattern(b.Bytes(), byte(i)+99)
		at.Store(i % (size + 600))
		l, err := p.A.Prepare(peer, own, theirs)
		if err != nil {
			t.Fatal(err)
		}
		x, err := p.A.Post(l, op, transfer.Options{Checksum: true, Deadline: time.Now().Add(patience)})
		if err == nil {
			err = x.Wait(t.Context())
		}
		at.Store(1 << 62)
		lease.Revoke()
		<-lease.Done()
		switch {
		case err == nil:
			for k := range own {
				if !bytes.Equal(a.Bytes()[own[k].Offset:][:length], b.Bytes()[theirs[k].Offset:][:length]) {
					t.Fatalf("a fault after %d bytes was not found", i%(size+600))
				}
			}
		case dynamo.KindOf(err) == dynamo.KindCorrupt:
			corrupt++
			fallthrough
		default:
			failed++
		}
		if i%5 == 0 {
			peer.Close() // so that the handshake meets faults, too
		}
	}
	return failed, corrupt
}

// TestNextPath: when shm fails tcp takes over, and the other way round nobody goes
// by tcp who can map.
func TestNextPath(t *testing.T) {
	if !hasShm(t) {
		t.Skip("no shared memory on this system")
	}
	dir := t.TempDir()
	p := pair(t, transfer.PathTCP, func(_ int, c *transfer.Config) { c.SocketDir = dir })
	a := memory(t, p.A, transfer.Section{Name: "own"}, 1<<20)
	b := memory(t, p.B, transfer.Section{Name: "kv", Access: transfer.AccessWrite}, 1<<20)
	move := func(peer *transfer.Peer) transfer.Path {
		t.Helper()
		info, _ := peer.Memory("kv")
		pattern(a.Bytes(), 3)
		clear(b.Bytes())
		l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 1<<20)}, []transfer.Descriptor{info.At(0, 1<<20)})
		if err != nil {
			t.Fatal(err)
		}
		x, err := p.A.Post(l, transfer.Write, transfer.Options{Notify: []byte("n")})
		if err == nil {
			err = x.Wait(t.Context())
		}
		if err != nil || !bytes.Equal(a.Bytes(), b.Bytes()) {
			t.Fatalf("%v, or other bytes", err)
		}
		if n, err := p.B.Notification(t.Context()); err != nil || string(n.Payload) != "n" {
			t.Fatalf("notification %q, %v", n.Payload, err)
		}
		return x.Stats().Path
	}
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		t.Fatal(err)
	}
	if got := move(peer); got != transfer.PathShm {
		t.Errorf("went by %s where both could map", got)
	}
	peer.Close()
	left, _ := filepath.Glob(filepath.Join(dir, "*.sock"))
	for _, s := range left {
		_ = os.Remove(s)
	}
	if peer, err = p.A.Import(p.B.Export()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := move(peer); got != transfer.PathTCP {
			t.Errorf("went by %s without a socket", got)
		}
	}
}

// TestDeadSockets: what dead processes leave in the directory is removed, what
// lives is not.
func TestDeadSockets(t *testing.T) {
	if !hasShm(t) {
		t.Skip("no shared memory on this system")
	}
	dir := t.TempDir()
	dead := filepath.Join(dir, "transfer-0123456789abcdef.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	start(t, config(t, "a", transfer.PathShm, nil, dir))
	start(t, config(t, "b", transfer.PathShm, nil, dir))
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 2 || left[0] == dead || left[1] == dead {
		t.Errorf("in the directory: %q", left)
	}
}

// TestAnotherLife: an agent at an old address is not taken for its predecessor.
func TestAnotherLife(t *testing.T) {
	c := config(t, "prefill-1", transfer.PathTCP, nil, "")
	address := c.Listener.Addr().String()
	first, stop := start(t, c)
	memory(t, first, transfer.Section{Name: "kv", Access: transfer.AccessWrite}, 4096)
	a, _ := start(t, config(t, "decode-1", transfer.PathTCP, nil, ""))
	own := memory(t, a, transfer.Section{Name: "own"}, 4096)
	peer, err := a.Import(first.Export())
	if err != nil {
		t.Fatal(err)
	}
	info, _ := peer.Memory("kv")
	stop()
	c = config(t, "prefill-2", transfer.PathTCP, nil, "")
	_ = c.Listener.Close()
	if c.Listener, err = net.Listen("tcp", address); err != nil {
		t.Skip("the address is taken: ", err)
	}
	start(t, c)
	l, err := a.Prepare(peer, []transfer.Descriptor{own.At(0, 4096)}, []transfer.Descriptor{info.At(0, 4096)})
	if err != nil {
		t.Fatal(err)
	}
	x, err := a.Post(l, transfer.Write, transfer.Options{})
	if err == nil {
		err = x.Wait(t.Context())
	}
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("prefill-2")) {
		t.Errorf("%v, want an error that names who runs there", err)
	}
}

// TestGarbage: strangers cost a connection and no more.
func TestGarbage(t *testing.T) {
	p := pair(t, transfer.PathTCP, nil)
	a := memory(t, p.A, transfer.Section{Name: "own"}, 4096)
	memory(t, p.B, transfer.Section{Name: "kv", Access: transfer.AccessWrite}, 4096)
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		t.Fatal(err)
	}
	info, _ := peer.Memory("kv")
	blob := p.B.Export()
	at := bytes.Index(blob, []byte("127.0.0.1:"))
	address := string(blob[at : at+bytes.IndexByte(blob[at:], 0)])
	for i, garbage := range [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 1000), []byte("dynxfer\n\x00\x01"), {22, 3, 1, 0, 5}} {
		nc, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		_, _ = nc.Write(garbage)
		defer nc.Close()
	}
	l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 4096)}, []transfer.Descriptor{info.At(0, 4096)})
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.A.Post(l, transfer.Write, transfer.Options{})
	if err == nil {
		err = x.Wait(t.Context())
	}
	if err != nil {
		t.Errorf("beside strangers: %v", err)
	}
}

// TestSilentPeer: a peer that takes what is sent and says nothing costs the time
// up to the deadline, and a cancelled transfer ends at once.
func TestSilentPeer(t *testing.T) {
	silent := &atomic.Bool{}
	p := pair(t, transfer.PathTCP, func(_ int, c *transfer.Config) {
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if silent.Load() {
				return nil, net.ErrClosed
			}
			nc, err := new(net.Dialer).DialContext(ctx, network, address)
			return &mute{nc, silent}, err
		}
	})
	a := memory(t, p.A, transfer.Section{Name: "own"}, 8<<20)
	memory(t, p.B, transfer.Section{Name: "kv", Access: transfer.AccessWrite}, 8<<20)
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		t.Fatal(err)
	}
	info, _ := peer.Memory("kv")
	l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 8<<20)}, []transfer.Descriptor{info.At(0, 8<<20)})
	if err != nil {
		t.Fatal(err)
	}
	post := func(o transfer.Options) *transfer.Transfer {
		t.Helper()
		x, err := p.A.Post(l, transfer.Write, o)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	if err := post(transfer.Options{}).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	silent.Store(true)
	begun := time.Now()
	err = post(transfer.Options{Deadline: begun.Add(50 * time.Millisecond)}).Wait(t.Context())
	if took := time.Since(begun); dynamo.KindOf(err) != dynamo.KindDeadline || took > 10*time.Second {
		t.Errorf("%v after %v, want the deadline", err, took)
	}
	x := post(transfer.Options{})
	begun = time.Now()
	x.Cancel()
	err = x.Wait(t.Context())
	if took := time.Since(begun); dynamo.KindOf(err) != dynamo.KindCancelled || took > 10*time.Second {
		t.Errorf("%v after %v, want it cancelled", err, took)
	}
	begun = time.Now()
	err = post(transfer.Options{}).Wait(t.Context())
	if took := time.Since(begun); dynamo.KindOf(err) != dynamo.KindUnavailable || took > 10*time.Second {
		t.Errorf("%v after %v, want the silence found", err, took)
	}
}

// mute swallows what is written while it is silent.
type mute struct {
	net.Conn
	silent *atomic.Bool
}

func (m *mute) Write(b []byte) (int, error) {
	if m.silent.Load() {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

// TestTLS: the path tcp inside TLS conforms, and one side without fails.
func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: roots}
	transfertest.Run(t, func(t *testing.T) *transfertest.Pair {
		return pair(t, transfer.PathTCP, func(_ int, c *transfer.Config) { c.TLS = conf })
	})
	for side := range 2 {
		p := pair(t, transfer.PathTCP, func(i int, c *transfer.Config) {
			if i == side {
				c.TLS = conf
			}
		})
		a := memory(t, p.A, transfer.Section{Name: "own"}, 4096)
		memory(t, p.B, transfer.Section{Name: "kv", Access: transfer.AccessWrite}, 4096)
		peer, err := p.A.Import(p.B.Export())
		if err != nil {
			t.Fatal(err)
		}
		info, _ := peer.Memory("kv")
		l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 4096)}, []transfer.Descriptor{info.At(0, 4096)})
		if err != nil {
			t.Fatal(err)
		}
		x, err := p.A.Post(l, transfer.Write, transfer.Options{})
		if err == nil {
			err = x.Wait(t.Context())
		}
		if err == nil || dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Errorf("TLS on one side: %v", err)
		}
	}
}

// gate holds what is read after the first bytes of an answer, until the connection
// is closed.
type gate struct {
	net.Conn
	left   *atomic.Int64
	closed chan struct{}
	once   sync.Once
	at     *atomic.Int64 // when it was closed
}

func (g *gate) Read(b []byte) (int, error) {
	if g.left.Load() <= 0 {
		<-g.closed
		return 0, net.ErrClosed
	}
	n, err := g.Conn.Read(b[:min(len(b), int(g.left.Load()))])
	g.left.Add(-int64(n))
	return n, err
}

func (g *gate) Close() error {
	g.once.Do(func() {
		g.at.Store(time.Now().UnixNano())
		close(g.closed)
	})
	return g.Conn.Close()
}

// TestCancelWaits: a read that is cancelled while its answer comes in has not ended
// before the connection is given up, because until then its memory is written.
func TestCancelWaits(t *testing.T) {
	left, at := &atomic.Int64{}, &atomic.Int64{}
	left.Store(1 << 62)
	p := pair(t, transfer.PathTCP, func(_ int, c *transfer.Config) {
		c.Connections = 1
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, address)
			return &gate{Conn: nc, left: left, closed: make(chan struct{}), at: at}, err
		}
	})
	a := memory(t, p.A, transfer.Section{Name: "own"}, 64<<10)
	memory(t, p.B, transfer.Section{Name: "kv", Access: transfer.AccessRead}, 64<<10)
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		t.Fatal(err)
	}
	info, _ := peer.Memory("kv")
	l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 64<<10)}, []transfer.Descriptor{info.At(0, 64<<10)})
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.A.Post(l, transfer.Read, transfer.Options{})
	if err == nil {
		err = x.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	left.Store(20 << 10)
	if x, err = p.A.Post(l, transfer.Read, transfer.Options{}); err != nil {
		t.Fatal(err)
	}
	for left.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
	x.Cancel()
	err = x.Wait(t.Context())
	ended := time.Now().UnixNano()
	if dynamo.KindOf(err) != dynamo.KindCancelled {
		t.Errorf("%v, want it cancelled", err)
	}
	if closed := at.Load(); closed == 0 || closed > ended {
		t.Error("the transfer has ended while its memory could still be written")
	}
	left.Store(1 << 62)
}
