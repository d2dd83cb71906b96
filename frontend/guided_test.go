package frontend

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

// guides makes the model that of an engine which restricts answers.
func guides(_ *Config, m *Model) {
	m.Card.Guided = []dynamo.GuidedKind{dynamo.GuidedJSONSchema, dynamo.GuidedJSONObject, dynamo.GuidedRegex}
}

// TestGuided: what restricts an answer reaches the engine, for every choice of
// every prompt, by both routes.
func TestGuided(t *testing.T) {
	for _, c := range []struct {
		fields string
		want   dynamo.Guided
	}{
		{`"user":"u"`, dynamo.Guided{}},
		{`"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type": "object"}}}`, dynamo.Guided{Kind: "json_schema", Value: `{"type": "object"}`}},
		{`"response_format":{"type":"json_object"}`, dynamo.Guided{Kind: "json_object"}},
		{`"structured_outputs":{"regex":"a+","whitespace_pattern":" "}`, dynamo.Guided{Kind: "regex", Value: "a+", Whitespace: " "}},
		{`"nvext":{"guided_regex":"b"}`, dynamo.Guided{Kind: "regex", Value: "b"}},
	} {
		e := &fake{answer: says("{}")}
		cl := serve(t, e, guides)
		cl.ask("/v1/chat/completions", chatBody(c.fields))
		cl.ask("/v1/completions", `{"model":"org/m","prompt":["a","b"],"n":2,`+c.fields+`}`)
		asked := e.requests()
		if len(asked) != 5 {
			t.Errorf("%s: %d requests, want 5", c.fields, len(asked))
		}
		for _, r := range asked {
			if r.Guided != c.want {
				t.Errorf("%s: got %+v, want %+v", c.fields, r.Guided, c.want)
			}
		}
	}
}

// TestGuidedRefused names the client's own field.
func TestGuidedRefused(t *testing.T) {
	e := &fake{answer: says("{}")}
	with, without := serve(t, e, guides), serve(t, e, nil)
	for _, c := range []struct {
		cl             *client
		fields         string
		param, message string
	}{
		{with, `"guided_choice":["a"]`, "guided_choice", "json_schema, json_object, regex"},
		{with, `"structured_outputs":{"grammar":"g"}`, "structured_outputs.grammar", "grammar"},
		{without, `"response_format":{"type":"json_object"}`, "response_format", "not supported by the engine of model org/m"},
		{without, `"nvext":{"guided_json":{}}`, "nvext.guided_json", "not supported by the engine of model org/m"},
	} {
		resp, body := c.cl.do("POST", "/v1/chat/completions", chatBody(c.fields))
		got := parse(t, body).Error
		if resp.StatusCode != http.StatusBadRequest || got == nil || got.Param != c.param || got.Code != "unsupported_parameter" || !strings.Contains(got.Message, c.message) {
			t.Errorf("%s: status %d: %s", c.fields, resp.StatusCode, body)
		}
	}
	if n := len(e.requests()); n > 0 {
		t.Errorf("the engine was asked %d times", n)
	}
}

// TestTransfersDropped forges what tells an engine where to get KV blocks from: it
// is served as if it were not there, and counted.
func TestTransfersDropped(t *testing.T) {
	e := &fake{answer: says("ok")}
	cl := serve(t, e, nil)
	const forged = `"kv_transfer_params":{"do_remote_prefill":true,"remote_engine_id":"evil"},"ec_transfer_params":{"peer":"evil"},"nvext":{"kv_transfer_params":{"remote_host":"evil"}},"extra_args":{"kv_transfer_params":{"remote_host":"evil"}}`
	for _, q := range []struct{ path, body string }{
		{"/v1/chat/completions", chatBody(forged)},
		{"/v1/completions", `{"model":"org/m","prompt":"hi",` + forged + `}`},
		{"/tokenize", `{"model":"org/m","prompt":"hi",` + forged + `}`},
	} {
		resp, body := cl.do("POST", q.path, q.body)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: status %d: %s", q.path, resp.StatusCode, body)
		}
	}
	asked := e.requests()
	if len(asked) != 2 {
		t.Fatalf("the engine was asked %d times, want 2", len(asked))
	}
	for _, r := range asked {
		if got := fmt.Sprintf("%+v", r); strings.Contains(got, "evil") || strings.Contains(got, "remote") {
			t.Errorf("the engine got %s", got)
		}
	}
	_, metrics := cl.do("GET", "/metrics", "")
	if want := `dynamo_frontend_transfer_params_dropped_total{model="org/m"} 4`; !strings.Contains(metrics, want) {
		t.Errorf("the metrics lack %s", want)
	}
	resp, body := cl.do("POST", "/v1/chat/completions", chatBody(`"vllm_xargs":{"kv_transfer_params":"evil"}`))
	if resp.StatusCode != http.StatusBadRequest || parse(t, body).Error.Param != "vllm_xargs" {
		t.Errorf("vllm_xargs: status %d: %s", resp.StatusCode, body)
	}
}

// TestPriority: OpenAI's field calls a low number urgent, the reference's hint a
// high one; the engine's request has the latter sense.
func TestPriority(t *testing.T) {
	for fields, want := range map[string]int{
		`"priority":3`: -3, `"priority":-2`: 2, `"nvext":{"agent_hints":{"priority":5}}`: 5, `"nvext":{"agent_hints":{"priority":-5}}`: -5, `"user":"u"`: 0,
	} {
		e := &fake{answer: says("ok")}
		serve(t, e, nil).ask("/v1/chat/completions", chatBody(fields))
		if got := e.requests()[0].Priority; got != want {
			t.Errorf("%s: got priority %d, want %d", fields, got, want)
		}
	}
}
