package openai

import (
	"bytes"
	"encoding/json"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
)

func pointer[T any](v T) *T { return &v }

// nvext decodes a chat request with the given members of nvext, and the headers.
func nvext(t *testing.T, members string, headers ...string) (*Params, error) {
	t.Helper()
	r, err := DecodeChat([]byte(`{"model":"m","nvext":{` + members + `},` + hi + `}`))
	if err != nil {
		return nil, err
	}
	h := http.Header{}
	for i := 0; i < len(headers); i += 2 {
		h.Set(headers[i], headers[i+1])
	}
	return &r.Params, r.TakeHeaders(h)
}

func TestRouting(t *testing.T) {
	const big = 9659163525001158093
	for _, tt := range []struct {
		members string
		headers []string
		want    *dynamo.Routing
	}{
		{``, nil, nil},
		{`"agent_hints":{"priority":3,"strict_priority":0,"osl":0,"latency_sensitivity":2.5,"speculative_prefill":true,"zzz":{}},"zzz":1`, nil, nil},
		{`"backend_instance_id":9659163525001158093`, nil, &dynamo.Routing{Worker: big}},
		{`"backend_instance_id":7,"decode_worker_id":7`, nil, &dynamo.Routing{Worker: 7}},
		{`"decode_worker_id":"00000000000000ff","prefill_worker_id":"860C3E0CAF1A9DCD"`, nil, &dynamo.Routing{Worker: 255, PrefillWorker: 0x860c3e0caf1a9dcd}},
		{`"decode_worker_id":"0x10","prefill_worker_id":"0000000000000010"`, nil, &dynamo.Routing{Worker: 16, PrefillWorker: 16}},
		{`"decode_worker_id":"2173882273627495"`, nil, &dynamo.Routing{Worker: 2173882273627495}},
		{`"dp_rank":0,"prefill_dp_rank":3`, nil, &dynamo.Routing{Rank: pointer(0), PrefillRank: pointer(3)}},
		{`"dp_rank":4294967295`, nil, nil},
		{`"agent_hints":{"strict_priority":2,"osl":900}`, nil, &dynamo.Routing{StrictPriority: 2, ExpectedOutput: 900}},
		{`"session_control":{"session_id":"s-1","action":"bind","timeout":300}`, nil, &dynamo.Routing{Session: "s-1"}},
		{`"session_control":{"session_id":"s-1"}`, nil, &dynamo.Routing{Session: "s-1"}},
		{`"router_config_override":{"overlap_score_credit":0.5,"router_temperature":0,"prefill_load_scale":2,"policy":"least-loaded"}`, nil,
			&dynamo.Routing{Overrides: dynamo.RoutingOverrides{Policy: "least-loaded", OverlapCredit: pointer(0.5), Temperature: pointer(0.0), PrefillLoadScale: pointer(2.0)}}},
		{`"router_config_override":{"overlap_score_weight":1.5}`, nil, &dynamo.Routing{Overrides: dynamo.RoutingOverrides{PrefillLoadScale: pointer(1.5)}}},
		{`"routing_constraints":{"required_taints":["dynamo.topology/zone=a","zone=a","gpu=h200"],"preferred_taints":{"rack=7":0.25,"dynamo.topology/rack=7":0.5}}`, nil,
			&dynamo.Routing{RequiredLabels: []string{"zone=a", "gpu=h200"}, PreferredLabels: []dynamo.LabelPreference{{Label: "rack=7", Weight: 0.5}}}},

		{``, []string{"x-dynamo-worker-instance-id", "9659163525001158093", "x-dynamo-prefill-instance-id", "00000000000000ff"}, &dynamo.Routing{Worker: big, PrefillWorker: 255}},
		{`"backend_instance_id":7,"prefill_worker_id":8,"dp_rank":1,"prefill_dp_rank":1,"session_control":{"session_id":"s-1"},"agent_hints":{"strict_priority":2,"osl":5}`,
			[]string{
				"x-worker-instance-id", "17", "x-prefill-instance-id", "18", "x-dp-rank", "11", "x-prefill-dp-rank", "12",
				"X-Dynamo-Session-ID", "s-2", "x-dynamo-request-strict-priority", "0", "x-dynamo-routing-mode", "Disaggregated",
			},
			&dynamo.Routing{Worker: 17, PrefillWorker: 18, Rank: pointer(11), PrefillRank: pointer(12), Session: "s-2", ExpectedOutput: 5, Mode: dynamo.RoutingDisaggregated}},
		{``, []string{"x-dynamo-worker-instance-id", "1", "x-worker-instance-id", "2", "x-data-parallel-rank", "4", "x-dp-rank", "3"}, &dynamo.Routing{Worker: 1, Rank: pointer(3)}},
		{`"prefill_dp_rank":1`, []string{"x-dynamo-prefill-dp-rank", "4294967295", "x-dynamo-dp-rank", ""}, &dynamo.Routing{PrefillRank: pointer(1)}},
	} {
		got, err := nvext(t, tt.members, tt.headers...)
		if err != nil || !reflect.DeepEqual(got.Routing, tt.want) {
			t.Errorf("%s %v: got %+v, %v, want %+v", tt.members, tt.headers, got, err, tt.want)
		}
	}
	if p, err := nvext(t, `"agent_hints":{"priority":3}`, "x-dynamo-request-priority", "-4"); err != nil || p.Priority != -4 || p.Routing != nil {
		t.Errorf("a header's priority: got %+v, %v, want -4", p, err)
	}
	if p, err := nvext(t, `"extra_fields":["worker_id","zzz"]`); err != nil || !p.ShowWorker || p.ShowTiming {
		t.Errorf("extra_fields: got %+v, %v", p, err)
	}
}

// TestRoutingFaults wants what cannot be meant refused, by the field's name, and
// with what is allowed.
func TestRoutingFaults(t *testing.T) {
	for _, tt := range []struct{ members, header, value, param, message string }{
		{`"backend_instance_id":0`, "", "", "nvext.backend_instance_id", "decimal number from 1 to"},
		{`"backend_instance_id":-1`, "", "", "nvext.backend_instance_id", "decimal number from 1 to"},
		{`"backend_instance_id":1.5`, "", "", "nvext.backend_instance_id", "decimal number from 1 to"},
		{`"backend_instance_id":18446744073709551616`, "", "", "nvext.backend_instance_id", "18446744073709551615"},
		{`"backend_instance_id":[]`, "", "", "nvext.backend_instance_id", "a worker's id, not an array"},
		{`"decode_worker_id":"zebra"`, "", "", "nvext.decode_worker_id", "16 hexadecimal digits"},
		{`"decode_worker_id":"0000000000000000"`, "", "", "nvext.decode_worker_id", "no worker's id"},
		{`"decode_worker_id":1,"backend_instance_id":2`, "", "", "nvext.backend_instance_id", "differ"},
		{`"dp_rank":-1`, "", "", "nvext.dp_rank", "between 0"},
		{`"prefill_dp_rank":70000`, "", "", "nvext.prefill_dp_rank", "between 0 and 65535"},
		{`"agent_hints":{"osl":-5}`, "", "", "nvext.agent_hints.osl", "between 0"},
		{`"agent_hints":{"strict_priority":-1}`, "", "", "nvext.agent_hints.strict_priority", "between 0"},
		{`"agent_hints":{"latency_sensitivity":"high"}`, "", "", "nvext.agent_hints.latency_sensitivity", "a number"},
		{`"session_control":{"action":"bind"}`, "", "", "nvext.session_control.session_id", "1 to 256"},
		{`"session_control":{"session_id":"` + strings.Repeat("s", 257) + `"}`, "", "", "nvext.session_control.session_id", "1 to 256"},
		{`"session_control":{"session_id":"s","action":"open"}`, "", "", "nvext.session_control.action", `must be "bind"`},
		{`"router_config_override":{"router_temperature":-1}`, "", "", "nvext.router_config_override.router_temperature", "between 0 and 1e+06"},
		{`"router_config_override":{"overlap_score_credit":1e400}`, "", "", "nvext.router_config_override.overlap_score_credit", "between 0 and"},
		{`"router_config_override":{"prefill_load_scale":NaN}`, "", "", "nvext.router_config_override.prefill_load_scale", "not valid JSON"},
		{`"router_config_override":{"policy":"K V"}`, "", "", "nvext.router_config_override.policy", "name of a router policy"},
		{`"router_config_override":{"assume_kv_reuse":true}`, "", "", "nvext.router_config_override.assume_kv_reuse", "not supported"},
		{`"router_config_override":{"zzz":1}`, "", "", "nvext.router_config_override.zzz", "it has policy, overlap_score_credit"},
		{`"routing_constraints":{"required_taints":["zone"]}`, "", "", "nvext.routing_constraints.required_taints[0]", "key=value"},
		{`"routing_constraints":{"required_taints":["a=b"` + strings.Repeat(`,"a=b"`, MaxLabels) + `]}`, "", "", "nvext.routing_constraints.required_taints", "more than 32"},
		{`"routing_constraints":{"preferred_taints":{"=a":1}}`, "", "", "nvext.routing_constraints.preferred_taints", "key=value"},
		{`"routing_constraints":{"preferred_taints":{"a=b":2}}`, "", "", "nvext.routing_constraints.preferred_taints.a=b", "between 0 and 1"},
		{`"routing_constraints":{"zzz":[]}`, "", "", "nvext.routing_constraints.zzz", "required_taints and preferred_taints"},
		{`"extra_fields":"timing"`, "", "", "nvext.extra_fields", "an array of strings"},
		{``, "X-Dynamo-Worker-Instance-Id", "zebra", "x-dynamo-worker-instance-id", "decimal number"},
		{``, "X-Worker-Instance-Id", "0", "x-worker-instance-id", "decimal number"},
		{``, "X-Dynamo-Prefill-Instance-Id", "1 2", "x-dynamo-prefill-instance-id", "16 hexadecimal"},
		{``, "X-Dp-Rank", "one", "x-dp-rank", "an integer between 0"},
		{``, "X-Dynamo-Prefill-Dp-Rank", "65536", "x-dynamo-prefill-dp-rank", "between 0 and 65535"},
		{``, "X-Dynamo-Request-Priority", "2147483648", "x-dynamo-request-priority", "between -2147483648 and 2147483647"},
		{``, "X-Dynamo-Request-Strict-Priority", "-1", "x-dynamo-request-strict-priority", "between 0"},
		{``, "X-Dynamo-Routing-Mode", "both", "x-dynamo-routing-mode", `"aggregated" or "disaggregated"`},
		{``, "X-Dynamo-Session-Id", strings.Repeat("s", 257), "x-dynamo-session-id", "1 to 256"},
	} {
		var headers []string
		if tt.header != "" {
			headers = []string{tt.header, tt.value}
		}
		_, err := nvext(t, tt.members, headers...)
		checkFault(t, tt.members+tt.header, err, tt.param, tt.message)
	}
}

// FuzzRouting wants whatever is accepted to be within its bounds.
func FuzzRouting(f *testing.F) {
	f.Add([]byte(`{"backend_instance_id":7,"dp_rank":1,"agent_hints":{"osl":5}}`), "9659163525001158093", "s")
	f.Add([]byte(`{"router_config_override":{"router_temperature":0.5},"routing_constraints":{"required_taints":["a=b"],"preferred_taints":{"a=b":1}}}`), "0xff", "")
	f.Add([]byte(`{"session_control":{"session_id":"s"},"prefill_worker_id":"860c3e0caf1a9dcd"}`), "0000000000000010", "aggregated")
	f.Fuzz(func(t *testing.T, ext []byte, id, other string) {
		r, err := DecodeChat([]byte(`{"model":"m","nvext":` + string(ext) + `,` + hi + `}`))
		if err != nil {
			return
		}
		h := map[string][]string{"X-Dynamo-Worker-Instance-Id": {id}, "X-Dp-Rank": {other}, "X-Dynamo-Session-Id": {other}, "X-Dynamo-Routing-Mode": {other}}
		if err := r.TakeHeaders(h); err != nil {
			if dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Fatalf("got an error of kind %v", dynamo.KindOf(err))
			}
			return
		}
		q := r.Routing
		if q == nil {
			return
		}
		if len(q.Session) > MaxSessionBytes || q.ExpectedOutput < 0 || q.StrictPriority < 0 || len(q.RequiredLabels) > MaxLabels || len(q.PreferredLabels) > MaxLabels {
			t.Fatalf("accepted %+v", q)
		}
		for _, x := range []*float64{q.Overrides.OverlapCredit, q.Overrides.PrefillLoadScale, q.Overrides.Temperature} {
			if x != nil && !(*x >= 0 && *x <= MaxRoutingWeight) {
				t.Fatalf("accepted the number %v", *x)
			}
		}
		for _, rank := range []*int{q.Rank, q.PrefillRank} {
			if rank != nil && (*rank < 0 || *rank > MaxRank) {
				t.Fatalf("accepted the rank %d", *rank)
			}
		}
	})
}

// TestWorkerSpellings wants a worker's id read as it is printed, here in hexadecimal
// and by the reference in decimal.
func TestWorkerSpellings(t *testing.T) {
	for _, id := range []dynamo.WorkerID{1, 9, 10, 0xa, 0x1234567890abcdef, 9659163525001158093, math.MaxUint64} {
		decimal, _ := json.Marshal(uint64(id))
		for _, text := range []string{string(decimal), id.String(), "0x" + id.String()} {
			if got, err := parseWorker("x", text); err != nil || got != id {
				t.Errorf("%s: got %v, %v, want %v", text, got, err, id)
			}
		}
	}
}

func TestExtension(t *testing.T) {
	worker := &ServedBy{Prefill: 7, PrefillRank: 1, Decode: 9659163525001158093}
	timing := &Timing{
		Received: time.UnixMilli(1795255468350), PrefillWait: Some(174838 * time.Nanosecond), Prefill: Some(631265 * time.Nanosecond),
		FirstToken: Some(806103 * time.Nanosecond), Total: 2 * time.Millisecond, HitRate: 0.5, QueueDepth: Some(0),
	}
	const workerText = `"worker_id":{"prefill_worker_id":7,"prefill_dp_rank":1,"decode_worker_id":9659163525001158093,"decode_dp_rank":0}`
	const timingText = `"timing":{"request_received_ms":1795255468350,"prefill_wait_time_ms":0.174838,"prefill_time_ms":0.631265,"ttft_ms":0.806103,"total_time_ms":2,"kv_hit_rate":0.5,"router_queue_depth":0}`
	for _, tt := range []struct {
		x    *Extension
		want string
	}{
		{nil, ``}, {&Extension{}, ``},
		{&Extension{Worker: worker}, `,"nvext":{` + workerText + `}`},
		{&Extension{Timing: timing}, `,"nvext":{` + timingText + `}`},
		{&Extension{Worker: worker, Timing: timing}, `,"nvext":{` + workerText + `,` + timingText + `}`},
		{&Extension{Timing: &Timing{Received: time.UnixMilli(5)}}, `,"nvext":{"timing":{"request_received_ms":5,"total_time_ms":0,"kv_hit_rate":0}}`},
	} {
		a := &Answer{ID: "x", Model: "m"}
		a.Begin()
		p := &Piece{Finish: dynamo.FinishLength}
		whole, event := a.AppendWhole(nil, []*Piece{p}, Usage{}), a.AppendPiece(nil, p, &Usage{})
		p.Extension = tt.x
		gotWhole, gotEvent := a.AppendWhole(nil, []*Piece{p}, Usage{}), a.AppendPiece(nil, p, &Usage{})
		if want := string(bytes.TrimSuffix(whole, []byte("}"))) + tt.want + "}"; string(gotWhole) != want || !json.Valid(gotWhole) {
			t.Errorf("whole: got %s, want %s", gotWhole, want)
		}
		if want := strings.Replace(string(event), `],"usage"`, `]`+tt.want+`,"usage"`, 1); string(gotEvent) != want {
			t.Errorf("event: got %s, want %s", gotEvent, want)
		}
	}
}
