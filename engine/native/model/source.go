package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/weights"
)

// tensors is an open file or folder of weights.
type tensors interface {
	Tensor(name string) (weights.Tensor, bool)
	Foreign(name string) (dtype string, ok bool)
	Names() []string
	Header() []byte
	SizeBytes() int64
	Release()
	Close() error
}

// source is an open model: its weights and what its configuration says.
type source struct {
	path    string
	tensors tensors
	config  Config
	names   naming
	// interleaved says that query and key rows come in the order of interleaved
	// rope pairs, as llama.cpp's converter writes them.
	interleaved bool
	// tied is set when the configuration says so; otherwise a missing head means
	// that it is.
	tied *bool
}

// naming is how a format calls the tensors. Layer names hold one %d.
type naming struct {
	embed, outNorm, head, ropeDivisors string
	attnNorm, q, k, v, o, qNorm, kNorm string
	ffnNorm, gate, up, down            string
	qBias, kBias, vBias, oBias         string
	gateBias, upBias, downBias         string // refused
}

var ggufNames = naming{
	embed: "token_embd.weight", outNorm: "output_norm.weight", head: "output.weight", ropeDivisors: "rope_freqs.weight",
	attnNorm: "blk.%d.attn_norm.weight", q: "blk.%d.attn_q.weight", k: "blk.%d.attn_k.weight", v: "blk.%d.attn_v.weight",
	o: "blk.%d.attn_output.weight", qNorm: "blk.%d.attn_q_norm.weight", kNorm: "blk.%d.attn_k_norm.weight",
	ffnNorm: "blk.%d.ffn_norm.weight", gate: "blk.%d.ffn_gate.weight", up: "blk.%d.ffn_up.weight", down: "blk.%d.ffn_down.weight",
	qBias: "blk.%d.attn_q.bias", kBias: "blk.%d.attn_k.bias", vBias: "blk.%d.attn_v.bias", oBias: "blk.%d.attn_output.bias",
	gateBias: "blk.%d.ffn_gate.bias", upBias: "blk.%d.ffn_up.bias", downBias: "blk.%d.ffn_down.bias",
}

var hfNames = naming{
	embed: "model.embed_tokens.weight", outNorm: "model.norm.weight", head: "lm_head.weight",
	attnNorm: "model.layers.%d.input_layernorm.weight", q: "model.layers.%d.self_attn.q_proj.weight",
	k: "model.layers.%d.self_attn.k_proj.weight", v: "model.layers.%d.self_attn.v_proj.weight",
	o: "model.layers.%d.self_attn.o_proj.weight", qNorm: "model.layers.%d.self_attn.q_norm.weight",
	kNorm: "model.layers.%d.self_attn.k_norm.weight", ffnNorm: "model.layers.%d.post_attention_layernorm.weight",
	gate: "model.layers.%d.mlp.gate_proj.weight", up: "model.layers.%d.mlp.up_proj.weight", down: "model.layers.%d.mlp.down_proj.weight",
	qBias: "model.layers.%d.self_attn.q_proj.bias", kBias: "model.layers.%d.self_attn.k_proj.bias",
	vBias: "model.layers.%d.self_attn.v_proj.bias", oBias: "model.layers.%d.self_attn.o_proj.bias",
	gateBias: "model.layers.%d.mlp.gate_proj.bias", upBias: "model.layers.%d.mlp.up_proj.bias", downBias: "model.layers.%d.mlp.down_proj.bias",
}

// openSource opens a .gguf file or a folder and reads its configuration. It does
// not look at the tensors yet.
func openSource(path string) (*source, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &dynamo.Error{Kind: dynamo.KindNotFound, Err: err,
			Message: fmt.Sprintf("there is no model at %s: name a .gguf file or a folder in Hugging Face layout", path)}
	}
	if err != nil {
		return nil, invalid("model %s cannot be read: %v", path, err)
	}
	s := &source{path: path}
	if info.IsDir() {
		err = s.openFolder()
	} else {
		err = s.openGGUF()
	}
	if err == nil {
		err = errors.Join(s.config.check(path), s.config.RopeScaling.check(path))
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *source) close() {
	if s.tensors != nil {
		_ = s.tensors.Close() // read-only: nothing is lost
	}
}

// revision hashes what tells two models apart without reading them whole: sizes,
// the tables and metadata, the configuration, and the first bytes of every
// tensor, which differ between a model and its fine-tunes.
func (s *source) revision(configuration []byte) string {
	const sample = 256
	h := sha256.New()
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(s.tensors.SizeBytes()))
	h.Write(n[:])
	h.Write(s.tensors.Header())
	h.Write(configuration)
	for _, name := range s.tensors.Names() {
		t, _ := s.tensors.Tensor(name)
		h.Write(t.Data[:min(len(t.Data), sample)])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// readLimited reads a whole small file.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > maxConfigFile {
		return nil, corrupt("%s is larger than %d bytes: download it again", path, maxConfigFile)
	}
	return b, nil
}

// openFolder opens a folder in Hugging Face layout.
func (s *source) openFolder() error {
	path := filepath.Join(s.path, "config.json")
	b, err := readLimited(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &dynamo.Error{Kind: dynamo.KindNotFound, Err: err,
			Message: fmt.Sprintf("%s holds no config.json: name a folder in Hugging Face layout or a .gguf file", s.path)}
	}
	if err != nil {
		return err
	}
	generation, err := readLimited(filepath.Join(s.path, "generation_config.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, err := parseFolderConfig(path, b, generation)
	if err != nil {
		return err
	}
	s.config, s.tied, s.names = c.Config, c.tied, hfNames
	w, err := weights.OpenSafetensors(s.path)
	if err != nil {
		return err
	}
	s.tensors = w
	s.config.Revision = s.revision(b)
	return nil
}

// openGGUF opens a GGUF file.
func (s *source) openGGUF() error {
	g, err := weights.OpenGGUF(s.path)
	if err != nil {
		return err
	}
	s.tensors, s.names = g, ggufNames
	if s.config, err = readGGUFConfig(s.path, g); err != nil {
		return err
	}
	s.interleaved = s.config.Architecture == "llama"
	s.config.Revision = s.revision(nil)
	return nil
}

// in returns the name of a tensor of a layer.
func in(pattern string, layer int) string {
	for i := 0; i+1 < len(pattern); i++ {
		if pattern[i] == '%' {
			return pattern[:i] + strconv.Itoa(layer) + pattern[i+2:]
		}
	}
	return pattern
}
