package remote

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// Engine is a worker's engine, seen from here. It is safe for concurrent use.
type Engine struct {
	peer   *rpc.Peer
	card   engine.Card
	config Config
	log    *slog.Logger
	debug  bool
}

var _ engine.Engine = (*Engine)(nil)

// New returns the engine of the worker that p connects to, which has said that
// its engine has this card. It starts nothing; somebody runs p.
func New(p *rpc.Peer, card engine.Card, c Config) *Engine {
	e := &Engine{peer: p, card: card, config: c}
	e.log = obs.For(c.Logger, "remote").With(obs.KeyWorker, c.Worker, "epoch", c.Epoch)
	e.debug = e.log.Enabled(context.Background(), slog.LevelDebug)
	return e
}

// Card says what the worker's engine serves.
func (e *Engine) Card() engine.Card { return e.card }

// Generate implements engine.Engine.
func (e *Engine) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		var span *obs.Span
		if e.config.Tracer != nil {
			ctx, span = e.config.Tracer.Start(ctx, "remote.generate", slog.String(obs.KeyRequest, string(r.ID)), slog.String(obs.KeyWorker, e.config.Worker.String()))
		}
		err := e.run(ctx, r, yield)
		span.End(err)
		if e.debug {
			e.log.Debug("request ended", obs.KeyRequest, r.ID, obs.KeyError, err)
		}
	}
}

// run serves one request; the error, which is yielded already, is for the span.
func (e *Engine) run(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) error {
	ctx, deadline, cancel := bounded(ctx, r.Deadline)
	defer cancel()
	if ctx.Err() != nil {
		err := engine.ContextError(ctx)
		yield(dynamo.Chunk{}, err)
		return err
	}
	// Life 6: remote opens a stream; what is left of the deadline, the cancel and the trace context travel with it
	method := methodGenerate
	if r.Lend { // a worker that does not know it is not to take it for a request for an answer
		method = methodLend
	}
	s, err := e.peer.Open(ctx, rpc.Call{Method: method, Request: appendRequest(nil, r), Deadline: deadline})
	if err != nil {
		if ctx.Err() != nil {
			err = engine.ContextError(ctx)
		}
		yield(dynamo.Chunk{}, err)
		return err
	}
	a := answer{e: e, s: s, r: r, decoder: newChunkDecoder(r)}
	defer a.end()
	for {
		chunk, err := a.next(ctx)
		if err != nil {
			yield(dynamo.Chunk{}, err)
			return err
		}
		last := chunk.Finish != dynamo.FinishNone
		a.finished = a.finished || last
		if !yield(*chunk, nil) || last {
			return nil
		}
	}
}

// bounded ends ctx at the request's deadline, and returns the nearer one of it
// and ctx's own.
func bounded(ctx context.Context, deadline time.Time) (context.Context, time.Time, context.CancelFunc) {
	own, ok := ctx.Deadline()
	if deadline.IsZero() || ok && !deadline.Before(own) {
		return ctx, own, func() {}
	}
	ctx, cancel := context.WithDeadlineCause(ctx, deadline, engine.DeadlineError(nil))
	return ctx, deadline, cancel
}

// answer is the client's side of one request.
type answer struct {
	e        *Engine
	s        *rpc.Stream
	r        *dynamo.Request
	decoder  chunkDecoder
	finished bool // the last chunk has come
	over     bool // nothing is left to do
}

// next returns the next chunk, whose slices are valid until the next call.
func (a *answer) next(ctx context.Context) (*dynamo.Chunk, error) {
	for {
		b, err := a.s.Recv()
		switch {
		case ctx.Err() != nil:
			return nil, engine.ContextError(ctx)
		case err == io.EOF: // itself: as the cause of a loss it is no good end
			return nil, &dynamo.Error{Kind: dynamo.KindInternal, Message: "the worker ended the answer without a reason; see its log"}
		case err != nil:
			return nil, err
		}
		whole, err := a.decoder.decode(b)
		if err != nil {
			return nil, err
		}
		if a.decoder.hasLoad && a.e.config.OnLoad != nil {
			a.e.config.OnLoad(a.decoder.load)
		}
		if whole {
			return &a.decoder.chunk, nil
		}
	}
}

// end returns when the worker has ended the request, or is known not to answer.
func (a *answer) end() {
	if a.over {
		return
	}
	a.over = true
	if !a.finished {
		a.s.Cancel(nil)
	}
	select {
	case <-a.s.Done():
		return
	default:
	}
	timer := time.NewTimer(a.e.config.CancelWait)
	defer timer.Stop()
	select {
	case <-a.s.Done():
	case <-timer.C:
		a.s.Cancel(nil)
		a.e.log.Warn("the worker does not confirm the end of a request", obs.KeyRequest, a.r.ID, obs.KeyDuration, a.e.config.CancelWait)
	}
}
