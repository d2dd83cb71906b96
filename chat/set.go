package chat

import (
	"fmt"
	"sort"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// Set is the chat templates of one model: usually one, sometimes several by
// name, among them "default" and "tool_use".
type Set struct {
	templates map[string]*Template
}

// defaultName is the name of the template that is used without tools.
const (
	defaultName = "default"
	toolsName   = "tool_use"
)

// NewSet compiles a single template into a Set.
func NewSet(source string) (*Set, error) {
	s := &Set{templates: make(map[string]*Template, 1)}
	if err := s.Add(defaultName, source); err != nil {
		return nil, err
	}
	return s, nil
}

// Add compiles a template into the Set under a name, in place of one that was
// there.
func (s *Set) Add(name, source string) error {
	if len(s.templates) >= maxTemplates {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("a model with more than %d chat templates", maxTemplates)}
	}
	t, err := Compile(source)
	if err != nil {
		return fmt.Errorf("chat template %q: %w", name, err)
	}
	s.templates[name] = t
	return nil
}

// ParseSet compiles the value of chat_template in a tokenizer_config.json: a
// string, a list of {"name", "template"} objects, or an object of templates by
// name. Errors are of KindInvalid.
func ParseSet(data []byte) (*Set, error) {
	v, err := ParseJSON(data)
	if err != nil {
		return nil, fmt.Errorf("read chat_template: %w", err)
	}
	s := &Set{templates: make(map[string]*Template)}
	if source, ok := v.AsString(); ok {
		return NewSet(source)
	}
	if d, ok := v.AsDict(); ok {
		for i := range d.Len() {
			name, value := d.At(i)
			source, ok := value.AsString()
			if !ok {
				return nil, malformedSet()
			}
			if err := s.Add(name.str(), source); err != nil {
				return nil, err
			}
		}
		return s.checked()
	}
	items, ok := v.AsList()
	if !ok {
		return nil, malformedSet()
	}
	for _, item := range items {
		d, _ := item.AsDict()
		n, _ := d.Get("name")
		src, _ := d.Get("template")
		name, ok := n.AsString()
		source, ok2 := src.AsString()
		if !ok || !ok2 {
			return nil, malformedSet()
		}
		if err := s.Add(name, source); err != nil {
			return nil, err
		}
	}
	return s.checked()
}

func (s *Set) checked() (*Set, error) {
	if len(s.templates) == 0 {
		return nil, malformedSet()
	}
	return s, nil
}

func malformedSet() error {
	return &dynamo.Error{Kind: dynamo.KindInvalid,
		Message: `chat_template must be a string or a list of {"name": …, "template": …}; pass --chat-template FILE to use another`}
}

// Names returns the names of the templates, sorted.
func (s *Set) Names() []string {
	names := make([]string, 0, len(s.templates))
	for name := range s.templates {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Get returns the template called name, nil if there is none.
func (s *Set) Get(name string) *Template { return s.templates[name] }

// Choose returns the template for a request as transformers does: tool_use if
// tools are given and there is one of that name, else default.
func (s *Set) Choose(tools bool) (*Template, error) {
	if tools {
		if t := s.templates[toolsName]; t != nil {
			return t, nil
		}
	}
	if t := s.templates[defaultName]; t != nil {
		return t, nil
	}
	return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Code: CodeTemplate,
		Message: "the model has several chat templates and none called default (it has " + strings.Join(s.Names(), ", ") +
			"); serve it with --chat-template FILE"}
}

// Render renders in with the template that Choose picks.
func (s *Set) Render(dst []byte, in *Input, l Limits) ([]byte, error) {
	t, err := s.Choose(in.Tools.k == kList)
	if err != nil {
		return dst, err
	}
	return t.Render(dst, in, l)
}
