package tokenizer

import (
	"fmt"

	"github.com/dynamo-go/dynamo"
)

// corrupt says that the bytes are not a tokenizer.
func corrupt(format string, args ...any) error {
	return &dynamo.Error{
		Kind:    dynamo.KindCorrupt,
		Message: "tokenizer is damaged or incomplete, fetch it again: " + fmt.Sprintf(format, args...),
	}
}

// unsupported says that the tokenizer is sound but asks for something this
// package does not do.
func unsupported(format string, args ...any) error {
	return &dynamo.Error{
		Kind:    dynamo.KindInvalid,
		Message: "tokenizer is not supported: " + fmt.Sprintf(format, args...) + "; use a model with a BPE tokenizer.json or GGUF",
		Code:    "unsupported_tokenizer",
	}
}
