package frontend

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/openai"
)

// httpError is an error whose status is not that of its kind.
type httpError struct {
	status int
	err    *dynamo.Error
}

// Error returns the message.
func (e *httpError) Error() string { return e.err.Error() }

// Unwrap returns the error with its kind.
func (e *httpError) Unwrap() error { return e.err }

// publicError returns the status and what a client may read of err. Whatever has
// no kind is a bug or a broken machine, and its text stays in the log.
func publicError(err error) (int, *dynamo.Error) {
	var e *dynamo.Error
	if !errors.As(err, &e) {
		switch kind := dynamo.KindOf(err); kind {
		case dynamo.KindCancelled:
			e = &dynamo.Error{Kind: kind, Message: "the request was cancelled"}
		case dynamo.KindDeadline:
			e = &dynamo.Error{Kind: kind, Message: "the request took longer than allowed"}
		default:
			e = &dynamo.Error{Kind: kind, Message: "something went wrong in the server; its log says more"}
		}
	}
	var h *httpError
	if errors.As(err, &h) {
		return h.status, e
	}
	if e.RetryAfter == 0 && e.Kind == dynamo.KindUnavailable {
		retry := *e
		retry.RetryAfter = retryAfter
		e = &retry
	}
	return e.Kind.Info().HTTPStatus, e
}

// fail answers with err, unless the answer has begun; then it says nothing.
func (x *exchange) fail(err error) {
	status, e := publicError(err)
	x.failure = err
	x.ended(e.Kind)
	if e.Kind == dynamo.KindInternal || e.Kind == dynamo.KindCorrupt {
		x.s.log.Error("request failed", obs.KeyRequest, x.id, obs.KeyModel, x.label, obs.KeyError, err)
	}
	if x.clientGone() {
		return
	}
	h := x.w.Header()
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(e.RetryAfter.Seconds())))))
	}
	if status == http.StatusRequestEntityTooLarge || status == http.StatusServiceUnavailable {
		h.Set("Connection", "close")
	}
	x.reply(status, openai.AppendError(nil, e))
}

// clientGone reports whether nobody is left to read the answer.
func (x *exchange) clientGone() bool {
	return x.r.Context().Err() != nil && !errors.Is(context.Cause(x.r.Context()), errDrained)
}

// errDrained ends the requests that a drain could not wait for.
var errDrained = &dynamo.Error{Kind: dynamo.KindUnavailable, Code: "shutting_down", Message: "the server is shutting down and could not finish this request; send it again, elsewhere or later"}

// errDraining refuses requests while the server shuts down.
var errDraining = &dynamo.Error{Kind: dynamo.KindUnavailable, Code: "shutting_down", RetryAfter: time.Second, Message: "the server is shutting down and takes no new requests; send this one elsewhere or later"}

// errNoModel refuses requests while nobody serves anything: whatever the request
// asks for, a worker may bring it in a moment.
var errNoModel = &dynamo.Error{Kind: dynamo.KindUnavailable, Param: "model", Code: engine.CodeNoWorker, RetryAfter: retryAfter, Message: "no worker is registered here yet, so no model is served; start one with `dynamo worker MODEL`, or try again in a moment"}

// errCrowded refuses requests before their body is read.
var errCrowded = &dynamo.Error{Kind: dynamo.KindExhausted, Code: "queue_full", RetryAfter: time.Second, Message: "the server handles as many requests as it can; try again later"}
