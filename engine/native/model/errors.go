package model

import (
	"fmt"

	"github.com/dynamo-go/dynamo"
)

// invalid reports a model or argument that cannot be used.
func invalid(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
}

// corrupt reports a model whose parts contradict one another.
func corrupt(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf(format, args...)}
}
