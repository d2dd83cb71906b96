package node

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// The forms in which a worker serves its tokenizer and its chat template. The
// name stands on the card, so that a frontend knows how to read the bytes.
const (
	artifactTokenizer  = "tokenizer.json"
	artifactVocabulary = "gguf-vocabulary.json" // tokenizer.Vocab as JSON
	artifactTemplate   = "chat_template.jinja"  // the template's text
	artifactTemplates  = "chat_template.json"   // a JSON text, or a list of named ones
)

// artifact is a file that others may ask for by its digest.
type artifact struct {
	name, digest string
	size         int64
	// data is kept for what is small; open reads the rest again.
	data []byte
	open func() ([]byte, error)
}

// newArtifact names data by its digest. With open, data itself is not kept.
func newArtifact(name string, data []byte, open func() ([]byte, error)) artifact {
	sum := sha256.Sum256(data)
	a := artifact{name: name, digest: hex.EncodeToString(sum[:]), size: int64(len(data)), open: open}
	if open == nil {
		a.data = data
	}
	return a
}

// read returns the bytes, or an error if the file has changed since.
func (a artifact) read() ([]byte, error) {
	if a.open == nil {
		return a.data, nil
	}
	data, err := a.open()
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != a.digest {
		return nil, &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the model's " + a.name + " has changed since the worker started; restart the worker"}
	}
	return data, nil
}

// parseTokenizer reads a tokenizer in one of its forms.
func parseTokenizer(form string, data []byte) (*tokenizer.Tokenizer, error) {
	switch form {
	case artifactTokenizer:
		return tokenizer.FromJSON(data)
	case artifactVocabulary:
		var v tokenizer.Vocab
		if err := json.Unmarshal(data, &v, jsontext.AllowInvalidUTF8(true)); err != nil {
			return nil, fmt.Errorf("read the vocabulary: %w", err)
		}
		return tokenizer.FromGGUF(v)
	}
	return nil, unknownForm("tokenizer", form)
}

// parseTemplateFile reads a chat template in one of its forms into m.
func (m *metadata) parseTemplateFile(form string, data []byte) error {
	switch form {
	case "":
		return nil // a model without one
	case artifactTemplate:
		return m.setTemplate(form, string(data))
	case artifactTemplates:
		return m.parseTemplate(form, data)
	}
	return unknownForm("chat template", form)
}

func unknownForm(what, form string) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("the worker offers its %s as %q, which this version does not read; run the same version of dynamo everywhere", what, form)}
}
