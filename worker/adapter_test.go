package worker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/worker"
)

// telling is a store that writes down which adapters a worker tells it of.
type telling struct {
	discovery.Store
	told *[]string // by one goroutine of the worker; read after its end
	fail *atomic.Bool
}

func (s telling) Register(ctx context.Context, i discovery.Instance) (discovery.Registration, error) {
	r, err := s.Store.Register(ctx, i)
	s.note(i)
	return tellingOf{r, s}, err
}

func (s telling) note(i discovery.Instance) {
	*s.told = append(*s.told, fmt.Sprintf("%s draining=%t", strings.Join(i.Card.Adapters, "+"), i.Draining))
}

type tellingOf struct {
	discovery.Registration
	s telling
}

func (r tellingOf) Update(ctx context.Context, i discovery.Instance) error {
	r.s.note(i)
	if r.s.fail.Load() {
		return errors.New("the store is away")
	}
	return r.Registration.Update(ctx, i)
}

// What changes of the engine's adapters is told to the store once, soon, and stays
// told while the worker drains; the instance that others hold is not touched.
func TestAdaptersAreTold(t *testing.T) {
	bubble(t, func(t *testing.T, c *cluster) {
		var names atomic.Pointer[[]string]
		set := func(list ...string) { names.Store(&list) }
		set("a")
		var told []string
		var fail atomic.Bool
		h := c.start("w", 5, func(wc *worker.Config) {
			wc.Store = telling{wc.Store, &told, &fail}
			wc.Instance.Card.Adapters = []string{"a"}
			wc.Adapters = func() []string { return *names.Load() }
		}).awaitReady()
		time.Sleep(5 * time.Second)
		set("a", "b")
		time.Sleep(5 * time.Second)
		var seen []string
		for u := range c.store.Watch(t.Context(), path) {
			seen = u.Instances[0].Card.Adapters
			break
		}
		if want := []string{"a", "b"}; !slices.Equal(seen, want) {
			t.Errorf("who watches sees the adapters %v, want %v", seen, want)
		}
		fail.Store(true)
		set()
		time.Sleep(5 * time.Second)
		fail.Store(false)
		set("c")
		time.Sleep(5 * time.Second)
		h.stop()
		h.stopped(0)
		want := []string{"a draining=false", "a+b draining=false", " draining=false", "c draining=false", "c draining=true"}
		if !slices.Equal(told, want) {
			t.Errorf("the store was told %q, want %q", told, want)
		}
		if got := h.config.Instance.Card.Adapters; !slices.Equal(got, []string{"a"}) {
			t.Errorf("the configured card has become %v", got)
		}
	})
}
