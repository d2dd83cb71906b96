package selection

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/openai"
)

// statusError is an error whose status is not that of its kind.
type statusError struct {
	status int
	err    *dynamo.Error
}

// Error returns the message.
func (e *statusError) Error() string { return e.err.Error() }

// Unwrap returns the error with its kind.
func (e *statusError) Unwrap() error { return e.err }

// fault is an error of a field.
func fault(param, format string, args ...any) *dynamo.Error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Param: param, Message: fmt.Sprintf(format, args...)}
}

// refuse answers with an error and returns its label. What has no kind is a bug or a
// broken machine, and its text stays in the log.
func (s *Server) refuse(w http.ResponseWriter, err error) string {
	var e *dynamo.Error
	if !errors.As(err, &e) {
		s.log.Error("request failed", obs.KeyError, err)
		e = &dynamo.Error{Kind: dynamo.KindOf(err), Message: "something went wrong in the server; its log says more"}
	}
	status := e.Kind.Info().HTTPStatus
	var own *statusError
	if errors.As(err, &own) {
		status = own.status
	}
	after := e.RetryAfter
	if after == 0 && (e.Kind == dynamo.KindUnavailable || e.Kind == dynamo.KindExhausted) {
		after = retryAfter
	}
	if after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(after.Seconds())))))
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	write(w, status, openai.AppendError(nil, e))
	return e.Kind.String()
}

// answer answers with v as JSON.
func (s *Server) answer(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return fmt.Errorf("write the answer: %w", err)
	}
	write(w, status, body)
	return nil
}

func write(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // without support there is none
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client went away; a lease ends what it has reserved
}

// syntax says what is wrong with a body, and where.
func syntax(err error) error {
	var known *dynamo.Error
	if errors.As(err, &known) {
		return err
	}
	var large *http.MaxBytesError
	var text *jsontext.SyntacticError
	var value *json.SemanticError
	switch {
	case errors.As(err, &large):
		return &statusError{http.StatusRequestEntityTooLarge, fault("", "the body is larger than %d bytes, the limit here", maxBodyBytes)}
	case errors.As(err, &value):
		param := paramOf(value.JSONPointer)
		if errors.Is(err, json.ErrUnknownName) {
			return fault(param, "there is no field %q here; leave it out, or correct its name", param)
		}
		return fault(param, "%s cannot be read: it is %s, and must be %s", quoted(param), kindOf(value), wanted(value))
	case errors.As(err, &text):
		e := fault(paramOf(text.JSONPointer), "the body is not valid JSON at byte %d: %v", text.ByteOffset, text.Err)
		e.Code = "invalid_json"
		return e
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		e := fault("", "the body is not a complete JSON object; send one with Content-Type: application/json")
		e.Code = "invalid_json"
		return e
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the body cannot be read", Err: err}
}

func quoted(param string) string {
	if param == "" {
		return "the body"
	}
	return param
}

func kindOf(e *json.SemanticError) string {
	if e.JSONKind == 0 {
		return "something else"
	}
	if e.JSONValue != nil && len(e.JSONValue) < shown {
		return string(e.JSONValue)
	}
	return "a " + e.JSONKind.String()
}

func wanted(e *json.SemanticError) string {
	if e.GoType == nil {
		return "something else"
	}
	switch k := e.GoType.Kind().String(); {
	case strings.HasPrefix(k, "uint"):
		return "an integer, not negative and not too large"
	case strings.HasPrefix(k, "int"):
		return "an integer, not too large"
	case strings.HasPrefix(k, "float"):
		return "a number"
	case k == "slice":
		return "an array"
	case k == "struct", k == "map":
		return "an object"
	case k == "ptr":
		return "a number or an object, as documented"
	default:
		return "a " + k
	}
}

// paramOf writes a JSON pointer as OpenAI writes a param: a[0].b.
func paramOf(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if b.Len() > shown {
			break
		}
		if _, err := strconv.ParseUint(token, 10, 32); err == nil && b.Len() > 0 {
			b.WriteString("[" + token + "]")
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(clip(token))
	}
	return strings.ToValidUTF8(b.String(), "\ufffd")
}

// clip keeps a message readable whatever was sent.
func clip(s string) string {
	if len(s) > shown {
		s = s[:shown] + "…"
	}
	return strings.ToValidUTF8(s, "\ufffd")
}
