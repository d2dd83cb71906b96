// Package discoverytest holds the laws of discovery.Store as tests: each store
// passes Run. It is used by the tests of the stores and owns nothing.
package discoverytest

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/plane/discovery"
)

// Fixture is a store under test. Its cleanup is the opener's, by t.Cleanup.
type Fixture struct {
	// Store and Second are two handles to one backing, as two processes have.
	Store, Second discovery.Store
	// Abandon ends a registration as the death of its process would, without
	// Close.
	Abandon func(r discovery.Registration, i discovery.Instance)
	// Break makes the store unreadable, and Mend readable again, perhaps empty.
	// Both nil: it cannot be broken.
	Break, Mend func()
	// TTL is the longest time after which a death is noticed.
	TTL time.Duration
}

// Run tests the store that open returns, a new one each time.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, f Fixture)
	}{
		{"snapshot then deltas", testDeltas},
		{"content", testContent},
		{"prefix", testPrefix},
		{"invalid", testInvalid},
		{"taken", testTaken},
		{"restart", testRestart},
		{"death", testDeath},
		{"death and return", testDeathAndReturn},
		{"stale and fresh", testStale},
		{"death while stale", testDeathWhileStale},
		{"order", testOrder},
		{"many", testMany},
		{"concurrent registers", testConcurrent},
		{"no registration is missed", testRace},
		{"end", testEnd},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := goroutines()
			t.Run("", func(t *testing.T) { c.test(t, open(t)) })
			for deadline := time.Now().Add(wait); goroutines() > before; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%d goroutines before, %d after", before, goroutines())
				}
			}
		})
	}
}

var workers = discovery.Path{Namespace: "test", Component: "backend", Endpoint: "generate"}

// Instance makes an instance with every field set.
func Instance(id dynamo.WorkerID, epoch uint64) discovery.Instance {
	temperature, topK := 0.7, 40
	return discovery.Instance{
		Path: workers, ID: id, Epoch: epoch, Addresses: []string{"unix:///run/w.sock", fmt.Sprintf("tcp://127.0.0.1:%d", 1000+id%60000)},
		Host: "host-1", Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Version: "1.2.3",
		Card: &discovery.Card{
			Card: engine.Card{
				Model: "m", Engine: "echo", Revision: "abc", ContextLength: 4096, BlockSize: 16, VocabSize: 1000,
				EOS: []dynamo.TokenID{2, 3}, MaxTopLogprobs: 20, PromptLogprobs: true, Sampling: true, Resume: true, TextOnly: true, ResumeSeeded: true,
				Guided: []dynamo.GuidedKind{dynamo.GuidedChoice, dynamo.GuidedRegex}, NumericClass: "f32", Role: engine.RolePrefill, Adapters: []string{"ada", "bob"},
			},
			Format: discovery.CardFormat, Weights: "m-7", Vocabulary: "56ef", Tokenizer: discovery.Artifact{Name: "tokenizer.json", Digest: "12ab", Bytes: 12},
			Template: discovery.Artifact{Name: "chat_template.jinja", Digest: "34cd", Bytes: 34},
			Special:  map[string]string{"bos_token": "<s>"}, Ranks: 1, Labels: map[string]string{"zone": "a"},
			Capabilities: []string{"lora"}, MaxRunning: 8, MaxQueue: 16, KVBlocks: 128, StepTokens: 512, Migration: "replay",
			Sampling: discovery.Sampling{Temperature: &temperature, TopK: &topK},
		},
	}
}

// register registers i, to be closed with the test.
func register(t *testing.T, s discovery.Store, i discovery.Instance) discovery.Registration {
	t.Helper()
	r, err := s.Register(t.Context(), i)
	if err != nil {
		t.Fatalf("register %v epoch %d: %v", i.ID, i.Epoch, err)
	}
	t.Cleanup(func() { _ = r.Close() }) // a second Close at most, and the store may be broken
	return r
}

func deregister(t *testing.T, r discovery.Registration) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func testDeltas(t *testing.T, f Fixture) {
	a, b := Instance(1, 10), Instance(2, 10)
	w := follow(t, f.Second, workers).begin()
	w.has(wait)
	ra := register(t, f.Store, a)
	w.has(wait, a)
	rb := register(t, f.Second, b)
	w.has(wait, a, b)
	late := follow(t, f.Store, workers).begin()
	late.has(0, a, b)
	if want := []discovery.Kind{discovery.Snapshot}; !slices.Equal(late.kinds, want) {
		t.Errorf("a late watch began with %v, want %v", late.kinds, want)
	}
	deregister(t, ra)
	w.has(wait, b)
	late.has(wait, b)
	deregister(t, rb)
	deregister(t, rb)
	w.has(wait)
	if slices.Contains(w.kinds[1:], discovery.Snapshot) {
		t.Errorf("another snapshot without cause: %v", w.kinds)
	}
}

func testContent(t *testing.T, f Fixture) {
	i := Instance(0xfedcba9876543210, 1<<63+1)
	w := follow(t, f.Second, workers).begin()
	r := register(t, f.Store, i)
	w.has(wait, i)
	if got := w.view[i.Key()]; !reflect.DeepEqual(got, i) {
		t.Errorf("got  %+v card %+v\nwant %+v card %+v", got, got.Card, i, i.Card)
	}
	changed := i
	changed.Draining = true
	if err := r.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	w.until(wait, "the update", func() bool { return w.view[i.Key()].Draining })
	if slices.Contains(w.kinds, discovery.Delete) {
		t.Errorf("an update came as %v", w.kinds)
	}
	for _, other := range []discovery.Instance{Instance(i.ID, 5), Instance(6, i.Epoch)} {
		if err := r.Update(t.Context(), other); err == nil || dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("an update to another instance: %v", err)
		}
	}
	deregister(t, r)
	if err := r.Update(t.Context(), i); err == nil {
		t.Error("an update after Close is accepted")
	}
	w.has(wait)
	if bare := (discovery.Instance{Path: workers, ID: 3, Epoch: 1}); true {
		register(t, f.Store, bare)
		w.has(wait, bare)
		if got := w.view[bare.Key()]; got.Card != nil || len(got.Addresses) != 0 {
			t.Errorf("got %+v", got)
		}
	}
}

func testPrefix(t *testing.T, f Fixture) {
	at := func(p discovery.Path) discovery.Instance {
		i := Instance(1, 10)
		i.Path = p
		return i
	}
	a, b := at(discovery.Path{Namespace: "n", Component: "c", Endpoint: "e"}), at(discovery.Path{Namespace: "n", Component: "c", Endpoint: "e2"})
	c, d := at(discovery.Path{Namespace: "n", Component: "c2", Endpoint: "e"}), at(discovery.Path{Namespace: "n2", Component: "c", Endpoint: "e"})
	before := follow(t, f.Second, discovery.Path{Namespace: "n"}).begin()
	for _, i := range []discovery.Instance{a, b, c, d} {
		register(t, f.Store, i)
	}
	before.has(wait, a, b, c)
	for _, q := range []struct {
		path discovery.Path
		want []discovery.Instance
	}{
		{discovery.Path{}, []discovery.Instance{a, b, c, d}},
		{discovery.Path{Namespace: "n"}, []discovery.Instance{a, b, c}},
		{discovery.Path{Namespace: "n", Component: "c"}, []discovery.Instance{a, b}},
		{a.Path, []discovery.Instance{a}},
		{discovery.Path{Namespace: "n", Component: "nobody"}, nil},
	} {
		w := follow(t, f.Second, q.path).begin()
		if !w.equal(q.want) {
			t.Errorf("watch of %v shows %v, want %d instances", q.path, w.view, len(q.want))
		}
	}
}

func testInvalid(t *testing.T, f Fixture) {
	for _, c := range []struct {
		name  string
		spoil func(*discovery.Instance)
	}{
		{"no id", func(i *discovery.Instance) { i.ID = 0 }},
		{"no epoch", func(i *discovery.Instance) { i.Epoch = 0 }},
		{"no namespace", func(i *discovery.Instance) { i.Namespace = "" }},
		{"slash", func(i *discovery.Instance) { i.Component = "a/b" }},
		{"dots", func(i *discovery.Instance) { i.Endpoint = ".." }},
		{"too long", func(i *discovery.Instance) { i.Namespace = strings.Repeat("x", discovery.MaxNameBytes+1) }},
		{"address", func(i *discovery.Instance) { i.Addresses = []string{"localhost:1"} }},
		{"too large", func(i *discovery.Instance) {
			i.Card.Labels = map[string]string{"x": strings.Repeat("x", discovery.MaxInstanceBytes)}
		}},
	} {
		i := Instance(1, 1)
		c.spoil(&i)
		if r, err := f.Store.Register(t.Context(), i); err == nil {
			t.Errorf("%s: registered", c.name)
			_ = r.Close() // the test has failed already
		} else if dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("%s: kind %v of %v", c.name, dynamo.KindOf(err), err)
		}
	}
	follow(t, f.Second, workers).begin().has(0)
}

// refused checks that id is taken, and by whom the error says.
func refused(t *testing.T, s discovery.Store, i discovery.Instance, holder discovery.Instance) {
	t.Helper()
	r, err := s.Register(t.Context(), i)
	if err == nil {
		_ = r.Close() // the test fails anyway
		t.Fatal("a second live worker with the same id is accepted")
	}
	var e *dynamo.Error
	if !errors.As(err, &e) || e.Code != discovery.CodeTaken || e.Kind != dynamo.KindInvalid {
		t.Fatalf("the second worker is refused with %#v", err)
	}
	for _, part := range []string{holder.Addresses[1], "2026-01-02", "--worker-id"} {
		if !strings.Contains(e.Message, part) {
			t.Errorf("the refusal does not name %s: %s", part, e.Message)
		}
	}
}

func testTaken(t *testing.T, f Fixture) {
	a := Instance(1, 10)
	r := register(t, f.Store, a)
	w := follow(t, f.Second, workers).begin()
	refused(t, f.Second, Instance(1, 20), a)
	refused(t, f.Store, Instance(1, 20), a)
	refused(t, f.Second, a, a)
	elsewhere := Instance(1, 20)
	elsewhere.Endpoint = "prefill"
	register(t, f.Second, elsewhere)
	deregister(t, r)
	w.has(wait)
	b := Instance(1, 30)
	register(t, f.Second, b)
	w.has(wait, b)
}

func testRestart(t *testing.T, f Fixture) {
	w := follow(t, f.Second, workers).begin()
	for epoch := uint64(1); epoch <= 5; epoch++ {
		i := Instance(1, epoch)
		r := register(t, f.Store, i)
		w.has(wait, i)
		deregister(t, r)
	}
	w.has(wait)
}

func testDeath(t *testing.T, f Fixture) {
	a, b := Instance(1, 10), Instance(2, 10)
	r := register(t, f.Store, a)
	register(t, f.Second, b)
	w := follow(t, f.Second, workers).begin()
	w.has(0, a, b)
	f.Abandon(r, a)
	w.has(f.TTL+wait, b)
	follow(t, f.Store, workers).begin().has(f.TTL+wait, b)
}

func testDeathAndReturn(t *testing.T, f Fixture) {
	a, b := Instance(1, 10), Instance(1, 20)
	r := register(t, f.Store, a)
	w := follow(t, f.Second, workers).begin()
	f.Abandon(r, a)
	var err error
	for deadline := time.Now().Add(f.TTL + wait); ; time.Sleep(10 * time.Millisecond) {
		var again discovery.Registration
		if again, err = f.Second.Register(t.Context(), b); err == nil {
			t.Cleanup(func() { _ = again.Close() }) // the store ends it too
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the place of a dead worker is not given: %v", err)
		}
	}
	w.has(wait, b)
	if !slices.Contains(w.kinds, discovery.Delete) {
		t.Errorf("another epoch came without a delete: %v", w.kinds)
	}
	deregister(t, r) // the dead one's close must not harm its successor
	follow(t, f.Store, workers).begin().has(wait, b)
}

func breakable(t *testing.T, f Fixture) {
	if f.Break == nil {
		t.Skip("this store cannot be broken")
	}
}

func testStale(t *testing.T, f Fixture) {
	breakable(t, f)
	a, b := Instance(1, 10), Instance(2, 10)
	r := register(t, f.Store, a)
	register(t, f.Second, b)
	w := follow(t, f.Second, workers).begin()
	w.has(0, a, b)
	for range 2 {
		f.Break()
		w.until(wait, "stale", func() bool { return w.stale })
		w.has(0, a, b)
		if again, err := f.Store.Register(t.Context(), Instance(3, 10)); err == nil {
			_ = again.Close() // the test has failed already
			t.Error("a broken store registers")
		}
		f.Mend()
		w.until(wait+f.TTL, "fresh", func() bool { return !w.stale })
		w.has(wait+f.TTL, a, b)
	}
	if slices.Contains(w.kinds, discovery.Delete) {
		t.Errorf("somebody was deleted: %v", w.kinds)
	}
	f.Break()
	w.until(wait, "stale", func() bool { return w.stale })
	changed := a
	changed.Draining = true
	if err := r.Update(t.Context(), changed); err == nil {
		t.Error("an update of a broken store says that it is published")
	}
	f.Mend()
	w.until(wait+f.TTL, "what was updated meanwhile", func() bool { return w.view[a.Key()].Draining })
	w.has(wait+f.TTL, a, b)
	deregister(t, r)
	w.has(wait, b)
	c := Instance(3, 10)
	register(t, f.Store, c)
	w.has(wait, b, c)
}

func testDeathWhileStale(t *testing.T, f Fixture) {
	breakable(t, f)
	a, b, c := Instance(1, 10), Instance(2, 10), Instance(3, 10)
	ra, rc := register(t, f.Store, a), register(t, f.Store, c)
	register(t, f.Second, b)
	w := follow(t, f.Second, workers).begin()
	f.Break()
	w.until(wait, "stale", func() bool { return w.stale })
	f.Abandon(ra, a)
	_ = rc.Close() // the store cannot be told; that it comes to nothing shows below
	f.Mend()
	w.has(2*f.TTL+wait, b)
}

func testOrder(t *testing.T, f Fixture) {
	a := Instance(1, 10)
	r := register(t, f.Store, a)
	w := follow(t, f.Second, workers).begin()
	const last = 50
	for n := 1; n <= last; n++ {
		a.Version = fmt.Sprintf("%03d", n)
		if err := r.Update(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	seen := ""
	w.until(wait, "the last update", func() bool {
		now := w.view[a.Key()].Version
		if seen != "" && now < seen {
			t.Errorf("version %s after %s", now, seen)
		}
		if seen = now; now == "1.2.3" {
			seen = ""
		}
		return now == fmt.Sprintf("%03d", last)
	})
}

func testMany(t *testing.T, f Fixture) {
	const n = 200
	w := follow(t, f.Second, workers).begin()
	var all []discovery.Instance
	var regs []discovery.Registration
	for id := dynamo.WorkerID(1); id <= n; id++ {
		i := Instance(id, 10)
		all = append(all, i)
		regs = append(regs, register(t, f.Store, i))
	}
	w.has(wait, all...)
	late := follow(t, f.Second, workers).begin()
	late.has(0, all...)
	for _, r := range regs[n/2:] {
		deregister(t, r)
	}
	w.has(wait, all[:n/2]...)
	late.has(wait, all[:n/2]...)
}

func testConcurrent(t *testing.T, f Fixture) {
	const n = 8
	var won atomic.Int64
	var g sync.WaitGroup
	for k := range n {
		g.Go(func() {
			s := f.Store
			if k%2 == 1 {
				s = f.Second
			}
			r, err := s.Register(t.Context(), Instance(7, uint64(k+1)))
			switch {
			case err == nil:
				won.Add(1)
				t.Cleanup(func() { _ = r.Close() }) // the store ends it too
			case dynamo.KindOf(err) != dynamo.KindInvalid:
				t.Errorf("refused with %v", err)
			}
			own := Instance(dynamo.WorkerID(100+k), 1)
			if r, err := s.Register(t.Context(), own); err != nil {
				t.Errorf("register %v: %v", own.ID, err)
			} else {
				t.Cleanup(func() { _ = r.Close() }) // the store ends it too
			}
		})
	}
	g.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of %d registered the same id", won.Load(), n)
	}
	w := follow(t, f.Second, workers).begin()
	w.until(wait, "all", func() bool { return len(w.view) == n+1 })
}

// testRace registers while watches begin: each must come to see it.
func testRace(t *testing.T, f Fixture) {
	for id := dynamo.WorkerID(1); id <= 10; id++ {
		i := Instance(id, 10)
		var r discovery.Registration
		var g sync.WaitGroup
		g.Go(func() { r = register(t, f.Store, i) })
		w := follow(t, f.Second, workers)
		g.Wait()
		w.begin().has(wait, i)
		w.stop()
		deregister(t, r)
	}
}

func testEnd(t *testing.T, f Fixture) {
	r := register(t, f.Store, Instance(1, 1))
	w := follow(t, f.Second, workers).begin()
	w.stop()
	broken := 0
	for range f.Second.Watch(t.Context(), workers) {
		broken++
		break
	}
	if broken != 1 {
		t.Errorf("%d updates", broken)
	}
	watching := follow(t, f.Second, workers).begin()
	if err := f.Second.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-watching.ended:
	case <-time.After(wait):
		t.Fatal("a watch goes on after Close")
	}
	if _, err := f.Second.Register(t.Context(), Instance(2, 1)); err == nil {
		t.Error("a closed store registers")
	}
	for range f.Second.Watch(t.Context(), workers) {
		t.Error("a closed store is watched")
		break
	}
	other := follow(t, f.Store, workers).begin()
	other.has(wait, Instance(1, 1))
	_ = r.Close() // the store's Close is what is tested
	if err := f.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Store.Close(); err != nil {
		t.Fatalf("a second Close: %v", err)
	}
}
