package discovery

import (
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// The versions of the stored form. Fields may be added within a version, and
// readers ignore those they do not know; a version that is larger than these is
// passed over.
const (
	InstanceFormat = 1
	CardFormat     = 1
)

// wireInstance is the stored form of an Instance: a JSON object. The id is in
// hexadecimal and the epoch a decimal string, because JSON readers elsewhere
// round large numbers.
type wireInstance struct {
	Format    int       `json:"format"`
	Namespace string    `json:"namespace"`
	Component string    `json:"component"`
	Endpoint  string    `json:"endpoint"`
	ID        string    `json:"id"`
	Epoch     uint64    `json:"epoch,string"`
	Addresses []string  `json:"addresses"`
	Host      string    `json:"host,omitzero"`
	Started   time.Time `json:"started"`
	Version   string    `json:"version,omitzero"`
	Draining  bool      `json:"draining,omitzero"`
	Card      *wireCard `json:"card,omitzero"`
}

// wireCard is the stored form of a Card.
type wireCard struct {
	Format int `json:"format"`
	wireEngine
	Weights      string            `json:"weights,omitzero"`
	Vocabulary   string            `json:"vocabulary,omitzero"`
	Tokenizer    Artifact          `json:"tokenizer,omitzero"`
	Template     Artifact          `json:"template,omitzero"`
	Special      map[string]string `json:"special,omitempty"`
	Ranks        int               `json:"ranks,omitzero"`
	Labels       map[string]string `json:"labels,omitempty"`
	Capabilities []string          `json:"capabilities,omitempty"`
	MaxRunning   int               `json:"max_running,omitzero"`
	MaxQueue     int               `json:"max_queue,omitzero"`
	KVBlocks     int               `json:"kv_blocks,omitzero"`
	StepTokens   int               `json:"step_tokens,omitzero"`
	Migration    string            `json:"migration,omitzero"`
	Sampling     Sampling          `json:"sampling,omitzero"`
}

// roleWhole is how a card may spell that it has no role.
const roleWhole = "aggregated"

// wireEngine is engine.Card field by field: the conversion between them does not
// compile when one has a field that the other lacks.
type wireEngine struct {
	Model          string              `json:"model"`
	Engine         string              `json:"engine,omitzero"`
	Revision       string              `json:"revision,omitzero"`
	ContextLength  int                 `json:"context_length,omitzero"`
	BlockSize      int                 `json:"block_size,omitzero"`
	VocabSize      int                 `json:"vocab_size,omitzero"`
	EOS            []dynamo.TokenID    `json:"eos,omitempty"`
	MaxTopLogprobs int                 `json:"max_top_logprobs,omitzero"`
	PromptLogprobs bool                `json:"prompt_logprobs,omitzero"`
	Sampling       bool                `json:"honours_sampling,omitzero"`
	Resume         bool                `json:"resume,omitzero"`
	TextOnly       bool                `json:"text_only,omitzero"`
	ResumeSeeded   bool                `json:"resume_seeded,omitzero"`
	Guided         []dynamo.GuidedKind `json:"guided,omitempty"`
	NumericClass   string              `json:"numeric_class,omitzero"`
	Role           string              `json:"role,omitzero"`
	Lends          bool                `json:"lends,omitzero"`
	Adapters       []string            `json:"adapters,omitempty"`
}

// EncodeInstance returns the stored form of i, at most MaxInstanceBytes long.
func EncodeInstance(i Instance) ([]byte, error) {
	if err := i.Validate(); err != nil {
		return nil, err
	}
	w := wireInstance{
		Format: InstanceFormat, Namespace: i.Namespace, Component: i.Component, Endpoint: i.Endpoint,
		ID: i.ID.String(), Epoch: i.Epoch, Addresses: i.Addresses, Host: i.Host,
		Started: i.Started.UTC(), Version: i.Version, Draining: i.Draining,
	}
	if c := i.Card; c != nil {
		w.Card = &wireCard{
			Format: CardFormat, wireEngine: wireEngine(c.Card), Weights: c.Weights, Vocabulary: c.Vocabulary, Tokenizer: c.Tokenizer, Template: c.Template,
			Special: c.Special, Ranks: c.Ranks, Labels: c.Labels, Capabilities: c.Capabilities,
			MaxRunning: c.MaxRunning, MaxQueue: c.MaxQueue, KVBlocks: c.KVBlocks, StepTokens: c.StepTokens, Migration: c.Migration, Sampling: c.Sampling,
		}
	}
	b, err := json.Marshal(&w, json.Deterministic(true))
	if err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the instance cannot be stored", Err: err}
	}
	if len(b) > MaxInstanceBytes {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("the instance has %d bytes when stored, of which %d are possible; use fewer or shorter labels and special tokens", len(b), MaxInstanceBytes)}
	}
	return b, nil
}

// DecodeInstance reads what EncodeInstance returns, or what a later minor version
// of it may return. Its errors say what is wrong with the bytes and what to do.
func DecodeInstance(b []byte) (Instance, error) {
	if len(b) > MaxInstanceBytes {
		return Instance{}, corrupt(fmt.Sprintf("it has %d bytes, of which %d are possible", len(b), MaxInstanceBytes), nil)
	}
	if err := checkFormat(b); err != nil {
		return Instance{}, err
	}
	var w wireInstance
	if err := json.Unmarshal(b, &w); err != nil {
		return Instance{}, corrupt("it is no instance", err)
	}
	id, err := dynamo.ParseWorkerID(w.ID)
	if err != nil {
		return Instance{}, corrupt("it is no instance", err)
	}
	i := Instance{
		Path: Path{w.Namespace, w.Component, w.Endpoint}, ID: id, Epoch: w.Epoch, Addresses: w.Addresses,
		Host: w.Host, Started: w.Started, Version: w.Version, Draining: w.Draining,
	}
	if c := w.Card; c != nil {
		if c.Role == roleWhole {
			c.Role = ""
		}
		i.Card = &Card{
			Card: engine.Card(c.wireEngine), Format: c.Format, Weights: c.Weights, Vocabulary: c.Vocabulary, Tokenizer: c.Tokenizer, Template: c.Template,
			Special: c.Special, Ranks: c.Ranks, Labels: c.Labels, Capabilities: c.Capabilities,
			MaxRunning: c.MaxRunning, MaxQueue: c.MaxQueue, KVBlocks: c.KVBlocks, StepTokens: c.StepTokens, Migration: c.Migration, Sampling: c.Sampling,
		}
	}
	if err := i.Validate(); err != nil {
		return Instance{}, corrupt("it is no instance", err)
	}
	return i, nil
}

// checkFormat looks at the versions alone: what else a newer form holds may not
// even have the types that are known here.
func checkFormat(b []byte) error {
	var w struct {
		Format int            `json:"format"`
		Card   jsontext.Value `json:"card"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return corrupt("it is no instance", err)
	}
	if w.Format < 1 {
		return corrupt("it is no instance (it lacks a format)", nil)
	}
	if w.Format > InstanceFormat {
		return newer("instance", w.Format, InstanceFormat)
	}
	var card struct {
		Format int `json:"format"`
	}
	if len(w.Card) == 0 || w.Card.Kind() == 'n' {
		return nil
	}
	if err := json.Unmarshal(w.Card, &card); err != nil {
		return corrupt("its card is none", err)
	}
	if card.Format < 1 {
		return corrupt("its card is none (it lacks a format)", nil)
	}
	if card.Format > CardFormat {
		return newer("card", card.Format, CardFormat)
	}
	return nil
}

func newer(what string, format, known int) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("its %s has format %d, and this program knows formats up to %d; upgrade this program to use that worker", what, format, known)}
}

func corrupt(message string, err error) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: message, Err: err}
}

// Validate reports the first thing that keeps i from being registered.
func (i *Instance) Validate() error {
	bad := func(format string, args ...any) error {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
	}
	for _, n := range []struct{ what, name string }{{"namespace (--namespace)", i.Namespace}, {"component", i.Component}, {"endpoint", i.Endpoint}} {
		if !validName(n.name) {
			return bad("%s %q: use 1 to %d letters, digits, -, _ and . with no . first", n.what, n.name, MaxNameBytes)
		}
	}
	if i.ID == 0 || i.Epoch == 0 {
		return bad("an instance's worker id and epoch must not be 0")
	}
	if len(i.Addresses) > MaxAddresses {
		return bad("an instance has %d addresses, of which %d are possible", len(i.Addresses), MaxAddresses)
	}
	for _, a := range i.Addresses {
		if !strings.HasPrefix(a, "tcp://") && !strings.HasPrefix(a, "unix:///") {
			return bad("address %q is neither tcp://HOST:PORT nor unix:///PATH", a)
		}
	}
	if i.Card != nil && i.Card.Model == "" {
		return bad("a card must name its model")
	}
	return nil
}

// validName accepts names that are safe as a part of a file name on every system.
func validName(s string) bool {
	if s == "" || len(s) > MaxNameBytes || s[0] == '.' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
