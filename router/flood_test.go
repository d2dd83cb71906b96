package router_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router"
)

// A worker that floods is passed over for a while and then begun anew; the others are
// not touched.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, all := caching(t, 2, func(c *router.Config) { c.PredictTTL = 0 })
		apply(t, r, 1, stored(blockSize, text(1, 400)))
		apply(t, r, 2, stored(blockSize, text(2, 400)))
		b := event.KVBatch{BlockSize: blockSize}
		e := event.KVEvent{Kind: kvbm.Removed}
		for i := range 1 << 16 {
			e.Hashes = append(e.Hashes, dynamo.BlockHash(i))
		}
		b.Events = append(b.Events, e)
		many := event.Delivery{Kind: event.Event, Payload: b.Append(nil)}
		for range 200 {
			apply(t, r, 1, many)
		}
		state := func(i int) string { return r.State().Workers[i].Cache }
		if state(0) != "approximate" || state(1) != "exact" {
			t.Errorf("after a flood of the first: %s and %s", state(0), state(1))
		}
		apply(t, r, 1, stored(blockSize, text(3, 400)))
		if n := r.State().Workers[0].Blocks; n != 0 {
			t.Errorf("of a worker that is passed over %d blocks are known", n)
		}
		if got := sent(t, r, all, "1", text(2, 420), nil); got != 2 {
			t.Errorf("what the second holds went to %d", got)
		}
		time.Sleep(2 * time.Minute)
		if deliver(r, 1, stored(blockSize, text(3, 400))) {
			t.Error("after the isolation: the cache is not begun anew")
		}
		apply(t, r, 1, event.Delivery{Kind: event.Reset})
		d := stored(blockSize, text(3, 400))
		d.Kind, d.Last = event.Snapshot, true
		apply(t, r, 1, d)
		if state(0) != "exact" || sent(t, r, all, "2", text(3, 420), nil) != 1 {
			t.Errorf("begun anew: %s", state(0))
		}
		idle(t, r)
	})
}
