package openai

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/go-json-experiment/json/jsontext"
)

// The types of error in OpenAI's answers.
const (
	TypeInvalid     = "invalid_request_error"
	TypeRateLimit   = "rate_limit_error"
	TypeServer      = "server_error"
	TypeUnavailable = "service_unavailable_error"
	TypeTimeout     = "timeout_error"
)

// ErrorType returns OpenAI's type for a kind of error.
func ErrorType(k dynamo.Kind) string {
	switch k {
	case dynamo.KindInvalid, dynamo.KindNotFound, dynamo.KindCancelled:
		return TypeInvalid
	case dynamo.KindExhausted:
		return TypeRateLimit
	case dynamo.KindUnavailable:
		return TypeUnavailable
	case dynamo.KindDeadline:
		return TypeTimeout
	}
	return TypeServer
}

// AppendError appends the body of an error answer,
// {"error":{"message","type","param","code"}}. Empty param and code are null. The
// code defaults to the kind's name.
func AppendError(dst []byte, e *dynamo.Error) []byte {
	dst = append(dst, `{"error":{"message":`...)
	dst = appendString(dst, e.Error())
	dst = append(dst, `,"type":"`...)
	dst = append(dst, ErrorType(e.Kind)...)
	dst = append(dst, `","param":`...)
	dst = appendStringOrNull(dst, e.Param)
	dst = append(dst, `,"code":`...)
	code := e.Code
	if code == "" && e.Kind != dynamo.KindInvalid {
		code = e.Kind.String()
	}
	dst = appendStringOrNull(dst, code)
	return append(dst, "}}"...)
}

// fault returns an error about a field of the request.
func fault(param, format string, args ...any) *dynamo.Error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Param: param, Message: fmt.Sprintf(format, args...)}
}

// unsupported returns the error of a known field that nothing executes yet.
func unsupported(param, what string) *dynamo.Error {
	e := fault(param, "%s is not supported by this server: %s", param, what)
	e.Code = "unsupported_parameter"
	return e
}

// syntax turns a fault of the JSON text into one with a kind and a place.
func syntax(err error) error {
	var known *dynamo.Error
	if errors.As(err, &known) {
		return err
	}
	var s *jsontext.SyntacticError
	switch {
	case errors.As(err, &s):
		param := paramOf(s.JSONPointer)
		where := ""
		if param != "" {
			where = " in " + param
		}
		reason := s.Err.Error()
		if errors.Is(s.Err, jsontext.ErrDuplicateName) {
			reason = "the object has this member twice"
		}
		e := fault(param, "the body is not valid JSON at byte %d%s: %s", s.ByteOffset, where, reason)
		e.Code = "invalid_json"
		return e
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e := fault("", "the body is not a complete JSON object; send Content-Type: application/json and a JSON object")
		e.Code = "invalid_json"
		return e
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the body cannot be read as JSON", Err: err}
}

// paramOf writes a JSON pointer as OpenAI writes a param: messages[0].content.
func paramOf(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if b.Len() > MaxNameBytes {
			break
		}
		if _, err := strconv.ParseUint(token, 10, 32); err == nil && b.Len() > 0 {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return strings.ToValidUTF8(b.String(), "�")
}
