package openai

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// ChatRequest is the body of POST /v1/chat/completions.
type ChatRequest struct {
	Params
	Conversation

	// Logprobs asks for the logprob of each token, TopLogprobs for so many
	// alternatives.
	Logprobs    bool
	TopLogprobs int
}

// Conversation is the part of a request that a chat template turns into a
// prompt.
type Conversation struct {
	// Messages is the conversation, never empty.
	Messages []Message
	// Documents and Kwargs (chat_template_kwargs) go to the template as they are;
	// empty if absent.
	Documents, Kwargs jsontext.Value
	// ReasoningEffort goes to the template; empty if absent.
	ReasoningEffort string
	// AddGenerationPrompt opens the assistant's turn; not set, it is true unless
	// ContinueFinal.
	AddGenerationPrompt Optional[bool]
	// ContinueFinal leaves the last message open, for the model to continue.
	ContinueFinal bool

	hasTools   bool
	toolChoice string
	functions  string
}

// Message is one message of a conversation.
type Message struct {
	// Role is system, developer, user, assistant, tool or function.
	Role string
	// Text is the content where it is a string.
	Text string
	// Parts are the texts of the content where it is a list of parts; nil
	// otherwise.
	Parts []string
	// Plain says that role and Text are all there is to the message.
	Plain bool
	// Raw is the message as it was sent, valid JSON.
	Raw jsontext.Value
}

// roles are those OpenAI knows.
func knownRole(role string) bool {
	switch role {
	case "system", "developer", "user", "assistant", "tool", "function":
		return true
	}
	return false
}

// DecodeChat reads the body of a chat request. The result may share body's
// memory.
func DecodeChat(body []byte) (*ChatRequest, error) {
	r := &ChatRequest{Params: newParams()}
	err := decodeObject(body, func(d *decoder, name string) error {
		switch name {
		case "logprobs":
			return into(&r.Logprobs)(d.boolean())
		case "top_logprobs":
			return intoInt(&r.TopLogprobs)(d.integer(0, MaxTopLogprobs))
		case "echo", "suffix", "best_of":
			return refuseUnlessEmpty(d, name)
		}
		if known, err := r.Conversation.field(d, name); known {
			return err
		}
		if known, err := r.Params.field(d, name); known {
			return err
		}
		return r.keep(d, name)
	})
	if err != nil {
		return nil, err
	}
	if err := r.Params.check(); err != nil {
		return nil, err
	}
	if err := r.Conversation.check(len(r.TokenData) > 0); err != nil {
		return nil, err
	}
	switch {
	case r.TopLogprobs > 0 && !r.Logprobs:
		return nil, fault("top_logprobs", "top_logprobs is allowed only together with \"logprobs\": true")
	case r.rawPrompt:
		return nil, unsupported("nvext.use_raw_prompt", "send the prompt to /v1/completions instead")
	}
	return r, nil
}

// refuseUnlessEmpty refuses a field of the other route, unless it asks for
// nothing.
func refuseUnlessEmpty(d *decoder, name string) error {
	v, err := d.ReadValue()
	if err != nil || string(v) == "false" || string(v) == `""` || name == "best_of" && string(v) == "1" {
		return err
	}
	return unsupported(name, "leave it out")
}

// field reads the member called name if it belongs to the conversation.
func (c *Conversation) field(d *decoder, name string) (known bool, err error) {
	switch name {
	case "messages":
		return true, d.array(MaxMessages, "an array of messages", c.message)
	case "documents":
		if d.PeekKind() != '[' {
			return true, d.expect('[', "an array of documents")
		}
		return true, into(&c.Documents)(d.raw())
	case "chat_template_kwargs":
		if d.PeekKind() != '{' {
			return true, d.expect('{', "an object")
		}
		return true, into(&c.Kwargs)(d.raw())
	case "reasoning_effort":
		return true, into(&c.ReasoningEffort)(d.name())
	case "add_generation_prompt":
		return true, some(&c.AddGenerationPrompt)(d.boolean())
	case "continue_final_message":
		return true, into(&c.ContinueFinal)(d.boolean())
	case "chat_template":
		if err := d.SkipValue(); err != nil {
			return true, err
		}
		return true, unsupported("chat_template", "a request cannot bring its own template; start the server with --chat-template FILE")
	case "tools":
		return true, d.array(MaxParts, "an array of tools", func(d *decoder, _ int) error {
			c.hasTools = true
			return d.SkipValue()
		})
	case "tool_choice":
		return true, into(&c.toolChoice)(d.choice())
	case "function_call":
		return true, into(&c.functions)(d.choice())
	}
	return false, nil
}

// choice reads tool_choice: a word, or an object that names a function.
func (d *decoder) choice() (string, error) {
	if d.PeekKind() == '{' {
		return "function", d.SkipValue()
	}
	return d.name()
}

func (c *Conversation) check(tokens bool) error {
	switch {
	case len(c.Messages) == 0 && !tokens:
		return fault("messages", "messages is missing or empty; send at least one message")
	case c.hasTools && c.toolChoice != "none":
		return unsupported("tools", `set tool_choice to "none" or leave tools out`)
	case c.toolChoice != "" && c.toolChoice != "none" && c.toolChoice != "auto":
		return unsupported("tool_choice", "tools are not; leave it out")
	case c.functions != "" && c.functions != "none" && c.functions != "auto":
		return unsupported("function_call", "functions are not; leave it out")
	case c.ContinueFinal && c.AddGenerationPrompt.Or(false):
		return fault("continue_final_message", "continue_final_message and add_generation_prompt exclude one another")
	case c.ContinueFinal && len(c.Messages) == 0:
		return fault("continue_final_message", "continue_final_message needs messages")
	}
	return nil
}

// message reads one message.
func (c *Conversation) message(d *decoder, i int) error {
	start := d.InputOffset()
	m := Message{Plain: true}
	var content, extra bool
	err := d.object(func(d *decoder, name string) error {
		switch name {
		case "role":
			return into(&m.Role)(d.name())
		case "content":
			content = true
			return m.content(d)
		case "name", "tool_calls", "tool_call_id", "refusal", "reasoning_content", "reasoning":
			extra = true
			return d.SkipValue()
		case "audio", "function_call":
			if err := d.SkipValue(); err != nil {
				return err
			}
			return unsupported(d.param(), "leave it out")
		}
		extra = true
		return d.SkipValue()
	})
	if err != nil {
		return err
	}
	switch {
	case m.Role == "":
		return fault(d.param()+".role", "%s has no role", d.param())
	case !knownRole(m.Role):
		return fault(d.param()+".role", "%s.role is %q; it must be system, developer, user, assistant, tool or function", d.param(), shorten(m.Role))
	case !content && m.Role != "assistant":
		return fault(d.param()+".content", "%s has no content", d.param())
	}
	m.Plain = content && !extra && m.Parts == nil
	m.Raw = d.since(start)
	c.Messages = append(c.Messages, m)
	return nil
}

// content reads a string or a list of text parts.
func (m *Message) content(d *decoder) error {
	switch d.PeekKind() {
	case '"':
		return into(&m.Text)(d.text())
	case '[':
		m.Parts = []string{}
		return d.array(MaxParts, "a string or an array of parts", m.part)
	}
	return d.expect('"', "a string or an array of parts")
}

func (m *Message) part(d *decoder, _ int) error {
	var kind, text string
	var refusal bool
	err := d.object(func(d *decoder, name string) error {
		switch name {
		case "type":
			return into(&kind)(d.name())
		case "text":
			return into(&text)(d.text())
		case "refusal":
			refusal = true
			return into(&text)(d.text())
		}
		return d.SkipValue()
	})
	if err != nil {
		return err
	}
	switch {
	case kind == "text", kind == "" && !refusal, kind == "refusal" && refusal:
		m.Parts = append(m.Parts, text)
		return nil
	case strings.HasPrefix(kind, "image"), strings.HasPrefix(kind, "input_image"), strings.Contains(kind, "audio"), strings.Contains(kind, "video"), kind == "file":
		return unsupported(d.param(), "parts of type "+shorten(kind)+" are not understood by this model; send text")
	}
	return fault(d.param(), "%s has type %q; it must be text", d.param(), shorten(kind))
}
