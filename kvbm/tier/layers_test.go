package tier_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// layered is config with blocks of four groups of layers.
func layered(t testing.TB, host, disk, remote int) tier.Config {
	c := config(t, host, disk, remote)
	c.Geometry.Groups = tier.Groups{1200, 2600, 4200, 5000}
	return c
}

// recorder is a store that notes in which order parts are read.
type recorder struct {
	tier.Store
	tier.Parts
	mu   sync.Mutex
	read []string
}

func (r *recorder) GetPart(ctx context.Context, ref tier.Ref, frame []byte, from, to int) error {
	r.mu.Lock()
	r.read = append(r.read, fmt.Sprintf("%d:%d", ref.Depth, from/4096))
	r.mu.Unlock()
	return r.Parts.GetPart(ctx, ref, frame, from, to)
}

// TestLayers brings blocks group of layers by group of layers, the first of all blocks
// first, and tells of each while there are more to come. What was told of is there.
func TestLayers(t *testing.T) {
	c := layered(t, 0, 40, 0)
	c.Geometry.BlockBytes, c.Geometry.Groups = 4*4096, tier.Groups{4096, 2 * 4096, 3 * 4096, 4 * 4096}
	c.Tiers.Disk.Bytes, c.Tiers.Disk.Workers = int64(40*c.Geometry.FrameBytes()), 1
	var r *recorder
	c.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store {
		r = &recorder{Store: s, Parts: s.(tier.Parts)}
		return r
	}
	m, _ := run(t, c)
	<-m.Ready()
	s := sequence(t, m, 1, 3)
	want := bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, c.Geometry.BlockBytes/8)
	waitFor(t, func() bool {
		for i := range 3 {
			m.Offer(s, i, want)
		}
		waitIdle(t, m)
		return m.Plan(s, 0, 3).Found == 3
	})
	into := make([][]byte, 3)
	for i := range into {
		into[i] = make([]byte, c.Geometry.BlockBytes)
	}
	var told []int
	done := make(chan bool, 1)
	arrived := func(groups int) {
		told = append(told, groups)
		for _, b := range into {
			if n := c.Geometry.Groups[groups-1]; !bytes.Equal(b[:n], want[:n]) {
				t.Errorf("%d groups are told of, and are not there", groups)
			}
		}
	}
	l := m.LoadLayers(s, 0, 3, func(i int) []byte { return into[i] }, arrived, func(ok bool) { done <- ok })
	if l == nil || !<-done {
		t.Fatal("it has not come")
	}
	l.Overlapped()
	if got, want := fmt.Sprint(r.read), "[0:0 1:0 2:0 0:2 1:2 2:2 0:3 1:3 2:3 0:4 1:4 2:4]"; got != want {
		t.Errorf("parts are read as %v, want %v", got, want)
	}
	if !slices.Equal(told, []int{1, 2, 3}) || !bytes.Equal(into[2], want) {
		t.Errorf("told of %v", told)
	}
	if st := m.Stats(); st.Loads.Overlapped != 1 || st.Loads.Blocks != 3 {
		t.Errorf("%+v", st.Loads)
	}
}

// TestLayersFound finds frames again that were written for engines which need all of a
// block, and the other way about: they come.
func TestLayersFound(t *testing.T) {
	whole := config(t, 0, 40, 0)
	parts := layered(t, 0, 40, 0)
	parts.DiskDir = whole.DiskDir
	m, stop := run(t, whole)
	fillDisk(t, m, 8)
	stop()
	for _, c := range []tier.Config{parts, whole, parts} {
		m, stop := run(t, c)
		<-m.Ready()
		s := sequence(t, m, 1, 9)
		if n := loadLayers(t, m, s, 8); n != 8 {
			t.Errorf("%d of 8 blocks are found by groups %v", n, c.Geometry.Groups)
		}
		if v, err := m.Verify(t.Context(), dynamo.TierDisk); err != nil || v.Bad() > 0 || v.Checked == 0 {
			t.Errorf("%+v, %v", v, err)
		}
		m.Offer(s, 8, body(s.Keys()[8])) // one of its own
		waitIdle(t, m)
		if !load(t, m, s, 8, 1) {
			t.Error("what is new does not come")
		}
		if _, err := m.Evict(t.Context(), s.Keys()[8]); err != nil {
			t.Error(err)
		}
		stop()
	}
}

// loadLayers brings n blocks at once, in groups, and returns how many came.
func loadLayers(t *testing.T, m *tier.Mover, s *tier.Sequence, n int) int {
	t.Helper()
	into := make([][]byte, n)
	for i := range into {
		into[i] = make([]byte, geometry().BlockBytes)
	}
	done := make(chan bool, 1)
	if m.LoadLayers(s, 0, n, func(i int) []byte { return into[i] }, func(int) {}, func(ok bool) { done <- ok }) == nil || !<-done {
		return 0
	}
	for i := range into {
		if !bytes.Equal(into[i], body(s.Keys()[i])) {
			t.Errorf("block %d has other bytes than were offered", i)
		}
	}
	return n
}
