package transfer_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/transfer"
)

// TestHearing: what several peers tell on several paths is heard once, whoever waits for
// it and however often waiting is given up, in the order of each peer where one waits;
// and leases end while nobody does.
func TestHearing(t *testing.T) {
	if !hasShm(t) {
		t.Skip("no shared memory on this system")
	}
	for _, waiters := range []int{1, 3} {
		t.Run(fmt.Sprint(waiters), func(t *testing.T) { hearing(t, waiters) })
	}
}

// told is what was heard, by peer.
type told struct {
	sync.Mutex
	all  map[string][]string
	news map[string]chan struct{} // of one peer
	left int
	over context.CancelFunc
}

// until waits until so many notifications of a peer were heard.
func (h *told) until(ctx context.Context, peer string, n int) {
	for ctx.Err() == nil {
		h.Lock()
		got := len(h.all[peer])
		h.Unlock()
		if got >= n {
			return
		}
		select {
		case <-h.news[peer]:
		case <-ctx.Done():
		}
	}
}

// wait fetches notifications, and gives up every now and then.
func (h *told) wait(ctx context.Context, a *transfer.Agent, patience time.Duration) {
	for ctx.Err() == nil {
		some, cancel := context.WithTimeout(ctx, patience)
		n, err := a.Notification(some)
		cancel()
		if err != nil {
			continue
		}
		h.Lock()
		h.all[n.Name] = append(h.all[n.Name], string(n.Payload))
		if h.left--; h.left == 0 {
			h.over()
		}
		h.Unlock()
		select {
		case h.news[n.Name] <- struct{}{}:
		default: // it is there
		}
	}
}

func hearing(t *testing.T, waiters int) {
	const each = 300
	process, dir := transfer.NewProcess(), t.TempDir()
	c := config(t, "owner", transfer.PathTCP, nil, "")
	c.SocketDir, c.Process = dir, process
	owner, _ := start(t, c)
	m := memory(t, owner, transfer.Section{Name: "kv", PageBytes: 4096}, 64<<10)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	paths := []transfer.Path{transfer.PathLocal, transfer.PathShm, transfer.PathShm, transfer.PathTCP}
	h := &told{all: map[string][]string{}, news: map[string]chan struct{}{}, left: each * len(paths), over: cancel}
	finish := make([]func() error, len(paths))
	var all sync.WaitGroup
	for i := range paths {
		h.news[fmt.Sprint("peer-", i)] = make(chan struct{}, 1)
	}
	for i, path := range paths {
		name := fmt.Sprint("peer-", i)
		a, _ := start(t, config(t, name, path, process, dir))
		all.Go(func() {
			var err error
			if finish[i], err = h.tell(ctx, a, name, owner.Export(), m, int64(i)*4096, each); err != nil {
				finish[i] = func() error { return nil }
				t.Errorf("%s by %s: %v", name, path, err)
				cancel()
			}
		})
	}
	for i := range waiters {
		patience := time.Duration(i+1) * 300 * time.Microsecond
		if waiters == 1 {
			patience = time.Hour // so that it depends on being woken
		}
		all.Go(func() { h.wait(ctx, owner, patience) })
	}
	all.Wait()
	for i := range paths {
		if err := finish[i](); err != nil {
			t.Errorf("peer %d: %v", i, err)
		}
		got := h.all[fmt.Sprint("peer-", i)]
		seen := map[string]bool{}
		for k, s := range got {
			seen[s] = true
			if waiters == 1 && s != fmt.Sprint(k) {
				t.Fatalf("peer %d: notification %d is %q", i, k, s)
			}
		}
		if len(got) != each || len(seen) != each {
			t.Errorf("peer %d: %d notifications came, %d different; want %d", i, len(got), len(seen), each)
		}
	}
}

// tell posts notifications, and waits for the hearing of some, so that those who hear
// sleep in between. What it returns ends the lease that it wrote to.
func (h *told) tell(ctx context.Context, a *transfer.Agent, name string, blob []byte, m *transfer.Memory, at int64, each int) (finish func() error, err error) {
	lease, err := m.Lend(transfer.Range{Offset: at, Length: 4096}, true, time.Hour)
	if err != nil {
		return nil, err
	}
	own, err := a.Register(transfer.Section{Name: "own", Bytes: make([]byte, 8)})
	if err != nil {
		return nil, err
	}
	p, err := a.Import(blob)
	if err != nil {
		return nil, err
	}
	l, err := a.Prepare(p, []transfer.Descriptor{own.At(0, 8)}, []transfer.Descriptor{lease.At(0, 8)})
	if err != nil {
		return nil, err
	}
	post := func(ctx context.Context, o transfer.Options) error {
		x, err := a.Post(l, transfer.Write, o)
		if err == nil {
			err = x.Wait(ctx)
		}
		return err
	}
	for i := range each {
		if err := post(ctx, transfer.Options{Notify: fmt.Append(nil, i)}); err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		if i%16 == 0 {
			h.until(ctx, name, i+1)
		}
	}
	return func() error {
		if err := post(context.Background(), transfer.Options{Acknowledge: true}); err != nil {
			return err
		}
		select {
		case <-lease.Done():
			return nil
		case <-time.After(10 * time.Second):
			return fmt.Errorf("the lease has not ended")
		}
	}, nil
}

// TestHearingEnds: the end of a context ends the waiting of all who share it, whether it
// comes before or while they wait; who waits after them is woken by a peer, and by the
// end of another context.
func TestHearingEnds(t *testing.T) {
	if !hasShm(t) {
		t.Skip("no shared memory on this system")
	}
	process, dir := transfer.NewProcess(), t.TempDir()
	owner, _ := start(t, config(t, "owner", transfer.PathShm, process, dir))
	m := memory(t, owner, transfer.Section{Name: "kv", PageBytes: 4096, Access: transfer.AccessWrite}, 64<<10)
	peer, _ := start(t, config(t, "peer", transfer.PathShm, process, dir))
	own := memory(t, peer, transfer.Section{Name: "own"}, 8)
	p, err := peer.Import(owner.Export())
	if err != nil {
		t.Fatal(err)
	}
	l, err := peer.Prepare(p, []transfer.Descriptor{own.At(0, 8)}, []transfer.Descriptor{m.At(0, 8)})
	if err != nil {
		t.Fatal(err)
	}
	within, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	told := make(chan string, 2)
	wait := func(ctx context.Context) {
		n, err := owner.Notification(ctx)
		if err != nil {
			n.Payload = []byte(err.Error())
		}
		told <- string(n.Payload)
	}
	for round := range 20 {
		shared, end := context.WithCancel(within)
		for k := range 3 {
			go wait(shared)
			word := fmt.Sprint(round, " ", k)
			x, err := peer.Post(l, transfer.Write, transfer.Options{Notify: []byte(word)})
			if err == nil {
				err = x.Wait(within)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := <-told; got != word {
				t.Fatalf("%q was heard, want %q", got, word)
			}
		}
		if round%2 == 0 {
			end()
		}
		for range 2 {
			go wait(shared)
		}
		time.AfterFunc(time.Duration(round)*100*time.Microsecond, end)
		for range 2 {
			if got := <-told; got != context.Canceled.Error() {
				t.Fatalf("%q was heard after the end, want %q", got, context.Canceled)
			}
		}
	}
}
