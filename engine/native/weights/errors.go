package weights

import (
	"fmt"

	"github.com/dynamo-go/dynamo"
)

// redo is the advice that ends the message about a damaged file.
const redo = "the file is damaged or incomplete: download it again"

// corrupt reports bytes that are not what they claim to be.
func corrupt(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: fmt.Sprintf(format, args...)}
}

// invalid reports a sound file that cannot be used.
func invalid(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
}
