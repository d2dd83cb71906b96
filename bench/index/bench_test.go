package index

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/kvindex"
)

func BenchmarkStore(b *testing.B) {
	for _, chunk := range []int{64, 1} {
		for _, engine := range []bool{false, true} {
			b.Run(fmt.Sprintf("chunk=%d/engine=%t", chunk, engine), func(b *testing.B) {
				c := DefaultConfig()
				c.Chunk, c.EngineIDs = chunk, engine
				w := generate(c.Params)
				best := time.Duration(math.MaxInt64)
				b.ResetTimer()
				for range b.N {
					t := time.Now()
					x, err := c.subject()
					if err != nil {
						b.Fatal(err)
					}
					for i := range w.events {
						x.store(&w.events[i])
					}
					best = min(best, time.Since(t))
				}
				b.ReportMetric(float64(w.held)/best.Seconds()/1e6, "Mblocks/s-best")
			})
		}
	}
}

func BenchmarkFind(b *testing.B) {
	c := DefaultConfig()
	w := generate(c.Params)
	x, err := c.subject()
	if err != nil {
		b.Fatal(err)
	}
	for i := range w.events {
		x.store(&w.events[i])
	}
	w.events = nil
	for _, n := range []int{128, 512} {
		var hashes [][]dynamo.BlockHash
		for _, q := range queries(w.sequences, n, queryCount, c.Seed) {
			hashes = append(hashes, chain(nil, q))
		}
		b.Run(fmt.Sprintf("blocks=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			var found []kvindex.Overlap
			i := 0
			best, t := time.Duration(math.MaxInt64), time.Now()
			for b.Loop() {
				found = x.Find(hashes[i], found[:0])
				if i++; i == len(hashes) {
					i = 0
					best, t = min(best, time.Since(t)), time.Now()
				}
			}
			b.ReportMetric(float64(len(hashes))/best.Seconds()/1e3, "k/s-best")
		})
	}
}

func BenchmarkRemove(b *testing.B) {
	c := DefaultConfig()
	w := generate(c.Params)
	for _, chunk := range []int{1, 16} {
		events, n := removals(w.sequences[:len(w.sequences)/4], c.Params, chunk)
		b.Run(fmt.Sprintf("chunk=%d", chunk), func(b *testing.B) {
			best := time.Duration(math.MaxInt64)
			for range b.N {
				b.StopTimer()
				x, err := c.subject()
				if err != nil {
					b.Fatal(err)
				}
				for i := range w.events {
					x.store(&w.events[i])
				}
				b.StartTimer()
				t := time.Now()
				for i := range events {
					x.remove(&events[i])
				}
				best = min(best, time.Since(t))
			}
			b.ReportMetric(float64(n)/best.Seconds()/1e6, "Mblocks/s-best")
		})
	}
}
