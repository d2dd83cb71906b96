package node

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// metadata is what a model's files say beside its weights.
type metadata struct {
	tokenizer *tokenizer.Tokenizer
	// template renders conversations; nil for a model without one.
	template *chat.Set
	// special are the special tokens by the names templates know them under.
	special map[string]string
	// eos are the ids that end an answer.
	eos []dynamo.TokenID
	// contextLength is what the model was made for; 0 if it does not say.
	contextLength int
	// sampling holds the publisher's defaults.
	sampling modelConfig
	// words are what mocked answers are made of; nil for other engines.
	words []dynamo.TokenID
	// vocabularyFile and templateFile are what tokenizer and template were read
	// from, for frontends on other hosts.
	vocabularyFile, templateFile artifact
}

// metadata reads what the model's files say beside its weights, once for all
// workers of a process. The caller may change what it is given.
func (n *Node) metadata() (*metadata, error) {
	if n.crowd == nil {
		return n.readMetadata()
	}
	m, err := n.crowd.metadata()
	if err != nil {
		return nil, err
	}
	own := *m
	return &own, nil
}

func (n *Node) readMetadata() (*metadata, error) {
	m, err := readMetadata(n.cfg.ModelPath, n.cfg.ChatTemplate)
	if err == nil && n.cfg.Engine == EngineMocker {
		m.words = mockWords(m)
	}
	return m, err
}

// readMetadata reads the tokenizer, the chat template and the limits of a .gguf
// file or a folder. templateFile replaces the model's own template.
func readMetadata(path, templateFile string) (*metadata, error) {
	read := readFolder
	if isGGUF(path) {
		read = readGGUF
	}
	m, err := read(path)
	if err != nil {
		return nil, err
	}
	if templateFile != "" {
		b, err := readBounded(templateFile, maxTemplateBytes)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--chat-template: there is no file %s", templateFile)}
		}
		if err != nil {
			return nil, fmt.Errorf("--chat-template: %w", err)
		}
		if err := m.setTemplate(templateFile, string(b)); err != nil {
			return nil, err
		}
	}
	vocab := m.tokenizer.VocabSize()
	m.eos = slices.DeleteFunc(m.eos, func(id dynamo.TokenID) bool { return int64(id) >= int64(vocab) })
	if id, ok := m.tokenizer.ID(m.special["eos_token"]); ok {
		m.eos = append(m.eos, id)
	}
	slices.Sort(m.eos)
	m.eos = slices.Compact(m.eos)
	return m, nil
}

func isGGUF(path string) bool { return strings.HasSuffix(strings.ToLower(path), ".gguf") }

// setTemplate compiles a template.
func (m *metadata) setTemplate(from, source string) (err error) {
	m.template, err = chat.NewSet(source)
	m.templateFile = newArtifact(artifactTemplate, []byte(source), nil)
	return templateFault(from, err)
}

// parseTemplate compiles templates in the form of tokenizer_config.json: a text
// or a list of named ones.
//
// A text is kept as a text, so that it has one digest wherever it comes from.
func (m *metadata) parseTemplate(from string, value []byte) (err error) {
	if jsontext.Value(value).Kind() == '"' {
		var source string
		if err := json.Unmarshal(value, &source, jsontext.AllowInvalidUTF8(true)); err != nil {
			return templateFault(from, err)
		}
		return m.setTemplate(from, source)
	}
	m.template, err = chat.ParseSet(value)
	m.templateFile = newArtifact(artifactTemplates, slices.Clone(value), nil)
	return templateFault(from, err)
}

// templateFault says where a template that cannot be used stands.
func templateFault(from string, err error) error {
	if err == nil {
		return nil
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("the chat template in %s cannot be used (give another with --chat-template)", from), Err: err}
}
