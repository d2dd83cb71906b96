package etcd_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/discovery/discoverytest"
	"github.com/dynamo-go/dynamo/plane/discovery/etcd"
)

// patience bounds what has no other bound in these tests.
const patience = 15 * time.Second

// noticeMax is how long a stopped etcd may stay unnoticed, with what a loaded
// machine adds.
const noticeMax = 3500 * time.Millisecond

// follow runs a watch of everything until the test ends.
func follow(t *testing.T, s discovery.Store) <-chan discovery.Update {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, ended := make(chan discovery.Update, 4096), make(chan struct{})
	go func() { // ends with ctx
		defer close(ended)
		for u := range s.Watch(ctx, discovery.Path{}) {
			c <- u
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return c
}

// next waits for an update that fits, and returns it and how long it took.
func next(t *testing.T, c <-chan discovery.Update, within time.Duration, what string, fits func(discovery.Update) bool) (discovery.Update, time.Duration) {
	t.Helper()
	begin := time.Now()
	timer := time.NewTimer(within)
	defer timer.Stop()
	var seen []discovery.Kind
	for {
		select {
		case u := <-c:
			if fits(u) {
				return u, time.Since(begin)
			}
			seen = append(seen, u.Kind)
		case <-timer.C:
			t.Fatalf("no %s within %v, but %v", what, within, seen)
		}
	}
}

func is(k discovery.Kind) func(discovery.Update) bool {
	return func(u discovery.Update) bool { return u.Kind == k }
}

// shows accepts an update that tells of id as present.
func shows(id dynamo.WorkerID) func(discovery.Update) bool {
	return func(u discovery.Update) bool {
		return (u.Kind == discovery.Put || u.Kind == discovery.Snapshot) && slices.ContainsFunc(u.Instances, func(i discovery.Instance) bool { return i.ID == id })
	}
}

func register(t *testing.T, s discovery.Store, id dynamo.WorkerID) discovery.Registration {
	t.Helper()
	r, err := s.Register(t.Context(), discoverytest.Instance(id, 10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // the store ends it too
	return r
}

// raw returns a client beside the store, and the key of the instance id.
func raw(t *testing.T, s *server, id dynamo.WorkerID) (*clientv3.Client, string) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.address}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // nothing is in flight
	i := discoverytest.Instance(id, 1)
	return c, fmt.Sprintf("/dynamo/instances/%v/%v", i.Path, id)
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, value); err != nil {
		t.Fatal(err)
	}
}

// A frozen etcd keeps its connections: only silence tells.
func TestFrozen(t *testing.T) {
	e := start(t)
	store := open(t, e.name())
	c := follow(t, open(t, e.name()))
	next(t, c, patience, "snapshot", is(discovery.Snapshot))
	begin := time.Now()
	register(t, store, 1)
	registered := time.Since(begin)
	_, seen := next(t, c, patience, "put", shows(1))
	t.Logf("register %v, seen %v later", registered, seen)

	e.freeze()
	_, noticed := next(t, c, patience, "stale", is(discovery.Stale))
	if noticed > noticeMax {
		t.Errorf("noticed after %v, want %v", noticed, noticeMax)
	}
	begin = time.Now()
	if _, err := store.Register(t.Context(), discoverytest.Instance(2, 1)); err == nil || dynamo.KindOf(err) != dynamo.KindUnavailable {
		t.Errorf("register with a frozen etcd: %v", err)
	}
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("register with a frozen etcd fails after %v", took)
	}
	e.thaw() // after more than ttl: the lease has ended while nobody could say so
	_, fresh := next(t, c, patience, "fresh", is(discovery.Fresh))
	register(t, store, 3)
	next(t, c, patience, "new instance", shows(3))
	client, key := raw(t, e, 1)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if got, err := client.Get(t.Context(), key); err == nil && got.Count == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lost instance does not come back")
		}
	}
	next(t, follow(t, store), patience, "lost instance", shows(1))
	t.Logf("frozen: noticed after %v, fresh %v after it thawed", noticed, fresh)
}

// A killed etcd that comes back empty gets everything again.
func TestEmptied(t *testing.T) {
	e := start(t)
	store := open(t, e.name())
	c := follow(t, open(t, e.name()))
	register(t, store, 1)
	next(t, c, patience, "instance", shows(1))
	begin := time.Now()
	e.kill()
	next(t, c, patience, "stale", is(discovery.Stale))
	noticed := time.Since(begin)
	e.wipe()
	e.begin()
	_, fresh := next(t, c, patience, "fresh", is(discovery.Fresh))
	_, back := next(t, c, patience, "instance again", shows(1))
	t.Logf("killed: noticed after %v, fresh %v after it served, instance %v later", noticed, fresh, back)
}

func TestUnreachable(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	begin := time.Now()
	_, err = etcd.Open("etcd://"+l.Addr().String(), config())
	if err == nil {
		t.Fatal("opened")
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("Open fails after %v", took)
	}
	if dynamo.KindOf(err) != dynamo.KindUnavailable {
		t.Errorf("kind %v", dynamo.KindOf(err))
	}
	for _, part := range []string{l.Addr().String(), "--discovery-backend"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not name %s: %v", part, err)
		}
	}
}

// Endpoints that refuse or never answer are passed over.
func TestEndpoints(t *testing.T) {
	e := start(t)
	var others [2]string
	for n := range others {
		l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never answers
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if others[n] = l.Addr().String(); n == 0 {
			_ = l.Close() // nobody is there then
		}
	}
	store := open(t, "etcd://"+others[0]+","+others[1]+","+e.address)
	c := follow(t, store)
	next(t, c, patience, "snapshot", is(discovery.Snapshot))
	register(t, store, 1)
	next(t, c, patience, "instance", shows(1))
	e.kill()
	next(t, c, patience, "stale", is(discovery.Stale))
	e.begin()
	next(t, c, patience, "fresh", is(discovery.Fresh))
}

// A consumer that was away for so long that etcd has compacted what it missed is
// told that its view is stale, and gets another snapshot.
func TestCompaction(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 4000 entries")
	}
	e := start(t)
	client, _ := raw(t, e, 1)
	store := open(t, e.name())
	gate := make(chan struct{})
	var kinds []discovery.Kind
	var g sync.WaitGroup
	g.Go(func() {
		for u := range store.Watch(t.Context(), discovery.Path{}) {
			kinds = append(kinds, u.Kind)
			if len(kinds) == 1 {
				gate <- struct{}{} // the snapshot is there
				<-gate             // the consumer is away
			}
			if len(kinds) > 1 && shows(1)(u) {
				return
			}
		}
	})
	<-gate
	const writers, each = 8, 500 // more than etcd and the connection hold back
	var w sync.WaitGroup
	for n := range writers {
		w.Go(func() {
			for k := range each {
				if _, err := client.Put(t.Context(), fmt.Sprintf("/dynamo/instances/test/%d", n), strings.Repeat("x", 4000)+strconv.Itoa(k)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	w.Wait()
	last, err := client.Put(t.Context(), "elsewhere", "")
	if err == nil {
		_, err = client.Compact(t.Context(), last.Header.Revision)
	}
	if err != nil {
		t.Error(err)
	}
	register(t, store, 1)
	gate <- struct{}{}
	g.Wait()
	i := slices.Index(kinds, discovery.Stale)
	if i < 0 || !slices.Equal(kinds[i:min(i+3, len(kinds))], []discovery.Kind{discovery.Stale, discovery.Fresh, discovery.Snapshot}) {
		t.Errorf("%d updates without stale, fresh, snapshot", len(kinds))
	}
}

// Entries that are no instances are reported once, and harm nobody.
func TestBadEntries(t *testing.T) {
	e := start(t)
	client, key := raw(t, e, 1)
	const dir = "/dynamo/instances/test/backend/generate/"
	good, err := discovery.EncodeInstance(discoverytest.Instance(5, 1))
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string]string{
		dir + "garbage":          "\x00\xff{",
		dir + "empty":            "",
		dir + "00000000000000aa": strings.Replace(string(good), `"format":1`, `"format":2`, 1),
		dir + "00000000000000ab": string(good),                                      // another's
		dir + "00000000000000ac": strings.Repeat("x", discovery.MaxInstanceBytes+1), // etcd itself refuses more than 1.5 MiB
		"/dynamo/instances/test": "no path",
	}
	for k, v := range bad {
		put(t, client, k, v)
	}
	put(t, client, dir+discoverytest.Instance(5, 1).ID.String(), string(good))
	c := follow(t, open(t, e.name()))
	u, _ := next(t, c, patience, "snapshot", is(discovery.Snapshot))
	if len(u.Instances) != 1 || u.Instances[0].ID != 5 {
		t.Errorf("the snapshot has %d instances, want the good one", len(u.Instances))
	}
	if len(u.Problems) != len(bad) {
		t.Errorf("%d problems, want %d: %v", len(u.Problems), len(bad), u.Problems)
	}
	for _, err := range u.Problems {
		if !strings.Contains(err.Error(), "/dynamo/instances/test") || !strings.Contains(err.Error(), e.address) || len(err.Error()) > 1000 {
			t.Errorf("a problem that does not say where it is: %.200v", err)
		}
	}

	store := open(t, e.name())
	register(t, store, 1)
	next(t, c, patience, "instance", shows(1))
	put(t, client, key, "overwritten")
	next(t, c, patience, "delete", is(discovery.Delete))
	u, _ = next(t, c, patience, "problem", is(discovery.Put))
	if len(u.Problems) != 1 || len(u.Instances) != 0 {
		t.Errorf("overwritten: %v", u)
	}
	next(t, c, patience, "instance again", shows(1))
	if _, err := client.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	next(t, c, patience, "delete", is(discovery.Delete))
	next(t, c, patience, "instance after its key was deleted", shows(1))

	e.kill()
	next(t, c, patience, "stale", is(discovery.Stale))
	e.begin()
	u, _ = next(t, c, patience, "snapshot", is(discovery.Snapshot))
	if len(u.Problems) != 0 {
		t.Errorf("reported again: %v", u.Problems)
	}
}

// A server that wants a password gets it, also from streams, and says so to
// those that have none.
func TestPassword(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 5 s")
	}
	e := start(t)
	client, _ := raw(t, e, 1)
	ctx := t.Context()
	for _, step := range []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", "p@ss:word"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"", "root:wrong@"} {
		_, err := etcd.Open("etcd://"+user+e.address, config())
		if err == nil || dynamo.KindOf(err) != dynamo.KindInvalid || strings.Contains(err.Error(), "wrong@") {
			t.Errorf("open as %q: %v", user, err)
		}
	}
	name := "etcd://root:p%40ss%3Aword@" + e.address
	store := open(t, name)
	c := follow(t, store)
	register(t, store, 1)
	next(t, c, patience, "instance", shows(1))
	e.kill() // its tokens are lost
	next(t, c, patience, "stale", is(discovery.Stale))
	e.begin()
	next(t, c, patience, "fresh", is(discovery.Fresh))
	next(t, c, patience, "instance", shows(1))
	register(t, store, 2)
	next(t, c, patience, "instance", shows(2))
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"etcd", "http://127.0.0.1:2379"},
		{"etcd://h:1", "http://h:1"},
		{"etcd://h:1/", "http://h:1"},
		{"etcd://h:1,[::1]:2", "http://h:1 http://[::1]:2"},
		{"etcds://h:1", "https://h:1"},
		{"etcd://u:p%40:x@h:1", "http://h:1 u p@:x"},
	} {
		endpoints, user, password, err := etcd.ParseName(c.name)
		got := strings.TrimSpace(strings.Join(append(endpoints, user, password), " "))
		if err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", c.name, got, err, c.want)
		}
	}
	for _, name := range []string{"", "etcd:", "etcd://", "etcd://h", "etcd://h:0", "etcd://h:http", "etcd://:1", "etcd://h:1,", "http://h:1", "etcd://secret@h:1", "etcd://u:%zz@h:1", "etcd://h:1/path"} {
		_, _, _, err := etcd.ParseName(name)
		if err == nil || dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "--discovery-backend") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A Close is seen at once, long before the lease ends.
func TestClose(t *testing.T) {
	e := start(t)
	store, err := etcd.Open(e.name(), discovery.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	c := follow(t, store)
	for id, end := range []func(discovery.Registration) error{
		func(r discovery.Registration) error { return r.Close() },
		func(discovery.Registration) error { return store.Close() },
	} {
		other := follow(t, open(t, e.name()))
		r := register(t, store, dynamo.WorkerID(id+1))
		next(t, c, patience, "instance", shows(dynamo.WorkerID(id+1)))
		next(t, other, patience, "instance", shows(dynamo.WorkerID(id+1)))
		if err := end(r); err != nil {
			t.Fatal(err)
		}
		next(t, other, 3*time.Second, "delete", is(discovery.Delete))
	}
}

// Another life under the same key is another instance, however it came there.
func TestEpoch(t *testing.T) {
	e := start(t)
	client, key := raw(t, e, 1)
	c := follow(t, open(t, e.name()))
	next(t, c, patience, "snapshot", is(discovery.Snapshot))
	for epoch := uint64(1); epoch <= 2; epoch++ {
		value, err := discovery.EncodeInstance(discoverytest.Instance(1, epoch))
		if err != nil {
			t.Fatal(err)
		}
		put(t, client, key, string(value))
	}
	next(t, c, patience, "first life", shows(1))
	u, _ := next(t, c, patience, "its end", func(discovery.Update) bool { return true })
	if u.Kind != discovery.Delete || u.Instances[0].Epoch != 1 {
		t.Errorf("got %v, want the delete of epoch 1", u)
	}
	next(t, c, patience, "second life", shows(1))
}

// Nothing runs after Close, of this package or of the client library.
func TestNothingStays(t *testing.T) {
	e := start(t)
	before := runtime.NumGoroutine()
	store, err := etcd.Open(e.name(), config())
	if err != nil {
		t.Fatal(err)
	}
	connected := runtime.NumGoroutine()
	for id := dynamo.WorkerID(1); id <= 5; id++ {
		r := register(t, store, id)
		i := discoverytest.Instance(id, 10)
		if err := r.Update(t.Context(), i); err != nil { // renews the lease
			t.Fatal(err)
		}
		for u := range store.Watch(t.Context(), discovery.Path{}) {
			if shows(id)(u) {
				break
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	settle(t, connected+1) // the connection may have been in the making
	register(t, store, 1)
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	settle(t, before)
}

// settle waits until no more than n goroutines run.
func settle(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(patience / 3); runtime.NumGoroutine() > n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, want %d:\n%s", runtime.NumGoroutine(), n, stacks[:runtime.Stack(stacks, true)])
		}
	}
}
