package tier_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/s3server"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/kvbm/tiertest"
)

// TestDamage damages blocks in each tier in every way.
func TestDamage(t *testing.T) {
	objects := s3server.New("kv-cache", access)
	cutFile := func(t *testing.T, path string, n int64) {
		t.Helper()
		if err := os.Truncate(path, n); err != nil {
			t.Fatal(err)
		}
	}
	for name, p := range map[string]tiertest.Place{
		"host": {Tier: dynamo.TierHost, Configure: func(*testing.T, *tier.Config) {}},
		"disk": {
			Tier: dynamo.TierDisk, Configure: func(t *testing.T, c *tier.Config) { c.DiskDir = t.TempDir() },
			Cut: func(t *testing.T, c *tier.Config, r tier.Ref, n int) {
				cutFile(t, filepath.Join(c.DiskDir, "pool"), int64(r.Slot)*int64(c.Geometry.FrameBytes())+int64(n))
			},
		},
		"folder": {
			Tier: dynamo.TierRemote, Configure: func(t *testing.T, c *tier.Config) { c.RemoteDir = t.TempDir() },
			Cut: func(t *testing.T, c *tier.Config, r tier.Ref, n int) {
				cutFile(t, filepath.Join(c.RemoteDir, r.Key.String()[:2], r.Key.String()), int64(n))
			},
		},
		"object store": {
			Tier: dynamo.TierRemote, Configure: func(t *testing.T, c *tier.Config) { c.Remote = bucketOf(t, objects, "") },
			Cut: func(t *testing.T, c *tier.Config, r tier.Ref, n int) {
				frame := tier.Buffer(c.Geometry.FrameBytes())
				if err := errors.Join(c.Remote.Get(t.Context(), r, frame), c.Remote.Delete(t.Context(), r), c.Remote.Put(t.Context(), r, frame[:n])); err != nil {
					t.Fatal(err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) { tiertest.Damage(t, p) })
	}
}
