package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// tinyTokenizer has 8 tokens of one letter and two special ones.
const tinyTokenizer = `{"added_tokens":[{"id":8,"content":"<s>","special":true},{"id":9,"content":"</s>","special":true}],
"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","vocab":{"a":0,"b":1,"c":2,"d":3,"e":4,"f":5,"g":6,"h":7},"merges":[]}}`

func render(t *testing.T, m *metadata) string {
	t.Helper()
	if m.template == nil {
		return ""
	}
	user := chat.NewDict(2).Set("role", chat.String("user")).Set("content", chat.String("hi"))
	vars := chat.NewDict(1)
	for name, text := range m.special {
		vars.Set(name, chat.String(text))
	}
	b, err := m.template.Render(nil, &chat.Input{Messages: chat.List(user.Value()), Vars: vars}, chat.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFolder(t *testing.T) {
	base := map[string]string{"config.json": `{"max_position_embeddings":128,"eos_token_id":9}`, "tokenizer.json": tinyTokenizer}
	for _, tc := range []struct {
		name  string
		files map[string]string
		own   string // --chat-template
		want  string // rendered
		eos   int
		say   string
	}{
		{name: "no template", eos: 1},
		{name: "string", files: map[string]string{"tokenizer_config.json": `{"chat_template":"A{{ bos_token }}","bos_token":"<s>"}`}, want: "A<s>", eos: 1},
		{name: "named", files: map[string]string{"tokenizer_config.json": `{"chat_template":[{"name":"default","template":"B{{ eos_token }}"}],"eos_token":{"content":"</s>"},"bos_token":null}`}, want: "B</s>", eos: 1},
		{name: "file goes before", files: map[string]string{"tokenizer_config.json": `{"chat_template":"A"}`, "chat_template.jinja": "C"}, want: "C", eos: 1},
		{name: "json file", files: map[string]string{"chat_template.json": `{"chat_template":"D"}`}, want: "D", eos: 1},
		{name: "own", files: map[string]string{"chat_template.jinja": "C"}, own: "E{{ messages[0].content }}", want: "Ehi", eos: 1},
		{name: "special tokens map", files: map[string]string{"special_tokens_map.json": `{"bos_token":{"content":"<s>"}}`, "chat_template.jinja": "{{ bos_token }}"}, want: "<s>", eos: 1},
		{name: "more ends", files: map[string]string{"generation_config.json": `{"eos_token_id":[9,8,7,100000],"temperature":0.6}`}, eos: 3},
		{name: "broken template", files: map[string]string{"chat_template.jinja": "{% if %}"}, say: "--chat-template"},
		{name: "broken json", files: map[string]string{"config.json": "{"}, say: "config.json"},
		{name: "wrong type", files: map[string]string{"config.json": `{"eos_token_id":"nine"}`}, say: "config.json"},
		{name: "no tokenizer", files: map[string]string{"tokenizer.json": ""}, say: "has no tokenizer.json"},
		{name: "unigram", files: map[string]string{"tokenizer.json": `{"model":{"type":"Unigram","vocab":[]}}`}, say: "Unigram"},
	} {
		dir := t.TempDir()
		for _, files := range []map[string]string{base, tc.files} {
			for name, text := range files {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				if text == "" {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		own := ""
		if tc.own != "" {
			own = filepath.Join(t.TempDir(), "own.jinja")
			if err := os.WriteFile(own, []byte(tc.own), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		m, err := readMetadata(dir, own)
		if tc.say != "" {
			if err == nil || !strings.Contains(err.Error(), tc.say) || dynamo.KindOf(err) == dynamo.KindInternal {
				t.Errorf("%s: got %v", tc.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if got := render(t, m); got != tc.want || len(m.eos) != tc.eos || m.contextLength != 128 {
			t.Errorf("%s: renders %q, want %q; eos %v; context %d", tc.name, got, tc.want, m.eos, m.contextLength)
		}
	}
}

func TestGGUF(t *testing.T) {
	m, err := readMetadata(fixture.SmolLM2(t), "")
	if err != nil {
		t.Fatal(err)
	}
	if m.contextLength != 8192 || len(m.eos) != 1 || m.eos[0] != 2 {
		t.Errorf("context %d, eos %v", m.contextLength, m.eos)
	}
	const want = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
	if got := render(t, m); got != want {
		t.Errorf("renders %q", got)
	}
	ids := m.tokenizer.Encode(nil, want, tokenizer.EncodeOptions{})
	if len(ids) == 0 || ids[0] != 1 || m.tokenizer.Decode(ids, false) != want {
		t.Errorf("encodes as %v", ids)
	}
}

// Whatever the configuration files hold, reading them ends with metadata or a
// clear error.
func FuzzFolder(f *testing.F) {
	f.Add([]byte(`{"max_position_embeddings":128,"eos_token_id":[9,1e300]}`), []byte(`{"chat_template":[{"name":"default","template":"x"}],"bos_token":{"content":"<s>"}}`))
	f.Add([]byte(`{"eos_token_id":-1,"text_config":null}`), []byte(`{"chat_template":{"a":"b"},"eos_token":7}`))
	f.Add([]byte(`null`), []byte(`{"chat_template":"{{"}`))
	f.Fuzz(func(t *testing.T, config, tokens []byte) {
		dir := t.TempDir()
		for name, b := range map[string][]byte{"config.json": config, "generation_config.json": config, "tokenizer_config.json": tokens, "chat_template.json": tokens, "tokenizer.json": []byte(tinyTokenizer)} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		m, err := readMetadata(dir, "")
		if err != nil {
			if dynamo.KindOf(err) == dynamo.KindInternal {
				t.Errorf("an error without a kind: %v", err)
			}
			return
		}
		for _, id := range m.eos {
			if int(id) >= m.tokenizer.VocabSize() {
				t.Errorf("eos %d of %d", id, m.tokenizer.VocabSize())
			}
		}
	})
}
