package vllm

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// lost is the error of a server that failed, not of the request.
func lost(err error, format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: fmt.Sprintf(format, args...), Err: err}
}

// corrupt is the error of an answer that is none.
func corrupt(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the vLLM server " + fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf(format, args...)}
}

// stalled is the cause a request is cancelled with whose server says nothing.
func stalled(after time.Duration) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeStalled, Message: fmt.Sprintf("the vLLM server has said nothing for %v", after)}
}

// deadWords are found in the errors of a server whose engine process has died:
// the server itself lives on for a moment.
var deadWords = []string{"EngineCore encountered an issue", "EngineDeadError", "engine is dead", "Engine loop", "engine core proc", "died unexpectedly"}

// error makes a server's fault an error with a kind. The message of the server goes
// to whoever sent the request only where the request is at fault.
func (f *fault) error(retryAfter string) error {
	e := &dynamo.Error{Kind: dynamo.KindInternal, Message: fmt.Sprintf("the vLLM server answered %d: %s", f.status, f.message)}
	switch {
	case f.dead():
		return lost(e, "the vLLM server's engine has died")
	case f.status == http.StatusBadRequest, f.status == http.StatusUnprocessableEntity, f.status == http.StatusRequestEntityTooLarge:
		e.Kind, e.Param = dynamo.KindInvalid, f.param
		if strings.Contains(f.message, "maximum context length") || strings.Contains(f.message, "max_model_len") {
			e.Code = "context_length_exceeded"
		}
	case f.status == http.StatusNotFound:
		e.Kind = dynamo.KindNotFound
	case f.status == http.StatusUnauthorized:
		e.Kind, e.Message = dynamo.KindUnavailable, "the vLLM server wants an API key, or another one: --engine-api-key"
	case f.status == http.StatusForbidden:
		e.Kind, e.Message = dynamo.KindUnavailable, e.Message+" (check that the server runs with --enable-scale-out)"
	case f.status == http.StatusTooManyRequests:
		e.Kind, e.Code = dynamo.KindExhausted, engine.CodeRefused
	case f.status == http.StatusServiceUnavailable:
		e.Kind, e.Code = dynamo.KindUnavailable, engine.CodeRefused
	case f.status == http.StatusBadGateway, f.status == http.StatusGatewayTimeout:
		e.Kind, e.Code = dynamo.KindUnavailable, engine.CodeLost
	}
	if n, err := strconv.Atoi(retryAfter); err == nil && n > 0 && n < 3600 {
		e.RetryAfter = time.Duration(n) * time.Second
	}
	return e
}

func (f *fault) dead() bool {
	if f.status < http.StatusInternalServerError {
		return false
	}
	for _, w := range deadWords {
		if strings.Contains(f.message, w) || strings.Contains(f.kind, w) {
			return true
		}
	}
	return false
}

// ended says why a connection brought no more: the caller's own end, or the loss of
// the server.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return engine.ContextError(ctx)
	}
	return lost(err, "the connection to the vLLM server is lost")
}
