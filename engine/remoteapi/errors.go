package remoteapi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// errAborted: the server says that it gave the answer up.
var errAborted = errors.New("the server gave the answer up")

// said is what an error repeats of what a server sent: short, and printable.
func said(s string) string {
	cut := len(s) > maxSaid
	if cut {
		s = s[:maxSaid]
	}
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if cut {
		s += "…"
	}
	return strings.TrimSpace(s)
}

func (e *Engine) corrupt(what string) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the model's server at " + e.base + " does not keep to OpenAI's API: " + what}
}

// lost is the failure of the server, not of the request.
func (e *Engine) lost(message string, cause error) *dynamo.Error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: message, Err: cause}
}

func (e *Engine) unreachable(err error) error {
	return e.lost("the model's server at "+e.base+" cannot be reached; see that it runs and that --engine-url is right", err)
}

// refused makes an error of an answer other than 200.
func (e *Engine) refused(body io.Reader, r *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(body, maxErrorBytes)) // what has come is all there is
	if r.StatusCode >= 300 && r.StatusCode < 400 {
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("the model's server at %s redirects to %q; give the right --engine-url", e.base, said(r.Header.Get("Location")))}
	}
	return e.status(r.StatusCode, message(b), retryAfter(r.Header.Get("Retry-After"), time.Now()))
}

// failed makes an error of one that the stream tells of.
func (e *Engine) failed(v jsontext.Value) error {
	var body struct {
		Code jsontext.Value `json:"code"`
	}
	status := http.StatusInternalServerError
	if json.Unmarshal(v, &body) == nil {
		if n, err := strconv.Atoi(strings.Trim(string(body.Code), `"`)); err == nil && n >= 400 && n < 600 {
			status = n
		}
	}
	return e.status(status, message(fmt.Appendf(nil, `{"error":%s}`, v)), 0)
}

// status makes an error of a status and what the server said beside it.
func (e *Engine) status(status int, words string, retry time.Duration) error {
	server := "the model's server at " + e.base
	if words != "" {
		words = ": " + words
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		what := "lacks an API key; give one with --engine-api-key"
		if e.config.APIKey != "" {
			what = "was given an API key that it does not accept; see --engine-api-key"
		}
		return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: "engine_key_refused", Message: fmt.Sprintf("%s %s (status %d)%s", server, what, status, words)}
	case http.StatusNotFound:
		return &dynamo.Error{Kind: dynamo.KindNotFound, Code: "model_not_found", Message: fmt.Sprintf("%s knows no model %q, or has no completions at this address; see --engine-model and --engine-url%s", server, e.model, words)}
	case http.StatusTooManyRequests:
		return &dynamo.Error{Kind: dynamo.KindExhausted, Code: "engine_rate_limit", RetryAfter: max(retry, time.Second), Message: server + " takes no more requests for the moment; try again later" + words}
	case http.StatusRequestTimeout:
		return e.lost(server+" gave the request up"+words, nil)
	}
	if status >= 400 && status < 500 {
		code := ""
		if strings.Contains(words, "context length") || strings.Contains(words, "context size") || strings.Contains(words, "context_length") {
			code = "context_length_exceeded"
		}
		return &dynamo.Error{Kind: dynamo.KindInvalid, Code: code, Message: fmt.Sprintf("%s refuses the request (status %d)%s", server, status, words)}
	}
	err := e.lost(fmt.Sprintf("%s failed (status %d)%s", server, status, words), nil)
	err.RetryAfter = retry
	switch status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default: // what one server stumbles over may bring down the next, too
		err.Kind, err.Code = dynamo.KindInternal, ""
	}
	return err
}

// message finds the words in an error's body; servers differ in where they are.
func message(body []byte) string {
	var b struct {
		Error   jsontext.Value `json:"error"`
		Message string         `json:"message"`
		Detail  jsontext.Value `json:"detail"`
	}
	if json.Unmarshal(body, &b, jsontext.AllowDuplicateNames(true)) != nil {
		if strings.HasPrefix(strings.TrimSpace(string(body)), "<") {
			return "" // a page of HTML
		}
		return said(string(body))
	}
	var inner struct {
		Message string `json:"message"`
	}
	var text string
	switch {
	case json.Unmarshal(b.Error, &inner) == nil && inner.Message != "":
		return said(inner.Message)
	case json.Unmarshal(b.Error, &text) == nil && text != "":
		return said(text)
	case b.Message != "":
		return said(b.Message)
	case json.Unmarshal(b.Detail, &text) == nil && text != "":
		return said(text)
	}
	return said(string(body))
}

// retryAfter reads the header's seconds or date; 0 is none.
func retryAfter(s string, now time.Time) time.Duration {
	var d time.Duration
	if n, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32); err == nil {
		d = time.Duration(n) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		d = at.Sub(now)
	}
	return max(0, min(d, maxRetryAfter))
}
