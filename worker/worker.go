// Package worker hosts an engine for the frontends of a cluster: it tries the
// engine out, serves it over rpc, registers it in the store, publishes its load
// and other events, and leaves without losing a request. Package node builds one
// per process.
//
// It owns the order of these steps, the admission of requests, and the server and
// listeners it is given. The engine is its owner's.
//
// Laws:
//   - New checks, Run does. Nothing of a worker is left when Run has returned.
//   - A worker is registered only after its engine has generated ids and while it
//     answers. A store that cannot be reached is asked again, for as long as it
//     takes; one that refuses ends the worker.
//   - At most MaxRunning + MaxQueue requests are in progress; further ones are
//     refused at once with engine.CodeRefused (I5).
//   - A drain, by the end of Run's context or by request, is: the store forgets
//     the worker; new requests are refused with engine.CodeDraining; those in
//     progress end, and what is left of them after DrainTimeout ends with
//     engine.CodeDraining, upon which it goes on elsewhere from the ids so far;
//     then the engine and the connections end. Draining twice is draining once.
//   - An engine or a listener that ends by itself ends the worker with an error,
//     and its requests with a code by which they go on elsewhere.
//
// Goroutines, all ended before Run returns: the engine's loop, one per listener,
// the load reporter, and the one that registers and deregisters.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/plane/remote"
)

// The states of a worker.
const (
	StateStarting = "starting"
	StateReady    = "ready"
	StateDown     = "down" // ready, but for its engine, which is away for the moment
	StateDraining = "draining"
	StateStopped  = "stopped"
)

// Worker hosts one engine.
type Worker struct {
	config   Config
	log      *slog.Logger
	metrics  *Metrics
	service  *remote.Service
	bus      *event.RPC
	reporter *event.LoadReporter
	began    time.Time
	steps    atomic.Uint64 // chunks, for an engine that tells no load
	down     atomic.Bool   // the engine said so last

	leaving context.Context // ends when the worker is to drain
	leave   context.CancelCauseFunc

	mu struct {
		sync.Mutex
		state      string
		registered bool
		refusing   bool          // no new requests
		requests   int           // accepted and not ended
		fault      string        // why the engine lost the last one; empty if it served it
		idle       chan struct{} // closed at requests == 0, once somebody waits for it
	}
}

// New checks the configuration and adds the worker's methods to the server; it
// starts nothing.
func New(c Config) (*Worker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	w := &Worker{config: c, began: time.Now(), log: obs.For(c.Logger, "worker").With(obs.KeyWorker, c.Instance.ID)}
	w.mu.state = StateStarting
	w.leaving, w.leave = context.WithCancelCause(context.Background())
	w.metrics = c.Metrics
	lc := event.DefaultLoadConfig()
	lc.Worker, lc.Epoch, lc.Load, lc.Logger, lc.Metrics = c.Instance.ID, c.Instance.Epoch, w.load, c.Logger, c.EventMetrics
	var err error
	if w.reporter, err = event.NewLoadReporter(lc); err != nil {
		return nil, fmt.Errorf("report the load: %w", err)
	}
	w.bus = event.NewRPC(nil)
	w.bus.Register(c.Server)
	w.service = &remote.Service{
		Engine: &hosted{w}, Card: c.Instance.Card.Card, Load: w.load, Admit: w.admit, Begin: w.begin, Ended: w.ended,
		Artifacts: c.Artifacts, Status: w.Status, Drain: w.Drain, KV: c.KV, Worker: c.Instance.ID, Logger: c.Logger, Tracer: c.Tracer,
	}
	w.service.Register(c.Server)
	return w, nil
}

// Status says how the worker is.
func (w *Worker) Status() remote.Status {
	s := remote.Status{
		Model: w.config.Instance.Card.Model, Worker: w.config.Instance.ID.String(), Epoch: w.config.Instance.Epoch,
		UptimeSeconds: time.Since(w.began).Seconds(), Version: w.config.Instance.Version, Load: w.load(),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.State, s.Requests, s.Registered, s.Fault = w.mu.state, w.mu.requests, w.mu.registered, w.mu.fault
	if s.State == StateReady && s.Load.Down {
		s.State = StateDown
	}
	return s
}

// Drain begins to drain, as the end of Run's context does, and returns at once.
func (w *Worker) Drain() { w.leave(errAsked) }

var errAsked = errors.New("asked to drain")

// Run works until ctx ends or a drain is asked for, and then drains. It returns
// nil after that, in time or not, and otherwise why the worker cannot work. It is
// called once.
func (w *Worker) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { w.leave(context.Cause(ctx)) })()
	l := &life{w: w}
	err := l.start()
	if err == nil {
		<-w.leaving.Done()
	}
	served, asked := err == nil, w.leaving.Err() != nil
	l.end(served)
	if !asked {
		return err
	}
	if f, failed := errors.AsType[*failure](context.Cause(w.leaving)); failed {
		return f.err
	}
	return nil
}

// failure is why a worker leaves that was not asked to.
type failure struct{ err error }

// Error returns the message.
func (f *failure) Error() string { return f.err.Error() }

// fail ends the worker with err.
func (w *Worker) fail(err error) { w.leave(&failure{err}) }

func (w *Worker) setState(s string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.state = s
}

// load is how full the engine is.
func (w *Worker) load() engine.Load {
	if w.config.Load != nil {
		l := w.config.Load()
		if was := w.down.Swap(l.Down); was && !l.Down {
			w.mu.Lock()
			w.mu.fault = "" // of an engine that is back
			w.mu.Unlock()
		}
		return l
	}
	n := w.inProgress()
	running := min(n, w.config.MaxRunning)
	return engine.Load{Running: running, Waiting: n - running, MaxRunning: w.config.MaxRunning, Steps: w.steps.Load()}
}
