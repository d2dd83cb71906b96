package frontend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/echo"
	"github.com/dynamo-go/dynamo/engine/remoteapi"
)

// textOnly makes the model that of an engine without ids.
func textOnly(_ *Config, m *Model) {
	m.Card.TextOnly, m.Card.MaxTopLogprobs, m.Card.PromptLogprobs = true, -1, false
}

// writes answers with pieces of text, then ends with a usage of its own.
func writes(pieces ...string) *fake {
	return &fake{answer: func(*dynamo.Request) []dynamo.Chunk {
		var chunks []dynamo.Chunk
		for _, p := range pieces {
			chunks = append(chunks, dynamo.Chunk{Text: p})
		}
		return append(chunks, dynamo.Chunk{Finish: dynamo.FinishStop, Usage: dynamo.Usage{Prompt: 40, Cached: 30, Completion: 20}})
	}}
}

func TestTextOnly(t *testing.T) {
	for _, c := range []struct {
		name, more         string
		pieces             []string
		text, finish, stop string
		completion         int
	}{
		{"whole", ``, []string{"Hel", "lo, é", " you"}, "Hello, é you", "stop", "null", 20},
		{"nothing", ``, nil, "", "stop", "null", 20},
		{"stop string over pieces", `,"stop":["lo, y","zzz"]`, []string{"Hel", "lo", ", you", " there"}, "Hel", "stop", `"lo, y"`, 3},
		{"stop string at the end", `,"stop":"ou"`, []string{"Hello, y", "ou"}, "Hello, y", "stop", `"ou"`, 2},
		{"stop string kept", `,"stop":"lo","include_stop_str_in_output":true`, []string{"Hello, you"}, "Hello", "stop", `"lo"`, 1},
		{"half a stop string", `,"stop":"you!"`, []string{"Hello, ", "you"}, "Hello, you", "stop", "null", 20},
		{"before min_tokens", `,"stop":"e","min_tokens":2`, []string{"Hell", "o yes"}, "Hello y", "stop", `"e"`, 2},
	} {
		cl := serve(t, writes(c.pieces...), textOnly)
		body := `{"model":"org/m","prompt":"abc","max_tokens":30` + c.more
		a := cl.ask("/v1/completions", body+"}")
		ch := a.Choices[0]
		if ch.Text != c.text || ch.FinishReason != c.finish || string(ch.StopReason) != c.stop && !(c.stop == "null" && ch.StopReason == nil) {
			t.Errorf("%s: got %q, %s, %s; want %q, %s, %s", c.name, ch.Text, ch.FinishReason, ch.StopReason, c.text, c.finish, c.stop)
		}
		prompt, cached := 40, 30
		if c.stop != "null" {
			prompt, cached = 3, 0 // the engine was stopped before it counted
		}
		if u := a.Usage; u.Prompt != prompt || u.Completion != c.completion || u.Total != prompt+c.completion || u.Details.Cached != cached {
			t.Errorf("%s: usage %+v, want %d, %d, cached %d", c.name, *a.Usage, prompt, c.completion, cached)
		}
		text, events := "", cl.stream("/v1/completions", body+`,"stream":true,"stream_options":{"include_usage":true}}`)
		for _, e := range events {
			for _, ch := range e.Choices {
				text += ch.Text
			}
		}
		if u := events[len(events)-1].Usage; text != c.text || u == nil || u.Prompt != prompt || u.Completion != c.completion {
			t.Errorf("%s, streamed: got %q, usage %+v", c.name, text, u)
		}
	}
}

// TestTextOnlyRefuses: what needs ids is refused, with the field's name.
func TestTextOnlyRefuses(t *testing.T) {
	cl := serve(t, writes("a"), textOnly)
	for _, field := range []string{`"logprobs":1`, `"return_token_ids":true`} {
		resp, body := cl.do("POST", "/v1/completions", `{"model":"org/m","prompt":"abc",`+field+`}`)
		name, _, _ := strings.Cut(field[1:], `"`)
		if e := parse(t, body).Error; resp.StatusCode != http.StatusBadRequest || e == nil || e.Param != name {
			t.Errorf("%s: status %d: %s", field, resp.StatusCode, body)
		}
	}
}

func TestTextOnlyMetrics(t *testing.T) {
	cl := serve(t, writes("a", "b", "c"), textOnly)
	cl.ask("/v1/completions", `{"model":"org/m","prompt":"abc"}`)
	_, got := cl.do("GET", "/metrics", "")
	for _, want := range []string{
		`dynamo_frontend_time_to_first_token_seconds_count{model="org/m"} 1`,
		`dynamo_frontend_inter_token_latency_seconds_count{model="org/m"} 2`,
		`dynamo_frontend_output_sequence_tokens_sum{model="org/m"} 20`,
		`dynamo_frontend_output_tokens_total{model="org/m"} 20`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// TestThroughAnotherServer puts a server in front of another one, over text, and
// wants the same of both.
func TestThroughAnotherServer(t *testing.T) {
	c := echo.DefaultConfig()
	c.Model, c.ContextLength, c.VocabSize, c.EOS = "org/m", 1024, int(testVocab), []dynamo.TokenID{imEnd}
	e, err := echo.New(c)
	if err != nil {
		t.Fatal(err)
	}
	far := serve(t, e, func(_ *Config, m *Model) { m.Card = e.Card() })
	rc := remoteapi.DefaultConfig()
	tokenizer := byteTokenizer(t)
	rc.URL, rc.Name, rc.Model, rc.ContextLength, rc.VocabSize = far.url, "near", "org/m", 1024, int(testVocab)
	rc.Decode = func(ids []dynamo.TokenID) string { return tokenizer.Decode(ids, false) }
	r, err := remoteapi.New(rc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if err := r.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	near := serve(t, r, func(_ *Config, m *Model) { m.Card = r.Card() })
	for _, q := range []struct{ path, body string }{
		{"/v1/completions", `"prompt":"The quick brown fox","max_tokens":12`},
		{"/v1/completions", `"prompt":"héllo wörld ünd","max_tokens":5,"n":3`},
		{"/v1/completions", `"prompt":["one two","three"],"max_tokens":9`},
		{"/v1/completions", `"prompt":"The quick brown fox","max_tokens":100,"stop":["own"]`},
		{"/v1/completions", `"prompt":"abc","max_tokens":50,"seed":4,"temperature":0.5,"top_k":3`},
		{"/v1/chat/completions", `"messages":[{"role":"user","content":"Say something"}],"max_tokens":30`},
	} {
		summary := func(cl *client, model string) string {
			a := cl.ask(q.path, `{"model":"`+model+`",`+q.body+"}")
			s := fmt.Sprintf("%+v", *a.Usage)
			if strings.Contains(q.body, "stop") {
				s = "" // counts what has come
			}
			for _, ch := range a.Choices {
				s += fmt.Sprintf(" %d %q %q %s %s", ch.Index, ch.Text, ch.Message.Content, ch.FinishReason, ch.StopReason)
			}
			return s
		}
		if got, want := summary(near, "near"), summary(far, "org/m"); got != want {
			t.Errorf("%s:\n got %s\nwant %s", q.body, got, want)
		}
	}
	if l := r.Load(); l.Running != 0 {
		t.Errorf("the engine still holds requests: %+v", l)
	}
}
