package kvindex

import (
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// TestGrace holds lookups open, more than there are places for, which no caller can:
// what they may see is not used again before the last of them that saw it is over.
func TestGrace(t *testing.T) {
	x, err := New(DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	s := x.Attach(Worker{ID: 1})
	store := func(h dynamo.BlockHash) uint32 {
		x.Store(s, dynamo.TierDevice, 0, false, []tokens.Block{{Hash: h}})
		return x.lookup(uint64(h)) / runBlocks
	}
	remove := func(h dynamo.BlockHash) { x.Remove(s, dynamo.TierDevice, []dynamo.BlockHash{h}) }

	var readers []*reader
	for range readerSlots + 3 {
		readers = append(readers, x.enter())
	}
	seen := store(1)
	remove(1)
	for h := range dynamo.BlockHash(3 * reclaimEvery) { // others come and go
		if id := store(h + 2); id == seen {
			t.Fatal("a run is used again while lookups may see it")
		}
		remove(h + 2)
	}
	for i, r := range readers {
		if x.reclaim() {
			t.Fatalf("with %d lookups open all is reclaimed", len(readers)-i)
		}
		r.leave()
	}
	late := x.enter() // which cannot have seen anything of it
	if !x.reclaim() {
		t.Error("after the lookups memory is not reclaimed")
	}
	late.leave()
	if x.runs.live != len(x.table.buried) || x.segs.live != 0 {
		t.Errorf("%d runs and %d segments are in use", x.runs.live, x.segs.live)
	}
}
