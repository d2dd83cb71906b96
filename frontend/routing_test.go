package frontend

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// twoKeys are the keys "op", of no tenant, and "acme" and "umbra", of tenants of
// their names.
func twoKeys(t testing.TB) *Keys {
	t.Helper()
	keys := NewKeys()
	for _, k := range []struct{ tenant, key string }{{"", "op"}, {"acme", "acme"}, {"umbra", "umbra"}} {
		if err := keys.Add(k.tenant, k.key); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

// as makes the next requests those of a key and a client's name for them.
func (c *client) as(key, name string) *client {
	c.header = http.Header{}
	if key != "" {
		c.header.Set("Authorization", "Bearer "+key)
	}
	if name != "" {
		c.header.Set("X-Request-Id", name)
	}
	return c
}

// TestRoutingArrives wants the engine to be told what the client says about routing,
// in the body and in headers, and whose the request is.
func TestRoutingArrives(t *testing.T) {
	e := &fake{answer: says("x")}
	c := serve(t, e, func(c *Config, _ *Model) {
		c.APIKeys, c.ClusterKey, c.TenantHeader = twoKeys(t), []byte("0123456789abcdef"), "x-tenant-id"
	})
	one := 1
	for _, tt := range []struct {
		key, fields string
		headers     map[string]string
		want        *dynamo.Routing
	}{
		{"op", ``, nil, nil},
		{"acme", ``, nil, &dynamo.Routing{Tenant: "acme"}},
		{"op", `"nvext":{"backend_instance_id":9659163525001158093,"agent_hints":{"osl":40}}`, nil, &dynamo.Routing{Worker: 9659163525001158093, ExpectedOutput: 40}},
		{"acme", `"nvext":{"session_control":{"session_id":"s","action":"bind"}}`, map[string]string{"x-dp-rank": "1"}, &dynamo.Routing{Tenant: "acme", Session: "s", Rank: &one}},
		{"op", `"nvext":{"backend_instance_id":7,"router_config_override":{"policy":"p2c"}}`, map[string]string{"x-dynamo-worker-instance-id": "00000000000000ff"},
			&dynamo.Routing{Worker: 255, Overrides: dynamo.RoutingOverrides{Policy: "p2c"}}},
		{"op", ``, map[string]string{"X-Tenant-Id": "umbra"}, &dynamo.Routing{Tenant: "umbra"}},
		{"acme", ``, map[string]string{"X-Tenant-Id": "umbra"}, &dynamo.Routing{Tenant: "acme"}},
	} {
		c.as(tt.key, "")
		for name, value := range tt.headers {
			c.header.Set(name, value)
		}
		for _, path := range []string{"/v1/chat/completions", "/v1/completions"} {
			body := chatBody(tt.fields)
			if path == "/v1/completions" {
				body = strings.Replace(body, `"messages":[{"role":"user","content":"hi"}]`, `"prompt":["hi","ho"]`, 1)
			}
			before := len(e.requests())
			c.ask(path, body)
			for _, r := range e.requests()[before:] {
				if !reflect.DeepEqual(r.Routing, tt.want) {
					t.Errorf("%s %s %v: got %+v, want %+v", tt.key, body, tt.headers, r.Routing, tt.want)
				}
				if tenanted := tt.want != nil && tt.want.Tenant != ""; (r.Namespace != "") != tenanted {
					t.Errorf("%s %s %v: namespace %q", tt.key, body, tt.headers, r.Namespace)
				}
			}
		}
	}
}

// TestTenantHeader wants a header believed only where the configuration says so.
func TestTenantHeader(t *testing.T) {
	e := &fake{answer: says("x")}
	c := serve(t, e, nil)
	c.header.Set("X-Tenant-Id", "acme")
	c.ask("/v1/chat/completions", chatBody(""))
	if r := e.requests()[0]; r.Routing != nil || r.Namespace != "" {
		t.Errorf("a header that nobody trusts: %+v, namespace %q", r.Routing, r.Namespace)
	}
	for header, key := range map[string]string{"X-Tenant-Id": "short", "x tenant": "0123456789abcdef"} {
		bad := DefaultConfig()
		bad.TenantHeader, bad.ClusterKey = header, []byte(key)
		if _, err := New(bad); err == nil || !strings.Contains(err.Error(), "--trust-tenant-header") {
			t.Errorf("header %q, key of %d bytes: %v", header, len(key), err)
		}
	}
}

// TestRoutingRefused wants faults answered with 400 and the name of the header or
// field, before any work.
func TestRoutingRefused(t *testing.T) {
	e := &fake{answer: says("x")}
	c := serve(t, e, func(c *Config, _ *Model) { c.TenantHeader, c.ClusterKey = "X-Tenant-Id", []byte("0123456789abcdef") })
	for _, tt := range []struct{ header, value, fields, param, message string }{
		{"X-Worker-Instance-Id", "zebra", ``, "x-worker-instance-id", "decimal number"},
		{"X-Dynamo-Routing-Mode", "both", ``, "x-dynamo-routing-mode", "aggregated"},
		{"X-Tenant-Id", "a b", ``, "x-tenant-id", "64 letters"},
		{"", "", `"nvext":{"router_config_override":{"policy":"best"}}`, "nvext.router_config_override.policy", "one of round-robin, random"},
		{"", "", `"nvext":{"router_config_override":{"router_temperature":-1}}`, "nvext.router_config_override.router_temperature", "between 0"},
	} {
		c.header = http.Header{}
		if tt.header != "" {
			c.header.Set(tt.header, tt.value)
		}
		resp, body := c.do("POST", "/v1/chat/completions", chatBody(tt.fields))
		if a := parse(t, body); resp.StatusCode != 400 || a.Error == nil || a.Error.Param != tt.param || !strings.Contains(a.Error.Message, tt.message) {
			t.Errorf("%s %q %s: got %d %s, want 400, param %q, …%s…", tt.header, tt.value, tt.fields, resp.StatusCode, body, tt.param, tt.message)
		}
		if resp.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s %q: asks for a key", tt.header, tt.value)
		}
	}
	if n := len(e.requests()); n != 0 {
		t.Errorf("the engine was asked %d times", n)
	}
}

// nvextBody is an answer or event with its nvext.
type nvextBody struct {
	Choices []struct {
		Index        int
		FinishReason string `json:"finish_reason"`
	}
	Nvext *struct {
		WorkerID map[string]uint64  `json:"worker_id"`
		Timing   map[string]float64 `json:"timing"`
	}
}

// placing is an engine whose choice n is computed by worker 10+n, the prompt by
// prefill if that is not 0.
func placing(prefill dynamo.WorkerID) *fake {
	e := &fake{answer: says("abc")}
	e.before = func(ctx context.Context, r *dynamo.Request, i int) error {
		if i > 0 {
			return nil
		}
		engine.Placed(ctx, 0, nil)
		if prefill != 0 {
			engine.PlacedAt(engine.WithPrefill(ctx), engine.Place{Worker: prefill, Rank: 2, Waiting: 3})
		}
		engine.PlacedAt(ctx, engine.Place{Worker: dynamo.WorkerID(10 + r.Choice), Rank: r.Choice})
		return nil
	}
	return e
}

// TestServedBy wants an answer to say who served it, and how long that took, where
// it was asked to and nowhere else.
func TestServedBy(t *testing.T) {
	const ask = `"nvext":{"extra_fields":["worker_id","timing"]}`
	for _, prefill := range []dynamo.WorkerID{0, math.MaxUint64} {
		c := serve(t, placing(prefill), nil)
		whole := func(fields string) nvextBody {
			_, text := c.do("POST", "/v1/chat/completions", chatBody(fields))
			var b nvextBody
			if err := json.Unmarshal([]byte(text), &b); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			return b
		}
		want := func(choice uint64) map[string]uint64 {
			w := map[string]uint64{"prefill_worker_id": 10 + choice, "prefill_dp_rank": choice, "decode_worker_id": 10 + choice, "decode_dp_rank": choice}
			if prefill != 0 {
				w["prefill_worker_id"], w["prefill_dp_rank"] = uint64(prefill), 2
			}
			return w
		}
		if b := whole(``); b.Nvext != nil {
			t.Errorf("not asked for: %+v", b.Nvext)
		}
		if b := whole(`"nvext":{"extra_fields":["worker_id"]}`); b.Nvext == nil || b.Nvext.Timing != nil || !reflect.DeepEqual(b.Nvext.WorkerID, want(0)) {
			t.Errorf("the worker alone: got %+v, want %v", b.Nvext, want(0))
		}
		b := whole(ask)
		if b.Nvext == nil || !reflect.DeepEqual(b.Nvext.WorkerID, want(0)) {
			t.Fatalf("got %+v, want %v", b.Nvext, want(0))
		}
		m := b.Nvext.Timing
		if sum := m["prefill_wait_time_ms"] + m["prefill_time_ms"]; m["ttft_ms"] <= 0 || math.Abs(sum-m["ttft_ms"]) > 1e-6 || m["total_time_ms"] < m["ttft_ms"] || m["request_received_ms"] < 1e12 {
			t.Errorf("times %v", m)
		}
		// 4 tokens were cached, of <|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n.
		if depth, ok := m["router_queue_depth"]; m["kv_hit_rate"] != 4.0/21 || !ok || depth != map[bool]float64{true: 3}[prefill != 0] {
			t.Errorf("hit rate and queue of %v", m)
		}
		checkServedStream(t, c, ask, want)
	}
}

// checkServedStream wants the same in a stream, in the last event of each choice.
func checkServedStream(t *testing.T, c *client, ask string, want func(choice uint64) map[string]uint64) {
	t.Helper()
	_, text := c.do("POST", "/v1/chat/completions", chatBody(`"n":3,"stream":true,"stream_options":{"include_usage":true},`+ask))
	ended := 0
	for line := range strings.SplitSeq(text, "\n") {
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var b nvextBody
		if err := json.Unmarshal([]byte(data), &b); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		last := len(b.Choices) == 1 && b.Choices[0].FinishReason != ""
		if (b.Nvext != nil) != last {
			t.Errorf("an event that is last of its choice: %t: %s", last, data)
			continue
		}
		if last {
			ended++
			if w := want(uint64(b.Choices[0].Index)); !reflect.DeepEqual(b.Nvext.WorkerID, w) || b.Nvext.Timing["ttft_ms"] <= 0 {
				t.Errorf("got %s, want %v", data, w)
			}
		}
	}
	if ended != 3 {
		t.Errorf("%d choices ended, want 3: %s", ended, text)
	}
}

// TestServedByNobody wants no worker named, and no time of it, where none was told.
func TestServedByNobody(t *testing.T) {
	c := serve(t, &fake{answer: says("abc")}, nil)
	_, text := c.do("POST", "/v1/completions", `{"model":"org/m","prompt":"hi","nvext":{"extra_fields":["worker_id","timing"]}}`)
	if strings.Contains(text, "worker_id") || strings.Contains(text, "prefill_wait") || strings.Contains(text, "queue_depth") || !strings.Contains(text, `"timing":{"request_received_ms":`) {
		t.Errorf("got %s", text)
	}
}

// decided is what a test's router knows of.
type decided struct {
	e    *fake
	lose map[dynamo.RequestID]bool
}

// explain tells of the requests that the engine was asked.
func (d *decided) explain(id dynamo.RequestID) (any, bool) {
	whole, _, _ := strings.Cut(strings.ReplaceAll(string(id), "/", "-"), "-")
	for _, r := range d.e.requests() {
		if r.ID == dynamo.RequestID(whole) && !d.lose[r.ID] {
			return map[string]any{"request": string(id), "winner": "w"}, true
		}
	}
	return nil, false
}

// TestExplain wants a request explained by any of its names to whom it belongs, and
// to nobody else.
func TestExplain(t *testing.T) {
	e := &fake{answer: says("x")}
	d := &decided{e: e}
	c := serve(t, e, func(c *Config, _ *Model) {
		c.APIKeys, c.ClusterKey, c.Explain, c.ExplainKept = twoKeys(t), []byte("0123456789abcdef"), d.explain, 64
		c.RouterState = func() any { return map[string]int{"workers": 3} }
		c.RouterRecords = func() any { return map[string][]byte{"records": {1}} }
	})
	send := func(key, name string) (id string) {
		a := c.as(key, name).ask("/v1/chat/completions", chatBody(""))
		return strings.TrimPrefix(a.ID, "chatcmpl-")
	}
	op, acme, first, umbra := send("op", "mine"), send("acme", ""), send("acme", "mine"), send("umbra", "mine")
	second := send("acme", "mine")
	for _, tt := range []struct{ key, name, want string }{
		{"op", op, op}, {"op", acme, acme}, {"op", "mine", second}, {"op", "chatcmpl-" + umbra, umbra}, {"op", acme + "-1%2F0", acme + "-1/0"},
		{"acme", acme, acme}, {"acme", "mine", second}, {"acme", first, first}, {"acme", "chatcmpl-" + first, first}, {"acme", first + "%2F1", first + "/1"},
		{"umbra", "mine", umbra}, {"umbra", umbra, umbra},
		{"acme", umbra, ""}, {"acme", op, ""}, {"umbra", first, ""}, {"umbra", acme + "%2F0", ""}, {"umbra", "chatcmpl-" + acme, ""}, {"umbra", "x", ""},
		{"op", strings.Repeat("0", 32), ""}, {"op", "nobody's", ""},
	} {
		resp, body := c.as(tt.key, "").do("GET", "/v1/requests/"+tt.name+"/explain", "")
		if tt.want == "" {
			if a := parse(t, body); resp.StatusCode != 404 || a.Error == nil || a.Error.Code != "unknown_request" || !strings.Contains(a.Error.Message, "the last 64 decisions") {
				t.Errorf("%s asks for %s: got %d %s, want 404", tt.key, tt.name, resp.StatusCode, body)
			}
			continue
		}
		if want := fmt.Sprintf(`{"request":%q,"winner":"w"}`, tt.want); resp.StatusCode != 200 || body != want {
			t.Errorf("%s asks for %s: got %d %s, want %s", tt.key, tt.name, resp.StatusCode, body, want)
		}
	}
	for key, want := range map[string]int{"op": 200, "acme": 403, "": 401, "wrong": 401} {
		if resp, body := c.as(key, "").do("GET", "/v1/router", ""); resp.StatusCode != want || want == 200 && body != `{"workers":3}` {
			t.Errorf("the router's state with key %q: got %d %s, want %d", key, resp.StatusCode, body, want)
		}
		if resp, body := c.as(key, "").do("GET", "/v1/router/records", ""); resp.StatusCode != want || want == 200 && body != `{"records":"AQ=="}` {
			t.Errorf("the decisions' records with key %q: got %d %s, want %d", key, resp.StatusCode, body, want)
		}
	}
	if resp, _ := c.as("wrong", "").do("GET", "/v1/requests/"+op+"/explain", ""); resp.StatusCode != 401 {
		t.Errorf("a wrong key is answered with %d", resp.StatusCode)
	}
}

// TestExplainForgets wants a tenant's old requests forgotten, and none mistaken for
// another that has taken its place or its name.
func TestExplainForgets(t *testing.T) {
	e := &fake{answer: says("x")}
	d := &decided{e: e}
	c := serve(t, e, func(c *Config, _ *Model) {
		c.APIKeys, c.ClusterKey, c.Explain, c.ExplainKept = twoKeys(t), []byte("0123456789abcdef"), d.explain, 3
	})
	ids := map[string]string{}
	for i, name := range []string{"a", "b", "b", "c", "d", "a"} {
		a := c.as("acme", name).ask("/v1/chat/completions", chatBody(""))
		ids[fmt.Sprint(i)] = strings.TrimPrefix(a.ID, "chatcmpl-")
		if i == 4 { // the first b has been forgotten, the second has the name
			if _, body := c.as("acme", "").do("GET", "/v1/requests/b/explain", ""); !strings.Contains(body, ids["2"]) {
				t.Errorf("b: got %s, want %s", body, ids["2"])
			}
		}
	}
	// Left are the last three: c, d and the second a.
	for name, want := range map[string]string{"a": ids["5"], "b": "", "c": ids["3"], "d": ids["4"], ids["0"]: "", ids["2"]: "", ids["3"]: ids["3"]} {
		resp, body := c.as("acme", "").do("GET", "/v1/requests/"+name+"/explain", "")
		if (resp.StatusCode == 200) != (want != "") || want != "" && !strings.Contains(body, want) {
			t.Errorf("%s: got %d %s, want %q", name, resp.StatusCode, body, want)
		}
	}
}

// TestNoExplain wants the routes missing where nothing is told.
func TestNoExplain(t *testing.T) {
	c := serve(t, &fake{answer: says("x")}, nil)
	for _, path := range []string{"/v1/requests/x/explain", "/v1/router", "/v1/router/records"} {
		if resp, body := c.do("GET", path, ""); resp.StatusCode != 404 || !strings.Contains(body, "unknown_url") {
			t.Errorf("%s: got %d %s", path, resp.StatusCode, body)
		}
	}
	c = serve(t, &fake{answer: says("x")}, func(c *Config, _ *Model) { c.RouterState = func() any { return math.NaN() } })
	if resp, body := c.do("GET", "/v1/router", ""); resp.StatusCode != 500 || !strings.Contains(body, "its log says more") {
		t.Errorf("a state that is not JSON: got %d %s", resp.StatusCode, body)
	}
}

// TestSameRequestID wants requests of one x-request-id at the same time to be
// different ones to everything behind the frontend.
func TestSameRequestID(t *testing.T) {
	e := &fake{answer: says("x")}
	c := serve(t, e, nil)
	c.header.Set("X-Request-Id", "same")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if resp, _ := c.do("POST", "/v1/chat/completions", chatBody("")); resp.Header.Get("X-Request-Id") != "same" {
				t.Errorf("answered as %q", resp.Header.Get("X-Request-Id"))
			}
		})
	}
	all.Wait()
	seen := map[dynamo.RequestID]bool{}
	for _, r := range e.requests() {
		if seen[r.ID] || len(r.ID) != 32 {
			t.Errorf("the id %q is not its own", r.ID)
		}
		seen[r.ID] = true
	}
}
