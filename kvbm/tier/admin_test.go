package tier_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// do does a command as it comes from another process.
func do(t *testing.T, m *tier.Mover, c tier.Command) (a tier.Answer, err error) {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	<-m.Ready()
	if b, err = m.ServeJSON(t.Context(), b); err != nil {
		return a, err
	}
	if err := json.Unmarshal(b, &a); err != nil {
		t.Fatal(err)
	}
	return a, nil
}

// settled waits until a tier has n blocks.
func settled(t *testing.T, m *tier.Mover, at dynamo.Tier, n int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); m.Stats().Tiers[at].Held != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the %v tier has %d blocks, not %d", at, m.Stats().Tiers[at].Held, n)
		}
	}
}

func TestCommands(t *testing.T) {
	m, _ := run(t, config(t, 20, 40, 0))
	<-m.Ready()
	s := sequence(t, m, 1, 12)
	offer(m, s)
	settled(t, m, dynamo.TierDisk, 12)

	a, err := do(t, m, tier.Command{Op: tier.OpStat})
	if err != nil || len(a.Tiers) != 2 || a.Tiers[0].Tier != "host" || a.Tiers[1].Held != 12 || a.Tiers[0].Stats.Capacity != 20 || a.BlockTokens != 4 {
		t.Errorf("stat: %+v, %v", a, err)
	}
	a, err = do(t, m, tier.Command{Op: tier.OpList, Tier: "disk", Limit: 5})
	if err != nil || len(a.Tiers) != 1 || a.Tiers[0].Held != 12 || len(a.Tiers[0].Listed) != 5 {
		t.Errorf("ls: %+v, %v", a, err)
	}
	for _, got := range a.Tiers[0].Listed {
		if want := s.Keys()[got.Depth].String(); got.Key != want || (got.Parent == "") != (got.Depth == 0) {
			t.Errorf("block %+v is listed, %s stands there", got, want)
		}
	}
	a, err = do(t, m, tier.Command{Op: tier.OpVerify})
	if err != nil || len(a.Tiers) != 2 || a.Tiers[1].Verified.Checked != 12 || a.Tiers[1].Verified.Bad() != 0 {
		t.Errorf("verify: %+v, %v", a, err)
	}
	a, err = do(t, m, tier.Command{Op: tier.OpEvict, Keys: []string{s.Keys()[11].String(), s.Keys()[10].String()}})
	if err != nil || a.Copies != 4 {
		t.Errorf("evict: %+v, %v", a, err)
	}
	var ids []dynamo.TokenID
	for i := range 12 * 4 {
		if i >= 8 {
			ids = append(ids, dynamo.TokenID(i+1000))
		} else {
			ids = append(ids, dynamo.TokenID(i))
		}
	}
	a, err = do(t, m, tier.Command{Op: tier.OpWarm, Tokens: ids, Namespace: "tenant"})
	if err != nil || a.Blocks != 10 || a.Of != 12 {
		t.Errorf("warm: %+v, %v", a, err)
	}
	for _, c := range []tier.Command{
		{Op: "dance"}, {Op: tier.OpEvict, Keys: []string{"12"}}, {Op: tier.OpList, Tier: "remote"},
		{Op: tier.OpWarm, Namespace: strings.Repeat("x", 5000)},
	} {
		if _, err := do(t, m, c); err == nil {
			t.Errorf("%+v is done", c)
		}
	}
	if _, err := m.ServeJSON(t.Context(), []byte("{")); dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("half a command: %v", err)
	}
	if a, err = do(t, m, tier.Command{Op: tier.OpEvict}); err != nil || a.Copies != 20 {
		t.Errorf("evict all: %+v, %v", a, err)
	}
}

// TestFolder looks at a disk tier from outside: all that is damaged is found.
func TestFolder(t *testing.T) {
	c := config(t, 0, 40, 0)
	m, stop := run(t, c)
	<-m.Ready()
	s := sequence(t, m, 1, 12)
	for i, k := range s.Keys() {
		for m.Offer(s, i, body(k)); m.Stats().Tiers[dynamo.TierDisk].Held <= i; { // few are on their way at once
			time.Sleep(time.Millisecond)
		}
	}
	look := func() (f *tier.Folder, v tier.Verified, bad []string, err error) {
		t.Helper()
		f, err = tier.OpenFolder(c.DiskDir)
		if err != nil {
			t.Fatal(err)
		}
		v, err = f.Verify(context.Background(), c.ClusterKey, func(r tier.Ref, err error) { bad = append(bad, fmt.Sprint(r.Key, err)) })
		return f, v, bad, err
	}
	f, _, _, err := look()
	if !f.InUse || dynamo.KindOf(err) != dynamo.KindUnavailable {
		t.Errorf("a folder in use: %v, %v", f.InUse, err)
	}
	if blocks, all, err := f.Blocks(t.Context(), 3); len(blocks) != 3 || all != 12 || err != nil {
		t.Errorf("%d of %d blocks, %v", len(blocks), all, err)
	}
	f.Close()
	stop()

	f, v, bad, err := look()
	if f.InUse || v.Checked != 12 || len(bad) > 0 || err != nil {
		t.Errorf("verify: %+v, %v, %v", v, bad, err)
	}
	if _, err := f.Verify(t.Context(), []byte("another key"), nil); dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("under another key: %v", err)
	}
	f.Close()
	pool := filepath.Join(c.DiskDir, "pool")
	whole, err := os.ReadFile(pool)
	if err != nil {
		t.Fatal(err)
	}
	g := geometry()
	frame := g.FrameBytes()
	for _, damage := range []struct {
		name string
		do   func(b []byte) []byte
		want int
	}{
		{"a bit of a body", func(b []byte) []byte { b[3*frame+4096+77] ^= 8; return b }, 1},
		{"a bit of a header", func(b []byte) []byte { b[5*frame+30] ^= 1; return b }, 1},
		{"sizes", func(b []byte) []byte { b[frame+16], b[2*frame+80] = 255, 255; return b }, 2},
		{"two blocks swapped", func(b []byte) []byte {
			return append(append(append([]byte{}, b[frame:2*frame]...), b[:frame]...), b[2*frame:]...)
		}, 2},
		{"cut", func(b []byte) []byte { return b[:10*frame+100] }, 2},
		{"gone", func([]byte) []byte { return nil }, 12},
	} {
		if err := os.WriteFile(pool, damage.do(append([]byte{}, whole...)), 0o600); err != nil {
			t.Fatal(err)
		}
		f, v, bad, err := look()
		if err != nil || v.Corrupt != damage.want || len(bad) != damage.want {
			t.Errorf("%s: %+v, %v, %v; want %d", damage.name, v, bad, err, damage.want)
		}
		f.Close()
	}
	for name, content := range map[string]string{"empty": "", "text": strings.Repeat("no list of slots ", 100)} {
		if err := os.WriteFile(filepath.Join(c.DiskDir, "slots"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := tier.OpenFolder(c.DiskDir); dynamo.KindOf(err) != dynamo.KindCorrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tier.OpenFolder(t.TempDir()); dynamo.KindOf(err) != dynamo.KindNotFound {
		t.Errorf("any folder: %v", err)
	}
}

// FuzzFolder gives the reader of a folder any list of slots and any blocks.
func FuzzFolder(f *testing.F) {
	dir := f.TempDir()
	d, err := tier.OpenDisk(tier.DiskConfig{Dir: dir, Slots: 2, FrameBytes: 8192, ClusterKey: []byte("k")})
	if err != nil {
		f.Fatal(err)
	}
	var r tier.Ref
	r.Key[0] = 1
	if err := d.Put(context.Background(), r, tier.Buffer(8192)); err != nil {
		f.Fatal(err)
	}
	if err := d.Close(); err != nil {
		f.Fatal(err)
	}
	slots, err := os.ReadFile(filepath.Join(dir, "slots"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(slots, []byte("dynKVblk"))
	f.Fuzz(func(t *testing.T, slots, pool []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "slots"), slots, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "pool"), pool, 0o600); err != nil {
			t.Fatal(err)
		}
		folder, err := tier.OpenFolder(dir)
		if err != nil {
			return
		}
		defer folder.Close()
		if v, _ := folder.Verify(t.Context(), []byte("k"), func(tier.Ref, error) {}); v.Checked > folder.Slots {
			t.Errorf("%d blocks in %d slots", v.Checked, folder.Slots)
		}
	})
}
