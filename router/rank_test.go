package router_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/tokens"
)

// Of a worker's ranks the one that holds most of a prompt serves it, and those of
// which none holds any in turn; a rank that the request names is left as it is.
func TestRanks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, func(c *router.Config) { c.Mode = "kv" })
		var last *dynamo.Routing
		e := &scripted{do: func(ctx context.Context, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			last = q.Routing
			answer(ctx, q, yield)
		}}
		w := router.Worker{ID: 1, Epoch: 1, Engine: e, Card: engine.Card{Model: "m", BlockSize: blockSize}, MaxRunning: 100}
		if err := r.Add(w); err != nil {
			t.Fatal(err)
		}
		r.SetUp(1, 1, true)
		ask := func(id string, ids []dynamo.TokenID, named *int) int {
			t.Helper()
			q := request(id)
			q.Tokens = ids
			if named != nil {
				q.Routing = &dynamo.Routing{Rank: named}
			}
			if _, err := enginetest.Collect(t.Context(), r, q); err != nil {
				t.Fatal(err)
			}
			if last == nil || last.Rank == nil {
				return -1
			}
			return *last.Rank
		}
		if got := ask("before", text(1, 40), nil); got != -1 {
			t.Errorf("a worker that has told of no ranks was told to use %d", got)
		}
		for rank := range 3 {
			b := event.KVBatch{BlockSize: blockSize, Rank: rank}
			v := event.KVEvent{Kind: kvbm.Stored}
			for _, block := range tokens.AppendBlocks(nil, 0, blockSize, text(10+rank, 100)) {
				v.Blocks = append(v.Blocks, event.KVBlock{Block: block})
			}
			b.Events = append(b.Events, v)
			apply(t, r, 1, event.Delivery{Kind: event.Event, Payload: b.Append(nil)})
		}
		for _, rank := range []int{2, 0, 1, 2} {
			if got := ask(fmt.Sprint("held", rank), text(10+rank, 120), nil); got != rank {
				t.Errorf("a prompt that rank %d holds went to %d", rank, got)
			}
		}
		seen := map[int]int{}
		for i := range 9 {
			seen[ask(fmt.Sprint("new", i), text(50+i, 40), nil)]++
		}
		if seen[0] != 3 || seen[1] != 3 || seen[2] != 3 {
			t.Errorf("prompts that no rank holds went to %v", seen)
		}
		one := 1
		if got := ask("named", text(10, 120), &one); got != 1 {
			t.Errorf("a request for rank 1 went to %d", got)
		}
		idle(t, r)
	})
}
