package router_test

import (
	"fmt"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/router"
)

// A whole request through the router in mode kv: hashes of a prompt of 4,096 tokens,
// who holds it, the decision, its record, the booking and its end. Blocks hold 16
// tokens; a quarter of the workers hold a part of the prompt.
func BenchmarkKV(b *testing.B) {
	for _, n := range []int{8, 64, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := open(b, func(c *router.Config) { c.Mode = "kv" })
			for i := range n {
				w := router.Worker{ID: dynamo.WorkerID(i + 1), Epoch: 1, Engine: &scripted{do: answer}, Card: engine.Card{Model: "m", BlockSize: 16}, MaxRunning: 256, KVBlocks: 10000}
				if err := r.Add(w); err != nil {
					b.Fatal(err)
				}
				r.SetUp(w.ID, w.Epoch, true)
				r.Report(w.ID, w.Epoch, engine.Load{MaxRunning: 256, KVBlocks: 10000, Detailed: true})
				if i%4 == 0 {
					if !deliver(r, w.ID, stored(16, text(1, 16+i%4000))) {
						b.Fatal("the blocks of a worker are refused")
					}
				}
			}
			q := request("r")
			q.Tokens = text(1, 4096)
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range r.Generate(b.Context(), q) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
