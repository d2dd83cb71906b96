package frontend

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/openai"
)

// TestErrors wants each fault answered in OpenAI's shape with its status, code
// and param.
func TestErrors(t *testing.T) {
	broken := errors.New("secret detail")
	e := &fake{answer: func(r *dynamo.Request) []dynamo.Chunk { return says("xyz")(r) }}
	e.before = func(_ context.Context, r *dynamo.Request, i int) error {
		switch {
		case r.MaxTokens == 11:
			return broken
		case r.MaxTokens == 12:
			return &dynamo.Error{Kind: dynamo.KindExhausted, Message: "full", RetryAfter: 1500 * time.Millisecond}
		case r.MaxTokens == 13:
			return engine.DeadlineError(nil)
		}
		return nil
	}
	c := serve(t, e, func(c *Config, _ *Model) { c.BodyLimitBytes = 100_000 })
	if err := c.server.AddModel(func() *Model { m := testModel(t, e); m.Card.Model, m.Template = "plain", nil; return m }()); err != nil {
		t.Fatal(err)
	}
	chat := "/v1/chat/completions"
	tests := []struct {
		method, path, body         string
		status                     int
		code, param, kind, message string
	}{
		{"POST", chat, `{"model":"nope","messages":[{"role":"user","content":"x"}]}`, 404, "model_not_found", "model", "invalid_request_error", "org/m, plain"},
		{"POST", chat, `{`, 400, "invalid_json", "", "invalid_request_error", "JSON"},
		{"POST", chat, ``, 400, "invalid_json", "", "invalid_request_error", "JSON"},
		{"POST", chat, chatBody(`"temperature":-1`), 400, "", "temperature", "invalid_request_error", "between 0 and 2"},
		{"POST", chat, chatBody(`"temperature":NaN`), 400, "invalid_json", "temperature", "invalid_request_error", "temperature"},
		{"POST", chat, chatBody(`"stop":"\udc00"`), 400, "invalid_json", "stop", "invalid_request_error", "surrogate"},
		{"POST", chat, chatBody(`"response_format":{"type":"json_object"}`), 400, "unsupported_parameter", "response_format", "invalid_request_error", "not supported"},
		{"POST", chat, chatBody(`"logprobs":true,"top_logprobs":6`), 400, "", "top_logprobs", "invalid_request_error", "at most 5"},
		{"POST", chat, chatBody(`"stop_token_ids":[9999]`), 400, "", "stop_token_ids", "invalid_request_error", "9999"},
		{"POST", chat, `{"model":"plain","messages":[{"role":"user","content":"x"}]}`, 400, "no_chat_template", "messages", "invalid_request_error", "--chat-template"},
		{"POST", chat, `{"model":"org/m","messages":[{"role":"user","content":"` + strings.Repeat("a", 2000) + `"}]}`, 400, "context_length_exceeded", "messages", "invalid_request_error", "1024"},
		{"POST", chat, `{"model":"org/m","messages":[{"role":"user","content":"` + strings.Repeat("a", 90_000) + `"}]}`, 400, "context_length_exceeded", "messages", "invalid_request_error", "far more than this model's context of 1024"},
		{"POST", "/v1/completions", `{"model":"org/m","prompt":"` + strings.Repeat("a", 1024) + `"}`, 400, "context_length_exceeded", "prompt", "invalid_request_error", "1024 tokens, but"},
		{"POST", "/v1/completions", `{"model":"org/m","prompt":""}`, 400, "", "prompt", "invalid_request_error", "empty"},
		{"POST", "/v1/completions", `{"model":"org/m","prompt":[1,259],"echo":true}`, 400, "", "prompt", "invalid_request_error", "259"},
		{"POST", "/v1/completions", `{"model":"org/m","prompt":[1,259]}`, 400, "", "prompt", "invalid_request_error", "259"},
		{"POST", chat, `{"model":"org/m","messages":[{"role":"user","content":"` + strings.Repeat("a", 100_000) + `"}]}`, 413, "request_too_large", "", "invalid_request_error", "100000 bytes"},
		{"POST", chat, chatBody(`"max_tokens":11`), 500, "internal", "", "server_error", "its log says more"},
		{"POST", chat, chatBody(`"max_tokens":11,"stream":true`), 500, "internal", "", "server_error", "its log says more"},
		{"POST", chat, chatBody(`"max_tokens":12`), 429, "exhausted", "", "rate_limit_error", "full"},
		{"POST", chat, chatBody(`"max_tokens":13,"stream":true`), 504, "deadline", "", "timeout_error", "deadline"},
		{"POST", "/detokenize", `{"tokens":[1,259]}`, 404, "model_not_found", "model", "invalid_request_error", ""},
		{"POST", "/detokenize", `{"model":"org/m","tokens":[1,259]}`, 400, "", "tokens", "invalid_request_error", "tokens[1]"},
		{"GET", chat, ``, 405, "method_not_allowed", "", "invalid_request_error", "POST"},
		{"DELETE", "/v1/models", ``, 405, "method_not_allowed", "", "invalid_request_error", "GET"},
		{"GET", "/v1/models/org/other", ``, 404, "model_not_found", "model", "invalid_request_error", "org/m"},
		{"GET", "/v2/nothing", ``, 404, "unknown_url", "", "invalid_request_error", "/v2/nothing"},
		{"GET", "/debug/pprof/", ``, 404, "unknown_url", "", "invalid_request_error", ""},
	}
	for _, tt := range tests {
		resp, body := c.do(tt.method, tt.path, tt.body)
		a := parse(t, body)
		if a.Error == nil || resp.StatusCode != tt.status || a.Error.Code != tt.code || a.Error.Param != tt.param || a.Error.Type != tt.kind || !strings.Contains(a.Error.Message, tt.message) {
			t.Errorf("%s %s %.80s:\ngot  %d %s\nwant %d, code %q, param %q, type %q, …%s…", tt.method, tt.path, tt.body, resp.StatusCode, body, tt.status, tt.code, tt.param, tt.kind, tt.message)
		}
		if strings.Contains(body, broken.Error()) {
			t.Errorf("the answer tells what only the log may: %s", body)
		}
		if tt.status == 429 && resp.Header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q, want 2", resp.Header.Get("Retry-After"))
		}
	}
}

// TestErrorInStream wants an error after the first token to arrive as an event.
func TestErrorInStream(t *testing.T) {
	e := &fake{answer: says("xyz")}
	e.before = func(_ context.Context, _ *dynamo.Request, i int) error {
		if i == 2 {
			return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the worker died"}
		}
		return nil
	}
	c := serve(t, e, nil)
	events := c.stream("/v1/chat/completions", chatBody(`"stream":true`))
	last := events[len(events)-1]
	if got := texts(events, 1)[0]; got != "xy" || last.Error == nil || last.Error.Message != "the worker died" || last.Error.Type != "service_unavailable_error" {
		t.Errorf("got %q, last event %+v", got, last)
	}
}

// TestPanic wants a panic in an engine to end its request, and only that.
func TestPanic(t *testing.T) {
	e := &fake{answer: says("xyz")}
	e.before = func(_ context.Context, r *dynamo.Request, i int) error {
		if i == 1 && r.MaxTokens == 9 {
			panic("BUG: secret detail")
		}
		return nil
	}
	c := serve(t, e, nil)
	for _, prompt := range []string{`"a"`, `["a","b"]`} {
		resp, body := c.do("POST", "/v1/completions", `{"model":"org/m","max_tokens":9,"prompt":`+prompt+`}`)
		if resp.StatusCode != 500 || strings.Contains(body, "secret") {
			t.Errorf("%s: %d %s", prompt, resp.StatusCode, body)
		}
		events := c.stream("/v1/completions", `{"model":"org/m","max_tokens":9,"stream":true,"prompt":`+prompt+`}`)
		if last := events[len(events)-1]; last.Error == nil || last.Error.Type != "server_error" {
			t.Errorf("%s streamed: %+v", prompt, last)
		}
	}
	c.ask("/v1/completions", `{"model":"org/m","prompt":"a"}`)
}

func TestBigBody(t *testing.T) {
	t.Parallel()
	c := serve(t, &fake{answer: says("x")}, nil)
	const size = 100 << 20
	resp, body := c.do("POST", "/v1/chat/completions", `{"model":"`+strings.Repeat("x", size)+`"}`)
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d: %.200s", resp.StatusCode, body)
	}
	// Without a length the limit holds as the bytes arrive.
	req, err := http.NewRequest("POST", c.url+"/v1/chat/completions", struct{ io.Reader }{io.LimitReader(zeros{}, size)})
	if err != nil {
		t.Fatal(err)
	}
	resp, err = http.DefaultClient.Do(req)
	if err != nil {
		// The server closes the connection while the client still writes.
		t.Logf("the connection was closed: %v", err)
		return
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestKeys(t *testing.T) {
	sum := sha256.Sum256([]byte("k2"))
	keys := NewKeys()
	if err := keys.Add("", "k1"); err != nil {
		t.Fatal(err)
	}
	if err := keys.Read(strings.NewReader("# comment\n\nacme:sha256:" + hex.EncodeToString(sum[:]) + "\n")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"acme", "acme:sha256:abc", ":sha256:" + hex.EncodeToString(sum[:]), "acme:sha256:" + hex.EncodeToString(sum[:]), "a b:sha256:" + strings.Repeat("0", 64)} {
		if err := keys.Read(strings.NewReader(bad)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("key file %q: error %v", bad, err)
		}
	}
	e := &fake{answer: says("x")}
	c := serve(t, e, func(c *Config, _ *Model) { c.APIKeys, c.ClusterKey = keys, []byte("0123456789abcdef") })
	for _, tt := range []struct {
		header, value string
		status        int
	}{
		{"Authorization", "", 401}, {"Authorization", "Bearer nope", 401}, {"Authorization", "Basic k1", 401},
		{"Authorization", "Bearer k1", 200}, {"Authorization", "Bearer k2", 200}, {"X-Api-Key", "k2", 200},
	} {
		c.header = http.Header{tt.header: {tt.value}}
		resp, body := c.do("POST", "/v1/chat/completions", chatBody(""))
		if resp.StatusCode != tt.status {
			t.Errorf("%s %q: status %d, want %d", tt.header, tt.value, resp.StatusCode, tt.status)
		}
		if a := parse(t, body); tt.status == 401 && (a.Error == nil || a.Error.Code != "invalid_api_key") {
			t.Errorf("%s %q: %s", tt.header, tt.value, body)
		}
		if resp, _ := c.do("GET", "/v1/models", ""); resp.StatusCode != tt.status {
			t.Errorf("models with %s %q: status %d, want %d", tt.header, tt.value, resp.StatusCode, tt.status)
		}
		if resp, _ := c.do("GET", "/health", ""); resp.StatusCode != 200 {
			t.Errorf("health: status %d", resp.StatusCode)
		}
	}
	r := e.requests()
	if r[0].Namespace != "" || len(r[1].Namespace) != 32 || r[1].Namespace != r[2].Namespace || r[1].Root == 0 {
		t.Errorf("namespaces %q, %q, %q", r[0].Namespace, r[1].Namespace, r[2].Namespace)
	}
	bad := DefaultConfig()
	bad.APIKeys = keys
	if _, err := New(bad); err == nil || !strings.Contains(err.Error(), "cluster key") {
		t.Errorf("API keys without a cluster key: %v", err)
	}
}

func TestOtherRoutes(t *testing.T) {
	c := serve(t, &fake{answer: says("x")}, func(c *Config, _ *Model) { c.Version, c.Pprof = "1.2", true })
	for _, tt := range []struct{ method, path, body, want string }{
		{"GET", "/v1/models", "", `{"object":"list","data":[{"id":"org/m","object":"model","created":7,"owned_by":"dynamo","max_model_len":1024}]}`},
		{"GET", "/v1/models/org/m", "", `{"id":"org/m","object":"model","created":7,"owned_by":"dynamo","max_model_len":1024}`},
		{"GET", "/version", "", `{"version":"1.2"}`},
		{"GET", "/debug/pprof/", "", ``},
		{"GET", "/live", "", `{"status":"live","message":"Service is live"}`},
		{"GET", "/ready", "", `{"status":"ready"}`},
		{"GET", "/health", "", `{"status":"healthy","message":"ready","models":[{"id":"org/m","object":"model","created":7,"owned_by":"dynamo","max_model_len":1024}]}`},
		{"POST", "/tokenize", `{"prompt":"ab<|im_end|>","return_token_strs":true}`, `{"count":3,"max_model_len":1024,"tokens":[97,98,257],"token_strs":["a","b","<|im_end|>"]}`},
		{"POST", "/tokenize", `{"model":"org/m","add_generation_prompt":false,"messages":[{"role":"user","content":""}]}`, ``},
		{"POST", "/detokenize", `{"tokens":[97,98,257]}`, `{"prompt":"ab<|im_end|>"}`},
	} {
		resp, got := c.do(tt.method, tt.path, tt.body)
		if resp.StatusCode != 200 || tt.want != "" && got != tt.want {
			t.Errorf("%s %s: got %d %s, want %s", tt.method, tt.path, resp.StatusCode, got, tt.want)
		}
	}
	c.server.RemoveModel("org/m")
	if resp, got := c.do("GET", "/ready", ""); resp.StatusCode != 503 {
		t.Errorf("ready without a model: %d %s", resp.StatusCode, got)
	}
}

func TestRequestID(t *testing.T) {
	c := serve(t, &fake{answer: says("x")}, nil)
	for sent, kept := range map[string]bool{"abc-1": true, "": false, "with space": false, strings.Repeat("x", 200): false} {
		c.header = http.Header{}
		c.header.Set("X-Request-Id", sent)
		resp, _ := c.do("POST", "/v1/chat/completions", chatBody(""))
		if got := resp.Header.Get("X-Request-Id"); (got == sent) != kept || got == "" {
			t.Errorf("sent %.20q: answered %q", sent, got)
		}
	}
	c.header = http.Header{"Sec-Fetch-Site": {"cross-site"}}
	if resp, _ := c.do("POST", "/v1/chat/completions", chatBody("")); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a foreign web page is answered with %d", resp.StatusCode)
	}
}

// endless answers without end, each chunk when step receives a value.
func endless(step chan struct{}) *fake {
	return &fake{
		answer: func(r *dynamo.Request) []dynamo.Chunk {
			chunks := make([]dynamo.Chunk, 100_000)
			for i := range chunks {
				chunks[i] = chunkOf(r, 'x')
			}
			return chunks
		},
		before: func(ctx context.Context, _ *dynamo.Request, _ int) error {
			select {
			case <-step:
				return nil
			case <-ctx.Done():
				return engine.ContextError(ctx)
			}
		},
	}
}

// TestDisconnect wants the engine's sequence to end without another chunk once
// the client is gone, streaming or not.
func TestDisconnect(t *testing.T) {
	for _, fields := range []string{`"stream":true`, ``, `"n":3,"stream":true`} {
		step := make(chan struct{}, 1)
		e := endless(step)
		c := serve(t, e, nil)
		ctx, cancel := context.WithCancel(context.Background())
		req, err := http.NewRequestWithContext(ctx, "POST", c.url+"/v1/chat/completions", strings.NewReader(chatBody(fields)))
		if err != nil {
			t.Fatal(err)
		}
		step <- struct{}{}
		go func() {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				defer resp.Body.Close()
				_, _ = io.ReadAll(resp.Body) // ends with the cancellation
			}
		}()
		eventually(t, "the first chunk", func() bool { _, n := e.counts(); return n >= 1 })
		cancel()
		eventually(t, "the end of the sequence "+fields, func() bool { running, _ := e.counts(); return running == 0 })
		if _, n := e.counts(); n > 1 {
			t.Errorf("%s: %d chunks, want 1", fields, n)
		}
		eventually(t, "the metrics", func() bool {
			_, m := c.do("GET", "/metrics", "")
			return strings.Contains(m, `error_type="cancelled",model="org/m"`) && strings.Contains(m, "dynamo_frontend_disconnected_clients 1") && strings.Contains(m, `dynamo_frontend_inflight_requests{model="org/m"} 0`)
		})
	}
}

// TestSlowReader wants a client that does not read to stop its own generation at
// a bound, to hold up nobody else, and to be cut off in the end.
func TestSlowReader(t *testing.T) {
	step := make(chan struct{})
	close(step) // as fast as it can
	e := endless(step)
	c := serve(t, e, func(c *Config, _ *Model) { c.WriteTimeout = 500 * time.Millisecond })
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	body := chatBody(`"stream":true`)
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := bufio.NewReaderSize(conn, 64).Peek(8); err != nil {
		t.Fatal(err)
	}
	var before int
	eventually(t, "a pause of the generation", func() bool {
		_, n := e.counts()
		paused := n == before && n > 0
		before = n
		time.Sleep(20 * time.Millisecond)
		return paused
	})
	if before == 100_000 {
		t.Fatal("the whole answer was generated for a client that does not read")
	}
	start := time.Now()
	if resp, _ := c.do("POST", "/tokenize", `{"prompt":"x"}`); resp.StatusCode != 200 || time.Since(start) > 300*time.Millisecond {
		t.Errorf("another request: status %d after %v", resp.StatusCode, time.Since(start))
	}
	eventually(t, "the cut", func() bool { running, _ := e.counts(); return running == 0 })
	eventually(t, "the metrics", func() bool {
		_, m := c.do("GET", "/metrics", "")
		return strings.Contains(m, `error_type="cancelled",model="org/m"`) && !strings.Contains(m, `error_type="internal"`)
	})
}

func TestQueue(t *testing.T) {
	step := make(chan struct{})
	e := endless(step)
	c := serve(t, e, func(c *Config, _ *Model) { c.MaxRunning, c.MaxQueue = 1, 1 })
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	start := func() {
		wg.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "POST", c.url+"/v1/chat/completions", strings.NewReader(chatBody("")))
			if err != nil {
				t.Error(err)
				return
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		})
	}
	start()
	eventually(t, "one running", func() bool { running, _ := e.counts(); return running == 1 })
	start()
	gate := c.server.mu.models["org/m"].gate
	eventually(t, "one waiting", func() bool { return gate.Stats().Queued == 1 })
	resp, body := c.do("POST", "/v1/chat/completions", chatBody(`"stream":true`))
	if a := parse(t, body); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" || a.Error.Code != "queue_full" {
		t.Errorf("a third request: %d %v %s", resp.StatusCode, resp.Header, body)
	}
	if _, m := c.do("GET", "/metrics", ""); !strings.Contains(m, `dynamo_frontend_queued_requests{model="org/m"} 1`) {
		t.Error("the queue is not in the metrics")
	}
	cancel()
	wg.Wait()
	eventually(t, "nobody left", func() bool { s := gate.Stats(); running, _ := e.counts(); return s.Running+s.Queued+running == 0 })
}

func TestRequestTimeout(t *testing.T) {
	e := &fake{answer: says("x")}
	c := serve(t, e, func(c *Config, _ *Model) { c.RequestTimeout = time.Hour })
	c.ask("/v1/chat/completions", chatBody(""))
	if d := time.Until(e.requests()[0].Deadline); d < 59*time.Minute || d > time.Hour {
		t.Errorf("deadline in %v", d)
	}
}

// TestDrain wants requests in progress to finish, new ones to be refused, and
// Serve to return.
func TestDrain(t *testing.T) {
	step := make(chan struct{})
	e := &fake{answer: says("abc"), before: endless(step).before}
	s, url, ended := listen(t, e)
	c := &client{t: t, url: url, server: s, header: http.Header{}}
	answers := make(chan []answerBody)
	go func() { answers <- c.stream("/v1/chat/completions", chatBody(`"stream":true`)) }()
	step <- struct{}{}
	eventually(t, "the first chunk", func() bool { _, n := e.counts(); return n == 1 })
	drained := make(chan error)
	go func() { drained <- s.Drain(context.Background()) }()
	eventually(t, "draining", s.draining.Load)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(chatBody(""))))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "shutting_down") {
		t.Errorf("a new request: %d %s", w.Code, w.Body)
	}
	close(step)
	if got := texts(<-answers, 1)[0]; got != "abc" {
		t.Errorf("the answer in progress: %q", got)
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// TestDrainDeadline wants requests that do not finish in time to be cancelled and
// their clients to be told.
func TestDrainDeadline(t *testing.T) {
	step := make(chan struct{}, 1)
	e := endless(step)
	s, url, ended := listen(t, e)
	c := &client{t: t, url: url, server: s, header: http.Header{}}
	answers := make(chan []answerBody)
	go func() { answers <- c.stream("/v1/chat/completions", chatBody(`"stream":true`)) }()
	step <- struct{}{}
	eventually(t, "the first chunk", func() bool { _, n := e.counts(); return n == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Drain(ctx); err == nil || !strings.Contains(err.Error(), "1 requests were cut off") {
		t.Errorf("drain: %v", err)
	}
	events := <-answers
	if last := events[len(events)-1]; last.Error == nil || last.Error.Code != "shutting_down" {
		t.Errorf("last event: %+v", last)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
	if running, _ := e.counts(); running != 0 {
		t.Error("the engine still runs")
	}
}

// TestServeEndsWithContext wants Serve to drain and return when its context ends,
// also where an engine does not hear that its request was cut off.
func TestServeEndsWithContext(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	e := &fake{answer: says("x"), before: func(context.Context, *dynamo.Request, int) error { <-release; return nil }}
	c := DefaultConfig()
	c.DrainTimeout = 10 * time.Millisecond
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddModel(testModel(t, e)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, l) }()
	go func() {
		if resp, err := http.Post("http://"+l.Addr().String()+"/v1/chat/completions", "application/json", strings.NewReader(chatBody(""))); err == nil {
			resp.Body.Close()
		}
	}()
	eventually(t, "the request", func() bool { running, _ := e.counts(); return running == 1 })
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(2 * cutGrace):
		t.Error("Serve waits for an engine that does not end")
	}
}

// listen is serve without the drain at the end.
func listen(t *testing.T, e engine.Engine) (*Server, string, chan error) {
	t.Helper()
	s, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.AddModel(testModel(t, e)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(context.Background(), l) }()
	return s, "http://" + l.Addr().String(), ended
}

func TestMetrics(t *testing.T) {
	c := serve(t, &fake{answer: says("abc")}, nil)
	c.ask("/v1/chat/completions", chatBody(""))
	c.stream("/v1/completions", `{"model":"org/m","prompt":"x","stream":true}`)
	c.do("POST", "/v1/chat/completions", `{"model":"evil label","messages":[{"role":"user","content":"x"}]}`)
	_, m := c.do("GET", "/metrics", "")
	for _, want := range []string{
		`dynamo_frontend_requests_total{endpoint="chat_completions",error_type="",model="org/m",request_type="unary",status="success"} 1`,
		`dynamo_frontend_requests_total{endpoint="completions",error_type="",model="org/m",request_type="stream",status="success"} 1`,
		`dynamo_frontend_requests_total{endpoint="chat_completions",error_type="not_found",model="unknown_model",request_type="unary",status="error"} 1`,
		`dynamo_frontend_requests_started_total{endpoint="chat_completions",model="org/m",request_type="unary"} 1`,
		`dynamo_frontend_time_to_first_token_seconds_count{model="org/m"} 2`,
		`dynamo_frontend_inter_token_latency_seconds_count{model="org/m"} 6`,
		`dynamo_frontend_request_duration_seconds_count{model="org/m"} 2`,
		`dynamo_frontend_input_sequence_tokens_sum{model="org/m"} 22`,
		`dynamo_frontend_output_sequence_tokens_sum{model="org/m"} 8`,
		`dynamo_frontend_output_tokens_total{model="org/m"} 8`,
		`dynamo_frontend_cached_tokens_sum{model="org/m"} 5`,
		`dynamo_frontend_inflight_requests{model="org/m"} 0`,
		`dynamo_frontend_active_requests{model="org/m"} 0`,
		`dynamo_frontend_model_context_length{model="org/m"} 1024`,
		`dynamo_frontend_model_kv_cache_block_size{model="org/m"} 16`,
		`dynamo_frontend_tokenize_seconds_count 2`,
		`dynamo_frontend_template_seconds_count 1`,
	} {
		if !strings.Contains(m, want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if strings.Contains(m, "evil") {
		t.Error("a client made a label")
	}
}

// TestEventsLeaveAtOnce wants each token to reach the client while the engine
// works on the next, whether tokens come slowly or in a burst.
func TestEventsLeaveAtOnce(t *testing.T) {
	step := make(chan struct{}, 64)
	c := serve(t, endless(step), nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", c.url+"/v1/chat/completions", strings.NewReader(chatBody(`"stream":true`)))
	if err != nil {
		t.Fatal(err)
	}
	step <- struct{}{}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := openai.NewReader(resp.Body, 0)
	read := func(n int) {
		t.Helper()
		for range n {
			if _, err := events.Next(); err != nil {
				t.Fatal(err)
			}
		}
	}
	read(2) // the role and the first token
	for round := range 50 {
		burst := 1 + round%17*3
		for range burst {
			step <- struct{}{}
		}
		read(burst)
	}
}
