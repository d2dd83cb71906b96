package remote

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

// Service offers an engine to the clients of this package. Register it once.
type Service struct {
	Engine engine.Engine
	Card   engine.Card
	// Load says how full the engine is; it is asked from the goroutines of
	// requests and must not block. Nil: answers carry no load.
	Load func() engine.Load
	// Admit is asked for each request before any work; its error refuses the
	// request. It is called from the readers of connections and must not block.
	// Nil admits all.
	Admit func() error
	// Begin is asked again in the request's own goroutine, before the request is
	// decoded, and its error refuses it: what it counts is exact, since Ended is
	// told of the end of each request that Begin let in, nil or why. Either may be
	// nil.
	Begin func() error
	Ended func(err error)
	// Artifacts are files by the SHA-256 of their bytes, in hexadecimal.
	Artifacts map[string]func() ([]byte, error)
	// Status answers FetchStatus, and Drain is called by the function Drain: it
	// begins to drain and returns at once. Either may be nil.
	Status func() Status
	Drain  func()
	// KV answers AskKV; nil: the worker has no KV tiers.
	KV func(ctx context.Context, command []byte) ([]byte, error)
	// Worker names the worker in logs and spans.
	Worker dynamo.WorkerID
	// Logger gets the requests at level debug, and panics; nil discards.
	Logger *slog.Logger
	// Tracer records a span for each request; nil records none.
	Tracer *obs.Tracer

	log   *slog.Logger
	debug bool
	files chan struct{}   // holds a token for each file that is read
	over  context.Context // ends with HandOver; guards every request
	end   context.CancelCauseFunc
}

// Register adds the methods to srv, before it serves.
func (s *Service) Register(srv *rpc.Server) {
	s.log = obs.For(s.Logger, "remote").With(obs.KeyWorker, s.Worker)
	s.debug = s.log.Enabled(context.Background(), slog.LevelDebug)
	s.files = make(chan struct{}, maxArtifacts)
	s.over, s.end = context.WithCancelCause(context.Background())
	srv.Handle(methodGenerate, rpc.Endpoint{Serve: s.generate, Admit: s.Admit})
	srv.Handle(methodLend, rpc.Endpoint{Serve: s.lend, Admit: s.Admit})
	srv.Handle(methodArtifact, rpc.Endpoint{Serve: s.artifact})
	srv.Handle(methodStatus, rpc.Endpoint{Serve: s.status})
	srv.Handle(methodDrain, rpc.Endpoint{Serve: s.drain})
	srv.Handle(methodKV, rpc.Endpoint{Serve: s.kv})
}

// HandOver ends all requests in progress, and those to come, with cause: where it
// has one of the codes of package engine, their clients go on elsewhere. It does
// not wait.
func (s *Service) HandOver(cause error) { s.end(cause) }

// generate answers one request.
func (s *Service) generate(ctx context.Context, stream *rpc.Stream) error {
	return s.serve(ctx, stream, false)
}

// lend answers one request for KV.
func (s *Service) lend(ctx context.Context, stream *rpc.Stream) error {
	return s.serve(ctx, stream, true)
}

func (s *Service) serve(ctx context.Context, stream *rpc.Stream, lend bool) (err error) {
	if s.Begin != nil {
		if err := s.Begin(); err != nil {
			return err
		}
	}
	if s.Ended != nil {
		defer func() { s.Ended(err) }()
	}
	r, err := parseRequest(stream.Request())
	if err != nil {
		return err
	}
	r.Deadline, _ = ctx.Deadline()
	r.Lend = lend
	if s.over.Err() != nil {
		return context.Cause(s.over)
	}
	// Cancelling the stream ends ctx, and Send where that waits for credit.
	defer context.AfterFunc(s.over, func() { stream.Cancel(context.Cause(s.over)) })()
	var span *obs.Span
	if s.Tracer != nil {
		ctx, span = s.Tracer.Start(ctx, "worker.generate", slog.String(obs.KeyRequest, string(r.ID)), slog.String(obs.KeyWorker, s.Worker.String()))
	}
	if s.debug {
		s.log.Debug("request begins", obs.KeyRequest, r.ID, obs.KeyTokens, len(r.Tokens))
	}
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("the engine panicked; the request fails", obs.KeyRequest, r.ID, obs.KeyError, fmt.Sprintf("%v\n%s", v, debug.Stack()))
			err = &dynamo.Error{Kind: dynamo.KindInternal, Message: "the engine met a bug while it served the request; see the worker's log"}
		}
		if err != nil && s.over.Err() != nil {
			err = handedOver(err, context.Cause(s.over))
		}
		span.End(err)
		if s.debug {
			s.log.Debug("request ended", obs.KeyRequest, r.ID, obs.KeyError, err)
		}
	}()
	return s.answer(ctx, r, stream)
}

// handedOver is what a request ends with after HandOver: an engine that is torn
// from it may say anything.
func handedOver(err, cause error) error {
	if _, lost := engine.Lost(err); lost {
		return err
	}
	return cause
}

// sender sends the chunks of one answer.
type sender struct {
	chunkEncoder
	s        *Service
	stream   *rpc.Stream
	told     time.Time // when the load was
	finished bool
}

// answer sends the engine's chunks as they come.
func (s *Service) answer(ctx context.Context, r *dynamo.Request, stream *rpc.Stream) error {
	a := sender{s: s, stream: stream}
	for chunk, err := range s.Engine.Generate(ctx, r) {
		if err != nil {
			return err
		}
		if err := a.send(chunk); err != nil {
			return err
		}
	}
	if !a.finished {
		return &dynamo.Error{Kind: dynamo.KindInternal, Message: "the worker's engine ended the answer without a reason"}
	}
	return nil
}

func (a *sender) send(c dynamo.Chunk) error {
	if a.s.Load != nil {
		if now := time.Now(); now.Sub(a.told) >= loadEvery {
			a.told = now
			a.setLoad(a.s.Load())
		}
	}
	a.finished = c.Finish != dynamo.FinishNone
	for a.begin(c); ; {
		b, more := a.next()
		if err := a.stream.Send(b); err != nil || !more {
			return err
		}
	}
}

// artifact sends the file whose digest was asked for.
func (s *Service) artifact(ctx context.Context, stream *rpc.Stream) error {
	digest := stream.Request()
	if len(digest) > maxDigestBytes {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the digest asked for is longer than any"}
	}
	read := s.Artifacts[string(digest)]
	if read == nil {
		return &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("this worker has no file with digest %.12q", digest)}
	}
	select {
	case s.files <- struct{}{}:
		defer func() { <-s.files }()
	case <-ctx.Done():
		return engine.ContextError(ctx)
	}
	b, err := read()
	if err != nil {
		return fmt.Errorf("read the file %.12s…: %w", digest, err)
	}
	for len(b) > 0 {
		n := min(len(b), artifactBytes)
		if err := stream.Send(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// status sends the worker's status.
func (s *Service) status(_ context.Context, stream *rpc.Stream) error {
	st := Status{Model: s.Card.Model, Worker: s.Worker.String()}
	if s.Status != nil {
		st = s.Status()
	}
	b, err := json.Marshal(st)
	if err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return stream.Send(b)
}

// drain begins to drain.
func (s *Service) drain(context.Context, *rpc.Stream) error {
	if s.Drain == nil {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "this worker cannot be asked to drain; stop its process"}
	}
	s.Drain()
	return nil
}

// kv answers an operator about the KV tiers.
func (s *Service) kv(ctx context.Context, stream *rpc.Stream) error {
	if s.KV == nil {
		return &dynamo.Error{Kind: dynamo.KindNotFound, Message: "this worker has no KV tiers; give it --kvbm-cpu-cache-gb, --kvbm-disk-cache-gb or --kvbm-remote"}
	}
	b, err := s.KV(ctx, stream.Request())
	if err != nil {
		return err
	}
	for len(b) > 0 {
		n := min(len(b), artifactBytes)
		if err := stream.Send(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
