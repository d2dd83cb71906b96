package chat

import (
	"time"
)

// Template is a compiled chat template. It may be rendered from any number of
// goroutines at once.
type Template struct {
	source  string
	body    []stmt
	fn      *scopeFunc
	enter   []load
	context []string // the variables it asks the context for
	known   []Value  // the globals among them
	parts   bool
}

// Input is what a template is rendered with.
type Input struct {
	// Messages is the conversation, a list of dicts; it must not be empty.
	Messages Value
	// Tools and Documents are lists of dicts, or None or the zero Value if there
	// are none: the template sees None then.
	Tools, Documents Value
	// AddGenerationPrompt asks for the opening of the assistant's turn.
	AddGenerationPrompt bool
	// ContinueFinalMessage leaves the last message open, to be continued. It
	// excludes AddGenerationPrompt.
	ContinueFinalMessage bool
	// Vars are further variables: bos_token, eos_token, chat_template_kwargs.
	// They cannot replace the fields above. May be nil.
	Vars *Dict
	// Now is the time that strftime_now prints, in its own location.
	Now time.Time
}

// Compile reads a template. An error is a *dynamo.Error of KindInvalid with
// CodeSyntax, over a *TemplateError that names the line.
func Compile(source string) (*Template, error) {
	if len(source) > maxSourceBytes {
		return nil, syntaxError(0, "it has %d bytes; at most %d are read", len(source), maxSourceBytes)
	}
	return parseTemplate(source)
}

// Source returns the text the template was compiled from.
func (t *Template) Source() string { return t.source }

// ContentParts reports whether the template walks over the parts of a message's
// content, so that a list of parts should be given to it as a list rather than
// flattened to a string. It is a look at the template's text, not a proof.
func (t *Template) ContentParts() bool { return t.parts }
