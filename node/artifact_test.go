package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// ggufKey is one entry of a GGUF file's metadata.
type ggufKey struct {
	name  string
	value any // string, uint32, bool, []string, []float32 or []int32
}

// writeGGUF makes a .gguf file that holds metadata alone.
func writeGGUF(t testing.TB, keys []ggufKey) string {
	t.Helper()
	le := binary.LittleEndian
	text := func(b []byte, s string) []byte { return append(le.AppendUint64(b, uint64(len(s))), s...) }
	list := func(b []byte, kind uint32, n int) []byte {
		return le.AppendUint64(le.AppendUint32(le.AppendUint32(b, 9), kind), uint64(n))
	}
	b := le.AppendUint64(le.AppendUint64(le.AppendUint32([]byte("GGUF"), 3), 0), uint64(len(keys)))
	for _, k := range keys {
		b = text(b, k.name)
		switch v := k.value.(type) {
		case string:
			b = text(le.AppendUint32(b, 8), v)
		case uint32:
			b = le.AppendUint32(le.AppendUint32(b, 4), v)
		case bool:
			b = append(le.AppendUint32(b, 7), 0)
			if v {
				b[len(b)-1] = 1
			}
		case []string:
			b = list(b, 8, len(v))
			for _, s := range v {
				b = text(b, s)
			}
		case []float32:
			b = list(b, 6, len(v))
			for _, f := range v {
				b = le.AppendUint32(b, math.Float32bits(f))
			}
		case []int32:
			b = list(b, 5, len(v))
			for _, n := range v {
				b = le.AppendUint32(b, uint32(n))
			}
		default:
			t.Fatalf("BUG: %T", v)
		}
	}
	for len(b)%32 != 0 {
		b = append(b, 0)
	}
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const ggufTemplate = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

// byteLevelGGUF has the bytes, some merges and two special tokens.
func byteLevelGGUF(t testing.TB) string {
	var tokens []string
	next := rune(256)
	for b := range rune(256) {
		if b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae {
			tokens = append(tokens, string(b))
			continue
		}
		tokens = append(tokens, string(next))
		next++
	}
	merges := []string{"t h", "th e", "a n", "an d", "Ġ the", "Ġ a", "i n", "in g", "Ã ©", "e r"}
	for _, m := range merges {
		tokens = append(tokens, strings.ReplaceAll(m, " ", ""))
	}
	types := slices.Repeat([]int32{1}, len(tokens))
	tokens, types = append(tokens, "<|im_start|>", "<|im_end|>"), append(types, 3, 3)
	end := uint32(len(tokens) - 1)
	return writeGGUF(t, []ggufKey{
		{"general.architecture", "llama"}, {"llama.context_length", uint32(1024)},
		{"tokenizer.ggml.model", "gpt2"}, {"tokenizer.ggml.pre", "smollm"}, {"tokenizer.ggml.tokens", tokens}, {"tokenizer.ggml.token_type", types},
		{"tokenizer.ggml.merges", merges}, {"tokenizer.ggml.bos_token_id", end - 1}, {"tokenizer.ggml.eos_token_id", end},
		{"tokenizer.ggml.add_bos_token", false}, {"tokenizer.chat_template", ggufTemplate},
	})
}

// sentencePieceGGUF has byte tokens, pieces with scores, and special tokens.
func sentencePieceGGUF(t testing.TB) string {
	tokens, types, scores := []string{"<unk>", "<s>", "</s>"}, []int32{2, 3, 3}, []float32{0, 0, 0}
	for b := range 256 {
		tokens, types, scores = append(tokens, fmt.Sprintf("<0x%02X>", b)), append(types, 6), append(scores, 0)
	}
	for i, piece := range []string{"▁t", "he", "▁the", "in", "ing", "▁a", "an", "and", "▁and", "é", "▁", "e", "t", "a", "h", "i", "n", "g", "s", "d", "o", "r", "l", "c", "m", "u", "\n", ".", "日"} {
		tokens, types, scores = append(tokens, piece), append(types, 1), append(scores, -float32(i)*0.1-1.0/3)
	}
	scores[len(scores)-1], scores[len(scores)-2] = -math.MaxFloat32, math.SmallestNonzeroFloat32
	return writeGGUF(t, []ggufKey{
		{"general.architecture", "llama"}, {"llama.context_length", uint32(1024)},
		{"tokenizer.ggml.model", "llama"}, {"tokenizer.ggml.tokens", tokens}, {"tokenizer.ggml.token_type", types}, {"tokenizer.ggml.scores", scores},
		{"tokenizer.ggml.bos_token_id", uint32(1)}, {"tokenizer.ggml.eos_token_id", uint32(2)}, {"tokenizer.ggml.unknown_token_id", uint32(0)},
		{"tokenizer.ggml.add_bos_token", true}, {"tokenizer.chat_template", ggufTemplate},
	})
}

// texts are many different ones, special tokens and broken UTF-8 among them.
func texts() []string {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{"the ", "and", " a", "thing", "é", "日本", "🙂", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "\n", "  ", "\t", "123", "3.14", "'ll", "Ünï", "\xff", "\xe6\x97", "\u200d", ".", "{}", "der", "<0x41>", "▁"}
	all := []string{"", " ", "\x00"}
	for range 300 {
		var s strings.Builder
		for range 1 + random.IntN(30) {
			s.WriteString(pieces[random.IntN(len(pieces))])
		}
		all = append(all, s.String())
	}
	return all
}

// roundTrip sends what a worker would serve of a model through its form.
func roundTrip(t *testing.T, path string) (before, after *metadata) {
	t.Helper()
	before, err := readMetadata(path, "")
	if err != nil {
		t.Fatal(err)
	}
	after = &metadata{special: before.special}
	data, err := before.vocabularyFile.read()
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(data)) != before.vocabularyFile.size {
		t.Errorf("the vocabulary has %d bytes, its card says %d", len(data), before.vocabularyFile.size)
	}
	if after.tokenizer, err = parseTokenizer(before.vocabularyFile.name, data); err != nil {
		t.Fatal(err)
	}
	if before.template == nil {
		return before, after
	}
	if data, err = before.templateFile.read(); err != nil {
		t.Fatal(err)
	}
	if err = after.parseTemplateFile(before.templateFile.name, data); err != nil {
		t.Fatal(err)
	}
	return before, after
}

// A tokenizer that travelled gives the ids and texts of the one it was.
func TestArtifactTokenizer(t *testing.T) {
	paths := map[string]string{"folder": tinyModel(t, nil), "byte level": byteLevelGGUF(t), "sentence piece": sentencePieceGGUF(t)}
	if !testing.Short() {
		paths["smollm2"] = fixture.SmolLM2(t)
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			before, after := roundTrip(t, path)
			a, b := before.tokenizer, after.tokenizer
			if a.Digest() != b.Digest() || a.VocabSize() != b.VocabSize() {
				t.Errorf("digests %s, %s; sizes %d, %d", a.Digest(), b.Digest(), a.VocabSize(), b.VocabSize())
			}
			for id := range dynamo.TokenID(a.VocabSize()) {
				if !bytes.Equal(a.TokenBytes(id), b.TokenBytes(id)) || a.Special(id) != b.Special(id) {
					t.Fatalf("token %d: %q, %q", id, a.TokenBytes(id), b.TokenBytes(id))
				}
			}
			for _, text := range texts() {
				for _, o := range []tokenizer.EncodeOptions{{}, {AddSpecial: true}, {PlainSpecial: true}} {
					ids, again := a.Encode(nil, text, o), b.Encode(nil, text, o)
					if !slices.Equal(ids, again) {
						t.Fatalf("%q %+v: %v, then %v", text, o, ids, again)
					}
					if x, y := a.Decode(ids, true), b.Decode(ids, true); x != y {
						t.Fatalf("%q: decodes as %q, then %q", text, x, y)
					}
				}
			}
		})
	}
}

// A vocabulary with a token that is not UTF-8 arrives byte for byte, or is refused
// where it is read: never with another token in its place.
func TestArtifactOddBytes(t *testing.T) {
	path := writeGGUF(t, []ggufKey{
		{"general.architecture", "llama"}, {"llama.context_length", uint32(1024)}, {"tokenizer.ggml.model", "llama"},
		{"tokenizer.ggml.tokens", []string{"<unk>", "<s>", "</s>", "a\xff", "a\xfe", "a", "▁"}}, {"tokenizer.ggml.token_type", []int32{2, 3, 3, 1, 1, 1, 1}},
		{"tokenizer.ggml.scores", []float32{0, 0, 0, -1, -2, -3, -4}},
		{"tokenizer.ggml.bos_token_id", uint32(1)}, {"tokenizer.ggml.eos_token_id", uint32(2)}, {"tokenizer.ggml.unknown_token_id", uint32(0)},
	})
	before, err := readMetadata(path, "")
	if err != nil {
		t.Logf("refused: %v", err)
		return
	}
	data, err := before.vocabularyFile.read()
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseTokenizer(before.vocabularyFile.name, data)
	if err != nil {
		t.Fatalf("the worker reads it, the frontend does not: %v", err)
	}
	for id := range dynamo.TokenID(before.tokenizer.VocabSize()) {
		if a, b := before.tokenizer.TokenBytes(id), after.TokenBytes(id); !bytes.Equal(a, b) {
			t.Errorf("token %d: %q, then %q", id, a, b)
		}
	}
}

// templateFiles are the forms a template comes in.
func templateFiles() map[string]map[string]string {
	return map[string]map[string]string{
		"file":   {"chat_template.jinja": "F{% for m in messages %}{{ m.content }}é\n{% endfor %}{{ eos_token }}"},
		"json":   {"chat_template.json": `{"chat_template":"J{{ messages[0].content }}\"\\u00e9"}`},
		"string": {"tokenizer_config.json": `{"chat_template":"S{{ messages[0].content }}\n{{ eos_token }}","eos_token":"<|im_end|>"}`},
		"named":  {"tokenizer_config.json": `{"chat_template":[{"name":"default","template":"D{{ messages[0].content }}"},{"name":"tool_use","template":"T{{ tools[0].function.name }}{{ messages[0].content }}"}]}`},
	}
}

// A template that travelled renders as the one it was, in each of its forms.
func TestArtifactTemplate(t *testing.T) {
	tool := chat.NewDict(1).Set("function", chat.NewDict(1).Set("name", chat.String("lookup")).Value())
	inputs := map[string]func(*chat.Input){"plain": func(*chat.Input) {}, "tools": func(in *chat.Input) { in.Tools = chat.List(tool.Value()) }}
	for form, files := range templateFiles() {
		before, after := roundTrip(t, tinyModel(t, files))
		rendered := map[string]bool{}
		for name, edit := range inputs {
			for _, content := range texts()[:50] {
				in := &chat.Input{Messages: chat.List(chat.NewDict(2).Set("role", chat.String("user")).Set("content", chat.String(content)).Value()), Vars: templateVars(before.special)}
				edit(in)
				a, err := before.template.Render(nil, in, chat.DefaultLimits())
				if err != nil {
					t.Fatalf("%s, %s: %v", form, name, err)
				}
				b, err := after.template.Render(nil, in, chat.DefaultLimits())
				if err != nil || !bytes.Equal(a, b) {
					t.Fatalf("%s, %s: renders %q, then %q, %v", form, name, a, b, err)
				}
				rendered[string(a[:1])] = true
			}
		}
		if want := map[bool]int{true: 2, false: 1}[form == "named"]; len(rendered) != want {
			t.Errorf("%s: the beginnings are %v", form, rendered)
		}
	}
	m := &metadata{}
	if err := m.parseTemplateFile("", nil); err != nil || m.template != nil {
		t.Errorf("no template: %v", err)
	}
	if err := m.parseTemplateFile("x.mustache", nil); dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "same version") {
		t.Errorf("an unknown form: %v", err)
	}
	if _, err := parseTokenizer("x.model", nil); dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "x.model") {
		t.Errorf("an unknown form of tokenizer: %v", err)
	}
}

// A frontend without the model's files answers as a process that has them.
func TestFrontendWithoutFiles(t *testing.T) {
	paths := map[string]string{"byte level gguf": byteLevelGGUF(t), "sentence piece gguf": sentencePieceGGUF(t), "chatml string": tinyModel(t, nil)}
	for form, files := range templateFiles() {
		paths[form] = tinyModel(t, files)
	}
	if !testing.Short() {
		paths["smollm2"] = fixture.SmolLM2(t)
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				b.start("solo", func(c *Config) { c.Role, c.ModelPath = RoleServe, path })
				b.start("front", nil)
				b.start("w1", func(c *Config) { c.ModelPath = path })
				b.awaitModels("front", "m")
				for _, content := range texts()[:40] {
					content = strings.ToValidUTF8(content, "?")
					body := fmt.Sprintf(`{"model":"m","max_tokens":60,"ignore_eos":true,"messages":[{"role":"user","content":%s}]}`, quote(content))
					var said []string
					for _, host := range []string{"solo", "front"} {
						status, text := b.do("POST", host, "/v1/chat/completions", body)
						at := strings.Index(text, `"choices"`)
						if status != http.StatusOK || at < 0 {
							t.Fatalf("%s: %d %s", host, status, text)
						}
						said = append(said, text[at:])
					}
					if said[0] != said[1] {
						t.Fatalf("%q: in one process\n%s\nover a worker\n%s", content, said[0], said[1])
					}
				}
			})
		})
	}
}

func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		fmt.Fprintf(&b, "\\u%04x", min(r, 0xfffd))
	}
	return b.String() + `"`
}

// A worker whose tokenizer cannot be had is asked again, and so are others.
func TestTokenizerAskedAgain(t *testing.T) {
	for _, other := range []bool{false, true} {
		t.Run(fmt.Sprintf("other=%v", other), func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				folder := tinyModel(t, nil)
				file := filepath.Join(folder, "tokenizer.json")
				good := mustRead(t, file)
				w1 := b.start("w1", func(c *Config) { c.ModelPath = folder })
				if err := os.WriteFile(file, append([]byte(" "), good...), 0o644); err != nil {
					t.Fatal(err)
				}
				b.start("front", nil)
				b.awaitState("front", "w1", "joining")
				time.Sleep(10 * time.Second)
				if got := b.models("front"); got != "" {
					t.Fatalf("without a tokenizer the models are %q", got)
				}
				if !b.log.holds("asked again", "has changed since the worker started") {
					t.Error("the log does not say what is wrong")
				}
				if other {
					b.start("w2", nil)
					b.awaitModels("front", "m")
					w1.kill()
					b.until("w1 is gone or unreachable", func() bool { return b.health("front")["w1"].State != "ready" })
				} else if err := os.WriteFile(file, good, 0o644); err != nil {
					t.Fatal(err)
				}
				b.awaitModels("front", "m")
				b.wants("front", "m")
			})
		})
	}
}
