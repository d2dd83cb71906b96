package kvwire_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/kvwire"
)

// TestDecodeIDs: ids of every size, in runs of any length at any place, are read as
// they were written.
func TestDecodeIDs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	sizes := []dynamo.TokenID{1 << 7, 1 << 8, 1 << 16, 1 << 20, 1<<32 - 1}
	var d kvwire.Decoder
	for range 2000 {
		var ids []dynamo.TokenID
		for n := random.IntN(80); len(ids) < n; {
			size := sizes[2] // most are of 16 bits
			if random.IntN(3) == 0 {
				size = sizes[random.IntN(len(sizes))]
			}
			for range random.IntN(20) {
				ids = append(ids, dynamo.TokenID(random.Uint32N(uint32(size))))
			}
		}
		b := decode(t, &d, batchOf([]any{"BlockStored", []any{7}, nil, ids, 16, nil}))
		if got := b.Events[0].Tokens; !slices.Equal(got, ids) {
			t.Fatalf("got  %v\nwant %v", got, ids)
		}
	}
}
