package chat

import (
	"strings"
)

// parseTemplate parses and binds a template.
func parseTemplate(source string) (*Template, error) {
	tokens, err := lex(source)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	body, err := p.statements()
	if err != nil {
		return nil, err
	}
	b := &binder{contexts: map[string]int{}}
	t := &Template{source: source, body: body, parts: walksContent(body)}
	t.fn, t.enter = b.template(body)
	if b.err != nil {
		return nil, b.err
	}
	t.context = b.context
	for _, name := range t.context {
		t.known = append(t.known, globals[name])
	}
	return t, nil
}

// Render appends the prompt to dst. On an error dst comes back as it was; the
// error is a *dynamo.Error of KindInvalid, with CodeTemplate over a
// *TemplateError, or with CodeLimit.
func (t *Template) Render(dst []byte, in *Input, l Limits) ([]byte, error) {
	messages, err := conversation(in)
	if err != nil {
		return dst, renderError(err)
	}
	final := ""
	if in.ContinueFinalMessage {
		if messages, final, err = continued(messages, in, t.source); err != nil {
			return dst, renderError(err)
		}
	}
	r := &run{
		t: t, input: in, out: dst, limit: len(dst) + l.OutputBytes, most: l.OutputBytes,
		steps: l.Steps, deep: l.Depth,
		context: make([]Value, len(t.context)+t.fn.slots),
	}
	r.stack = r.first[:0]
	for i, name := range t.context {
		r.context[i] = r.variable(name, messages, t.known[i])
	}
	// The template's own slots follow the context in one array.
	n := len(t.context)
	r.f = &activation{slots: r.context[n:]}
	r.context = r.context[:n:n]
	r.load(t.enter)
	if _, err = r.body(t.body); err == nil && in.ContinueFinalMessage {
		err = r.cutContinued(len(dst), final)
	}
	if err != nil {
		return dst, renderError(err)
	}
	return r.out, nil
}

// variable finds a variable of the context; known is the global of its name.
func (r *run) variable(name string, messages, known Value) Value {
	switch name {
	case "messages":
		return messages
	case "tools":
		return orNone(r.input.Tools)
	case "documents":
		return orNone(r.input.Documents)
	case "add_generation_prompt":
		return Bool(r.input.AddGenerationPrompt)
	}
	if v, ok := r.input.Vars.Get(name); ok {
		return v
	}
	return known
}

func orNone(v Value) Value {
	if v.k == kMissing {
		return None()
	}
	return v
}

// reasoningFields are the names a message's reasoning goes by; the first is the
// one that templates read.
var reasoningFields = [...]string{"reasoning_content", "thinking", "reasoning"}

// conversation checks the input and gives the messages the form transformers
// gives them.
func conversation(in *Input) (Value, error) {
	if in.Messages.k != kList {
		return Value{}, fault("messages must be a list")
	}
	items := in.Messages.items()
	if len(items) == 0 {
		return Value{}, fault("Cannot apply chat template to an empty conversation. Provide at least one message.")
	}
	if in.AddGenerationPrompt && in.ContinueFinalMessage {
		return Value{}, fault("continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when you want the model to continue the final message, and add_generation_prompt when you want to add a header that will prompt it to start a new assistant message instead.")
	}
	if !dicts(in.Tools) {
		return Value{}, fault("tools must be a list of objects")
	}
	if !dicts(in.Documents) {
		return Value{}, fault("documents must be a list of objects with 'title' and 'text' keys")
	}
	changed := false
	for i, m := range items {
		if m.k != kDict {
			return Value{}, fault("messages must be objects; number %d is of type %s", i, m.typeName())
		}
		d, ok := normalMessage(m.dict())
		if !ok {
			continue
		}
		if !changed {
			changed = true
			items = append([]Value{}, items...)
		}
		items[i] = d.Value()
	}
	if !changed {
		return in.Messages, nil
	}
	return List(items...), nil
}

// dicts reports whether v is absent or a list of dicts.
func dicts(v Value) bool {
	if v.k == kMissing || v.k == kNone {
		return true
	}
	if v.k != kList {
		return false
	}
	for _, item := range v.items() {
		if item.k != kDict {
			return false
		}
	}
	return true
}

// normalMessage returns a copy without the keys whose value is None and with
// reasoning under all of its names; changed is false if m is so already.
func normalMessage(m *Dict) (d *Dict, changed bool) {
	var reasoning Value
	for _, field := range reasoningFields {
		if v, ok := m.Get(field); ok && v.k != kNone {
			reasoning = v
			break
		}
	}
	for _, e := range m.entries {
		changed = changed || e.value.k == kNone
	}
	if reasoning.k == kMissing && !changed {
		return nil, false
	}
	d = NewDict(m.Len() + 2)
	_, own := m.Get("thinking")
	if reasoning.k != kMissing {
		d.add(String("thinking"), reasoning)
	}
	for _, e := range m.entries {
		switch {
		case e.value.k == kNone:
		case own && reasoning.k != kMissing && e.key.k == kString && e.key.str() == "thinking":
			d.entries[0].value = e.value
		default:
			d.add(e.key, e.value)
		}
	}
	if reasoning.k != kMissing {
		d.Set("reasoning_content", reasoning)
	}
	return d, true
}

// continueTag marks where the last message ends, as in transformers.
const continueTag = "CONTINUE_FINAL_MESSAGE_TAG "

// continued returns the messages with the tag at the end of the last one's
// content, and the content as it was.
func continued(messages Value, in *Input, source string) (Value, string, error) {
	items := append([]Value{}, messages.items()...)
	last := items[len(items)-1].dict()
	content, ok := last.Get("content")
	if !ok {
		return Value{}, "", fault("continue_final_message is set but the final message has no \"content\" to continue!")
	}
	if !strings.Contains(source, "content") {
		return Value{}, "", fault("continue_final_message is set to \"content\" but this is not an accepted field in the chat_template")
	}
	copied := NewDict(last.Len())
	for _, e := range last.entries {
		copied.add(e.key, e.value)
	}
	final := ""
	switch content.k {
	case kString:
		final = content.str()
		copied.Set("content", String(final+continueTag))
	case kList:
		parts := append([]Value{}, content.items()...)
		at := len(parts) - 1
		var text Value
		for ; at >= 0; at-- {
			if d, ok := parts[at].AsDict(); ok {
				if text, ok = d.Get("text"); ok {
					break
				}
			}
		}
		if at < 0 || text.k != kString {
			return Value{}, "", fault("continue_final_message is set but we could not find any text to continue in the final message!")
		}
		part := NewDict(2)
		for _, e := range parts[at].dict().entries {
			part.add(e.key, e.value)
		}
		final = text.str()
		part.Set("text", String(final+continueTag))
		parts[at] = part.Value()
		copied.Set("content", List(parts...))
	default:
		return Value{}, "", fault("can only concatenate str (not \"%s\") to str", content.typeName())
	}
	items[len(items)-1] = copied.Value()
	return List(items...), final, nil
}

// cutContinued cuts the prompt, which begins at start, off where the last
// message ends.
func (r *run) cutContinued(start int, final string) error {
	prompt := string(r.out[start:])
	at := strings.LastIndex(prompt, strings.TrimSpace(continueTag))
	if at < 0 || !strings.Contains(prompt, trimLeftSpace(trimRightSpace(final))) {
		return fault("continue_final_message is set but the final message does not appear in the chat after applying the chat template! This can happen if the chat template deletes portions of the final message. Please verify the chat template and final message in your chat to ensure they are compatible.")
	}
	if strings.HasPrefix(prompt[at:], continueTag) {
		r.out = r.out[:start+at]
		return nil
	}
	// The template trims its messages.
	r.out = r.out[:start+len(trimRightSpace(prompt[:at]))]
	return nil
}
