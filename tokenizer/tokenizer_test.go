package tokenizer_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokenizer"
)

func TestTokens(t *testing.T) {
	tok := loadVocabulary(t, "qwen3")
	id, ok := tok.ID("<|im_end|>")
	if !ok || id != 151645 || !tok.Special(id) || tok.Token(id) != "<|im_end|>" {
		t.Errorf("<|im_end|> is %d, %v, special %v", id, ok, tok.Special(id))
	}
	if id, ok := tok.ID("<tool_call>"); !ok || tok.Special(id) {
		t.Errorf("<tool_call> is %d, %v, special %v", id, ok, tok.Special(id))
	}
	if id, ok := tok.ID("Ġhello"); !ok || string(tok.TokenBytes(id)) != " hello" {
		t.Errorf("Ġhello is %d, %v, %q", id, ok, tok.TokenBytes(id))
	}
	if tok.VocabSize() != 151669 {
		t.Errorf("vocabulary of %d", tok.VocabSize())
	}
	if _, ok := tok.ID("no such token"); ok || tok.Token(1<<20) != "" || tok.TokenBytes(1<<20) != nil || tok.Special(1<<20) {
		t.Error("a token that is none is known")
	}
	if len(tok.Digest()) != 64 {
		t.Errorf("digest %q", tok.Digest())
	}
	got := tok.Encode(nil, "a\xff\xe2\x82b", tokenizer.EncodeOptions{})
	if text := tok.Decode(got, false); text != "a\uFFFD\uFFFDb" {
		t.Errorf("invalid UTF-8 reads %q", text)
	}
}

// TestInvalidBytes decodes bytes that are no text: each longest piece that begins a
// character and does not go on as one becomes one U+FFFD, as the Unicode standard
// recommends.
func TestInvalidBytes(t *testing.T) {
	tok := bytesTokenizer(t)
	for _, c := range []struct{ bytes, want string }{
		{"\xe2\x82", "\uFFFD"},
		{"\xe2\x82A", "\uFFFDA"},
		{"\xe2(\xa1", "\uFFFD(\uFFFD"},
		{"\xf0\x9f\x98", "\uFFFD"},
		{"\xf0\x9f\x98\xe2\x82\xac", "\uFFFD€"},
		{"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"},
		{"\xf4\x90\x80\x80", "\uFFFD\uFFFD\uFFFD\uFFFD"},
		{"\xc0\x80\xff", "\uFFFD\uFFFD\uFFFD"},
		{"\xe0\x80\xf1\x80\x80", "\uFFFD\uFFFD\uFFFD"},
		{"é\xc3", "é\uFFFD"},
	} {
		var ids []dynamo.TokenID
		for _, b := range []byte(c.bytes) {
			id, ok := tok.ID(string(alphabet[b]))
			if !ok {
				t.Fatalf("no token for byte %#x", b)
			}
			ids = append(ids, id)
		}
		if got := tok.Decode(ids, false); got != c.want {
			t.Errorf("%q: got %q, want %q", c.bytes, got, c.want)
		}
		checkDecoder(t, tok, ids, false)
		if got := tok.Decode(tok.Encode(nil, c.bytes, tokenizer.EncodeOptions{}), false); got != c.want {
			t.Errorf("%q encoded: got %q, want %q", c.bytes, got, c.want)
		}
	}
}

// TestSentencePiece makes the GGUF form of Llama 2's vocabulary, scores instead of
// merges, and wants the ids that its tokenizer.json gives.
func TestSentencePiece(t *testing.T) {
	var file struct {
		Model struct {
			Vocab  map[string]int
			Merges []string
		}
	}
	if err := json.Unmarshal(readVocabulary(t, "llama2"), &file); err != nil {
		t.Fatal(err)
	}
	v := tokenizer.Vocab{Model: "llama", BOS: 1, EOS: 2, UNK: 0}
	n := len(file.Model.Vocab)
	v.Tokens, v.Types, v.Scores = make([]string, n), make([]int32, n), make([]float32, n)
	for s, id := range file.Model.Vocab {
		v.Tokens[id], v.Types[id] = s, 1
		switch {
		case id == 0:
			v.Types[id] = 2
		case id < 3:
			v.Types[id] = 3
		case id < 259:
			v.Types[id] = 6
		}
	}
	for rank, m := range file.Model.Merges {
		id := file.Model.Vocab[strings.Replace(m, " ", "", 1)]
		v.Scores[id] = min(v.Scores[id], -float32(rank)-1)
	}
	tok, err := tokenizer.FromGGUF(v)
	if err != nil {
		t.Fatal(err)
	}
	checkGolden(t, tok, "testdata/llama2.jsonl.gz")
}

// TestDecoderAllocations wants none for a token.
func TestDecoderAllocations(t *testing.T) {
	for _, tok := range []*tokenizer.Tokenizer{bytesTokenizer(t), fallbackTokenizer(t)} {
		ids := tok.Encode(nil, "Hello wörld 日本 😀 "+strings.Repeat("é", 10), tokenizer.EncodeOptions{})
		d := tok.NewDecoder(false)
		buf := make([]byte, 0, 1024)
		decode := func() {
			buf = buf[:0]
			for _, id := range ids {
				buf = d.Append(buf, id)
			}
			buf = d.Flush(buf)
		}
		decode()
		if n := testing.AllocsPerRun(100, decode); n != 0 {
			t.Errorf("%v allocations for %d tokens", n, len(ids))
		}
	}
}

// TestEncodeAllocations wants none for a text in normal form, once the words it
// holds and the memory to work in are there.
func TestEncodeAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("under the race detector a sync.Pool forgets on purpose")
	}
	tok := loadVocabulary(t, "qwen3")
	text := "<|im_start|>user\nThe quick brown fox, 12 日本語 d'été\n" + strings.Repeat("antidisestablishmentarianism", 10)
	ids := tok.Encode(nil, text, tokenizer.EncodeOptions{AddSpecial: true})
	n := testing.AllocsPerRun(100, func() { ids = tok.Encode(ids[:0], text, tokenizer.EncodeOptions{AddSpecial: true}) })
	if n >= 1 {
		t.Errorf("%v allocations", n)
	}
}
