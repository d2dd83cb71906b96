package nats

import (
	"errors"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// errStopped is a consumer that has had enough.
var errStopped = errors.New("the subscriber has stopped")

// lost is the error of a source that is not heard of.
func lost(message string, err error) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: message, Err: err}
}
