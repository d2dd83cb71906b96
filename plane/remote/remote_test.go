package remote_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/echo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/plane/rpc"
)

func TestConformance(t *testing.T) {
	for _, over := range []string{overMemory, overTCP, overUnix} {
		t.Run("echo/"+over, func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				u := connect(t, over, echoService(t, nil), nil)
				return enginetest.Subject{Engine: u, Card: u.Card(), Prompt: prompt, Idle: u.idle}
			})
		})
	}
	t.Run("paced echo", func(t *testing.T) {
		enginetest.Run(t, func(t *testing.T) enginetest.Subject {
			u := connect(t, overTCP, echoService(t, func(c *echo.Config) { c.ITL = 50 * time.Microsecond }), nil)
			return enginetest.Subject{Engine: u, Card: u.Card(), Prompt: prompt, Idle: u.idle}
		})
	})
}

func TestConformanceNative(t *testing.T) {
	folder := tinyFolder(t)
	for _, over := range []string{overMemory, overTCP} {
		t.Run(over, func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				e := serveNative(t, folder)
				u := connect(t, over, &remote.Service{Engine: e, Card: e.Card()}, nil)
				idle := func() error {
					s := e.Stats()
					kv := s.Scheduler.KV
					if s.Busy() > 0 || kv.Partial+kv.Complete+kv.Held+kv.Loading+kv.Leases > 0 {
						return fmt.Errorf("the engine has %d requests, blocks %+v", s.Busy(), kv)
					}
					return u.idle()
				}
				return enginetest.Subject{Engine: u, Card: e.Card(), Prompt: prompt, Idle: idle}
			})
		})
	}
}

// TestSameAnswers compares what a remote engine yields with what the engine
// itself does, to the bit of every logprob.
func TestSameAnswers(t *testing.T) {
	e := serveNative(t, tinyFolder(t))
	u := connect(t, overTCP, &remote.Service{Engine: e, Card: e.Card()}, nil)
	r := &dynamo.Request{
		ID: "r", Tokens: prompt(40), MaxTokens: 60, Choice: 2,
		Sampling: dynamo.Sampling{Temperature: 1.1, TopP: 0.9, Seed: 4, FrequencyPenalty: 0.3, Logprobs: true, TopLogprobs: 3, PromptLogprobs: true,
			LogitBias: []dynamo.LogitBias{{ID: 5, Bias: 2}}},
	}
	var answers []string
	for _, e := range []engine.Engine{e, u} {
		all, err := enginetest.CollectChoices(t.Context(), e, r)
		if err != nil {
			t.Fatal(err)
		}
		a := all[0]
		a.Chunks = 0
		answers = append(answers, fmt.Sprintf("%+v", a))
	}
	if answers[0] != answers[1] {
		t.Errorf("remote\n%s\nlocal\n%s", answers[1], answers[0])
	}
}

// TestCancelAtEveryToken gives up after each number of tokens by breaking the
// loop, by the context and by the deadline; each time the engine has ended the
// request when the loop is over.
func TestCancelAtEveryToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := connect(t, overMemory, echoService(t, func(c *echo.Config) { c.ITL = 10 * time.Millisecond }), nil)
		for n := range 12 {
			for _, way := range []string{"break", "cancel", "deadline"} {
				ctx, cancel := context.WithCancel(t.Context())
				r := &dynamo.Request{ID: "r", Tokens: prompt(5), MaxTokens: 100, IgnoreEOS: true}
				if way == "deadline" {
					r.Deadline = time.Now().Add(time.Duration(n)*10*time.Millisecond + 5*time.Millisecond)
				}
				got := 0
				var failure error
				for chunk, err := range u.Generate(ctx, r) {
					if got += len(chunk.Tokens); err != nil {
						failure = err
					}
					if got >= n && way == "break" {
						break
					}
					if got >= n && way == "cancel" {
						cancel()
					}
				}
				if err := u.idle(); err != nil {
					t.Fatalf("%s after %d: %v", way, n, err)
				}
				cancel()
				want := map[string]dynamo.Kind{"cancel": dynamo.KindCancelled, "deadline": dynamo.KindDeadline}
				if kind, fails := want[way]; fails != (failure != nil) || fails && dynamo.KindOf(failure) != kind || got != max(n, 1) && way != "deadline" || way == "deadline" && got != n {
					t.Errorf("%s after %d: %d tokens, then %v", way, n, got, failure)
				}
				if err := <-u.ended; dynamo.KindOf(err) != dynamo.KindCancelled && dynamo.KindOf(err) != dynamo.KindDeadline {
					t.Errorf("%s after %d: the worker's side ended with %v", way, n, err)
				}
			}
		}
	})
}

// TestCancelBeforeFirstToken gives up a request that still waits or prefills.
func TestCancelBeforeFirstToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &remote.Service{Engine: endless(nil)}
		u := connect(t, overMemory, s, nil)
		cause := &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the frontend is stopping"}
		for _, why := range []error{nil, cause} {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(why) })
			began := time.Now()
			_, err := enginetest.Collect(ctx, u, &dynamo.Request{Tokens: prompt(3), MaxTokens: 5})
			if took := time.Since(began); took != time.Second || u.idle() != nil {
				t.Errorf("it ended after %v, %v", took, u.idle())
			}
			if want := map[bool]dynamo.Kind{true: dynamo.KindCancelled, false: dynamo.KindUnavailable}[why == nil]; dynamo.KindOf(orNone(err)) != want {
				t.Errorf("got %v, want kind %v", err, want)
			}
			if err := <-u.ended; dynamo.KindOf(orNone(err)) != dynamo.KindOf(orNone(engine.ContextError(ctx))) {
				t.Errorf("the worker's engine ended with %v", err)
			}
		}
	})
}

// TestClockSkew checks that a deadline is what is left of it, and that the worker
// keeps it when the client is gone silent.
func TestClockSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left time.Duration
		s := &remote.Service{Engine: scripted(func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			left = time.Until(r.Deadline)
			<-ctx.Done()
			yield(dynamo.Chunk{}, engine.ContextError(ctx))
		})}
		u := connect(t, overMemory, s, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := enginetest.Collect(ctx, u, &dynamo.Request{Tokens: prompt(3), Deadline: time.Now().Add(300 * time.Millisecond)})
		if dynamo.KindOf(err) != dynamo.KindDeadline || left > 300*time.Millisecond || left < 290*time.Millisecond {
			t.Errorf("got %v; the worker had %v", err, left)
		}
	})
}

// TestWorkerLost resets, kills and freezes a worker in the midst of an answer.
func TestWorkerLost(t *testing.T) {
	for _, c := range []struct {
		name string
		hurt func(*setup)
		most time.Duration
	}{
		{"reset", func(u *setup) { u.network.Reset("client", "worker") }, time.Millisecond},
		{"killed", func(u *setup) { u.network.Kill("worker") }, time.Millisecond},
		{"frozen", func(u *setup) { u.network.Pause("worker") }, 3 * time.Second},
		{"closed", func(u *setup) { u.stopPeer(); u.peerEnded.Wait() }, time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				step := make(chan struct{}, 3)
				for range 3 {
					step <- struct{}{}
				}
				s := echoService(t, nil)
				s.Engine = endless(step)
				u := connect(t, overMemory, s, nil)
				got := 0
				var began time.Time
				for chunk, err := range u.Generate(t.Context(), &dynamo.Request{ID: "r", Tokens: prompt(3)}) {
					if err != nil {
						if code(err) != engine.CodeLost || dynamo.KindOf(err) != dynamo.KindUnavailable {
							t.Errorf("got %v with code %q, want the worker lost", err, code(err))
						}
						if took := time.Since(began); took > c.most {
							t.Errorf("found after %v, want %v at most", took, c.most)
						}
						break
					}
					if got += len(chunk.Tokens); got == 3 {
						began = time.Now()
						c.hurt(u)
					}
				}
				if got < 3 {
					t.Errorf("got %d tokens", got)
				}
				if c.name == "frozen" {
					u.network.Resume("worker")
				}
			})
		})
	}
}

// TestDeafWorker gives a request up that the worker never lets go.
func TestDeafWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		s := echoService(t, nil)
		s.Engine = scripted(func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			yield(dynamo.Chunk{Tokens: r.Tokens[:1]}, nil)
			<-release
		})
		u := connect(t, overMemory, s, func(c *remote.Config) { c.CancelWait = 300 * time.Millisecond })
		began := time.Now()
		for range u.Generate(t.Context(), &dynamo.Request{Tokens: prompt(3)}) {
			break
		}
		if took := time.Since(began); took != 300*time.Millisecond {
			t.Errorf("the loop ended after %v, want CancelWait", took)
		}
		close(release)
	})
}

// TestErrorsTravel checks that what a worker says arrives as it was said.
func TestErrorsTravel(t *testing.T) {
	s := echoService(t, nil)
	var say, admit error
	s.Engine = scripted(func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		if say == nil {
			panic("a bug")
		}
		yield(dynamo.Chunk{}, say)
	})
	s.Admit = func() error { return admit }
	u := connect(t, overTCP, s, nil)
	ask := func() *dynamo.Error {
		t.Helper()
		_, err := enginetest.Collect(t.Context(), u, &dynamo.Request{Tokens: prompt(3)})
		e, ok := errors.AsType[*dynamo.Error](err)
		if !ok {
			t.Fatalf("got %v, want an error with a kind", err)
		}
		return e
	}
	for _, want := range []*dynamo.Error{
		{Kind: dynamo.KindInvalid, Message: "bad", Param: "prompt", Code: "context_length_exceeded"},
		{Kind: dynamo.KindExhausted, Message: "full", Code: engine.CodeRefused, RetryAfter: 3 * time.Second},
		{Kind: dynamo.KindUnavailable, Message: "leaving", Code: engine.CodeDraining},
	} {
		say, admit = want, nil
		if got := ask(); *got != *want {
			t.Errorf("the engine's error: got %+v, want %+v", got, want)
		}
		admit = want
		if got := ask(); *got != *want {
			t.Errorf("the refusal: got %+v, want %+v", got, want)
		}
	}
	say, admit = nil, nil
	if got := ask(); got.Kind != dynamo.KindInternal {
		t.Errorf("a panic: got %+v, want an internal error", got)
	}
}

// TestGarbage asks for an answer in bytes that are no request.
func TestGarbage(t *testing.T) {
	u := connect(t, overTCP, echoService(t, nil), nil)
	for _, b := range [][]byte{nil, {9}, {1, 0xff}, []byte("GET / HTTP/1.1\r\n\r\n"), {1, 0, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		s, err := u.peer.Open(t.Context(), rpc.Call{Method: "generate", Request: b})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Recv(); dynamo.KindOf(orNone(err)) != dynamo.KindInvalid {
			t.Errorf("%q: got %q, %v; want it invalid", b, got, err)
		}
	}
	if err := u.idle(); err != nil {
		t.Error(err)
	}
}

// TestTrace checks that the trace context and the names of a request reach the
// worker's engine and log.
func TestTrace(t *testing.T) {
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	var out strings.Builder
	var got string
	s := echoService(t, nil)
	e := s.Engine
	s.Engine = scripted(func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		got = obs.Trace(ctx)
		e.Generate(ctx, r)(yield)
	})
	s.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	u := connect(t, overTCP, s, nil)
	if _, err := enginetest.Collect(obs.WithTrace(t.Context(), parent), u, &dynamo.Request{ID: "chat-7", Tokens: prompt(3), MaxTokens: 2}); err != nil {
		t.Fatal(err)
	}
	if got != parent {
		t.Errorf("the engine's trace context is %q", got)
	}
	if log := out.String(); !strings.Contains(log, "req=chat-7") || !strings.Contains(log, "worker="+workerID.String()) {
		t.Errorf("the log lacks a name:\n%s", log)
	}
}

// TestUnfinished has an engine end its answers without a reason.
func TestUnfinished(t *testing.T) {
	s := echoService(t, nil)
	s.Engine = scripted(func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		yield(dynamo.Chunk{Tokens: r.Tokens}, nil)
	})
	u := connect(t, overTCP, s, nil)
	a, err := enginetest.Collect(t.Context(), u, &dynamo.Request{Tokens: prompt(3), MaxTokens: 5})
	if dynamo.KindOf(orNone(err)) != dynamo.KindInternal || len(a.Tokens) != 3 {
		t.Errorf("got %v after %d tokens, want an internal error after 3", err, len(a.Tokens))
	}
}

func orNone(err error) error {
	if err == nil {
		return &dynamo.Error{Kind: 255}
	}
	return err
}

// TestHandOver ends requests in progress, one of which nobody reads.
func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := echoService(t, func(c *echo.Config) { c.ContextLength = 1 << 20; c.ChunkTokens = 4096 })
		u := connect(t, overMemory, s, nil)
		want := &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeDraining, Message: "leaving"}
		var last error
		n := 0
		for _, err := range u.Generate(t.Context(), &dynamo.Request{Tokens: prompt(30), MaxTokens: 1 << 19}) {
			if n++; n == 1 {
				synctest.Wait() // the worker waits for credit
				s.HandOver(want)
				if err := <-u.ended; code(err) != engine.CodeDraining {
					t.Errorf("on the worker: got %v", err)
				}
			}
			last = err
		}
		if code(last) != engine.CodeDraining || n < 2 {
			t.Errorf("got %v after %d chunks, want the worker's draining", last, n-1)
		}
		if _, err := enginetest.Collect(t.Context(), u, &dynamo.Request{Tokens: prompt(30), MaxTokens: 10}); code(err) != engine.CodeDraining {
			t.Errorf("a later request: got %v", err)
		}
	})
}

// TestLend asks a worker to lend KV, by a method that those which cannot do not know.
func TestLend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &remote.Service{Engine: lends{}, Card: engine.Card{Lends: true}}
		u := connect(t, overMemory, s, nil)
		wish := &dynamo.Request{ID: "r", Tokens: prompt(30), Resume: prompt(2), Root: 7, Lend: true}
		for chunk, err := range u.Generate(t.Context(), wish) {
			if err != nil || string(chunk.Handover) != "r 30 2 7" {
				t.Errorf("got %q, %v", chunk.Handover, err)
			}
			break
		}
		if err := <-u.ended; err == nil {
			t.Error("the worker is not told that it is enough")
		}
		wish.Lend = false
		for _, err := range u.Generate(t.Context(), wish) {
			if dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("without Lend: %v", err)
			}
		}
	})
}

// lends is an engine that lends and does nothing else.
type lends struct{}

func (lends) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		switch {
		case !r.Lend:
			yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "it lends"})
		case yield(dynamo.Chunk{Handover: fmt.Appendf(nil, "%s %d %d %d", r.ID, len(r.Tokens), len(r.Resume), r.Root)}, nil):
			<-ctx.Done()
			yield(dynamo.Chunk{}, engine.ContextError(ctx))
		}
	}
}

// TestLoad checks that answers bring the load: with the first chunk, and after
// that no more often than every 50 ms.
func TestLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := echoService(t, func(c *echo.Config) { c.ITL = 10 * time.Millisecond })
		asked := 0
		s.Load = func() engine.Load { asked++; return engine.Load{Running: asked, MaxRunning: 8, Steps: 99} }
		var heard []engine.Load
		u := connect(t, overMemory, s, func(c *remote.Config) { c.OnLoad = func(l engine.Load) { heard = append(heard, l) } })
		a, err := enginetest.Collect(t.Context(), u, &dynamo.Request{Tokens: prompt(3), MaxTokens: 21})
		if err != nil || len(a.Tokens) != 21 {
			t.Fatalf("got %d tokens, %v", len(a.Tokens), err)
		}
		if len(heard) != 5 || heard[4] != (engine.Load{Running: 5, MaxRunning: 8, Steps: 99}) {
			t.Errorf("200 ms of answer: got the loads %+v, want five", heard)
		}
	})
}

func TestArtifacts(t *testing.T) {
	file := make([]byte, 300_000)
	for i := range file {
		file[i] = byte(i * i >> 3)
	}
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	good, changed, broken, empty := sum(file), sum(file[1:]), sum(file[2:]), sum(nil)
	s := echoService(t, nil)
	s.Artifacts = map[string]func() ([]byte, error){
		good: func() ([]byte, error) { return file, nil }, changed: func() ([]byte, error) { return file, nil },
		broken: func() ([]byte, error) { return nil, errors.New("disk on fire") }, empty: func() ([]byte, error) { return nil, nil },
	}
	u := connect(t, overTCP, s, nil)
	for _, c := range []struct {
		name, digest string
		most         int64
		want         []byte
		kind         dynamo.Kind
	}{
		{"whole", good, 300_000, file, 255},
		{"empty", empty, 0, nil, 255},
		{"too long", good, 299_999, nil, dynamo.KindCorrupt},
		{"changed", changed, 1 << 20, nil, dynamo.KindCorrupt},
		{"unknown", sum(file[3:]), 1 << 20, nil, dynamo.KindNotFound},
		{"broken", broken, 1 << 20, nil, dynamo.KindInternal},
		{"no digest", string(make([]byte, 1000)), 1 << 20, nil, dynamo.KindInvalid},
	} {
		got, err := remote.FetchArtifact(t.Context(), u.peer, c.digest, c.most)
		if dynamo.KindOf(orNone(err)) != c.kind || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %d bytes, %v; want %d, kind %v", c.name, len(got), err, len(c.want), c.kind)
		}
	}
}

func TestStatusAndDrain(t *testing.T) {
	s := echoService(t, nil)
	want := remote.Status{State: "ready", Model: "m", Worker: "w", Epoch: 1 << 63, Requests: 3, UptimeSeconds: 1.5, Registered: true, Version: "v", Load: engine.Load{Running: 3, Steps: 9}}
	drains := 0
	s.Status, s.Drain = func() remote.Status { return want }, func() { drains++ }
	u := connect(t, overUnix, s, nil)
	got, err := remote.FetchStatus(t.Context(), u.peer)
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for i := range 2 {
		if err := remote.Drain(t.Context(), u.peer); err != nil || drains != i+1 {
			t.Errorf("got %v and %d drains", err, drains)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := remote.Drain(ctx, u.peer); dynamo.KindOf(orNone(err)) != dynamo.KindCancelled {
		t.Errorf("cancelled: got %v", err)
	}
}
