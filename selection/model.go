package selection

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// Model is what AddModel serves. It must not change once added.
type Model struct {
	Name string
	// Router is over the workers that answer, Prefill over those for prompts alone; nil:
	// there are none such.
	Router, Prefill *router.Router
	// ContextLength bounds a prompt, in tokens; 0 bounds nothing.
	ContextLength int
	// Adapters are the names that stand for the model with an adapter.
	Adapters []string
	// Tokenizer and Template turn text and messages into ids; nil refuses those.
	// Template's variables are Vars.
	Tokenizer *tokenizer.Tokenizer
	Template  *chat.Set
	Vars      *chat.Dict
}

// AddModel serves m from now on, in place of one of the same name. Reservations stay
// with the router they were made at.
func (s *Server) AddModel(m *Model) {
	s.adding.Lock()
	defer s.adding.Unlock()
	s.mu.Lock()
	s.mu.models[m.Name] = m
	s.mu.Unlock()
	s.rejoin(m.Name)
}

// RemoveModel serves the model no longer, but for workers that clients have added; its
// reservations end by themselves.
func (s *Server) RemoveModel(name string) {
	s.adding.Lock()
	defer s.adding.Unlock()
	s.mu.Lock()
	delete(s.mu.models, name)
	s.mu.Unlock()
	s.rejoin(name)
}

// SetAdapters says which adapters a model has by now.
func (s *Server) SetAdapters(name string, adapters []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.mu.models[name]; m != nil {
		own := *m
		own.Adapters = slices.Clone(adapters)
		s.mu.models[name] = &own
	}
}

// models lists those that are served, by name.
func (s *Server) models() []*Model {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*Model, 0, len(s.mu.models)+len(s.mu.own))
	for _, m := range s.mu.models {
		all = append(all, m)
	}
	for name, m := range s.mu.own {
		if s.mu.models[name] == nil {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b *Model) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// model finds what a name means: a model, or one with an adapter. Without a name it is
// the only one there is.
func (s *Server) model(name string) (m *Model, adapter string, err error) {
	all := s.models()
	for _, m := range all {
		if m.Name == name || name == "" && len(all) == 1 {
			return m, "", nil
		}
	}
	for _, m := range all {
		if slices.Contains(m.Adapters, name) {
			return m, name, nil
		}
	}
	if len(all) == 0 {
		return nil, "", &dynamo.Error{Kind: dynamo.KindUnavailable, Param: "model", Code: "no_worker", Message: "no worker is known yet, so no model is; start one with `dynamo worker MODEL`, or try again in a moment"}
	}
	known := make([]string, 0, len(all))
	for _, m := range all[:min(len(all), 16)] {
		known = append(known, m.Name)
	}
	return nil, "", &dynamo.Error{Kind: dynamo.KindNotFound, Param: "model", Code: "model_not_found", Message: fmt.Sprintf("there is no model %q; there are: %s", clip(name), strings.Join(known, ", "))}
}

// router is the one for a role.
func (m *Model) router(role string) (*router.Router, error) {
	switch {
	case role != "prefill":
		return m.Router, nil
	case m.Prefill != nil:
		return m.Prefill, nil
	}
	return nil, &dynamo.Error{Kind: dynamo.KindUnavailable, Param: "role", Code: "no_worker", Message: fmt.Sprintf("model %s has no prefill workers; leave role out", m.Name)}
}

// encode turns text into ids.
func (m *Model) encode(param, text string, special bool) ([]dynamo.TokenID, error) {
	if m.Tokenizer == nil {
		return nil, fault(param, "the tokenizer of model %s is not known here; send token_ids", m.Name)
	}
	return m.Tokenizer.Encode(nil, text, tokenizer.EncodeOptions{AddSpecial: special}), nil
}

// conversation turns messages into the ids that a frontend makes of them, where their
// contents are texts.
func (m *Model) conversation(raw []byte) ([]dynamo.TokenID, error) {
	const param = "messages"
	if m.Template == nil {
		return nil, fault(param, "model %s has no chat template; send token_ids or text", m.Name)
	}
	v, err := chat.ParseJSON(raw)
	if err != nil {
		return nil, fault(param, "messages cannot be read: %v", err)
	}
	list, ok := v.AsList()
	if !ok || len(list) == 0 {
		return nil, fault(param, "messages must be a list of messages that is not empty")
	}
	for i := range list {
		d, ok := list[i].AsDict()
		if !ok {
			return nil, fault(param, "messages[%d] must be an object with role and content", i)
		}
		role, _ := d.Get("role")
		content, _ := d.Get("content")
		_, named := role.AsString()
		if _, text := content.AsString(); !named || !text {
			return nil, fault(param, "messages[%d] must have a role and a content that are texts; for anything else render the prompt yourself and send token_ids", i)
		}
	}
	template, err := m.Template.Choose(false)
	if err != nil {
		return nil, err
	}
	in := chat.Input{Messages: v, AddGenerationPrompt: true, Now: time.Now(), Vars: m.Vars}
	text, err := template.Render(nil, &in, chat.DefaultLimits())
	if err != nil {
		return nil, err
	}
	return m.encode(param, unsafe.String(unsafe.SliceData(text), len(text)), false)
}
