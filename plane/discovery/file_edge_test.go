package discovery_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/discovery/discoverytest"
)

// updates runs a watch and passes on what it yields.
func updates(t *testing.T, s discovery.Store) <-chan discovery.Update {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := make(chan discovery.Update, 1024)
	ended := make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		for u := range s.Watch(ctx, discovery.Path{}) {
			out <- u
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return out
}

// next waits for the next update, which must be of that kind.
func next(t *testing.T, from <-chan discovery.Update, want discovery.Kind, limit time.Duration) discovery.Update {
	t.Helper()
	select {
	case u := <-from:
		if u.Kind != want {
			t.Fatalf("got %v of %d instances and problems %v, want %v", u.Kind, len(u.Instances), u.Problems, want)
		}
		return u
	case <-time.After(limit):
		t.Fatalf("no %v within %v", want, limit)
	}
	panic("BUG: unreachable")
}

func nothing(t *testing.T, from <-chan discovery.Update, during time.Duration) {
	t.Helper()
	select {
	case u := <-from:
		t.Fatalf("got %v of %d instances, problems %v; want nothing", u.Kind, len(u.Instances), u.Problems)
	case <-time.After(during):
	}
}

func register(t *testing.T, s discovery.Store, i discovery.Instance) discovery.Registration {
	t.Helper()
	r, err := s.Register(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestFileForeignEntries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, 10*time.Second)
	register(t, s, discoverytest.Instance(1, 1))
	put := func(name, text string, mode os.FileMode) {
		path := filepath.Join(s.Dir(), name)
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	other := func(id dynamo.WorkerID) string { return discovery.FileName(discoverytest.Instance(id, 1)) }
	mine, err := os.ReadFile(filepath.Join(s.Dir(), other(1)))
	if err != nil {
		t.Fatal(err)
	}
	put("notes.txt", "hello", 0o600)
	put(other(2), "garbage", 0o600)
	put(other(3), strings.Replace(string(mine), `{"format":1`, `{"format":9`, 1), 0o600)
	put(other(4), strings.Replace(string(mine), `"instance":{"format":1`, `"instance":{"format":9`, 1), 0o600)
	put(other(5), strings.Repeat("x", 2*discovery.MaxInstanceBytes), 0o600)
	put(other(6), string(mine), 0o600)
	put(other(7), string(mine), 0o666)
	put(".hidden", "x", 0o600)
	put(other(8), "", 0o600)
	if err := errors.Join(os.Mkdir(filepath.Join(s.Dir(), other(9)), 0o700), os.Symlink("/etc/passwd", filepath.Join(s.Dir(), other(10))),
		syscall.Mkfifo(filepath.Join(s.Dir(), other(11)), 0o600)); err != nil {
		t.Fatal(err)
	}
	from := updates(t, s)
	first := next(t, from, discovery.Snapshot, 5*time.Second)
	if len(first.Instances) != 1 || first.Instances[0].ID != 1 {
		t.Errorf("instances %v", first.Instances)
	}
	for _, want := range []struct{ file, say string }{
		{"notes.txt", "name"}, {other(2), "no instance"}, {other(3), "upgrade"}, {other(4), "upgrade"}, {other(5), "bytes"},
		{other(6), "not that of the instance"}, {other(7), "chmod 600"}, {other(9), "regular"}, {other(10), "regular"}, {other(11), "regular"},
	} {
		n := 0
		for _, p := range first.Problems {
			if strings.Contains(p.Error(), filepath.Join(s.Dir(), want.file)) && strings.Contains(p.Error(), want.say) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s with %q is reported %d times", want.file, want.say, n)
		}
	}
	if len(first.Problems) != 10 {
		t.Errorf("%d problems: %v", len(first.Problems), first.Problems)
	}
	nothing(t, from, 1500*time.Millisecond) // more than one scan
	put("more.txt", "hello", 0o600)
	if u := next(t, from, discovery.Put, 5*time.Second); len(u.Problems) != 1 || len(u.Instances) != 0 {
		t.Errorf("a new foreign file: %v", u)
	}
}

// TestFileDamaged: what lies in the place of a live worker is replaced, and what
// lies in a free one keeps nobody out.
func TestFileDamaged(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), 10*time.Second)
	register(t, s, discoverytest.Instance(1, 1))
	path := func(id dynamo.WorkerID) string {
		return filepath.Join(s.Dir(), discovery.FileName(discoverytest.Instance(id, 1)))
	}
	mine, err := os.ReadFile(path(1))
	if err != nil {
		t.Fatal(err)
	}
	from := updates(t, s)
	next(t, from, discovery.Snapshot, 5*time.Second)
	for _, damage := range []func() error{
		func() error { return os.WriteFile(path(1), []byte("garbage"), 0o600) },
		func() error { return errors.Join(os.Remove(path(1)), os.WriteFile(path(1), []byte("garbage"), 0o600)) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if u := next(t, from, discovery.Put, 5*time.Second); len(u.Problems) != 1 || len(u.Instances) != 0 {
			t.Errorf("got %v", u)
		}
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if b, err := os.ReadFile(path(1)); err == nil && string(b) == string(mine) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("a damaged file is not written again")
			}
		}
	}
	nothing(t, from, 500*time.Millisecond)
	if err := os.WriteFile(path(2), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	next(t, from, discovery.Put, 5*time.Second) // the problem
	register(t, s, discoverytest.Instance(2, 5))
	if u := next(t, from, discovery.Put, 5*time.Second); len(u.Instances) != 1 || u.Instances[0].ID != 2 {
		t.Errorf("got %v", u)
	}
}

// TestFileUsurped removes a live worker's file and lets another take the id
// before it is written again: the place is the other's.
func TestFileUsurped(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), 10*time.Second)
	other := open(t, filepath.Dir(s.Dir()), 10*time.Second)
	first, second := discoverytest.Instance(1, 1), discoverytest.Instance(1, 2)
	r := register(t, s, first)
	from := updates(t, s)
	next(t, from, discovery.Snapshot, 5*time.Second)
	if err := os.Remove(filepath.Join(s.Dir(), discovery.FileName(first))); err != nil {
		t.Fatal(err)
	}
	register(t, other, second)
	next(t, from, discovery.Delete, 5*time.Second)
	if u := next(t, from, discovery.Put, 5*time.Second); u.Instances[0].Epoch != 2 {
		t.Errorf("got %v", u)
	}
	if err := r.Update(t.Context(), first); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("an update of who lost the place: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	nothing(t, from, time.Second)
}

func TestFileDirectoryLost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/run"
	a, b := open(t, dir, 10*time.Second), open(t, dir, 10*time.Second)
	key, err := a.ClusterKey()
	if err != nil {
		t.Fatal(err)
	}
	for id := dynamo.WorkerID(1); id <= 5; id++ {
		register(t, a, discoverytest.Instance(id, 1))
	}
	from := updates(t, b)
	next(t, from, discovery.Snapshot, 5*time.Second)
	for _, lose := range []func() error{
		func() error { return os.RemoveAll(dir) },
		func() error { return os.RemoveAll(a.Dir()) },
		func() error { return os.Rename(dir, dir+".away") },
		func() error { return errors.Join(os.Rename(a.Dir(), dir+".gone"), os.Mkdir(a.Dir(), 0o700)) },
	} {
		if err := lose(); err != nil {
			t.Fatal(err)
		}
		next(t, from, discovery.Stale, time.Second)
		next(t, from, discovery.Fresh, 3*time.Second)
		if u := next(t, from, discovery.Snapshot, time.Second); len(u.Instances) != 5 {
			t.Errorf("%d instances came back, want 5", len(u.Instances))
		}
	}
	if got, err := discovery.ReadKey(filepath.Join(dir, "cluster.key")); err != nil || string(got) != string(key) {
		t.Errorf("the key is %x, %v; want %x", got, err, key)
	}
	// Removed files are written again and nobody hears of it.
	names, err := filepath.Glob(a.Dir() + "/*")
	if err != nil || len(names) != 5 {
		t.Fatal(names, err)
	}
	for _, n := range names {
		if err := os.Remove(n); err != nil {
			t.Fatal(err)
		}
	}
	nothing(t, from, 1500*time.Millisecond)
	if again, err := filepath.Glob(a.Dir() + "/*"); err != nil || len(again) != 5 {
		t.Errorf("files %v, %v", again, err)
	}
}

func TestFileDiskFull(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), 800*time.Millisecond)
	watcher := open(t, filepath.Dir(s.Dir()), 800*time.Millisecond)
	watcher.SetKernel("other") // so that only touches count
	i := discoverytest.Instance(1, 1)
	r := register(t, s, i)
	full := func(f *os.File, b []byte) error {
		_, _ = f.Write(b[:len(b)/2]) // as far as the disk goes
		return &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
	}
	s2 := open(t, filepath.Dir(s.Dir()), 800*time.Millisecond)
	s2.SetWrite(full)
	_, err := s2.Register(t.Context(), discoverytest.Instance(2, 1))
	if err == nil || !errors.Is(err, syscall.ENOSPC) || dynamo.KindOf(err) != dynamo.KindUnavailable || !strings.Contains(err.Error(), "--discovery-backend") || !strings.Contains(err.Error(), filepath.Dir(s.Dir())) {
		t.Errorf("registered on a full disk: %v", err)
	}
	if names, err := os.ReadDir(s.Dir()); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	from := updates(t, watcher)
	next(t, from, discovery.Snapshot, 5*time.Second)
	nothing(t, from, 2*time.Second) // several TTLs
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	next(t, from, discovery.Delete, 5*time.Second)
}

func TestFileUnwritable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	blocked := filepath.Join(dir, "file")
	if err := os.WriteFile(blocked, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := discovery.DefaultConfig()
	c.Dir = filepath.Join(blocked, "run")
	for _, o := range []struct{ name, flag string }{{"file", "--run-dir"}, {"file:" + c.Dir, "--discovery-backend"}} {
		_, err := discovery.Open(o.name, c)
		if err == nil || !strings.Contains(err.Error(), o.flag) || !strings.Contains(err.Error(), c.Dir) {
			t.Errorf("%s: %v", o.name, err)
		}
	}
	s := open(t, filepath.Join(dir, "run"), time.Second)
	if info, err := os.Stat(s.Dir()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(s.Dir(), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := discovery.Open("file:"+filepath.Join(dir, "run"), c); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("a directory that everybody may write: %v", err)
	}
	for _, name := range []string{"", "files", "file:", "zookeeper", "file"} {
		if _, err := discovery.Open(name, discovery.DefaultConfig()); err == nil || !strings.Contains(err.Error(), "--discovery-backend") {
			t.Errorf("Open(%q): %v", name, err)
		}
	}
	if _, err := discovery.Open("mem", discovery.Config{}); err == nil {
		t.Error("a lease of 0 is accepted")
	}
}

// TestFileClocks sets the time of a remote owner's file to and fro: any change is a sign
// of life, whatever the clocks say.
func TestFileClocks(t *testing.T) {
	t.Parallel()
	const ttl = 600 * time.Millisecond
	dir := t.TempDir()
	a, b := open(t, dir, ttl), open(t, dir, ttl)
	a.SetKernel("a")
	b.SetKernel("b")
	i := discoverytest.Instance(1, 1)
	r := register(t, a, i)
	from := updates(t, b)
	next(t, from, discovery.Snapshot, 5*time.Second)
	discovery.Abandon(r)
	path := filepath.Join(a.Dir(), discovery.FileName(i))
	for n := range 10 {
		at := time.Now().Add(time.Duration(n%3-1) * 1000 * time.Hour)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		nothing(t, from, ttl/4)
	}
	next(t, from, discovery.Delete, 2*ttl+2*time.Second)
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil { // the owner was only paused
		t.Fatal(err)
	}
	next(t, from, discovery.Put, 2*time.Second)
}

func TestFileSweep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, 10*time.Second)
	keep := discoverytest.Instance(1, 1)
	register(t, s, keep)
	for id := dynamo.WorkerID(2); id < 6; id++ {
		discovery.Abandon(register(t, s, discoverytest.Instance(id, 1)))
	}
	old := filepath.Join(s.Dir(), ".left.json.123")
	if err := os.WriteFile(old, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	last := discoverytest.Instance(9, 1)
	register(t, open(t, dir, 10*time.Second), last)
	names, err := os.ReadDir(s.Dir())
	if err != nil || len(names) != 2 || names[0].Name() != discovery.FileName(keep) || names[1].Name() != discovery.FileName(last) {
		t.Errorf("left: %v, %v", names, err)
	}
}

func TestFileMetrics(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/run"
	registry := obs.NewRegistry()
	c := discovery.DefaultConfig()
	c.Metrics = discovery.NewMetrics(registry)
	s, err := discovery.Open("file:"+dir, c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	register(t, s, discoverytest.Instance(1, 1))
	if err := os.WriteFile(filepath.Join(dir, "instances", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "instances", "y"), []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	from := updates(t, s)
	// A watch may see the file before the process that wrote it has counted that,
	// so the wanted lines are waited for.
	is := func(want ...string) {
		t.Helper()
		var body, missing string
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			rec := httptest.NewRecorder()
			registry.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
			body, missing = rec.Body.String(), ""
			for _, line := range want {
				if !strings.Contains(body, "\ndynamo_discovery_"+line+"\n") {
					missing = line
				}
			}
			if missing == "" {
				return
			}
		}
		t.Errorf("want %s, got\n%s", missing, body)
	}
	next(t, from, discovery.Snapshot, 5*time.Second)
	is("stale 0", "instances 1", "problems_total 2", "reregistrations_total 0")
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	next(t, from, discovery.Stale, 5*time.Second)
	is("stale 1", "instances 1")
	next(t, from, discovery.Fresh, 5*time.Second)
	next(t, from, discovery.Snapshot, 5*time.Second)
	is("stale 0", "instances 1", "problems_total 2", "reregistrations_total 1")
}

// TestFileOwnerProcess is run as another process by the tests below: it registers
// and waits for its end.
func TestFileOwnerProcess(t *testing.T) {
	dir := os.Getenv("DISCOVERY_TEST_DIR")
	if dir == "" {
		t.Skip("runs in a child process only")
	}
	s := open(t, dir, 10*time.Second)
	register(t, s, discoverytest.Instance(1, 1))
	fmt.Println("REGISTERED")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent ends
}

func TestFileKilledProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, 10*time.Second)
	from := updates(t, s)
	next(t, from, discovery.Snapshot, 5*time.Second)
	child := exec.Command(os.Args[0], "-test.run=^TestFileOwnerProcess$", "-test.v")
	child.Env = append(os.Environ(), "DISCOVERY_TEST_DIR="+dir)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill() // it is dead already if all went well
		_ = child.Wait()         // killed
	}()
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "REGISTERED"); {
	}
	next(t, from, discovery.Put, 5*time.Second)
	if _, err := s.Register(t.Context(), discoverytest.Instance(1, 2)); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("the id of a live process: %v", err)
	}
	if err := child.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	nothing(t, from, time.Second) // a stopped process lives
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	if u := next(t, from, discovery.Delete, time.Second); len(u.Instances) != 1 || u.Instances[0].ID != 1 {
		t.Errorf("got %v", u)
	}
	t.Logf("the death was seen after %v", time.Since(killed))
	register(t, s, discoverytest.Instance(1, 2))
	next(t, from, discovery.Put, time.Second)
}

func TestFileLatency(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir, 10*time.Second), open(t, dir, 10*time.Second)
	from := updates(t, b)
	next(t, from, discovery.Snapshot, 5*time.Second)
	best, whole := time.Hour, time.Hour
	for id := dynamo.WorkerID(1); id <= 10; id++ {
		begin := time.Now()
		register(t, a, discoverytest.Instance(id, 1))
		registered := time.Now()
		next(t, from, discovery.Put, 5*time.Second)
		best, whole = min(best, time.Since(registered)), min(whole, time.Since(begin))
	}
	t.Logf("best of 10: %v from the end of Register to the update, %v from its beginning", best, whole)
	if best > 100*time.Millisecond {
		t.Errorf("an update takes %v at best: inotify does not work", best)
	}
}
