package remoteapi

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/go-json-experiment/json/jsontext"
)

// post sends r and returns the answer when its stream has begun; w is armed until
// then.
func (e *Engine) post(ctx context.Context, r *dynamo.Request, w *watch) (*http.Response, error) {
	// The transport is asked without a client around it: there is nothing to follow
	// or to remember.
	response, err := e.client.Transport.RoundTrip(e.request(ctx, r))
	w.disarm()
	if err != nil {
		if ctx.Err() != nil {
			return nil, engine.ContextError(ctx)
		}
		return nil, e.unreachable(err)
	}
	if response.StatusCode != http.StatusOK {
		err = e.refused(&watched{response.Body, w}, response)
	} else if kind := mediaType(response.Header.Get("Content-Type")); kind != streamType[0] {
		err = e.corrupt("it answers with content type " + strconv.Quote(said(kind)) + " instead of a stream of events")
	}
	if err != nil {
		_ = response.Body.Close() // what it could say no longer matters
		if ctx.Err() != nil {
			err = engine.ContextError(ctx)
		}
		return nil, err
	}
	return response, nil
}

// mediaType is a content type without its parameters.
func mediaType(s string) string {
	s, _, _ = strings.Cut(s, ";")
	return strings.ToLower(strings.TrimSpace(s))
}

// The headers of every request. Nobody writes to them.
var (
	jsonType   = []string{"application/json"}
	streamType = []string{"text/event-stream"}
	// Asked again is as good as asked once until an answer has begun; so net/http may
	// do it where the server closed the connection meanwhile. It does not send this.
	idempotent = []string{}
)

// request is what is sent for r.
func (e *Engine) request(ctx context.Context, r *dynamo.Request) *http.Request {
	body := e.body(r)
	q := e.ask.WithContext(ctx)
	q.Header = make(http.Header, 6)
	e.sign(q)
	q.Header["Content-Type"], q.Header["Accept"], q.Header["Idempotency-Key"] = jsonType, streamType, idempotent
	q.Header["X-Request-Id"] = []string{string(r.ID)}
	if trace := obs.Trace(ctx); trace != "" {
		q.Header["Traceparent"] = []string{trace}
	}
	q.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	q.Body, q.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return q
}

func (e *Engine) sign(q *http.Request) {
	if e.key != nil {
		q.Header["Authorization"] = e.key
	}
}

// body is the request as JSON. Fields that are not in OpenAI's API are there only
// where the request needs them, because some servers refuse those they do not know.
func (e *Engine) body(r *dynamo.Request) []byte {
	b := make([]byte, 0, 256+5*len(r.Tokens))
	b = append(b, `{"model":`...)
	b = quote(b, e.model)
	b = append(b, `,"prompt":`...)
	b = e.prompt(b, r.Tokens)
	b = append(b, `,"stream":true,"stream_options":{"include_usage":true},"max_tokens":`...)
	b = strconv.AppendInt(b, int64(engine.Room(&e.card, r)), 10)
	b = sampling(b, &r.Sampling, r.Choice)
	if r.MinTokens > 0 {
		b = strconv.AppendInt(append(b, `,"min_tokens":`...), int64(r.MinTokens), 10)
	}
	if r.IgnoreEOS {
		b = append(b, `,"ignore_eos":true`...)
	}
	if len(r.StopTokens) > 0 {
		b = ids(append(b, `,"stop_token_ids":`...), r.StopTokens)
	}
	if r.Guided.Kind != "" {
		b = restriction(b, &r.Guided)
	}
	if r.Namespace != "" && e.salts.Load() {
		b = quote(append(b, `,"cache_salt":`...), r.Namespace)
	}
	return append(b, '}')
}

// prompt appends the prompt as text, or as ids if no text can be made.
func (e *Engine) prompt(b []byte, tokens []dynamo.TokenID) []byte {
	if e.config.Decode == nil {
		return ids(b, tokens)
	}
	for _, id := range e.config.Begin {
		if len(tokens) > 1 && tokens[0] == id {
			tokens = tokens[1:]
			break
		}
	}
	return quote(b, e.config.Decode(tokens))
}

// sampling appends the fields of s. The seed travels only if it is the client's:
// servers decode faster without one. The choices of one request draw differently.
func sampling(b []byte, s *dynamo.Sampling, choice int) []byte {
	b = number(append(b, `,"temperature":`...), s.Temperature)
	if s.TopP > 0 && s.TopP < 1 {
		b = number(append(b, `,"top_p":`...), s.TopP)
	}
	if s.Seeded {
		b = strconv.AppendUint(append(b, `,"seed":`...), (s.Seed+uint64(choice))&math.MaxInt64, 10)
	}
	for _, f := range [...]struct {
		name  string
		value float32
	}{{"presence_penalty", s.PresencePenalty}, {"frequency_penalty", s.FrequencyPenalty}, {"min_p", s.MinP}} {
		if f.value != 0 {
			b = number(append(append(append(b, ',', '"'), f.name...), '"', ':'), f.value)
		}
	}
	if s.RepetitionPenalty != 0 && s.RepetitionPenalty != 1 {
		b = number(append(b, `,"repetition_penalty":`...), s.RepetitionPenalty)
	}
	if s.TopK > 0 {
		b = strconv.AppendInt(append(b, `,"top_k":`...), int64(s.TopK), 10)
	}
	for i, bias := range s.LogitBias {
		if i == 0 {
			b = append(b, `,"logit_bias":{`...)
		} else {
			b = append(b, ',')
		}
		b = strconv.AppendUint(append(b, '"'), uint64(bias.ID), 10)
		b = number(append(b, '"', ':'), bias.Bias)
	}
	if len(s.LogitBias) > 0 {
		b = append(b, '}')
	}
	return b
}

func number(b []byte, x float32) []byte { return strconv.AppendFloat(b, float64(x), 'g', -1, 32) }

func ids(b []byte, list []dynamo.TokenID) []byte {
	b = append(b, '[')
	for i, id := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(id), 10)
	}
	return append(b, ']')
}

// quote appends s as a JSON string. The text of ids may begin or end within a
// character, which becomes U+FFFD: the error says no more than that.
func quote(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}
