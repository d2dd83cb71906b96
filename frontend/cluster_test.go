package frontend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// TestHealthInstances holds the exact answer of a frontend with workers.
func TestHealthInstances(t *testing.T) {
	list := []Instance{
		{Namespace: "dynamo", Component: "backend", Endpoint: "generate", ID: 1<<63 + 1, Address: "tcp://192.0.2.2:38987 unix:///run/w tcp://[::1]:1", Model: "org/m", State: StateReady, Load: engine.Load{Running: 1, Waiting: 2, MaxRunning: 3, KVBlocks: 4, KVUsed: 5, Steps: 6}},
		{Namespace: "dynamo", Component: "backend", Endpoint: "generate", ID: 2, Address: "in-process", Model: "org/m", State: "refused: \"\xff\""},
		{Namespace: "a", Component: "b", Endpoint: "c", ID: 3, Model: "other", State: StateReady},
	}
	keys := NewKeys()
	if err := keys.Add("alice", "secret"); err != nil {
		t.Fatal(err)
	}
	c := serve(t, &fake{answer: says("x")}, func(c *Config, _ *Model) {
		c.Instances, c.APIKeys, c.ClusterKey = func() []Instance { return list }, keys, make([]byte, 16)
	})
	const models = `"models":[{"id":"org/m","object":"model","created":7,"owned_by":"dynamo","max_model_len":1024}]}`
	if _, got := c.do("GET", "/health", ""); got != `{"status":"healthy","message":"ready",`+models {
		t.Errorf("health without a key: %s", got)
	}
	c.header.Set("Authorization", "Bearer secret")
	idle := `"load":{"running":0,"waiting":0,"max_running":0,"kv_blocks":0,"kv_blocks_used":0,"steps":0}}`
	want := `{"status":"healthy","message":"ready","endpoints":["dyn://a.b.c","dyn://dynamo.backend.generate"],"instances":[` +
		`{"component":"b","endpoint":"c","namespace":"a","instance_id":3,"transport":{},"worker":"0000000000000003","model":"other","state":"ready",` + idle +
		`,{"component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":2,"transport":{"local":"in-process"},"worker":"0000000000000002","model":"org/m","state":"refused: \"` + "\ufffd" + `\"",` + idle +
		`,{"component":"backend","endpoint":"generate","namespace":"dynamo","instance_id":9223372036854775809,"transport":{"tcp":"192.0.2.2:38987","unix":"/run/w"},"worker":"8000000000000001","model":"org/m","state":"ready",` +
		`"load":{"running":1,"waiting":2,"max_running":3,"kv_blocks":4,"kv_blocks_used":5,"steps":6}}],` + models
	if resp, got := c.do("GET", "/health", ""); got != want || resp.StatusCode != 200 {
		t.Errorf("health: %d\n%s, want\n%s", resp.StatusCode, got, want)
	}
	check := func(want ...string) {
		t.Helper()
		_, m := c.do("GET", "/metrics", "")
		for _, line := range want {
			if !strings.Contains(m, line+"\n") {
				t.Errorf("the metrics lack %s", line)
			}
		}
		if strings.Contains(m, "other") {
			t.Error("a model that is not served has a label")
		}
	}
	check(`dynamo_frontend_model_workers{model="org/m"} 1`, `dynamo_frontend_model_ready{model="org/m"} 1`)
	list = nil
	c.server.RemoveModel("org/m")
	c.server.RemoveModel("never there")
	if resp, got := c.do("GET", "/health", ""); resp.StatusCode != 503 || got != `{"status":"unhealthy","message":"no_models","endpoints":[],"instances":[],"models":[]}` {
		t.Errorf("health without workers: %d %s", resp.StatusCode, got)
	}
	check(`dynamo_frontend_model_ready{model="org/m"} 0`)
	if _, m := c.do("GET", "/metrics", ""); strings.Contains(m, "model_context_length{") || strings.Contains(m, "never there") {
		t.Error("the metrics describe a model that is not served")
	}
}

// TestNoWorker wants clients to hear that they should come back, whether no
// worker has ever come or all have gone while the request ran.
func TestNoWorker(t *testing.T) {
	fault := func(code string, kind dynamo.Kind, retry time.Duration) error {
		return &dynamo.Error{Kind: kind, Code: code, RetryAfter: retry, Message: "the worker is gone"}
	}
	tests := []struct {
		err         error
		status      int
		code, retry string
	}{
		{fault(engine.CodeLost, dynamo.KindUnavailable, 0), 503, engine.CodeLost, "1"},
		{fault(engine.CodeNoWorker, dynamo.KindUnavailable, 2500*time.Millisecond), 503, engine.CodeNoWorker, "3"},
		{fmt.Errorf("route: %w", fault(engine.CodeStalled, dynamo.KindUnavailable, 0)), 503, engine.CodeStalled, "1"},
		{fault(engine.CodeRefused, dynamo.KindExhausted, time.Second), 429, engine.CodeRefused, "1"},
		{fault("odd", dynamo.KindInvalid, 0), 400, "odd", ""},
		{nil, 503, engine.CodeNoWorker, "1"}, // no model at all
	}
	for _, fields := range []string{"", `"stream":true`} {
		for _, tt := range tests {
			c := serve(t, &fake{answer: says("x"), before: func(context.Context, *dynamo.Request, int) error { return tt.err }}, nil)
			if tt.err == nil {
				c.server.RemoveModel("org/m")
			}
			resp, body := c.do("POST", "/v1/chat/completions", chatBody(fields))
			if a := parse(t, body); resp.StatusCode != tt.status || a.Error.Code != tt.code || resp.Header.Get("Retry-After") != tt.retry {
				t.Errorf("%v: %d, Retry-After %q: %s", tt.err, resp.StatusCode, resp.Header.Get("Retry-After"), body)
			}
			if _, body := c.do("GET", "/v1/models", ""); tt.err == nil && body != `{"object":"list","data":[]}` {
				t.Errorf("models: %s", body)
			}
		}
	}
}

// TestModelsComeAndGo adds, replaces and removes a model under load: each request
// is answered by the model it began with, or refused.
func TestModelsComeAndGo(t *testing.T) {
	c := serve(t, &fake{answer: says("old")}, nil)
	m := testModel(t, &fake{answer: says("new")})
	var wg sync.WaitGroup
	var stop atomic.Bool
	seen := make([]map[string]int, 4)
	for i := range seen {
		seen[i] = map[string]int{}
		wg.Go(func() {
			for !stop.Load() {
				w := httptest.NewRecorder()
				c.server.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(chatBody(""))))
				switch a := parse(t, w.Body.String()); {
				case w.Code == http.StatusOK:
					seen[i][a.Choices[0].Message.Content]++
				default:
					seen[i][fmt.Sprint(w.Code, a.Error.Code)]++
				}
			}
		})
	}
	for range 15 {
		c.do("GET", "/metrics", "")
		if err := c.server.AddModel(m); err != nil {
			t.Error(err)
		}
		c.do("GET", "/health", "")
		c.server.RemoveModel("org/m")
	}
	stop.Store(true)
	wg.Wait()
	for _, s := range seen {
		for what := range s {
			if !slices.Contains([]string{"old", "new", "503no_worker"}, what) {
				t.Errorf("answers %v", s)
			}
		}
	}
	if err := c.server.AddModel(m); err != nil {
		t.Error(err)
	}
	if got := c.ask("/v1/chat/completions", chatBody("")).Choices[0].Message.Content; got != "new" {
		t.Errorf("answer %q", got)
	}
	if got := c.server.mu.models["org/m"].gate.Stats(); got.Running+got.Queued != 0 {
		t.Errorf("the gate counts %+v", got)
	}
}

// TestUsageOfSeveralAttempts wants a request that went on elsewhere to count
// every token once, and the cache as its first worker found it.
func TestUsageOfSeveralAttempts(t *testing.T) {
	attempts := func(r *dynamo.Request) []dynamo.Chunk {
		chunks := says("abcdef")(r)
		chunks[3].Cached = 17 // the second worker found its own cache
		chunks[2].Tokens = append(chunks[2].Tokens, 'X', 'Y')
		last := &chunks[len(chunks)-1]
		last.Usage = dynamo.Usage{Prompt: 99, Completion: 99}
		return chunks
	}
	c := serve(t, &fake{answer: attempts}, nil)
	for _, body := range []string{chatBody(""), chatBody(`"n":2`)} {
		a := c.ask("/v1/chat/completions", body)
		n := len(a.Choices)
		if u := a.Usage; a.Choices[0].Message.Content != "abcXYdef" || u.Completion != 9*n || u.Prompt != 21 || u.Details.Cached != 4 {
			t.Errorf("%q, usage %+v", a.Choices[0].Message.Content, *u)
		}
	}
	events := c.stream("/v1/chat/completions", chatBody(`"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`))
	counts := ""
	for _, e := range events {
		counts += fmt.Sprint(e.Usage.Completion, "/", e.Usage.Details.Cached, " ")
	}
	if counts != "1/4 1/4 2/4 5/4 6/4 7/4 8/4 9/4 9/4 " {
		t.Errorf("usage of the events: %s", counts)
	}
}

// passed is an engine that keeps the trace it is called with.
type passed struct {
	*fake
	trace atomic.Value
}

// Generate implements engine.Engine.
func (p *passed) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	p.trace.Store(obs.Trace(ctx))
	return p.fake.Generate(ctx, r)
}

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestTraceIsPassedOn(t *testing.T) {
	e := &passed{fake: &fake{answer: says("x")}}
	c := serve(t, e, nil)
	for sent, want := range map[string]string{traceparent: traceparent, "": "", "garbage": "", traceparent + "\x01": ""} {
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(chatBody("")))
		r.Header.Set("Traceparent", sent)
		c.server.Handler().ServeHTTP(w, r)
		if got := e.trace.Load(); got != want || w.Code != 200 {
			t.Errorf("sent %q: the engine has %q (status %d)", sent, got, w.Code)
		}
	}
}

// TestSpans wants a request to be one span below its client's, with its steps
// below it, and the engine to work below the last of them.
func TestSpans(t *testing.T) {
	spans := map[string]*otlp.Span{}
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil {
			t.Error(err)
		}
		for _, s := range request.ResourceSpans[0].ScopeSpans[0].Spans {
			spans[fmt.Sprintf("%s %x", s.Name, s.TraceId[:1])] = s
		}
	}))
	defer sink.Close()
	tracer, err := obs.NewTracer(obs.TracerConfig{Endpoint: sink.URL})
	if err != nil {
		t.Fatal(err)
	}
	e := &passed{fake: &fake{answer: says("x")}}
	c := serve(t, e, func(c *Config, _ *Model) { c.Tracer = tracer })
	send := func(first, path, body string) {
		c.header.Set("Traceparent", "00-"+first+traceparent[5:])
		c.do("POST", path, body)
	}
	send("0a", "/v1/chat/completions", chatBody(""))
	of := e.trace.Load().(string)
	send("0b", "/v1/completions", `{"model":"org/m","prompt":["a","b"],"stream":true}`)
	send("0c", "/v1/chat/completions", `{"model":"nope","messages":[{"role":"user","content":"x"}]}`)
	e.before = func(context.Context, *dynamo.Request, int) error { return errors.New("broken") }
	send("0d", "/v1/chat/completions", chatBody(""))
	c.header.Del("Traceparent")
	c.ask("/tokenize", `{"prompt":"x"}`) // not sampled
	if err := tracer.Shutdown(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"chat_completions 0a", "preprocess 0a", "generate 0a", "completions 0b", "preprocess 0b", "generate 0b", "chat_completions 0c", "chat_completions 0d", "preprocess 0d", "generate 0d",
	} {
		s := spans[want]
		if s == nil {
			t.Errorf("no span %s", want)
			continue
		}
		parent := traceparent[36:52]
		if root := spans["chat_completions 0a"]; want == "generate 0a" || want == "preprocess 0a" {
			parent = fmt.Sprintf("%x", root.SpanId)
		}
		if got := fmt.Sprintf("%x", s.ParentSpanId); strings.HasSuffix(want, "0a") && got != parent {
			t.Errorf("span %s is below %s, want %s", want, got, parent)
		}
		failed := strings.HasSuffix(want, "0c") || want == "chat_completions 0d" || want == "generate 0d"
		if (s.Status.GetCode() == otlp.Status_STATUS_CODE_ERROR) != failed {
			t.Errorf("span %s: status %v", want, s.Status)
		}
	}
	if len(spans) != 10 {
		t.Errorf("%d spans, want 10", len(spans))
	}
	if want := fmt.Sprintf("%x", spans["generate 0a"].SpanId); of[36:52] != want {
		t.Errorf("the engine works below %s, want %s", of, want)
	}
	attrs := map[string]string{}
	for _, a := range spans["chat_completions 0a"].Attributes {
		attrs[a.Key] = a.Value.GetStringValue() + fmt.Sprint(a.Value.GetIntValue())
	}
	if attrs[obs.KeyModel] != "org/m0" || attrs[obs.KeyStatus] != "200" || len(attrs[obs.KeyRequest]) != 33 {
		t.Errorf("attributes %v", attrs)
	}
}

// TestDebugLog wants the arrival and the end of a request in the log, by its id.
func TestDebugLog(t *testing.T) {
	var out bytes.Buffer
	c := serve(t, &fake{answer: says("x")}, func(c *Config, _ *Model) {
		c.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	log := func(body string) []string {
		out.Reset()
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body))
		r.Header.Set("X-Request-Id", "theirs")
		c.server.Handler().ServeHTTP(w, r)
		return strings.Split(strings.TrimSpace(out.String()), "\n")
	}
	for body, end := range map[string]string{
		chatBody(""):              "status=200",
		chatBody(`"stream":true`): "status=200",
		"{":                       "status=400",
	} {
		lines := log(body)
		if len(lines) != 2 {
			t.Fatalf("%s: log %q", body, lines)
		}
		_, rest, _ := strings.Cut(lines[0], "req=")
		id, _, _ := strings.Cut(rest, " ")
		if len(id) != 32 || !strings.Contains(lines[0], "client_req=theirs") || !strings.Contains(lines[1], "req="+id) || !strings.Contains(lines[1], end) || strings.Contains(lines[1], "err=") != (body == "{") {
			t.Errorf("%s: log %q", body, lines)
		}
	}
}
