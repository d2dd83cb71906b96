package remoteapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// Engine is a server, seen from here. It is safe for concurrent use.
type Engine struct {
	config  Config
	card    engine.Card
	base    string
	model   string // at the server
	client  http.Client
	own     *http.Transport // nil if the transport is the caller's
	ask     *http.Request   // what every request for an answer begins as
	key     []string        // the Authorization header; nil without a key
	log     *slog.Logger
	running atomic.Int64
	chunks  atomic.Uint64
	salts   atomic.Bool // the server keeps prompts of different salts apart
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine; the error lists the faults of c. It asks the server
// nothing, see Ready.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.EOS, c.Begin = slices.Clone(c.EOS), slices.Clone(c.Begin)
	e := &Engine{config: c, model: c.Model, log: obs.For(c.Logger, "remoteapi")}
	e.base, _ = c.base() // Validate has looked at it
	if e.model == "" {
		e.model = c.Name
	}
	identity := sha256.Sum256([]byte("openai " + e.model))
	e.card = engine.Card{
		Model: c.Name, Engine: "openai", Revision: hex.EncodeToString(identity[:]),
		ContextLength: c.ContextLength, BlockSize: c.BlockSize, VocabSize: c.VocabSize, EOS: c.EOS,
		MaxTopLogprobs: -1, Sampling: true, TextOnly: true, Guided: slices.Clone(guidedKinds),
	}
	if c.APIKey != "" {
		e.key = []string{"Bearer " + c.APIKey}
	}
	var err error
	if e.ask, err = http.NewRequest(http.MethodPost, e.base+"/completions", http.NoBody); err != nil {
		return nil, fmt.Errorf("--engine-url: %w", err)
	}
	e.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	e.client.Transport = c.Transport
	if c.Transport == nil {
		e.own = &http.Transport{
			Proxy: nil, DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
			ForceAttemptHTTP2: true, MaxIdleConns: maxIdle, MaxIdleConnsPerHost: maxIdle, IdleConnTimeout: time.Minute,
			TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes,
			ReadBufferSize: readBytes, TLSClientConfig: c.TLS,
		}
		e.client.Transport = e.own
	}
	return e, nil
}

// Card says what the engine serves.
func (e *Engine) Card() engine.Card { return e.card }

// Load says how many requests the server has of us.
func (e *Engine) Load() engine.Load {
	return engine.Load{Running: int(e.running.Load()), Steps: e.chunks.Load()}
}

// Close ends the connections that no request uses.
func (e *Engine) Close() {
	if e.own != nil {
		e.own.CloseIdleConnections()
	}
}

// Generate implements engine.Engine.
func (e *Engine) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		err := engine.Accept(ctx, &e.card, r)
		if err == nil {
			if engine.Room(&e.card, r) == 0 {
				yield(dynamo.Chunk{Choice: r.Choice, Finish: dynamo.FinishLength, Usage: dynamo.Usage{Prompt: len(r.Tokens)}}, nil)
				return
			}
			e.running.Add(1)
			err = e.run(ctx, r, yield)
			e.running.Add(-1)
		}
		if e.log.Enabled(ctx, slog.LevelDebug) {
			e.log.Debug("request ended", obs.KeyRequest, string(r.ID), obs.KeyError, err)
		}
		if err != nil {
			yield(dynamo.Chunk{}, err)
		}
	}
}

// run asks the server; an error it returns is not yielded yet.
func (e *Engine) run(caller context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) error {
	ctx, cancel := context.WithCancelCause(caller)
	defer cancel(nil)
	if !r.Deadline.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadlineCause(ctx, r.Deadline, engine.DeadlineError(nil))
		defer stop()
	}
	w := newWatch(e.config.Timeout, cancel)
	defer w.disarm()
	response, err := e.post(ctx, r, w)
	if err != nil {
		return err
	}
	a := newAnswer(e, r, response.Body, w)
	defer a.close()
	for {
		chunk, err := a.next()
		switch {
		case caller.Err() != nil:
			return engine.ContextError(caller)
		case chunk.Finish == dynamo.FinishNone && ctx.Err() != nil:
			return engine.ContextError(ctx)
		case err != nil:
			return err
		}
		e.chunks.Add(1)
		if !yield(chunk, nil) || chunk.Finish != dynamo.FinishNone {
			return nil
		}
	}
}
