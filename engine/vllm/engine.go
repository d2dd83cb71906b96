package vllm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/kvwire"
	"github.com/dynamo-go/dynamo/obs"
)

// Engine is a vLLM server as an engine.Engine. Ready, Run and Close are called one
// after another, everything else at any time after Ready.
type Engine struct {
	config    Config
	log       *slog.Logger
	transport *http.Transport
	client    *http.Client
	events    sources // where a server publishes that does not say so itself
	process   *process
	plan      plan // how the process is started
	backoff   backoff

	found      atomic.Pointer[discovered]
	noPriority atomic.Bool // the server refuses priorities
	miscounts  atomic.Bool // the server counts other ids than it sends
	keepsNone  atomic.Bool // the server was asked to keep KV for another, and has not, or not as could be told
	down       atomic.Bool // the supervised server has ended and is not ready again
	deserted   atomic.Bool // nobody listens where the server was
	asked      atomic.Uint64
	tally      tally
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine; it starts nothing. The error lists the faults of c.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: askTimeout}).DialContext
	}
	e := &Engine{config: c, log: obs.For(c.Logger, "vllm")}
	e.transport = &http.Transport{
		DialContext: dial, DisableCompression: true, IdleConnTimeout: idleConnection,
		MaxIdleConns: maxIdle, MaxIdleConnsPerHost: maxIdle, TLSHandshakeTimeout: askTimeout,
		ReadBufferSize: readBuffer, TLSClientConfig: c.TLS,
	}
	e.client = &http.Client{Transport: e.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	e.events = sources{c.EventsEndpoint, c.ReplayEndpoint, c.Topic}
	e.backoff = backoff{min: c.RestartMin, max: c.RestartMax, calm: c.RestartCalm}
	return e, nil
}

// sources are the endpoints of rank 0 where the server does not say.
type sources struct{ endpoint, replay, topic string }

func (s sources) forRank(rank int, base string) Source {
	k := kvwire.Source{Endpoint: reach(s.endpoint, base), ReplayEndpoint: reach(s.replay, base), Topic: s.topic}.ForRank(rank)
	return Source{rank, k.Endpoint, k.ReplayEndpoint, k.Topic}
}

// Ready waits until the server answers and finds out what it is; with a Command it
// starts the server first. It must succeed before Card, Info, Run and Generate are
// asked. Once it has, it returns at once.
func (e *Engine) Ready(ctx context.Context) error {
	if e.found.Load() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, e.config.ReadyTimeout, &dynamo.Error{
		Kind: dynamo.KindUnavailable, Message: fmt.Sprintf("the vLLM server was not ready within %v", e.config.ReadyTimeout),
	})
	defer cancel()
	var d *discovered
	var err error
	if e.config.Command.Path != "" {
		d, err = e.launch(ctx)
	} else {
		e.config.Progress("waiting for " + e.config.URL)
		d, err = e.await(ctx, strings.TrimRight(e.config.URL, "/"), nil)
	}
	if err != nil {
		return err
	}
	e.found.Store(d)
	i := &d.info
	e.log.Info("vLLM server found", obs.KeyAddress, d.base, "version", i.Version, obs.KeyModel, i.Model, "dtype", i.Dtype,
		"context", i.ContextLength, "block_size", i.BlockSize, "kv_blocks", i.KVBlocks, "tokens_in_out", i.TokensInOut, "event_sources", len(i.Sources), "adapters", len(i.Adapters))
	for _, note := range i.Notes {
		e.log.Warn("vLLM server: "+note, obs.KeyAddress, d.base)
	}
	return nil
}

// await looks at the server until it answers, will not do, gone is closed or ctx
// ends.
func (e *Engine) await(ctx context.Context, base string, gone <-chan struct{}) (*discovered, error) {
	var last error
	for pause := waitMin; ; pause = min(2*pause, waitMax) {
		d, err := e.discover(ctx, base)
		if ctx.Err() == nil || last == nil {
			last = err // the end of ctx says nothing of the server
		}
		if err == nil || ctx.Err() == nil && dynamo.KindOf(err) == dynamo.KindInvalid {
			return d, err
		}
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
			continue
		case <-gone:
			wait.Stop()
			return nil, err
		case <-ctx.Done():
			wait.Stop()
		}
		return nil, notReady(ctx, base, last)
	}
}

// notReady is the error of a wait that ctx has ended; last is what the last look
// brought.
func notReady(ctx context.Context, base string, last error) error {
	cause := engine.ContextError(ctx)
	var e *dynamo.Error
	if !errors.As(cause, &e) || e.Kind == dynamo.KindCancelled {
		return cause
	}
	return &dynamo.Error{Kind: e.Kind, Message: fmt.Sprintf("%s; the last answer of %s", e.Message, base), Err: last}
}

// Card says what the server serves and what of it this package can do.
func (e *Engine) Card() engine.Card { return e.must().card }

// Info says what the server is.
func (e *Engine) Info() Info { return e.must().info }

func (e *Engine) setDown(down bool) { e.down.Store(down) }

func (e *Engine) must() *discovered {
	d := e.found.Load()
	if d == nil {
		panic("BUG: vllm: asked before Ready has succeeded")
	}
	return d
}

// Run keeps the engine going until ctx ends: it supervises the process, follows the
// events and reads the metrics. It ends the process that Ready has started. An
// error before ctx ends says that the server cannot be kept running.
func (e *Engine) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.Ready(ctx); err != nil {
		return err
	}
	parent := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	part := func(run func(context.Context) error) {
		all.Go(func() {
			if err := run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	part(e.poll)
	if e.config.Command.Path != "" {
		part(e.supervise)
	}
	if e.config.Events != nil {
		for _, s := range e.must().info.Sources {
			part(func(ctx context.Context) error { return e.follow(ctx, s) })
		}
	}
	<-ctx.Done()
	all.Wait()
	if parent.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// Close ends what Ready has started, for a caller that does not come to Run, and the
// connections to the server. It is of no effect after Run.
func (e *Engine) Close() error {
	var err error
	if e.process != nil {
		err = e.process.stop(e.config.StopTimeout)
		e.process = nil
	}
	e.transport.CloseIdleConnections()
	return err
}
