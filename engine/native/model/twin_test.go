package model_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/engine/native/weights"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

// twin writes the default model as a folder of float32 safetensors, as
// scripts/gguf_to_hf.py does, and returns the folder.
func twin(t *testing.T, path string) string {
	t.Helper()
	g, err := weights.OpenGGUF(path)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	dir := t.TempDir()
	write(t, dir, "config.json", []byte(`{"architectures":["LlamaForCausalLM"],"hidden_act":"silu","bos_token_id":1,"eos_token_id":2,
		"hidden_size":576,"intermediate_size":1536,"num_hidden_layers":30,"num_attention_heads":9,"num_key_value_heads":3,
		"max_position_embeddings":8192,"rms_norm_eps":1e-05,"rope_theta":100000,"rope_scaling":null,"tie_word_embeddings":true,"vocab_size":49152}`))
	type row struct {
		DType   string   `json:"dtype"`
		Shape   []int    `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	header, at := map[string]row{}, int64(0)
	for _, name := range g.Names() {
		x, _ := g.Tensor(name)
		n := int64(4 * x.Rows() * x.Cols())
		header[twinName(name)] = row{"F32", x.Shape, [2]int64{at, at + n}}
		at += n
	}
	h, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	_ = binary.Write(w, binary.LittleEndian, uint64(len(h))) // Flush reports its errors
	_, _ = w.Write(h)
	for _, name := range g.Names() {
		x, _ := g.Tensor(name)
		values := make([]float32, x.Cols())
		for r := range x.Rows() {
			stored := r
			if strings.Contains(name, "attn_q") || strings.Contains(name, "attn_k") {
				const size = 64 // of a head, whose halves alternate in the GGUF
				i := r % size
				stored = r - i + 2*(i%(size/2)) + i/(size/2)
			}
			if err := weights.Dequantize(values, x, stored); err != nil {
				t.Fatal(err)
			}
			_ = binary.Write(w, binary.LittleEndian, values)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func twinName(name string) string {
	switch name {
	case "token_embd.weight":
		return "model.embed_tokens.weight"
	case "output_norm.weight":
		return "model.norm.weight"
	}
	p := strings.Split(name, ".")
	part := map[string]string{"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "ffn_down": "mlp.down_proj",
		"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
		"attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}[p[2]]
	return fmt.Sprintf("model.layers.%s.%s.%s", p[1], part, p[3])
}

// TestTwin decodes with the GGUF and its float32 twin in full precision: equal
// ids, and logits equal bit by bit.
func TestTwin(t *testing.T) {
	if testing.Short() {
		t.Skip("writes and reads half a gigabyte")
	}
	path := fixture.SmolLM2(t)
	dir := twin(t, path)
	prompts, _ := readGreedy(t).prompts(3)
	decode := func(path string) (ids [][]dynamo.TokenID, logits [][]float32) {
		ids = greedy(t, load(t, path, model.F32, 2), prompts, []int{24, 24, 24}, func(_, _ int, row []float32) {
			logits = append(logits, append([]float32(nil), row...))
		})
		return ids, logits
	}
	got, gotLogits := decode(dir)
	want, wantLogits := decode(path)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("ids %v, want %v", got, want)
	}
	compare(t, "twin", gotLogits, wantLogits, 0)
}
