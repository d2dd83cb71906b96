//go:build !race

package copysum

import (
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/zeebo/xxh3"
)

// TestSourceThatChanges keeps the law: whatever becomes of a source while it is copied, the
// sum is that of the copy. (The race detector rightly objects to what this does.)
func TestSourceThatChanges(t *testing.T) {
	for _, n := range []int{shortBytes, blockBytes - 16, blockBytes + 8, streamBytes, 2*streamBytes + 136} {
		src, dst := make([]byte, n), make([]byte, n+stripeBytes)
		for !aligned(dst) {
			dst = dst[1:]
		}
		words := unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(src))), n/8)
		var passes atomic.Int64
		var stop atomic.Bool
		var other sync.WaitGroup
		other.Go(func() {
			for v := uint64(1); !stop.Load(); v++ {
				words[int(v)%len(words)].Store(v)
				for i := range min(len(words), 16) { // the end above all, which is treated apart
					words[len(words)-1-i].Store(v)
				}
				passes.Add(1)
			}
		})
		for _, l := range levels() {
			for until := passes.Load() + 20_000; passes.Load() < until && !t.Failed(); {
				got := copyAt(l, dst, src, 3)
				if want := xxh3.HashSeed(dst[:n], 3); got != want {
					t.Errorf("level %d, %d bytes: the sum is %016x, and that of the copy %016x", l, n, got, want)
				}
			}
		}
		stop.Store(true)
		other.Wait()
	}
}
