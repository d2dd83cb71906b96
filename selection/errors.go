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

	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/openai"
)

// statuses are those of errors whose HTTP status is not that of their kind, by code.
var statuses = map[string]int{
	"already_reserved":   http.StatusConflict,
	"already_registered": http.StatusConflict,
	"body_too_large":     http.StatusRequestEntityTooLarge,
	"invalid_api_key":    http.StatusUnauthorized,
	"cross_origin":       http.StatusForbidden,
	"method_not_allowed": http.StatusMethodNotAllowed,
}

// statusOf is the HTTP status of an error.
func statusOf(e *dynamo.Error) int {
	if status, own := statuses[e.Code]; own {
		return status
	}
	return e.Kind.Info().HTTPStatus
}

// fault is an error of a field.
func fault(param, format string, args ...any) *dynamo.Error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Param: param, Message: fmt.Sprintf(format, args...)}
}

// public is an error as clients see it. What has no kind is a bug or a broken machine,
// and its text stays in the log.
func (s *Server) public(err error) *dynamo.Error {
	var e *dynamo.Error
	if !errors.As(err, &e) {
		s.log.Error("request failed", obs.KeyError, err)
		e = &dynamo.Error{Kind: dynamo.KindOf(err), Message: "something went wrong in the server; its log says more"}
	}
	if e.RetryAfter == 0 && (e.Kind == dynamo.KindUnavailable || e.Kind == dynamo.KindExhausted) {
		own := *e
		own.RetryAfter = retryAfter
		e = &own
	}
	return e
}

// refuse answers with an error over HTTP.
func refuse(w http.ResponseWriter, e *dynamo.Error) {
	status := statusOf(e)
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(e.RetryAfter.Seconds())))))
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	write(w, status, openai.AppendError(nil, e))
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
		return known
	}
	var large *http.MaxBytesError
	var text *jsontext.SyntacticError
	switch {
	case errors.As(err, &large):
		return errLarge
	case errors.As(err, &text) && !errors.Is(err, io.ErrUnexpectedEOF):
		e := fault(paramOf(text.JSONPointer), "the body is not valid JSON at byte %d: %v", text.ByteOffset, text.Err)
		e.Code = "invalid_json"
		return e
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errShort
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the body cannot be read", Err: err}
}

var (
	errShort = &dynamo.Error{Kind: dynamo.KindInvalid, Code: "invalid_json", Message: "the body is not a complete JSON object; send one with Content-Type: application/json"}
	errLarge = &dynamo.Error{Kind: dynamo.KindInvalid, Code: "body_too_large", Message: fmt.Sprintf("the body is larger than %d bytes, the limit here", maxBodyBytes)}
)

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
