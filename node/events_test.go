package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/rpc"
	"github.com/dynamo-go/dynamo/tokenizer"
	"github.com/dynamo-go/dynamo/tokens"
)

// tinyNative is a model with random weights that the native engine computes.
func tinyNative(t testing.TB) string {
	t.Helper()
	dir := tinyModel(t, nil)
	if err := fixture.TinyLlama(dir, fixture.Llama{Vocab: 320, Context: 512, Layers: 1, BOS: 256, EOS: 257}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// computing makes a node compute the tiny model on one thread.
func computing(path string) func(*Config) {
	return func(c *Config) {
		c.Engine, c.ModelPath, c.Threads, c.KVCacheBytes, c.StepTokens = EngineNative, path, 1, 4<<20, 64
	}
}

// cluster is one over real sockets, for what needs them or computes.
type cluster struct {
	t     *testing.T
	store *discovery.Mem
	key   string
	edit  func(*Config)
}

func newCluster(t *testing.T, edit func(*Config)) *cluster {
	return &cluster{t, discovery.NewMem(), keyFile(t, "5a"), edit}
}

func (c *cluster) start(role string, edit func(*Config)) *running {
	c.t.Helper()
	return start(c.t, func(n *Config) {
		n.Role, n.Cluster.Store, n.Cluster.KeyFile, n.Worker.Host = role, c.store.Handle(), c.key, "127.0.0.1"
		if role == RoleWorker {
			if err := n.Listener.Close(); err != nil {
				c.t.Error(err)
			}
			n.Listener = nil
		}
		for _, edit := range []func(*Config){c.edit, edit} {
			if edit != nil {
				edit(n)
			}
		}
	})
}

// instance reads what a worker has registered.
func (c *cluster) instance(id dynamo.WorkerID) discovery.Instance {
	c.t.Helper()
	for u := range c.store.Watch(c.t.Context(), discovery.Path{Namespace: "dynamo"}) {
		if i := slices.IndexFunc(u.Instances, func(i discovery.Instance) bool { return i.ID == id }); i >= 0 {
			return u.Instances[i]
		}
		if u.Kind == discovery.Snapshot {
			break
		}
	}
	c.t.Fatalf("the store has no worker %v", id)
	return discovery.Instance{}
}

// eventually waits for what other goroutines and sockets do.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("never: %s", what)
		}
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// ask wants one token of an answer to a prompt.
func ask(t *testing.T, url, prompt string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"model": "m", "prompt": prompt, "max_tokens": 1, "temperature": 0, "ignore_eos": true})
	if err != nil {
		t.Fatal(err)
	}
	resp := post(t, url+"/v1/completions", string(body))
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %d %s, %v", resp.StatusCode, b, err)
	}
}

// peer connects to a worker until the test ends.
func (c *cluster) peer(i discovery.Instance) *rpc.Peer {
	c.t.Helper()
	key, err := discovery.ReadKey(c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	rc := rpc.DefaultConfig()
	rc.Key = key
	client, err := rpc.NewClient(rc)
	if err != nil {
		c.t.Fatal(err)
	}
	p := client.Peer(rpc.PeerConfig{Addresses: i.Addresses, Worker: i.ID, Epoch: i.Epoch})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with the test
		defer close(done)
		_ = p.Run(ctx)
	}()
	c.t.Cleanup(func() {
		cancel()
		<-done
	})
	return p
}

// follower keeps the blocks that a worker says it holds.
type follower struct {
	blocks map[dynamo.BlockHash]bool
	resets int
}

func (f *follower) apply(d event.Delivery) error {
	if d.Kind == event.Reset {
		f.resets++
		clear(f.blocks)
		return nil
	}
	if d.Kind == event.Gap || len(d.Payload) == 0 {
		return nil
	}
	var b event.KVBatch
	if err := b.Parse(d.Payload); err != nil {
		return err
	}
	if b.Tier != dynamo.TierDevice || b.BlockSize != model.BlockSize {
		return fmt.Errorf("a batch of tier %v, block size %d", b.Tier, b.BlockSize)
	}
	for _, e := range b.Events {
		if e.Kind == kvbm.Removed {
			for _, h := range e.Hashes {
				delete(f.blocks, h)
			}
			continue
		}
		for _, block := range e.Blocks {
			f.blocks[block.Hash] = true
		}
	}
	return nil
}

// A worker tells of the blocks of the prompts it has served, also to who comes
// late, and of those it gives up.
func TestKVEvents(t *testing.T) {
	path := tinyNative(t)
	c := newCluster(t, computing(path))
	c.start(RoleWorker, func(n *Config) { n.Worker.ID = 0xabc; n.KVCacheBytes = 256 << 10 })
	front := c.start(RoleFrontend, nil)
	eventually(t, "the model is served", func() bool { return strings.Contains(fetch(t, front.url+"/v1/models"), `"m"`) })
	meta, err := readMetadata(path, "")
	if err != nil {
		t.Fatal(err)
	}
	want := map[dynamo.BlockHash]bool{}
	serve := func(prompt string) {
		t.Helper()
		ask(t, front.url, prompt)
		ids := meta.tokenizer.Encode(nil, prompt, tokenizer.EncodeOptions{AddSpecial: true})
		for _, b := range tokens.AppendBlocks(nil, tokens.Root("", ""), model.BlockSize, ids) {
			want[b.Hash] = true
		}
	}
	serve("a prompt of less than")                          // one block and five tokens
	serve(strings.Repeat("one prompt. ", 12) + "the one")   // nine blocks and more
	serve(strings.Repeat("one prompt. ", 12) + "the other") // shares them
	serve(strings.Repeat("x", 64))                          // ends with a block

	i := c.instance(0xabc)
	peer := c.peer(i)
	f := &follower{blocks: map[dynamo.BlockHash]bool{}}
	follow := func(until func() bool) error {
		fc := event.DefaultFollowConfig(event.Source{Topic: event.TopicKV, Worker: i.ID, Epoch: i.Epoch}, func(ctx context.Context, src event.Source, from event.Position) iter.Seq2[event.Delivery, error] {
			return event.SubscribeRPC(ctx, peer, src, from)
		})
		ctx, stop := context.WithTimeoutCause(t.Context(), 10*time.Second, errors.New("it never came to that"))
		defer stop()
		err := event.Follow(ctx, fc, func(d event.Delivery) error {
			err := f.apply(d)
			if err == nil && until() {
				stop()
			}
			return err
		})
		if until() {
			return nil
		}
		return err
	}
	same := func() bool { return len(f.blocks) == len(want) && f.blocksIn(want) }
	if err := follow(same); err != nil {
		t.Fatalf("late: %d blocks of %d: %v", len(f.blocks), len(want), err)
	}
	early := len(want)
	for n := range 40 { // more than the cache holds
		serve(fmt.Sprintf("%d %s", n, strings.Repeat("another ", 20)))
	}
	capacity := i.Card.KVBlocks
	last := func() bool {
		return len(f.blocks) > 0 && len(f.blocks) <= capacity && f.blocksIn(want) && len(f.blocks) < len(want)
	}
	if err := follow(last); err != nil {
		t.Fatalf("after evictions: %d blocks, the cache has %d: %v", len(f.blocks), capacity, err)
	}
	if early >= capacity || len(want) <= capacity {
		t.Errorf("the cache has %d blocks; %d, then %d were made: the test does not show what it should", capacity, early, len(want))
	}
}

// blocksIn reports whether all that the follower has is among those.
func (f *follower) blocksIn(all map[dynamo.BlockHash]bool) bool {
	for h := range f.blocks {
		if !all[h] {
			return false
		}
	}
	return true
}

// A frontend that asks nothing of a worker itself knows its load by the events.
func TestLoad(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		b.start("front", nil)
		b.start("looker", nil)
		b.start("w1", func(c *Config) { c.EchoITL, c.MaxRunning = 10*time.Millisecond, 7 })
		b.awaitModels("front", "m")
		b.awaitState("looker", "w1", "ready")
		over := make(chan struct{})
		go func() {
			defer close(over)
			if status, text := b.complete("front", "m", "abc", 300); status != http.StatusOK || len(text) != 300 {
				t.Errorf("got %d %q", status, text)
			}
		}()
		for _, host := range []string{"front", "looker"} {
			began := time.Now()
			b.until(host+" sees the load", func() bool { return b.health(host)["w1"].Load.Running == 1 })
			if took := time.Since(began); took > 200*time.Millisecond {
				t.Errorf("%s sees the load after %v", host, took)
			}
		}
		if l := b.health("looker")["w1"].Load; l.MaxRunning != 7 {
			t.Errorf("the load is %+v", l)
		}
		<-over
		for _, host := range []string{"front", "looker"} {
			b.until(host+" sees the end", func() bool { l := b.health(host)["w1"].Load; return l.Running == 0 && l.Steps >= 300 })
		}
	})
}

// The same over NATS.
func TestLoadNATS(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a NATS server")
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go s.Start() // ends with Shutdown
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	c := newCluster(t, func(n *Config) {
		n.Cluster.EventPlane, n.Cluster.NATSServer = eventNATS, "nats://"+s.Addr().(*net.TCPAddr).String()
	})
	c.start(RoleWorker, func(n *Config) { n.EchoITL, n.MaxRunning = 5*time.Millisecond, 7 })
	front, looker := c.start(RoleFrontend, nil), c.start(RoleFrontend, nil)
	eventually(t, "the model is served", func() bool { return strings.Contains(fetch(t, front.url+"/v1/models"), `"m"`) })
	eventually(t, "the looker knows the worker", func() bool { return strings.Contains(fetch(t, looker.url+"/health"), `"max_running":7`) })
	resp := post(t, front.url+"/v1/completions", `{"model":"m","prompt":"abc","max_tokens":400,"stream":true,"ignore_eos":true}`)
	eventually(t, "the looker sees the load", func() bool { return strings.Contains(fetch(t, looker.url+"/health"), `"running":1`) })
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the looker sees the end", func() bool { return strings.Contains(fetch(t, looker.url+"/health"), `"running":0`) })
	if s.NumClients() < 3 {
		t.Errorf("the NATS server has %d clients, want one for each node", s.NumClients())
	}
	http.DefaultClient.CloseIdleConnections()
}

// Two engines in one process share the requests, and a drain lets both end.
func TestTwoEngines(t *testing.T) {
	path := tinyNative(t)
	r := start(t, func(c *Config) { computing(path)(c); c.Engines, c.Cluster.Routing.Mode = 2, "round-robin" })
	for n := range 8 {
		ask(t, r.url, fmt.Sprintf("prompt %d", n))
	}
	var h struct{ Instances []seen }
	if err := json.Unmarshal([]byte(fetch(t, r.url+"/health")), &h); err != nil || len(h.Instances) != 2 {
		t.Fatalf("%v: %+v", err, h)
	}
	for _, in := range h.Instances {
		if in.Load.Steps == 0 || in.State != "ready" {
			t.Errorf("%+v", in)
		}
	}
	if metrics := fetch(t, r.url+"/metrics"); !strings.Contains(metrics, "dynamo_engine_output_tokens_total 8\n") {
		t.Error("the metrics do not sum both engines' tokens up")
	}
	var answers []io.Reader
	for range 2 {
		answers = append(answers, post(t, r.url+"/v1/completions", `{"model":"m","prompt":"abc","max_tokens":200,"stream":true,"ignore_eos":true}`).Body)
	}
	r.end(t)
	for _, a := range answers {
		if b, err := io.ReadAll(a); err != nil || !strings.HasSuffix(strings.TrimSpace(string(b)), "data: [DONE]") {
			t.Errorf("an answer was cut: %v", err)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

// A store that nobody serves is an error, soon, that names the flag.
func TestNoEtcd(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for as long as etcd is given to answer")
	}
	for _, role := range []string{RoleWorker, RoleFrontend, "person"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			key, began := keyFile(t, "5a"), time.Now()
			err := runWith(t, role, func(c *Config) { c.Cluster.Discovery, c.Cluster.KeyFile = "etcd://127.0.0.1:1", key })
			if err == nil || !strings.Contains(err.Error(), "--discovery-backend") || !strings.Contains(err.Error(), "127.0.0.1:1") || dynamo.KindOf(err) != dynamo.KindUnavailable {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > 12*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// Other names of stores and event planes are refused by the flag's name.
func TestClusterFlags(t *testing.T) {
	for _, tc := range []struct {
		edit func(*ClusterConfig)
		say  string
	}{
		{func(c *ClusterConfig) { c.Discovery = "zookeeper" }, "--discovery-backend"},
		{func(c *ClusterConfig) { c.Discovery = "etcd://" }, "--discovery-backend"},
		{func(c *ClusterConfig) { c.EventPlane = "kafka" }, "--event-plane"},
		{func(c *ClusterConfig) { c.EventPlane, c.NATSServer = eventNATS, "http://x" }, "--nats-server"},
		{func(c *ClusterConfig) { c.Namespace = "a/b" }, "--namespace"},
		{func(c *ClusterConfig) { c.Connections = 0 }, "--rpc-connections"},
		{func(c *ClusterConfig) { c.Connections = maxConnections + 1 }, "--rpc-connections"},
		{func(c *ClusterConfig) { c.MigrationLimit = -1 }, "--migration-limit"},
		{func(c *ClusterConfig) { c.WorkerWait = -1 }, "--worker-wait"},
		{func(c *ClusterConfig) { c.Discovery = "file:" + filepath.Join(os.DevNull, "x") }, "--"},
	} {
		key := keyFile(t, "5a")
		err := runWith(t, RoleWorker, func(c *Config) { c.Cluster.KeyFile = key; tc.edit(&c.Cluster) })
		if err == nil || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: got %v", tc.say, err)
		}
	}
}
