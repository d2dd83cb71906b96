package openai

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dynamo-go/dynamo"
)

var spell = [][]byte{[]byte("a"), []byte("b\n"), []byte("é"), {0xe2, 0x82}, []byte("a")}

func spelled(id dynamo.TokenID) []byte { return spell[id] }

func TestStream(t *testing.T) {
	a := &Answer{ID: "chatcmpl-1", Created: 7, Model: `m"x`, Fingerprint: "fp_1"}
	a.Begin()
	const head = `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":7,"model":"m\"x","system_fingerprint":"fp_1","choices":[`
	usage := Usage{Prompt: 3, Cached: 2, Completion: 4}
	const usageText = `"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":2}}`
	tests := []struct{ got, want string }{
		{string(a.AppendRole(nil, 1, nil, nil)), head + `{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}` + "\n\n"},
		{string(a.AppendRole(nil, 0, []dynamo.TokenID{5, 6}, nil)), head + `{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":[5,6]}` + "\n\n"},
		{string(a.AppendPiece(nil, &Piece{Text: []byte("x\"\n\x00é\u2028\u2029\xff")}, nil)), head + `{"index":0,"delta":{"content":"x\"\n\u0000é\u2028\u2029` + "\ufffd" + `"},"logprobs":null,"finish_reason":null}]}` + "\n\n"},
		{string(a.AppendPiece(nil, &Piece{Finish: dynamo.FinishLength}, &usage)), head + `{"index":0,"delta":{},"logprobs":null,"finish_reason":"length"}],` + usageText + "}\n\n"},
		{string(a.AppendPiece(nil, &Piece{Text: []byte("x"), Finish: dynamo.FinishStop, StopString: "\n"}, nil)), head + `{"index":0,"delta":{"content":"x"},"logprobs":null,"finish_reason":"stop","stop_reason":"\n"}]}` + "\n\n"},
		{string(a.AppendUsage(nil, usage)), head + "]," + usageText + "}\n\n"},
		{string(AppendDone(nil)), "data: [DONE]\n\n"},
		{string(AppendErrorEvent(nil, &dynamo.Error{Kind: dynamo.KindDeadline, Message: "late"})), `data: {"error":{"message":"late","type":"timeout_error","param":null,"code":"deadline"}}` + "\n\n"},
	}
	for i, tt := range tests {
		if tt.got != tt.want {
			t.Errorf("event %d:\ngot  %s\nwant %s", i, tt.got, tt.want)
		}
	}
}

func TestCompletionStream(t *testing.T) {
	a := &Answer{Route: RouteCompletion, ID: "cmpl-1", Model: "m", TokenBytes: spelled, Logprobs: true, TokenIDs: true}
	a.Begin()
	p := &Piece{
		Index: 2, Text: []byte("ab\n"), Offset: 10, Tokens: []dynamo.TokenID{0, 1}, PromptTokens: []dynamo.TokenID{4},
		Logprobs: []dynamo.TokenLogprob{
			{ID: 0, Logprob: -0.5, Top: []dynamo.TopLogprob{{ID: 4, Logprob: -0.25}, {ID: 1, Logprob: float32(math.Inf(-1))}}},
			{ID: 1, Logprob: float32(math.NaN())},
		},
		Finish: dynamo.FinishStop, StopToken: Some(dynamo.TokenID(1)),
	}
	want := `data: {"id":"cmpl-1","object":"text_completion","created":0,"model":"m","system_fingerprint":null,"choices":[{"index":2,"text":"ab\n","logprobs":` +
		`{"tokens":["a","b\n"],"token_logprobs":[-0.5,null],"top_logprobs":[{"a":-0.25,"b\n":-9999},null],"text_offset":[10,11]},` +
		`"finish_reason":"stop","stop_reason":1,"prompt_token_ids":[4],"token_ids":[0,1]}]}` + "\n\n"
	if got := string(a.AppendPiece(nil, p, nil)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestWhole(t *testing.T) {
	a := &Answer{ID: "chatcmpl-1", Model: "m", TokenBytes: spelled, Logprobs: true, TokenIDs: true}
	p := &Piece{
		Text: []byte("é"), Finish: dynamo.FinishLength, Tokens: []dynamo.TokenID{3}, PromptTokens: []dynamo.TokenID{1, 2},
		Logprobs: []dynamo.TokenLogprob{{ID: 3, Logprob: -1, Top: []dynamo.TopLogprob{{ID: 0, Logprob: -1}}}},
	}
	want := `{"id":"chatcmpl-1","object":"chat.completion","created":0,"model":"m","system_fingerprint":null,"choices":[{"index":0,"message":{"role":"assistant","content":"é","refusal":null},` +
		`"logprobs":{"content":[{"token":"` + "\ufffd\ufffd" + `","logprob":-1,"bytes":[226,130],"top_logprobs":[{"token":"a","logprob":-1,"bytes":[97]}]}],"refusal":null},` +
		`"finish_reason":"length","token_ids":[3]}],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":0}},"prompt_token_ids":[1,2]}`
	got := a.AppendWhole(nil, []*Piece{p}, Usage{Prompt: 2, Completion: 1})
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !json.Valid(got) {
		t.Error("not valid JSON")
	}
}

// FuzzText wants whatever text an answer carries to arrive as encoding/json
// reads it, and in one line.
func FuzzText(f *testing.F) {
	f.Add([]byte("plain"))
	f.Add([]byte("\x00\"\\\u2028\u2029\xff\xe2\x82é😀\x7f"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a := &Answer{ID: "x", Model: string(text), Route: RouteCompletion}
		a.Begin()
		event := a.AppendPiece(nil, &Piece{Text: text}, nil)
		if n := bytes.Count(event, []byte("\n")); n != 2 || !utf8.Valid(event) {
			t.Fatalf("%d newlines in %q", n, event)
		}
		var got struct {
			Model   string
			Choices []struct{ Text string }
		}
		if err := json.Unmarshal(bytes.TrimPrefix(event, []byte("data: ")), &got); err != nil {
			t.Fatalf("%v: %q", err, event)
		}
		want := string([]rune(string(text))) // each invalid byte becomes U+FFFD
		if got.Choices[0].Text != want || got.Model != want {
			t.Fatalf("got %q, want %q", got.Choices[0].Text, want)
		}
	})
}

func TestAppendPieceAllocatesNothing(t *testing.T) {
	a := &Answer{ID: "chatcmpl-1", Model: "m"}
	a.Begin()
	p, buf := &Piece{Text: []byte(" word")}, make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf = a.AppendPiece(buf[:0], p, nil) }); n != 0 {
		t.Errorf("%v allocations for an event", n)
	}
}

func TestError(t *testing.T) {
	tests := []struct {
		e    *dynamo.Error
		want string
	}{
		{&dynamo.Error{Kind: dynamo.KindInvalid, Message: "m", Param: "stop[1]"}, `{"error":{"message":"m","type":"invalid_request_error","param":"stop[1]","code":null}}`},
		{&dynamo.Error{Kind: dynamo.KindExhausted, Message: "full"}, `{"error":{"message":"full","type":"rate_limit_error","param":null,"code":"exhausted"}}`},
		{&dynamo.Error{Kind: dynamo.KindInternal, Message: "bug", Code: "c"}, `{"error":{"message":"bug","type":"server_error","param":null,"code":"c"}}`},
	}
	for _, tt := range tests {
		if got := string(AppendError(nil, tt.e)); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func BenchmarkAppendPiece(b *testing.B) {
	a := &Answer{ID: "chatcmpl-01903617-9d84-4796-a018-627f7204b9f3", Model: "smollm2", Fingerprint: "fp_0123456789"}
	a.Begin()
	p, buf := &Piece{Text: []byte(" government")}, []byte(nil)
	b.ReportAllocs()
	for b.Loop() {
		buf = a.AppendPiece(buf[:0], p, nil)
	}
	b.SetBytes(int64(len(buf)))
}

func TestModels(t *testing.T) {
	got := string(AppendModels(nil, []ModelInfo{{ID: "a/b", Created: 1, ContextLength: 2}, {ID: "c"}}))
	want := `{"object":"list","data":[{"id":"a/b","object":"model","created":1,"owned_by":"dynamo","max_model_len":2},{"id":"c","object":"model","created":0,"owned_by":"dynamo","max_model_len":0}]}`
	if got != want {
		t.Errorf("got %s", got)
	}
	got = string(AppendModel(nil, ModelInfo{ID: `a"`, Parent: "b/c", Created: 1, ContextLength: 2}))
	if want := `{"id":"a\"","object":"model","created":1,"parent":"b/c","owned_by":"dynamo","max_model_len":2}`; got != want {
		t.Errorf("an adapter: got %s, want %s", got, want)
	}
	if got := string(AppendTokenized(nil, []dynamo.TokenID{1, 2}, 9, []string{"a", "b"})); !strings.Contains(got, `"count":2,"max_model_len":9,"tokens":[1,2],"token_strs":["a","b"]`) {
		t.Errorf("got %s", got)
	}
}
