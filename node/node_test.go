package node

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/internal/fixture"
)

// tinyFolder is a model that only the echo engine can serve.
func tinyFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"config.json": `{"max_position_embeddings":512,"eos_token_id":9}`, "tokenizer.json": tinyTokenizer,
		"chat_template.jinja": "{% for m in messages %}{{ m.content }}{% endfor %}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// running is a node that serves.
type running struct {
	Ready
	url   string
	stop  context.CancelFunc
	done  chan error
	ended bool
}

// start runs a node with the edited default configuration and waits until it
// serves.
func start(t *testing.T, edit func(*Config)) *running {
	t.Helper()
	c := DefaultConfig()
	l, err := Listen("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	c.Listener, c.ModelName, c.Engine, c.Version = l, "m", EngineEcho, "test"
	if edit != nil {
		edit(&c)
	}
	if c.ModelPath == "" {
		c.ModelPath = tinyFolder(t)
	}
	ready := make(chan Ready, 1)
	c.Ready = func(r Ready) { ready <- r }
	n, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{stop: cancel, done: make(chan error, 1)}
	go func() { r.done <- n.Run(ctx) }()
	select {
	case r.Ready = <-ready:
	case err := <-r.done:
		cancel()
		t.Fatalf("the node ended before it was ready: %v", err)
	}
	r.url = "http://" + r.Addr
	t.Cleanup(func() { r.end(t) })
	return r
}

// end stops the node and fails if it does not stop well.
func (r *running) end(t *testing.T) {
	t.Helper()
	if r.ended {
		return
	}
	r.ended = true
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the node does not stop")
	}
}

func post(t *testing.T, url, body string) *http.Response {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestServe(t *testing.T) {
	addr := filepath.Join(t.TempDir(), "addr")
	if err := os.WriteFile(addr, []byte("stale"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := start(t, func(c *Config) { c.AddrFile = addr; c.MaxRunning = 2 })
	if b, err := os.ReadFile(addr); err != nil || string(b) != r.Addr+"\n" {
		t.Errorf("the address file holds %q, %v; serving at %s", b, err, r.Addr)
	}
	resp := post(t, r.url+"/v1/chat/completions", `{"model":"m","max_tokens":4,"messages":[{"role":"user","content":"abc"}]}`)
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !bytes.Contains(b, []byte(`"content":"abca"`)) {
		t.Errorf("got %d %s, %v", resp.StatusCode, b, err)
	}
}

// A drain lets a running answer end.
func TestDrainFinishes(t *testing.T) {
	before := runtime.NumGoroutine()
	r := start(t, func(c *Config) { c.EchoITL = 5 * time.Millisecond })
	resp := post(t, r.url+"/v1/chat/completions", `{"model":"m","max_tokens":60,"stream":true,"messages":[{"role":"user","content":"abc"}]}`)
	lines := bufio.NewReader(resp.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.end(t)
	rest, err := io.ReadAll(lines)
	if err != nil || !bytes.HasSuffix(bytes.TrimSpace(rest), []byte("data: [DONE]")) {
		t.Errorf("the answer was cut: %v: …%s", err, rest[max(0, len(rest)-200):])
	}
	if _, err := http.Get(r.url + "/live"); err == nil {
		t.Error("a stopped node answers")
	}
	http.DefaultClient.CloseIdleConnections()
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("I6: %d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}

// A drain that takes too long cuts answers off and is no error.
func TestDrainCuts(t *testing.T) {
	r := start(t, func(c *Config) { c.EchoITL = 50 * time.Millisecond; c.DrainTimeout = 20 * time.Millisecond })
	resp := post(t, r.url+"/v1/chat/completions", `{"model":"m","max_tokens":400,"stream":true,"messages":[{"role":"user","content":"abc"}]}`)
	lines := bufio.NewReader(resp.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r.end(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	rest, _ := io.ReadAll(lines) // the connection may be reset
	if bytes.Contains(rest, []byte(`"finish_reason":"length"`)) {
		t.Error("the answer came to its end")
	}
}

func TestRunFails(t *testing.T) {
	run := func(edit func(*Config)) error {
		c := DefaultConfig()
		l, err := Listen("127.0.0.1", 0)
		if err != nil {
			t.Fatal(err)
		}
		c.Listener, c.ModelName, c.Engine, c.ModelPath, c.Logger = l, "m", EngineEcho, tinyFolder(t), slog.New(slog.DiscardHandler)
		edit(&c)
		n, err := New(c)
		if err != nil {
			return err
		}
		err = n.Run(t.Context())
		if _, e := l.Accept(); e == nil {
			t.Error("the listener is open after Run")
		}
		return err
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("not a key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		edit func(*Config)
		say  string
	}{
		"no model":         {func(c *Config) { c.ModelPath = "/nowhere/x.gguf" }, "/nowhere/x.gguf"},
		"weights missing":  {func(c *Config) { c.Engine = EngineNative }, "architecture"},
		"key file":         {func(c *Config) { c.APIKeysFile = keys; c.StateDir = t.TempDir() }, "--api-keys"},
		"address file":     {func(c *Config) { c.AddrFile = "/nowhere/addr" }, "--addr-file"},
		"bad combination":  {func(c *Config) { c.Engine = EngineNative; c.StepTokens = 2 }, "--step-tokens"},
		"no state for key": {func(c *Config) { c.APIKey = "x" }, "--state-dir"},
	} {
		if err := run(tc.edit); err == nil || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The default model answers, with its memory and threads as configured.
func TestNative(t *testing.T) {
	path := fixture.SmolLM2(t)
	if testing.Short() {
		t.Skip("loads the default model")
	}
	r := start(t, func(c *Config) {
		c.Engine, c.ModelPath, c.KVCacheBytes, c.ContextLength, c.Threads = EngineNative, path, 64<<20, 1024, 1
		c.Precision = "f32" // what it says is then known from the reference
	})
	if r.Card.ContextLength != 1024 || r.KVBytes > 64<<20 || r.KVBytes < 60<<20 || r.Threads != 1 || r.Card.EOS[0] != 2 {
		t.Errorf("got %+v", r.Ready)
	}
	resp := post(t, r.url+"/v1/chat/completions", `{"model":"m","temperature":0,"max_tokens":12,"messages":[{"role":"user","content":"What is the capital of France?"}]}`)
	b, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(b, []byte("Paris")) {
		t.Errorf("got %s, %v", b, err)
	}
	metrics, err := http.Get(r.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	if b, err = io.ReadAll(metrics.Body); err != nil || !bytes.Contains(b, []byte("dynamo_engine_output_tokens_total 8")) {
		t.Errorf("the engine's tokens are not counted: %v", err)
	}

	// A drain lets the engine's running answer end, too.
	stream := post(t, r.url+"/v1/chat/completions", `{"model":"m","temperature":0,"max_tokens":40,"ignore_eos":true,"stream":true,"messages":[{"role":"user","content":"Count."}]}`)
	lines := bufio.NewReader(stream.Body)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	r.end(t)
	rest, err := io.ReadAll(lines)
	if err != nil || !bytes.Contains(rest, []byte(`"finish_reason":"length"`)) {
		t.Errorf("the answer was cut: %v: …%s", err, rest[max(0, len(rest)-300):])
	}
}
