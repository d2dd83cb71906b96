package worker_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"

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
		}).awaitReady()
		peer := h.peer()
		for _, want := range []string{worker.StateReady, worker.StateDown, worker.StateReady} {
			down.Store(want == worker.StateDown)
			s, err := remote.FetchStatus(t.Context(), peer)
			if err != nil || s.State != want || !s.Registered {
				t.Errorf("got %+v, %v, want the state %s", s, err, want)
			}
		}
		h.stop()
		<-h.ended
	})
}
