package event_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

// What is lost on purpose leaves no gap in the numbers, and the digest counts it.
func TestLose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := event.DefaultKVConfig()
		c.Worker, c.Epoch, c.BlockSize = 1, 1, 2
		c.Lose = func(n uint64) bool { return n == 2 }
		s, err := event.NewKVSource(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = s.Run(ctx) })
		var want kvindex.Digest
		for i := range 3 {
			blocks := tokens.AppendBlocks(nil, 0, 2, []dynamo.TokenID{dynamo.TokenID(i), 1})
			want.Note(blocks[0].Hash)
			s.Publish(&event.KVBatch{Events: []event.KVEvent{{Kind: kvbm.Stored, Blocks: []event.KVBlock{{Block: blocks[0]}}}}})
		}
		time.Sleep(time.Minute)
		stored, digests := 0, 0
		feed := event.NewFeed(s.Publisher().Source(), event.Position{Epoch: 1})
		for r := s.Publisher().Reader(feed.Cursor()); ; {
			bytes, some := r.Fill(nil, 32<<10)
			if _, err := feed.Take(bytes, func(d event.Delivery) bool {
				var b event.KVBatch
				if d.Kind != event.Event {
					t.Errorf("got a delivery of kind %v: a gap was seen", d.Kind)
				}
				if err := b.Parse(d.Payload); err != nil {
					t.Fatal(err)
				}
				stored += len(b.Events)
				if b.HasDigest {
					digests++
					if b.Digest != want {
						t.Errorf("the digest is %+v, want that of all three, %+v", b.Digest, want)
					}
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if !some {
				break
			}
		}
		if stored != 2 || digests == 0 {
			t.Errorf("%d events of 3 and %d digests came; want 2 and some", stored, digests)
		}
		cancel()
		running.Wait()
	})
}
