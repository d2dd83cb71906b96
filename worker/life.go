package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event"
)

// life is what Run starts and ends.
type life struct {
	w          *Worker
	stopEngine context.CancelFunc
	engine     sync.WaitGroup // the engine's loop
	serving    sync.WaitGroup // the listeners
	publishing sync.WaitGroup // the load reporter
	stopEvents context.CancelFunc
	detach     []func()
	left       chan struct{} // closed when the store knows the worker no longer; nil if it never did
	closing    atomic.Bool   // the listeners end because they are to
	ending     atomic.Bool   // so does the engine
}

// start goes from nothing to serving; the store hears of the worker by the
// goroutine that keeps the registration.
func (l *life) start() error {
	l.startEngine()
	// Nobody hears of the worker before its engine has generated ids.
	if err := l.canary(l.w.leaving); err != nil {
		return err
	}
	if err := l.publish(); err != nil {
		return err
	}
	for _, listener := range l.w.config.Listeners {
		l.serving.Go(func() { // ends with the server
			err := l.w.config.Server.Serve(listener)
			if !l.closing.Load() {
				l.w.fail(fmt.Errorf("serve at %s: %w", listener.Addr(), orUnknown(err)))
			}
		})
	}
	l.left = make(chan struct{})
	l.serving.Go(l.register) // ends with leaving
	return nil
}

// startEngine runs the engine's loop. It outlasts the requests in progress.
func (l *life) startEngine() {
	running, stop := context.WithCancelCause(context.Background())
	l.stopEngine = func() {
		l.ending.Store(true)
		stop(&dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "the worker has stopped"})
	}
	if l.w.config.EngineRun == nil {
		return
	}
	l.engine.Go(func() {
		err := l.w.config.EngineRun(running)
		if !l.ending.Load() {
			l.w.fail(fmt.Errorf("run the engine: %w", orUnknown(err)))
		}
	})
}

func orUnknown(err error) error {
	if err == nil {
		return errors.New("it ended and gave no reason")
	}
	return err
}

// canary generates a few ids, so that a worker that cannot never takes a request.
func (l *life) canary(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			l.w.log.Error("the engine panicked when it was tried", obs.KeyError, fmt.Sprintf("%v\n%s", v, debug.Stack()))
			err = &dynamo.Error{Kind: dynamo.KindInternal, Message: fmt.Sprintf("the engine was tried with a short request and panicked; the worker does not serve: %v", v)}
		}
	}()
	began := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, l.w.config.CanaryTimeout, fmt.Errorf("no answer within %v", l.w.config.CanaryTimeout))
	defer cancel()
	finished := false
	for chunk, err := range l.w.config.Engine.Generate(ctx, canaryRequest(&l.w.config.Instance.Card.Card)) {
		if err != nil {
			return fmt.Errorf("the engine was tried with a short request and failed; the worker does not serve: %w", err)
		}
		finished = chunk.Finish != dynamo.FinishNone
	}
	if !finished {
		return &dynamo.Error{Kind: dynamo.KindInternal, Message: "the engine was tried with a short request and ended its answer without a reason; the worker does not serve"}
	}
	l.w.log.Debug("the engine was tried", obs.KeyDuration, time.Since(began))
	return nil
}

// canaryRequest is a greedy request for a few ids that is valid for any engine.
func canaryRequest(c *engine.Card) *dynamo.Request {
	r := &dynamo.Request{ID: "canary", Model: c.Model, IgnoreEOS: true}
	for id := dynamo.TokenID(0); int(id) < c.VocabSize && len(r.Tokens) < min(canaryPrompt, max(c.ContextLength/2, 1)); id++ {
		if !slices.Contains(c.EOS, id) {
			r.Tokens = append(r.Tokens, id)
		}
	}
	r.MaxTokens = max(1, min(canaryTokens, c.ContextLength-len(r.Tokens)))
	return r
}

// publish attaches the worker's events to its buses and begins to report the
// load.
func (l *life) publish() error {
	publishers := append([]*event.Publisher{l.w.reporter.Publisher()}, l.w.config.Publishers...)
	buses := []event.Bus{l.w.bus}
	if l.w.config.Bus != nil {
		buses = append(buses, l.w.config.Bus)
	}
	for _, b := range buses {
		for _, p := range publishers {
			detach, err := b.Attach(p)
			if err != nil {
				return fmt.Errorf("publish %s events: %w", p.Source().Topic, err)
			}
			l.detach = append(l.detach, detach)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stopEvents = stop
	l.publishing.Go(func() { _ = l.w.reporter.Run(ctx) }) // its error is ctx's
	return nil
}

// register keeps the worker in the store from now until it leaves.
func (l *life) register() {
	defer close(l.left)
	r, err := l.enter(l.w.leaving)
	if err != nil {
		if l.w.leaving.Err() == nil {
			l.w.fail(fmt.Errorf("register: %w", err))
		}
		return
	}
	l.w.mu.Lock()
	l.w.mu.registered = true
	if l.w.mu.state == StateStarting {
		l.w.mu.state = StateReady
	}
	l.w.mu.Unlock()
	l.w.metrics.isReady(1)
	i := &l.w.config.Instance
	l.w.log.Info("worker ready", obs.KeyModel, i.Card.Model, "path", i.Path.String(), obs.KeyAddress, i.Addresses)
	if l.w.config.Ready != nil && l.w.leaving.Err() == nil {
		l.w.config.Ready()
	}
	told := l.stay(r)
	l.w.metrics.isReady(-1)
	l.exit(r, told)
	l.w.mu.Lock()
	l.w.mu.registered = false
	l.w.mu.Unlock()
}

// enter registers, for as long as it takes a store that cannot be reached.
func (l *life) enter(ctx context.Context) (discovery.Registration, error) {
	told := ""
	for pause := retryMin; ; pause = min(2*pause, retryMax) {
		try, cancel := context.WithTimeout(ctx, registerTimeout)
		r, err := l.w.config.Store.Register(try, l.w.config.Instance)
		cancel()
		switch {
		case err == nil:
			return r, nil
		case ctx.Err() != nil || !passing(err):
			return nil, err
		}
		if err.Error() != told {
			told = err.Error()
			l.w.log.Warn("the store cannot be reached; the worker serves, and registers when it can", obs.KeyError, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, engine.ContextError(ctx)
		}
	}
}

// passing reports whether a store that refuses with err may take the worker later,
// without anybody's help.
func passing(err error) bool {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR) {
		return false
	}
	switch dynamo.KindOf(err) {
	case dynamo.KindUnavailable, dynamo.KindDeadline, dynamo.KindCancelled, dynamo.KindExhausted:
		return true
	}
	return false
}

// stay tells the store what changes of the engine's adapters until the worker
// leaves, and returns what it was told last.
func (l *life) stay(r discovery.Registration) discovery.Instance {
	i := l.w.config.Instance
	if l.w.config.Adapters == nil {
		<-l.w.leaving.Done()
		return i
	}
	tick := time.NewTicker(adaptersEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.w.leaving.Done():
			return i
		case <-tick.C:
		}
		names := l.w.config.Adapters()
		if slices.Equal(names, i.Card.Adapters) {
			continue
		}
		card := *i.Card // the store has the other one
		card.Adapters = slices.Clone(names)
		i.Card = &card
		ctx, cancel := context.WithTimeout(l.w.leaving, updateTimeout)
		err := r.Update(ctx, i)
		cancel()
		if err != nil && l.w.leaving.Err() == nil {
			l.w.log.Warn("the store was not told which adapters the engine has; it is when it is back", obs.KeyError, err)
			continue
		}
		l.w.log.Info("adapters changed", "adapters", len(names))
	}
}

// exit deregisters. Who watches sees first that the worker drains.
func (l *life) exit(r discovery.Registration, i discovery.Instance) {
	ctx, cancel := context.WithTimeout(context.Background(), updateTimeout)
	defer cancel()
	i.Draining = true
	err := r.Update(ctx, i)
	if err = errors.Join(err, r.Close()); err != nil {
		l.w.log.Warn("the store was not told that the worker leaves; it learns by the worker's lease", obs.KeyError, err)
	}
}

// end drains what was served, and stops whatever was started.
func (l *life) end(served bool) {
	if served {
		l.drain()
	}
	for _, detach := range l.detach {
		detach()
	}
	if l.stopEvents != nil {
		l.stopEvents()
	}
	l.closing.Store(true)
	if err := l.w.config.Server.Close(); err != nil {
		l.w.log.Debug("close the server", obs.KeyError, err)
	}
	for _, listener := range l.w.config.Listeners {
		_ = listener.Close() // the server has closed those it served
	}
	l.serving.Wait()
	l.publishing.Wait()
	l.stopEngine()
	l.engine.Wait()
	l.w.setState(StateStopped)
	l.w.log.Info("worker stopped")
}

// drain lets the requests in progress end, or hands them over.
func (l *life) drain() {
	l.w.setState(StateDraining)
	began := time.Now()
	cause := context.Cause(l.w.leaving)
	wait := l.w.config.DrainTimeout
	over := draining("the worker is leaving and the request has not ended in time; it goes on elsewhere")
	if f, failed := errors.AsType[*failure](cause); failed {
		l.w.log.Error("the worker cannot go on", obs.KeyError, f.err)
		wait, over = 0, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "the worker cannot go on: " + f.Error()}
	} else {
		l.w.log.Info("the worker drains", "reason", cause, "requests", l.w.inProgress())
	}
	await(l.left, leaveWait)
	l.w.mu.Lock()
	l.w.mu.refusing = true
	l.w.mu.Unlock()
	outcome := drainFinished
	if !l.w.awaitIdle(wait) {
		outcome = drainHandedOver
		l.w.log.Info("requests are handed over", "requests", l.w.inProgress(), obs.KeyDuration, time.Since(began))
		if l.w.config.HandOver != nil && wait > 0 {
			l.w.config.HandOver()
			l.w.awaitIdle(takeOverWait)
		}
		l.w.service.HandOver(over)
		if !l.w.awaitIdle(handOverWait) {
			outcome = drainForced
			l.w.log.Warn("requests do not end; the engine and the connections are", "requests", l.w.inProgress())
			l.stopEngine()
		}
	}
	l.w.metrics.drain(outcome)
}

// await returns when c is closed, or after d.
func await(c <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C:
	}
}
