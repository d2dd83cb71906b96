package tier_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// faulty is a store that does something else than it says.
type faulty struct {
	tier.Store
	fault string
	mu    struct {
		sync.Mutex
		on       bool
		puts     int
		injected int
		kept     []byte // the frame put before
	}
}

func (f *faulty) set(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.on = on
}

func (f *faulty) injected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.injected
}

// Find makes a wrapped shared store one that can be asked, as it was.
func (f *faulty) Find(ctx context.Context, keys []dynamo.ContentKey) (int, error) {
	if s, ok := f.Store.(tier.Finder); ok {
		return s.Find(ctx, keys)
	}
	return 0, nil
}

func (f *faulty) Put(ctx context.Context, r tier.Ref, frame []byte) error {
	f.mu.Lock()
	on := f.mu.on
	f.mu.puts++
	n, kept := f.mu.puts, f.mu.kept
	f.mu.kept = append([]byte(nil), frame...)
	if on {
		f.mu.injected++
	}
	f.mu.Unlock()
	if !on {
		return f.Store.Put(ctx, r, frame)
	}
	wrong := append([]byte(nil), frame...)
	switch f.fault {
	case "full":
		return &tierError{syscall.ENOSPC}
	case "read-only":
		return &tierError{syscall.EROFS}
	case "vanished":
		return &tierError{syscall.ENOENT}
	case "flipped":
		at := []int{30, 70, 4096 + n*37%5000}[n%3]
		wrong[at] ^= 1 << (n % 8)
	case "torn": // half of it, at a page
		clear(wrong[4096:])
	case "swapped", "stale": // what was to be written is somewhere else, or nowhere
		if kept == nil {
			clear(wrong)
		} else {
			copy(wrong, kept)
		}
	}
	if m, ok := f.Store.(tier.Memory); ok {
		copy(m.Frame(r.Slot), wrong)
		return nil
	}
	b := tier.Buffer(len(wrong))
	copy(b, wrong)
	return f.Store.Put(ctx, r, b)
}

func (f *faulty) Get(ctx context.Context, r tier.Ref, frame []byte) error {
	f.mu.Lock()
	on := f.mu.on
	f.mu.Unlock()
	if on && f.fault == "vanished" {
		return &tierError{syscall.EIO}
	}
	return f.Store.Get(ctx, r, frame)
}

// tierError is an error of a medium.
type tierError struct{ errno error }

func (e *tierError) Error() string { return "the medium says: " + e.errno.Error() }

// TestFaults has one tier after the other do wrong, in every way: no wrong byte comes to
// the engine, what is wrong is found at every read and set aside, and the tier works
// again afterwards.
func TestFaults(t *testing.T) {
	for _, place := range []dynamo.Tier{dynamo.TierHost, dynamo.TierDisk, dynamo.TierRemote} {
		for _, fault := range []string{"full", "read-only", "vanished", "flipped", "torn", "swapped", "stale"} {
			t.Run(fmt.Sprintf("%v/%s", place, fault), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testFault(t, place, fault) }) // rests take no time
			})
		}
	}
}

func testFault(t *testing.T, place dynamo.Tier, fault string) {
	sizes := [4]int{0, 2, 2, 2} // those above are too small to hide it
	sizes[place] = 40
	if place > dynamo.TierHost {
		sizes[dynamo.TierHost] = 0
	}
	c := config(t, sizes[1], sizes[2], sizes[3])
	if place == dynamo.TierRemote {
		c.Tiers.Disk.Bytes = 0
	} else {
		c.Tiers.Remote.Bytes = 0
	}
	var f *faulty
	c.Wrap = func(at dynamo.Tier, s tier.Store) tier.Store {
		if at != place {
			return s
		}
		f = &faulty{Store: s, fault: fault}
		return f
	}
	m, _ := run(t, c)
	waitFor(t, func() bool { offer(m, sequence(t, m, 0, 1)); return m.Stats().Tiers[place].Held > 0 })
	waitIdle(t, m)
	f.set(true)
	const blocks = 8
	for u := range 3 {
		s := sequence(t, m, u, blocks)
		offer(m, s)
		waitIdle(t, m)
		for i := range s.Blocks() {
			load(t, m, s, i, 1) // compares what comes
		}
		waitIdle(t, m)
	}
	st := m.Stats().Tiers[place]
	t.Logf("%d faults: %+v", f.injected(), st)
	switch fault {
	case "full", "read-only":
		if int(st.Unwritten) != f.injected() || !st.ReadOnly || st.Down {
			t.Errorf("%d of %d faults are known", st.Unwritten, f.injected())
		}
	case "vanished":
		if st.Failed == 0 {
			t.Error("nothing failed")
		}
	default:
		if _, err := m.Verify(t.Context(), place); err != nil {
			t.Error(err)
		}
		waitIdle(t, m)
		if got := int(m.Stats().Tiers[place].Corrupt); got != f.injected() {
			t.Errorf("%d of %d faults are known", got, f.injected())
		}
	}
	f.set(false)
	waitFor(t, func() bool { // the tier rests after failures
		s := sequence(t, m, 7, 4)
		offer(m, s)
		waitIdle(t, m)
		return bring(t, m, s) == 4
	})
}

// slow is a store whose reads take long.
type slow struct {
	tier.Store
	delay time.Duration
}

func (s slow) Get(ctx context.Context, r tier.Ref, frame []byte) error {
	time.Sleep(s.delay)
	return s.Store.Get(ctx, r, frame)
}

// TestSlow has reads take a day: the load fails in time, its memory is not written to
// afterwards, and other tiers go on.
func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(t, 0, 40, 0)
		c.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store { return slow{s, 24 * time.Hour} }
		m, err := tier.New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() { defer close(ran); _ = m.Run(ctx) }()
		synctest.Wait()
		s := sequence(t, m, 0, 4)
		offer(m, s)
		synctest.Wait()
		if p := m.Plan(s, 0, 4); p.Found != 4 || p.Blocks != 4 {
			t.Fatalf("%+v", p)
		}
		into := make([]byte, geometry().BlockBytes)
		told := make(chan bool, 1)
		began := time.Now()
		l := m.Load(s, 0, 3, func(int) []byte { return into }, func(ok bool) { told <- ok })
		if ok := <-told; ok || time.Since(began) > time.Minute {
			t.Errorf("told %v after %v", ok, time.Since(began))
		}
		// What was measured says that computing is quicker, and is forgotten.
		if p := m.Plan(s, 0, 4); p.Blocks != 0 {
			t.Errorf("a load of %v is worth it against %v", p.Load, p.Recompute)
		}
		l2 := m.Load(s, 3, 1, func(int) []byte { return into }, func(ok bool) { told <- ok })
		l2.Cancel()
		l.Cancel()
		time.Sleep(72 * time.Hour)
		synctest.Wait()
		if binary.LittleEndian.Uint64(into) != 0 || len(told) > 0 {
			t.Error("memory is written to after the end")
		}
		if st := m.Stats(); st.Loads.Late != 1 || st.Tiers[dynamo.TierDisk].Reads != 0 {
			t.Errorf("%+v", st)
		}
		if err := m.Check(); err != nil {
			t.Error(err)
		}
		if p := m.Plan(s, 0, 4); p.Blocks == 0 {
			t.Error("no load is ever worth it again")
		}
		cancel()
		<-ran
	})
}

// TestHangs has a store hang when the tiers stop: they stop all the same, tell the load
// that waits, and say so.
func TestHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := config(t, 0, 40, 0)
		c.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store { return slow{s, time.Minute} }
		m, err := tier.New(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- m.Run(ctx) }()
		synctest.Wait()
		s := sequence(t, m, 0, 4)
		offer(m, s)
		synctest.Wait()
		told := make(chan bool, 1)
		m.Load(s, 0, 4, func(int) []byte { return make([]byte, geometry().BlockBytes) }, func(ok bool) { told <- ok })
		synctest.Wait()
		began := time.Now()
		cancel()
		if err := <-ran; !errors.Is(err, context.Canceled) || !contains(err.Error(), "has not answered") || time.Since(began) > 15*time.Second {
			t.Errorf("Run ended after %v: %v", time.Since(began), err)
		}
		if <-told {
			t.Error("the load is said to have arrived")
		}
		if m.Offer(s, 0, body(s.Keys()[0])); m.Plan(s, 0, 4).Found != 0 || m.Load(s, 0, 1, nil, nil) != nil {
			t.Error("something is found after the end")
		}
		time.Sleep(time.Hour)
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestConfig refuses what cannot work, with all faults at once.
func TestConfig(t *testing.T) {
	c := tier.DefaultConfig()
	c.Geometry = geometry()
	c.Tiers.Host.Bytes, c.Tiers.Disk.Bytes, c.Tiers.Remote.Bytes = 100, 1<<20, 1<<20
	_, err := tier.New(c)
	for _, want := range []string{"budget of 100 bytes", "--kvbm-disk-dir", "--kvbm-remote"} {
		if err == nil || dynamo.KindOf(err) != dynamo.KindInvalid || !errors.Is(err, err) || !contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	c.Tiers.Host.Bytes, c.DiskDir, c.RemoteDir = 1<<20, "/proc/none", t.TempDir()
	if _, err := tier.New(c); err == nil {
		t.Error("a disk tier in /proc is opened")
	}
}
