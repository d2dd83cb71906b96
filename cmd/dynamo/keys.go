package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// keys turns Ctrl-C into what it means at the moment: the first stops the
// answer, the second without an answer in between ends the program.
type keys struct {
	signals chan os.Signal
	quit    chan struct{}
	gone    chan struct{}
	end     context.CancelCauseFunc
	mu      struct {
		sync.Mutex
		stopAnswer context.CancelCauseFunc // nil while nothing is answered
		pressed    bool
	}
}

// watchKeys starts the one goroutine that hears signals; stop ends it.
func watchKeys(end context.CancelCauseFunc) *keys {
	k := &keys{signals: make(chan os.Signal, 2), quit: make(chan struct{}), gone: make(chan struct{}), end: end}
	signal.Notify(k.signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(k.gone)
		for {
			select {
			case s := <-k.signals:
				k.press(s)
			case <-k.quit:
				return
			}
		}
	}()
	return k
}

func (k *keys) press(s os.Signal) {
	k.mu.Lock()
	stop, again := k.mu.stopAnswer, k.mu.pressed
	k.mu.pressed = true
	k.mu.Unlock()
	if stop != nil {
		stop(interrupted{s})
	}
	if stop == nil || again || s == syscall.SIGTERM {
		k.end(interrupted{s})
	}
}

// answering returns a context that the first Ctrl-C cancels, until done.
func (k *keys) answering(ctx context.Context) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	k.mu.Lock()
	k.mu.stopAnswer, k.mu.pressed = cancel, false
	k.mu.Unlock()
	return ctx, func() {
		k.mu.Lock()
		k.mu.stopAnswer = nil
		k.mu.Unlock()
		cancel(nil)
	}
}

func (k *keys) stop() {
	signal.Stop(k.signals)
	close(k.quit)
	<-k.gone
}
