package trace

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
)

// at says where in a file a fault is.
type at struct {
	what string // "line" or "item"
	n    int
}

func (a at) String() string { return fmt.Sprintf("%s %d", a.what, a.n) }

// fault is an error about a field of a line; no field is the whole line.
func fault(where at, field, format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	if field != "" {
		message = field + ": " + message
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Param: field, Message: where.String() + ": " + message}
}

// unsorted is the error of a line that is earlier than the one before it.
func unsorted(where, before at, millis, last float64) error {
	return fault(where, "timestamp", "%v ms is before the %v ms of %v; the trace has to be sorted (--sort), as what a recorder wrote always has: it writes a request when it ends", millis, last, before)
}

// jsonFault names the field of a decoding error.
func jsonFault(where at, err error) error {
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		field := ""
		for name := range semantic.JSONPointer.Tokens() {
			if field = name; strings.Trim(name, "0123456789") != "" {
				break // what comes before is a place in a list
			}
		}
		if semantic.Err != nil {
			return fault(where, field, "%v", semantic.Err)
		}
		return fault(where, field, "a JSON %s is not what belongs here, %s", semantic.JSONKind, plain(semantic))
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		return fault(where, "", "not JSON at byte %d: %v", syntactic.ByteOffset, syntactic.Err)
	}
	return fault(where, "", "%v", err)
}

// plain says what a field takes.
func plain(e *json.SemanticError) string {
	if e.GoType == nil {
		return "a number or text"
	}
	switch e.GoType.Kind().String() {
	case "slice":
		return "a list"
	case "string":
		return "text"
	case "struct":
		return "an object"
	}
	return "a number"
}
