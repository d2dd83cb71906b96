package transfer_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/transfer"
	"github.com/dynamo-go/dynamo/transfer/transfertest"
)

func TestLocal(t *testing.T) { conform(t, transfer.PathLocal) }

func TestShm(t *testing.T) {
	if !hasShm(t) {
		t.Skip("no shared memory on this system")
	}
	conform(t, transfer.PathShm)
}

func TestTCP(t *testing.T) { conform(t, transfer.PathTCP) }

func hasShm(t testing.TB) bool {
	s, err := transfer.NewShared("probe", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return s.File() != nil
}

func conform(t *testing.T, p transfer.Path) {
	transfertest.Run(t, func(t *testing.T) *transfertest.Pair { return pair(t, p, nil) })
}

// config is that of an agent of one path.
func config(t testing.TB, name string, p transfer.Path, process *transfer.Process, dir string) transfer.Config {
	c := transfer.DefaultConfig()
	c.Name, c.Key, c.Content = name, []byte("a key for the tests of transfer"), transfer.Content{Model: "tiny@1", Layout: "contiguous"}
	switch p {
	case transfer.PathLocal:
		c.Process = process
	case transfer.PathShm:
		c.SocketDir = dir
	case transfer.PathUCX:
		c.UCX = true
	case transfer.PathTCP:
		c.Listener = listen(t, "127.0.0.1:0")
	}
	return c
}

// listen takes an address, without Multipath TCP, whose sockets do not lend.
func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	l, err := c.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start runs an agent until stop, or the end of the test.
func start(t testing.TB, c transfer.Config) (a *transfer.Agent, stop func()) {
	t.Helper()
	a, err := transfer.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	select {
	case <-a.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	return a, stop
}

// pair makes two agents; change may alter their configs.
func pair(t testing.TB, p transfer.Path, change func(i int, c *transfer.Config)) *transfertest.Pair {
	t.Helper()
	process, dir := transfer.NewProcess(), t.TempDir()
	out := &transfertest.Pair{Path: p, Memory: memory}
	for i, to := range []**transfer.Agent{&out.A, &out.B} {
		c := config(t, []string{"decode-1", "prefill-1"}[i], p, process, dir)
		if change != nil {
			change(i, &c)
		}
		*to, out.Stop = start(t, c)
	}
	return out
}

func memory(t testing.TB, a *transfer.Agent, s transfer.Section, bytes int64) *transfer.Memory {
	t.Helper()
	var err error
	if s.Shared, err = transfer.NewShared(s.Name, bytes); err != nil {
		t.Fatal(err)
	}
	m, err := a.Register(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestItself: an agent reaches its own memories, and bytes that change while they
// are copied are found.
func TestItself(t *testing.T) {
	a, _ := start(t, config(t, "worker-1", transfer.PathLocal, nil, ""))
	m := memory(t, a, transfer.Section{Name: "kv", Access: transfer.AccessWrite}, 64<<10)
	p, err := a.Import(a.Export())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to   int64
		want bool
	}{{32 << 10, true}, {8, false}} { // the second lies over what it is copied from
		pattern(m.Bytes(), 1)
		l, err := a.Prepare(p, []transfer.Descriptor{m.At(0, 16<<10)}, []transfer.Descriptor{m.At(c.to, 16<<10)})
		if err != nil {
			t.Fatal(err)
		}
		x, err := a.Post(l, transfer.Write, transfer.Options{Checksum: true})
		if err == nil {
			err = x.Wait(t.Context())
		}
		if (err == nil) != c.want || err != nil && dynamo.KindOf(err) != dynamo.KindCorrupt {
			t.Errorf("a copy to %d: %v", c.to, err)
		}
	}
}
