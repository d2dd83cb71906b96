package vllm

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

// What vLLM 0.32 answers to a prompt whose KV it is to keep, by either route.
func TestRecordedPrefill(t *testing.T) {
	for name, request := range map[string]string{"generate": "generate-tokens-ba13ca06910418d6-a3c7804a", "completions": "cmpl-bc706d0f2a0c6d73-0-a1c3d94f"} {
		b, err := os.ReadFile("testdata/vllm-prefill-" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var f frame
		if !f.parse(b, 0) || !slices.Equal(f.ids, []dynamo.TokenID{198}) || string(f.finish) != "length" || f.prompt != 5 || f.completion != 1 {
			t.Errorf("%s: got %+v", name, f)
		}
		if err := checkParams(f.transfer); err != nil || !bytes.Contains(b, append([]byte(`"kv_transfer_params":`), f.transfer...)) || !bytes.Contains(f.transfer, []byte(`"remote_request_id":"`+request+`"`)) {
			t.Errorf("%s: %v, of the words %s", name, err, f.transfer)
		}
	}
}

// Whatever passes as a server's words has all of those, under their very names, without
// which another server would end.
func FuzzParams(f *testing.F) {
	const good = `{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1,2],[]],"remote_engine_id":"e","remote_request_id":"r","remote_host":"h","remote_port":5601,"tp_size":1}`
	if err := checkParams([]byte(good)); err != nil {
		f.Fatal(err)
	}
	for i := range good {
		f.Add([]byte(good[:i]))
	}
	for _, c := range [][2]string{
		{"", ""}, {"[[1,2],[]]", "[3]"}, {"[[1,2],[]]", "[[],[]]"}, {"[[1,2],[]]", "[-1]"}, {"[[1,2],[]]", "null"}, {"remote_block_ids", "Remote_Block_IDs"},
		{`"remote_port":5601`, `"remote_port":5601,"remote_port":null`}, {"5601", "0"}, {"5601", "1e3"}, {`"h"`, "null"}, {`"r"`, "null"}, {"true", "false"}, {"1}", "1} "},
	} {
		f.Add([]byte(strings.Replace(good, c[0], c[1], 1)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkParams(b) != nil {
			return
		}
		var p map[string]any
		if err := json.Unmarshal(b, &p); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		port, _ := p["remote_port"].(float64)
		blocks, _ := p["remote_block_ids"].([]any)
		engine, _ := p["remote_engine_id"].(string)
		host, _ := p["remote_host"].(string)
		if request, there := p["remote_request_id"]; there && (request == nil || request == "") {
			t.Fatalf("%s is taken", b)
		}
		if p["do_remote_prefill"] != true || p["do_remote_decode"] == true || port < 1 || port > 65535 || len(blocks) == 0 || engine == "" || host == "" {
			t.Fatalf("%s is taken", b)
		}
	})
}
