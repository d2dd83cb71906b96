package model

import (
	"math"
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/weights"
)

// keys reads the metadata of one architecture and keeps the first error.
type keys struct {
	path   string
	meta   *weights.Meta
	prefix string
	err    error
}

func (k *keys) fail(err error) {
	if k.err == nil {
		k.err = err
	}
}

// count reads a required number, or one that may be an array of equal numbers
// for each layer.
func (k *keys) count(name string) int {
	key := k.prefix + name
	n, err := k.meta.Uint(key)
	if err == nil {
		return clampInt(n)
	}
	each, arrayErr := k.meta.Ints(key)
	if arrayErr != nil || len(each) == 0 {
		k.fail(err)
		return 0
	}
	for _, v := range each {
		if v != each[0] || v < 0 {
			k.fail(invalid("%s has layers that differ in %s, which is not supported: use another model", k.path, name))
			return 0
		}
	}
	return clampInt(uint64(each[0]))
}

// countOr is count with a default.
func (k *keys) countOr(name string, or int) int {
	if !k.meta.Has(k.prefix + name) {
		return or
	}
	return k.count(name)
}

func (k *keys) floatOr(name string, or float64) float64 {
	if !k.meta.Has(k.prefix + name) {
		return or
	}
	f, err := k.meta.Float(k.prefix + name)
	if err != nil {
		k.fail(err)
	}
	return f
}

func clampInt(n uint64) int { return int(min(n, math.MaxInt32)) }

// endKeys name the ids that end an answer: of the text, of a turn, of a message
// that calls a tool.
var endKeys = []string{"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}

// readGGUFConfig reads the configuration in a GGUF's metadata.
func readGGUFConfig(path string, g *weights.GGUF) (Config, error) {
	m := g.Meta()
	name, err := m.String("general.architecture")
	if err != nil {
		return Config{}, err
	}
	if kind, err := m.String("general.type"); err == nil && kind != "model" {
		return Config{}, invalid("%s is a GGUF of type %q, not a model", path, kind)
	}
	c := Config{}
	if c.Architecture, err = architecture(path, name); err != nil {
		return c, err
	}
	k := &keys{path: path, meta: m, prefix: name + "."}
	c.Layers, c.Hidden, c.FFN = k.count("block_count"), k.count("embedding_length"), k.count("feed_forward_length")
	c.Heads = k.count("attention.head_count")
	c.KVHeads = k.countOr("attention.head_count_kv", c.Heads)
	c.ContextLength = k.count("context_length")
	c.NormEps = float32(k.floatOr("attention.layer_norm_rms_epsilon", 1e-5))
	c.RopeTheta = k.floatOr("rope.freq_base", 10000)
	c.HeadDim = k.countOr("attention.key_length", c.Hidden/max(c.Heads, 1))
	c.ContextLength = min(c.ContextLength, max(1, k.countOr("attention.sliding_window", math.MaxInt32)))
	if k.countOr("attention.value_length", c.HeadDim) != c.HeadDim || k.countOr("rope.dimension_count", c.HeadDim) != c.HeadDim {
		k.fail(invalid("%s has keys, values and rotary embedding of different sizes, which is not supported: use another model", path))
	}
	if k.countOr("expert_count", 0) > 0 {
		k.fail(invalid("%s is a mixture of experts, which is not supported: use a dense model", path))
	}
	c.RopeScaling = k.ropeScaling()
	if k.err != nil {
		return c, k.err
	}
	if t, ok := g.Tensor(ggufNames.embed); ok {
		c.Vocab = t.Rows()
	} else {
		return c, missing(path, g, ggufNames.embed, "a matrix")
	}
	k.ends(&c)
	return c, k.err
}

func (k *keys) ropeScaling() RopeScaling {
	kind := "none"
	if key := k.prefix + "rope.scaling.type"; k.meta.Has(key) {
		var err error
		if kind, err = k.meta.String(key); err != nil {
			k.fail(err)
		}
	}
	factor := k.floatOr("rope.scaling.factor", k.floatOr("rope.scale_linear", 1))
	switch {
	case kind == "none" || kind == "linear" && factor == 1:
		return RopeScaling{}
	case kind == "linear":
		return RopeScaling{Type: kind, Factor: factor}
	}
	return RopeScaling{Type: kind}
}

// ends reads the special ids; those outside the vocabulary are ignored, as files
// use such numbers for none.
func (k *keys) ends(c *Config) {
	id := func(key string) (dynamo.TokenID, bool) {
		if !k.meta.Has(key) {
			return 0, false
		}
		n, err := k.meta.Uint(key)
		return dynamo.TokenID(n), err == nil && n < uint64(c.Vocab)
	}
	for _, key := range endKeys {
		if n, ok := id(key); ok && !slices.Contains(c.EOS, n) {
			c.EOS = append(c.EOS, n)
		}
	}
	c.BOS, c.HasBOS = id("tokenizer.ggml.bos_token_id")
}
