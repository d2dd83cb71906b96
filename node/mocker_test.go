package node

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/mocker"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event"
)

// greedy asks a frontend for tokens of an answer and returns its text and the
// number of cached prompt tokens.
func (b *bubble) greedy(host, prompt string, tokens int) (text string, cached int) {
	b.t.Helper()
	status, body := b.do("POST", host, "/v1/completions", fmt.Sprintf(`{"model":"m","prompt":%q,"max_tokens":%d,"ignore_eos":true,"temperature":0}`, prompt, tokens))
	var c struct {
		Choices []struct {
			Text string `json:"text"`
		} `json:"choices"`
		Usage struct {
			Details struct {
				Cached int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		} `json:"usage"`
	}
	if err := json.Unmarshal([]byte(body), &c); err != nil || status != http.StatusOK || len(c.Choices) != 1 {
		b.t.Fatalf("got %d %s, %v", status, body, err)
	}
	return c.Choices[0].Text, c.Usage.Details.Cached
}

func mocked(edit func(*MockerConfig)) func(*Config) {
	return func(c *Config) {
		c.Engine, c.Mocker.BlockSize, c.Mocker.Blocks, c.Mocker.PerfModel = EngineMocker, 4, 500, "h200-8b"
		if edit != nil {
			edit(&c.Mocker)
		}
	}
}

// A mocker takes the time that its machine takes, finds prefixes again, and starts
// when it has started up.
func TestMocker(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		began := time.Now()
		b.start("w1", mocked(func(m *MockerConfig) { m.Startup = 10 * time.Second }))
		if took := time.Since(began); took < 10*time.Second {
			t.Errorf("ready after %v, want 10 s and more", took)
		}
		b.start("front", nil)
		b.awaitModels("front", "m")
		prompt := strings.Repeat("some words ", 9)
		began = time.Now()
		first, cached := b.greedy("front", prompt, 101)
		if took := time.Since(began); cached != 0 || took < 490*time.Millisecond || took > 600*time.Millisecond {
			t.Errorf("100 gaps of 4.87 ms took %v, with %d tokens cached", took, cached)
		}
		if again, cached := b.greedy("front", prompt, 101); again != first || cached != len(prompt)/4*4-4 && cached != len(prompt)/4*4 {
			t.Errorf("again: got %q with %d of %d tokens cached, want %q", again, cached, len(prompt), first)
		}
	})
}

// When a mocker crashes, its requests go on at another one as if nothing were.
func TestMockerCrash(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		p := b.start("w1", mocked(func(m *MockerConfig) { m.Faults.CrashAfter = 40 }))
		b.start("w2", mocked(func(m *MockerConfig) { m.Faults.Slow = 2 }))
		b.start("front", nil)
		b.awaitModels("front", "m")
		want, _ := b.greedy("front", "abc", 30)
		for i := range 6 {
			if got, _ := b.greedy("front", "abc", 30); got != want {
				t.Errorf("answer %d: got %q, want %q", i, got, want)
			}
		}
		<-p.done
		if p.err == nil || !strings.Contains(p.err.Error(), "--fault crash") {
			t.Errorf("Run: got %v, want the crash", p.err)
		}
		p.killed.Store(true) // its error is known
		synctest.Wait()
	})
}

// Many workers of a process are as many to the cluster, and one to its operator.
func TestCrowd(t *testing.T) {
	const count = 6
	c := newCluster(t, func(n *Config) { n.Cluster.Routing.Mode = "round-robin" })
	addr, folder := "", tinyModel(t, nil)
	w := c.start(RoleWorker, func(n *Config) {
		mocked(func(m *MockerConfig) { m.Speedup = 0 })(n)
		n.Worker.Count, n.Worker.ID, n.ModelPath = count, 100, folder
		l, err := Listen("127.0.0.1", 0)
		if err != nil {
			t.Fatal(err)
		}
		n.Listener, addr = l, "http://"+l.Addr().String()
	})
	if w.Workers != count {
		t.Errorf("ready says %d workers, want %d", w.Workers, count)
	}
	for i := range dynamo.WorkerID(count) {
		if got := c.instance(100 + i); got.Card.Engine != EngineMocker || got.Card.KVBlocks != 500 {
			t.Errorf("worker %v: got card %+v", got.ID, got.Card)
		}
	}
	front := c.start(RoleFrontend, nil)
	eventually(t, "the model is served", func() bool { return strings.Contains(fetch(t, front.url+"/v1/models"), `"m"`) })
	eventually(t, "all workers are known", func() bool { return strings.Count(fetch(t, front.url+"/health"), "instance_id") == count })
	for i := range 3 * count {
		ask(t, front.url, fmt.Sprint("prompt ", i))
	}
	metrics := fetch(t, addr+"/metrics")
	for _, want := range []string{fmt.Sprintf("dynamo_worker_ready %d", count), fmt.Sprintf("dynamo_engine_kv_blocks %d", 500*count), fmt.Sprintf(`dynamo_worker_requests_total{outcome="ok"} %d`, 3*count)} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics do not say %q", want)
		}
	}
	if got := fetch(t, addr+"/health"); !strings.Contains(got, `"ready":6`) {
		t.Errorf("health says %s", got)
	}
	front.end(t)
	w.end(t)
	for u := range c.store.Watch(t.Context(), discovery.Path{Namespace: "dynamo"}) {
		if len(u.Instances) != 0 {
			t.Errorf("%d workers are left in the store", len(u.Instances))
		}
		break
	}
}

// A mocker's KV events say what the caches of its ranks hold, also to who comes late.
func TestMockerEvents(t *testing.T) {
	c := newCluster(t, nil)
	var e *mocker.Engine
	w := c.start(RoleWorker, func(n *Config) {
		mocked(func(m *MockerConfig) {
			m.Speedup, m.Ranks, m.BlockSize, m.Blocks, m.Built = 0, 2, model.BlockSize, 30, func(built *mocker.Engine) { e = built }
		})(n)
		n.ModelPath = tinyModel(t, nil)
	})
	i := c.instance(w.Worker)
	if i.Card.Ranks != 2 || i.Card.KVBlocks != 60 || i.Card.StepTokens != 512 {
		t.Errorf("the card says %d ranks, %d blocks and %d tokens a step, want 2, 60 and 512", i.Card.Ranks, i.Card.KVBlocks, i.Card.StepTokens)
	}
	front := c.start(RoleFrontend, nil)
	eventually(t, "the model is served", func() bool { return strings.Contains(fetch(t, front.url+"/v1/models"), `"m"`) })
	for n := range 30 { // more than the caches hold
		ask(t, front.url, fmt.Sprint(n, strings.Repeat(" words", 10)))
	}
	peer, ranks := c.peer(i), map[int]bool{}
	f := &follower{blocks: map[dynamo.BlockHash]bool{}}
	fc := event.DefaultFollowConfig(event.Source{Topic: event.TopicKV, Worker: i.ID, Epoch: i.Epoch}, func(ctx context.Context, src event.Source, from event.Position) iter.Seq2[event.Delivery, error] {
		return event.SubscribeRPC(ctx, peer, src, from)
	})
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	want := e.Stats().Scheduler.KV.Idle
	_ = event.Follow(ctx, fc, func(d event.Delivery) error { // its error is that ctx has ended
		var b event.KVBatch
		if len(d.Payload) > 0 && b.Parse(d.Payload) == nil {
			ranks[b.Rank] = true
		}
		err := f.apply(d)
		if len(f.blocks) == want && len(ranks) == 2 {
			stop()
		}
		return err
	})
	if len(f.blocks) != want || len(ranks) != 2 || want < 40 {
		t.Errorf("events tell of %d blocks of %d ranks, the caches hold %d", len(f.blocks), len(ranks), want)
	}
}

// What is wrong with the model of time is told once, before any worker starts.
func TestPerfModelFaults(t *testing.T) {
	for _, tc := range []struct{ name, want string }{
		{"h300-8b", "h200-8b"},
		{filepath.Join("testdata", "no-such-file"), "there is no file"},
		{t.TempDir(), "there is no file"},
	} {
		m := DefaultMockerConfig()
		m.PerfModel = tc.name
		if err := m.load(); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "--perf-model") {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}
