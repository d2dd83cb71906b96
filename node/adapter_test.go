package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// vllmServer is a vLLM server of a bubble, as far as a worker asks it. Its answers
// are the same id again and again, one for each model or adapter that it is asked
// for.
type vllmServer struct {
	url string
	mu  struct {
		sync.Mutex
		adapters []string
		asked    map[string]int // requests by model
		kv       []string       // what was said of KV: to be kept, to be fetched, from where, and the length of the prompt
	}
}

// serveVLLM runs a server on a host until the test ends.
func (b *bubble) serveVLLM(host string, adapters ...string) *vllmServer {
	b.t.Helper()
	l, err := b.net.Host(host).Listen(host + ":8000")
	if err != nil {
		b.t.Fatal(err)
	}
	v := &vllmServer{url: "http://" + host + ":8000"}
	v.load(adapters...)
	v.counts()
	s := &http.Server{Handler: v}
	done := make(chan struct{})
	go func() { // until Close
		defer close(done)
		_ = s.Serve(l)
	}()
	b.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.t.Error(err)
		}
		<-done
	})
	return v
}

// load makes adapters those that the server has.
func (v *vllmServer) load(adapters ...string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mu.adapters = adapters
}

// counts returns how often each model was asked for since it was called last.
func (v *vllmServer) counts() map[string]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	asked := v.mu.asked
	v.mu.asked = map[string]int{}
	delete(asked, "canary")
	return asked
}

func (v *vllmServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	adapters := v.mu.adapters
	v.mu.Unlock()
	switch r.URL.Path {
	case "/version":
		_, _ = w.Write([]byte(`{"version":"0.32.0"}`))
	case "/v1/models":
		page := `{"data":[{"id":"m","root":"/models/tiny","parent":null,"max_model_len":2048}`
		for _, a := range adapters {
			page += fmt.Sprintf(`,{"id":%q,"root":"/adapters/%s","parent":"m","max_model_len":null}`, a, a)
		}
		_, _ = w.Write([]byte(page + `]}`))
	case "/metrics":
		_, _ = w.Write([]byte(`vllm:cache_config_info{block_size="16",enable_prefix_caching="True",num_gpu_blocks="64"} 1.0` + "\n"))
	case "/inference/v1/generate":
		v.generate(w, r, adapters)
	default:
		http.Error(w, "{}", http.StatusNotFound)
	}
}

func (v *vllmServer) generate(w http.ResponseWriter, r *http.Request, adapters []string) {
	var body struct {
		Model string
		IDs   []int `json:"token_ids"`
		KV    *struct {
			Keep  bool   `json:"do_remote_decode"`
			Fetch bool   `json:"do_remote_prefill"`
			Host  string `json:"remote_host"`
		} `json:"kv_transfer_params"`
		Params *struct {
			MaxTokens int `json:"max_tokens"`
		} `json:"sampling_params"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Params == nil {
		http.Error(w, `{"error":{"message":"no parameters"}}`, http.StatusBadRequest)
		return
	}
	if body.Model != "m" && !slices.Contains(adapters, body.Model) {
		http.Error(w, `{"error":{"message":"The model does not exist.","code":404}}`, http.StatusNotFound)
		return
	}
	v.mu.Lock()
	v.mu.asked[body.Model]++
	if body.KV != nil {
		v.mu.kv = append(v.mu.kv, fmt.Sprintf("%t %t %s %d", body.KV.Keep, body.KV.Fetch, body.KV.Host, len(body.IDs)))
	}
	v.mu.Unlock()
	if body.KV != nil && body.KV.Keep {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"choices":[{"index":0,"token_ids":[5],"finish_reason":"length"}],"usage":{"prompt_tokens":%d,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":3}},"kv_transfer_params":{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":[[1]],"remote_engine_id":"e","remote_request_id":"r","remote_host":"side","remote_port":5600}}`, len(body.IDs))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	id := 'a' + int(body.Model[0])%20
	for i := range body.Params.MaxTokens {
		finish := "null"
		if i == body.Params.MaxTokens-1 {
			finish = `"length"`
		}
		_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"token_ids\":[%d],\"finish_reason\":%s}]}\n\n", id, finish)
	}
	_, _ = fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d}}\n\ndata: [DONE]\n\n", len(body.IDs), body.Params.MaxTokens)
}

// attach makes a worker's configuration one that attaches to v.
func attach(v *vllmServer) func(*Config) {
	return func(c *Config) { c.Engine, c.Foreign.URL = EngineVLLM, v.url }
}

// asks sends n requests and returns how many each server got for the model named.
func (b *bubble) asks(host, model string, n int, servers ...*vllmServer) []int {
	b.t.Helper()
	for _, v := range servers {
		v.counts()
	}
	for range n {
		status, text := b.do("POST", host, "/v1/completions", fmt.Sprintf(`{"model":%q,"prompt":"abc","max_tokens":3,"ignore_eos":true}`, model))
		if status != http.StatusOK || !strings.Contains(text, fmt.Sprintf(`"model":%q`, model)) {
			b.t.Fatalf("model %s at %s: got %d %s", model, host, status, text)
		}
	}
	var got []int
	for _, v := range servers {
		asked := v.counts()
		got = append(got, asked[model])
		if len(asked) > 1 || len(asked) == 1 && asked[model] == 0 {
			b.t.Errorf("asked for %s, a server got requests for %v", model, slices.Sorted(maps.Keys(asked)))
		}
	}
	return got
}

// Two workers of a model, of which only one has an adapter: both serve the model, one
// the adapter. What is loaded and unloaded while they run is found out, and what only
// a worker had that has gone is told to be a matter of time, for a while.
func TestFleetAdapters(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		v1, v2 := b.serveVLLM("v1", "ada"), b.serveVLLM("v2")
		b.start("front", nil)
		b.start("w1", attach(v1))
		w2 := b.start("w2", attach(v2))
		b.awaitState("front", "w1", "ready")
		b.awaitState("front", "w2", "ready")
		b.awaitModels("front", "ada m")
		if got := b.asks("front", "m", 6, v1, v2); got[0] != 3 || got[1] != 3 {
			t.Errorf("the model's requests went to %v, want both workers", got)
		}
		if got := b.asks("front", "ada", 6, v1, v2); got[0] != 6 || got[1] != 0 {
			t.Errorf("the adapter's requests went to %v, want the worker that has it", got)
		}
		if status, text := b.complete("front", "bob", "abc", 3); status != http.StatusNotFound || !strings.Contains(text, "adapters: ada") {
			t.Errorf("a name that nobody has: got %d %s, want 404", status, text)
		}
		// Loaded at run time, into the other worker.
		v2.load("ada", "bob")
		b.awaitModels("front", "ada bob m")
		if got := b.asks("front", "ada", 6, v1, v2); got[0] != 3 || got[1] != 3 {
			t.Errorf("the adapter's requests went to %v, want both workers", got)
		}
		if got := b.asks("front", "bob", 3, v1, v2); got[1] != 3 {
			t.Errorf("the new adapter's requests went to %v", got)
		}
		// Unloaded: from one, and then altogether, which is told at once.
		v1.load()
		time.Sleep(15 * time.Second)
		if got := b.asks("front", "ada", 4, v1, v2); got[1] != 4 {
			t.Errorf("the adapter's requests went to %v, want the worker that still has it", got)
		}
		v2.load("ada")
		b.awaitModels("front", "ada m")
		// Its only worker dies.
		w2.kill()
		b.store.Expire(2)
		b.until("w2 is gone", func() bool { return len(b.health("front")) == 1 })
		gone := time.Now()
		status, text := b.complete("front", "ada", "abc", 3)
		if status != http.StatusServiceUnavailable || !strings.Contains(text, `adapter \"ada\"`) || !strings.Contains(text, "1 are known, 0 have it") {
			t.Errorf("nobody has the adapter at the moment: got %d %s, want 503 that says so", status, text)
		}
		if got := b.asks("front", "m", 2, v1); got[0] != 2 {
			t.Errorf("the model's requests went to %v", got)
		}
		b.awaitModels("front", "m")
		if took := time.Since(gone); took < modelGrace-time.Second || took > modelGrace+time.Second {
			t.Errorf("the adapter stays known for %v, want %v", took, modelGrace)
		}
		if status, _ := b.complete("front", "ada", "abc", 3); status != http.StatusNotFound {
			t.Errorf("after its grace: got %d, want 404", status)
		}
		// It comes back with a worker.
		b.start("w3", attach(b.serveVLLM("v3", "ada")))
		b.awaitModels("front", "ada m")
		b.asks("front", "ada", 1)
		synctest.Wait()
	})
}

// In one process with the frontend it is the same.
func TestLocalAdapters(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		v := b.serveVLLM("v1", "ada")
		b.start("all", func(c *Config) {
			attach(v)(c)
			c.Role, c.ModelPath = RoleServe, b.folder
		})
		b.awaitModels("all", "ada m")
		if got := b.asks("all", "ada", 2, v); got[0] != 2 {
			t.Errorf("the adapter was asked for %d times, want 2", got[0])
		}
		v.load("bob")
		b.awaitModels("all", "bob m")
		if got := b.asks("all", "bob", 2, v); got[0] != 2 {
			t.Errorf("the new adapter was asked for %d times, want 2", got[0])
		}
		if status, _ := b.complete("all", "ada", "abc", 3); status != http.StatusNotFound {
			t.Errorf("the adapter that has gone: got %d, want 404", status)
		}
	})
}
