package eventtest

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/event"
)

// source is the worker's, in whichever life.
func (f Fixture) source() event.Source { return event.Source{Topic: topic, Worker: f.Worker} }

// Events arrive in order, each once, while they are published.
func testOrder(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ring: 5000})
	attach(t, f, r)
	m := newMirror(t)
	follow(t, f, f.source(), m)
	m.wait("first contact", func() bool { return m.count(event.Reset) > 0 })
	for range 40 {
		r.some(100)
		runtime.Gosched()
	}
	m.equals(r)
	if got := m.count(event.Event); got != 4000 {
		t.Errorf("got %d events, want 4000", got)
	}
	if got := m.count(event.Reset); got != 1 {
		t.Errorf("got %d resets, want 1", got)
	}
}

// Who comes late begins with a snapshot and goes on with events.
func testLateJoiner(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ring: 10})
	attach(t, f, r)
	r.some(500)
	m := newMirror(t)
	follow(t, f, f.source(), m)
	m.equals(r)
	if got := m.count(event.Snapshot); got != 23 {
		t.Errorf("got %d parts of a snapshot, want 23", got)
	}
	r.some(5)
	m.equals(r)
	if got := m.count(event.Event); got != 5 {
		t.Errorf("got %d events, want 5", got)
	}
}

// Without snapshots what the ring holds is all there is, and the Reset says so.
func testNoSnapshot(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ring: 10, noSnapshot: true})
	attach(t, f, r)
	r.some(500)
	m := newMirror(t)
	follow(t, f, f.source(), m)
	_, at := r.state()
	m.wait("catching up", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.mu.at == at
	})
	if got := m.count(event.Event); got != 10 {
		t.Errorf("got %d events, want the ring's 10", got)
	}
	if got := m.count(event.Snapshot); got != 0 {
		t.Errorf("got %d parts of a snapshot, want none", got)
	}
}

// A position that the ring leads on from needs no Reset.
func testGoesOn(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{})
	attach(t, f, r)
	r.some(100)
	m := newMirror(t)
	m.resume(r)
	from := m.mu.at
	r.some(200)
	subscribe(t, f, f.source(), from, func(d event.Delivery) bool {
		if err := m.apply(d); err != nil {
			t.Error(err)
		}
		return d.Seq < 300
	})
	m.equals(r)
	if got := m.count(event.Event); got != 200 {
		t.Errorf("got %d events, want 200", got)
	}
	if got := m.count(event.Reset) + m.count(event.Gap); got != 0 {
		t.Errorf("got %d gaps and resets, want none", got)
	}
}

// subscribe reads until more returns false.
func subscribe(t *testing.T, f Fixture, src event.Source, from event.Position, more func(event.Delivery) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for d, err := range f.Subscribe.Subscribe(ctx, src, from) {
		if err != nil {
			t.Fatalf("subscription from %+v: %v", from, err)
		}
		if !more(d) {
			return
		}
	}
}

// A position that the ring has left behind is told: a Gap, a Reset, a snapshot.
func testOvertaken(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ring: 50})
	attach(t, f, r)
	r.some(100)
	m := newMirror(t)
	m.resume(r)
	from := m.mu.at
	r.some(500)
	var kinds []event.Kind
	subscribe(t, f, f.source(), from, func(d event.Delivery) bool {
		kinds = append(kinds, d.Kind)
		if err := m.apply(d); err != nil {
			t.Error(err)
		}
		return d.Seq < 600 || d.Kind == event.Gap || !d.Last && d.Kind != event.Event
	})
	m.equals(r)
	if len(kinds) < 3 || kinds[0] != event.Gap || kinds[1] != event.Reset || kinds[2] != event.Snapshot {
		t.Errorf("got kinds %v, want gap, reset, snapshot …", kinds)
	}
}

// A subscriber that does not read holds nobody up; the ring overtakes it, and it
// ends where the publisher is all the same.
func testLagging(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ring: 200, ringBytes: 256 << 10})
	attach(t, f, r)
	m := newMirror(t)
	value := strings.Repeat("x", 1000)
	published := false
	subscribe(t, f, f.source(), event.Position{}, func(d event.Delivery) bool {
		if err := m.apply(d); err != nil {
			t.Error(err)
		}
		if !published { // in the subscriber's goroutine, which does not read meanwhile
			published = true
			for i := range uint64(20000) {
				r.set(i%50, value)
			}
			r.set(1, "last")
		}
		_, at := r.state()
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.mu.at != at || m.mu.inSnapshot
	})
	m.equals(r)
	if got := m.count(event.Event); got >= 20000 {
		t.Errorf("got %d events: somebody kept what the ring had dropped", got)
	}
	if got := m.count(event.Reset); got < 2 {
		t.Errorf("got %d resets, want one for the start and one for what was missed", got)
	}
}

// An event that is too large for the ring is a hole that leads to a snapshot.
func testDropped(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ringBytes: 4096})
	attach(t, f, r)
	m := newMirror(t)
	follow(t, f, f.source(), m)
	r.some(5)
	m.equals(r)
	gaps := m.count(event.Gap)
	r.set(100, strings.Repeat("big", 10000))
	m.equals(r)
	r.some(5)
	m.equals(r)
	if got := m.count(event.Gap) - gaps; got != 1 {
		t.Errorf("got %d gaps, want 1", got)
	}
}

// Another life of the publisher begins with a Reset.
func testRestart(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{epoch: 7})
	detach := attach(t, f, r)
	m := newMirror(t)
	follow(t, f, f.source(), m)
	r.some(100)
	m.equals(r)
	detach()
	r = newRegister(t, f.Worker, options{epoch: 3}) // lives are not ordered
	r.some(100)                                     // the same numbers
	attach(t, f, r)
	m.equals(r)
	r.some(10)
	m.equals(r)
	if got := m.count(event.Reset); got < 2 {
		t.Errorf("got %d resets, want one for each life", got)
	}
}

// Who asks for one life gets nothing of another.
func testOtherLife(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{epoch: 7})
	attach(t, f, r)
	r.some(10)
	src := f.source()
	src.Epoch = 6
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for d, err := range f.Subscribe.Subscribe(ctx, src, event.Position{}) {
		if err == nil {
			t.Errorf("got %v %d of life %d, want an error", d.Kind, d.Seq, d.Source.Epoch)
			return
		}
		if got, want := dynamo.KindOf(err), dynamo.KindUnavailable; got != want {
			t.Errorf("got %v (%v), want %v", got, err, want)
		}
	}
}

// A cut that the ring outlasts costs nothing but time.
func testCutWithinRing(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{})
	attach(t, f, r)
	m := newMirror(t)
	follow(t, f, f.source(), m)
	r.some(100)
	m.equals(r)
	for range 3 {
		f.Cut()
		r.some(100)
		f.Mend()
		r.some(20)
		m.equals(r)
	}
	if got := m.count(event.Reset); got != 1 {
		t.Errorf("got %d resets, want 1", got)
	}
	if got := m.count(event.Event) + m.count(event.Snapshot); got < 360 {
		t.Errorf("got %d events and parts, want 360 events or as many less as the snapshot holds", got)
	}
}

// A cut that the ring does not outlast is repaired by a snapshot.
func testCutBeyondRing(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ring: 50})
	attach(t, f, r)
	m := newMirror(t)
	follow(t, f, f.source(), m)
	r.some(20)
	m.equals(r)
	f.Cut()
	r.some(500)
	f.Mend()
	m.equals(r)
	r.some(20)
	m.equals(r)
	if got := m.count(event.Reset); got < 2 {
		t.Errorf("got %d resets, want one for the start and one for what was missed", got)
	}
	if got := m.count(event.Gap); got < 1 {
		t.Errorf("got %d gaps, want what was missed told", got)
	}
}

// Payloads far above a batch come whole, as events and as parts of a snapshot.
func testBigPayloads(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ringBytes: 32 << 20})
	attach(t, f, r)
	r.set(1, strings.Repeat("snapshot", 400_000))
	m := newMirror(t)
	follow(t, f, f.source(), m)
	m.equals(r)
	for i, n := range []int{0, 1, 100, event.BatchBytes - 30, event.BatchBytes, 1 << 20, 5_000_000} {
		r.set(uint64(i), strings.Repeat("e", n))
	}
	m.equals(r)
	if got := m.count(event.Reset); got != 1 {
		t.Errorf("got %d resets, want 1", got)
	}
}

// Subscribers do not get into each other's way.
func testManySubscribers(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ring: 10000})
	attach(t, f, r)
	var all []*mirror
	for i := range 40 {
		if i%2 == 0 {
			r.some(20)
		}
		m := newMirror(t)
		follow(t, f, f.source(), m)
		all = append(all, m)
	}
	for range 20 {
		r.some(50)
		runtime.Gosched()
	}
	for _, m := range all {
		m.equals(r)
		if got := m.count(event.Reset); got != 1 {
			t.Errorf("got %d resets, want 1", got)
		}
	}
}

// A subscription that ends, by its consumer or its context, leaves nothing behind.
func testUnsubscribe(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{})
	detach := attach(t, f, r)
	r.some(10)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel() // long after the loops below are left
	leave := func(after int) {
		for _, err := range f.Subscribe.Subscribe(ctx, f.source(), event.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			if after--; after <= 0 {
				return
			}
		}
	}
	subscribe(t, f, f.source(), event.Position{}, func(event.Delivery) bool { return false })
	before := runtime.NumGoroutine()
	for i := range 50 {
		leave(i % 12)
		m := newMirror(t)
		stop := follow(t, f, f.source(), m)
		m.equals(r)
		stop()
	}
	settles(t, "goroutines", func() bool { return runtime.NumGoroutine() <= before })
	detach()
}

// settles waits for what happens by itself.
func settles(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range int(patience / (10 * time.Millisecond)) {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%s: not what they must be after %v", what, patience)
}

// Detaching a publisher ends its subscriptions, those that do not read, too.
func testDetach(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{ringBytes: 64 << 20})
	detach := attach(t, f, r)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var failed error
	first := true
	for _, err := range f.Subscribe.Subscribe(ctx, f.source(), event.Position{}) {
		failed = err
		if first {
			first = false
			for range 20 {
				r.set(1, strings.Repeat("x", 1<<20)) // more than a carrier holds
			}
			done := make(chan struct{})
			go func() {
				detach()
				close(done)
			}()
			select {
			case <-done:
			case <-ctx.Done():
				t.Fatal("detach waits for a subscriber that does not read")
			}
		}
	}
	if failed == nil || ctx.Err() != nil {
		t.Fatalf("got %v, want the subscription to end by itself with an error", failed)
	}
	if got, want := dynamo.KindOf(failed), dynamo.KindUnavailable; got != want {
		t.Errorf("got %v (%v), want %v", got, failed, want)
	}
}

// A subscriber that waits for the next event hears that there will be none.
func testDetachIdle(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{})
	detach := attach(t, f, r)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var failed error
	for d, err := range f.Subscribe.Subscribe(ctx, f.source(), event.Position{}) {
		switch failed = err; {
		case err == nil && d.Kind == event.Reset:
			r.some(1) // comes when the subscriber is waiting
		case err == nil && d.Kind == event.Event:
			detach()
		}
	}
	if failed == nil || ctx.Err() != nil {
		t.Fatalf("got %v, want the subscription to end by itself with an error", failed)
	}
	if got, want := dynamo.KindOf(failed), dynamo.KindUnavailable; got != want {
		t.Errorf("got %v (%v), want %v", got, failed, want)
	}
}

// A source that nobody publishes is an error, not a wait.
func testNobody(t *testing.T, f Fixture) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var failed error
	for d, err := range f.Subscribe.Subscribe(ctx, f.source(), event.Position{}) {
		if failed = err; err == nil {
			t.Errorf("got %v, want an error", d.Kind)
			return
		}
	}
	if failed == nil || ctx.Err() != nil {
		t.Errorf("got %v, want an error at once", failed)
	}
}

// A bus has one publisher of a source at a time.
func testAttachTwice(t *testing.T, f Fixture) {
	r := newRegister(t, f.Worker, options{})
	detach := attach(t, f, r)
	if _, err := f.Publish.Attach(r.p); dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("attached twice: got %v, want %v", err, dynamo.KindInvalid)
	}
	detach()
	attach(t, f, r)
}
