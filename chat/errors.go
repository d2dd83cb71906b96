package chat

import (
	"fmt"
	"strconv"

	"github.com/dynamo-go/dynamo"
)

// Codes of the *dynamo.Error that wraps a failure.
const (
	CodeTemplate = "chat_template_error" // the template cannot render this conversation
	CodeLimit    = "chat_template_limit" // the render ran into its Limits
	CodeSyntax   = "chat_template_syntax"
)

// TemplateError is a template's failure in the template's or jinja2's words. It
// is the cause within a *dynamo.Error of KindInvalid; find it with errors.As.
type TemplateError struct {
	// Message is what the template raised, or what jinja2 and Python say.
	Message string
	// Line is the line of the template, from 1; 0 when the fault is not in one.
	Line int
	// Raised says that the template itself refused, by raise_exception.
	Raised bool
}

// Error returns the message, with the line unless the template itself spoke.
func (e *TemplateError) Error() string {
	if e.Raised || e.Line == 0 {
		return e.Message
	}
	return e.Message + " (template line " + strconv.Itoa(e.Line) + ")"
}

// fault makes a template error whose line is filled in on the way out.
func fault(format string, args ...any) error {
	return &TemplateError{Message: fmt.Sprintf(format, args...)}
}

// limitError says which limit ended a render.
type limitError struct{ what string }

func (e *limitError) Error() string { return e.what }

// atLine adds the line of the innermost statement to an error that has none.
func atLine(err error, line int) error {
	if e, ok := err.(*TemplateError); ok && e.Line == 0 {
		e.Line = line
	}
	return err
}

// renderError gives an error of a render its kind.
func renderError(err error) error {
	if e, ok := err.(*limitError); ok {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Code: CodeLimit, Param: "messages",
			Message: "the chat template was stopped: " + e.what + "; send a shorter conversation or serve the model with another --chat-template"}
	}
	if e, ok := err.(*TemplateError); ok && e.Raised {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Code: CodeTemplate, Param: "messages",
			Message: "the model's chat template refuses this conversation", Err: err}
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Code: CodeTemplate, Param: "messages",
		Message: "the model's chat template cannot render this conversation", Err: err}
}

// syntaxError is an error of a template's text.
func syntaxError(line int, format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Code: CodeSyntax,
		Message: "the chat template does not compile",
		Err:     &TemplateError{Message: fmt.Sprintf(format, args...), Line: line}}
}
