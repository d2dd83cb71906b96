package worker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// admit refuses a request that cannot be taken in, before anything of it is read.
func (w *Worker) admit() error {
	// Life 7: worker accepts or refuses at once, before the request is read
	w.mu.Lock()
	err := w.refusalLocked()
	w.mu.Unlock()
	return w.refuse(err)
}

// begin takes a request in, or refuses it where many were admitted at one moment.
func (w *Worker) begin() error {
	w.mu.Lock()
	err := w.refusalLocked()
	if err == nil {
		w.mu.requests++
	}
	w.mu.Unlock()
	if err == nil {
		w.metrics.begun(1)
		w.reporter.Wake()
	}
	return w.refuse(err)
}

func (w *Worker) refuse(err error) error {
	switch {
	case err == nil:
	case dynamo.KindOf(err) == dynamo.KindUnavailable:
		w.metrics.request(outcomeDraining)
	default:
		w.metrics.request(outcomeRefused)
	}
	return err
}

func (w *Worker) refusalLocked() error {
	switch n := w.mu.requests; {
	case w.mu.refusing:
		return draining("the worker is leaving and takes no new requests; send the request to another one")
	case n >= w.config.MaxRunning+w.config.MaxQueue:
		return &dynamo.Error{
			Kind: dynamo.KindExhausted, Code: engine.CodeRefused, RetryAfter: refuseRetry,
			Message: fmt.Sprintf("the worker is full: %d requests are in progress or wait; try another one, or later", n),
		}
	}
	return nil
}

// ended hears of the end of a request that was let in.
func (w *Worker) ended(err error) {
	w.metrics.request(outcome(err))
	w.metrics.begun(-1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if code, lost := engine.Lost(err); lost && code == engine.CodeLost {
		w.mu.fault = clip(err.Error())
	} else if err == nil {
		w.mu.fault = ""
	}
	if w.mu.requests--; w.mu.requests == 0 && w.mu.idle != nil {
		close(w.mu.idle)
		w.mu.idle = nil
	}
	w.reporter.Wake() // never waits
}

func clip(text string) string {
	if len(text) > maxFaultBytes {
		text = text[:maxFaultBytes] + "…"
	}
	return strings.ToValidUTF8(text, "\ufffd")
}

func (w *Worker) inProgress() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.requests
}

// awaitIdle reports whether all requests have ended within d. Only one caller may
// wait, and none may be let in meanwhile.
func (w *Worker) awaitIdle(d time.Duration) bool {
	w.mu.Lock()
	if w.mu.requests == 0 {
		w.mu.Unlock()
		return true
	}
	if w.mu.idle == nil {
		w.mu.idle = make(chan struct{})
	}
	idle := w.mu.idle
	w.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-idle:
		return true
	case <-timer.C:
		return false
	}
}

func draining(message string) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeDraining, Message: message}
}

// hosted is the engine as frontends get it: it counts chunks, and where the engine
// says that it cannot serve a request now it says that another worker may.
type hosted struct{ w *Worker }

var _ engine.Engine = (*hosted)(nil)

// Generate implements engine.Engine.
func (h *hosted) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		begun := false
		for chunk, err := range h.w.config.Engine.Generate(ctx, r) {
			if err != nil && ctx.Err() == nil {
				err = elsewhere(err, begun)
			}
			begun = true
			h.w.steps.Add(1)
			h.w.reporter.Wake()
			if !yield(chunk, err) {
				return
			}
		}
	}
}

// elsewhere gives an error that speaks of the engine and not of the request a code
// by which the request goes on elsewhere.
func elsewhere(err error, begun bool) error {
	var e *dynamo.Error
	if _, lost := engine.Lost(err); lost || !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Kind == dynamo.KindUnavailable:
		return &dynamo.Error{Kind: e.Kind, Code: engine.CodeLost, RetryAfter: e.RetryAfter, Message: err.Error()}
	case e.Kind == dynamo.KindExhausted && !begun:
		return &dynamo.Error{Kind: e.Kind, Code: engine.CodeRefused, RetryAfter: e.RetryAfter, Message: err.Error()}
	}
	return err
}
