package kvindex_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

// TestVolume stores and removes more than fits into what the tables are told later,
// by hashes and by ids, and compares what is held with a set.
func TestVolume(t *testing.T) {
	rounds := 500
	if testing.Short() {
		rounds = 250
	}
	x := newIndex(t)
	rng := rand.New(rand.NewPCG(1, 2))
	dev := dynamo.TierDevice
	var sources [2]kvindex.Source
	var sets [2]map[dynamo.BlockHash]bool
	for i := range sources {
		sources[i] = x.Attach(kvindex.Worker{ID: dynamo.WorkerID(i + 1)})
		sets[i] = map[dynamo.BlockHash]bool{}
	}
	id := func(h dynamo.BlockHash) uint64 { return uint64(h) * 31 }
	var chains [][]tokens.Block
	for round := range rounds {
		var before []tokens.Block
		if len(chains) > 0 && rng.IntN(2) == 0 {
			c := chains[rng.IntN(len(chains))]
			before = c[:rng.IntN(len(c))+1]
		}
		from := len(before)
		c := continued(slices.Clone(before), uint64(round+10), from+100+rng.IntN(400))
		chains = append(chains, c)
		parent, hasParent := dynamo.BlockHash(0), from > 0
		if hasParent {
			parent = c[from-1].Hash
		}
		blocks := c[from:]
		var ids []uint64
		for _, b := range blocks {
			ids = append(ids, id(b.Hash))
			sets[0][b.Hash], sets[1][b.Hash] = true, true
		}
		x.Store(sources[0], dev, parent, hasParent, blocks)
		x.StoreEngine(sources[1], dev, parent, hasParent, blocks, ids)

		c = chains[rng.IntN(len(chains))] // of which a stretch goes
		from = rng.IntN(len(c))
		gone := hashesOf(c[from:min(from+1+rng.IntN(100), len(c))])
		slices.Reverse(gone)
		ids = ids[:0]
		for _, h := range gone {
			ids = append(ids, id(h))
			delete(sets[0], h)
			delete(sets[1], h)
		}
		x.Remove(sources[0], dev, gone)
		x.RemoveEngine(sources[1], dev, ids)
	}
	for i, s := range sources {
		var want kvindex.Digest
		for h := range sets[i] {
			want.Note(h)
		}
		if got := x.Digest(s, dev); got != want {
			t.Errorf("source %d: got %v, want %v", i, got, want)
		}
	}
	if err := x.Check(); err != nil {
		t.Error(err)
	}
	for _, c := range chains {
		for _, b := range c {
			x.Remove(sources[0], dev, []dynamo.BlockHash{b.Hash})
			x.RemoveEngine(sources[1], dev, []uint64{id(b.Hash)})
		}
	}
	if st := x.Stats(); st.Held != 0 || st.Blocks != 0 || st.Runs != 0 || st.Conflicts != 0 {
		t.Errorf("after all was removed: %+v", st)
	}
}

// TestConflict has a source say that a block is behind another one than before.
func TestConflict(t *testing.T) {
	for _, n := range []int{1, 1000} { // blocks that are stored beside, few or many
		x := newIndex(t)
		a, b := x.Attach(kvindex.Worker{ID: 1}), x.Attach(kvindex.Worker{ID: 2})
		c, other := chainOf(1, 20), chainOf(2, n)
		wrong := append(slices.Clone(chainOf(3, 5)), c[10:]...)
		storePart(x, a, c, 0, 20)
		x.Store(b, dynamo.TierDevice, 0, false, other)
		x.Store(b, dynamo.TierDevice, 0, false, wrong)
		x.Remove(b, dynamo.TierDevice, []dynamo.BlockHash{c[10].Hash}) // which the table knows in two places
		if got := held(x, a, c); got != 20 {
			t.Errorf("%d: the first who stored it has %d blocks, want 20", n, got)
		}
		if got := held(x, b, wrong); got != 5 {
			t.Errorf("%d: the other has %d blocks of the wrong chain, want 5", n, got)
		}
		if got := held(x, b, other); got != uint32(n) {
			t.Errorf("%d: the other has %d blocks of another chain", n, got)
		}
		if st := x.Stats(); st.Conflicts == 0 || x.State(b) != kvindex.Approximate || x.State(a) != kvindex.Exact {
			t.Errorf("%d: %+v, states %v and %v", n, st, x.State(a), x.State(b))
		}
		if err := x.Check(); err != nil {
			t.Error(err)
		}
	}
}

// TestChurn has chains come and go, many times what is held at once: what is held is
// found, and what is gone leaves no memory in use.
func TestChurn(t *testing.T) {
	rounds := 20_000
	if testing.Short() {
		rounds = 8_000
	}
	x := newIndex(t)
	s := x.Attach(kvindex.Worker{ID: 1})
	dev := dynamo.TierDevice
	const kept = 1_000
	var chains [kept][]tokens.Block
	bytes := int64(0)
	for i := range rounds {
		c := &chains[i%kept]
		if h := hashesOf(*c); i%3 == 0 {
			x.Remove(s, dev, h)
		} else {
			slices.Reverse(h)
			x.Remove(s, dev, h)
		}
		*c = chainOf(uint64(i), 30+i%60)
		storePart(x, s, *c, 0, len(*c))
		if i%kept != 0 || i < kept {
			continue
		}
		if bytes == 0 {
			bytes = x.Bytes()
		}
		if got := x.Bytes(); got > bytes*5/4 {
			t.Fatalf("%d bytes after %d chains, %d after the first", got, i, bytes)
		}
		middle := (*c)[10:20]
		x.Remove(s, dev, hashesOf(middle))
		if got := held(x, s, *c); got != 10 {
			t.Fatalf("held %d, want 10", got)
		}
		x.Store(s, dev, (*c)[9].Hash, true, middle)
		if got := held(x, s, *c); got != uint32(len(*c)) {
			t.Fatalf("held %d, want %d", got, len(*c))
		}
	}
	if err := x.Check(); err != nil {
		t.Error(err)
	}
	for _, c := range chains {
		x.Remove(s, dev, hashesOf(c))
	}
	if st := x.Stats(); st.Held != 0 || st.Runs != 0 || !x.Sweep(1) {
		t.Errorf("after all was removed: %+v", st)
	}
	if got := x.Bytes(); got > bytes/2 {
		t.Errorf("%d bytes left of an empty index, which had %d", got, bytes)
	}
}
