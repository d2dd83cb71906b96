package tier_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/kvbm/tiertest"
	"github.com/dynamo-go/dynamo/tokens"
)

// geometry is that of small blocks.
func geometry() tier.Geometry {
	return tier.Geometry{
		BlockTokens: 4, BlockBytes: 5000,
		Content: tokens.Content{Revision: "rev", Layout: "test", DType: "f16", Shard: "1/1"},
	}
}

// body is the KV of a block: bytes that depend on its key.
func body(k dynamo.ContentKey) []byte {
	r := rand.New(rand.NewPCG(binary.LittleEndian.Uint64(k[:]), 1))
	b := make([]byte, geometry().BlockBytes)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// sequence is n blocks of user number u, of which the first two are everybody's.
func sequence(t testing.TB, m *tier.Mover, u, n int) *tier.Sequence {
	t.Helper()
	s := m.Sequence(tier.Scope{Namespace: "tenant"})
	if s == nil {
		t.Fatal("no sequence")
	}
	for i := range n * geometry().BlockTokens {
		id := dynamo.TokenID(i)
		if i >= 2*geometry().BlockTokens {
			id += dynamo.TokenID(1000 * u)
		}
		s.Append(id)
	}
	return s
}

// config has tiers of so many blocks.
func config(t testing.TB, host, disk, remote int) tier.Config {
	t.Helper()
	c := tier.DefaultConfig()
	c.Geometry, c.ClusterKey = geometry(), []byte("cluster key")
	frame := int64(c.Geometry.FrameBytes())
	c.Tiers.Host.Bytes, c.Tiers.Disk.Bytes, c.Tiers.Remote.Bytes = int64(host)*frame, int64(disk)*frame, int64(remote)*frame
	c.Tiers.Disk.Policy = kvbm.PolicyAlways
	if disk > 0 {
		c.DiskDir = filepath.Join(t.TempDir(), "disk")
	}
	if remote > 0 {
		c.RemoteDir = filepath.Join(t.TempDir(), "remote")
	}
	return c
}

// run runs a Mover until the test ends, or stop is called.
func run(t testing.TB, c tier.Config) (m *tier.Mover, stop func()) {
	t.Helper()
	m, err := tier.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := m.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ran
		if err := m.Check(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return m, stop
}

// offer offers all blocks of s.
func offer(m *tier.Mover, s *tier.Sequence) {
	for i, k := range s.Keys() {
		m.Offer(s, i, body(k))
	}
	m.Touch(s, s.Blocks())
}

// load brings n blocks of s from number first on, and reports whether they came. What
// comes is compared with what was offered.
func load(t testing.TB, m *tier.Mover, s *tier.Sequence, first, n int) bool {
	t.Helper()
	into := make([][]byte, n)
	for i := range into {
		into[i] = make([]byte, geometry().BlockBytes)
	}
	told := make(chan bool, 1)
	if m.Load(s, first, n, func(i int) []byte { return into[i-first] }, func(ok bool) { told <- ok }) == nil {
		return false
	}
	if !<-told {
		return false
	}
	for i := range into {
		if !bytes.Equal(into[i], body(s.Keys()[first+i])) {
			t.Errorf("block %d has other bytes than were offered", first+i)
		}
	}
	return true
}

// bring brings as much of s as the tiers have, block after block, and returns how many
// came.
func bring(t testing.TB, m *tier.Mover, s *tier.Sequence) int {
	t.Helper()
	for i := range s.Blocks() {
		if !load(t, m, s, i, 1) {
			return i
		}
	}
	return s.Blocks()
}

func TestStores(t *testing.T) {
	const frame, slots = 8192, 20
	for name, open := range map[string]func(t *testing.T, dir string) tier.Store{
		"host": func(t *testing.T, _ string) tier.Store { return must(tier.NewHost(slots, frame, true))(t) },
		"disk": func(t *testing.T, dir string) tier.Store {
			return must(tier.OpenDisk(tier.DiskConfig{Dir: dir, Slots: slots, FrameBytes: frame, ClusterKey: []byte("k")}))(t)
		},
		"shared": func(t *testing.T, dir string) tier.Store { return must(tier.OpenShared(dir))(t) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tiertest.Run(t, tiertest.Subject{
				Open: func(t *testing.T) tier.Store { return open(t, dir) }, FrameBytes: frame, Slots: slots, Forgets: name == "host",
			})
		})
	}
}

func must[S any](s S, err error) func(t *testing.T) S {
	return func(t *testing.T) S {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// ears hear what tiers tell of their blocks.
type ears struct {
	mu    *sync.Mutex
	tiers [4]map[dynamo.BlockHash]bool
	wrong int
}

func newEars() *ears {
	e := &ears{mu: new(sync.Mutex)}
	for i := range e.tiers {
		e.tiers[i] = map[dynamo.BlockHash]bool{}
	}
	return e
}

func (e *ears) hear(t dynamo.Tier, events []kvbm.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range events {
		for _, b := range ev.Blocks {
			if e.tiers[t][b.Hash] {
				e.wrong++
			}
			e.tiers[t][b.Hash] = true
		}
		for _, h := range ev.Hashes {
			if !e.tiers[t][h] {
				e.wrong++
			}
			delete(e.tiers[t], h)
		}
	}
}

// compare compares what was told with what m lists.
func (e *ears) compare(t *testing.T, m *tier.Mover) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := dynamo.TierHost; i <= dynamo.TierRemote; i++ {
		blocks, n := m.List(i, 1000)
		named := 0
		for _, b := range blocks {
			if b.Block == (tokens.Block{}) {
				continue // found in a shared store, and not used yet
			}
			if named++; !e.tiers[i][b.Block.Hash] {
				t.Errorf("%v holds %+v, which was not told", i, b)
			}
		}
		if named != len(e.tiers[i]) || n == 0 || named == 0 || e.wrong > 0 {
			t.Errorf("%v holds %d blocks, was told %d; %d tellings make no sense: %+v", i, named, len(e.tiers[i]), e.wrong, m.Stats().Tiers)
		}
	}
}

// TestTour fills the host tier, disk and a shared folder, restarts, and brings blocks
// from each.
func TestTour(t *testing.T) {
	c := config(t, 10, 20, 100)
	ears := newEars()
	c.Events = ears.hear
	m, stop := run(t, c)
	const users, blocks = 8, 8
	for u := range users {
		waitFor(t, func() bool {
			s := sequence(t, m, u, blocks)
			offer(m, s)
			waitIdle(t, m)
			return m.Plan(s, 0, blocks).Found == blocks
		})
	}
	for u := range users {
		if n := bring(t, m, sequence(t, m, u, blocks)); n != blocks {
			t.Errorf("user %d: %d blocks came, want %d", u, n, blocks)
		}
	}
	s := m.Stats()
	for i := dynamo.TierHost; i <= dynamo.TierRemote; i++ {
		if st := s.Tiers[i]; st.Loaded == 0 || st.Stored == 0 || st.Corrupt+st.Failed > 0 || i < 3 && st.Evicted == 0 {
			t.Errorf("%v: %+v", i, st)
		}
		waitIdle(t, m)
		if v, err := m.Verify(t.Context(), i); err != nil || v.Checked != m.Stats().Tiers[i].Held || v.Corrupt+v.Missing+v.Unread > 0 {
			t.Errorf("verify %v: %+v, %v", i, v, err)
		}
	}
	waitIdle(t, m)
	held := m.Stats().Tiers
	ears.compare(t, m)
	stop()
	*ears = *newEars()
	m, stop = run(t, c)
	remote := held[dynamo.TierRemote].Held
	waitFor(t, func() bool { return m.Stats().Tiers[dynamo.TierRemote].Held == remote })
	if got := m.Stats().Tiers[dynamo.TierDisk].Held; got != held[dynamo.TierDisk].Held {
		t.Errorf("%d blocks found again on disk, had %d", got, held[dynamo.TierDisk].Held)
	}
	for u := range users {
		if n := bring(t, m, sequence(t, m, u, blocks)); n != blocks {
			t.Errorf("after a restart, user %d: %d blocks came, want %d", u, n, blocks)
		}
	}
	waitIdle(t, m)
	ears.compare(t, m)
	stop()
	// Another instance, without a disk, has the shared ones, asked for one by one.
	c2 := config(t, 10, 0, 100)
	c2.RemoteDir = c.RemoteDir
	m, _ = run(t, c2)
	waitFor(t, func() bool {
		files, _ := filepath.Glob(filepath.Join(c.RemoteDir, "*", "*"))
		return m.Stats().Tiers[dynamo.TierRemote].Held == len(files)
	})
	if n, err := m.Warm(t.Context(), sequence(t, m, 5, blocks)); n != blocks || err != nil {
		t.Errorf("another instance: %d blocks warm, %v", n, err)
	}
	if n, err := m.Clear(t.Context()); n == 0 || err != nil {
		t.Errorf("cleared %d, %v", n, err)
	}
	if files, _ := filepath.Glob(filepath.Join(c.RemoteDir, "*", "*")); len(files) > 0 {
		t.Errorf("%d files are left", len(files))
	}
}
