package copysum

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// BenchmarkCopy compares a bare copy, a copy that is summed piece by piece, and the kernels:
// 23 MB each, in parts that lie scattered in 512 MB, to a place of its own. They take turns,
// and the median of each is reported; ns/op is of all of them.
func BenchmarkCopy(b *testing.B) {
	const total, room = 23 << 20, 512 << 20
	type way struct {
		name string
		copy func(dst, src []byte)
		dst  []byte
		took []float64
	}
	ways := []*way{
		{name: "memcpy", copy: func(dst, src []byte) { copy(dst, src) }},
		{name: "pieces", copy: func(dst, src []byte) { copyPortable(dst, src, 7) }},
	}
	for _, l := range levels()[1:] {
		ways = append(ways, &way{name: fmt.Sprint("level", l), copy: func(dst, src []byte) { copyAt(l, dst, src, 7) }})
	}
	for _, w := range ways {
		w.dst = slices.Repeat([]byte{1}, total)
	}
	pool := slices.Repeat([]byte{1, 2, 3, 4}, room/4)
	for _, size := range []int{16 << 10, 64 << 10, 1 << 20, total} {
		b.Run(fmt.Sprint(size>>10, "KiB"), func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			for b.Loop() {
				for _, w := range ways {
					began := time.Now()
					for at := 0; at+size <= total; at += size {
						w.copy(w.dst[at:], pool[r.IntN((room-size)/4096)*4096:][:size])
					}
					w.took = append(w.took, float64(total/size*size)/time.Since(began).Seconds()/1e9)
				}
			}
			for _, w := range ways {
				slices.Sort(w.took)
				b.ReportMetric(w.took[len(w.took)/2], w.name+"-GB/s")
				w.took = nil
			}
		})
	}
}
