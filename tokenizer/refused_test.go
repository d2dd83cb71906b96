package tokenizer_test

import (
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// badFiles are refused, with a word of the reason in the message.
var badFiles = []struct{ name, file, want string }{
	{"empty", ``, "expected '{'"},
	{"not json", `hello`, "expected '{'"},
	{"no model", `{}`, "no model"},
	{"truncated", `{"model": {"vocab": {"a": 0, "b`, "end of a string"},
	{"rest", `{"model": {"type":"BPE","vocab":{"a":0},"merges":[]}} x`, "end of the file"},
	{"unigram", `{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.5]]}}`, `"Unigram"`},
	{"unigram without a type", `{"model": {"vocab": [["a", 0.5]], "unk_id": 0}}`, "Unigram"},
	{"wordpiece", `{"model": {"type": "WordPiece", "vocab": {"a": 0}}}`, `"WordPiece"`},
	{"wordlevel", `{"model": {"vocab": {"a": 0}, "type": "WordLevel"}}`, `"WordLevel"`},
	{"huge id", `{"model": {"type":"BPE","vocab":{"a":4000000000},"merges":[]}}`, "token id above"},
	{"lonely id", `{"model": {"type":"BPE","vocab":{"a":2000000},"merges":[]}}`, "token id 2000000"},
	{"id no number", `{"model": {"type":"BPE","vocab":{"a":"b"},"merges":[]}}`, "expected a token id"},
	{"merge of strangers", `{"model": {"type":"BPE","vocab":{"a":0},"merges":["a b"]}}`, `"b" is not in the vocabulary`},
	{"merge to a stranger", `{"model": {"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}}`, `"ab" is not in the vocabulary`},
	{"merge of one", `{"model": {"type":"BPE","vocab":{"a":0},"merges":["a"]}}`, "not two tokens"},
	{"two vocabularies", `{"model": {"type":"BPE","vocab":{"a":0},"vocab":{"a":0},"merges":[]}}`, "two vocabularies"},
	{"lone surrogate", `{"model": {"type":"BPE","vocab":{"\ud800":0},"merges":[]}}`, "escape"},
	{"invalid utf-8", "{\"model\": {\"type\":\"BPE\",\"vocab\":{\"\xff\":0},\"merges\":[]}}", "UTF-8"},
	{"unknown token missing", `{"model": {"type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"<unk>"}}`, `"<unk>"`},
	{"normalizer", `{"normalizer":{"type":"Precompiled","precompiled_charsmap":""},"model": {"type":"BPE","vocab":{"a":0},"merges":[]}}`, `normalizer "Precompiled"`},
	{"pre-tokenizer", `{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"UnicodeScripts"}]},"model": {"type":"BPE","vocab":{"a":0},"merges":[]}}`, `pre-tokenizer "UnicodeScripts"`},
	{"decoder", `{"decoder":{"type":"WordPiece"},"model": {"type":"BPE","vocab":{"a":0},"merges":[]}}`, `decoder "WordPiece"`},
	{"post-processor", `{"post_processor":{"type":"Mystery"},"model": {"type":"BPE","vocab":{"a":0},"merges":[]}}`, `post-processor "Mystery"`},
	{"regex", `{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated","invert":false},"model": {"type":"BPE","vocab":{"a":0},"merges":[]}}`, `pattern "(a"`},
	{"behaviour", `{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"a"},"behavior":"Chopped","invert":false},"model": {"type":"BPE","vocab":{"a":0},"merges":[]}}`, `"Chopped"`},
	{"explosion", `{"normalizer":{"type":"Sequence","normalizers":[` + strings.Repeat(`{"type":"Replace","pattern":{"String":"a"},"content":"aaaaaaaa"},`, 8) + `{"type":"NFC"}]},"model": {"type":"BPE","vocab":{"a":0},"merges":[]}}`, "times longer"},
	{"components", `{"normalizer":{"type":"Sequence","normalizers":[` + strings.Repeat(`{"type":"Strip","strip_left":true,"strip_right":true},`, 100) + `{"type":"NFC"}]},"model": {"type":"BPE","vocab":{"a":0},"merges":[]}}`, "components"},
	{"nesting", `{"normalizer":` + strings.Repeat(`{"type":"Sequence","normalizers":[`, 100) + strings.Repeat(`]}`, 100) + `,"model": {"type":"BPE","vocab":{"a":0},"merges":[]}}`, "nesting"},
}

func TestRefused(t *testing.T) {
	for _, bad := range badFiles {
		t.Run(bad.name, func(t *testing.T) {
			_, err := tokenizer.FromJSON([]byte(bad.file))
			if err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("got %v, want an error with %q", err, bad.want)
			}
			if err != nil && dynamo.KindOf(err) != dynamo.KindInvalid && dynamo.KindOf(err) != dynamo.KindCorrupt {
				t.Errorf("kind %v", dynamo.KindOf(err))
			}
		})
	}
}

// TestHostileRegex wants a pattern that backtracks without end to be given up.
func TestHostileRegex(t *testing.T) {
	file := `{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a|aa)+$"},"behavior":"Isolated","invert":false},"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}}`
	tok, err := tokenizer.FromJSON([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("a", 60) + "b"
	if got := len(tok.Encode(nil, text, tokenizer.EncodeOptions{})); got != len(text) {
		t.Errorf("%d ids, want %d", got, len(text))
	}
}

func TestGGUFRefused(t *testing.T) {
	good := func() tokenizer.Vocab {
		return tokenizer.Vocab{Model: "gpt2", Pre: "gpt-2", Tokens: []string{"a", "b", "ab"}, Merges: []string{"a b"}, BOS: -1, EOS: -1, UNK: -1}
	}
	if _, err := tokenizer.FromGGUF(good()); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		want string
		f    func(v *tokenizer.Vocab)
	}{
		{"no tokens", func(v *tokenizer.Vocab) { v.Tokens = nil }},
		{"2 token types for 3", func(v *tokenizer.Vocab) { v.Types = []int32{1, 1} }},
		{`"mystery"`, func(v *tokenizer.Vocab) { v.Pre = "mystery" }},
		{`"bert"`, func(v *tokenizer.Vocab) { v.Model = "bert" }},
		{"no merges", func(v *tokenizer.Vocab) { v.Merges = nil }},
		{`"c" is not in the vocabulary`, func(v *tokenizer.Vocab) { v.Merges = []string{"a c"} }},
		{"scores for", func(v *tokenizer.Vocab) { v.Model = "llama" }},
		{"special token 7", func(v *tokenizer.Vocab) { v.EOS = 7 }},
		{"special token 9", func(v *tokenizer.Vocab) { v.Model, v.Scores, v.UNK = "llama", []float32{0, 0, 0}, 9 }},
		{"merge 0", func(v *tokenizer.Vocab) { v.Merges = []string{""} }},
	} {
		v := good()
		bad.f(&v)
		if _, err := tokenizer.FromGGUF(v); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("got %v, want an error with %q", err, bad.want)
		}
	}
}
