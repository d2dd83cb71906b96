package vllm_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
)

// side is what the connectors of several fakes have in common: the KV that is kept
// between them. It does as vLLM 0.32's NixlConnector does, that of its bugs which matter
// here included: KV that is fetched a second time, or for another prompt, is other KV, and
// nobody is told.
type side struct {
	mu struct {
		sync.Mutex
		next                   int
		kept                   map[string][]int // prompts, by remote_request_id
		fetched, wrong, halves int
	}
}

func newSide() *side {
	s := &side{}
	s.mu.kept = map[string][]int{}
	return s
}

// counts are how many prompts are kept, were fetched, and were fetched in vain; and how
// many servers ended of half a word.
func (s *side) counts() (kept, fetched, wrong, halves int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.kept), s.mu.fetched, s.mu.wrong, s.mu.halves
}

// fakeParams is what vLLM 0.32 says of KV that it keeps.
func fakeParams(request string, blocks, tokens, cached int) json.RawMessage {
	list := make([]int, blocks)
	for i := range list {
		list[i] = i + 1
	}
	b, _ := json.Marshal([][]int{list})
	return fmt.Appendf(nil, `{"do_remote_prefill":true,"do_remote_decode":false,"remote_block_ids":%s,"remote_engine_id":"7e08fda7-d92d-46aa-afce-7298a1263ab9","remote_request_id":%q,`+
		`"remote_host":"127.0.0.1","remote_port":5601,"tp_size":1,"dcp_size":1,"pp_size":1,"remote_num_tokens":%d,"remote_blocks_expiry_time":null,"transfer_mode":"pull","remote_prefill_cached_tokens":%d}`, b, request, tokens, cached)
}

// keep holds the KV of a prompt for whoever fetches it.
func (s *side) keep(ids []int, cached int) json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.next++
	name := "generate-tokens-b753f6853f24bc8f-" + strconv.Itoa(s.mu.next)
	s.mu.kept[name] = slices.Clone(ids)
	return fakeParams(name, (len(ids)+fakeBlock-1)/fakeBlock, len(ids), cached)
}

// fetch is what the KV is that params speak of.
func (s *side) fetch(params map[string]any, ids []int) (right, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{"remote_block_ids", "remote_engine_id", "remote_request_id", "remote_host", "remote_port"} {
		if params[name] == nil {
			s.mu.halves++
			return false, false
		}
	}
	name, _ := params["remote_request_id"].(string)
	right = slices.Equal(s.mu.kept[name], ids)
	delete(s.mu.kept, name)
	s.mu.fetched++
	if !right {
		s.mu.wrong++
	}
	return right, true
}

// transfer has the connector deal with a request; true says that it is answered.
func (t *task) transfer(raw []byte, salt string) bool {
	var body struct {
		Stream bool
		Params map[string]any `json:"kv_transfer_params"`
	}
	if json.Unmarshal(raw, &body) != nil || body.Params == nil {
		return false
	}
	if t.f.side != nil && body.Params["do_remote_prefill"] == true {
		right, whole := t.f.side.fetch(body.Params, t.ids)
		if !whole {
			fault(t.w, http.StatusInternalServerError, "EngineCore encountered an issue. See stack trace for the root cause.", "")
			return true
		}
		t.wrong, t.brought = !right, true
	}
	if body.Stream || body.Params["do_remote_decode"] != true {
		return false
	}
	t.prompt = len(t.ids)
	t.cache(salt)
	id := (t.ids[t.prompt-1] + 1) % fakeVocab
	params := json.RawMessage(cmp.Or(t.f.says, "null"))
	if t.f.side != nil {
		params = t.f.side.keep(t.ids, t.cached)
	}
	usage := map[string]any{"prompt_tokens": t.prompt, "completion_tokens": 1, "total_tokens": t.prompt + 1, "prompt_tokens_details": map[string]any{"cached_tokens": t.cached}}
	t.w.Header().Set("Content-Type", "application/json")
	b, _ := json.Marshal(map[string]any{"request_id": "generate-tokens-x", "usage": usage, "kv_transfer_params": params, "output_mode": "tokens",
		"choices": []any{map[string]any{"index": 0, "finish_reason": "length", "stop_reason": nil, "token_ids": []int{id}, "logprobs": nil}}})
	_, _ = t.w.Write(b)
	return true
}
