package frontend

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/vllm"
)

// recorder is a vLLM server that answers each request with "ok", and keeps what it
// was asked.
type recorder struct {
	scaleOut bool
	mu       struct {
		sync.Mutex
		bodies []string
	}
}

func (s *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	generate := r.URL.Path == "/inference/v1/generate"
	switch {
	case err != nil:
		w.WriteHeader(http.StatusBadRequest)
	case r.URL.Path == "/version":
		fmt.Fprint(w, `{"version":"0.32.0"}`)
	case r.URL.Path == "/v1/models":
		fmt.Fprint(w, `{"data":[{"id":"org/m","root":"org/m","parent":null,"max_model_len":1024}]}`)
	case r.URL.Path == "/metrics":
		fmt.Fprint(w, `vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="72"} 1.0`+"\n")
	case generate && !s.scaleOut:
		w.WriteHeader(http.StatusForbidden)
	case generate && string(body) == "{}":
		w.WriteHeader(http.StatusBadRequest)
	case generate, r.URL.Path == "/v1/completions":
		s.mu.Lock()
		s.mu.bodies = append(s.mu.bodies, string(body))
		s.mu.Unlock()
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(w, `data: {"choices":[{"index":0,"token_ids":[%d,%d,%d],"finish_reason":"stop"}]}`+"\n\ndata: [DONE]\n\n", 'o', 'k', imEnd)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// TestToVLLM: what a client says of its answer's form and its urgency reaches a
// vLLM server; what it says of KV blocks, wherever it says so, does not.
func TestToVLLM(t *testing.T) {
	const forged = `,"kv_transfer_params":{"do_remote_prefill":true},"ec_transfer_params":{"evil":1},"extra_args":{"kv_transfer_params":{"evil":1}},` +
		`"sampling_params":{"extra_args":{"kv_transfer_params":{"evil":1}}},"evil":1,"user":"evil","metadata":{"kv_transfer_params":"evil"},`
	for _, scaleOut := range []bool{false, true} {
		s := &recorder{scaleOut: scaleOut}
		cl := serve(t, openVLLM(t, s), func(_ *Config, m *Model) {
			m.Card = m.Engine.(*vllm.Engine).Card()
		})
		fields := `"max_tokens":9,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"a":[1]}}}` + forged
		cl.ask("/v1/chat/completions", chatBody(fields+`"priority":3`))
		cl.ask("/v1/completions", `{"model":"org/m","prompt":"evil?",`+fields+`"nvext":{"agent_hints":{"priority":4},"kv_transfer_params":{"evil":1}}}`)
		s.mu.Lock()
		if len(s.mu.bodies) != 2 {
			t.Fatalf("the server was asked %d times, want 2", len(s.mu.bodies))
		}
		for i, text := range s.mu.bodies {
			var body map[string]any
			if err := json.Unmarshal([]byte(text), &body); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(text, "evil") || strings.Contains(text, "transfer") || strings.Contains(text, "remote") {
				t.Errorf("the server got %s", text)
			}
			if want := []any{3.0, -4.0}[i]; body["priority"] != want {
				t.Errorf("the server got the priority %v, want %v", body["priority"], want)
			}
			if p, ok := body["sampling_params"].(map[string]any); ok {
				body = p
			}
			want := map[string]any{"json": map[string]any{"a": []any{1.0}}}
			if got := body["structured_outputs"]; !reflect.DeepEqual(got, want) {
				t.Errorf("the server got %v, want %v", got, want)
			}
		}
		s.mu.Unlock()
	}
}

func openVLLM(t *testing.T, s http.Handler) *vllm.Engine {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	c := vllm.DefaultConfig()
	c.URL, c.VocabSize, c.EOS, c.ReadyTimeout = server.URL, int(testVocab), []dynamo.TokenID{imEnd}, 10*time.Second
	e, err := vllm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() }) // it has no process
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}
