package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

// bubble is a cluster under virtual time, on a network in memory. Hosts whose
// names begin with "w" run workers, others frontends.
type bubble struct {
	t      *testing.T
	net    *testnet.Network
	store  *discovery.Mem
	key    string // the cluster key's file
	folder string // the model of fixture.TinyModel
	log    record
	client *http.Client
}

// record is a log that is read while it is written.
type record struct {
	mu struct {
		sync.Mutex
		bytes.Buffer
	}
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.Write(b)
}

// forget drops what was written so far.
func (r *record) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.Reset()
}

// holds reports whether one line of the log has all the words.
func (r *record) holds(words ...string) bool {
	r.mu.Lock()
	text := r.mu.String()
	r.mu.Unlock()
lines:
	for line := range strings.Lines(text) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return true
	}
	return false
}

func (r *record) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// keyFile writes a cluster key made of one byte.
func keyFile(t testing.TB, b string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cluster.key")
	if err := os.WriteFile(path, []byte(strings.Repeat(b, 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tinyModel makes the folder of fixture.TinyModel with files put over it.
func tinyModel(t testing.TB, over map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tiny")
	if err := fixture.TinyModel(dir); err != nil {
		t.Fatal(err)
	}
	for name, text := range over {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// inBubble runs f in a cluster without nodes. Nothing may be left when its nodes
// have ended.
func inBubble(t *testing.T, f func(*testing.T, *bubble)) {
	t.Helper()
	key, folder := keyFile(t, "5a"), tinyModel(t, nil)
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, net: testnet.New(), store: discovery.NewMem(), key: key, folder: folder}
		b.client = &http.Client{Transport: &http.Transport{DialContext: b.net.Host("client").Dial, DisableKeepAlives: true}}
		t.Cleanup(func() {
			synctest.Wait()
			if n := b.net.Connections(); n != 0 {
				t.Errorf("I6: %d connections are left", n)
			}
			if t.Failed() && testing.Verbose() {
				b.log.mu.Lock()
				defer b.log.mu.Unlock()
				t.Logf("log:\n%s", b.log.mu.String())
			}
		})
		f(t, b)
	})
}

// proc is a node of a bubble.
type proc struct {
	b      *bubble
	host   string
	stop   context.CancelFunc
	ready  chan Ready
	done   chan struct{}
	err    error // of Run, once done is closed
	killed atomic.Bool
}

// kill takes the node's host away; how Run ends is of no matter.
func (p *proc) kill() {
	p.killed.Store(true)
	p.b.net.Kill(p.host)
}

// leash is a node's hold on the store: what a killed one still does never
// reaches it.
type leash struct {
	*discovery.Mem
	p *proc
}

// Register implements discovery.Store.
func (l leash) Register(ctx context.Context, i discovery.Instance) (discovery.Registration, error) {
	r, err := l.Mem.Register(ctx, i)
	if err != nil {
		return nil, err
	}
	return leashed{r, l.p}, nil
}

// Close implements discovery.Store.
func (l leash) Close() error {
	if l.p.killed.Load() {
		return nil
	}
	return l.Mem.Close()
}

type leashed struct {
	discovery.Registration
	p *proc
}

// Update implements discovery.Registration.
func (l leashed) Update(ctx context.Context, i discovery.Instance) error {
	if l.p.killed.Load() {
		return nil
	}
	return l.Registration.Update(ctx, i)
}

// Close implements discovery.Registration.
func (l leashed) Close() error {
	if l.p.killed.Load() {
		return nil
	}
	return l.Registration.Close()
}

// config is what a host's node begins with.
func (b *bubble) config(host string) Config {
	b.t.Helper()
	c := DefaultConfig()
	c.Cluster.Routing.Mode = "round-robin" // who serves whom is to be foreseen
	c.Engine, c.ModelPath, c.ModelName, c.DrainTimeout, c.Version = EngineEcho, b.folder, "m", time.Second, "test"
	c.Logger = b.log.logger().With("host", host)
	c.Cluster.Dial, c.Cluster.KeyFile = b.net.Host(host).Dial, b.key
	c.Cluster.WorkerWait = 0
	port := 80
	if host[0] == 'w' {
		port = 7000
	}
	l, err := b.net.Host(host).Listen(fmt.Sprintf("%s:%d", host, port))
	if err != nil {
		b.t.Fatal(err)
	}
	if host[0] == 'w' {
		n, err := strconv.Atoi(host[1:])
		if err != nil {
			b.t.Fatal(err)
		}
		c.Role, c.Worker.ID, c.Worker.Listeners = RoleWorker, dynamo.WorkerID(n), []net.Listener{l}
		return c
	}
	c.Role, c.Listener, c.ModelPath = RoleFrontend, l, ""
	return c
}

// run runs a node until the test ends.
func (b *bubble) run(host string, edit func(*Config)) *proc {
	b.t.Helper()
	c := b.config(host)
	p := &proc{b: b, host: host, ready: make(chan Ready, 1), done: make(chan struct{})}
	c.Cluster.Store = leash{b.store.Handle(), p}
	c.Ready = func(r Ready) { p.ready <- r }
	if edit != nil {
		edit(&c)
	}
	n, err := New(c)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	p.stop = cancel
	go func() { // ends with the test
		defer close(p.done)
		p.err = n.Run(ctx)
	}()
	b.t.Cleanup(func() { p.end() })
	return p
}

// start runs a node and waits until it serves.
func (b *bubble) start(host string, edit func(*Config)) *proc {
	b.t.Helper()
	p := b.run(host, edit)
	select {
	case <-p.ready:
	case <-p.done:
		b.t.Fatalf("%s ended before it served: %v", host, p.err)
	}
	return p
}

// end stops the node and wants it to stop well.
func (p *proc) end() {
	p.b.t.Helper()
	p.stop()
	<-p.done
	if p.err != nil && !p.killed.Load() {
		p.b.t.Errorf("%s: Run: %v", p.host, p.err)
	}
	p.err = nil
}

// until waits, for a minute of the bubble, until ok.
func (b *bubble) until(what string, ok func() bool) {
	b.t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Fatalf("never: %s", what)
}

// get reads a page of a frontend.
func (b *bubble) get(host, path string) (int, string) {
	b.t.Helper()
	return b.do("GET", host, path, "")
}

func (b *bubble) do(method, host, path, body string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, "http://"+host+":80"+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// complete asks a frontend for a completion and returns its status and text, or
// the whole body where that is an error.
func (b *bubble) complete(host, model, prompt string, tokens int) (int, string) {
	b.t.Helper()
	body := fmt.Sprintf(`{"model":%q,"prompt":%q,"max_tokens":%d,"ignore_eos":true}`, model, prompt, tokens)
	status, text := b.do("POST", host, "/v1/completions", body)
	var c struct {
		Choices []struct {
			Text string `json:"text"`
		} `json:"choices"`
	}
	if status != http.StatusOK {
		return status, text
	}
	if err := json.Unmarshal([]byte(text), &c); err != nil || len(c.Choices) != 1 {
		b.t.Fatalf("%v: %s", err, text)
	}
	return status, c.Choices[0].Text
}

// wants asks for a completion and wants it served.
func (b *bubble) wants(host, model string) {
	b.t.Helper()
	if status, text := b.complete(host, model, "abc", 5); status != http.StatusOK || text != "abcab" {
		b.t.Fatalf("model %s at %s: got %d %q", model, host, status, text)
	}
}

// seen is one worker in /health.
type seen struct {
	Worker string `json:"worker"`
	Model  string `json:"model"`
	State  string `json:"state"`
	Load   struct {
		Running    int    `json:"running"`
		MaxRunning int    `json:"max_running"`
		KVUsed     int    `json:"kv_blocks_used"`
		Steps      uint64 `json:"steps"`
	} `json:"load"`
}

// health lists a frontend's workers by their hosts' names.
func (b *bubble) health(host string) map[string]seen {
	b.t.Helper()
	_, text := b.get(host, "/health")
	var h struct {
		Instances []seen `json:"instances"`
	}
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		b.t.Fatalf("%v: %s", err, text)
	}
	all := map[string]seen{}
	for _, s := range h.Instances {
		id, err := dynamo.ParseWorkerID(s.Worker)
		if err != nil {
			b.t.Fatal(err)
		}
		all["w"+strconv.FormatUint(uint64(id), 10)] = s
	}
	return all
}

// awaitState waits until a frontend sees a worker in a state that begins so.
func (b *bubble) awaitState(host, worker, state string) {
	b.t.Helper()
	b.until(worker+" is "+state, func() bool {
		return strings.HasPrefix(b.health(host)[worker].State, state) && b.health(host)[worker].State != ""
	})
}

// models lists what a frontend serves.
func (b *bubble) models(host string) string {
	b.t.Helper()
	_, text := b.get(host, "/v1/models")
	var l struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		b.t.Fatalf("%v: %s", err, text)
	}
	var names []string
	for _, m := range l.Data {
		names = append(names, m.ID)
	}
	return strings.Join(names, " ")
}

// awaitModels waits until a frontend serves exactly these.
func (b *bubble) awaitModels(host, names string) {
	b.t.Helper()
	b.until(host+" serves "+names, func() bool { return b.models(host) == names })
}
