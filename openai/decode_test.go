package openai

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

const hi = `"messages":[{"role":"user","content":"hi"}]`

func TestDecodeChat(t *testing.T) {
	r, err := DecodeChat([]byte(`{
		"model":"org/m", "stream":true, "stream_options":{"include_usage":true,"x":1}, "n":2, "max_completion_tokens":5.0,
		"temperature":0.5, "top_p":1, "top_k":-1, "min_p":0.1, "presence_penalty":-2, "frequency_penalty":2, "repetition_penalty":1.1,
		"seed":-7, "stop":["a\u00e9", 9, "b"], "stop_token_ids":[3], "logit_bias":{"5":-100,"6":1.5}, "logprobs":true, "top_logprobs":20,
		"ignore_eos":true, "min_tokens":2, "skip_special_tokens":false, "include_stop_str_in_output":true, "return_token_ids":true,
		"priority":3, "cache_salt":"s", "user":null, "future":{"a":[1]}, "tools":[], "tool_choice":"auto", "response_format":{"type":"text"},
		"modalities":["text"], "reasoning_effort":"low", "chat_template_kwargs":{"enable_thinking":false}, "metadata":{"k":"v"},
		"messages":[
			{"role":"system","content":"s"},
			{"role":"user","content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]},
			{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]} ,
			{"role":"tool","content":"\ud83d\ude00","tool_call_id":"1"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if r.Model != "org/m" || !r.Stream || !r.IncludeUsage || r.N != 2 || r.MaxTokens != Some(5) || r.MinTokens != 2 {
		t.Errorf("got %+v", r.Params)
	}
	if r.Temperature != Some(0.5) || r.TopP != Some(1.0) || r.TopK != Some(0) || r.Seed != Some(int64(-7)) || r.Priority != -3 {
		t.Errorf("sampling: got %+v", r.Params)
	}
	if !slices.Equal(r.Stop, []string{"aé", "b"}) || !slices.Equal(r.StopTokens, []dynamo.TokenID{9, 3}) {
		t.Errorf("stop: got %q, %v", r.Stop, r.StopTokens)
	}
	if !reflect.DeepEqual(r.LogitBias, []dynamo.LogitBias{{ID: 5, Bias: -100}, {ID: 6, Bias: 1.5}}) {
		t.Errorf("logit_bias: got %v", r.LogitBias)
	}
	var extra []string
	for _, m := range r.Extra {
		extra = append(extra, m.Name+"="+string(m.Value))
	}
	if want := []string{`future={"a":[1]}`, `metadata={"k":"v"}`}; !slices.Equal(extra, want) {
		t.Errorf("unknown fields: got %q, want %q", extra, want)
	}
	m := r.Messages
	if len(m) != 4 || !m[0].Plain || m[1].Plain || !slices.Equal(m[1].Parts, []string{"x", "y"}) || m[2].Plain || m[3].Text != "😀" {
		t.Errorf("messages: got %+v", m)
	}
	if want := `{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}`; string(m[2].Raw) != want {
		t.Errorf("raw message: got %s, want %s", m[2].Raw, want)
	}
}

// TestDecodeFaults wants each bad body refused with an error of KindInvalid that
// names the field.
func TestDecodeFaults(t *testing.T) {
	tests := []struct{ body, param, message string }{
		{``, "", "not a complete JSON object"},
		{`{"model":"m","messages":[`, "messages", "not valid JSON at byte 25"},
		{`[1]`, "", "the body must be an object, not an array"},
		{`{"model":"m",` + hi + `} {}`, "", "more than one"},
		{`{` + hi + `}`, "model", "model"},
		{`{"model":7,` + hi + `}`, "model", "must be a string, not a number"},
		{`{"model":"m"}`, "messages", "missing or empty"},
		{`{"model":"m","messages":[]}`, "messages", "missing or empty"},
		{`{"model":"m","messages":{}}`, "messages", "must be an array"},
		{`{"model":"m","messages":[7]}`, "messages[0]", "must be an object"},
		{`{"model":"m","messages":[{"content":"x"}]}`, "messages[0].role", "no role"},
		{`{"model":"m","messages":[{"role":"zz","content":"x"}]}`, "messages[0].role", `"zz"`},
		{`{"model":"m","messages":[{"role":"user"}]}`, "messages[0].content", "no content"},
		{`{"model":"m","messages":[{"role":"user","content":3}]}`, "messages[0].content", "not a number"},
		{`{"model":"m","messages":[{"role":"user","content":"a"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"x"}}]}]}`, "messages[1].content[0]", "image_url"},
		{`{"model":"m","messages":[{"role":"user","content":[{"type":"input_audio"}]}]}`, "messages[0].content[0]", "not supported"},
		{`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"zz"}]}]}`, "messages[0].content[1]", "zz"},
		{`{"model":"m","max_tokens":-1,` + hi + `}`, "max_tokens", "between 1 and"},
		{`{"model":"m","max_tokens":0,` + hi + `}`, "max_tokens", "between 1 and"},
		{`{"model":"m","max_tokens":"x",` + hi + `}`, "max_tokens", "must be an integer, not a string"},
		{`{"model":"m","max_tokens":1.5,` + hi + `}`, "max_tokens", "must be an integer"},
		{`{"model":"m","max_tokens":99999999999999999999,` + hi + `}`, "max_tokens", "between"},
		{`{"model":"m","max_tokens":1,"max_completion_tokens":2,` + hi + `}`, "max_completion_tokens", "differ"},
		{`{"model":"m","max_tokens":1,"min_tokens":2,` + hi + `}`, "min_tokens", "more than max_tokens"},
		{`{"model":"m","temperature":NaN,` + hi + `}`, "temperature", "byte"},
		{`{"model":"m","temperature":-0.1,` + hi + `}`, "temperature", "between 0 and 2"},
		{`{"model":"m","temperature":1e999,` + hi + `}`, "temperature", "between 0 and 2"},
		{`{"model":"m","top_p":-Infinity,` + hi + `}`, "top_p", "byte"},
		{`{"model":"m","top_p":2,` + hi + `}`, "top_p", "between 0 and 1"},
		{`{"model":"m","top_k":-2,` + hi + `}`, "top_k", "between -1 and"},
		{`{"model":"m","min_p":1.1,` + hi + `}`, "min_p", "between"},
		{`{"model":"m","presence_penalty":3,` + hi + `}`, "presence_penalty", "between -2 and 2"},
		{`{"model":"m","repetition_penalty":0,` + hi + `}`, "repetition_penalty", "between"},
		{`{"model":"m","n":0,` + hi + `}`, "n", "between 1 and 128"},
		{`{"model":"m","n":129,` + hi + `}`, "n", "between 1 and 128"},
		{`{"model":"m","stop":7,` + hi + `}`, "stop", "must be a string or an array"},
		{`{"model":"m","stop":["a",true],` + hi + `}`, "stop[1]", "must be a string, not a boolean"},
		{`{"model":"m","stop":["a",""],` + hi + `}`, "stop[1]", "empty"},
		{`{"model":"m","stop":"",` + hi + `}`, "stop", "empty"},
		{`{"model":"m","stop":["` + strings.Repeat("x", MaxStopBytes+1) + `"],` + hi + `}`, "stop[0]", "longer"},
		{`{"model":"m","stop_token_ids":[1,-1],` + hi + `}`, "stop_token_ids[1]", "between 0 and"},
		{`{"model":"m","logit_bias":{"x":1},` + hi + `}`, "logit_bias", "token ids"},
		{`{"model":"m","logit_bias":{"1":101},` + hi + `}`, "logit_bias[1]", "between -100 and 100"},
		{`{"model":"m","top_logprobs":2,` + hi + `}`, "top_logprobs", "together"},
		{`{"model":"m","logprobs":true,"top_logprobs":21,` + hi + `}`, "top_logprobs", "between 0 and 20"},
		{`{"model":"m","stream_options":{"include_usage":true},` + hi + `}`, "stream_options", "stream"},
		{`{"model":"m","stream":"yes",` + hi + `}`, "stream", "must be true or false, not a string"},
		{`{"model":"m","tools":[{"type":"function"}],` + hi + `}`, "tools", "not supported"},
		{`{"model":"m","tool_choice":"required",` + hi + `}`, "tool_choice", "not supported"},
		{`{"model":"m","functions":[{}],` + hi + `}`, "functions", "not supported"},
		{`{"model":"m","modalities":["text","audio"],` + hi + `}`, "modalities", "not supported"},
		{`{"model":"m","audio":{"voice":"x"},` + hi + `}`, "audio", "not supported"},
		{`{"model":"m","chat_template":"{{x}}",` + hi + `}`, "chat_template", "--chat-template"},
		{`{"model":"m","suffix":"x",` + hi + `}`, "suffix", "not supported"},
		{`{"model":"m","nvext":{"use_raw_prompt":true},` + hi + `}`, "nvext.use_raw_prompt", "/v1/completions"},
		{`{"model":"m","nvext":{"ignore_eos":3},` + hi + `}`, "nvext.ignore_eos", "true or false"},
		{`{"model":"m","continue_final_message":true,"add_generation_prompt":true,` + hi + `}`, "continue_final_message", "exclude"},
		{`{"model":"m","seed":1,"seed":2,` + hi + `}`, "seed", "twice"},
		{`{"model":"m","messages":[{"role":"user","content":"x","role":"system"}]}`, "messages[0].role", "twice"},
		{`{"model":"m","messages":[{"role":"user","content":"\ud800"}]}`, "messages[0].content", "surrogate"},
		{`{"model":"m","messages":[{"role":"user","content":"` + "\xff" + `"}]}`, "messages[0].content", "UTF-8"},
		{`{"model":"m","zzz":` + strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1) + `,` + hi + `}`, "", "levels deep"},
	}
	for _, tt := range tests {
		_, err := DecodeChat([]byte(tt.body))
		checkFault(t, tt.body, err, tt.param, tt.message)
	}
}

func checkFault(t *testing.T, body string, err error, param, message string) {
	t.Helper()
	var e *dynamo.Error
	if !errors.As(err, &e) {
		t.Errorf("%.80s: error %v, want a *dynamo.Error", body, err)
		return
	}
	if e.Kind != dynamo.KindInvalid || e.Param != param || !strings.Contains(e.Error(), message) {
		t.Errorf("%.80s:\ngot  %s, param %q: %s\nwant invalid, param %q: …%s…", body, e.Kind, e.Param, e, param, message)
	}
}

func TestDecodeCompletion(t *testing.T) {
	tests := []struct {
		prompt string
		want   []Prompt
	}{
		{`"a"`, []Prompt{{Text: "a"}}},
		{`["a","b"]`, []Prompt{{Text: "a"}, {Text: "b"}}},
		{`[1,2]`, []Prompt{{Tokens: []dynamo.TokenID{1, 2}}}},
		{`[[1],[2,3]]`, []Prompt{{Tokens: []dynamo.TokenID{1}}, {Tokens: []dynamo.TokenID{2, 3}}}},
	}
	for _, tt := range tests {
		r, err := DecodeCompletion([]byte(`{"model":"m","echo":true,"logprobs":0,"suffix":"","best_of":1,"prompt":` + tt.prompt + `}`))
		if err != nil {
			t.Errorf("%s: %v", tt.prompt, err)
			continue
		}
		if !reflect.DeepEqual(r.Prompts, tt.want) || !r.Echo || r.Logprobs != Some(0) {
			t.Errorf("%s: got %+v", tt.prompt, r)
		}
	}
	faults := []struct{ fields, param, message string }{
		{`"prompt":[]`, "prompt", "empty"},
		{`"max_tokens":1`, "prompt", "missing"},
		{`"prompt":null`, "prompt", "missing"},
		{`"prompt":true`, "prompt", "must be a string, an array"},
		{`"prompt":[1,"a"]`, "prompt[1]", "must be"},
		{`"prompt":["a",1]`, "prompt[1]", "must be"},
		{`"prompt":[[1],[]]`, "prompt[1]", "empty"},
		{`"prompt":[[1],[1.5]]`, "prompt[1][0]", "integer"},
		{`"prompt":[4294967296]`, "prompt[0]", "between 0 and"},
		{`"prompt":"a","best_of":2`, "best_of", "not supported"},
		{`"prompt":"a","n":3,"best_of":2`, "best_of", "less than n"},
		{`"prompt":"a","suffix":"b"`, "suffix", "not supported"},
		{`"prompt":"a","logprobs":true`, "logprobs", "integer"},
		{`"prompt":[` + strings.Repeat(`"a",`, MaxPrompts) + `"a"]`, "prompt", "more than"},
		{`"prompt":[` + strings.Repeat(`"a",`, 99) + `"a"],"n":100`, "n", "more than"},
	}
	for _, tt := range faults {
		_, err := DecodeCompletion([]byte(`{"model":"m",` + tt.fields + `}`))
		checkFault(t, tt.fields, err, tt.param, tt.message)
	}
}

func TestDecodeTokenize(t *testing.T) {
	if r, err := DecodeTokenize([]byte(`{"prompt":"","return_token_strs":true}`)); err != nil || !r.Prompt.Set || !r.ReturnStrings {
		t.Errorf("got %+v, %v", r, err)
	}
	if r, err := DecodeTokenize([]byte(`{"model":"m","add_special_tokens":false,` + hi + `}`)); err != nil || len(r.Messages) != 1 || r.AddSpecial != Some(false) {
		t.Errorf("got %+v, %v", r, err)
	}
	if r, err := DecodeDetokenize([]byte(`{"tokens":[1,2]}`)); err != nil || len(r.Tokens) != 2 {
		t.Errorf("got %+v, %v", r, err)
	}
	_, err := DecodeTokenize([]byte(`{}`))
	checkFault(t, "tokenize {}", err, "prompt", "neither")
	_, err = DecodeTokenize([]byte(`{"prompt":"a",` + hi + `}`))
	checkFault(t, "tokenize both", err, "messages", "exclude")
	_, err = DecodeDetokenize([]byte(`{}`))
	checkFault(t, "detokenize {}", err, "tokens", "missing")
}

// TestHugeLists wants lists refused at their limit: what is allocated does not
// grow with what is sent.
func TestHugeLists(t *testing.T) {
	const million = 1 << 20
	for _, tt := range []struct{ param, element string }{
		{"stop", `"a",`},
		{"stop_token_ids", `1,`},
		{"messages", `{"role":"user","content":"a"},`},
	} {
		body := []byte(`{"model":"m","` + tt.param + `":[` + strings.Repeat(tt.element, million) + `0]}`)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := DecodeChat(body)
		runtime.ReadMemStats(&after)
		checkFault(t, tt.param, err, tt.param, "more than")
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
			t.Errorf("%s: %d bytes allocated for a body of %d", tt.param, grown, len(body))
		}
	}
	var b strings.Builder
	for i := range MaxLogitBias + 1 {
		fmt.Fprintf(&b, `"%d":1,`, i)
	}
	_, err := DecodeChat([]byte(`{"model":"m","logit_bias":{` + strings.TrimSuffix(b.String(), ",") + `},` + hi + `}`))
	checkFault(t, "logit_bias", err, "logit_bias", "more than")
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"model":"m",` + hi + `}`, `{"model":"m","prompt":[[1,2],[3]],"logprobs":3,"echo":true}`, `{"prompt":"x","tokens":[1]}`,
		`{"model":"m","stop":["a",1],"logit_bias":{"1":2},"nvext":{"token_data":[1],"agent_hints":{"priority":1}},` + hi + `}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"\ud83d\ude00"}]}],"chat_template_kwargs":{"a":{}}}`,
		`{"model":"m","response_format":{"json_schema":{"schema":{"type":"object"}},"type":"json_schema"},"kv_transfer_params":{"a":1},` + hi + `}`,
		`{"model":"m","prompt":"x","structured_outputs":{"choice":["a","b"],"disable_any_whitespace":true}}`,
		`{"model":"m","guided_json":"{\"a\":[1]}","nvext":{"guided_regex":"a+","guided_whitespace_pattern":" "},"prompt":[1]}`,
		`{"model":"m","response_format":{"type":"structural_tag","structures":[],"triggers":["<f>"]},` + hi + `}`,
		`{"a":"\ud800"}`, `{"a":NaN}`, "{\"\xff\":1}", `[[[[`, `{"stop":"`, `{"n":1e400}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		check := func(err error) {
			if err == nil {
				return
			}
			var e *dynamo.Error
			if !errors.As(err, &e) || e.Kind != dynamo.KindInvalid || e.Error() == "" {
				t.Fatalf("error %v, want a *dynamo.Error that says something", err)
			}
		}
		chat, err := DecodeChat(body)
		check(err)
		if err == nil && (chat.Model == "" || chat.N < 1 || chat.N > MaxChoices || len(chat.Stop) > MaxStops) {
			t.Fatalf("accepted %+v", chat)
		}
		if err == nil {
			checkGuided(t, &chat.Params)
		}
		completion, err := DecodeCompletion(body)
		check(err)
		if err == nil && (len(completion.Prompts) == 0 || len(completion.Prompts) > MaxPrompts) {
			t.Fatalf("accepted %+v", completion)
		}
		if err == nil {
			checkGuided(t, &completion.Params)
		}
		_, err = DecodeTokenize(body)
		check(err)
		_, err = DecodeDetokenize(body)
		check(err)
	})
}

func BenchmarkDecodeChat(b *testing.B) {
	body := []byte(`{"model":"smollm2","max_tokens":16,"stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"` + strings.Repeat("time ", 32) + `"}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeChat(body); err != nil {
			b.Fatal(err)
		}
	}
}
