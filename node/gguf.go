package node

import (
	"errors"
	"fmt"
	"math"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/weights"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// maxTokenID is above every vocabulary.
const maxTokenID = 1 << 28

// endTokens are the keys of a GGUF file whose tokens end an answer: of the text,
// of a turn, of a message that calls a tool.
var endTokens = []string{"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}

// readGGUF reads everything but the weights of a GGUF file.
func readGGUF(path string) (*metadata, error) {
	g, err := weights.OpenGGUF(path)
	if err != nil {
		return nil, err
	}
	m, err := fromMeta(g.Meta())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), g.Close())
	}
	data, err := vocabularyOf(g.Meta())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", path, err), g.Close())
	}
	m.vocabularyFile = newArtifact(artifactVocabulary, data, func() ([]byte, error) {
		g, err := weights.OpenGGUF(path)
		if err != nil {
			return nil, err
		}
		data, err := vocabularyOf(g.Meta())
		return data, errors.Join(err, g.Close())
	})
	return m, g.Close()
}

// vocabularyOf writes the tokenizer's part of a GGUF file as JSON.
func vocabularyOf(meta *weights.Meta) ([]byte, error) {
	v, err := vocabulary(meta)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
}

// fromMeta reads the tokenizer, the template and the limits.
func fromMeta(meta *weights.Meta) (*metadata, error) {
	m := &metadata{special: map[string]string{}}
	arch, err := meta.String("general.architecture")
	if err != nil {
		return nil, err
	}
	if n, err := meta.Uint(arch + ".context_length"); err == nil && n < math.MaxInt32 {
		m.contextLength = int(n)
	}
	v, err := vocabulary(meta)
	if err != nil {
		return nil, err
	}
	if m.tokenizer, err = tokenizer.FromGGUF(v); err != nil {
		return nil, fmt.Errorf("read the tokenizer: %w", err)
	}
	for name, id := range map[string]int{"bos_token": v.BOS, "eos_token": v.EOS, "unk_token": v.UNK} {
		if id >= 0 && id < len(v.Tokens) {
			m.special[name] = v.Tokens[id]
		}
	}
	for _, key := range endTokens {
		if id := tokenID(meta, key); id >= 0 && id < len(v.Tokens) {
			m.eos = append(m.eos, dynamo.TokenID(id))
		}
	}
	if !meta.Has("tokenizer.chat_template") {
		return m, nil
	}
	text, err := meta.String("tokenizer.chat_template")
	if err != nil {
		return nil, err
	}
	return m, m.setTemplate("the key tokenizer.chat_template", text)
}

// vocabulary collects the tokenizer.ggml.* keys. Those that may be missing are
// looked for with Has, so that one of a wrong type is an error.
func vocabulary(meta *weights.Meta) (tokenizer.Vocab, error) {
	v := tokenizer.Vocab{BOS: tokenID(meta, "tokenizer.ggml.bos_token_id"), EOS: tokenID(meta, "tokenizer.ggml.eos_token_id"), UNK: tokenID(meta, "tokenizer.ggml.unknown_token_id")}
	var err, first error
	keep := func() {
		if err != nil && first == nil {
			first = err
		}
	}
	v.Model, err = meta.String("tokenizer.ggml.model")
	keep()
	v.Tokens, err = meta.Strings("tokenizer.ggml.tokens")
	keep()
	if key := "tokenizer.ggml.pre"; meta.Has(key) {
		v.Pre, err = meta.String(key)
		keep()
	}
	if key := "tokenizer.ggml.merges"; meta.Has(key) {
		v.Merges, err = meta.Strings(key)
		keep()
	}
	if key := "tokenizer.ggml.scores"; meta.Has(key) {
		v.Scores, err = meta.Floats(key)
		keep()
	}
	if key := "tokenizer.ggml.token_type"; meta.Has(key) {
		var types []int64
		types, err = meta.Ints(key)
		keep()
		v.Types = make([]int32, len(types))
		for i, t := range types {
			v.Types[i] = int32(t)
		}
	}
	for key, into := range map[string]**bool{"tokenizer.ggml.add_bos_token": &v.AddBOS, "tokenizer.ggml.add_eos_token": &v.AddEOS, "tokenizer.ggml.add_space_prefix": &v.AddSpacePrefix} {
		if meta.Has(key) {
			var b bool
			b, err = meta.Bool(key)
			keep()
			*into = &b
		}
	}
	if first != nil && dynamo.KindOf(first) == dynamo.KindNotFound {
		first = &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the file holds no tokenizer; get a .gguf file that was converted with one", Err: first}
	}
	return v, first
}

// tokenID returns the id a key names, or -1.
func tokenID(meta *weights.Meta, key string) int {
	id, err := meta.Uint(key)
	if err != nil || id > maxTokenID {
		return -1
	}
	return int(id)
}
