// Package disagg serves answers in two parts: one engine computes the prompt and
// draws the first id, another goes on with the KV that the first one keeps. Its
// Engine stands above the routers of the two kinds of workers and below
// engine.Migrate; package node builds it.
//
// Laws, beside those of engine.Engine:
//   - The answer is what either side alone would have given: the second is handed the
//     ids of the first as Request.Resume. A prefill side that ends with word of its KV
//     and draws no id leaves all of them to the second.
//   - What fails before the first id is the prefill side's own affair: the decode side
//     then serves the whole request, and what it says of it counts. After the first
//     id a failure is the request's, and whoever is above may go on elsewhere.
//   - The prefill side keeps the KV until the decode side has begun to answer, which
//     it does when it needs it no more, or until the request is over.
//   - Where there is somebody on both sides, whoever is asked (Config.Split) decides whether
//     a request is served in two parts. A request that comes with word of its KV is not.
//   - Whatever ends the request ends both sides before the sequence ends.
//   - Usage.Cached is what the side said that computed the prompt.
//
// A request costs one goroutine, while the prefill side is told that its part is
// over; it ends before the sequence does.
package disagg

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/tokens"
)

// Config says who serves which part.
type Config struct {
	// Prefill serves requests with dynamo.Request.Prefill, Decode all others. Both
	// serve whole requests. No default.
	Prefill, Decode engine.Engine
	// HasPrefill and HasDecode say whether there is anybody on a side at the moment.
	// While there is nobody on one, the other serves whole requests; while there is
	// nobody on either, Decode is asked, which may wait. They must not block. Nil: always.
	HasPrefill, HasDecode func() bool
	// Split says whether a request is served in two parts, where there is somebody on
	// either side; requests that are not go to Decode. The context is the one to go on
	// with. Nil: all are.
	Split func(ctx context.Context, r *dynamo.Request) (context.Context, bool)
	// Moved hears how long it took from the word where the KV of a request is, which Split
	// had a context for, until the decode side went on with it. Nil: nobody does.
	Moved func(ctx context.Context, took time.Duration)
	// Logger is told, at its debug level, of requests that the decode side serves for
	// the prefill side; nil discards.
	Logger *slog.Logger
	// Metrics counts; nil does not.
	Metrics *Metrics
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	if c.Prefill == nil || c.Decode == nil {
		return errors.New("disaggregation needs an engine for each of its two parts")
	}
	return nil
}

// Engine serves answers in two parts. It is safe for concurrent use.
type Engine struct {
	config Config
	log    *slog.Logger
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine; the error lists the faults of c.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return &Engine{config: c, log: obs.For(c.Logger, "disagg")}, nil
}

// Generate implements engine.Engine.
func (e *Engine) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		prefill := e.config.HasPrefill == nil || e.config.HasPrefill()
		decode := e.config.HasDecode == nil || e.config.HasDecode()
		apart := prefill && decode && len(r.Handover) == 0 // or its KV is somewhere already
		if apart {
			r = tokens.Share(r) // both sides' routers ask who holds it
			if e.config.Split != nil {
				ctx, apart = e.config.Split(ctx, r)
			}
		}
		h := handoff{e: e, ctx: ctx, r: r, yield: yield}
		switch {
		case apart:
			h.run()
		case prefill && !decode:
			h.prefillAlone()
		default:
			e.config.Metrics.count(pathOf(prefill))
			e.config.Decode.Generate(ctx, r)(yield)
		}
	}
}

// handoff is one request that is served in two parts.
type handoff struct {
	e     *Engine
	ctx   context.Context
	r     *dynamo.Request
	yield func(dynamo.Chunk, error) bool

	ids    []dynamo.TokenID // r.Resume and what the prefill side drew
	where  []byte           // the KV is
	cached int              // of the prompt, as the prefill side said
	ended  bool             // the prefill side has said all, and keeps nothing for the sake of its sequence
	over   bool             // the caller has the end of the answer, or wants no more
}

// run serves the request.
func (h *handoff) run() {
	// Life 5: disagg has the prompt computed by one worker, and the answer goes on at another, which takes the KV from there
	q := *PromptOf(h.r)
	q.Prefill = true
	next, stop := iter.Pull2(h.e.config.Prefill.Generate(engine.WithPrefill(h.ctx), &q))
	ended := make(chan struct{})
	release := sync.OnceFunc(func() {
		// A worker may take a step to let go, for which an answer under way has no time.
		go func() { // ends when the worker has, or is known not to answer
			defer close(ended)
			stop()
		}()
	})
	defer func() {
		release()
		<-ended
	}()
	err := h.prefill(next)
	switch {
	case h.over:
		h.e.config.Metrics.count(pathBoth)
	case err != nil && h.ctx.Err() != nil:
		h.yield(dynamo.Chunk{}, engine.ContextError(h.ctx))
	default:
		if h.where == nil || h.ended {
			release() // nothing is kept there, or not for this
		}
		h.decode(err, release)
	}
}

// PromptOf is r as the routers of prefill workers are asked about it.
func PromptOf(r *dynamo.Request) *dynamo.Request {
	if r.Routing == nil {
		return r
	}
	q, g := *r, *r.Routing
	g.Worker, g.Rank = g.PrefillWorker, g.PrefillRank
	q.Routing = &g
	return &q
}

// prefillAlone has the whole request served by the prefill side, or by the decode
// side if there is nobody any more before that has answered.
func (h *handoff) prefillAlone() {
	began := false
	for chunk, err := range h.e.config.Prefill.Generate(h.ctx, h.r) {
		if err != nil && !began && gone(err) && h.ctx.Err() == nil {
			h.decode(err, func() {})
			return
		}
		if !began {
			h.e.config.Metrics.count(pathPrefill)
		}
		began = true
		if !h.yield(chunk, err) {
			return
		}
	}
}

// gone reports whether err says that there is nobody who could serve a request: none is
// there, or all stayed full for as long as that side waits, which is not the request's
// own patience.
func gone(err error) bool {
	_, lost := engine.Lost(err)
	var e *dynamo.Error
	return lost || errors.As(err, &e) && (e.Code == engine.CodeNoWorker || e.Kind == dynamo.KindExhausted)
}

// prefill takes what the prefill side has to say, until it has said where the KV is.
// The error is why it will not say it.
func (h *handoff) prefill(next func() (dynamo.Chunk, error, bool)) error {
	for {
		chunk, err, more := next()
		switch {
		case err != nil:
			return err
		case !more:
			return nil
		}
		h.ids = append(h.ids, chunk.Tokens...)
		if chunk.Cached > 0 {
			h.cached = chunk.Cached
		}
		if chunk.Finish != dynamo.FinishNone {
			h.cached, h.ended = chunk.Usage.Cached, true
		}
		h.where = slices.Clone(chunk.Handover)
		h.over = h.complete(&chunk)
		if !h.over {
			chunk.Finish, chunk.Usage, chunk.Handover = dynamo.FinishNone, dynamo.Usage{}, nil
		}
		if !empty(&chunk) && !h.yield(chunk, nil) {
			h.over = true
		}
		if h.over || h.where != nil {
			return nil
		}
	}
}

// complete reports whether a chunk of the prefill side is the last of the answer.
func (h *handoff) complete(c *dynamo.Chunk) bool {
	if c.Finish == dynamo.FinishNone || len(c.Handover) > 0 {
		return false
	}
	// A side that hands over nothing and stops short of the length says no more than
	// that it has done its part; whether the context is full the decode side knows.
	return c.Finish == dynamo.FinishStop || len(h.r.Resume)+len(h.ids) >= h.r.MaxTokens
}

// decode has the rest of the answer computed by the decode side, and calls begun when
// that answers. failure is why the prefill side has not done its part, if it has not.
func (h *handoff) decode(failure error, begun func()) {
	q := *h.r
	apart := len(h.ids) > 0 || h.where != nil
	if apart {
		h.e.config.Metrics.count(pathBoth)
		q.Handover = h.where
	} else {
		h.e.config.Metrics.count(pathFallback)
		h.e.log.LogAttrs(h.ctx, slog.LevelDebug, "prompt not computed apart", slog.String(obs.KeyRequest, string(h.r.ID)), slog.Any(obs.KeyError, failure))
	}
	if len(h.ids) > 0 { // otherwise the decode side's are the only ones
		q.Resume, q.Sampling.PromptLogprobs = slices.Concat(h.r.Resume, h.ids), false
	}
	asked := time.Now()
	for chunk, err := range h.e.config.Decode.Generate(h.ctx, &q) {
		if err != nil {
			h.yield(dynamo.Chunk{}, err)
			return
		}
		begun()
		if h.where != nil && h.e.config.Moved != nil {
			h.e.config.Moved(h.ctx, time.Since(asked))
		}
		h.where = nil
		if len(h.ids) > 0 {
			chunk.PromptLogprobs = nil
		}
		if apart {
			chunk.Cached = 0
			if chunk.Finish != dynamo.FinishNone {
				chunk.Usage.Cached = h.cached
			}
		}
		if !empty(&chunk) && !h.yield(chunk, nil) {
			return
		}
	}
}

// empty reports whether nothing is left of a chunk for the caller.
func empty(c *dynamo.Chunk) bool {
	return len(c.Tokens) == 0 && c.Text == "" && c.Finish == dynamo.FinishNone && len(c.PromptLogprobs) == 0 && c.Cached == 0 && len(c.Handover) == 0
}
