package frontend

import (
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// TestLeadingSpace wants a completion to keep the space that SentencePiece
// vocabularies drop at the start of a text, and a chat answer to begin without.
func TestLeadingSpace(t *testing.T) {
	tok, err := tokenizer.FromJSON([]byte(`{"version":"1.0","added_tokens":[{"id":0,"content":"<unk>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
		"normalizer":{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},
		"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]},
		"model":{"type":"BPE","unk_token":"<unk>","fuse_unk":true,"byte_fallback":true,"vocab":{"<unk>":0,"▁":1,"a":2,"b":3,"▁a":4,"▁b":5},"merges":["▁ a","▁ b"]}}`))
	if err != nil {
		t.Fatal(err)
	}
	e := &fake{answer: func(r *dynamo.Request) []dynamo.Chunk {
		last := chunkOf(r, 5)
		last.Finish = dynamo.FinishLength
		return []dynamo.Chunk{chunkOf(r, 5), last}
	}}
	c := serve(t, e, func(_ *Config, m *Model) { m.Tokenizer = tok })
	if got := c.ask("/v1/completions", `{"model":"org/m","prompt":"a"}`).Choices[0].Text; got != " b b" {
		t.Errorf("completion: got %q", got)
	}
	if got := c.ask("/v1/chat/completions", `{"model":"org/m","nvext":{"token_data":[4]},"messages":[{"role":"user","content":"a"}]}`).Choices[0].Message.Content; got != "b b" {
		t.Errorf("chat: got %q", got)
	}
}
