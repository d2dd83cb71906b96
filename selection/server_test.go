package selection_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/selection"
	"github.com/dynamo-go/dynamo/tokens"
)

const blockSize = 4

// service is a server over one model with three workers of two places each.
type service struct {
	t        testing.TB
	server   *selection.Server
	router   *router.Router
	registry *obs.Registry
}

func open(t testing.TB, change func(*selection.Config, *router.Config)) *service {
	t.Helper()
	s := &service{t: t, registry: obs.NewRegistry()}
	c, rc := selection.DefaultConfig(), router.DefaultConfig()
	c.Registry, rc.Model, rc.PredictTTL, rc.Wait = s.registry, "m", 0, 2*time.Second
	c.Addresses = func(id dynamo.WorkerID, epoch uint64) []string {
		return []string{fmt.Sprintf("tcp://host%d:%d", id, epoch)}
	}
	if change != nil {
		change(&c, &rc)
	}
	var err error
	if s.router, err = router.New(rc); err != nil {
		t.Fatal(err)
	}
	for id := range dynamo.WorkerID(3) {
		addTo(t, s.router, "m", id+1)
	}
	c.Explain = func(id dynamo.RequestID) (any, bool) { return s.router.Explain(id) }
	c.State = func() any { return s.router.State() }
	if s.server, err = selection.New(c); err != nil {
		t.Fatal(err)
	}
	s.server.AddModel(&selection.Model{Name: "m", Router: s.router, ContextLength: 4096})
	return s
}

// addTo adds a worker with two places.
func addTo(t testing.TB, r *router.Router, model string, id dynamo.WorkerID) {
	t.Helper()
	w := router.Worker{ID: id, Epoch: 1, Card: engine.Card{Model: model, BlockSize: blockSize, ContextLength: 4096}, MaxRunning: 2, Labels: map[string]string{"zone": fmt.Sprint(uint64(id))}}
	if err := r.Add(w); err != nil {
		t.Fatal(err)
	}
	r.SetUp(w.ID, 1, true)
}

// call sends a request and returns its status and answer.
func (s *service) call(method, path, body string) (int, map[string]any, http.Header) {
	s.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	w := httptest.NewRecorder()
	s.server.Handler().ServeHTTP(w, r)
	var v any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		s.t.Fatalf("%s %s: %d, not JSON: %q", method, path, w.Code, w.Body)
	}
	m, _ := v.(map[string]any)
	return w.Code, m, w.Header()
}

// direct is a client of the handler, without a network.
func (s *service) direct() *http.Client {
	return &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		s.server.Handler().ServeHTTP(w, r)
		return w.Result(), nil
	})}
}

type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// wants fails unless the answer has that status, and returns it.
func (s *service) wants(status int, method, path, body string) map[string]any {
	s.t.Helper()
	got, answer, _ := s.call(method, path, body)
	if got != status {
		s.t.Errorf("%s %s %s: got %d %v, want %d", method, path, body, got, answer, status)
	}
	return answer
}

// metric reads a value from /metrics.
func (s *service) metric(name string) string {
	w := httptest.NewRecorder()
	s.server.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// quiet fails if anything is booked.
func (s *service) quiet() {
	s.t.Helper()
	if st := s.router.Stats(); st.Booked+st.BookedTokens+st.Waiting != 0 {
		s.t.Errorf("nothing runs, and the router has %+v", st)
	}
	if got := s.metric("dynamo_selection_reservations"); got != "0" {
		s.t.Errorf("nothing runs, and %s reservations are open", got)
	}
}

// holds has a worker say that it holds the blocks of a prompt of n tokens 1, 2, 3…
func (s *service) holds(id dynamo.WorkerID, ids []dynamo.TokenID) {
	s.t.Helper()
	b := event.KVBatch{BlockSize: blockSize}
	e := event.KVEvent{Kind: kvbm.Stored}
	for _, block := range tokens.AppendBlocks(nil, 0, blockSize, ids) {
		e.Blocks = append(e.Blocks, event.KVBlock{Block: block})
	}
	b.Events = append(b.Events, e)
	ctx, cancel := context.WithCancel(s.t.Context())
	_ = s.router.FollowKV(ctx, event.DefaultFollowConfig(event.Source{Worker: id, Epoch: 1}, func(context.Context, event.Source, event.Position) iter.Seq2[event.Delivery, error] {
		return func(yield func(event.Delivery, error) bool) {
			if !yield(event.Delivery{Kind: event.Event, Payload: b.Append(nil)}, nil) {
				s.t.Error("the blocks of a worker are refused")
			}
			cancel()
		}
	}), nil)
}

var prompt = []dynamo.TokenID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}

// The whole life of a reservation, as a gateway sees it.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		s.holds(2, prompt)
		x := s.wants(201, "POST", "/select_and_reserve", `{"model":"m","request_id":"q1","token_ids":[1,2,3,4,5,6,7,8,9,10],"expected_output":5}`)
		overlap, _ := x["overlap"].(map[string]any)
		blocks, _ := overlap["blocks"].(map[string]any)
		for _, f := range []struct{ got, want any }{
			{x["worker_id"], 2.0}, {x["worker"], "0000000000000002"}, {x["endpoint"], "tcp://host2:1"}, {x["reservation_id"], "q1"}, {x["selection_id"], "q1"},
			{x["effective_prefill_tokens"], 2.0}, {x["isl_tokens"], 10.0}, {overlap["longest_matched"], 8.0}, {overlap["gpu"], 8.0}, {blocks["gpu"], 2.0}, {x["dp_rank"], 0.0},
		} {
			if f.got != f.want {
				t.Errorf("got %v, want %v, in %v", f.got, f.want, x)
			}
		}
		s.wants(409, "POST", "/select_and_reserve", `{"request_id":"q1","token_ids":[1]}`)
		if a := s.wants(200, "POST", "/reservations/q1/prefill_complete", `{"cached_tokens":8}`); a["applied"] != true || a["lease_until"] == nil {
			t.Errorf("first token: %v", a)
		}
		if a := s.wants(200, "POST", "/reservations/q1/prefill_complete", ""); a["applied"] != false {
			t.Errorf("first token again: %v", a)
		}
		s.wants(200, "POST", "/reservations/q1/output_block", `{"decay_fraction":0.5}`)
		s.wants(200, "POST", "/reservations/q1/output_block", `{"tokens":3}`)
		loads := httptest.NewRecorder()
		s.server.Handler().ServeHTTP(loads, httptest.NewRequest("GET", "/loads", nil))
		if want := `"active_requests":1,"booked_tokens":2058,"active_prefill_tokens":0,"active_decode_tokens":17`; !bytes.Contains(loads.Body.Bytes(), []byte(want)) {
			t.Errorf("loads: %s, want %s", loads.Body, want)
		}
		if a := s.wants(200, "DELETE", "/reservations/q1?end=completed&output_tokens=7", ""); a["applied"] != true || a["end"] != "completed" {
			t.Errorf("release: %v", a)
		}
		if a := s.wants(200, "DELETE", "/reservations/q1?end=failed", ""); a["applied"] != false || a["end"] != "completed" {
			t.Errorf("second release: %v", a)
		}
		if a := s.wants(200, "POST", "/reservations/q1/output_block", `{"tokens":3}`); a["applied"] != false {
			t.Errorf("a block after the end: %v", a)
		}
		why := s.wants(200, "GET", "/v1/requests/q1/explain", "")
		if text := fmt.Sprint(why); !strings.Contains(text, "outcome:completed") || !strings.Contains(text, "observed_cached_tokens:8") {
			t.Errorf("explanation: %v", text)
		}
		if got := s.metric("dynamo_selection_late_calls_total"); got != "3" {
			t.Errorf("late calls: %s, want 3", got)
		}
		s.quiet()
		s.wants(201, "POST", "/reservations", `{"request_id":"q1","token_ids":[1,2],"worker_id":"0000000000000003","lease_seconds":2}`)
		time.Sleep(time.Hour)
		if a := s.wants(200, "DELETE", "/reservations/q1", ""); a["applied"] != false || a["end"] != "expired" {
			t.Errorf("after its lease: %v", a)
		}
		if got := s.metric(`dynamo_selection_reservations_ended_total{end="expired"}`); got != "1" {
			t.Errorf("expired: %s, want 1", got)
		}
		s.quiet()
	})
}

// What cannot be answered says by its status and its field why.
func TestRefusals(t *testing.T) {
	s := open(t, func(c *selection.Config, _ *router.Config) { c.Reservations = 7 })
	for _, tc := range []struct {
		method, path, body string
		status             int
		param              string
	}{
		{"POST", "/select", ``, 400, ""},
		{"POST", "/select", `[]`, 400, ""},
		{"POST", "/select", `{"token_ids":[1]`, 400, ""},
		{"POST", "/select", `{"token_ids":[1]}{}`, 400, ""},
		{"POST", "/select", `{}`, 400, "token_ids"},
		{"POST", "/select", `{"token_ids":[1],"text":"a"}`, 400, "token_ids"},
		{"POST", "/select", `{"token_ids":[1,-1]}`, 400, "token_ids[1]"},
		{"POST", "/select", `{"token_ids":[1,4294967296]}`, 400, "token_ids[1]"},
		{"POST", "/select", `{"token_ids":"a"}`, 400, "token_ids"},
		{"POST", "/select", `{"tokens":[1]}`, 400, "tokens"},
		{"POST", "/select", `{"token_ids":[1],"token_ids":[2]}`, 400, "token_ids"},
		{"POST", "/select", `{"token_ids":[1],"model":"other"}`, 404, "model"},
		{"POST", "/select", `{"token_ids":[1],"worker_id":77}`, 404, ""},
		{"POST", "/select", `{"token_ids":[1],"worker_id":-1}`, 400, "worker_id"},
		{"POST", "/select", `{"token_ids":[1],"worker_id":"x"}`, 400, "worker_id"},
		{"POST", "/select", `{"token_ids":[1],"worker_id":1e3}`, 400, "worker_id"},
		{"POST", "/select", `{"token_ids":[1],"dp_rank":0}`, 400, "dp_rank"},
		{"POST", "/select", `{"token_ids":[1],"worker_id":1,"dp_rank":-1}`, 400, "dp_rank"},
		{"POST", "/select", `{"token_ids":[1],"request_id":"a/b"}`, 400, "request_id"},
		{"POST", "/select", `{"token_ids":[1],"tenant":"a b"}`, 400, "tenant"},
		{"POST", "/select", `{"token_ids":[1],"routing_group":"g"}`, 400, "routing_group"},
		{"POST", "/select", `{"token_ids":[1],"role":"x"}`, 400, "role"},
		{"POST", "/select", `{"token_ids":[1],"role":"prefill"}`, 503, "role"},
		{"POST", "/select", `{"token_ids":[1],"expected_output":-1}`, 400, "expected_output"},
		{"POST", "/select", `{"token_ids":[1],"lease_seconds":1e9}`, 400, "lease_seconds"},
		{"POST", "/select", `{"token_ids":[1],"router_config_override":{"policy":"x"}}`, 400, ""},
		{"POST", "/select", `{"token_ids":[1],"router_config_override":{"router_temperature":-1}}`, 400, "router_config_override.router_temperature"},
		{"POST", "/select", `{"token_ids":[1],"routing_constraints":{"required_taints":["x"]}}`, 400, "routing_constraints.required_taints"},
		{"POST", "/select", `{"token_ids":[1],"routing_constraints":{"preferred_taints":{"a=b":2}}}`, 400, "routing_constraints.preferred_taints"},
		{"POST", "/select", `{"token_ids":[1],"routing_constraints":{"required_taints":["zone=9"]}}`, 503, ""},
		{"POST", "/select", `{"block_hashes":[1]}`, 400, "block_size"},
		{"POST", "/select", `{"block_hashes":[1],"block_size":4,"isl_tokens":9}`, 400, "isl_tokens"},
		{"POST", "/select", `{"block_hashes":[1,2],"block_size":9999999}`, 400, "block_size"},
		{"POST", "/select", `{"text":"abc"}`, 400, "text"},
		{"POST", "/select", `{"messages":[{"role":"user","content":"a"}]}`, 400, "messages"},
		{"POST", "/select", `{"token_ids":[` + strings.Repeat("1,", 5000) + `1]}`, 400, "token_ids"}, // beyond the context
		{"POST", "/reservations", `{"token_ids":[1]}`, 400, "worker_id"},
		{"DELETE", "/reservations/none", ``, 404, "reservation_id"},
		{"DELETE", "/reservations/none?end=x", ``, 400, "end"},
		{"DELETE", "/reservations/none?output_tokens=x", ``, 400, "output_tokens"},
		{"POST", "/reservations/none/prefill_complete", ``, 404, "reservation_id"},
		{"POST", "/reservations/none/prefill_complete", `{"cached_tokens":-1}`, 400, "cached_tokens"},
		{"POST", "/reservations/none/output_block", `{"decay_fraction":2}`, 400, "decay_fraction"},
		{"GET", "/v1/requests/none/explain", ``, 404, "request_id"},
		{"GET", "/select", ``, 405, ""},
		{"GET", "/none", ``, 404, ""},
	} {
		status, answer, _ := s.call(tc.method, tc.path, tc.body)
		e, _ := answer["error"].(map[string]any)
		param, _ := e["param"].(string)
		if status != tc.status || param != tc.param || e["message"] == "" {
			t.Errorf("%s %s %.80s: got %d %v, want %d about %q", tc.method, tc.path, tc.body, status, answer, tc.status, tc.param)
		}
	}
	for i := range 6 {
		s.wants(201, "POST", "/select_and_reserve", fmt.Sprintf(`{"token_ids":[1],"request_id":"r%d"}`, i))
	}
	status, answer, h := s.call("POST", "/select_and_reserve", `{"token_ids":[1]}`)
	if status != 429 || h.Get("Retry-After") == "" {
		t.Errorf("when all are full: %d %v, Retry-After %q", status, answer, h.Get("Retry-After"))
	}
	s.wants(429, "POST", "/select", `{"token_ids":[1]}`)
	s.wants(200, "DELETE", "/reservations/r0", "")
	s.wants(200, "POST", "/select", `{"token_ids":[1]}`)
	for id := range dynamo.WorkerID(3) {
		s.router.SetUp(id+1, 1, false)
	}
	s.wants(503, "POST", "/select", `{"token_ids":[1]}`)
	s.server.RemoveModel("m")
	s.wants(503, "POST", "/select", `{"token_ids":[1]}`)
	s.wants(503, "GET", "/ready", "")
	s.wants(200, "GET", "/live", "")
	for i := range 5 {
		s.wants(200, "DELETE", fmt.Sprintf("/reservations/r%d?end=cancelled", i+1), "")
	}
	s.quiet()
}

// There are no more reservations than there may be.
func TestReservationsBounded(t *testing.T) {
	s := open(t, func(c *selection.Config, _ *router.Config) { c.Reservations = 2 })
	for _, id := range []string{"a", "b"} {
		s.wants(201, "POST", "/select_and_reserve", `{"token_ids":[1],"request_id":"`+id+`"}`)
	}
	if a := s.wants(429, "POST", "/select_and_reserve", `{"token_ids":[1]}`); !strings.Contains(fmt.Sprint(a), "--max-reservations") {
		t.Errorf("too many: %v", a)
	}
	s.wants(200, "DELETE", "/reservations/a", "")
	s.wants(201, "POST", "/select_and_reserve", `{"token_ids":[1],"request_id":"c"}`)
	s.wants(200, "DELETE", "/reservations/b", "")
	s.wants(200, "DELETE", "/reservations/c", "")
	s.quiet()
}

// The same prompt gives the same scores as ids and as hashes, and says what it would
// mean where; nothing is booked by asking.
func TestScores(t *testing.T) {
	s := open(t, nil)
	s.holds(2, prompt)
	hashes := tokens.AppendHashes(nil, 0, blockSize, prompt)
	byHash := fmt.Sprintf(`{"block_hashes":["%v",%d],"block_size":4,"isl_tokens":10}`, hashes[0], int64(hashes[1]))
	for _, body := range []string{`{"token_ids":[1,2,3,4,5,6,7,8,9,10]}`, byHash} {
		x := s.wants(200, "POST", "/overlap_scores", body)
		if text := fmt.Sprint(x["scores"]); strings.Count(text, "longest_matched:8") != 1 || strings.Count(text, "longest_matched:0") != 2 {
			t.Errorf("scores: %v", text)
		}
		y := s.wants(200, "POST", "/potential_loads", body)
		if text := fmt.Sprint(y["loads"]); strings.Count(text, "potential_prefill_tokens:2") != 1 || strings.Count(text, "potential_prefill_tokens:10") != 2 || strings.Count(text, "verdict:fit") != 3 {
			t.Errorf("loads: %v", text)
		}
		if z := s.wants(200, "POST", "/select", body); z["worker_id"] != 2.0 {
			t.Errorf("selected: %v", z)
		}
	}
	other := strings.Replace(byHash, `{"block`, `{"cache_salt":"s","block`, 1)
	s.wants(200, "POST", "/overlap_scores", other) // who hashes has salted
	if x := s.wants(200, "POST", "/overlap_scores", `{"cache_salt":"s","token_ids":[1,2,3,4,5,6,7,8,9,10]}`); strings.Contains(fmt.Sprint(x), "longest_matched:8") {
		t.Errorf("another cache: %v", x)
	}
	if w := s.wants(200, "GET", "/workers", ""); strings.Count(fmt.Sprint(w), "state:up") != 3 {
		t.Errorf("workers: %v", w)
	}
	if z := s.wants(200, "POST", "/select", `{"token_ids":[1],"routing_constraints":{"required_taints":["dynamo.topology/zone=3"]}}`); z["worker_id"] != 3.0 {
		t.Errorf("in zone 3: %v", z)
	}
	s.wants(200, "GET", "/v1/router", "")
	s.quiet()
}

// Where there is a key, whoever lacks it learns nothing but that the server lives.
func TestKey(t *testing.T) {
	s := open(t, func(c *selection.Config, _ *router.Config) { c.Key = "secret" })
	for _, path := range []string{"/workers", "/loads", "/v1/router", "/v1/requests/a/explain"} {
		s.wants(401, "GET", path, "")
	}
	s.wants(401, "POST", "/select", `{"token_ids":[1]}`)
	s.wants(200, "GET", "/health", "")
	r := httptest.NewRequest("GET", "/workers", nil)
	r.Header.Set("Authorization", "Bearer secret")
	w := httptest.NewRecorder()
	s.server.Handler().ServeHTTP(w, r)
	if w.Code != 200 {
		t.Errorf("with the key: %d %s", w.Code, w.Body)
	}
}

// One that waits gets the place that is given back; one whose client leaves meanwhile
// keeps none; and a server that stops has nothing booked.
func TestServe(t *testing.T) {
	s := open(t, func(_ *selection.Config, rc *router.Config) { rc.Wait = time.Minute })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(ctx, l) }()
	post := func(ctx context.Context, path, body string) (int, error) {
		r, err := http.NewRequestWithContext(ctx, "POST", "http://"+l.Addr().String()+path, strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err
		}
		return answer.StatusCode, answer.Body.Close()
	}
	for i := range 6 {
		if status, err := post(ctx, "/select_and_reserve", fmt.Sprintf(`{"token_ids":[1],"request_id":"r%d"}`, i)); status != 201 {
			t.Fatal(status, err)
		}
	}
	leaves, leave := context.WithCancel(ctx)
	left := make(chan error, 1)
	go func() {
		_, err := post(leaves, "/select_and_reserve", `{"token_ids":[1],"wait":true}`)
		left <- err
	}()
	until(t, func() bool { return s.router.Stats().Waiting == 1 })
	leave()
	if err := <-left; err == nil {
		t.Error("one that left was answered")
	}
	until(t, func() bool { return s.router.Stats().Waiting == 0 })
	stays := make(chan int, 1)
	go func() {
		status, _ := post(ctx, "/select_and_reserve", `{"token_ids":[1],"wait":true}`)
		stays <- status
	}()
	until(t, func() bool { return s.router.Stats().Waiting == 1 })
	s.wants(200, "DELETE", "/reservations/r3", "")
	if status := <-stays; status != 201 {
		t.Errorf("one that waited: %d", status)
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
	s.quiet()
	s.wants(503, "POST", "/select", `{"token_ids":[1]}`)
}

// A client that leaves just as it gets its place keeps none.
func TestGone(t *testing.T) {
	s := open(t, nil)
	r := httptest.NewRequestWithContext(&leaving{Context: t.Context()}, "POST", "/select_and_reserve", strings.NewReader(`{"token_ids":[1],"request_id":"gone"}`))
	w := httptest.NewRecorder()
	s.server.Handler().ServeHTTP(w, r)
	if a := s.wants(200, "DELETE", "/reservations/gone", ""); w.Code < 400 || a["applied"] != false || a["end"] != "cancelled" {
		t.Errorf("one that left: answered %d %s, its reservation %v", w.Code, w.Body, a)
	}
	s.quiet()
}

// leaving is the context of a client that is there when it is looked at first, which is
// before anything is booked, and gone from then on.
type leaving struct {
	context.Context
	looked atomic.Bool
}

// Err implements context.Context.
func (l *leaving) Err() error {
	if l.looked.Swap(true) {
		return context.Canceled
	}
	return nil
}

// until waits for something that comes soon.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come")
		}
	}
}
