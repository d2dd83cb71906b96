package daemon_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/daemon"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/kvbm/tiertest"
)

const frameBytes = 8192

// config is that of a daemon with so many blocks in host memory.
func config(t testing.TB, host int) daemon.Config {
	t.Helper()
	c := daemon.DefaultConfig()
	dir, err := os.MkdirTemp("", "kvbm") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c.Socket, c.HostBlocks, c.ClusterKey = filepath.Join(dir, "s"), host, []byte("cluster key")
	c.DiskDir = filepath.Join(dir, "disk")
	c.Tiers.Disk.Policy = kvbm.PolicyAlways
	return c
}

// start runs a daemon until the test ends or stop is called.
func start(t testing.TB, c daemon.Config) (stop func()) {
	t.Helper()
	d, err := daemon.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- d.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// open connects a client of a name.
func open(t testing.TB, c *daemon.Config, name, content string) *daemon.Store {
	t.Helper()
	s, err := daemon.OpenStore(daemon.StoreConfig{Socket: c.Socket, Name: name, Content: content, FrameBytes: frameBytes, BlockTokens: 16})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func ref(n int) tier.Ref {
	var r tier.Ref
	binary.LittleEndian.PutUint64(r.Key[:], uint64(n+1)*0x9e3779b97f4a7c15)
	return r
}

func frame(n int) []byte {
	return bytes.Repeat([]byte{byte(n), byte(n >> 8), 7, byte(n * 3)}, frameBytes/4)
}

// report waits until what the daemon says of itself is as wanted.
func report(t *testing.T, c *daemon.Config, want func(*daemon.Report) bool) (r daemon.Report) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		var err error
		if r, err = daemon.Ask(t.Context(), c.Socket, &tier.Command{Op: tier.OpStat}); err != nil {
			t.Fatal(err)
		}
		if want(&r) {
			return r
		}
	}
	t.Fatalf("the daemon comes to say %+v", r)
	return r
}

func TestStore(t *testing.T) {
	c := config(t, 100)
	start(t, c)
	tiertest.Run(t, tiertest.Subject{
		Open:       func(t *testing.T) tier.Store { return open(t, &c, "engine", "a model") },
		FrameBytes: frameBytes, Slots: 64, Forgets: true,
	})
}

// TestRestart stops a daemon under its clients: they miss, they find the next one, and
// what was on disk is there again. The other way round what a client has put is there for
// the next one.
func TestRestart(t *testing.T) {
	c := config(t, 4)
	c.DiskBlocks = 64
	stop := start(t, c)
	s := open(t, &c, "engine", "m")
	for n := range 12 { // a small tier refuses while all of it is on its way to disk
		for err := s.Put(t.Context(), ref(n), frame(n)); err != nil; err = s.Put(t.Context(), ref(n), frame(n)) {
			if dynamo.KindOf(err) != dynamo.KindExhausted {
				t.Fatal(err)
			}
		}
	}
	report(t, &c, func(r *daemon.Report) bool { return len(r.Contents) == 1 && r.Contents[0].Tiers[1].Held == 12 })
	stop()
	got := make([]byte, frameBytes)
	for range 3 {
		if err := s.Get(t.Context(), ref(1), got); dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Fatalf("without a daemon: %v", err)
		}
	}
	if _, err := os.Stat(c.Socket); err == nil {
		t.Fatal("the socket of a daemon that stopped is there")
	}
	start(t, c)
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err := s.Get(t.Context(), ref(1), got); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("after a restart: %v", err)
		}
	}
	for n := range 12 {
		if err := s.Get(t.Context(), ref(n), got); err != nil || !bytes.Equal(got, frame(n)) {
			t.Errorf("block %d after a restart: %v", n, err)
		}
	}
	other := open(t, &c, "another", "m")
	if err := other.Get(t.Context(), ref(5), got); err != nil || !bytes.Equal(got, frame(5)) {
		t.Errorf("block 5 for another: %v", err)
	}
	if n, err := other.Find(t.Context(), []dynamo.ContentKey{ref(3).Key, ref(4).Key, ref(99).Key, ref(5).Key}); n != 2 || err != nil {
		t.Errorf("found %d, %v; want 2", n, err)
	}
}

// TestSocket: the socket of a process that was killed is taken over, that of one that
// lives is not.
func TestSocket(t *testing.T) {
	c := config(t, 4)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	start(t, c)
	if err := open(t, &c, "e", "m").Put(t.Context(), ref(1), frame(1)); err != nil {
		t.Fatal(err)
	}
	second, err := daemon.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // it would serve for good
	defer cancel()
	if err := second.Run(ctx, func() { t.Error("a second daemon is ready") }); dynamo.KindOf(err) != dynamo.KindUnavailable || !strings.Contains(err.Error(), "another KV daemon") {
		t.Errorf("a second daemon: %v", err)
	}
	c.Socket += ".txt"
	if err := os.WriteFile(c.Socket, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	third, err := daemon.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := third.Run(t.Context(), func() {}); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("at a file: %v", err)
	}
	if b, _ := os.ReadFile(c.Socket); string(b) != "mine" {
		t.Error("the file is gone")
	}
}

// TestQuota: a client that puts too much loses its own oldest, and nobody else's.
func TestQuota(t *testing.T) {
	c := config(t, 100)
	c.ClientQuota = 10 * int64(tierFrame())
	start(t, c)
	a, b := open(t, &c, "a", "m"), open(t, &c, "b", "m")
	for n := range 8 {
		if err := b.Put(t.Context(), ref(1000+n), frame(n)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 50 {
		if err := a.Put(t.Context(), ref(n), frame(n)); err != nil {
			t.Fatal(err)
		}
	}
	r := report(t, &c, func(r *daemon.Report) bool { return r.Contents[0].Tiers[0].Held == 18 })
	if got := fmt.Sprint(r.Contents[0].Clients); got != "[{a 1 10} {b 1 8}]" {
		t.Errorf("clients %s", got)
	}
	got := make([]byte, frameBytes)
	for n := range 50 {
		if err := a.Get(t.Context(), ref(n), got); (err == nil) != (n >= 40) {
			t.Errorf("block %d of a: %v", n, err)
		}
	}
	for n := range 8 {
		if err := b.Get(t.Context(), ref(1000+n), got); err != nil {
			t.Errorf("block %d of b: %v", n, err)
		}
	}
	// What is dropped does not count any more.
	for n := 40; n < 50; n++ {
		if err := a.Delete(t.Context(), ref(n)); err != nil {
			t.Fatal(err)
		}
	}
	a.Close()
	report(t, &c, func(r *daemon.Report) bool { return fmt.Sprint(r.Contents[0].Clients) == "[{b 1 8}]" })
}

// tierFrame is what a frame of the test takes in a tier.
func tierFrame() int {
	g := tier.Geometry{BlockTokens: 16, BlockBytes: frameBytes}
	return g.FrameBytes()
}

// TestContents: one content more than there is room for is refused while the others are
// in use.
func TestContents(t *testing.T) {
	c := config(t, 8)
	start(t, c)
	a, b := open(t, &c, "a", "model a"), open(t, &c, "b", "model b")
	if err := a.Put(t.Context(), ref(1), frame(1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), ref(1), frame(2)); dynamo.KindOf(err) != dynamo.KindExhausted {
		t.Fatalf("a second model: %v", err)
	}
	a.Close()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err := b.Put(t.Context(), ref(1), frame(2)); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	got := make([]byte, frameBytes)
	if err := b.Get(t.Context(), ref(1), got); err != nil || !bytes.Equal(got, frame(2)) {
		t.Errorf("model b has %x… under the key of model a's block: %v", got[:4], err)
	}
}

// memory makes a file to share, sealed or not.
func memory(t testing.TB, bytes int64, seals int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "test")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(bytes); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); seals != 0 && err != nil {
		t.Fatal(err)
	}
	return f
}

// raw speaks the protocol by hand.
type raw struct {
	t    testing.TB
	conn *net.UnixConn
	id   uint64
}

func dial(t testing.TB, c *daemon.Config) *raw {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: c.Socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	return &raw{t: t, conn: conn}
}

func (r *raw) send(op byte, body []byte, files ...*os.File) {
	r.t.Helper()
	r.id++
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	b = binary.LittleEndian.AppendUint64(append(b, op, 0, 0, 0), r.id)
	var fds []int
	for _, f := range files {
		fds = append(fds, int(f.Fd()))
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := r.conn.WriteMsgUnix(append(b, body...), oob, nil); err != nil {
		r.t.Logf("send: %v", err)
	}
}

// ask returns status and body of the reply; status 255 is the end of the connection.
func (r *raw) ask(op byte, body []byte, files ...*os.File) (byte, string) {
	r.t.Helper()
	r.send(op, body, files...)
	return r.reply()
}

func (r *raw) reply() (byte, string) {
	head := make([]byte, 16)
	if _, err := io.ReadFull(r.conn, head); err != nil {
		return 255, err.Error()
	}
	body := make([]byte, binary.LittleEndian.Uint32(head))
	if _, err := io.ReadFull(r.conn, body); err != nil {
		return 255, err.Error()
	}
	return head[5], string(body)
}

func helloBody(low, high uint16, name, content string) []byte {
	le := binary.LittleEndian
	b := []byte("dynKVMd1")
	b = le.AppendUint16(le.AppendUint16(b, low), high)
	b = le.AppendUint32(le.AppendUint32(b, frameBytes), 16)
	for _, s := range []string{name, content} {
		b = append(le.AppendUint16(b, uint16(len(s))), s...)
	}
	return b
}

func one(parts ...any) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 1)
	for _, p := range parts {
		b, _ = binary.Append(b, binary.LittleEndian, p)
	}
	return b
}

// TestBadClients: what a client does wrong it is told, or it is cut off, and nobody else
// notices.
func TestBadClients(t *testing.T) {
	c := config(t, 8)
	c.MemoryBytes = 1 << 20
	start(t, c)
	good := open(t, &c, "good", "m")
	if err := good.Put(t.Context(), ref(1), frame(1)); err != nil {
		t.Fatal(err)
	}
	key := ref(1).Key
	length := func(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }
	for _, bad := range []struct {
		name string
		do   func(r *raw) (byte, string)
		want byte
		text string
	}{
		{"another protocol", func(r *raw) (byte, string) {
			_, _ = r.conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
			return r.reply()
		}, 255, ""},
		{"another version", func(r *raw) (byte, string) { return r.ask(1, helloBody(3, 9, "n", "m")) }, 2, "versions 3 to 9"},
		{"no magic", func(r *raw) (byte, string) { return r.ask(1, make([]byte, 40)) }, 2, "not that of a client"},
		{"cut off", func(r *raw) (byte, string) { return r.ask(1, helloBody(1, 1, "n", "m")[:25]) }, 2, "cut off"},
		{"no hello", func(r *raw) (byte, string) { return r.ask(3, one(key)) }, 255, ""},
		{"no operation", func(r *raw) (byte, string) { r.ask(1, helloBody(1, 1, "n", "m")); return r.ask(99, nil) }, 2, "operation 99"},
		{"no file", func(r *raw) (byte, string) { r.ask(1, helloBody(1, 1, "n", "m")); return r.ask(2, length(4096)) }, 2, "brings its file"},
		{"unsealed memory", func(r *raw) (byte, string) {
			r.ask(1, helloBody(1, 1, "n", "m"))
			return r.ask(2, length(4096), memory(t, 4096, 0))
		}, 2, "sealed"},
		{"short memory", func(r *raw) (byte, string) {
			r.ask(1, helloBody(1, 1, "n", "m"))
			return r.ask(2, length(8192), memory(t, 4096, unix.F_SEAL_SHRINK))
		}, 2, "4096 bytes, not 8192"},
		{"too much memory", func(r *raw) (byte, string) {
			r.ask(1, helloBody(1, 1, "n", "m"))
			return r.ask(2, length(2<<20), memory(t, 2<<20, unix.F_SEAL_SHRINK))
		}, 4, "--client-memory"},
		{"many files", func(r *raw) (byte, string) {
			f := memory(t, 4096, unix.F_SEAL_SHRINK)
			return r.ask(1, helloBody(1, 1, "n", "m"), f, f, f, f, f)
		}, 255, ""},
		{"outside of its memory", func(r *raw) (byte, string) {
			r.ask(1, helloBody(1, 1, "n", "m"))
			r.ask(2, length(frameBytes+100), memory(t, frameBytes+100, unix.F_SEAL_SHRINK))
			return r.ask(5, one(key, uint32(0), uint32(0), uint64(101)))
		}, 2, "outside of memory 0"},
		{"far outside", func(r *raw) (byte, string) {
			r.ask(1, helloBody(1, 1, "n", "m"))
			r.ask(2, length(frameBytes), memory(t, frameBytes, unix.F_SEAL_SHRINK))
			return r.ask(4, one(key, key, uint32(0), uint32(0), ^uint64(0)-100))
		}, 2, "outside of memory 0"},
		{"no such memory", func(r *raw) (byte, string) {
			r.ask(1, helloBody(1, 1, "n", "m"))
			return r.ask(5, one(key, uint32(7), uint32(0), uint64(0)))
		}, 2, "no memory 7"},
		{"a count that is not true", func(r *raw) (byte, string) {
			r.ask(1, helloBody(1, 1, "n", "m"))
			return r.ask(3, []byte{255, 255, 255, 255})
		}, 2, "a request for 4294967295 blocks"},
		{"a long message", func(r *raw) (byte, string) {
			_, _ = r.conn.Write([]byte{255, 255, 255, 127, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0})
			return r.reply()
		}, 255, ""},
		{"bad command", func(r *raw) (byte, string) { return r.ask(7, []byte("{")) }, 2, "cannot be read"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			status, text := bad.do(dial(t, &c))
			if status != bad.want || !strings.Contains(text, bad.text) {
				t.Errorf("status %d, %q; want %d, …%q…", status, text, bad.want, bad.text)
			}
		})
	}
	got := make([]byte, frameBytes)
	if err := good.Get(t.Context(), ref(1), got); err != nil || !bytes.Equal(got, frame(1)) {
		t.Errorf("the good client: %v", err)
	}
}

// TestDeath: what a client holds goes with its connection, in the middle of requests as
// well.
func TestDeath(t *testing.T) {
	c := config(t, 64)
	start(t, c)
	good := open(t, &c, "good", "m")
	for n := range 32 {
		if err := good.Put(t.Context(), ref(n), frame(n)); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			r := dial(t, &c)
			r.ask(1, helloBody(1, 1, fmt.Sprint("dying ", i), "m"))
			r.ask(2, binary.LittleEndian.AppendUint64(nil, 32*frameBytes), memory(t, 32*frameBytes, unix.F_SEAL_SHRINK))
			body := binary.LittleEndian.AppendUint32(nil, 32)
			for n := range 32 {
				body, _ = binary.Append(body, binary.LittleEndian, ref(n).Key)
				body, _ = binary.Append(body, binary.LittleEndian, []uint32{0, 0})
				body, _ = binary.Append(body, binary.LittleEndian, uint64(n*frameBytes))
			}
			for range 4 {
				r.send(5, body)
			}
			r.conn.Close()
		})
	}
	all.Wait()
	r := report(t, &c, func(r *daemon.Report) bool { // what was asked for is read, for nobody
		return fmt.Sprint(r.Contents[0].Clients) == "[{good 1 32}]" && r.Contents[0].Tiers[0].Stats.Reads == 0
	})
	if s := r.Contents[0].Tiers[0].Stats; s.Corrupt != 0 {
		t.Errorf("%d reads were corrupt", s.Corrupt)
	}
	got := make([]byte, frameBytes)
	for n := range 32 {
		if err := good.Get(t.Context(), ref(n), got); err != nil || !bytes.Equal(got, frame(n)) {
			t.Errorf("block %d: %v", n, err)
		}
	}
}

// TestMany puts and gets many blocks by one request each, in any order.
func TestMany(t *testing.T) {
	c := config(t, 600)
	start(t, c)
	r := dial(t, &c)
	r.ask(1, helloBody(1, 1, "raw", "m"))
	const blocks = 500
	f := memory(t, blocks*frameBytes, unix.F_SEAL_SHRINK)
	m, err := unix.Mmap(int(f.Fd()), 0, blocks*frameBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	r.ask(2, binary.LittleEndian.AppendUint64(nil, blocks*frameBytes), f)
	put, get := binary.LittleEndian.AppendUint32(nil, blocks), binary.LittleEndian.AppendUint32(nil, blocks)
	for n := range blocks {
		copy(m[n*frameBytes:], frame(n))
		put, _ = binary.Append(put, binary.LittleEndian, [2]dynamo.ContentKey{ref(n).Key, ref(n - 1).Key})
		put, _ = binary.Append(put, binary.LittleEndian, []uint32{uint32(n), 0})
		put, _ = binary.Append(put, binary.LittleEndian, uint64(n*frameBytes))
		get, _ = binary.Append(get, binary.LittleEndian, ref(n).Key)
		get, _ = binary.Append(get, binary.LittleEndian, []uint32{0, 0})
		get, _ = binary.Append(get, binary.LittleEndian, uint64((blocks-1-n)*frameBytes))
	}
	if status, text := r.ask(4, put); status != 0 || text != strings.Repeat("\x01", blocks) {
		t.Fatalf("put: %d %q", status, text)
	}
	clear(m)
	if status, text := r.ask(5, get); status != 0 || binary.LittleEndian.Uint32([]byte(text)) != blocks {
		t.Fatalf("get: %d %q", status, text)
	}
	for n := range blocks {
		if !bytes.Equal(m[(blocks-1-n)*frameBytes:][:frameBytes], frame(n)) {
			t.Fatalf("block %d is another", n)
		}
	}
}
