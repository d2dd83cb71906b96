//go:build dl && linux && (amd64 || arm64)

package transfer_test

import (
	"crypto/tls"
	"syscall"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/transfer"
)

// TestUCX: the path ucx conforms, over whatever UCX_TLS names.
func TestUCX(t *testing.T) {
	needUCX(t)
	conform(t, transfer.PathUCX)
}

// TestUCXPeerKilled is TestPeerKilled by this path.
func TestUCXPeerKilled(t *testing.T) {
	needUCX(t)
	byPath(t, transfer.PathUCX, "", peerKilled)
}

// TestUCXWriterKilled is TestWriterKilled by this path.
func TestUCXWriterKilled(t *testing.T) {
	needUCX(t)
	byPath(t, transfer.PathUCX, "", writerKilled)
}

// TestUCXIdle: agents with a connection that nobody uses use no CPU.
func TestUCXIdle(t *testing.T) {
	needUCX(t)
	p := pair(t, transfer.PathUCX, nil)
	a := memory(t, p.A, transfer.Section{Name: "own"}, 64<<10)
	memory(t, p.B, transfer.Section{Name: "kv", Access: transfer.AccessWrite}, 64<<10)
	peer, err := p.A.Import(p.B.Export())
	if err != nil {
		t.Fatal(err)
	}
	info, _ := peer.Memory("kv")
	l, err := p.A.Prepare(peer, []transfer.Descriptor{a.At(0, 64<<10)}, []transfer.Descriptor{info.At(0, 64<<10)})
	if err != nil {
		t.Fatal(err)
	}
	x, err := p.A.Post(l, transfer.Write, transfer.Options{})
	if err == nil {
		err = x.Wait(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	before := spent(t)
	time.Sleep(500 * time.Millisecond)
	if used := spent(t) - before; used > 20*time.Millisecond {
		t.Errorf("idle agents used %v in 500 ms", used)
	}
}

// spent is the CPU time of this process.
func spent(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestUCXBesideTLS: the path that does not encrypt is refused where TLS is wanted.
func TestUCXBesideTLS(t *testing.T) {
	c := config(t, "worker-1", transfer.PathUCX, nil, "")
	c.TLS = &tls.Config{}
	if err := c.Validate(); dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("ucx beside TLS: %v, want it refused", err)
	}
}

func needUCX(t testing.TB) {
	t.Helper()
	if err := transfer.LoadUCX(); err != nil {
		t.Skip("libucp cannot be loaded here (Debian: libucx0): ", err)
	}
}
