package vllm_test

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	fakeVocab   = 256
	fakeLength  = 200
	fakeBlock   = 16
	fakeEOS     = 2
	fakeVersion = "0.32.0"
)

// fake behaves like a server of vLLM 0.32 as far as this package asks it. Its model
// is a rule over the last id and the length, which temperature, penalties, bias and
// seed act on as they do on a real one.
type fake struct {
	version   string
	models    string
	apiKey    string
	sources   string // of /kv_event_sources; "" is 404
	metrics   string
	config    string // of /server_info; "" is 404
	noScale   bool
	priority  bool // refuses them
	noDetails bool
	// mischief, if it says true, has answered the request itself.
	mischief func(w http.ResponseWriter, r *http.Request, sent int) bool
	pause    time.Duration // between two ids
	side     *side         // its connector's; nil: it has none
	says     string        // of KV that it keeps, without a side
	turns    *turns        // of a scheduling policy by priority; nil lets all run at once

	running  atomic.Int64
	requests atomic.Int64
	last     struct {
		sync.Mutex
		body   map[string]any
		header http.Header
		path   string
	}
	seen struct {
		sync.Mutex
		blocks map[string]bool
	}
}

func newFake() *fake {
	f := &fake{
		version: fakeVersion,
		models:  fmt.Sprintf(`{"data":[{"id":"tiny","root":"/models/tiny","parent":null,"max_model_len":%d},{"id":"lora","root":"/l","parent":"tiny"}]}`, fakeLength),
		sources: `{"0":{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5558","topic":"kv-events"}}`,
		metrics: fmt.Sprintf(`# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:iteration_tokens_total_count{engine="0",model_name="tiny"} 7.0
vllm:cache_config_info{_block_size_resolved="True",block_size="%d",enable_prefix_caching="True",engine="0",note="a \"quoted\", word",num_gpu_blocks="72",prefix_caching_hash_algo="sha256"} 1.0
`, fakeBlock),
	}
	f.seen.blocks = map[string]bool{}
	return f
}

func (f *fake) start(t testing.TB) *httptest.Server {
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.apiKey != "" && r.Header.Get("Authorization") != "Bearer "+f.apiKey && strings.Contains(r.URL.Path, "v1") {
		fault(w, 401, "Unauthorized", "")
		return
	}
	page := func(body string) {
		if body == "" {
			fault(w, 404, "Not Found", "")
			return
		}
		_, _ = w.Write([]byte(body))
	}
	switch r.URL.Path {
	case "/version":
		if f.version == "" {
			page("")
			return
		}
		page(fmt.Sprintf(`{"version":%q}`, f.version))
	case "/v1/models":
		page(f.models)
	case "/metrics":
		if f.mischief == nil || !f.mischief(w, r, -1) {
			page(f.metrics)
		}
	case "/server_info":
		page(f.config)
	case "/kv_event_sources":
		page(f.sources)
	case "/inference/v1/generate", "/v1/completions":
		f.generate(w, r)
	default:
		page("")
	}
}

func fault(w http.ResponseWriter, status int, message, param string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	b, _ := json.Marshal(map[string]any{"error": map[string]any{"message": message, "type": "Error", "param": param, "code": status}})
	_, _ = w.Write(b)
}

// sampling are the parameters that both routes know.
type sampling struct {
	MaxTokens   int                `json:"max_tokens"`
	MinTokens   int                `json:"min_tokens"`
	IgnoreEOS   bool               `json:"ignore_eos"`
	Stop        []int              `json:"stop_token_ids"`
	Temperature float64            `json:"temperature"`
	TopK        int                `json:"top_k"`
	Presence    float64            `json:"presence_penalty"`
	Frequency   float64            `json:"frequency_penalty"`
	Repetition  float64            `json:"repetition_penalty"`
	Seed        *uint64            `json:"seed"`
	Bias        map[string]float64 `json:"logit_bias"`
	Logprobs    *int               `json:"logprobs"`
	Structured  *structured        `json:"structured_outputs"`
}

// task is one request at the fake.
type task struct {
	f      *fake
	w      http.ResponseWriter
	native bool
	p      sampling
	ids    []int // prompt and answer
	prompt int
	cached int
	random *rand.Rand
	finish string
	stopID int
	texts  []string // that the answer may be; nil is all
	// brought says that the KV of the prompt came from elsewhere, and wrong that it was other KV.
	brought, wrong bool
}

func (f *fake) generate(w http.ResponseWriter, r *http.Request) {
	native := r.URL.Path != "/v1/completions"
	if native && f.noScale {
		fault(w, 403, "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out", "")
		return
	}
	var raw json.RawMessage
	var body struct {
		Model    string
		Tokens   []int `json:"token_ids"`
		Prompt   []int
		Params   *sampling `json:"sampling_params"`
		Priority int
		Salt     string `json:"cache_salt"`
	}
	var all map[string]any
	var flat sampling
	if json.NewDecoder(r.Body).Decode(&raw) != nil || json.Unmarshal(raw, &body) != nil || json.Unmarshal(raw, &all) != nil || json.Unmarshal(raw, &flat) != nil {
		fault(w, 400, "bad JSON", "body")
		return
	}
	t := &task{f: f, w: w, native: native, p: flat, ids: body.Prompt, stopID: -1}
	if native {
		if body.Params == nil || len(body.Tokens) == 0 {
			fault(w, 400, "2 validation errors", "body.token_ids")
			return
		}
		t.p, t.ids = *body.Params, body.Tokens
	}
	texts, err := f.restrict(raw, native, t.p.Structured)
	if err != nil {
		fault(w, 400, err.Error(), "structured_outputs")
		return
	}
	t.texts = texts
	f.requests.Add(1)
	f.last.Lock()
	f.last.body, f.last.header, f.last.path = all, r.Header.Clone(), r.URL.Path
	f.last.Unlock()
	if f.mischief != nil && f.mischief(w, r, 0) {
		return
	}
	switch {
	case f.priority && body.Priority != 0:
		fault(w, 400, "Got priority 3 but Priority scheduling is not enabled", "")
		return
	case body.Model != "tiny" && body.Model != "lora":
		fault(w, 404, "The model `"+body.Model+"` does not exist.", "model")
		return
	}
	if f.turns != nil {
		f.turns.take(body.Priority)
		defer f.turns.give()
	}
	f.running.Add(1)
	defer f.running.Add(-1)
	if t.transfer(raw, body.Salt) {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	t.run(r, body.Salt)
}

func (t *task) send(v any) {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	_, _ = fmt.Fprintf(t.w, "data: %s\n\n", b)
	t.w.(http.Flusher).Flush()
}

func (t *task) run(r *http.Request, salt string) {
	t.prompt = len(t.ids)
	switch {
	case slices.Max(t.ids) >= fakeVocab || slices.Min(t.ids) < 0:
		t.send([]byte(`{"error": {"message": "Token id is out of vocabulary", "type": "BadRequestError", "param": null, "code": 400}}`))
		t.send([]byte("[DONE]"))
		return
	case t.p.Logprobs != nil && *t.p.Logprobs > 20, t.p.MaxTokens < 1, t.prompt+t.p.MaxTokens > fakeLength, t.p.MinTokens > t.p.MaxTokens:
		t.send([]byte(`{"error": {"message": "Requested sample logprobs of 21, or another impossible number", "type": "BadRequestError", "param": "logprobs", "code": 400}}`))
		t.send([]byte("[DONE]"))
		return
	}
	if t.p.Seed != nil {
		t.random = rand.New(rand.NewPCG(*t.p.Seed, 1))
	} else {
		t.random = rand.New(rand.NewPCG(rand.Uint64(), 1))
	}
	if t.cache(salt); t.brought {
		t.cached = 0 // what comes from elsewhere is not counted
	}
	for sent := 0; t.finish == ""; sent++ {
		if sent > 0 && t.f.mischief != nil && t.f.mischief(t.w, r, sent) {
			return
		}
		if r.Context().Err() != nil {
			return
		}
		if t.f.pause > 0 {
			select {
			case <-time.After(t.f.pause):
			case <-r.Context().Done():
				return
			}
		}
		t.step()
	}
	usage := map[string]any{"prompt_tokens": t.prompt, "completion_tokens": len(t.ids) - t.prompt, "total_tokens": len(t.ids)}
	if !t.f.noDetails {
		usage["prompt_tokens_details"] = map[string]any{"cached_tokens": t.cached}
	}
	t.send(map[string]any{"id": "x", "choices": []any{}, "usage": usage})
	t.send([]byte("[DONE]"))
}

// cache counts the full blocks of the prompt that were there, and keeps them.
func (t *task) cache(salt string) {
	t.f.seen.Lock()
	defer t.f.seen.Unlock()
	hit := true
	for end := fakeBlock; end <= t.prompt; end += fakeBlock {
		key := salt + fmt.Sprint(t.ids[:end])
		if hit = hit && t.f.seen.blocks[key]; hit && end < t.prompt {
			t.cached = end
		}
		t.f.seen.blocks[key] = true
	}
}

// logits are the model's own.
func (t *task) logits() []float64 {
	l := make([]float64, fakeVocab)
	r := rand.New(rand.NewPCG(uint64(t.ids[len(t.ids)-1]), uint64(len(t.ids))))
	for i := range l {
		l[i] = r.NormFloat64() * 3
	}
	return l
}

func (t *task) step() {
	raw := t.logits()
	l := slices.Clone(raw)
	for _, id := range uniq(t.ids) {
		if l[id] > 0 {
			l[id] /= t.p.Repetition
		} else {
			l[id] *= t.p.Repetition
		}
	}
	answer := t.ids[t.prompt:]
	for _, id := range answer {
		l[id] -= t.p.Frequency
	}
	for _, id := range uniq(answer) {
		l[id] -= t.p.Presence
	}
	for id, b := range t.p.Bias {
		n, _ := strconv.Atoi(id)
		l[n] += b
	}
	stops := slices.Clone(t.p.Stop)
	if !t.p.IgnoreEOS {
		stops = append(stops, fakeEOS)
	}
	if len(answer) < t.p.MinTokens { // theirs
		for _, id := range stops {
			l[id] = math.Inf(-1)
		}
	}
	if t.texts != nil {
		mask(l, t.texts, answer)
	}
	id := t.draw(l)
	if t.wrong {
		id = (id + 1) % fakeVocab
	}
	t.ids = append(t.ids, id)
	switch n := len(t.ids) - t.prompt; {
	case slices.Contains(stops, id) && n >= t.p.MinTokens:
		t.finish = "stop"
		if id != fakeEOS {
			t.stopID = id
		}
	case n == t.p.MaxTokens:
		t.finish = "length"
	}
	t.emit(id, raw)
}

func uniq(ids []int) []int {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return slices.Compact(ids)
}

func (t *task) draw(l []float64) int {
	best, at := math.Inf(-1), 0
	for i, v := range l {
		if t.p.Temperature > 0 {
			v = v/t.p.Temperature - math.Log(-math.Log(t.random.Float64()))
		}
		if v > best {
			best, at = v, i
		}
	}
	return at
}

func (t *task) emit(id int, raw []float64) {
	choice := map[string]any{"index": 0, "token_ids": []int{id}, "finish_reason": nil, "stop_reason": nil, "logprobs": nil, "weight_versions": nil}
	if t.finish != "" {
		choice["finish_reason"] = t.finish
		choice["weight_versions"] = []any{map[string]any{"version": "default", "start": 0}}
		if t.stopID >= 0 {
			choice["stop_reason"] = t.stopID
		}
	}
	if t.p.Logprobs != nil {
		choice["logprobs"] = t.logprobs(id, raw, *t.p.Logprobs)
	}
	if !t.native {
		choice["text"] = `", "token_ids":[9]`
		if len(t.ids) == t.prompt+1 {
			choice["prompt_token_ids"] = t.ids[:t.prompt]
		}
	}
	t.send(map[string]any{"id": "x", "usage": nil, "choices": []any{choice}})
}

// logprobs has the drawn id first, then the best; the native route cuts that list.
func (t *task) logprobs(id int, raw []float64, n int) any {
	sum := 0.0
	for _, v := range raw {
		sum += math.Exp(v)
	}
	of := func(id int) float64 { return raw[id] - math.Log(sum) }
	order := make([]int, len(raw))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if raw[a] > raw[b] {
			return -1
		}
		return 1
	})
	list := []int{id}
	for _, o := range order[:n] {
		if o != id {
			list = append(list, o)
		}
	}
	if !t.native {
		top := map[string]float64{}
		for _, o := range list {
			top[fmt.Sprintf("token_id:%d", o)] = of(o)
		}
		return map[string]any{"tokens": []string{fmt.Sprintf("token_id:%d", id)}, "token_logprobs": []float64{of(id)}, "top_logprobs": []any{top}, "text_offset": []int{0}}
	}
	top := []any{}
	for _, o := range list[:min(len(list), max(n, 1))] {
		top = append(top, map[string]any{"token_id": o, "logprob": of(o), "rank": 1 + slices.Index(order, o)})
	}
	return map[string]any{"content": []any{map[string]any{"token_id": id, "logprob": of(id), "rank": 1 + slices.Index(order, id), "top_logprobs": top}}}
}
