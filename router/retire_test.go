package router_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router"
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

// A router that serves no more leaves nothing in the gauges, also if a request that was
// under way looks at its index afterwards; counters keep what they have.
func TestCloseGauges(t *testing.T) {
	for name, end := range map[string]func(*router.Router){"close": (*router.Router).Close, "retire": (*router.Router).Retire} {
		synctest.Test(t, func(t *testing.T) {
			registry := obs.NewRegistry()
			m := router.NewMetrics(registry)
			r, all := caching(t, 2, func(c *router.Config) { c.Metrics, c.PredictTTL = m, 0 })
			other, _ := caching(t, 1, func(c *router.Config) { c.Metrics, c.PredictTTL = m, 0 })
			apply(t, r, 1, stored(blockSize, text(1, 400)))
			apply(t, other, 1, stored(blockSize, text(1, 40)))
			sent(t, r, all, "1", text(1, 420), nil)
			time.Sleep(2 * time.Second)
			_, _ = r.State(), other.State()
			gauges := func() (blocks, bytes, up string) {
				s := scrape(t, registry)
				return value(s, "dynamo_router_index_blocks"), value(s, "dynamo_router_index_bytes"), value(s, `dynamo_router_workers{state="up"}`)
			}
			blocks, before, _ := gauges()
			if blocks != "110" {
				t.Fatalf("%s blocks of two routers, want 110", blocks)
			}
			r.Remove(1, 1)
			r.Remove(2, 1)
			end(r)
			time.Sleep(2 * time.Second)
			_, _ = r.State(), other.State()
			blocks, bytes, up := gauges()
			if blocks != "10" || bytes == before || bytes == "0" || up != "1" {
				t.Errorf("%s: of the other router's 10 blocks and 1 worker the gauges have %s, %s bytes (were %s) and %s", name, blocks, bytes, before, up)
			}
			end(other)
			if blocks, bytes, _ := gauges(); blocks != "0" || bytes != "0" {
				t.Errorf("%s: %s blocks and %s bytes of no router", name, blocks, bytes)
			}
		})
	}
}

// value is a sample of a scrape.
func value(s, name string) string {
	for line := range strings.Lines(s) {
		if v, found := strings.CutPrefix(line, name+" "); found {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
