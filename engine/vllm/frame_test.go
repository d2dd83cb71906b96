package vllm

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

// An event as vLLM 0.32 sends it, without and with logprobs, and one of completions.
const (
	nativeEvent = `{"request_id":"generate-tokens-86e3355bfb1a1855","usage":null,"output_mode":"tokens","choices":[{"index":0,"finish_reason":null,"stop_reason":null,"token_ids":[198],"routed_experts":null,"sampling_mask":null,"weight_versions":null,"logprobs":null}]}`
	nativeTops  = `{"request_id":"g","usage":null,"choices":[{"index":0,"finish_reason":"stop","stop_reason":49,"token_ids":[7],"weight_versions":[{"version":"default","start":0,"end":3}],"logprobs":{"content":[{"token_id":7,"logprob":-9.5,"rank":40,"top_logprobs":[{"token_id":7,"logprob":-9.5,"rank":40},{"token_id":57,"logprob":-0.25,"rank":1},{"token_id":3,"logprob":-2,"rank":2}]}]}}]}`
	olderTops   = `{"choices":[{"token_ids":[7],"finish_reason":"stop","stop_reason":49,"logprobs":{"content":[{"token":"token_id:7","logprob":-9.5,"bytes":null,"top_logprobs":[{"token":"token_id:57","logprob":-0.25},{"token":"token_id:3","logprob":-2}]}]}}]}`
	plainTops   = `{"id":"cmpl-1","choices":[{"index":0,"text":"\\\" ]}","logprobs":{"text_offset":[24],"token_logprobs":[-9.5],"tokens":["token_id:7"],"top_logprobs":[{"token_id:7":-9.5,"token_id:3":-2,"token_id:57":-0.25}]},"finish_reason":"stop","stop_reason":49,"prompt_token_ids":null,"token_ids":[7]}]}`
	usageEvent  = `{"choices":[],"usage":{"prompt_tokens":3,"total_tokens":7,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":2}}}`
)

func TestFrame(t *testing.T) {
	var f frame
	want := []dynamo.TokenLogprob{{ID: 7, Logprob: -9.5, Top: []dynamo.TopLogprob{{ID: 57, Logprob: -0.25}, {ID: 3, Logprob: -2}}}}
	for _, text := range []string{nativeTops, olderTops, plainTops} {
		if !f.parse([]byte(text), 2) || string(f.finish) != "stop" || !f.stopped || f.stopID != 49 || len(f.ids) != 1 || f.ids[0] != 7 || !reflect.DeepEqual(f.logprobs, want) {
			t.Errorf("%s\ngot %+v", text, f)
		}
	}
	if !f.parse([]byte(usageEvent), 0) || !f.usage || f.prompt != 3 || f.completion != 4 || f.cached != 2 || len(f.ids) > 0 {
		t.Errorf("got %+v", f)
	}
	if !f.parse([]byte(`{"error": {"message": "a \"b\"", "type": "T", "param": "body.x", "code": 400}}`), 0) || !reflect.DeepEqual(f.fault, &fault{status: 400, message: `a "b"`, kind: "T", param: "x"}) {
		t.Errorf("got %+v", f.fault)
	}
}

func TestParseAllocates(t *testing.T) {
	var f frame
	b := []byte(nativeEvent)
	if got := testing.AllocsPerRun(100, func() {
		if !f.parse(b, 0) {
			t.Fatal("not read")
		}
	}); got != 0 {
		t.Errorf("an event costs %v allocations, want none", got)
	}
}

func BenchmarkParse(b *testing.B) {
	var f frame
	for name, text := range map[string]string{"ids": nativeEvent, "logprobs": nativeTops} {
		data := []byte(text)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if !f.parse(data, 2) {
					b.Fatal("not read")
				}
			}
		})
	}
}

// Whatever is read as an event makes sense, and valid JSON of ids is read as what
// encoding/json reads.
func FuzzFrame(f *testing.F) {
	for _, text := range []string{nativeEvent, nativeTops, olderTops, plainTops, usageEvent, `{"error":{}}`, `{"choices":[{"token_ids":null}]}`, `{"choices":null}`, strings.Repeat("[", 50)} {
		for i := range text {
			f.Add([]byte(text[:i]))
		}
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var e frame
		if !e.parse(b, 5) {
			return
		}
		if len(e.ends) > 0 && len(e.ends) != len(e.logprobs) || e.prompt < 0 || e.completion < 0 || e.cached < 0 {
			t.Fatalf("got %+v", e)
		}
		for _, p := range e.logprobs {
			if len(p.Top) > 5 || math.IsNaN(float64(p.Logprob)) {
				t.Fatalf("got %+v", p)
			}
		}
		var v struct {
			Choices []struct {
				IDs []uint32 `json:"token_ids"`
			}
		}
		if json.Valid(b) && json.Unmarshal(b, &v) == nil && len(v.Choices) == 1 && strings.Count(string(b), "token_ids") == 1 && strings.Count(string(b), "hoices") == 1 {
			if got, want := len(e.ids), len(v.Choices[0].IDs); got != want {
				t.Fatalf("got %d ids of %s, want %d", got, b, want)
			}
		}
	})
}

func FuzzSamples(f *testing.F) {
	f.Add("vllm:a{b=\"c\",d=\"e\\\"f\"} 1.0\n# x\nvllm:g 2", "d")
	f.Fuzz(func(t *testing.T, page, name string) {
		samples(page, "vllm:", func(n, labels, _ string) {
			if !strings.HasPrefix(n, "vllm:") {
				t.Fatal(n)
			}
			_ = label(labels, name)
		})
	})
}

func TestLabel(t *testing.T) {
	const labels = `a="1",note="x \"y\", z=\"5\"",block_size="32"`
	for name, want := range map[string]string{"a": "1", "block_size": "32", "z": "", "note": `x \"y\", z=\"5\"`} {
		if got := label(labels, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}
