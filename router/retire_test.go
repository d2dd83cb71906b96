package router_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// Who waits at a router whose name others serve is told so at once, and so is who
// comes later.
func TestRetire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, defaults)
		began, waited := time.Now(), make(chan error, 2)
		for range 2 {
			go func() { waited <- ask(t, r, "waits") }()
		}
		synctest.Wait()
		if n := r.Stats().Waiting; n != 2 {
			t.Fatalf("%d requests wait, want 2", n)
		}
		r.Retire()
		for _, err := range []error{<-waited, <-waited, ask(t, r, "late")} {
			var e *dynamo.Error
			if !errors.As(err, &e) || e.Kind != dynamo.KindUnavailable || e.Code != engine.CodeReplaced || e.RetryAfter <= 0 {
				t.Errorf("got %v, want that the model is replaced", err)
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v", took)
		}
		idle(t, r)
	})
}
