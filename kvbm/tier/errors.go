package tier

import (
	"errors"
	"fmt"

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
