package vllm_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
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
)

// The test's own executable plays the vllm command: "serve" and what follows are
// its arguments then, and the model is what becomes of it.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 2 && os.Args[1] == "serve":
		os.Exit(serve(os.Args[2], os.Args[3:]))
	case len(os.Args) > 3 && os.Args[1] == "worker":
		os.Exit(superviseForever(os.Args[2], os.Args[3]))
	case len(os.Args) > 1 && os.Args[1] == "child":
		signal.Ignore(syscall.SIGTERM)
		time.Sleep(time.Minute)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serve(model string, args []string) int {
	value := func(flag string) string {
		for i, a := range args {
			if a == flag {
				return args[i+1]
			}
		}
		return ""
	}
	has := func(flag string) bool { return strings.Contains(" "+strings.Join(args, " ")+" ", " "+flag+" ") }
	switch {
	case strings.HasPrefix(model, "says:"):
		fmt.Println("INFO loading")
		fmt.Fprintln(os.Stderr, strings.TrimPrefix(model, "says:"))
		return 1
	case strings.HasPrefix(model, "loop:"):
		if nth := count(strings.TrimPrefix(model, "loop:")); nth > 1 && nth < 5 {
			fmt.Println("RuntimeError: start", nth, "went wrong")
			return 1
		}
	case model == "old" && has("--enable-scale-out"):
		fmt.Fprintln(os.Stderr, "vllm: error: unrecognized arguments: --enable-scale-out")
		return 2
	case model == "sleeps":
		time.Sleep(time.Minute)
	}
	if file, first := strings.CutPrefix(model, "second:"); first {
		if _, err := os.Stat(file); err != nil {
			_ = os.WriteFile(file, []byte("x"), 0o600)
			fmt.Println("RuntimeError: something odd")
			return 1
		}
	}
	if file, with := strings.CutPrefix(model, "child:"); with {
		c := exec.Command(os.Args[0], "child")
		c.Stdout = os.Stdout
		if err := c.Start(); err != nil {
			return 1
		}
		_ = os.WriteFile(file, []byte(strconv.Itoa(c.Process.Pid)), 0o600)
	}
	f := newFake()
	f.sources = ""
	f.pause = time.Millisecond
	root := strings.Join(args, " ")
	if port := os.Getenv("VLLM_NIXL_SIDE_CHANNEL_PORT"); port != "" {
		root += " side port " + port
	}
	f.models = fmt.Sprintf(`{"data":[{"id":"tiny","root":%q,"max_model_len":%d}]}`, root, fakeLength)
	if model == "key" {
		if f.apiKey = os.Getenv("VLLM_API_KEY"); f.apiKey == "" {
			f.apiKey = value("--api-key")
		}
		fmt.Println("my key is", f.apiKey)
	}
	if pid := value("--dies"); pid != "" {
		f.mischief = func(_ http.ResponseWriter, _ *http.Request, sent int) bool {
			if sent == 5 {
				os.Exit(3)
			}
			return false
		}
	}
	fmt.Println("INFO Application startup complete.")
	fmt.Fprintln(os.Stderr, http.ListenAndServe(net.JoinHostPort(value("--host"), value("--port")), f))
	return 1
}

func command(t *testing.T, model string, args ...string) vllm.Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := config("")
	c.Command.Path, c.Command.Model, c.Command.Args = self, model, args
	c.RestartMin = 10 * time.Millisecond
	c.Restarts, c.StopTimeout, c.Name, c.ReadyTimeout = 1, 200*time.Millisecond, "tiny", 30*time.Second
	return c
}

// lines collects progress.
type lines struct {
	sync.Mutex
	all []string
}

func (l *lines) add(s string) {
	l.Lock()
	defer l.Unlock()
	l.all = append(l.all, s)
}

func (l *lines) hold(s string) bool {
	l.Lock()
	defer l.Unlock()
	return strings.Contains(strings.Join(l.all, "\n"), s)
}

func TestSupervised(t *testing.T) {
	var said lines
	c := command(t, "good", "--dtype", "float32")
	c.Progress, c.BlockSize, c.Events = said.add, fakeBlock, func(*eventBatch) {}
	e := open(t, c)
	if i := e.Info(); i.Dtype != "float32" || len(i.Sources) != 1 || !strings.HasPrefix(i.Sources[0].Endpoint, "tcp://[::ffff:127.0.0.1]:") || !strings.HasPrefix(i.Sources[0].ReplayEndpoint, "tcp://127.0.0.1:") || i.Sources[0].Topic != "kv-events" || i.EventsAsked {
		t.Errorf("got %+v", i)
	}
	for _, want := range []string{"--block-size 16", "--served-model-name tiny", "--enable-scale-out", "--enable-prompt-tokens-details", `--kv-events-config {"enable_kv_cache_events":true`, "--dtype float32", "--max-logprobs 21"} {
		if !strings.Contains(e.Info().Root, want) {
			t.Errorf("%q is not among the arguments %q", want, e.Info().Root)
		}
	}
	if !said.hold("Application startup complete.") {
		t.Errorf("the server's output is missing from %q", said.all)
	}
	if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err != nil {
		t.Fatal(err)
	}
}

func TestGroupEnds(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "pid")
	e := open(t, command(t, "child:"+file))
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	if err := running(t, e)(); err != nil {
		t.Error(err)
	}
	// A child that its parent left behind is waited for by whoever adopts it.
	waitFor(t, "the server's child to end", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}

// A server that dies within answers is started again, and they fail as lost.
func TestRestart(t *testing.T) {
	t.Parallel()
	e := open(t, command(t, "good", "--dies", "1"))
	stop := running(t, e)
	r := &dynamo.Request{Tokens: small(8), MaxTokens: 4}
	for range 2 {
		long := &dynamo.Request{Tokens: small(8), MaxTokens: 50, IgnoreEOS: true}
		if _, err := enginetest.Collect(t.Context(), e, long); err == nil {
			t.Fatal("the server did not die")
		} else if code, _ := engine.Lost(err); code != engine.CodeLost {
			t.Errorf("got %v, want the server lost", err)
		}
		waitFor(t, "the server to be back", func() bool {
			_, err := enginetest.Collect(t.Context(), e, r)
			return err == nil
		})
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestCrash(t *testing.T) {
	for _, c := range []struct {
		model string
		kind  dynamo.Kind
		want  string
	}{
		{"says:ValueError: No common block size for 16 (CPU_ATTN: [MultipleOf(32)])", dynamo.KindInvalid, "multiple of 32"},
		{"says:importlib.metadata.PackageNotFoundError: No package metadata was found for vllm", dynamo.KindInvalid, "dist-info"},
		{"says:torch.OutOfMemoryError: CUDA out of memory.", dynamo.KindInvalid, "--gpu-memory-utilization"},
		{"says:OSError: x is not a local folder and is not a valid model identifier listed", dynamo.KindInvalid, "no such model"},
		{"says:vllm: error: unrecognized arguments: --nonsense", dynamo.KindInvalid, "--nonsense"},
		{"says:OSError: [Errno 98] Address already in use", dynamo.KindUnavailable, "in use by another process"},
		{"says:something never seen", dynamo.KindUnavailable, "exit status 1"},
	} {
		t.Run(c.model, func(t *testing.T) {
			cfg := command(t, c.model)
			cfg.Restarts = 0
			e, err := vllm.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			err = e.Ready(t.Context())
			if err == nil || dynamo.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), strings.TrimPrefix(c.model, "says:")) {
				t.Errorf("got %v, want kind %v, %q and the last line", err, c.kind, c.want)
			}
		})
	}
}

func TestStartAgain(t *testing.T) {
	open(t, command(t, "second:"+filepath.Join(t.TempDir(), "mark")))
}

func TestOlderCommand(t *testing.T) {
	e := open(t, command(t, "old"))
	if strings.Contains(e.Info().Root, "--enable-scale-out") {
		t.Errorf("got the arguments %q", e.Info().Root)
	}
}

func TestNeverReady(t *testing.T) {
	t.Parallel()
	c := command(t, "sleeps")
	c.ReadyTimeout = 300 * time.Millisecond
	e, err := vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := e.Ready(t.Context()); dynamo.KindOf(err) != dynamo.KindUnavailable || !strings.Contains(err.Error(), "300ms") {
		t.Errorf("got %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v to give up", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, err = vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Ready(ctx); dynamo.KindOf(err) != dynamo.KindCancelled {
		t.Errorf("got %v, want cancelled", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e, err := vllm.New(command(t, "good", "--port", strconv.Itoa(l.Addr().(*net.TCPAddr).Port)))
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Ready(t.Context()); dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

func TestNoCommand(t *testing.T) {
	c := command(t, "good")
	c.Command.Path = "vllm-that-is-not-there"
	e, err := vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Ready(t.Context()); dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "--engine-command") {
		t.Errorf("got %v", err)
	}
}
