package tier_test

import (
	"context"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/obs"
)

// TestDiskDamage damages the files of a disk tier while nobody uses them, in many ways:
// what is found again are right blocks alone, and the rest is computed and stored anew.
func TestDiskDamage(t *testing.T) {
	c := config(t, 0, 20, 0)
	m, stop := run(t, c)
	const blocks = 14
	fillDisk(t, m, blocks)
	stop()
	pool, slots := filepath.Join(c.DiskDir, "pool"), filepath.Join(c.DiskDir, "slots")
	wholePool, wholeSlots := read(t, pool), read(t, slots)
	frame, record := c.Geometry.FrameBytes(), len(wholeSlots)/(blocks+1)
	r := rand.New(rand.NewPCG(3, 3))
	flip := func(b []byte) { b[r.IntN(len(b))] ^= 1 << r.IntN(8) }
	for name, damage := range map[string]func(pool, slots []byte) (p, s []byte, least int){
		"nothing":        func(p, s []byte) ([]byte, []byte, int) { return p, s, blocks },
		"a bit of each":  func(p, s []byte) ([]byte, []byte, int) { flip(p); flip(s); return p, s, 0 },
		"a pool of rust": func(p, s []byte) ([]byte, []byte, int) { flipMany(p, flip); return p, s, 0 },
		"rusty records":  func(p, s []byte) ([]byte, []byte, int) { flipMany(s[record:], flip); return p, s, 0 },
		"half a pool":    func(p, s []byte) ([]byte, []byte, int) { return p[:len(p)/2], s, blocks/2 - 1 },
		"no pool":        func(p, s []byte) ([]byte, []byte, int) { return nil, s, 0 },
		"no records":     func(p, s []byte) ([]byte, []byte, int) { return p, nil, 0 },
		"swapped": func(p, s []byte) ([]byte, []byte, int) {
			other := slices.Clone(p[frame : 2*frame])
			copy(p[frame:], p[5*frame:6*frame])
			copy(p[5*frame:], other)
			return p, s, 1
		},
		"all the same": func(p, s []byte) ([]byte, []byte, int) {
			for at := frame; at < len(p); at += frame {
				copy(p[at:], p[:frame])
			}
			return p, s, 1
		},
		"records shifted": func(p, s []byte) ([]byte, []byte, int) {
			return p, append(slices.Clone(s[:record]), s[2*record:]...), 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, s, least := damage(slices.Clone(wholePool), slices.Clone(wholeSlots))
			write(t, pool, p)
			write(t, slots, s)
			m, stop := run(t, c)
			defer stop()
			waitFor(t, func() bool { _, err := m.Evict(context.Background()); return err == nil })
			n := 0
			for i, s := 0, sequence(t, m, 1, blocks); i < blocks; i++ {
				if load(t, m, s, i, 1) { // compares the bytes
					n++
				}
				waitIdle(t, m)
			}
			if n < least || name != "nothing" && n == blocks && name != "a bit of each" {
				t.Errorf("%d blocks came, want %d or more", n, least)
			}
		})
	}
}

// fillDisk stores the blocks of user 1.
func fillDisk(t *testing.T, m *tier.Mover, blocks int) {
	t.Helper()
	waitFor(t, func() bool { _, err := m.Evict(t.Context()); return err == nil }) // it runs
	waitFor(t, func() bool {
		s := sequence(t, m, 1, blocks)
		offer(m, s)
		waitIdle(t, m)
		return m.Plan(s, 0, blocks).Found == blocks
	})
}

func flipMany(b []byte, flip func([]byte)) {
	for at := 0; at < len(b); at += 512 {
		flip(b[at:min(at+512, len(b))])
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

// TestMetrics has the families tell what happened.
func TestMetrics(t *testing.T) {
	r := obs.NewRegistry()
	c := config(t, 4, 20, 0)
	c.Metrics = tier.NewMetrics(r)
	m, _ := run(t, c)
	fillDisk(t, m, 8)
	if n := bring(t, m, sequence(t, m, 1, 8)); n != 8 {
		t.Errorf("%d blocks came", n)
	}
	waitIdle(t, m)
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	for _, want := range []string{
		`dynamo_tier_blocks{state="stored",tier="` + dynamo.TierDisk.String() + `"} 8`,
		`dynamo_tier_stored_blocks_total{tier="disk"} 8`, `dynamo_tier_evicted_blocks_total{tier="host"}`,
		`dynamo_tier_read_blocks_total{tier="disk"}`, `dynamo_tier_loads_total{outcome="arrived"} 8`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
}
