package transfer_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/transfer"
)

// The child process is this test binary: it serves a memory, and writes to a lease
// of its parent for as long as it lives when it is told to.
const (
	childEnv   = "TRANSFER_TEST_CHILD"
	childBytes = 32 << 20
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func child(dir string) error {
	c := transfer.DefaultConfig()
	c.Name, c.Key, c.Content = "child", []byte("a key for the tests of transfer"), transfer.Content{Model: "tiny@1", Layout: "contiguous"}
	switch dir {
	case "ucx:":
		c.UCX = true
	case "tcp:", "tcp:always":
		if dir == "tcp:always" {
			c.ZeroCopy = transfer.ZeroCopyAlways
		}
		var listen net.ListenConfig
		listen.SetMultipathTCP(false)
		l, err := listen.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c.Listener = l
	default:
		c.SocketDir = dir
	}
	a, err := transfer.New(c)
	if err != nil {
		return err
	}
	go a.Run(context.Background())
	<-a.Ready()
	s, err := transfer.NewShared("child", childBytes)
	if err != nil {
		return err
	}
	m, err := a.Register(transfer.Section{Name: "kv", Shared: s, Access: transfer.AccessWrite})
	if err != nil {
		return err
	}
	fmt.Println(hex.EncodeToString(a.Export()))
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() { // "metadata token": write to that lease
		blob, token, _ := strings.Cut(in.Text(), " ")
		b, _ := hex.DecodeString(blob)
		p, err := a.Import(b)
		if err != nil {
			return err
		}
		info, _ := p.Memory("kv")
		d := info.At(0, childBytes)
		fmt.Sscan(token, &d.Token)
		l, err := a.Prepare(p, []transfer.Descriptor{m.At(0, childBytes)}, []transfer.Descriptor{d})
		if err != nil {
			return err
		}
		for i := 0; ; i++ {
			for k := 0; k < childBytes; k += 64 << 10 {
				m.Bytes()[k] = byte(i | 1)
			}
			x, err := a.Post(l, transfer.Write, transfer.Options{})
			if err == nil {
				err = x.Wait(context.Background())
			}
			if i == 0 {
				fmt.Println("writing")
			}
			if err != nil {
				fmt.Println("refused", err)
				break
			}
		}
	}
	return in.Err()
}

type process struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	blob []byte
}

func spawn(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childEnv+"="+dir)
	p.cmd.Stderr = os.Stderr
	p.in, _ = p.cmd.StdinPipe()
	out, _ := p.cmd.StdoutPipe()
	p.out = bufio.NewReaderSize(out, 1<<20)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	p.blob, _ = hex.DecodeString(p.line(t))
	return p
}

func (p *process) line(t *testing.T) string {
	t.Helper()
	s, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal("the child: ", err)
	}
	return strings.TrimSpace(s)
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_, _ = p.cmd.Process.Wait()
}

// eachPath runs a test with a child by shm, by tcp, and by tcp where both sides lend what
// they send to the kernel.
func eachPath(t *testing.T, test func(t *testing.T, a *transfer.Agent, p *process)) {
	for _, path := range []transfer.Path{transfer.PathShm, transfer.PathTCP} {
		t.Run(path.String(), func(t *testing.T) {
			if path == transfer.PathShm && !hasShm(t) {
				t.Skip("no shared memory on this system")
			}
			byPath(t, path, "", test)
		})
	}
	t.Run("zero-copy", func(t *testing.T) { byPath(t, transfer.PathTCP, transfer.ZeroCopyAlways, test) })
}

func byPath(t *testing.T, path transfer.Path, z transfer.ZeroCopy, test func(t *testing.T, a *transfer.Agent, p *process)) {
	dir := t.TempDir()
	c := config(t, "parent", path, nil, dir)
	c.ZeroCopy = z
	a, _ := start(t, c)
	if path != transfer.PathShm {
		dir = path.String() + ":" + string(z)
	}
	test(t, a, spawn(t, dir))
}

// TestPeerKilled: whoever posts to a process that is killed hears of it within
// 50 ms.
func TestPeerKilled(t *testing.T) { eachPath(t, peerKilled) }

func peerKilled(t *testing.T, a *transfer.Agent, c *process) {
	p, err := a.Import(c.blob)
	if err != nil {
		t.Fatal(err)
	}
	m := memory(t, a, transfer.Section{Name: "own"}, childBytes)
	info, _ := p.Memory("kv")
	l, err := a.Prepare(p, []transfer.Descriptor{m.At(0, childBytes)}, []transfer.Descriptor{info.At(0, childBytes)})
	if err != nil {
		t.Fatal(err)
	}
	killed := make(chan time.Time, 1)
	for i := 0; ; i++ {
		x, err := a.Post(l, transfer.Op(i%2), transfer.Options{})
		if err == nil {
			if i == 5 {
				go func() {
					at := time.Now()
					_ = c.cmd.Process.Kill()
					killed <- at
				}()
			}
			err = x.Wait(t.Context())
		}
		if err == nil {
			continue
		}
		if i < 5 || dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Fatalf("transfer %d: %v, want it unavailable once the peer is killed", i, err)
		}
		took := time.Since(<-killed)
		t.Logf("told after %v: %v", took, err)
		if took > 10*time.Second { // 50 on an idle machine; see the log
			t.Errorf("told after %v", took)
		}
		return
	}
}

// TestWriterKilled: pages that a killed, or stopped, process was writing to come
// back, and are not written from then on.
func TestWriterKilled(t *testing.T) { eachPath(t, writerKilled) }

func writerKilled(t *testing.T, a *transfer.Agent, c *process) {
	m := memory(t, a, transfer.Section{Name: "kv", PageBytes: childBytes / 8}, childBytes)
	write := func() *transfer.Lease {
		t.Helper()
		l, err := m.Lend(transfer.Range{Length: childBytes}, true, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c.in, "%x %d\n", a.Export(), l.Token())
		if got := c.line(t); got != "writing" {
			t.Fatalf("the child says %q", got)
		}
		return l
	}
	quiet := func(when string) {
		t.Helper()
		clear(m.Bytes())
		for range 4 {
			time.Sleep(2 * time.Millisecond)
			if bytes.Count(m.Bytes(), []byte{0}) != childBytes {
				t.Fatalf("%s: pages were written after they had come back", when)
			}
		}
	}
	for i := range 4 {
		l := write()
		time.Sleep(time.Duration(i) * 700 * time.Microsecond)
		_ = c.cmd.Process.Signal(syscall.SIGSTOP)
		l.Revoke()
		select {
		case <-l.Done(): // it was between two copies: what it does later is refused
			quiet("stopped")
		case <-time.After(100 * time.Millisecond):
			t.Log("stopped in the middle of a copy; its pages stay fenced")
		}
		_ = c.cmd.Process.Signal(syscall.SIGCONT)
		<-l.Done()
		quiet("continued")
		got := c.line(t)
		if !strings.HasPrefix(got, "refused") {
			t.Fatalf("the child says %q", got)
		}
	}
	l := write()
	c.kill()
	at := time.Now()
	l.Revoke()
	<-l.Done()
	t.Logf("the pages of a killed writer are back after %v", time.Since(at))
	quiet("killed")
}
