package node

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/frontend"
	"github.com/dynamo-go/dynamo/hub"
	"github.com/dynamo-go/dynamo/openai"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// modelConfig is the part of config.json and generation_config.json that is read
// here; package model reads the shape of the weights.
type modelConfig struct {
	ContextLength int `json:"max_position_embeddings"`
	EOS           eos `json:"eos_token_id"`
	Text          *struct {
		ContextLength int `json:"max_position_embeddings"`
		EOS           eos `json:"eos_token_id"`
	} `json:"text_config"`

	// The rest stands in generation_config.json.
	Temperature       *float64 `json:"temperature"`
	TopP              *float64 `json:"top_p"`
	TopK              *int     `json:"top_k"`
	MinP              *float64 `json:"min_p"`
	RepetitionPenalty *float64 `json:"repetition_penalty"`
}

// advised are the publisher's sampling values; where the files are silent, advice
// stands in. do_sample is passed over: it tells the transformers library how to
// sample when nobody asks, and here requests say so by their temperature.
func (c *modelConfig) advised(advice hub.Sampling) discovery.Sampling {
	s := discovery.Sampling{Temperature: c.Temperature, TopP: c.TopP, TopK: c.TopK, MinP: c.MinP, RepetitionPenalty: c.RepetitionPenalty}
	if advice.Temperature > 0 && s.Temperature == nil {
		s.Temperature = &advice.Temperature
	}
	if advice.TopP > 0 && s.TopP == nil {
		s.TopP = &advice.TopP
	}
	return s
}

// samplingDefaults is what holds where a request does not say how to sample.
func samplingDefaults(s discovery.Sampling) frontend.Defaults {
	float := func(p *float64) (o openai.Optional[float64]) {
		if p != nil {
			o = openai.Some(*p)
		}
		return o
	}
	d := frontend.Defaults{Temperature: float(s.Temperature), TopP: float(s.TopP), MinP: float(s.MinP), RepetitionPenalty: float(s.RepetitionPenalty)}
	if s.TopK != nil {
		d.TopK = openai.Some(*s.TopK)
	}
	return d
}

// eos is one id, a list of ids, or null.
type eos []dynamo.TokenID

// UnmarshalJSON reads the three forms.
func (e *eos) UnmarshalJSON(b []byte) error {
	*e = nil
	switch jsontext.Value(b).Kind() {
	case 'n':
		return nil
	case '[':
		return json.Unmarshal(b, (*[]dynamo.TokenID)(e))
	}
	var one dynamo.TokenID
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*e = eos{one}
	return nil
}

// tokenizerConfig is the part of tokenizer_config.json and special_tokens_map.json
// that chat templates see.
type tokenizerConfig struct {
	ChatTemplate jsontext.Value `json:"chat_template"`
	BOS          tokenText      `json:"bos_token"`
	EOS          tokenText      `json:"eos_token"`
	UNK          tokenText      `json:"unk_token"`
	SEP          tokenText      `json:"sep_token"`
	PAD          tokenText      `json:"pad_token"`
	CLS          tokenText      `json:"cls_token"`
	MASK         tokenText      `json:"mask_token"`
}

// tokenText is a token's text, bare or as the content of an object, or null.
type tokenText string

// UnmarshalJSON reads the three forms.
func (t *tokenText) UnmarshalJSON(b []byte) error {
	*t = ""
	switch jsontext.Value(b).Kind() {
	case '"':
		return json.Unmarshal(b, (*string)(t))
	case '{':
		var o struct {
			Content string `json:"content"`
		}
		err := json.Unmarshal(b, &o)
		*t = tokenText(o.Content)
		return err
	}
	return nil
}

// special lists the tokens by the names templates know them under.
func (c *tokenizerConfig) special() map[string]string {
	m := map[string]string{}
	for name, t := range map[string]tokenText{
		"bos_token": c.BOS, "eos_token": c.EOS, "unk_token": c.UNK, "sep_token": c.SEP, "pad_token": c.PAD, "cls_token": c.CLS, "mask_token": c.MASK,
	} {
		if t != "" {
			m[name] = string(t)
		}
	}
	return m
}

// readFolder reads everything but the weights of a folder in Hugging Face layout.
func readFolder(dir string) (*metadata, error) {
	var config, generation modelConfig
	var tokens, fallback tokenizerConfig
	for _, f := range []struct {
		name string
		into any
	}{{"config.json", &config}, {"generation_config.json", &generation}, {"special_tokens_map.json", &fallback}, {"tokenizer_config.json", &tokens}} {
		if err := readJSON(dir, f.name, f.into); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	m := &metadata{contextLength: config.ContextLength, special: fallback.special(), sampling: generation}
	for name, text := range tokens.special() {
		m.special[name] = text
	}
	m.eos = append(append(m.eos, config.EOS...), generation.EOS...)
	if config.Text != nil {
		m.contextLength = max(m.contextLength, config.Text.ContextLength)
		m.eos = append(m.eos, config.Text.EOS...)
	}
	if err := m.folderTemplate(dir, tokens.ChatTemplate); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "tokenizer.json")
	data, err := readBounded(path, maxTokenizerBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(
			"model folder %s has no tokenizer.json; other forms (tokenizer.model, tiktoken) are not read: get the file from the model's repository, or convert the tokenizer with the transformers library (AutoTokenizer.from_pretrained(…).save_pretrained(…))", dir)}
	}
	if err != nil {
		return nil, err
	}
	if m.tokenizer, err = tokenizer.FromJSON(data); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	m.vocabularyFile = newArtifact(artifactTokenizer, data, func() ([]byte, error) { return readBounded(path, maxTokenizerBytes) })
	return m, nil
}

// folderTemplate finds the chat template: a file of its own goes before the one
// in tokenizer_config.json, as in the transformers library.
func (m *metadata) folderTemplate(dir string, inConfig jsontext.Value) error {
	b, err := readBounded(filepath.Join(dir, "chat_template.jinja"), maxTemplateBytes)
	if err == nil {
		return m.setTemplate("chat_template.jinja", string(b))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var own struct {
		ChatTemplate jsontext.Value `json:"chat_template"`
	}
	err = readJSON(dir, "chat_template.json", &own)
	if err == nil && len(own.ChatTemplate) > 0 {
		return m.parseTemplate("chat_template.json", own.ChatTemplate)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(inConfig) == 0 || inConfig.Kind() == 'n' {
		return nil
	}
	return m.parseTemplate("tokenizer_config.json", inConfig)
}

func readJSON(dir, name string, into any) error {
	b, err := readBounded(filepath.Join(dir, name), maxConfigBytes)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf("%s cannot be read; is it the file that was published?", filepath.Join(dir, name)), Err: err}
	}
	return nil
}

// readBounded reads a file that may not be larger than most.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the model's files: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the model's files: %w", err)
	}
	if info.Size() > most {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("%s has %d bytes; more than %d are not read", path, info.Size(), most)}
	}
	b := make([]byte, info.Size()) // a real file of that size, not a claim
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, nil
}
