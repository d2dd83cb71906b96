package model_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/kernel"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/engine/native/weights"
)

// refused loads and estimates a model that must be refused, and checks the error.
func refused(t *testing.T, path string, p model.Precision, want string, kind dynamo.Kind) {
	t.Helper()
	o := model.DefaultOptions()
	o.Precision = p
	m, err := model.Load(t.Context(), path, o)
	if err == nil {
		m.Close()
		t.Fatal("loaded")
	}
	if !strings.Contains(err.Error(), want) || dynamo.KindOf(err) != kind {
		t.Errorf("error %q of kind %s, want %q of kind %s", err, dynamo.KindOf(err), want, kind)
	}
	if _, _, err := model.EstimateBytes(path, o); err == nil {
		t.Error("estimated a model that is refused")
	}
}

// TestHostileFolder changes one thing of a sound folder.
func TestHostileFolder(t *testing.T) {
	for name, c := range map[string]struct {
		from, to, want string
		kind           dynamo.Kind
	}{
		"architecture": {"LlamaForCausalLM", "Gemma3ForCausalLM", `"Gemma3ForCausalLM", which is not supported: use a model of Llama`, dynamo.KindInvalid},
		"yarn":         {`"rope_type": "llama3"`, `"rope_type": "yarn"`, `"yarn"`, dynamo.KindInvalid},
		"dynamic":      {`"rope_type": "llama3"`, `"rope_type": "dynamic"`, `"dynamic"`, dynamo.KindInvalid},
		"rope factor":  {`"factor": 8.0`, `"factor": 0`, "impossible numbers", dynamo.KindInvalid},
		"rope base":    {`"rope_theta": 500000.0`, `"rope_theta": -1`, "rope base", dynamo.KindInvalid},
		"activation":   {`"hidden_act": "silu"`, `"hidden_act": "gelu"`, "gelu", dynamo.KindInvalid},
		"quantized":    {`"mlp_bias"`, `"quantization_config": {"quant_method": "gptq"}, "mlp_bias"`, "gptq", dynamo.KindInvalid},
		"partial":      {`"mlp_bias"`, `"partial_rotary_factor": 0.5, "mlp_bias"`, "partial", dynamo.KindInvalid},
		"no heads":     {`"num_attention_heads": 4`, `"num_attention_heads": 0`, "head count 0", dynamo.KindInvalid},
		"heads":        {`"num_key_value_heads": 2`, `"num_key_value_heads": 3`, "evenly", dynamo.KindInvalid},
		"negative":     {`"num_hidden_layers": 2`, `"num_hidden_layers": -2`, "layer count", dynamo.KindInvalid},
		"many layers":  {`"num_hidden_layers": 2`, `"num_hidden_layers": 1000000000000`, "layer count", dynamo.KindInvalid},
		"more layers":  {`"num_hidden_layers": 2`, `"num_hidden_layers": 3`, "no tensor model.layers.2.input_layernorm.weight (expected one of shape [64])", dynamo.KindCorrupt},
		"hidden":       {`"hidden_size": 64`, `"hidden_size": 128`, "tensor model.embed_tokens.weight", dynamo.KindCorrupt},
		"vocabulary":   {`"vocab_size": 250`, `"vocab_size": 9999`, "has shape [250 64], but the configuration needs [9999 64]", dynamo.KindCorrupt},
		"head size":    {`"head_dim": 32`, `"head_dim": 20`, "multiple of 16", dynamo.KindInvalid},
		"eps":          {`"rms_norm_eps": 1e-05`, `"rms_norm_eps": 0`, "epsilon", dynamo.KindInvalid},
		"type":         {`"hidden_size": 64`, `"hidden_size": "64"`, "not a model configuration", dynamo.KindCorrupt},
		"not json":     {`"hidden_size"`, `hidden_size`, "not a model configuration", dynamo.KindCorrupt},
		"eos":          {`"eos_token_id": 2`, `"eos_token_id": {"a": 1}`, "eos_token_id", dynamo.KindCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile("testdata/tiny/llama3/config.json")
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.Replace(string(b), c.from, c.to, 1)
			if changed == string(b) {
				t.Fatalf("the configuration holds no %s", c.from)
			}
			dir := t.TempDir()
			write(t, dir, "config.json", []byte(changed))
			link(t, "testdata/tiny/llama3/model.safetensors", dir)
			refused(t, dir, model.F32, c.want, c.kind)
		})
	}
}

func TestNoModel(t *testing.T) {
	dir := t.TempDir()
	refused(t, filepath.Join(dir, "none"), model.Int8, "no model at", dynamo.KindNotFound)
	refused(t, dir, model.Int8, "no config.json", dynamo.KindNotFound)
	link(t, "testdata/tiny/llama3/config.json", dir)
	refused(t, dir, model.Int8, "neither model.safetensors", dynamo.KindNotFound)
	link(t, "testdata/tiny/llama3/model.safetensors", dir)
	write(t, dir, "generation_config.json", []byte("{"))
	refused(t, dir, model.Int8, "generation_config.json", dynamo.KindCorrupt)
}

// TestHostileGGUF changes the metadata of a sound file, byte for byte of equal
// length.
func TestHostileGGUF(t *testing.T) {
	whole, err := os.ReadFile("testdata/tiny/qwen3.gguf")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from, to, want string
		kind           dynamo.Kind
	}{
		"architecture": {"\x05\x00\x00\x00\x00\x00\x00\x00qwen3", "\x05\x00\x00\x00\x00\x00\x00\x00gemma", `"gemma", which is not supported`, dynamo.KindInvalid},
		"key":          {"qwen3.block_count", "qwen3.block_caunt", "no metadata key qwen3.block_count", dynamo.KindNotFound},
		"rope size":    {"rope.dimension_count\x04\x00\x00\x00\x20", "rope.dimension_count\x04\x00\x00\x00\x10", "different sizes", dynamo.KindInvalid},
		"tensor":       {"blk.1.ffn_up.weight", "blk.1.ffn_ap.weight", "no tensor blk.1.ffn_up.weight", dynamo.KindCorrupt},
		"head norm":    {"blk.1.attn_q_norm.weight", "blk.1.attn_p_norm.weight", "no tensor blk.1.attn_q_norm.weight", dynamo.KindCorrupt},
		"embedding":    {"token_embd.weight", "taken_embd.weight", "no tensor token_embd.weight", dynamo.KindCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			changed := bytes.Replace(whole, []byte(c.from), []byte(c.to), 1)
			if bytes.Equal(changed, whole) {
				t.Fatalf("the file holds no %q", c.from)
			}
			dir := t.TempDir()
			write(t, dir, "m.gguf", changed)
			refused(t, filepath.Join(dir, "m.gguf"), model.Int8, c.want, c.kind)
		})
	}
}

// odd writes a model of sizes that are no multiple of anything.
func odd(t testing.TB) string {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	w := &writer{}
	w.key("general.architecture", "qwen2")
	for name, v := range map[string]uint32{"block_count": 1, "context_length": 40, "embedding_length": 41, "feed_forward_length": 23,
		"attention.head_count": 2, "attention.head_count_kv": 1, "attention.key_length": 16} {
		w.key("qwen2."+name, v)
	}
	f32 := func(name string, dims ...int) {
		n := 1
		for _, d := range dims {
			n *= d
		}
		w.tensor(name, weights.F32, random(r, weights.F32, 1, n, 0.4), dims...)
	}
	f32("token_embd.weight", 17, 41)
	f32("output_norm.weight", 41)
	f32("blk.0.attn_norm.weight", 41)
	f32("blk.0.attn_q.weight", 32, 41)
	f32("blk.0.attn_k.weight", 16, 41)
	f32("blk.0.attn_v.weight", 16, 41)
	f32("blk.0.attn_v.bias", 16)
	f32("blk.0.attn_output.weight", 41, 32)
	f32("blk.0.ffn_norm.weight", 41)
	f32("blk.0.ffn_gate.weight", 23, 41)
	f32("blk.0.ffn_up.weight", 23, 41)
	f32("blk.0.ffn_down.weight", 41, 23)
	dir := t.TempDir()
	write(t, dir, "odd.gguf", w.bytes())
	return filepath.Join(dir, "odd.gguf")
}

// TestOddShapes computes such a model at every level, and refuses it in 8 bits.
func TestOddShapes(t *testing.T) {
	path := odd(t)
	refused(t, path, model.Int8, "try --precision f32", dynamo.KindInvalid)
	tokens := make([]dynamo.TokenID, 33)
	for i := range tokens {
		tokens[i] = dynamo.TokenID(i * 5 % 17)
	}
	var want [][]float32
	for _, l := range kernel.Levels() {
		o := model.DefaultOptions()
		o.Precision, o.Level = model.F32, l
		got := all(t, loadWith(t, path, o), tokens)
		if want == nil {
			want = got
		}
		for i := range want {
			equalBits(t, l.String(), got[i], want[i])
		}
	}
}

// TestForwardRefuses checks each way a batch can be wrong; nothing is computed.
func TestForwardRefuses(t *testing.T) {
	m := load(t, "testdata/tiny/qwen2", model.Int8, 2)
	c := newCache(t, m, 4)
	var out model.Output
	ok := model.Seq{Tokens: []dynamo.TokenID{3, 4}, Start: 15, Blocks: []int32{1, 3}, Logits: model.LogitsAll}
	for name, change := range map[string]func(s *model.Seq){
		"no tokens":      func(s *model.Seq) { s.Tokens = nil },
		"negative start": func(s *model.Seq) { s.Start = -1 },
		"context":        func(s *model.Seq) { s.Start = 255 },
		"few blocks":     func(s *model.Seq) { s.Blocks = s.Blocks[:1] },
		"block":          func(s *model.Seq) { s.Blocks = []int32{1, 4} },
		"negative block": func(s *model.Seq) { s.Blocks = []int32{-1, 3} },
		"id":             func(s *model.Seq) { s.Tokens = []dynamo.TokenID{3, 250} },
	} {
		s := ok
		change(&s)
		if err := m.Forward(c, []model.Seq{ok, s}, &out); err == nil || dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := load(t, "testdata/tiny/qwen3", model.Int8, 1)
	if err := m.Forward(newCache(t, other, 4), []model.Seq{ok}, &out); err == nil {
		t.Error("computed over the cache of another model")
	}
	if err := m.Forward(c, nil, &out); err != nil || out.Rows() != 0 {
		t.Errorf("empty batch: %v, %d rows", err, out.Rows())
	}
	if err := m.Forward(c, []model.Seq{ok}, &out); err != nil || out.Rows() != 2 || len(out.Row(1)) != 250 {
		t.Errorf("sound batch: %v, %d rows", err, out.Rows())
	}
	for _, n := range []int{0, -1, 1 << 60} {
		if _, err := m.NewCache(n); err == nil || dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("cache of %d blocks: %v", n, err)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := m.Forward(c, []model.Seq{ok}, &out); err == nil {
		t.Error("computed with a closed model")
	}
}

// TestLoadEnds checks that ending the context ends loading, with its cause.
func TestLoadEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("no longer wanted")
	cancel(cause)
	if _, err := model.Load(ctx, "testdata/tiny/qwen3.gguf", model.DefaultOptions()); !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
}

func TestOptions(t *testing.T) {
	err := model.Options{Precision: 9, Level: 77, Threads: -1}.Validate()
	for _, want := range []string{"--precision", "--threads", "level"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	for _, p := range []model.Precision{model.Int8, model.F32} {
		if got, err := model.ParsePrecision(p.String()); err != nil || got != p {
			t.Errorf("%s parses as %s, %v", p, got, err)
		}
	}
	if _, err := model.ParsePrecision("f64"); err == nil {
		t.Error("parsed f64")
	}
}

// TestProgress checks that progress rises to the total.
func TestProgress(t *testing.T) {
	var last, sum int64
	o := model.DefaultOptions()
	o.Progress = func(done, total int64) {
		if done < last || done > total {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last, sum = done, total
	}
	m := loadWith(t, "testdata/tiny/qwen3.gguf", o)
	if last != sum || sum != m.SizeBytes() {
		t.Errorf("progress ended at %d of %d, size %d", last, sum, m.SizeBytes())
	}
}

// FuzzLoadGGUF loads arbitrary files and computes with those that load.
func FuzzLoadGGUF(f *testing.F) {
	for _, path := range []string{odd(f), "testdata/tiny/qwen2.gguf"} {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) { tryLoad(t, "m.gguf", data, "") })
}

// FuzzLoadFolder loads arbitrary configurations beside sound weights.
func FuzzLoadFolder(f *testing.F) {
	for _, name := range tiny {
		b, err := os.ReadFile("testdata/tiny/" + name + "/config.json")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tryLoad(t, "config.json", data, "testdata/tiny/qwen2/model.safetensors")
	})
}

// tryLoad writes data as a file of a folder, loads the result and, if it loads,
// computes a little.
func tryLoad(t *testing.T, name string, data []byte, beside string) {
	dir := t.TempDir()
	write(t, dir, name, data)
	path := filepath.Join(dir, name)
	if beside != "" {
		link(t, beside, dir)
		path = dir
	}
	o := model.DefaultOptions()
	o.Precision, o.Threads = model.F32, 1
	m, err := model.Load(t.Context(), path, o)
	if err != nil {
		return
	}
	defer m.Close()
	n := min(m.Config().ContextLength, 20)
	c, err := m.NewCache(2)
	if err != nil {
		return
	}
	defer c.Close()
	var out model.Output
	s := model.Seq{Tokens: make([]dynamo.TokenID, n), Blocks: []int32{1, 0}, Logits: model.LogitsLast}
	if err := m.Forward(c, []model.Seq{s}, &out); err != nil {
		t.Errorf("a model that loads cannot compute: %v", err)
	}
}
