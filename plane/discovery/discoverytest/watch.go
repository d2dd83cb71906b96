package discoverytest

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/plane/discovery"
)

// wait is how long anything may take that is not the noticing of a death.
const wait = 10 * time.Second

// watch follows a store in a goroutine of its own and applies the updates in the
// test's, where it checks the laws that hold for any sequence of them.
type watch struct {
	t       *testing.T
	updates chan discovery.Update
	cancel  context.CancelFunc
	ended   chan struct{}

	view     map[discovery.Key]discovery.Instance
	begun    bool
	stale    bool
	fresh    bool // a snapshot must follow
	kinds    []discovery.Kind
	problems []error
}

// follow begins a watch, which ends with the test or with stop.
func follow(t *testing.T, s discovery.Store, p discovery.Path) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watch{t: t, updates: make(chan discovery.Update, 4096), cancel: cancel, ended: make(chan struct{}), view: map[discovery.Key]discovery.Instance{}}
	go func() { // ends with ctx
		defer close(w.ended)
		for u := range s.Watch(ctx, p) {
			w.updates <- u
		}
	}()
	t.Cleanup(w.stop)
	return w
}

func (w *watch) stop() {
	w.cancel()
	<-w.ended
}

// apply takes in one update.
func (w *watch) apply(u discovery.Update) {
	w.t.Helper()
	w.kinds = append(w.kinds, u.Kind)
	w.problems = append(w.problems, u.Problems...)
	if !w.begun && u.Kind != discovery.Snapshot && u.Kind != discovery.Stale && u.Kind != discovery.Fresh {
		w.t.Errorf("%v before the first snapshot", u.Kind)
	}
	if w.stale && u.Kind != discovery.Fresh && len(u.Instances) > 0 {
		w.t.Errorf("%v of %d instances while stale", u.Kind, len(u.Instances))
	}
	if w.fresh && u.Kind != discovery.Snapshot {
		w.t.Errorf("%v after fresh, want snapshot", u.Kind)
	}
	w.fresh = u.Kind == discovery.Fresh
	switch u.Kind {
	case discovery.Snapshot:
		w.begun = true
		clear(w.view)
		for _, i := range u.Instances {
			w.view[i.Key()] = i
		}
	case discovery.Put:
		for _, i := range u.Instances {
			if old, ok := w.view[i.Key()]; ok && old.Epoch != i.Epoch {
				w.t.Errorf("put of %v epoch %d before the delete of epoch %d", i.ID, i.Epoch, old.Epoch)
			}
			w.view[i.Key()] = i
		}
	case discovery.Delete:
		for _, i := range u.Instances {
			if old, ok := w.view[i.Key()]; !ok || old.Epoch != i.Epoch {
				w.t.Errorf("delete of %v epoch %d, which is not in the view", i.ID, i.Epoch)
			}
			delete(w.view, i.Key())
		}
	case discovery.Stale:
		if w.stale {
			w.t.Error("stale twice")
		}
		w.stale = true
	case discovery.Fresh:
		if !w.stale {
			w.t.Error("fresh while not stale")
		}
		w.stale = false
	}
}

// until applies updates until done holds.
func (w *watch) until(limit time.Duration, what string, done func() bool) {
	w.t.Helper()
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for !done() {
		select {
		case u := <-w.updates:
			w.apply(u)
		case <-w.ended:
			w.t.Fatalf("the watch ended before %s", what)
		case <-timeout.C:
			w.t.Fatalf("not within %v: %s; the view has %d instances, the kinds were %v", limit, what, len(w.view), w.kinds)
		}
	}
}

// begin waits for the first snapshot.
func (w *watch) begin() *watch {
	w.t.Helper()
	w.until(wait, "the first snapshot", func() bool { return w.begun })
	return w
}

// has waits until the view is exactly these ids.
func (w *watch) has(limit time.Duration, want ...discovery.Instance) {
	w.t.Helper()
	w.until(limit, "the expected set", func() bool { return w.equal(want) })
}

func (w *watch) equal(want []discovery.Instance) bool {
	if len(want) != len(w.view) || w.fresh {
		return false
	}
	return !slices.ContainsFunc(want, func(i discovery.Instance) bool {
		got, ok := w.view[i.Key()]
		return !ok || got.Epoch != i.Epoch
	})
}

// goroutines counts those that run code of discovery.
func goroutines() int {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	n := 0
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "dynamo/plane/discovery") {
			n++
		}
	}
	return n
}
