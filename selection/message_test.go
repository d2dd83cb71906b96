package selection_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo/selection"
)

// What is wrong with a message is said with the field's name and what it has to be.
func TestBadMessages(t *testing.T) {
	s := open(t, adding)
	for _, tc := range []struct{ method, path, body, param, want string }{
		// No JSON object.
		{"POST", "/select", ` `, "", "not a complete JSON object"},
		{"POST", "/select", `null`, "", "the body is null; it must be an object"},
		{"POST", "/select", `"a"`, "", `the body is "a"; it must be an object`},
		{"POST", "/select", `{"token_ids":[1],}`, "", "not valid JSON at byte"},
		{"POST", "/select", `{'token_ids':[1]}`, "", "not valid JSON at byte"},
		{"POST", "/select", `{"token_ids":[NaN]}`, "token_ids[0]", "not valid JSON at byte"},
		{"POST", "/select", `{"token_ids":[1 2]}`, "token_ids", "not valid JSON at byte"},
		{"POST", "/select", `{"token_ids":[01]}`, "token_ids", "not valid JSON at byte"},
		{"POST", "/select", `{"pinned_worker":{"worker_id":1,"worker_id":2},"token_ids":[1]}`, "pinned_worker.worker_id", "duplicate"},
		// Unknown fields, and known ones twice.
		{"POST", "/select", `{"":1}`, "", `there is no field ""`},
		{"POST", "/select", `{"pinned_worker":{"worker":1}}`, "pinned_worker.worker", `there is no field "pinned_worker.worker"`},
		{"POST", "/select", `{"routing_constraints":{"required":[]}}`, "routing_constraints.required", "there is no field"},
		{"POST", "/select", `{"` + strings.Repeat("é", 99) + `":1}`, strings.Repeat("é", 40) + "…", "there is no field"},
		{"POST", "/select", `{"model":"m","model_name":"m"}`, "model_name", "give it once"},
		{"POST", "/select", `{"worker_id":1,"pinned_worker":{"worker_id":1},"token_ids":[1]}`, "pinned_worker", "give one of them"},
		{"POST", "/select?model=m", `{"model":"m","token_ids":[1]}`, "model", "give it once"},
		{"POST", "/select?modell=m", `{"token_ids":[1]}`, "modell", "there is no field"},
		{"DELETE", "/reservations/a?reservation_id=b", ``, "reservation_id", "give it once"},
		{"DELETE", "/reservations/a?end=%zz", ``, "", "in the address cannot be read"},
		{"DELETE", "/reservations/a?end=%ff", ``, "end", "UTF-8"},
		// Ids.
		{"POST", "/select", `{"worker_id":0}`, "worker_id", "a number from 1 to 18446744073709551615"},
		{"POST", "/select", `{"worker_id":-1}`, "worker_id", "worker_id is -1;"},
		{"POST", "/select", `{"worker_id":1.0}`, "worker_id", "worker_id is 1.0;"},
		{"POST", "/select", `{"worker_id":1e3}`, "worker_id", "without point and exponent"},
		{"POST", "/select", `{"worker_id":18446744073709551616}`, "worker_id", "worker_id is 18446744073709551616;"},
		{"POST", "/select", `{"worker_id":"-1"}`, "worker_id", `worker_id is "-1";`},
		{"POST", "/select", `{"worker_id":"NaN"}`, "worker_id", `worker_id is "NaN";`},
		{"POST", "/select", `{"worker_id":"0x"}`, "worker_id", `worker_id is "0x";`},
		{"POST", "/select", `{"worker_id":"00000000000000001"}`, "", ""}, // 17 digits are decimal: 1
		{"POST", "/select", `{"worker_id":true}`, "worker_id", "worker_id is true;"},
		{"POST", "/select", `{"worker_id":{}}`, "worker_id", "worker_id is {};"},
		{"POST", "/select", `{"allowed_worker_ids":7}`, "allowed_worker_ids", "must be an array"},
		{"POST", "/select", `{"allowed_worker_ids":[1,"z"]}`, "allowed_worker_ids[1]", `is "z";`},
		{"POST", "/select", `{"excluded_worker_ids":[null]}`, "excluded_worker_ids[0]", "is null;"},
		{"POST", "/select", `{"excluded_worker_ids":[` + strings.Repeat("1,", 1024) + `1]}`, "excluded_worker_ids", "more than 1024 elements"},
		{"POST", "/select", `{"block_size":4,"block_hashes":[9223372036854775808,-9223372036854775809]}`, "block_hashes[1]", "a number of 64 bits"},
		{"POST", "/select", `{"request_id":1.5}`, "request_id", "request_id is 1.5;"},
		{"POST", "/select", `{"request_id":"..","token_ids":[1]}`, "request_id", "not dots alone"},
		// Numbers.
		{"POST", "/select", `{"token_ids":[1,2.0]}`, "token_ids[1]", "token_ids[1] is 2.0;"},
		{"POST", "/select", `{"token_ids":[1,"2"]}`, "token_ids[1]", `token_ids[1] is "2";`},
		{"POST", "/select", `{"token_ids":[[1]]}`, "token_ids[0]", `token_ids[0] is [1];`},
		{"POST", "/select", `{"token_ids":[-0]}`, "token_ids[0]", `token_ids[0] is -0;`},
		{"POST", "/select", `{"token_ids":[99999999999999999999999999]}`, "token_ids[0]", "0 to 4294967295"},
		{"POST", "/select", `{"max_tokens":1e2}`, "max_tokens", "a whole number, without point and exponent"},
		{"POST", "/select", `{"max_tokens":9223372036854775808}`, "max_tokens", "not so large"},
		{"POST", "/select", `{"max_tokens":"5"}`, "max_tokens", `max_tokens is "5";`},
		{"POST", "/select", `{"lease_seconds":1e309,"token_ids":[1]}`, "lease_seconds", "not so large"},
		{"POST", "/select", `{"lease_seconds":"NaN","token_ids":[1]}`, "lease_seconds", `lease_seconds is "NaN"; it must be a number`},
		{"POST", "/select?lease_seconds=NaN", `{"token_ids":[1]}`, "lease_seconds", `lease_seconds is "NaN"; it must be a number`},
		{"POST", "/select?lease_seconds=Inf", `{"token_ids":[1]}`, "lease_seconds", `it must be a number`},
		{"POST", "/select", `{"lease_seconds":-1,"token_ids":[1]}`, "lease_seconds", "lease_seconds is -1;"},
		{"POST", "/select", `{"routing_constraints":{"preferred_taints":{"a=b":"x"}}}`, "routing_constraints.preferred_taints.a=b", "must be a number"},
		{"POST", "/select", `{"wait":1}`, "wait", "true or false"},
		{"POST", "/select", `{"text":5}`, "text", "must be a text"},
		// Workers.
		{"POST", "/workers", `{"model":"n"}`, "worker_id", "worker_id is not there"},
		{"POST", "/workers", `{"worker_id":9}`, "model", "model is not there"},
		{"POST", "/workers", `{"worker_id":9,"model":"n","role":"both"}`, "role", "prefill, decode or left out"},
		{"POST", "/workers", `{"worker_id":9,"model":"n","url":"10.0.0.1:8000"}`, "url", "an address such as"},
		{"POST", "/workers", `{"worker_id":9,"model":"n","total_kv_blocks":5}`, "block_size", "give both"},
		{"POST", "/workers", `{"worker_id":9,"model":"n","ranks":257}`, "ranks", "0 (unknown) to 256"},
		{"POST", "/workers", `{"worker_id":9,"model":"n","max_running":-1}`, "max_running", "max_running is -1;"},
		{"POST", "/workers", `{"worker_id":9,"model":"n","context_length":4294967296}`, "context_length", "context_length is 4294967296;"},
		{"POST", "/workers", `{"worker_id":9,"model":"n","worker_epoch":-1}`, "worker_epoch", "0 to 18446744073709551615"},
		{"POST", "/workers", `{"worker_id":9,"model":"n","topology":{"a=b":"c"}}`, "labels", "a label is a name without ="},
		{"POST", "/workers", `{"worker_id":9,"model":"n","topology":{"a":1}}`, "topology.a", "must be a text"},
		{"POST", "/workers", `{"worker_id":9,"model":"n","lora_names":[""]}`, "lora_names", "1 to 256 bytes"},
		{"POST", "/workers", `{"worker_id":9,"model":"n\n"}`, "model", "no control characters"},
		{"DELETE", "/workers/x", ``, "worker_id", `worker_id is "x";`},
		{"DELETE", "/workers/1?worker_epoch=x", ``, "worker_epoch", `worker_epoch is "x";`},
	} {
		if tc.want == "" { // it is right, once it has a prompt
			s.wants(200, tc.method, tc.path, strings.Replace(tc.body, "{", `{"token_ids":[1],`, 1))
			continue
		}
		status, answer, _ := s.call(tc.method, tc.path, tc.body)
		e, _ := answer["error"].(map[string]any)
		param, _ := e["param"].(string)
		message, _ := e["message"].(string)
		if status != 400 || param != tc.param || !strings.Contains(message, tc.want) {
			t.Errorf("%s %s %.80s: got %d about %q: %s; want 400 about %q: …%s…", tc.method, tc.path, tc.body, status, param, message, tc.param, tc.want)
		}
	}
	s.quiet()
}

// Ids are the same however they are written, and other names mean the same.
func TestSpellings(t *testing.T) {
	s := open(t, nil)
	for _, id := range []string{`2`, `"2"`, `"0000000000000002"`, `"0x2"`, `"000000000000000002"`} {
		for _, form := range []string{`"worker_id":%s`, `"pinned_worker":{"worker_id":%s}`, `"allowed_worker_ids":[%s]`} {
			if x := s.wants(200, "POST", "/select", `{"token_ids":[1],`+fmt.Sprintf(form, id)+`}`); x["worker_id"] != 2.0 {
				t.Errorf("%s: %v", id, x)
			}
		}
	}
	for _, body := range []string{
		" {\n\"token_ids\" : [ 1 ,\t2\r\n,3 ] , \"request_id\":5}", `{"token_ids":[1,2,3],"selection_id":"5"}`, `{"token_ids":[1,2,3],"request_id":"\u0035","model":null}`,
	} {
		if x := s.wants(200, "POST", "/select", body); x["request_id"] != "5" || x["isl_tokens"] != 3.0 {
			t.Errorf("%s: %v", body, x)
		}
	}
	if x := s.wants(200, "POST", "/select?request_id=6&wait=true", `{"token_ids":[4294967295]}`); x["request_id"] != "6" {
		t.Errorf("in the address: %v", x)
	}
	s.quiet()
}

// Whatever a message is, it is answered or refused with a kind and a text, and stays
// booked no longer than it should.
func FuzzMessage(f *testing.F) {
	for _, x := range everything {
		f.Add(x.method, x.message)
	}
	for _, body := range []string{
		`{"model":"m","token_ids":[1,2,3],"expected_output":5}`, `{"block_hashes":["00000000000000ff",-1],"block_size":4}`, `{"messages":[{"role":"user","content":"a"}]}`,
		`{"token_ids":[1],"worker_id":1,"dp_rank":0,"router_config_override":{"policy":"dynamo","router_temperature":1}}`,
		`{"token_ids":[1],"routing_constraints":{"required_taints":["a=b"],"preferred_taints":{"zone=1":0.5}},"lease_seconds":0.5}`, `{"token_ids":null}`, "\xff", `{"a":`,
		`{"worker_id":5,"model":"n","labels":{"a":"b"},"lora_names":["x"],"role":"prefill"}`,
	} {
		f.Add("select_and_reserve", body)
		f.Add("add_worker", body)
	}
	f.Fuzz(func(t *testing.T, method, body string) {
		s := open(t, adding)
		web := selection.NewHTTPClient(s.direct(), "http://router", "")
		answer, err := web.Call(t.Context(), method, []byte(body))
		if err != nil {
			if text := said(nil, err); strings.HasPrefix(text, "internal") || strings.Contains(text, `"" param`) {
				t.Errorf("%s %q: %s", method, body, text)
			}
			return
		}
		if !json.Valid(answer) {
			t.Errorf("%s %q: answered %q", method, body, answer)
		}
		var told struct {
			ID any `json:"reservation_id"`
		}
		if json.Unmarshal(answer, &told); told.ID != nil {
			if _, err := web.Call(t.Context(), "release", fmt.Appendf(nil, `{"reservation_id":%q}`, told.ID)); err != nil {
				t.Errorf("release: %v", err)
			}
		}
		if bytes.Contains(answer, []byte(`"applied":true`)) && method == "add_worker" {
			return // its router is no longer this one's only
		}
		s.quiet()
	})
}
