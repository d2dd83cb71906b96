package event

import (
	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// errStopped is a consumer that has had enough.
var errStopped = &dynamo.Error{Kind: dynamo.KindCancelled, Message: "the subscriber has stopped"}

func invalid(message string) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: message}
}

func corrupt(message string) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: message}
}

// lost is the error of a source that is not there.
func lost(message string) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: message}
}
