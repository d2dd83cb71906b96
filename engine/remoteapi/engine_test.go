package remoteapi_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/remoteapi"
)

// asked is what the test server reads of a request.
type asked struct {
	Model       string
	Prompt      any
	Stream      bool
	MaxTokens   int `json:"max_tokens"`
	Temperature float64
	Seed        *uint64
}

// fakeServer answers each token as an event: a word that depends on the prompt,
// the position and, if sampled, the seed.
type fakeServer struct {
	running atomic.Int64
	mu      struct {
		sync.Mutex
		bodies  []string
		headers []http.Header
	}
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/models" {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"their/model"},{"id":"other"}]}`)
		return
	}
	f.running.Add(1)
	defer f.running.Add(-1)
	body, err := io.ReadAll(r.Body)
	var q asked
	if err != nil || json.Unmarshal(body, &q) != nil || r.URL.Path != "/v1/completions" || !q.Stream {
		http.Error(w, `{"error":{"message":"bad request"}}`, http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	f.mu.bodies = append(f.mu.bodies, string(body))
	f.mu.headers = append(f.mu.headers, r.Header.Clone())
	f.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	if text, restricted := heed(body); restricted {
		fmt.Fprint(w, event(text[:len(text)/2]), event(text[len(text)/2:]))
		fmt.Fprint(w, `data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n")
		return
	}
	for i := range q.MaxTokens {
		h := fnv.New32a()
		fmt.Fprint(h, q.Prompt, i)
		if q.Temperature > 0 && q.Seed != nil {
			fmt.Fprint(h, *q.Seed)
		}
		reason := "null"
		if i == q.MaxTokens-1 {
			reason = `"length"`
		}
		fmt.Fprintf(w, `data: {"id":"x","object":"text_completion","choices":[{"index":0,"text":" w%d\u00e9","logprobs":null,"finish_reason":%s}],"usage":null}`+"\n\n", h.Sum32()%997, reason)
		w.(http.Flusher).Flush()
		if r.Context().Err() != nil {
			return
		}
	}
	n := len(strings.Fields(fmt.Sprint(q.Prompt)))
	fmt.Fprintf(w, `data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":null}}`+"\n\ndata: [DONE]\n\n", n, q.MaxTokens)
}

func decode(ids []dynamo.TokenID) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = fmt.Sprint("t", id)
	}
	return strings.Join(words, " ")
}

func prompt(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(10 + (n*7+i*i)%900)
	}
	return ids
}

// open serves h and returns an engine over it.
func open(t testing.TB, h http.Handler, change func(*remoteapi.Config)) *remoteapi.Engine {
	t.Helper()
	s := httptest.NewServer(h)
	c := remoteapi.DefaultConfig()
	c.URL, c.Model, c.Name, c.ContextLength, c.VocabSize, c.Decode = s.URL, "their/model", "ours", 512, 1000, decode
	if change != nil {
		change(&c)
	}
	e, err := remoteapi.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.Close()
		s.Close()
	})
	return e
}

func TestConformance(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		e := open(t, &fakeServer{}, nil)
		return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: prompt, Idle: func() error {
			if l := e.Load(); l.Running != 0 {
				return fmt.Errorf("%d requests running", l.Running)
			}
			return nil
		}}
	})
}

// TestCancelReachesServer: the server's handler ends when the loop is broken.
func TestCancelReachesServer(t *testing.T) {
	ended := make(chan struct{})
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, event("one"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}), nil)
	for range e.Generate(t.Context(), request()) {
		break
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the server was not told")
	}
}

func request() *dynamo.Request {
	return &dynamo.Request{ID: "r1", Model: "ours", Tokens: []dynamo.TokenID{1, 20, 30}, MaxTokens: 8}
}

func event(text string) string {
	return fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"text\":%q,\"finish_reason\":null}]}\n\n", text)
}

func TestRequest(t *testing.T) {
	full := dynamo.Sampling{
		Temperature: 0.5, TopP: 0.9, TopK: 7, MinP: 0.25, PresencePenalty: -1, FrequencyPenalty: 0.5, RepetitionPenalty: 1.5,
		Seed: 1<<63 + 5, Seeded: true, LogitBias: []dynamo.LogitBias{{ID: 5, Bias: -100}, {ID: 6, Bias: 2.5}},
	}
	const head, opts = `{"model":"their/model","prompt":`, `,"stream":true,"stream_options":{"include_usage":true},"max_tokens":8`
	for _, c := range []struct {
		name   string
		change func(*remoteapi.Config, *dynamo.Request)
		want   string
	}{
		{"plain", func(*remoteapi.Config, *dynamo.Request) {}, head + `"t1 t20 t30"` + opts + `,"temperature":0}`},
		{"ids", func(c *remoteapi.Config, _ *dynamo.Request) { c.Decode = nil }, head + `[1,20,30]` + opts + `,"temperature":0}`},
		{"begin", func(c *remoteapi.Config, _ *dynamo.Request) { c.Begin = []dynamo.TokenID{2, 1} }, head + `"t20 t30"` + opts + `,"temperature":0}`},
		{"begin alone", func(c *remoteapi.Config, r *dynamo.Request) {
			c.Begin, r.Tokens = []dynamo.TokenID{1}, []dynamo.TokenID{1}
		}, head + `"t1"` + opts + `,"temperature":0}`},
		{"odd text", func(c *remoteapi.Config, _ *dynamo.Request) {
			c.Decode = func([]dynamo.TokenID) string { return "a\"\n\xff" }
		}, head + `"a\"\n` + "\ufffd" + `"` + opts + `,"temperature":0}`},
		{"unseeded", func(_ *remoteapi.Config, r *dynamo.Request) {
			r.Sampling = dynamo.Sampling{Temperature: 1, TopP: 1, RepetitionPenalty: 1, Seed: 4}
		}, head + `"t1 t20 t30"` + opts + `,"temperature":1}`},
		{"everything", func(_ *remoteapi.Config, r *dynamo.Request) {
			r.Sampling, r.MinTokens, r.IgnoreEOS, r.StopTokens, r.Choice = full, 2, true, []dynamo.TokenID{3, 4}, 2
		}, head + `"t1 t20 t30"` + opts + `,"temperature":0.5,"top_p":0.9,"seed":7,"presence_penalty":-1,"frequency_penalty":0.5,"min_p":0.25,"repetition_penalty":1.5,"top_k":7,"logit_bias":{"5":-100,"6":2.5},"min_tokens":2,"ignore_eos":true,"stop_token_ids":[3,4]}`},
		{"context", func(c *remoteapi.Config, r *dynamo.Request) { c.ContextLength, r.MaxTokens = 11, 1000 }, head + `"t1 t20 t30"` + opts + `,"temperature":0}`},
	} {
		r, f := request(), &fakeServer{}
		e := open(t, f, func(rc *remoteapi.Config) { rc.APIKey = "k"; c.change(rc, r) })
		if _, _, err := collect(t, e, r); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := f.mu.bodies[0]; got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if h := f.mu.headers[0]; h.Get("Authorization") != "Bearer k" || h.Get("X-Request-Id") != "r1" || h.Get("Content-Type") != "application/json" {
			t.Errorf("%s: headers %v", c.name, h)
		}
	}
}

// collect ranges over an answer.
func collect(t *testing.T, e engine.Engine, r *dynamo.Request) (text string, last dynamo.Chunk, err error) {
	t.Helper()
	for c, err := range e.Generate(t.Context(), r) {
		if err != nil {
			return text, last, err
		}
		text, last = text+c.Text, c
	}
	return text, last, nil
}

// answers replies with the same bytes to everything.
func answers(status int, header map[string]string, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

var stream = map[string]string{"Content-Type": "text/event-stream"}

func TestAnswers(t *testing.T) {
	end := `data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}` + "\n\n"
	usage := `data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":6}}}` + "\n\n"
	done := "data: [DONE]\n\n"
	for _, c := range []struct {
		name, body, text string
		finish           dynamo.FinishReason
		usage            dynamo.Usage
	}{
		{"usage", event("a") + event("b") + end + usage + done, "ab", dynamo.FinishStop, dynamo.Usage{Prompt: 9, Cached: 6, Completion: 4}},
		{"no usage", event("a") + event("b") + end + done, "ab", dynamo.FinishStop, dynamo.Usage{Prompt: 3, Completion: 2}},
		{"no done", event("a") + end, "a", dynamo.FinishStop, dynamo.Usage{Prompt: 3, Completion: 1}},
		{"text with the end", `data: {"choices":[{"text":"a","finish_reason":"length"}],"usage":{"prompt_tokens":2,"completion_tokens":1}}` + "\n\n" + done, "a", dynamo.FinishLength, dynamo.Usage{Prompt: 2, Completion: 1}},
		{"nothing said", end + usage + done, "", dynamo.FinishStop, dynamo.Usage{Prompt: 9, Cached: 6, Completion: 4}},
		{"absurd counts", event("a") + end + `data: {"usage":{"prompt_tokens":-9,"completion_tokens":99999}}` + "\n\n" + done, "a", dynamo.FinishStop, dynamo.Usage{Prompt: 3, Completion: 1}},
		{"cached beyond the prompt", event("a") + end + `data: {"usage":{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":70}}}` + "\n\n" + done, "a", dynamo.FinishStop, dynamo.Usage{Prompt: 9, Cached: 9, Completion: 1}},
		{"text after the end", event("a") + end + event("b") + usage + done, "a", dynamo.FinishStop, dynamo.Usage{Prompt: 9, Cached: 6, Completion: 4}},
		{"pings and strangers", ": ping\n\n" + event("a") + "event: x\ndata: {\"error\":null,\"more\":[{\"text\":\"no\"}]}\n\n" + end + usage + done, "a", dynamo.FinishStop, dynamo.Usage{Prompt: 9, Cached: 6, Completion: 4}},
		{"carriage returns", strings.ReplaceAll(event("a")+end+done, "\n", "\r\n"), "a", dynamo.FinishStop, dynamo.Usage{Prompt: 3, Completion: 1}},
		{"another reason", event("a") + strings.Replace(end, "stop", "content_filter", 1) + done, "a", dynamo.FinishStop, dynamo.Usage{Prompt: 3, Completion: 1}},
	} {
		text, last, err := collect(t, open(t, answers(200, stream, c.body), nil), request())
		if err != nil || text != c.text || last.Finish != c.finish || last.Usage != c.usage {
			t.Errorf("%s: got %q, %v, %+v, error %v; want %q, %v, %+v", c.name, text, last.Finish, last.Usage, err, c.text, c.finish, c.usage)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name    string
		handler http.Handler
		kind    dynamo.Kind
		code    string
		retry   time.Duration
		words   []string // of the message
	}{
		{"key", answers(401, nil, `{"error":{"message":"Incorrect key"}}`), dynamo.KindUnavailable, "engine_key_refused", 0, []string{"--engine-api-key", "lacks", "Incorrect key"}},
		{"forbidden", answers(403, nil, ""), dynamo.KindUnavailable, "engine_key_refused", 0, []string{"--engine-api-key", "403"}},
		{"model", answers(404, nil, `{"error":{"message":"no such model"}}`), dynamo.KindNotFound, "model_not_found", 0, []string{"their/model", "--engine-model", "no such model"}},
		{"rate", answers(429, map[string]string{"Retry-After": "7"}, `{"detail":"slow down"}`), dynamo.KindExhausted, "engine_rate_limit", 7 * time.Second, []string{"slow down"}},
		{"rate without a time", answers(429, nil, ""), dynamo.KindExhausted, "engine_rate_limit", time.Second, nil},
		{"rate for ever", answers(429, map[string]string{"Retry-After": "4000000000"}, ""), dynamo.KindExhausted, "engine_rate_limit", time.Hour, nil},
		{"invalid", answers(400, nil, `{"message":"bad top_k"}`), dynamo.KindInvalid, "", 0, []string{"bad top_k"}},
		{"too long", answers(400, nil, `{"error":{"message":"maximum context length is 5"}}`), dynamo.KindInvalid, "context_length_exceeded", 0, nil},
		{"internal", answers(500, nil, "<html>oops</html>"), dynamo.KindInternal, "", 0, []string{"500"}},
		{"not implemented", answers(501, nil, `{"error":"no"}`), dynamo.KindInternal, "", 0, []string{"501", "no"}},
		{"gateway", answers(502, nil, "<html>bad gateway</html>"), dynamo.KindUnavailable, engine.CodeLost, 0, []string{"502"}},
		{"gateway's patience", answers(504, nil, ""), dynamo.KindUnavailable, engine.CodeLost, 0, []string{"504"}},
		{"unprocessable", answers(422, nil, `{"detail":"min_p is unknown"}`), dynamo.KindInvalid, "", 0, []string{"min_p is unknown"}},
		{"loading", answers(503, map[string]string{"Retry-After": "3"}, `{"error":{"code":503,"message":"Loading model"}}`), dynamo.KindUnavailable, engine.CodeLost, 3 * time.Second, []string{"Loading model"}},
		{"redirect", answers(302, map[string]string{"Location": "https://else.where/v1"}, ""), dynamo.KindUnavailable, "", 0, []string{"https://else.where/v1"}},
		{"no stream", answers(200, map[string]string{"Content-Type": "application/json"}, `{"choices":[]}`), dynamo.KindCorrupt, "", 0, []string{"application/json"}},
		{"garbage", answers(200, stream, "data: {\"choices\":[{\"text\":\n\n"), dynamo.KindCorrupt, "", 0, []string{"cannot be read"}},
		{"not JSON", answers(200, stream, "data: hello\n\n"), dynamo.KindCorrupt, "", 0, []string{"hello"}},
		{"wrong types", answers(200, stream, `data: {"choices":[{"text":5}]}`+"\n\n"), dynamo.KindCorrupt, "", 0, nil},
		{"choices of another kind", answers(200, stream, `data: {"choices":{"text":"a"}}`+"\n\n"), dynamo.KindCorrupt, "", 0, nil},
		{"deep", answers(200, stream, "data: "+strings.Repeat("[", 100_000)+"\n\n"), dynamo.KindCorrupt, "", 0, nil},
		{"no reason", answers(200, stream, event("a")+"data: [DONE]\n\n"), dynamo.KindCorrupt, "", 0, []string{"finish_reason"}},
		{"endless event", answers(200, stream, "data: "+strings.Repeat("a", 2<<20)), dynamo.KindCorrupt, "", 0, []string{"longer than"}},
		{"cut off", answers(200, stream, event("a")), dynamo.KindUnavailable, engine.CodeLost, 0, []string{"broke off"}},
		{"nothing", answers(200, stream, ""), dynamo.KindUnavailable, engine.CodeLost, 0, nil},
		{"aborted", answers(200, stream, `data: {"choices":[{"text":"","finish_reason":"abort"}]}`+"\n\n"), dynamo.KindUnavailable, engine.CodeLost, 0, nil},
		{"error in the stream", answers(200, stream, `data: {"error":{"message":"out of memory","code":500}}`+"\n\n"), dynamo.KindInternal, "", 0, []string{"out of memory"}},
		{"invalid in the stream", answers(200, stream, `data: {"error":{"message":"bad","code":"400"}}`+"\n\n"), dynamo.KindInvalid, "", 0, []string{"bad"}},
		{"error as a string", answers(200, stream, `data: {"error":"boom"}`+"\n\n"), dynamo.KindInternal, "", 0, []string{"boom"}},
		{"hung up", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), dynamo.KindUnavailable, engine.CodeLost, 0, []string{"--engine-url"}},
		{"hung up in the middle", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, event("a"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}), dynamo.KindUnavailable, engine.CodeLost, 0, []string{"broke off"}},
	} {
		_, _, err := collect(t, open(t, c.handler, nil), request())
		var e *dynamo.Error
		if !errors.As(err, &e) || e.Kind != c.kind || e.Code != c.code || e.RetryAfter != c.retry {
			t.Errorf("%s: got %#v, want kind %v, code %q, retry %v", c.name, err, c.kind, c.code, c.retry)
			continue
		}
		for _, w := range c.words {
			if !strings.Contains(e.Message, w) {
				t.Errorf("%s: the message lacks %q: %s", c.name, w, e.Message)
			}
		}
		if len(err.Error()) > 1000 {
			t.Errorf("%s: a message of %d bytes", c.name, len(err.Error()))
		}
	}
}

func TestStall(t *testing.T) {
	for _, c := range []struct {
		name string
		send string
		code string
		text string
	}{
		{"headers", "", engine.CodeStalled, ""},
		{"middle", event("a"), engine.CodeStalled, "a"},
		{"after the end", event("a") + `data: {"choices":[{"finish_reason":"stop"}]}` + "\n\n", "", "a"},
	} {
		e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if c.send != "" {
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprint(w, c.send)
				w.(http.Flusher).Flush()
			}
			<-r.Context().Done()
		}), func(c *remoteapi.Config) { c.Timeout = 50 * time.Millisecond })
		text, last, err := collect(t, e, request())
		code := ""
		if err != nil {
			code, _ = engine.Lost(err)
		}
		if code != c.code || text != c.text || (err == nil) != (last.Finish == dynamo.FinishStop) {
			t.Errorf("%s: got %q, finish %v, error %v; want %q and code %q", c.name, text, last.Finish, err, c.text, c.code)
		}
	}
}

// silent sends what it holds and then nothing more until the request is over.
type silent string

func (s silent) RoundTrip(q *http.Request) (*http.Response, error) {
	body, w := io.Pipe()
	go func() {
		_, err := io.WriteString(w, string(s))
		if err == nil {
			<-q.Context().Done()
		}
		_ = w.CloseWithError(io.ErrUnexpectedEOF) // is always nil
	}()
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body}, nil
}

// TestSilence: how long a silent server is waited for.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = time.Minute
		end := `data: {"choices":[{"finish_reason":"stop"}]}` + "\n\n"
		for _, c := range []struct {
			name, send    string
			deadline      time.Duration
			least, most   time.Duration
			code          string
			kind          dynamo.Kind
			slow, answers bool
		}{
			{name: "at once", least: timeout, most: timeout, code: engine.CodeStalled, kind: dynamo.KindUnavailable},
			{name: "in the middle", send: event("a"), least: timeout, most: timeout, code: engine.CodeStalled, kind: dynamo.KindUnavailable},
			{name: "a slow reader", send: event("a") + event("b"), slow: true, least: 5 * timeout, most: 5 * timeout, code: engine.CodeStalled, kind: dynamo.KindUnavailable},
			{name: "deadline", send: event("a"), deadline: timeout / 2, least: timeout / 2, most: timeout / 2, kind: dynamo.KindDeadline},
			{name: "after the end", send: event("a") + end, most: 2 * time.Second, answers: true},
			{name: "after all", send: event("a") + end + "data: [DONE]\n\n", most: 2 * time.Second, answers: true},
		} {
			rc := remoteapi.DefaultConfig()
			rc.URL, rc.Name, rc.ContextLength, rc.VocabSize, rc.Transport, rc.Timeout = "http://test", "m", 100, 100, silent(c.send), timeout
			e, err := remoteapi.New(rc)
			if err != nil {
				t.Fatal(err)
			}
			r, began := request(), time.Now()
			if c.deadline > 0 {
				r.Deadline = began.Add(c.deadline)
			}
			var failed error
			for _, err := range e.Generate(t.Context(), r) {
				if failed = err; err == nil && c.slow {
					time.Sleep(2 * timeout) // is the reader's time, not the server's
				}
			}
			took := time.Since(began)
			if (failed == nil) != c.answers || took < c.least || took > c.most {
				t.Errorf("%s: error %v after %v; want %v to %v", c.name, failed, took, c.least, c.most)
			} else if failed != nil {
				if code, _ := engine.Lost(failed); code != c.code || dynamo.KindOf(failed) != c.kind {
					t.Errorf("%s: got %v", c.name, failed)
				}
			}
		}
	})
}

// TestClosedConnection: a server may close a connection that is kept for later at
// the very moment a request goes out on it.
func TestClosedConnection(t *testing.T) {
	var f fakeServer
	var n atomic.Int64
	e := open(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) != 2 {
			f.ServeHTTP(w, r)
			return
		}
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = c.Close() // is what the test is about
	}), nil)
	for range 2 {
		if text, _, err := collect(t, e, request()); err != nil || text == "" {
			t.Errorf("got %q, error %v", text, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, sent := f.mu.headers[0]["Idempotency-Key"]; sent || n.Load() != 3 {
		t.Errorf("asked %d times, want 3; headers %v", n.Load(), f.mu.headers[0])
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	e := open(t, http.NotFoundHandler(), func(c *remoteapi.Config) { c.URL = s.URL })
	_, _, err := collect(t, e, request())
	if code, _ := engine.Lost(err); code != engine.CodeLost || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("got %v", err)
	}
}

func TestReady(t *testing.T) {
	if err := open(t, &fakeServer{}, nil).Ready(t.Context()); err != nil {
		t.Errorf("got %v", err)
	}
	err := open(t, &fakeServer{}, func(c *remoteapi.Config) { c.Model = "unknown" }).Ready(t.Context())
	if err == nil || dynamo.KindOf(err) != dynamo.KindNotFound || !strings.Contains(err.Error(), `"other", "their/model"`) {
		t.Errorf("unknown model: got %v", err)
	}
	err = open(t, answers(401, nil, ""), nil).Ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--engine-api-key") {
		t.Errorf("no key: got %v", err)
	}
	if err := open(t, http.NotFoundHandler(), nil).Ready(t.Context()); err != nil {
		t.Errorf("no list: got %v", err)
	}
	var attempts atomic.Int64
	busy := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if attempts.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		(&fakeServer{}).ServeHTTP(w, r)
	})
	if err := open(t, busy, nil).Ready(t.Context()); err != nil || attempts.Load() != 3 {
		t.Errorf("loading: got %v after %d attempts", err, attempts.Load())
	}
}

func TestConfig(t *testing.T) {
	_, err := remoteapi.New(remoteapi.Config{URL: "localhost:80", Timeout: -1, APIKey: "a b"})
	for _, flag := range []string{"--engine-url", "--model-name", "--engine-api-key", "--engine-timeout", "--context-length", "vocabulary", "--kv-cache-block-size"} {
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("the error lacks %s: %v", flag, err)
		}
	}
	var paths []string
	e := func(suffix string) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			paths = append(paths, r.URL.Path)
			w.WriteHeader(http.StatusNotFound)
		})
		_, _, _ = collect(t, open(t, h, func(c *remoteapi.Config) { c.URL += suffix }), request())
	}
	for _, suffix := range []string{"", "/", "/v1", "/v1/", "/api/v2", "/proxy"} {
		e(suffix)
	}
	want := []string{"/v1/completions", "/v1/completions", "/v1/completions", "/v1/completions", "/api/v2/completions", "/proxy/v1/completions"}
	if !slices.Equal(paths, want) {
		t.Errorf("got %v, want %v", paths, want)
	}
}
