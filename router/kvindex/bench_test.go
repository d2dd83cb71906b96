package kvindex_test

import (
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/kvindex"
)

// BenchmarkCrowd is the worst case of lookups and stores: 7,000 workers that all hold
// one beginning, and a chain of one behind it.
func BenchmarkCrowd(b *testing.B) {
	x := newIndex(b)
	shared := chainOf(1, 64)
	t := time.Now()
	var last kvindex.Source
	for i := range 7000 {
		last = x.Attach(kvindex.Worker{ID: dynamo.WorkerID(i + 1)})
		storePart(x, last, shared, 0, 64)
	}
	stored := time.Since(t)
	own := continued(shared, 2, 200)
	storePart(x, last, own, 64, len(own))
	b.Run("find", func(b *testing.B) {
		b.ReportAllocs()
		q := hashesOf(own)
		dst := make([]kvindex.Overlap, 0, 7000)
		for b.Loop() {
			dst = x.Find(q, dst[:0])
		}
		b.ReportMetric(float64(stored.Microseconds())/7000, "us/store")
	})
	b.Run("store", func(b *testing.B) {
		for b.Loop() {
			storePart(x, last, shared, 0, 64)
		}
	})
}

// BenchmarkRestore is the recovery of some 2.3 million blocks from snapshots.
func BenchmarkRestore(b *testing.B) {
	x := newIndex(b)
	const workers = 7
	var chunks [workers][][]byte
	for w := range workers {
		s := x.Attach(kvindex.Worker{ID: dynamo.WorkerID(w + 1)})
		for i := range 1630 {
			storePart(x, s, chainOf(uint64(w*10_000+i), 200), 0, 200)
		}
		var c kvindex.Cursor
		for more := true; more; {
			var chunk []byte
			chunk, c, more = x.AppendSnapshot(nil, s, dynamo.TierDevice, c, 64<<10)
			chunks[w] = append(chunks[w], chunk)
		}
	}
	held := x.Stats().Held
	for b.Loop() {
		y := newIndex(b)
		for w := range workers {
			s := y.Attach(kvindex.Worker{ID: dynamo.WorkerID(w + 1)})
			for _, chunk := range chunks[w] {
				if err := y.Restore(s, dynamo.TierDevice, chunk); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.ReportMetric(float64(held), "blocks")
}
