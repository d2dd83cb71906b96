package worker_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/remote"
	"github.com/dynamo-go/dynamo/worker"
)

// A worker whose engine is away says so to whoever asks, and stays registered.
func TestEngineDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		var down atomic.Bool
		h := c.start("worker", 1, func(c *worker.Config) {
			c.Load = func() engine.Load { return engine.Load{Down: down.Load()} }
			c.Engine = afterCanary(func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "gone"})
			})
		}).awaitReady()
		peer := h.peer()
		for _, want := range []string{worker.StateReady, worker.StateDown, worker.StateReady} {
			down.Store(want == worker.StateDown)
			s, err := remote.FetchStatus(t.Context(), peer)
			if err != nil || s.State != want || !s.Registered {
				t.Errorf("got %+v, %v, want the state %s", s, err, want)
			}
		}
		// Why it lost a request is told until it is back.
		if a := <-ask(t, h.engine(), 5); code(a.err) != engine.CodeLost {
			t.Errorf("got %v, want the engine lost", a.err)
		}
		down.Store(true)
		if s, err := remote.FetchStatus(t.Context(), peer); err != nil || s.Fault == "" {
			t.Errorf("got %+v, %v, want why a request was lost", s, err)
		}
		down.Store(false)
		if s, err := remote.FetchStatus(t.Context(), peer); err != nil || s.Fault != "" {
			t.Errorf("got %+v, %v, want an engine that is back", s, err)
		}
		h.stop()
		<-h.ended
	})
}
