package event_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/plane/event"
)

// What is left of two sets' sketches are the blocks in which they differ, whatever
// they have in common; or it says that it cannot tell, seldom where it is large enough.
func TestSketch(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct {
		common, only, others, cells int
		most                        int // times of 50 that it cannot tell
	}{
		{0, 0, 0, 3, 0},
		{10_000, 0, 0, 240, 0},
		{10_000, 1, 0, 240, 0},
		{1000, 50, 50, 240, 3},
		{1000, 100, 0, 240, 3},
		{1000, 1000, 100, 2100, 3},
		{1000, 1000, 1000, 240, 50},
		{10, 5, 5, 3, 50},
	} {
		untold := 0
		for range 50 {
			if !tells(t, rng, c.common, [2]int{c.only, c.others}, c.cells) {
				untold++
			}
		}
		if untold > c.most {
			t.Errorf("%+v: %d times of 50 it cannot tell", c, untold)
		}
	}
}

// tells reports whether a sketch of so many cells tells which blocks are in one set
// only, or in the other; if it does, it must be right.
func tells(t *testing.T, rng *rand.Rand, common int, only [2]int, cells int) bool {
	t.Helper()
	s := event.NewSketch(rng.Uint64(), cells)
	var want, got [2][]dynamo.BlockHash
	for range common {
		h := dynamo.BlockHash(rng.Uint64())
		s.Put(h, 1)
		s.Put(h, -1)
	}
	for side, n := range only {
		for range n {
			h := dynamo.BlockHash(rng.Uint64())
			s.Put(h, int32(1-2*side))
			want[side] = append(want[side], h)
		}
	}
	told := s.Peel(func(h dynamo.BlockHash, in bool) {
		side := 1
		if in {
			side = 0
		}
		got[side] = append(got[side], h)
	})
	for side := range want {
		slices.Sort(want[side])
		slices.Sort(got[side])
		if told && !slices.Equal(got[side], want[side]) {
			t.Errorf("%d cells: got %d blocks, want %d", cells, len(got[side]), len(want[side]))
		}
	}
	return told
}
