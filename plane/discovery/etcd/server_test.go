package etcd_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/internal/fixture"
)

// source is the module that the server is built from.
const source = "../../../scripts/etcd"

// binary builds the server once, and keeps it in the user's cache directory
// under a name that its sources decide.
var binary = sync.OnceValues(func() (string, error) {
	h := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		b, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(b), b)
	}
	dir, err := fixture.Dir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "etcd-"+hex.EncodeToString(h.Sum(nil)[:8]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	tmp := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(tmp)
	if out, err := exec.Command("go", "build", "-C", source, "-o", tmp, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the etcd server: %w: %s", err, bytes.TrimSpace(out))
	}
	return path, os.Rename(tmp, path)
})

// server is an etcd in a process of its own.
type server struct {
	t       *testing.T
	dir     string
	address string // stays from one start to the next
	process *exec.Cmd
	stdin   io.Closer
}

// start starts a server that ends with the test.
func start(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), address: "127.0.0.1:0"}
	t.Cleanup(s.kill)
	s.begin()
	return s
}

func (s *server) name() string { return "etcd://" + s.address }

// begin starts the process and waits until it serves.
func (s *server) begin() {
	s.t.Helper()
	path, err := binary()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		s.t.Fatal(err)
	default:
		s.t.Skipf("there is no etcd to test with: %v", err)
	}
	file := filepath.Join(s.dir, "address")
	_ = os.Remove(file) // of the start before, if there was one
	c := exec.Command(path, "-dir", filepath.Join(s.dir, "data"), "-listen", s.address, "-addr-file", file, "-with-parent")
	c.Stderr = os.Stderr
	if s.stdin, err = c.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.process = c
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if b, err := os.ReadFile(file); err == nil {
			s.address = strings.TrimSpace(string(b))
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("etcd does not start")
		}
	}
}

// kill ends the process at once; its data stays.
func (s *server) kill() {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Kill() // it may be dead
	_ = s.process.Wait()         // it was killed
	_ = s.stdin.Close()          // nobody reads it
	s.process = nil
}

// wipe removes the data of a killed server.
func (s *server) wipe() {
	s.t.Helper()
	if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) freeze() { s.signal(syscall.SIGSTOP) }
func (s *server) thaw()   { s.signal(syscall.SIGCONT) }

func (s *server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.process.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}
