package daemon_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/daemon"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/kvbm/tiertest"
)

// TestDamage damages what an engine keeps in the daemon, in every way: another client
// has put it, or it is other bytes in the memory that both share.
func TestDamage(t *testing.T) {
	c := config(t, 100)
	start(t, c)
	tiertest.Damage(t, tiertest.Place{Tier: dynamo.TierRemote, Configure: func(t *testing.T, tc *tier.Config) {
		s, err := daemon.OpenStore(daemon.StoreConfig{Socket: c.Socket, Name: "engine", Content: "m", FrameBytes: tc.Geometry.FrameBytes(), BlockTokens: tc.Geometry.BlockTokens})
		if err != nil {
			t.Fatal(err)
		}
		tc.Remote = s
	}})
}

// TestDiskDamage damages the daemon's own disk while it is away: what it gives afterwards
// are right blocks alone, and each of the others is counted.
func TestDiskDamage(t *testing.T) {
	const blocks = 12
	c := config(t, blocks)
	c.DiskBlocks = 64
	stop := start(t, c)
	s := open(t, &c, "engine", "m")
	for n := range blocks {
		if err := s.Put(t.Context(), ref(n), frame(n)); err != nil {
			t.Fatal(err)
		}
	}
	report(t, &c, func(r *daemon.Report) bool { return len(r.Contents) == 1 && r.Contents[0].Tiers[1].Held == blocks })
	stop()
	pools, _ := filepath.Glob(filepath.Join(c.DiskDir, "*", "pool"))
	if len(pools) != 1 {
		t.Fatalf("the daemon's disk has %v", pools)
	}
	slots := filepath.Join(filepath.Dir(pools[0]), "slots")
	wholePool, wholeSlots := read(t, pools[0]), read(t, slots)
	size := tierFrame()
	at := func(b []byte, n int) []byte { return b[n*size : (n+1)*size] }
	for name, d := range map[string]struct {
		do       func(pool, slots []byte) []byte
		injected int // corrupt when they are read
		gone     int // not known any more
	}{
		"nothing":         {func(p, _ []byte) []byte { return p }, 0, 0},
		"flipped bits":    {func(p, _ []byte) []byte { at(p, 2)[30] ^= 4; at(p, 5)[5000] ^= 1; at(p, 7)[200] ^= 128; return p }, 3, 0},
		"a page of zeros": {func(p, _ []byte) []byte { clear(at(p, 3)[4096:8192]); return p }, 1, 0},
		"swapped": {func(p, _ []byte) []byte {
			one := slices.Clone(at(p, 1))
			copy(at(p, 1), at(p, 4))
			copy(at(p, 4), one)
			return p
		}, 2, 0},
		"torn": {func(p, _ []byte) []byte {
			copy(at(p, 1)[size/2:], at(p, 2)[size/2:])
			copy(at(p, 4)[:4096], at(p, 2))
			return p
		}, 2, 0},
		"cut":             {func(p, _ []byte) []byte { return p[:10*size+size/2] }, 2, 0},
		"damaged records": {func(p, s []byte) []byte { s[128*3+50] ^= 1; s[128*6+121] ^= 1; return p }, 0, 2},
	} {
		t.Run(name, func(t *testing.T) {
			pool, records := slices.Clone(wholePool), slices.Clone(wholeSlots)
			write(t, pools[0], d.do(pool, records))
			write(t, slots, records)
			defer start(t, c)()
			s := open(t, &c, "engine", "m")
			came, got := 0, make([]byte, frameBytes)
			for n := range blocks {
				switch err := s.Get(t.Context(), ref(n), got); {
				case err == nil && !bytes.Equal(got, frame(n)):
					t.Errorf("block %d has other bytes", n)
				case err == nil:
					came++
				case dynamo.KindOf(err) != dynamo.KindNotFound:
					t.Errorf("block %d: %v", n, err)
				}
			}
			r := report(t, &c, func(r *daemon.Report) bool { return len(r.Contents) == 1 })
			if found := int(r.Contents[0].Tiers[1].Stats.Corrupt); found != d.injected || came != blocks-d.injected-d.gone {
				t.Errorf("%d damaged, %d found; %d of %d blocks came", d.injected, found, came, blocks)
			}
		})
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
