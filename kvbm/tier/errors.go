package tier

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/dynamo-go/dynamo"
)

// errNotRunning is the answer of what needs a running Mover.
var errNotRunning = &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the KV tiers are not running yet, or not any more; try again"}

// corrupt is an error of bytes that are not what they should be.
func corrupt(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf(format, args...)}
}

// isCorrupt reports whether err is one of these.
func isCorrupt(err error) bool {
	var e *dynamo.Error
	return errors.As(err, &e) && e.Kind == dynamo.KindCorrupt
}

// notFound is the error of a Get of what is not there.
func notFound(what string) error {
	return &dynamo.Error{Kind: dynamo.KindNotFound, Message: what}
}

// advise says what to do about a file system that does not let a tier begin in the folder
// that a flag names.
func advise(err error, flag string) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return &dynamo.Error{Kind: dynamo.KindExhausted, Err: err, Message: "the file system is full; free some of it, or give another " + flag}
	case errors.Is(err, syscall.EROFS):
		return &dynamo.Error{Kind: dynamo.KindInvalid, Err: err, Message: "the file system is read-only; give a " + flag + " that can be written"}
	case errors.Is(err, fs.ErrPermission):
		return &dynamo.Error{Kind: dynamo.KindInvalid, Err: err, Message: "this user may not write there; change that, or give another " + flag}
	}
	return err
}
