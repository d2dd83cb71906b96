package frontend

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/tokens"
)

// exchange is one POST request and its answer.
type exchange struct {
	s        *Server
	w        http.ResponseWriter
	rc       *http.ResponseController
	r        *http.Request
	arrived  time.Time
	endpoint string
	id       string // 32 hexadecimal digits, ours; no other request has it
	name     string // what the client calls it, in x-request-id; empty: nothing
	seed     uint64 // random, for requests without one

	ctx    context.Context // of the generation: ends with the client, the deadline or the drain
	cancel context.CancelFunc

	tenant    string
	namespace string
	deadline  time.Time

	model   *served
	adapter string // of the model; empty: none
	label   string
	stream  bool
	done    bool // counted in the metrics

	span    *obs.Span
	status  int   // of the answer; 0 if none has begun
	failure error // why the request did not succeed
}

// begin begins the handling of a request. On an error it is already answered.
// finish must be called in either case.
func (s *Server) begin(w http.ResponseWriter, r *http.Request, endpoint string) (*exchange, bool) {
	x := &exchange{s: s, w: w, r: r, rc: http.NewResponseController(w), arrived: time.Now(), endpoint: endpoint, label: unknownModel, ctx: r.Context(), cancel: func() {}}
	handled := s.handling.Add(1)
	var random [24]byte
	_, _ = rand.Read(random[:]) // never fails
	x.id = hex.EncodeToString(random[:16])
	for _, b := range random[16:] {
		x.seed = x.seed<<8 | uint64(b)
	}
	external := x.id
	if x.name = clientName(r); x.name != "" {
		external = x.name
	}
	w.Header()["X-Request-Id"] = []string{external}
	x.trace()
	if s.log.Enabled(x.ctx, slog.LevelDebug) {
		s.log.LogAttrs(x.ctx, slog.LevelDebug, "request arrived", slog.String(obs.KeyRequest, x.id), slog.String("endpoint", endpoint), slog.String("client_req", external), slog.String(obs.KeyAddress, r.RemoteAddr))
	}
	var err error
	switch {
	case s.draining.Load():
		err = errDraining
	case handled > int64(s.config.MaxRunning+s.config.MaxQueue+handlersBeyond):
		err = errCrowded
	default:
		err = x.authenticate()
	}
	if err != nil {
		x.fail(err)
		return x, false
	}
	return x, true
}

// trace begins the request's span, below the client's if it sent one along. The
// engine finds the trace in the context, whether or not it is recorded here.
func (x *exchange) trace() {
	if parent := x.r.Header.Get("Traceparent"); parent != "" && obs.ValidTrace(parent) {
		x.ctx = obs.WithTrace(x.ctx, parent)
	}
	x.ctx, x.span = x.s.config.Tracer.Start(x.ctx, x.endpoint, slog.String(obs.KeyRequest, x.id))
}

// finish ends the handling.
func (x *exchange) finish() {
	x.cancel()
	x.span.Set(slog.String(obs.KeyModel, x.label), slog.Int(obs.KeyStatus, x.status))
	x.span.End(x.failure)
	if x.s.log.Enabled(x.ctx, slog.LevelDebug) {
		x.logEnd()
	}
	x.s.handling.Add(-1)
}

func (x *exchange) logEnd() {
	attrs := []slog.Attr{slog.String(obs.KeyRequest, x.id), slog.String(obs.KeyModel, x.label), slog.Int(obs.KeyStatus, x.status), slog.Duration(obs.KeyDuration, time.Since(x.arrived))}
	if x.failure != nil {
		attrs = append(attrs, slog.Any(obs.KeyError, x.failure))
	}
	x.s.log.LogAttrs(x.ctx, slog.LevelDebug, "request ended", attrs...)
}

// clientName returns the client's own id of a request; empty if it sends none that
// can be taken over: printable ASCII, of at most maxRequestID bytes. It names the
// request in the answer's header, in the log and in GET /v1/requests/{id}/explain,
// and nothing else: two requests of one name are two.
func clientName(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	if len(id) > maxRequestID {
		return ""
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c >= 0x7f {
			return ""
		}
	}
	return id
}

func (x *exchange) authenticate() error {
	if err := x.s.origin.Check(x.r); err != nil {
		return &httpError{http.StatusForbidden, &dynamo.Error{Kind: dynamo.KindInvalid, Code: "cross_origin", Message: "a web page of another origin may not use this server"}}
	}
	var err error
	x.tenant, err = x.s.tenant(x.r)
	var unknown *httpError
	if errors.As(err, &unknown) {
		x.w.Header().Set("WWW-Authenticate", "Bearer")
	}
	return err
}

// body reads the request's body, taking memory as bytes arrive rather than as the
// header claims.
func (x *exchange) body() ([]byte, error) {
	limit := x.s.config.BodyLimitBytes
	if x.r.ContentLength > limit {
		return nil, x.tooLarge()
	}
	if err := x.rc.SetReadDeadline(time.Now().Add(bodyTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, &dynamo.Error{Kind: dynamo.KindCancelled, Message: "read the body", Err: err}
	}
	size := int64(bodyStep)
	if n := x.r.ContentLength; n >= 0 {
		size = min(size, n+1) // one more, to meet the end without growing
	}
	body := make([]byte, 0, size)
	r := http.MaxBytesReader(x.w, x.r.Body, limit)
	for {
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, x.bodyError(err)
		}
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
	}
	_ = x.rc.SetReadDeadline(time.Time{}) // without support none was set
	return body, nil
}

func (x *exchange) tooLarge() error {
	return &httpError{http.StatusRequestEntityTooLarge, &dynamo.Error{
		Kind: dynamo.KindInvalid, Code: "request_too_large",
		Message: fmt.Sprintf("the body is larger than %d bytes, the limit of this server (--body-limit)", x.s.config.BodyLimitBytes),
	}}
}

func (x *exchange) bodyError(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return x.tooLarge()
	case x.r.Context().Err() != nil:
		return &dynamo.Error{Kind: dynamo.KindCancelled, Message: "the client went away while it sent the body", Err: err}
	}
	return &httpError{http.StatusBadRequest, &dynamo.Error{Kind: dynamo.KindInvalid, Code: "incomplete_body", Message: "the body did not arrive completely", Err: err}}
}

// serveBy finds the model and with it whose cache the request may share.
func (x *exchange) serveBy(name, salt string) error {
	m, adapter, err := x.s.model(name)
	if err != nil {
		return err
	}
	x.model, x.adapter, x.label = m, adapter, m.Card.Model
	x.namespace = tokens.Namespace(x.s.config.ClusterKey, x.tenant, "", salt)
	return nil
}

// limitTime sets the deadline and the context of the generation.
func (x *exchange) limitTime() {
	if x.r.Context().Value(baseKey{}) != x.s {
		// In somebody else's http.Server a drain does not end the request's context.
		ctx, cancel := context.WithCancelCause(x.ctx)
		stop := context.AfterFunc(x.s.base, func() { cancel(context.Cause(x.s.base)) })
		x.ctx, x.cancel = ctx, func() { stop(); cancel(nil) }
	}
	if limit := x.s.config.RequestTimeout; limit > 0 {
		x.deadline = x.arrived.Add(limit)
	}
}

// gateway is the engine behind an admission gate: it yields one empty chunk, and
// the request runs while that is looked at.
type gateway struct{}

// Generate implements engine.Engine.
func (gateway) Generate(context.Context, *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) { yield(dynamo.Chunk{}, nil) }
}

// admitted runs work once the model's gate lets the request through.
func (x *exchange) admitted(work func() error) error {
	// Life 2: frontend admits: a bounded queue with a deadline; 429 when it is full, 503 while draining
	r := dynamo.Request{ID: dynamo.RequestID(x.id), Deadline: x.deadline}
	for _, err := range x.model.gate.Generate(x.ctx, &r) {
		if err != nil {
			return err
		}
		x.span.Event("admitted")
		return work()
	}
	return errDraining // the gate yields a place or an error; being here means neither
}

// reply writes a whole answer.
func (x *exchange) reply(status int, body []byte) {
	h := x.w.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.status = status
	_ = x.rc.SetWriteDeadline(time.Now().Add(x.s.config.WriteTimeout)) // without support there is no limit
	x.w.WriteHeader(status)
	if _, err := x.w.Write(body); err != nil {
		x.s.log.Debug("client went away", obs.KeyRequest, x.id, obs.KeyError, err)
	}
	_ = x.rc.SetWriteDeadline(time.Time{}) // as above
}

var (
	jsonType  = []string{"application/json"}
	eventType = []string{"text/event-stream"}
	noCache   = []string{"no-cache"}
)

// ended counts the end of a request by an error.
func (x *exchange) ended(k dynamo.Kind) {
	if x.done {
		return
	}
	x.done = true
	x.s.metrics.failed(x.label, x.endpoint, x.stream, k)
	if k == dynamo.KindCancelled {
		x.s.metrics.disconnected.Inc()
	}
	if x.model != nil {
		x.model.metrics.duration.Observe(time.Since(x.arrived).Seconds())
	}
}
