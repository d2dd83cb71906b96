package engine

import (
	"context"
	"errors"

	"github.com/dynamo-go/dynamo"
)

// ContextError says why ctx ended, as an error with a kind: the cause it was
// cancelled with when that is a *dynamo.Error (so that whoever cancels can say,
// for example, that the server is stopping), KindDeadline when its time ran out,
// KindCancelled otherwise. It must be asked of an ended context only.
func ContextError(ctx context.Context) error {
	cause := context.Cause(ctx)
	var e *dynamo.Error
	switch {
	case errors.As(cause, &e):
		return cause
	case errors.Is(cause, context.DeadlineExceeded):
		return DeadlineError(cause)
	}
	return &dynamo.Error{Kind: dynamo.KindCancelled, Message: "the request was cancelled", Err: cause}
}

// DeadlineError is the error of a request whose deadline passed; cause may be
// nil.
func DeadlineError(cause error) error {
	return &dynamo.Error{Kind: dynamo.KindDeadline, Message: "the request's deadline passed before its answer was complete; allow more time or ask for fewer tokens", Err: cause}
}
