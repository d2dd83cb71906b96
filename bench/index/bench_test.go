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
					x, err := c.subject()
					if err != nil {
						b.Fatal(err)
					}
					t := cpuTime()
					for i := range w.events {
						x.store(&w.events[i])
					}
					best = min(best, cpuTime()-t)
				}
				b.ReportMetric(float64(best.Nanoseconds())/float64(w.held), "cpu-ns/block-best")
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

// BenchmarkRemove takes the second quarter of sequences out, after the first one went.
func BenchmarkRemove(b *testing.B) {
	for _, engine := range []bool{false, true} {
		for _, chunk := range []int{1, 16} {
			b.Run(fmt.Sprintf("chunk=%d/engine=%t", chunk, engine), func(b *testing.B) {
				c := DefaultConfig()
				c.EngineIDs = engine
				w := generate(c.Params)
				q := len(w.sequences) / 4
				first, _ := removals(w.sequences[:q], c.Params, 1)
				events, n := removals(w.sequences[q:2*q], c.Params, chunk)
				best := time.Duration(math.MaxInt64)
				for range b.N {
					x, err := c.subject()
					if err != nil {
						b.Fatal(err)
					}
					for i := range w.events {
						x.store(&w.events[i])
					}
					for i := range first {
						x.remove(&first[i])
					}
					t := cpuTime()
					for i := range events {
						x.remove(&events[i])
					}
					best = min(best, cpuTime()-t)
				}
				b.ReportMetric(float64(best.Nanoseconds())/float64(n), "cpu-ns/block-best")
			})
		}
	}
}
