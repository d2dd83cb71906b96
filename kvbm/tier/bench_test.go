package tier_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// BenchmarkLoad brings 1,008 tokens of a model of 135 M parameters (23 MB) from each
// tier, block by block or group of layers by group of layers. From the host it takes turns
// with a copy of as many bytes in blocks of that size between other memories, and %memcpy is
// the median of how fast it is beside that.
func BenchmarkLoad(b *testing.B) {
	const blocks, blockBytes = 63, 368640
	for _, mode := range []struct {
		from   dynamo.Tier
		layers bool
	}{{dynamo.TierHost, false}, {dynamo.TierHost, true}, {dynamo.TierDisk, false}, {dynamo.TierDisk, true}, {dynamo.TierRemote, false}} {
		name, from, arrived := mode.from.String(), mode.from, func(int) {}
		if mode.layers {
			name += "-layers"
		} else {
			arrived = nil
		}
		b.Run(name, func(b *testing.B) {
			c := tier.DefaultConfig()
			c.Geometry, c.ClusterKey = geometry(), []byte("key")
			c.Geometry.BlockTokens, c.Geometry.BlockBytes = 16, blockBytes
			for i := range c.Geometry.Groups {
				c.Geometry.Groups[i] = 30 * (i + 1) / 4 * blockBytes / 30 // 30 layers
			}
			size := int64(100 * c.Geometry.FrameBytes())
			switch from {
			case dynamo.TierHost:
				c.Tiers.Host.Bytes = size
			case dynamo.TierDisk:
				c.Tiers.Disk.Bytes, c.Tiers.Disk.Policy, c.DiskDir = size, kvbm.PolicyAlways, filepath.Join(b.TempDir(), "disk")
			default:
				c.Tiers.Remote.Bytes, c.RemoteDir = size, b.TempDir()
			}
			m, _ := run(b, c)
			s := m.Sequence(tier.Scope{})
			for i := range blocks * 16 {
				s.Append(dynamo.TokenID(i))
			}
			engine := make([]byte, blocks*blockBytes)
			waitFor(b, func() bool {
				for i := range blocks {
					m.Offer(s, i, engine[i*blockBytes:][:blockBytes])
				}
				waitIdle(b, m)
				return m.Plan(s, 0, blocks).Found == blocks
			})
			told := make(chan bool, 1)
			src, dst, beside := bytes.Repeat([]byte{1}, len(engine)), bytes.Repeat([]byte{2}, len(engine)), []float64(nil)
			b.SetBytes(blocks * blockBytes)
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				if m.LoadLayers(s, 0, blocks, func(i int) []byte { return engine[i*blockBytes:][:blockBytes] }, arrived, func(ok bool) { told <- ok }) == nil || !<-told {
					b.Fatalf("%+v", m.Stats())
				}
				if mode.from != dynamo.TierHost {
					continue
				}
				took := time.Since(began)
				b.StopTimer()
				began = time.Now()
				for i := range blocks {
					copy(dst[i*blockBytes:][:blockBytes], src[i*blockBytes:])
				}
				beside = append(beside, 100*float64(time.Since(began))/float64(took))
				b.StartTimer()
			}
			if len(beside) > 0 {
				slices.Sort(beside)
				b.ReportMetric(beside[len(beside)/2], "%memcpy")
			}
		})
	}
	b.Run("disk-alone", func(b *testing.B) {
		c := geometry()
		c.BlockTokens, c.BlockBytes = 16, blockBytes
		d, err := tier.OpenDisk(tier.DiskConfig{Dir: b.TempDir(), Slots: 100, FrameBytes: c.FrameBytes(), ClusterKey: []byte("k")})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = d.Close() }()
		buf := tier.Buffer(c.FrameBytes())
		for i := range blocks {
			if err := d.Put(context.Background(), tier.Ref{Slot: int32(i)}, buf); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(blocks * blockBytes)
		for b.Loop() {
			for i := range blocks {
				if err := d.Get(context.Background(), tier.Ref{Slot: int32(i)}, buf); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("offer", func(b *testing.B) {
		c := tier.DefaultConfig()
		c.Geometry = geometry()
		c.Geometry.BlockTokens, c.Geometry.BlockBytes = 16, blockBytes
		c.Tiers.Host.Bytes = int64(100 * c.Geometry.FrameBytes())
		m, _ := run(b, c)
		waitFor(b, func() bool { _, err := m.Evict(b.Context()); return err == nil })
		body := make([]byte, blockBytes)
		n := 0
		b.SetBytes(blockBytes)
		b.ReportAllocs()
		for b.Loop() {
			s := m.Sequence(tier.Scope{Namespace: fmt.Sprint(n)})
			for i := range 16 {
				s.Append(dynamo.TokenID(i))
			}
			m.Offer(s, 0, body)
			n++
		}
	})
}
