package frontend

import (
	"fmt"
	"strings"
	"time"
	"unsafe"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/chat"
	"github.com/dynamo-go/dynamo/openai"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// render turns a conversation into the text of a prompt.
func (x *exchange) render(c *openai.Conversation) (string, error) {
	m := x.model
	if m.Template == nil {
		return "", &dynamo.Error{Kind: dynamo.KindInvalid, Param: "messages", Code: "no_chat_template", Message: fmt.Sprintf("model %s has no chat template; use /v1/completions, or serve it with --chat-template FILE", m.Card.Model)}
	}
	start := time.Now()
	in := chat.Input{
		AddGenerationPrompt:  c.AddGenerationPrompt.Or(!c.ContinueFinal),
		ContinueFinalMessage: c.ContinueFinal,
		Now:                  x.arrived,
	}
	template, err := m.Template.Choose(false)
	if err != nil {
		return "", err
	}
	if in.Messages, err = messages(c.Messages, template.ContentParts()); err != nil {
		return "", err
	}
	if in.Documents, err = optionalJSON("documents", c.Documents); err != nil {
		return "", err
	}
	if in.Vars, err = m.variables(c); err != nil {
		return "", err
	}
	text, err := template.Render(nil, &in, chat.DefaultLimits())
	x.s.metrics.templateTime.Observe(time.Since(start).Seconds())
	if err != nil {
		return "", err
	}
	return unsafe.String(unsafe.SliceData(text), len(text)), nil // nobody else holds text
}

// messages builds the template's view of a conversation. Lists of text parts stay
// lists where the template walks over parts, and are joined by newlines, as in
// vLLM, where it does not.
func messages(ms []openai.Message, parts bool) (chat.Value, error) {
	list := make([]chat.Value, len(ms))
	for i := range ms {
		m := &ms[i]
		if m.Plain {
			list[i] = chat.NewDict(2).Set("role", chat.String(m.Role)).Set("content", chat.String(m.Text)).Value()
			continue
		}
		v, err := chat.ParseJSON(m.Raw)
		if err != nil {
			return v, fmt.Errorf("messages[%d]: %w", i, err)
		}
		d, ok := v.AsDict()
		if !ok {
			panic("BUG: a decoded message is not an object")
		}
		if m.Parts != nil {
			d.Set("content", content(m.Parts, parts))
		}
		parseArguments(d)
		list[i] = v
	}
	return chat.List(list...), nil
}

func content(texts []string, parts bool) chat.Value {
	if !parts {
		return chat.String(strings.Join(texts, "\n"))
	}
	list := make([]chat.Value, len(texts))
	for i, text := range texts {
		list[i] = chat.NewDict(2).Set("type", chat.String("text")).Set("text", chat.String(text)).Value()
	}
	return chat.List(list...)
}

// parseArguments replaces the arguments of a message's tool calls, which clients
// send as JSON in a string, by the object itself where they are one: templates
// print them with tojson, as vLLM and transformers expect.
func parseArguments(message *chat.Dict) {
	calls, _ := message.Get("tool_calls")
	list, _ := calls.AsList()
	for _, call := range list {
		d, _ := call.AsDict()
		f, _ := d.Get("function")
		function, ok := f.AsDict()
		if !ok {
			continue
		}
		a, _ := function.Get("arguments")
		text, ok := a.AsString()
		if !ok {
			continue
		}
		if text == "" {
			text = "{}"
		}
		if v, err := chat.ParseJSON([]byte(text)); err == nil {
			if _, object := v.AsDict(); object {
				function.Set("arguments", v)
			}
		}
	}
}

// optionalJSON parses a field that goes to the template as it is.
func optionalJSON(field string, raw []byte) (chat.Value, error) {
	if len(raw) == 0 {
		return chat.Value{}, nil
	}
	v, err := chat.ParseJSON(raw)
	if err != nil {
		return v, fmt.Errorf("%s: %w", field, err)
	}
	return v, nil
}

// variables are the model's, with what the request adds.
func (m *served) variables(c *openai.Conversation) (*chat.Dict, error) {
	if len(c.Kwargs) == 0 && c.ReasoningEffort == "" {
		return m.Vars, nil
	}
	kwargs, err := optionalJSON("chat_template_kwargs", c.Kwargs)
	if err != nil {
		return nil, err
	}
	vars := chat.NewDict(8)
	copyInto := func(d *chat.Dict) {
		for i := range d.Len() {
			key, value := d.At(i)
			if name, ok := key.AsString(); ok {
				vars.Set(name, value)
			}
		}
	}
	if m.Vars != nil {
		copyInto(m.Vars)
	}
	if c.ReasoningEffort != "" {
		vars.Set("reasoning_effort", chat.String(c.ReasoningEffort))
	}
	if d, ok := kwargs.AsDict(); ok {
		copyInto(d)
	}
	return vars, nil
}

// encode turns text into ids. field is what a fault is blamed on.
func (x *exchange) encode(field, text string, addSpecial bool) ([]dynamo.TokenID, error) {
	m := x.model
	if len(text) > m.maxTextBytes {
		return nil, &dynamo.Error{
			Kind: dynamo.KindInvalid, Param: field, Code: "context_length_exceeded",
			Message: fmt.Sprintf("the prompt has %d bytes of text, far more than this model's context of %d tokens can hold; shorten the prompt", len(text), m.Card.ContextLength),
		}
	}
	start := time.Now()
	ids := x.s.cache.Encode(make([]dynamo.TokenID, 0, len(text)/4+8), m.Tokenizer, x.namespace, text, tokenizer.EncodeOptions{AddSpecial: addSpecial})
	x.s.metrics.tokenizerTime.Observe(time.Since(start).Seconds())
	return ids, nil
}

// conversation returns the ids of a conversation's prompt.
func (x *exchange) conversation(c *openai.Conversation, addSpecial bool) ([]dynamo.TokenID, error) {
	// Life 3: chat renders the template; the tokenizer encodes, and does not encode again what it has seen of the conversation
	text, err := x.render(c)
	if err != nil {
		return nil, err
	}
	return x.encode("messages", text, addSpecial)
}
