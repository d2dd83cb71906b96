package kvindex_test

import (
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

// FuzzIndex lives a life that the seed draws, with as many steps as the input says, and
// compares with the model after each.
func FuzzIndex(f *testing.F) {
	f.Add(uint64(1), uint16(200))
	f.Add(uint64(77), uint16(400))
	f.Fuzz(func(t *testing.T, seed uint64, steps uint16) {
		l := newLife(t, seed, kvindex.DefaultConfig())
		for range min(steps, 500) {
			l.step()
			l.check(hashesOf(l.f.paths[l.rng.IntN(len(l.f.paths))]))
		}
		l.checkAll()
	})
}

// FuzzHostile applies events that no sane source sends: hashes that do not chain, repeat
// within an event and collide, any tier and source. What a lookup says of such chains
// is not much worth; the index must stay whole and within its memory, and not speak of
// sources that have not stored the first block.
func FuzzHostile(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 2, 3, 1, 0, 0, 2, 0, 1, 0, 3, 2, 1})
	f.Add([]byte{0, 0, 0, 1, 1, 1, 1, 3, 0, 0, 1, 0, 4, 1, 0, 2, 2, 9})
	f.Fuzz(func(t *testing.T, ops []byte) {
		c := kvindex.DefaultConfig()
		c.MaxBytes = kvindex.MinBytes
		x, err := kvindex.New(c)
		if err != nil {
			t.Fatal(err)
		}
		said := map[kvindex.Source]map[dynamo.BlockHash]bool{}
		for i := range 3 {
			said[x.Attach(kvindex.Worker{ID: dynamo.WorkerID(i + 1)})] = map[dynamo.BlockHash]bool{}
		}
		for len(ops) >= 4 {
			op, s, tier := ops[0]%6, kvindex.Source(ops[1]%4), dynamo.Tier(ops[2]%5)
			n := min(int(ops[3]%32)+1, len(ops)-3)
			var blocks []tokens.Block
			var hashes []dynamo.BlockHash
			var ids []uint64
			for _, b := range ops[3 : 3+n] {
				h := dynamo.BlockHash(b%16) << 60 // few, and all bits alike
				blocks = append(blocks, tokens.Block{Hash: h})
				hashes, ids = append(hashes, h), append(ids, uint64(b))
				if said[s] != nil && op < 2 {
					said[s][h] = true
				}
			}
			switch op {
			case 0:
				x.Store(s, tier, hashes[n-1], ops[3]&1 == 0, blocks)
			case 1:
				x.StoreEngine(s, tier, hashes[n-1], ops[3]&1 == 0, blocks, ids)
			case 2:
				x.Remove(s, tier, hashes)
			case 3:
				x.RemoveEngine(s, tier, ids)
			case 4:
				x.Clear(s, tier)
			default:
				x.Sweep(n)
			}
			ops = ops[3+n:]
			if err := x.Check(); err != nil {
				t.Fatal(err)
			}
			for _, o := range x.Find(hashes, nil) {
				if !said[o.Source][hashes[0]] || int(o.Blocks[3]) > len(hashes) || !slices.IsSorted(o.Blocks[:]) {
					t.Fatalf("of %v: %+v", hashes, o)
				}
			}
		}
	})
}

// FuzzRestore decodes what may be a chunk of a snapshot.
func FuzzRestore(f *testing.F) {
	f.Add([]byte{1, 1, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{1, 0x81, 1, 2, 3, 4, 5, 6, 7, 8, 8, 7, 6, 5, 4, 3, 2, 1})
	f.Fuzz(func(t *testing.T, chunk []byte) {
		x, err := kvindex.New(kvindex.DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		s := x.Attach(kvindex.Worker{ID: 1})
		if err := x.Restore(s, dynamo.TierDevice, chunk); err != nil {
			if got := x.Stats().Held; got != 0 {
				t.Fatalf("%d blocks are held after %v", got, err)
			}
			return
		}
		if err := x.Check(); err != nil {
			t.Fatal(err)
		}
		again, _, _ := x.AppendSnapshot(nil, s, dynamo.TierDevice, kvindex.Cursor{}, 1<<20)
		y, err := kvindex.New(kvindex.DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		z := y.Attach(kvindex.Worker{ID: 1})
		if err := y.Restore(z, dynamo.TierDevice, again); err != nil {
			t.Fatal(err)
		}
		if got, want := y.Digest(z, 0), x.Digest(s, 0); got != want {
			t.Fatalf("digest %v, want %v", got, want)
		}
	})
}
