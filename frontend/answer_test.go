package frontend

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

const prompted = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"

func TestChatUnary(t *testing.T) {
	e := &fake{answer: says("héllo")}
	c := serve(t, e, nil)
	a := c.ask("/v1/chat/completions", chatBody(`"seed":5,"temperature":0.5,"max_tokens":50,"cache_salt":"s","nvext":{"agent_hints":{"priority":2}}`))
	ch := a.Choices[0]
	if ch.Message.Content != "héllo" || ch.Message.Role != "assistant" || ch.FinishReason != "stop" || a.Object != "chat.completion" || !strings.HasPrefix(a.ID, "chatcmpl-") {
		t.Errorf("got %+v", a)
	}
	promptTokens := len("user\nhi\nassistant\n") + 3 // of the special tokens
	if u := a.Usage; u.Prompt != promptTokens || u.Completion != len("héllo")+1 || u.Total != u.Prompt+u.Completion || u.Details.Cached != 4 {
		t.Errorf("usage: got %+v, want %d prompt tokens", *a.Usage, promptTokens)
	}
	r := e.requests()[0]
	if got := c.server.mu.models["org/m"].Tokenizer.Decode(r.Tokens, false); got != prompted {
		t.Errorf("prompt: got %q, want %q", got, prompted)
	}
	if r.Sampling.Seed != 5 || r.Sampling.Temperature != 0.5 || r.MaxTokens != 50 || r.Priority != 2 || r.Namespace == "" || r.Root == 0 || r.N > 1 {
		t.Errorf("request: got %+v", r)
	}
}

// TestChatStream holds the exact events of a stream.
func TestChatStream(t *testing.T) {
	c := serve(t, &fake{answer: says("hé")}, nil)
	_, got := c.do("POST", "/v1/chat/completions", chatBody(`"stream":true,"stream_options":{"include_usage":true}`))
	got = regexp.MustCompile(`chatcmpl-[0-9a-f]{32}`).ReplaceAllString(got, "ID")
	got = regexp.MustCompile(`"created":\d+`).ReplaceAllString(got, `"created":0`)
	head := `data: {"id":"ID","object":"chat.completion.chunk","created":0,"model":"org/m","system_fingerprint":"fp_0123456789ab","choices":[`
	want := head + `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}` + "\n\n" +
		head + `{"index":0,"delta":{"content":"h"},"logprobs":null,"finish_reason":null}]}` + "\n\n" +
		head + `{"index":0,"delta":{"content":"é"},"logprobs":null,"finish_reason":null}]}` + "\n\n" +
		head + `{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}` + "\n\n" +
		head + `],"usage":{"prompt_tokens":21,"completion_tokens":4,"total_tokens":25,"prompt_tokens_details":{"cached_tokens":4}}}` + "\n\n" +
		"data: [DONE]\n\n"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestDefaultsOfSampling(t *testing.T) {
	e := &fake{answer: says("x")}
	c := serve(t, e, func(_ *Config, m *Model) {
		m.Defaults.TopK.Value, m.Defaults.TopK.Set = 7, true
	})
	c.ask("/v1/chat/completions", chatBody(""))
	c.ask("/v1/chat/completions", chatBody(""))
	c.ask("/v1/chat/completions", chatBody(`"top_k":0,"temperature":0.0000001,"top_p":0`))
	c.ask("/v1/completions", `{"model":"org/m","prompt":"a"}`)
	r := e.requests()
	if s := r[0].Sampling; s.Temperature != 1 || s.TopP != 1 || s.TopK != 7 || s.RepetitionPenalty != 1 {
		t.Errorf("got %+v", s)
	}
	if r[0].Sampling.Seed == r[1].Sampling.Seed {
		t.Error("two requests without a seed share one")
	}
	if s := r[2].Sampling; s.TopK != 0 || s.Temperature != 0 || !(s.TopP > 0 && s.TopP < 1e-6) {
		t.Errorf("got %+v", s)
	}
	if r[0].MaxTokens != 1024-len(r[0].Tokens) || r[3].MaxTokens != 16 {
		t.Errorf("max tokens: got %d and %d", r[0].MaxTokens, r[3].MaxTokens)
	}
	if r[0].Namespace != "" || r[0].Root != 0 {
		t.Errorf("namespace %q, root %d of a request without tenant and salt", r[0].Namespace, r[0].Root)
	}
}

func TestCompletionPrompts(t *testing.T) {
	e := &fake{answer: func(r *dynamo.Request) []dynamo.Chunk { return says(string([]byte{byte(r.Tokens[0])}) + "!")(r) }}
	c := serve(t, e, nil)
	for _, tt := range []struct {
		prompt string
		want   []string
	}{
		{`"ab"`, []string{"a!"}},
		{`["ab","c","d"]`, []string{"a!", "c!", "d!"}},
		{`[98,99]`, []string{"b!"}},
		{`[[98],[99,100]]`, []string{"b!", "c!"}},
	} {
		body := `{"model":"org/m","prompt":` + tt.prompt
		a := c.ask("/v1/completions", body+"}")
		var got []string
		for i, ch := range a.Choices {
			if ch.Index != i || ch.FinishReason != "stop" {
				t.Errorf("%s: choice %d is %+v", tt.prompt, i, ch)
			}
			got = append(got, ch.Text)
		}
		if !slices.Equal(got, tt.want) || !strings.HasPrefix(a.ID, "cmpl-") || a.Object != "text_completion" {
			t.Errorf("%s: got %q, want %q (%+v)", tt.prompt, got, tt.want, a)
		}
		events := c.stream("/v1/completions", body+`,"stream":true}`)
		if got := texts(events, len(tt.want)); !slices.Equal(got, tt.want) {
			t.Errorf("%s streamed: got %q, want %q", tt.prompt, got, tt.want)
		}
	}
}

func TestChoices(t *testing.T) {
	e := &fake{answer: func(r *dynamo.Request) []dynamo.Chunk { return says(strings.Repeat(string(rune('a'+r.Choice)), 3))(r) }}
	c := serve(t, e, nil)
	a := c.ask("/v1/completions", `{"model":"org/m","prompt":["x","y"],"n":3,"max_tokens":2}`)
	var got []string
	for _, ch := range a.Choices {
		got = append(got, ch.Text+"/"+ch.FinishReason)
	}
	want := []string{"aa/length", "bb/length", "cc/length", "aa/length", "bb/length", "cc/length"}
	if !slices.Equal(got, want) || a.Usage.Prompt != 2 || a.Usage.Completion != 12 {
		t.Errorf("got %q, usage %+v; want %q", got, a.Usage, want)
	}
	events := c.stream("/v1/chat/completions", chatBody(`"n":3,"stream":true`))
	if got := texts(events, 3); !slices.Equal(got, []string{"aaa", "bbb", "ccc"}) {
		t.Errorf("streamed: got %q", got)
	}
	ids := map[dynamo.RequestID]bool{}
	for _, r := range e.requests() {
		ids[r.ID] = true
	}
	if len(ids) != 9 {
		t.Errorf("%d ids for 9 choices", len(ids))
	}
}

// TestStopEndsOneChoice wants a stop string to end its own choice and no other,
// and its engine sequence with it.
func TestStopEndsOneChoice(t *testing.T) {
	e := &fake{answer: func(r *dynamo.Request) []dynamo.Chunk {
		return says([]string{"one STOP " + strings.Repeat("x", 500), "two"}[r.Choice])(r)
	}}
	c := serve(t, e, nil)
	a := c.ask("/v1/chat/completions", chatBody(`"n":2,"stop":["STOP"]`))
	if a.Choices[0].Message.Content != "one " || a.Choices[1].Message.Content != "two" || string(a.Choices[0].StopReason) != `"STOP"` {
		t.Errorf("got %+v", a.Choices)
	}
	if want := len("one STOP") + len("two") + 1; a.Usage.Completion != want {
		t.Errorf("%d tokens in the usage, want %d", a.Usage.Completion, want)
	}
	if _, yielded := e.counts(); yielded > 20 {
		t.Errorf("the engine yielded %d chunks", yielded)
	}
}

func TestStop(t *testing.T) {
	tests := []struct{ text, fields, want, reason string }{
		{"hello world", `"stop":"wor"`, "hello ", `"wor"`},
		{"hello world", `"stop":["world","o w"]`, "hell", `"o w"`},
		{"hello world", `"stop":"wor","include_stop_str_in_output":true`, "hello wor", `"wor"`},
		{"aab", `"stop":"ab"`, "a", `"ab"`},
		{"abcabd!", `"stop":"abd"`, "abc", `"abd"`},
		{"naïve é!", `"stop":"é"`, "naïve ", `"é"`},
		{"almost wo", `"stop":"world"`, "almost wo", ""},
		{"xxSTOPSTOP", `"stop":"STOP","min_tokens":7`, "xxSTOP", `"STOP"`},
		{"ab", `"stop_token_ids":[257]`, "ab", "257"},
		{"ab", `"stop_token_ids":[257],"include_stop_str_in_output":true,"skip_special_tokens":false`, "ab<|im_end|>", "257"},
		{"ab", `"skip_special_tokens":false`, "ab", ""},
	}
	for _, tt := range tests {
		c := serve(t, &fake{answer: says(tt.text)}, nil)
		a := c.ask("/v1/chat/completions", chatBody(tt.fields))
		if ch := a.Choices[0]; ch.Message.Content != tt.want || string(ch.StopReason) != tt.reason || ch.FinishReason != "stop" {
			t.Errorf("%q with %s: got %q, reason %s; want %q, %s", tt.text, tt.fields, ch.Message.Content, ch.StopReason, tt.want, tt.reason)
		}
		events := c.stream("/v1/chat/completions", chatBody(`"stream":true,`+tt.fields))
		if got := texts(events, 1)[0]; got != tt.want {
			t.Errorf("%q with %s streamed: got %q, want %q", tt.text, tt.fields, got, tt.want)
		}
	}
}

func TestLogprobs(t *testing.T) {
	c := serve(t, &fake{answer: says("ab")}, nil)
	a := c.ask("/v1/chat/completions", chatBody(`"logprobs":true,"top_logprobs":2,"return_token_ids":true`))
	entry := func(b string, n string) string {
		return `{"token":"` + b + `","logprob":-0.5,"bytes":[` + n + `],"top_logprobs":[{"token":"` + b + `","logprob":-0.5,"bytes":[` + n + `]},`
	}
	want := `{"content":[` + entry("a", "97") + `{"token":"b","logprob":-1.5,"bytes":[98]}]},` + entry("b", "98") + `{"token":"c","logprob":-1.5,"bytes":[99]}]}],"refusal":null}`
	if got := string(a.Choices[0].Logprobs); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := a.Choices[0].TokenIDs; !slices.Equal(got, []int{'a', 'b', int(imEnd)}) || len(a.PromptIDs) != 21 {
		t.Errorf("token_ids %v, prompt_token_ids %v", got, a.PromptIDs)
	}
	events := c.stream("/v1/chat/completions", chatBody(`"stream":true,"logprobs":true,"return_token_ids":true`))
	var ids []int
	for _, e := range events {
		for _, ch := range e.Choices {
			ids = append(ids, ch.TokenIDs...)
		}
	}
	if !slices.Equal(ids, []int{'a', 'b', int(imEnd)}) || len(events[0].PromptIDs) != 21 || len(events[1].PromptIDs) != 0 {
		t.Errorf("streamed: token_ids %v, prompt_token_ids %v", ids, events[0].PromptIDs)
	}
}

func TestEcho(t *testing.T) {
	c := serve(t, &fake{answer: says("cd")}, nil)
	a := c.ask("/v1/completions", `{"model":"org/m","prompt":"ab","echo":true,"logprobs":1,"max_tokens":1}`)
	want := `{"tokens":["a","b","c"],"token_logprobs":[null,-0.5,-0.5],"top_logprobs":[null,{"b":-0.5},{"c":-0.5}],"text_offset":[0,1,2]}`
	if ch := a.Choices[0]; ch.Text != "abc" || string(ch.Logprobs) != want {
		t.Errorf("got %q, %s", ch.Text, ch.Logprobs)
	}
	a = c.ask("/v1/completions", `{"model":"org/m","prompt":[97,98],"echo":true,"return_token_ids":true}`)
	if ch := a.Choices[0]; ch.Text != "abcd" || !slices.Equal(ch.PromptIDs, []int{97, 98}) || !slices.Equal(ch.TokenIDs, []int{99, 100, 257}) {
		t.Errorf("got %+v", ch)
	}
	events := c.stream("/v1/completions", `{"model":"org/m","prompt":"ab","echo":true,"logprobs":0,"stream":true}`)
	var offsets []string
	for _, e := range events {
		for _, ch := range e.Choices {
			_, offset, _ := strings.Cut(string(ch.Logprobs), `"text_offset":`)
			offsets = append(offsets, strings.TrimSuffix(offset, "}"))
		}
	}
	if got := texts(events, 1)[0]; got != "abcd" || !slices.Equal(offsets, []string{"[0,1]", "[2]", "[3]", "[]"}) {
		t.Errorf("streamed: got %q, offsets %q", got, offsets)
	}
}

func TestContinuousUsage(t *testing.T) {
	c := serve(t, &fake{answer: says("abc")}, nil)
	events := c.stream("/v1/chat/completions", chatBody(`"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}`))
	var got []int
	for _, e := range events {
		got = append(got, e.Usage.Completion)
	}
	if !slices.Equal(got, []int{1, 1, 2, 3, 4, 4}) {
		t.Errorf("got %v", got)
	}
}

func TestMessages(t *testing.T) {
	e := &fake{answer: says("x")}
	c := serve(t, e, nil)
	c.ask("/v1/chat/completions", `{"model":"org/m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"name":"n"}]}`)
	c.ask("/v1/chat/completions", `{"model":"org/m","add_generation_prompt":false,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}`)
	c.ask("/v1/chat/completions", `{"model":"org/m","nvext":{"token_data":[97,98]},"messages":[{"role":"user","content":"a"}]}`)
	tok := c.server.mu.models["org/m"].Tokenizer
	for i, want := range []string{
		"<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n",
		"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n",
		"ab",
	} {
		if got := tok.Decode(e.requests()[i].Tokens, false); got != want {
			t.Errorf("request %d: prompt %q, want %q", i, got, want)
		}
	}
}

// TestSeeded: the engine is told whose the seed is.
func TestSeeded(t *testing.T) {
	for field, want := range map[string]dynamo.Sampling{
		``: {}, `,"seed":null`: {}, `,"seed":0`: {Seeded: true}, `,"seed":7`: {Seeded: true, Seed: 7},
	} {
		f := &fake{answer: says("a")}
		serve(t, f, nil).ask("/v1/completions", `{"model":"org/m","prompt":"abc"`+field+`}`)
		if s := f.requests()[0].Sampling; s.Seeded != want.Seeded || s.Seeded && s.Seed != want.Seed {
			t.Errorf("%q: seed %d, the client's: %t; want %+v", field, s.Seed, s.Seeded, want)
		}
	}
}
