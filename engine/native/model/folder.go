package model

import (
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
)

// folderConfig is what config.json and generation_config.json say.
type folderConfig struct {
	Config
	tied *bool
}

// rawConfig is config.json as far as it is read. Numbers that a file may leave
// out are pointers.
type rawConfig struct {
	Architectures []string `json:"architectures"`
	ModelType     string   `json:"model_type"`
	Hidden        int64    `json:"hidden_size"`
	FFN           int64    `json:"intermediate_size"`
	Layers        int64    `json:"num_hidden_layers"`
	Heads         int64    `json:"num_attention_heads"`
	KVHeads       *int64   `json:"num_key_value_heads"`
	HeadDim       *int64   `json:"head_dim"`
	Context       *int64   `json:"max_position_embeddings"`
	Vocab         int64    `json:"vocab_size"`
	Eps           *float64 `json:"rms_norm_eps"`
	Act           string   `json:"hidden_act"`
	Tied          *bool    `json:"tie_word_embeddings"`
	Window        *int64   `json:"sliding_window"`
	UseWindow     *bool    `json:"use_sliding_window"`
	Partial       *float64 `json:"partial_rotary_factor"`
	Theta         *float64 `json:"rope_theta"`
	Scaling       *rawRope `json:"rope_scaling"`
	Rope          *rawRope `json:"rope_parameters"` // both in one, since transformers 5

	BOS          jsontext.Value `json:"bos_token_id"`
	EOS          jsontext.Value `json:"eos_token_id"`
	Quantization *struct {
		Method string `json:"quant_method"`
	} `json:"quantization_config"`
}

type rawRope struct {
	Type     string   `json:"rope_type"`
	OldType  string   `json:"type"`
	Theta    *float64 `json:"rope_theta"`
	Factor   float64  `json:"factor"`
	Low      float64  `json:"low_freq_factor"`
	High     float64  `json:"high_freq_factor"`
	Original int64    `json:"original_max_position_embeddings"`
	Partial  *float64 `json:"partial_rotary_factor"`
}

// parseFolderConfig decodes config.json and, unless empty, generation_config.json.
func parseFolderConfig(path string, config, generation []byte) (*folderConfig, error) {
	var r rawConfig
	if err := json.Unmarshal(config, &r); err != nil {
		return nil, corrupt("%s is not a model configuration (%v): download it again", path, err)
	}
	name := r.ModelType
	if len(r.Architectures) > 0 {
		name = r.Architectures[0]
	}
	c := &folderConfig{tied: r.Tied}
	var err error
	if c.Architecture, err = architecture(path, name); err != nil {
		return nil, err
	}
	if err := r.unsupported(path); err != nil {
		return nil, err
	}
	c.Hidden, c.FFN, c.Layers, c.Heads = clamp(r.Hidden), clamp(r.FFN), clamp(r.Layers), clamp(r.Heads)
	c.Vocab = clamp(r.Vocab)
	c.KVHeads = clamp(or(r.KVHeads, r.Heads))
	c.HeadDim = clamp(or(r.HeadDim, r.Hidden/max(r.Heads, 1)))
	c.ContextLength = clamp(or(r.Context, 2048))
	if r.Window != nil && *r.Window > 0 && or(r.UseWindow, c.Architecture == "mistral") {
		// Within the window attention is complete, so that far the model is exact.
		c.ContextLength = min(c.ContextLength, clamp(*r.Window))
	}
	c.NormEps = float32(or(r.Eps, 1e-6))
	c.RopeTheta, c.RopeScaling = r.rope()
	return c, c.ends(path, &r, generation)
}

// unsupported refuses what would be computed wrongly.
func (r *rawConfig) unsupported(path string) error {
	switch {
	case r.Quantization != nil:
		return invalid("%s is quantized with %q, which is not supported: use the unquantized model or a GGUF of it", path, r.Quantization.Method)
	case r.Act != "" && r.Act != "silu" && r.Act != "swish":
		return invalid("%s has the activation %q, which is not supported (silu is): use another model", path, r.Act)
	}
	partial := or(r.Partial, 1)
	if r.Rope != nil {
		partial = or(r.Rope.Partial, partial)
	}
	if partial != 1 {
		return invalid("%s rotates only part of each head (partial_rotary_factor %g), which is not supported: use another model", path, partial)
	}
	return nil
}

// rope returns the base and the scaling, from whichever place holds them.
func (r *rawConfig) rope() (theta float64, s RopeScaling) {
	theta = or(r.Theta, 10000)
	rope := r.Scaling
	if r.Rope != nil {
		rope = r.Rope
		theta = or(rope.Theta, theta)
	}
	if rope == nil {
		return theta, s
	}
	kind := rope.Type
	if kind == "" {
		kind = rope.OldType
	}
	if kind == "default" || kind == "" {
		return theta, s
	}
	return theta, RopeScaling{Type: kind, Factor: rope.Factor, LowFactor: rope.Low, HighFactor: rope.High, OriginalContext: clamp(rope.Original)}
}

// ends reads the special ids, generation_config.json before config.json.
func (c *folderConfig) ends(path string, r *rawConfig, generation []byte) error {
	var g struct {
		BOS jsontext.Value `json:"bos_token_id"`
		EOS jsontext.Value `json:"eos_token_id"`
	}
	if len(generation) > 0 {
		if err := json.Unmarshal(generation, &g); err != nil {
			return corrupt("the generation_config.json beside %s is not JSON (%v): download it again", path, err)
		}
	}
	for _, raw := range []jsontext.Value{g.EOS, r.EOS} {
		all, err := ids(raw)
		if err != nil {
			return corrupt("%s or the generation_config.json beside it has a bad eos_token_id: download it again", path)
		}
		for _, id := range all {
			if id >= 0 && id < int64(c.Vocab) && !slices.Contains(c.EOS, dynamo.TokenID(id)) && len(c.EOS) < maxEOS {
				c.EOS = append(c.EOS, dynamo.TokenID(id))
			}
		}
		if len(c.EOS) > 0 {
			break
		}
	}
	for _, raw := range []jsontext.Value{g.BOS, r.BOS} {
		if all, err := ids(raw); err == nil && len(all) > 0 && all[0] >= 0 && all[0] < int64(c.Vocab) && !c.HasBOS {
			c.BOS, c.HasBOS = dynamo.TokenID(all[0]), true
		}
	}
	return nil
}

// ids decodes a number, a list of numbers or null.
func ids(raw jsontext.Value) ([]int64, error) {
	if len(raw) == 0 || raw.Kind() == 'n' {
		return nil, nil
	}
	if raw.Kind() == '[' {
		var all []int64
		err := json.Unmarshal(raw, &all)
		return all, err
	}
	var one int64
	if err := json.Unmarshal(raw, &one); err != nil {
		return nil, fmt.Errorf("read a token id: %w", err)
	}
	return []int64{one}, nil
}

func or[T any](p *T, or T) T {
	if p == nil {
		return or
	}
	return *p
}

// clamp brings a claimed number into the range of an int32, where every bound
// lies.
func clamp(n int64) int { return int(max(-1, min(n, 1<<31-1))) }
