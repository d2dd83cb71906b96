package vllm_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/obs"
)

// count adds a byte to a file and returns how many there are.
func count(file string) int {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0
	}
	defer f.Close()
	_, _ = f.Write([]byte("x"))
	n, _ := f.Seek(0, io.SeekCurrent)
	return int(n)
}

// superviseForever is a process that keeps a server, until it is killed. The file
// gets the server's process group once it is ready.
func superviseForever(model, file string) int {
	self, err := os.Executable()
	if err != nil {
		return 1
	}
	c := config("")
	c.Command.Path, c.Command.Model, c.Name = self, model, "tiny"
	e, err := vllm.New(c)
	if err != nil {
		return 1
	}
	if err := e.Ready(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = os.WriteFile(file, []byte("ready"), 0o600)
	_ = e.Run(context.Background())
	return 1
}

// alive reports whether a process runs; one that has ended and is not waited for by
// who adopted it does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(b), ") Z ")
}

// parent and group of a process, as /proc has them.
func parentAndGroup(pid int) (parent, group int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 3 {
		return 0, 0
	}
	parent, _ = strconv.Atoi(fields[1])
	group, _ = strconv.Atoi(fields[2])
	return parent, group
}

// A server does not outlive a worker that is killed, nor does what it has forked,
// not even a child that does not mind being asked.
func TestWorkerKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ready, child := filepath.Join(dir, "ready"), filepath.Join(dir, "child")
	w := exec.Command(self, "worker", "child:"+child, ready)
	w.Stderr = os.Stderr
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Process.Kill() }()
	waitFor(t, "the worker", func() bool { _, err := os.Stat(ready); return err == nil })
	b, err := os.ReadFile(child)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	leader, group := parentAndGroup(pid)
	if group != leader || !alive(leader) || !alive(pid) {
		t.Fatalf("the server's child %d has the parent %d and is in the group %d", pid, leader, group)
	}
	began := time.Now()
	if err := w.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = w.Wait()
	waitFor(t, "the server and its child to end", func() bool { return !alive(leader) && !alive(pid) })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// guards are the shells that this process has started to guard servers.
func guards() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if parent, _ := parentAndGroup(pid); parent == os.Getpid() && bytes.HasPrefix(line, []byte("/bin/sh\x00-c\x00trap")) && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// The guard ends with its server, and may be lost without harm.
func TestGuard(t *testing.T) {
	before := guards()
	e := open(t, command(t, "good"))
	mine := slices.DeleteFunc(guards(), func(pid int) bool { return slices.Contains(before, pid) })
	if len(mine) != 1 {
		t.Fatalf("%d guards, want 1", len(mine))
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if alive(mine[0]) {
		t.Error("the guard outlives its server")
	}
	e = open(t, command(t, "good"))
	mine = slices.DeleteFunc(guards(), func(pid int) bool { return slices.Contains(before, pid) })
	if len(mine) != 1 {
		t.Fatalf("%d guards, want 1", len(mine))
	}
	if err := syscall.Kill(mine[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err != nil {
		t.Error(err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// journal keeps the pauses that the log tells of, and all its text.
type journal struct {
	sync.Mutex
	pauses []time.Duration
	text   strings.Builder
}

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithAttrs([]slog.Attr) slog.Handler       { return j }
func (j *journal) WithGroup(string) slog.Handler            { return j }
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	j.Lock()
	defer j.Unlock()
	fmt.Fprintln(&j.text, r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		fmt.Fprintln(&j.text, a.Key, a.Value.String())
		if a.Key == obs.KeyDuration && strings.HasSuffix(r.Message, "it is started again") {
			j.pauses = append(j.pauses, a.Value.Duration())
		}
		return true
	})
	return nil
}

func (j *journal) said() string {
	j.Lock()
	defer j.Unlock()
	return j.text.String()
}

// A server that ends again and again is left alone for longer and longer, and one
// that has lived for a while is started again soon. While it is away the engine says
// so at once.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	j := &journal{}
	c := command(t, "loop:"+filepath.Join(t.TempDir(), "starts"), "--dies", "1")
	c.Restarts, c.RestartMin, c.RestartMax, c.RestartCalm = 5, 20*time.Millisecond, 80*time.Millisecond, time.Second
	c.Logger = slog.New(j)
	e := open(t, c)
	stop := running(t, e)
	long := &dynamo.Request{Tokens: small(8), MaxTokens: 50, IgnoreEOS: true}
	for round := range 2 {
		if round > 0 {
			time.Sleep(c.RestartCalm)
		}
		if _, err := enginetest.Collect(t.Context(), e, long); err == nil {
			t.Fatal("the server did not die")
		}
		waitFor(t, "the engine to be down", func() bool { return e.Load().Down })
		began := time.Now()
		_, err := enginetest.Collect(t.Context(), e, long)
		if code, _ := engine.Lost(err); code != engine.CodeLost {
			t.Errorf("got %v while the server is away, want it lost", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v to say so", took)
		}
		waitFor(t, "the engine to be back", func() bool { return !e.Load().Down })
	}
	if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 4}); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	ms := time.Millisecond
	if want := []time.Duration{20 * ms, 40 * ms, 80 * ms, 80 * ms, 20 * ms}; !slices.Equal(j.pauses, want) {
		t.Errorf("got the pauses %v, want %v", j.pauses, want)
	}
	if said := j.said(); !strings.Contains(said, "start 3 went wrong") || !strings.Contains(said, "exit status 3") {
		t.Errorf("the log does not say how it ended: %s", said)
	}
}

// A server that cannot be started again ends the engine.
func TestRestartsBounded(t *testing.T) {
	t.Parallel()
	c := command(t, "loop:"+filepath.Join(t.TempDir(), "starts"), "--dies", "1")
	c.Restarts, c.RestartMin, c.RestartMax = 1, time.Millisecond, time.Millisecond
	e := open(t, c)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(t.Context()) }()
	_, _ = enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 50, IgnoreEOS: true}) // it dies
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "start 3 went wrong") {
			t.Errorf("got %v, want the last lines", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it is started for ever")
	}
}

// Texts that vLLM was seen to leave, and what is made of them.
func TestCauses(t *testing.T) {
	for _, c := range []struct{ says, want string }{
		{"RuntimeError: Failed to infer device type, please set the environment variable `VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging", "finds no GPU"},
		{"RuntimeError: Found no NVIDIA driver on your system.", "finds no GPU"},
		{"ImportError: libcudart.so.12: cannot open shared object file: No such file or directory", "install it again"},
		{"(EngineCore pid=7) ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine", "no memory left for the KV cache"},
		{"ValueError: To serve at least one request with the model's max seq len (8192), (1.0 GiB KV cache is needed, which is larger than the available KV cache memory (0.5 GiB). ", "lower --max-model-len"},
		{"ValueError: Free memory on device cuda:0 (1.0/80.0 GiB) on startup is less than desired GPU memory utilization (0.9, 72.0 GiB).", "in use by another process"},
		{"INFO Free memory on device (70.1/80.0 GiB) on startup. Desired GPU memory utilization is (0.9, 72 GiB).\nSegmentation fault", "Its last lines"},
		{"zmq.error.ZMQError: Address already in use (addr='tcp://*:5557')", "--kv-events-config"},
		{"[Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use", "--port"},
		{"huggingface_hub.errors.LocalEntryNotFoundError: Cannot find an appropriate cached snapshot folder for the specified revision on the local disk and outgoing traffic has been disabled.", "HF_HUB_OFFLINE"},
		{"huggingface_hub.errors.GatedRepoError: 403 Client Error. Cannot access gated repo for url https://huggingface.co/x", "HF_TOKEN"},
		{"RuntimeError: Cannot find any model weights with `/models/x`", "no weights"},
		{"ValueError: Model architectures ['NewForCausalLM'] are not supported for now. Supported architectures: dict_keys(", "does not know the model's architecture"},
		{"vllm serve: error: argument --block-size: invalid choice: 7 (choose from 1, 8, 16, 32, 64, 128, 256)", "does not take the value"},
		{"OSError: [Errno 28] No space left on device", "/dev/shm"},
	} {
		t.Run(c.want, func(t *testing.T) {
			cfg := command(t, "says:"+c.says+strings.Repeat("\n(APIServer pid=1)   File \"x.py\", line 3, in y", 60)+"\nRuntimeError: Engine core initialization failed. See root cause above.")
			cfg.Restarts = 0
			e, err := vllm.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			if err = e.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "See root cause above") {
				t.Errorf("got %v, want %q and the last line", err, c.want)
			}
		})
	}
}

// Ports of several ranks follow each other, and what the user says of the events
// stands.
func TestEventPorts(t *testing.T) {
	c := command(t, "good", "--data_parallel_size=3")
	c.Events = func(*eventBatch) {}
	i := open(t, c).Info()
	if len(i.Sources) != 1 { // as many as its metrics tell of
		t.Fatalf("got the sources %v", i.Sources)
	}
	port := func(endpoint string) int {
		n, err := strconv.Atoi(endpoint[strings.LastIndexByte(endpoint, ':')+1:])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if live, replay := port(i.Sources[0].Endpoint), port(i.Sources[0].ReplayEndpoint); max(live, replay)-min(live, replay) < 3 {
		t.Errorf("the ports of three ranks from %d and from %d on meet", live, replay)
	}
	c = command(t, "good", "--kv-events-config", `{"enable_kv_cache_events":true,"endpoint":"tcp://*:7001","replay_endpoint":"tcp://*:7002","topic":"mine"}`)
	c.Events = func(*eventBatch) {}
	e := open(t, c)
	want := vllm.Source{Endpoint: "tcp://127.0.0.1:7001", ReplayEndpoint: "tcp://127.0.0.1:7002", Topic: "mine"}
	if got := e.Info().Sources; len(got) != 1 || got[0] != want {
		t.Errorf("got the sources %v, want %v", got, want)
	}
	if n := strings.Count(e.Info().Root, "--kv-events-config"); n != 1 {
		t.Errorf("%d configurations of events in %q", n, e.Info().Root)
	}
}

// Where another server listens nothing is started, and both are named.
func TestTwoServersOnePort(t *testing.T) {
	t.Parallel()
	other := newFake()
	other.models = `{"data":[{"id":"theirs","root":"/t","max_model_len":50}]}`
	address := strings.TrimPrefix(other.start(t).URL, "http://")
	_, port, _ := net.SplitHostPort(address)
	e, err := vllm.New(command(t, "good", "--port", port))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	err = e.Ready(t.Context())
	for _, want := range []string{"tiny", "theirs", fakeVersion, address} {
		if dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	// One that takes the port after it was found free answers for the one started.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = l.Addr().String()
	_, port, _ = net.SplitHostPort(address)
	_ = l.Close()
	c := command(t, "sleeps", "--port", port)
	var server http.Server
	defer server.Close()
	c.Progress = func(line string) {
		if strings.HasPrefix(line, "starting ") {
			l, err := net.Listen("tcp", address)
			if err != nil {
				t.Error(err)
				return
			}
			server.Handler = other
			go func() { _ = server.Serve(l) }() // until Close
		}
	}
	e, err = vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	err = e.Ready(t.Context())
	for _, want := range []string{"tiny", "theirs", "share the port"} {
		if dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// A supervised server is told the key by its environment, and no text shows it.
func TestKeyIsSecret(t *testing.T) {
	j, said := &journal{}, &lines{}
	c := command(t, "key")
	c.APIKey, c.Logger, c.Progress = "open-sesame", slog.New(j), said.add
	e := open(t, c)
	if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err != nil {
		t.Fatal(err)
	}
	c = command(t, "key", "--api-key", "open-sesame")
	c.Logger, c.Progress = slog.New(j), said.add
	open(t, c)
	if !said.hold("my key is ***") || said.hold("sesame") || strings.Contains(j.said(), "sesame") {
		t.Errorf("the key shows: %q %s", said.all, j.said())
	}
}
