package vllm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/vllm"
	"github.com/dynamo-go/dynamo/obs"
)

func config(url string) vllm.Config {
	c := vllm.DefaultConfig()
	c.URL, c.VocabSize, c.EOS = url, fakeVocab, []dynamo.TokenID{fakeEOS}
	c.ReadyTimeout = 5 * time.Second
	return c
}

// open returns an engine that is ready.
func open(t testing.TB, c vllm.Config) *vllm.Engine {
	t.Helper()
	e, err := vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

func small(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(3 + (i*7+n*13)%(fakeVocab-3))
	}
	return ids
}

func TestEngine(t *testing.T) {
	for _, noScale := range []bool{false, true} {
		t.Run(fmt.Sprintf("completions=%t", noScale), func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				f := newFake()
				f.noScale = noScale
				e := open(t, config(f.start(t).URL))
				if got := e.Info().TokensInOut; got == noScale {
					t.Fatalf("TokensInOut is %t", got)
				}
				return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: small, Text: textOf, Idle: idle(e)}
			})
		})
	}
}

func TestDiscovery(t *testing.T) {
	f := newFake()
	f.apiKey = "secret"
	c := config(f.start(t).URL)
	c.APIKey, c.Name, c.ContextLength = "secret", "here", 100
	e := open(t, c)
	host := strings.TrimPrefix(c.URL, "http://")
	host, _, _ = net.SplitHostPort(host)
	want := vllm.Info{
		Version: fakeVersion, Model: "tiny", Root: "/models/tiny", Models: []string{"tiny", "lora"}, Adapters: []string{"lora"},
		ContextLength: fakeLength, BlockSize: fakeBlock, KVBlocks: 72, PrefixCaching: true, HashAlgorithm: "sha256",
		Dtype: "auto", TokensInOut: true, Ranks: 1, EventsAsked: true, Lease: 30 * time.Second,
		Sources: []vllm.Source{{Endpoint: "tcp://" + host + ":5557", ReplayEndpoint: "tcp://" + host + ":5558", Topic: "kv-events"}},
	}
	if got := e.Info(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	card := e.Card()
	if card.Model != "here" || card.Engine != "vllm" || card.ContextLength != 100 || card.BlockSize != fakeBlock || card.ResumeSeeded || !card.Resume || card.NumericClass != "vllm-0.32.0-auto" || len(card.Revision) != 64 {
		t.Errorf("got the card %+v", card)
	}
}

// What a server in development mode says of its configuration.
func TestServerConfig(t *testing.T) {
	for _, c := range []struct {
		page, dtype string
		steps       int
	}{
		{`{"vllm_config":{"model_config":{"dtype":"torch.float32"},"scheduler_config":{"max_num_batched_tokens":2048}}}`, "float32", 2048},
		{`{"vllm_config":{"model_config":{"dtype":"torch.float32"}}}`, "float32", 0},
		{`{"vllm_config":{"model_config":{"dtype":"torch.float16"},"scheduler_config":{"max_num_batched_tokens":-3}}}`, "float16", 0},
		{`{"vllm_config":{"scheduler_config":{"max_num_batched_tokens":1e300}}}`, "auto", 0},
		{`nonsense`, "auto", 0},
	} {
		f := newFake()
		f.config = c.page
		if i := open(t, config(f.start(t).URL)).Info(); i.Dtype != c.dtype || i.StepTokens != c.steps {
			t.Errorf("of %s: computes in %s, %d tokens a step; want %s, %d", c.page, i.Dtype, i.StepTokens, c.dtype, c.steps)
		}
	}
}

func TestRecordedMetrics(t *testing.T) {
	page, err := os.ReadFile("testdata/vllm-metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	f := newFake()
	f.metrics = string(page)
	if i := open(t, config(f.start(t).URL)).Info(); i.BlockSize != 32 || i.KVBlocks != 72 || !i.PrefixCaching || i.HashAlgorithm != "sha256" {
		t.Errorf("got %+v", i)
	}
}

func TestUnfit(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*fake, *vllm.Config)
		want  []string
	}{
		{"too old", func(f *fake, _ *vllm.Config) { f.version = "0.9.2" }, []string{"0.9.2", "0.10.2"}},
		{"no vLLM", func(f *fake, _ *vllm.Config) { f.version = "" }, []string{"no vLLM", "--engine openai"}},
		{"block size", func(_ *fake, c *vllm.Config) { c.BlockSize = 64 }, []string{"16", "64", "--block-size"}},
		{"no block size", func(f *fake, _ *vllm.Config) { f.metrics = "vllm:x 1\n" }, []string{"--kv-cache-block-size"}},
		{"key", func(f *fake, _ *vllm.Config) { f.apiKey = "secret" }, []string{"wants an API key", "--engine-api-key"}},
		{"another key", func(f *fake, c *vllm.Config) { f.apiKey, c.APIKey = "secret", "sesame" }, []string{"another API key", "--engine-api-key"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			cfg := config(f.start(t).URL)
			c.spoil(f, &cfg)
			e, err := vllm.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			err = e.Ready(t.Context())
			if err == nil || dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Fatalf("got %v, want an error of kind invalid", err)
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for version, notes := range map[string]int{"0.32.0": 0, "0.32.0+cpu": 0, "0.29.1rc2": 0, "0.28.0": 1, "0.10.2": 5, "0.40.1.dev3+g12": 1, "dev": 1} {
		f := newFake()
		f.version = version
		if got := open(t, config(f.start(t).URL)).Info().Notes; len(got) != notes {
			t.Errorf("%s: got the notes %q, want %d", version, got, notes)
		}
	}
}

func TestNotReady(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := config("http://" + l.Addr().String())
	l.Close()
	c.ReadyTimeout = 300 * time.Millisecond
	e, err := vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Ready(t.Context()); dynamo.KindOf(err) != dynamo.KindUnavailable || !strings.Contains(err.Error(), "300ms") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v", err)
	}
	if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(3), MaxTokens: 1}); dynamo.KindOf(err) != dynamo.KindUnavailable {
		t.Errorf("got %v", err)
	}
}

// What a server is asked for, field by field.
func TestRequest(t *testing.T) {
	f := newFake()
	e := open(t, config(f.start(t).URL))
	r := &dynamo.Request{
		ID: "req-1", Model: "tiny", Adapter: "lora", Tokens: []dynamo.TokenID{5, 6}, Resume: []dynamo.TokenID{7},
		StopTokens: []dynamo.TokenID{9}, MaxTokens: 6, MinTokens: 4, Priority: 3, Namespace: "tenant \"a\"", Choice: 0,
		Sampling: dynamo.Sampling{
			Temperature: 0.5, TopK: 4, MinP: 0.25, PresencePenalty: 1, FrequencyPenalty: -1, Seed: 1<<63 + 5, Seeded: true,
			LogitBias: []dynamo.LogitBias{{ID: 8, Bias: 1.5}}, Logprobs: true, TopLogprobs: 3,
		},
	}
	ctx := obs.WithTrace(t.Context(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if _, err := enginetest.Collect(ctx, e, r); err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(`{"model":"lora","token_ids":[5,6,7],"stream":true,"stream_options":{"include_usage":true},
		"cache_salt":"tenant \"a\"","priority":-3,"sampling_params":{"detokenize":false,"max_tokens":5,"min_tokens":2,"ignore_eos":false,
		"stop_token_ids":[9,2],"temperature":0.5,"top_p":1,"top_k":4,"min_p":0.25,"presence_penalty":1,"frequency_penalty":-1,
		"repetition_penalty":1,"seed":5,"logit_bias":{"8":1.5},"logprobs":4}}`), &want); err != nil {
		t.Fatal(err)
	}
	f.last.Lock()
	defer f.last.Unlock()
	if !reflect.DeepEqual(f.last.body, want) {
		t.Errorf("got  %v\nwant %v", f.last.body, want)
	}
	if got := f.last.header.Get("X-Request-Id"); got != "req-1-1" {
		t.Errorf("got the request id %q", got)
	}
	if f.last.header.Get("Traceparent") == "" {
		t.Error("the trace context is missing")
	}
}

func TestPriorityRefused(t *testing.T) {
	f := newFake()
	f.priority = true
	e := open(t, config(f.start(t).URL))
	for range 2 {
		if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(3), MaxTokens: 2, Priority: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.requests.Load(); got != 3 {
		t.Errorf("the server was asked %d times, want 3: once too often, then without", got)
	}
}

// The usage tells what was cached, of the shared cache and of a tenant's.
func TestCached(t *testing.T) {
	e := open(t, config(newFake().start(t).URL))
	for i, c := range []struct {
		namespace string
		want      int
	}{{"", 0}, {"", 2 * fakeBlock}, {"a", 0}, {"a", 2 * fakeBlock}} {
		r := &dynamo.Request{Tokens: small(2*fakeBlock + 3), MaxTokens: 3, Namespace: c.namespace}
		var last dynamo.Chunk
		for chunk, err := range e.Generate(t.Context(), r) {
			if err != nil {
				t.Fatal(err)
			}
			last = chunk
		}
		if last.Usage.Cached != c.want {
			t.Errorf("request %d: %d cached, want %d", i, last.Usage.Cached, c.want)
		}
	}
}

// A server that does not tell of its cache is believed to have had nothing.
func TestNoDetails(t *testing.T) {
	f := newFake()
	f.noDetails = true
	a, err := enginetest.Collect(t.Context(), open(t, config(f.start(t).URL)), &dynamo.Request{Tokens: small(40), MaxTokens: 3})
	if err != nil || a.Usage != (dynamo.Usage{Prompt: 40, Completion: 3}) {
		t.Errorf("got %+v, %v", a.Usage, err)
	}
}

const piece = "data: {\"choices\":[{\"index\":0,\"token_ids\":[%s],\"finish_reason\":%s,\"logprobs\":null}],\"usage\":null}\n\n"

func TestFaults(t *testing.T) {
	stream := func(format string, args ...any) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, sent int) bool {
			if sent == 0 {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = fmt.Fprintf(w, format, args...)
			}
			return sent == 0
		}
	}
	status := func(code int, message string) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, sent int) bool {
			if sent == 0 {
				w.Header().Set("Retry-After", "7")
				fault(w, code, message, "body.x")
			}
			return sent == 0
		}
	}
	die := func(at int) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, sent int) bool {
			if sent == at {
				panic(http.ErrAbortHandler)
			}
			return false
		}
	}
	for _, c := range []struct {
		name     string
		mischief func(http.ResponseWriter, *http.Request, int) bool
		kind     dynamo.Kind
		code     string
	}{
		{"400", status(400, "no good"), dynamo.KindInvalid, ""},
		{"400 length", status(400, "This model's maximum context length is 5 tokens"), dynamo.KindInvalid, "context_length_exceeded"},
		{"404", status(404, "no model"), dynamo.KindNotFound, ""},
		{"403", status(403, "Scale-out endpoints are disabled"), dynamo.KindUnavailable, ""},
		{"429", status(429, "full"), dynamo.KindExhausted, engine.CodeRefused},
		{"503", status(503, "full"), dynamo.KindUnavailable, engine.CodeRefused},
		{"502", status(502, "proxy"), dynamo.KindUnavailable, engine.CodeLost},
		{"500", status(500, "a bug"), dynamo.KindInternal, ""},
		{"500 out of memory", status(500, "CUDA out of memory. Tried to allocate 2.00 GiB."), dynamo.KindInternal, ""},
		{"500 dead", status(500, "EngineCore encountered an issue. See stack trace (above) for the root cause."), dynamo.KindUnavailable, engine.CodeLost},
		{"dies before", die(0), dynamo.KindUnavailable, engine.CodeLost},
		{"dies within", die(3), dynamo.KindUnavailable, engine.CodeLost},
		{"in-stream", stream("data: {\"error\": {\"message\": \"EngineDeadError\", \"code\": 500}}\n\ndata: [DONE]\n\n"), dynamo.KindUnavailable, engine.CodeLost},
		{"in-stream 400", stream("data: {\"error\": {\"message\": \"no\", \"code\": 400}}\n\ndata: [DONE]\n\n"), dynamo.KindInvalid, ""},
		{"in-stream nothing", stream("data: {\"error\": 5}\n\n"), dynamo.KindInternal, ""},
		{"no stream", func(w http.ResponseWriter, _ *http.Request, sent int) bool {
			if sent == 0 {
				_, _ = w.Write([]byte("<html>hello</html>"))
			}
			return sent == 0
		}, dynamo.KindCorrupt, ""},
		{"garbage", stream("rubbish\n\n"), dynamo.KindCorrupt, ""},
		{"garbage event", stream("data: {]}\n\n"), dynamo.KindCorrupt, ""},
		{"cut event", stream("data: {\"choices\":[{\"token_ids\":[5]\n\n"), dynamo.KindCorrupt, ""},
		{"other object", stream("data: {}\n\n"), dynamo.KindCorrupt, ""},
		{"long line", stream("data: %s\n\n", strings.Repeat("x", 2<<20)), dynamo.KindCorrupt, ""},
		{"empty", stream(""), dynamo.KindUnavailable, engine.CodeLost},
		{"done at once", stream("data: [DONE]\n\n"), dynamo.KindUnavailable, engine.CodeLost},
		{"too many ids", stream(piece, "5,6,7,8,9,10,11,12,13,14,15", "null"), dynamo.KindCorrupt, ""},
		{"id of no vocabulary", stream(piece, "999", "null"), dynamo.KindCorrupt, ""},
		{"negative id", stream(piece, "-4", "null"), dynamo.KindCorrupt, ""},
		{"huge id", stream(piece, "99999999999999999999999", "null"), dynamo.KindCorrupt, ""},
		{"abort", stream(piece, "5", `"abort"`), dynamo.KindUnavailable, engine.CodeLost},
		{"unknown end", stream(piece, "5", `"tired"`), dynamo.KindCorrupt, ""},
		{"after the end", stream(piece+piece, "5", `"stop"`, "6", "null"), dynamo.KindCorrupt, ""},
		{"prompt of another", stream(piece+"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":80,\"completion_tokens\":1}}\n\n", "5", `"stop"`), dynamo.KindCorrupt, ""},
		{"logprobs nobody asked for", stream("data: {\"choices\":[{\"token_ids\":[5],\"logprobs\":{\"content\":[{\"token_id\":5,\"logprob\":-1}]}}]}\n\n"), dynamo.KindCorrupt, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			f.mischief = c.mischief
			metrics := vllm.NewMetrics(obs.NewRegistry())
			cfg := config(f.start(t).URL)
			cfg.Metrics = metrics
			e := open(t, cfg)
			_, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 10, IgnoreEOS: true})
			var de *dynamo.Error
			if !errors.As(err, &de) || de.Kind != c.kind || de.Code != c.code {
				t.Fatalf("got %v (%+v), want kind %v and code %q", err, de, c.kind, c.code)
			}
			if (c.name == "429" || c.name == "503") && de.RetryAfter != 7*time.Second {
				t.Errorf("retry after %v, want 7s", de.RetryAfter)
			}
			if err := idle(e)(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Versions differ in what they send of an end; all are understood.
func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name, stream string
		want         string
	}{
		{"reason in the last event", fmt.Sprintf(piece, "5", "null") + fmt.Sprintf(piece, "9", `"stop"`) + "data: [DONE]\n\n", "[5 9] stop"},
		{"stop id left out", fmt.Sprintf(piece, "5", "null") + "data: {\"choices\":[{\"token_ids\":[],\"finish_reason\":\"stop\",\"stop_reason\":9}]}\n\ndata: [DONE]\n\n", "[5 9] stop"},
		{"only the end, after a stop id", fmt.Sprintf(piece, "5,9", "null") + "data: [DONE]\n\n", "[5 9] stop"},
		{"only the end, after all", fmt.Sprintf(piece, "5,6,7", "null") + "data: [DONE]\n\n", "[5 6 7] length"},
		{"cut after the reason", fmt.Sprintf(piece, "5", `"length"`), "[5] length"},
		{"comments and other fields", ": hello\nevent: message\nid: 4\nretry: 5\n" + fmt.Sprintf(piece, "5", `"length"`) + "data:[DONE]\r\n\r\n", "[5] length"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			f.mischief = func(w http.ResponseWriter, r *http.Request, sent int) bool {
				if sent < 0 {
					return false
				}
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = w.Write([]byte(c.stream))
				return true
			}
			e := open(t, config(f.start(t).URL))
			a, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 3, StopTokens: []dynamo.TokenID{9}})
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(a.Tokens, " ", a.Finish); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestStall(t *testing.T) {
	f := newFake()
	f.mischief = func(_ http.ResponseWriter, r *http.Request, sent int) bool {
		if sent == 2 {
			<-r.Context().Done()
		}
		return sent == 2
	}
	c := config(f.start(t).URL)
	c.StallTimeout = 200 * time.Millisecond
	_, err := enginetest.Collect(t.Context(), open(t, c), &dynamo.Request{Tokens: small(8), MaxTokens: 5})
	if code, lost := engine.Lost(err); !lost || code != engine.CodeStalled {
		t.Errorf("got %v, want a stall", err)
	}
}

// Whatever ends a request here ends it at the server.
func TestGone(t *testing.T) {
	f := newFake()
	f.pause = 5 * time.Millisecond
	e := open(t, config(f.start(t).URL))
	for range e.Generate(t.Context(), &dynamo.Request{Tokens: small(8), MaxTokens: 150, IgnoreEOS: true}) {
		if got := e.Load(); got.Running != 1 || got.KVUsed != 1 {
			t.Errorf("the load is %+v in an answer", got)
		}
		break
	}
	waitFor(t, "the request to be gone", func() bool { return f.running.Load() == 0 })
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 500 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

func running(t *testing.T, e *vllm.Engine) (stop func() error) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	return func() error { cancel(); return <-ended }
}

func TestLoad(t *testing.T) {
	f := newFake()
	c := config(f.start(t).URL)
	c.PollEvery = 10 * time.Millisecond
	e := open(t, c)
	if got := e.Load(); got != (engine.Load{KVBlocks: 72}) {
		t.Errorf("before a reading: %+v", got)
	}
	stop := running(t, e)
	want := engine.Load{Running: 3, Waiting: 2, KVBlocks: 72, KVUsed: 18, Steps: 7}
	waitFor(t, "the metrics", func() bool { return e.Load() == want })
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Metrics that do not come hold nothing up.
func TestSlowMetrics(t *testing.T) {
	f := newFake()
	stuck := make(chan struct{})
	asked := make(chan struct{}, 100)
	var slow atomic.Bool
	f.mischief = func(_ http.ResponseWriter, r *http.Request, sent int) bool {
		if sent < 0 && slow.Load() {
			asked <- struct{}{}
			select {
			case <-stuck:
			case <-r.Context().Done():
			}
		}
		return sent < 0 && slow.Load()
	}
	s := f.start(t)
	c := config(s.URL)
	c.PollEvery = time.Millisecond
	e := open(t, c)
	slow.Store(true)
	stop := running(t, e)
	<-asked
	began := time.Now()
	for range 20 {
		if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err != nil {
			t.Fatal(err)
		}
		_ = e.Load()
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("20 requests took %v", took)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	close(stuck)
}

// A server whose place another one has taken is not served.
func TestAnotherServer(t *testing.T) {
	other := newFake()
	other.version = "0.31.0"
	var now atomic.Pointer[http.Handler]
	set := func(h http.Handler) { now.Store(&h) }
	set(newFake())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*now.Load()).ServeHTTP(w, r) }))
	defer s.Close()
	c := config(s.URL)
	c.PollEvery = 5 * time.Millisecond
	e := open(t, c)
	ended := make(chan error, 1)
	go func() { ended <- e.Run(t.Context()) }()
	down := make(chan struct{}, 100)
	set(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(503)
		select {
		case down <- struct{}{}:
		default:
		}
	}))
	<-down
	<-down // so the first reading has failed
	set(other)
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "0.31.0") || !strings.Contains(err.Error(), "0.32.0") {
			t.Errorf("got %v, want both versions named", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the other server was not noticed")
	}
}

func TestNoGoroutineLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("engine", func(t *testing.T) {
		e := open(t, config(newFake().start(t).URL))
		stop := running(t, e)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

func TestConfig(t *testing.T) {
	err := vllm.Config{ContextLength: -1, BlockSize: -1, Restarts: -1}.Validate()
	for _, want := range []string{"--engine-url", "vocabulary", "--context-length", "--kv-cache-block-size", "ready timeout", "stall timeout", "metrics", "stop timeout", "restarted"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	c := vllm.DefaultConfig()
	c.VocabSize, c.URL = 5, "localhost:8000"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "localhost:8000") {
		t.Errorf("got %v", err)
	}
}

// Requests one after another share a connection.
func TestConnectionReused(t *testing.T) {
	s := httptest.NewUnstartedServer(newFake())
	var made atomic.Int64
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			made.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	e := open(t, config(s.URL))
	for range 20 {
		if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(8), MaxTokens: 5}); err != nil {
			t.Fatal(err)
		}
	}
	if got := made.Load(); got > 2 {
		t.Errorf("%d connections for 20 requests, one after another", got)
	}
}

// The alternatives of ids that are not among them are the same by both routes, and
// the best there are.
func TestAlternatives(t *testing.T) {
	var answers [2]enginetest.Answer
	for i := range answers {
		f := newFake()
		f.noScale = i == 1
		e := open(t, config(f.start(t).URL))
		r := &dynamo.Request{Tokens: small(8), MaxTokens: 40, IgnoreEOS: true}
		r.Sampling = dynamo.Sampling{Temperature: 3, Seed: 4, Seeded: true, Logprobs: true, TopLogprobs: 4}
		var err error
		if answers[i], err = enginetest.Collect(t.Context(), e, r); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(answers[0].Logprobs, answers[1].Logprobs) {
		t.Errorf("got  %v\nand  %v", answers[0].Logprobs, answers[1].Logprobs)
	}
	unlikely := 0
	for _, p := range answers[0].Logprobs {
		if len(p.Top) != 4 {
			t.Fatalf("%d alternatives, want 4", len(p.Top))
		}
		if p.Logprob < p.Top[3].Logprob {
			unlikely++
		}
	}
	if unlikely == 0 {
		t.Error("every id drawn was among the best")
	}
}
