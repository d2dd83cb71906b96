package perfmodel

import (
	"fmt"

	"github.com/dynamo-go/dynamo"
)

// invalid reports what is wrong with field of a model, a file or a log.
func invalid(field, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if field != "" {
		message = field + ": " + message
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Param: field, Message: message}
}
