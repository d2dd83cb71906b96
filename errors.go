package dynamo

import (
	"context"
	"errors"
	"time"
)

// Kind is the one thing callers branch on. Kinds are append-only: their numbers
// travel.
type Kind uint8

// The kinds of error.
const (
	KindInternal    Kind = iota // a bug, or something nobody foresaw
	KindInvalid                 // the caller's input is wrong; a retry will not help
	KindNotFound                // no such model, endpoint, block
	KindExhausted               // a limit is reached; try later
	KindUnavailable             // nobody can serve this at the moment
	KindCancelled               // the caller went away
	KindDeadline                // too late
	KindCorrupt                 // bytes are not what they claim to be
)

// KindInfo is a row of the one table that maps kinds to the outside.
type KindInfo struct {
	Name       string // metric label and rpc code
	HTTPStatus int
}

var kinds = [...]KindInfo{
	KindInternal:    {"internal", 500},
	KindInvalid:     {"invalid", 400},
	KindNotFound:    {"not_found", 404},
	KindExhausted:   {"exhausted", 429},
	KindUnavailable: {"unavailable", 503},
	KindCancelled:   {"cancelled", 499},
	KindDeadline:    {"deadline", 504},
	KindCorrupt:     {"corrupt", 500},
}

// Info returns the kind's row; an unknown kind is internal.
func (k Kind) Info() KindInfo {
	if int(k) >= len(kinds) {
		return kinds[KindInternal]
	}
	return kinds[k]
}

// String returns the kind's name.
func (k Kind) String() string { return k.Info().Name }

// Error is an error with a kind. Message is written for the person who has to
// act on it: it says what is wrong and what to do.
type Error struct {
	Kind    Kind
	Message string
	// Param names the offending field of the request, if one is.
	Param string
	// Code is a stable machine-readable word beneath the kind, such as
	// "context_length_exceeded"; empty for none.
	Code string
	// RetryAfter is a hint with KindExhausted and KindUnavailable; 0 is none.
	RetryAfter time.Duration
	// Err is the cause, or nil.
	Err error
}

// Error returns the message and the cause.
func (e *Error) Error() string {
	switch {
	case e.Err == nil:
		return e.Message
	case e.Message == "":
		return e.Err.Error()
	}
	return e.Message + ": " + e.Err.Error()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf finds the kind of err: the outermost Error in its chain, the context
// errors, or internal. A nil error has no kind and must not be asked.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.Canceled):
		return KindCancelled
	case errors.Is(err, context.DeadlineExceeded):
		return KindDeadline
	}
	return KindInternal
}
