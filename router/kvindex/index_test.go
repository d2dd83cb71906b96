package kvindex_test

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

func newIndex(t testing.TB, change ...func(*kvindex.Config)) *kvindex.Index {
	t.Helper()
	c := kvindex.DefaultConfig()
	for _, f := range change {
		f(&c)
	}
	x, err := kvindex.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// chainOf is a chain of n blocks that no other seed has.
func chainOf(seed uint64, n int) []tokens.Block {
	return continued(nil, seed, n)
}

// continued is n blocks behind a chain.
func continued(before []tokens.Block, seed uint64, n int) []tokens.Block {
	rng := rand.New(rand.NewPCG(seed, 7))
	all := slices.Clone(before)
	for range n {
		l := dynamo.LocalHash(rng.Uint64())
		h := tokens.FirstHash(l)
		if len(all) > 0 {
			h = tokens.BlockHash(all[len(all)-1].Hash, l)
		}
		all = append(all, tokens.Block{Local: l, Hash: h})
	}
	return all
}

// storePart stores blocks from … to of a chain.
func storePart(x *kvindex.Index, s kvindex.Source, c []tokens.Block, from, to int) {
	var parent dynamo.BlockHash
	if from > 0 {
		parent = c[from-1].Hash
	}
	x.Store(s, dynamo.TierDevice, parent, from > 0, c[from:to])
}

// held is how many leading blocks a source is found to hold on the device.
func held(x *kvindex.Index, s kvindex.Source, c []tokens.Block) uint32 {
	for _, o := range x.Find(hashesOf(c), nil) {
		if o.Source == s {
			return o.Blocks[0]
		}
	}
	return 0
}

// TestIrregular is what events do in practice and indexes get wrong.
func TestIrregular(t *testing.T) {
	c := chainOf(1, 10)
	h := hashesOf(c)
	dev := dynamo.TierDevice
	ids := func(salt uint64) (all []uint64) {
		for _, b := range c {
			all = append(all, uint64(b.Hash)*31+salt)
		}
		return all
	}
	for _, tc := range []struct {
		name string
		do   func(x *kvindex.Index, a, b kvindex.Source)
		a, b uint32
	}{
		{"stored twice, removed once", func(x *kvindex.Index, a, _ kvindex.Source) {
			storePart(x, a, c, 0, 10)
			storePart(x, a, c, 0, 10)
			x.Remove(a, dev, h[9:])
		}, 9, 0},
		{"a middle block removed", func(x *kvindex.Index, a, _ kvindex.Source) {
			storePart(x, a, c, 0, 10)
			x.Remove(a, dev, h[5:6])
		}, 5, 0},
		{"a middle block removed and stored again", func(x *kvindex.Index, a, _ kvindex.Source) {
			storePart(x, a, c, 0, 10)
			x.Remove(a, dev, h[5:6])
			storePart(x, a, c, 5, 6)
		}, 10, 0},
		{"the first block removed", func(x *kvindex.Index, a, _ kvindex.Source) {
			storePart(x, a, c, 0, 10)
			x.Remove(a, dev, h[:1])
		}, 0, 0},
		{"the first block removed and stored again", func(x *kvindex.Index, a, _ kvindex.Source) {
			storePart(x, a, c, 0, 10)
			x.Remove(a, dev, h[:1])
			storePart(x, a, c, 0, 1)
		}, 10, 0},
		{"a child before its parent", func(x *kvindex.Index, a, _ kvindex.Source) {
			storePart(x, a, c, 5, 10)
			storePart(x, a, c, 0, 5)
		}, 10, 0},
		{"a child of a parent that only another has", func(x *kvindex.Index, a, b kvindex.Source) {
			storePart(x, a, c, 0, 5)
			storePart(x, b, c, 5, 10)
		}, 5, 0},
		{"and that the child's has later", func(x *kvindex.Index, a, b kvindex.Source) {
			storePart(x, a, c, 0, 5)
			storePart(x, b, c, 5, 10)
			storePart(x, b, c, 0, 5)
		}, 5, 10},
		{"unknown hashes among those removed", func(x *kvindex.Index, a, _ kvindex.Source) {
			storePart(x, a, c, 0, 10)
			x.Remove(a, dev, []dynamo.BlockHash{1, h[9], 2, h[8], 3})
		}, 8, 0},
		{"blocks removed that only another has", func(x *kvindex.Index, a, b kvindex.Source) {
			storePart(x, a, c, 0, 10)
			x.Remove(b, dev, h)
		}, 10, 0},
		{"equal tokens under different ids", func(x *kvindex.Index, a, b kvindex.Source) {
			x.StoreEngine(a, dev, 0, false, c, ids(1))
			x.StoreEngine(b, dev, 0, false, c, ids(2))
			x.RemoveEngine(b, dev, ids(2)[4:])
			x.RemoveEngine(a, dev, ids(2)) // which are not a's
		}, 10, 4},
		{"two ids of one block, one removed", func(x *kvindex.Index, a, _ kvindex.Source) {
			x.StoreEngine(a, dev, 0, false, c, ids(1))
			x.StoreEngine(a, dev, c[8].Hash, true, c[9:], ids(2)[9:])
			x.RemoveEngine(a, dev, ids(1)[9:])
		}, 10, 0},
		{"two ids of one block, both removed", func(x *kvindex.Index, a, _ kvindex.Source) {
			x.StoreEngine(a, dev, 0, false, c, ids(1))
			x.StoreEngine(a, dev, c[8].Hash, true, c[9:], ids(2)[9:])
			x.RemoveEngine(a, dev, ids(1)[9:])
			x.RemoveEngine(a, dev, ids(2)[9:])
		}, 9, 0},
		{"cleared", func(x *kvindex.Index, a, b kvindex.Source) {
			storePart(x, a, c, 0, 10)
			storePart(x, b, c, 0, 10)
			x.Clear(a, dev)
			storePart(x, a, c, 0, 2)
		}, 2, 10},
		{"detached, and the handle a stranger's", func(x *kvindex.Index, a, b kvindex.Source) {
			storePart(x, a, c, 0, 10)
			storePart(x, b, c, 0, 10)
			x.Detach(a)
			storePart(x, a, c, 0, 10)
			x.Remove(a, dev, h)
			x.Detach(a)
		}, 0, 10},
	} {
		t.Run(tc.name, func(t *testing.T) {
			x := newIndex(t)
			a, b := x.Attach(kvindex.Worker{ID: 1}), x.Attach(kvindex.Worker{ID: 2})
			tc.do(x, a, b)
			if ga, gb := held(x, a, c), held(x, b, c); ga != tc.a || gb != tc.b {
				t.Errorf("held %d and %d, want %d and %d", ga, gb, tc.a, tc.b)
			}
			if err := x.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTiers(t *testing.T) {
	x := newIndex(t)
	s := x.Attach(kvindex.Worker{ID: 1})
	c := chainOf(1, 200)
	x.Store(s, dynamo.TierDevice, 0, false, c[:50])
	x.Store(s, dynamo.TierHost, 0, false, c[:120])
	x.Store(s, dynamo.TierRemote, c[119].Hash, true, c[120:])
	x.Store(s, dynamo.TierDevice, c[99].Hash, true, c[100:130])
	got := x.Find(hashesOf(c), nil)
	want := []kvindex.Overlap{{Source: s, Blocks: [4]uint32{50, 130, 130, 200}}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestExpect(t *testing.T) {
	x := newIndex(t)
	s := x.Attach(kvindex.Worker{ID: 1})
	c := chainOf(1, 100)
	now := time.Unix(100, 500)
	x.Expect(s, hashesOf(c), now.Add(5*time.Second))
	if got := held(x, s, c); got != 100 {
		t.Errorf("held %d at once", got)
	}
	if d := x.Digest(s, 0); d.Blocks != 0 {
		t.Errorf("the digest counts %d blocks that are only expected", d.Blocks)
	}
	storePart(x, s, c, 0, 40)
	x.Expect(s, hashesOf(c[:60]), now.Add(9*time.Second))
	for _, step := range []struct {
		after time.Duration
		want  uint32
	}{{4, 100}, {5, 100}, {6, 60}, {9, 60}, {10, 40}, {1000, 40}} {
		x.Expire(now.Add(step.after * time.Second))
		if got := held(x, s, c); got != step.want {
			t.Errorf("after %d s: held %d, want %d", step.after, got, step.want)
		}
	}
	if err := x.Check(); err != nil {
		t.Error(err)
	}
}

// TestBudget stores much more than fits: memory stays within its bound, what was
// evicted is counted, sources say that they are approximate, and the rest is right.
func TestBudget(t *testing.T) {
	const budget = 5 << 20
	x := newIndex(t, func(c *kvindex.Config) { c.MaxBytes = budget })
	shared := chainOf(1, 64)
	var sources []kvindex.Source
	for i := range 8 {
		sources = append(sources, x.Attach(kvindex.Worker{ID: dynamo.WorkerID(i + 1)}))
		storePart(x, sources[i], shared, 0, 64)
	}
	total := 0
	var last []tokens.Block
	chains := 6000
	if testing.Short() {
		chains = 4000
	}
	for i := range chains {
		s := sources[i%len(sources)]
		last = continued(shared, uint64(i+10), 150)
		for at := 64; at < len(last); at += 50 {
			storePart(x, s, last, at, min(at+50, len(last)))
		}
		total += 150
		if i%500 == 0 {
			if err := x.Check(); err != nil {
				t.Fatal(err)
			}
		}
		if got := held(x, s, last); got != uint32(len(last)) {
			t.Fatalf("chain %d: held %d of %d blocks that were just stored", i, got, len(last))
		}
	}
	st := x.Stats()
	if st.Bytes > budget || st.Held < budget/40 {
		t.Errorf("%d blocks held in %d bytes", st.Held, st.Bytes)
	}
	if int64(st.Evicted)+st.Held+int64(st.Dropped) != int64(total+8*64) || st.Evicted == 0 || st.Dropped != 0 {
		t.Errorf("stored %d: %+v", total+8*64, st)
	}
	for _, s := range sources {
		if x.State(s) != kvindex.Approximate {
			t.Errorf("source %d is %v", s, x.State(s))
		}
		if got := held(x, s, shared); got != 64 {
			t.Errorf("of what all share, source %d holds %d", s, got)
		}
		x.Detach(s)
	}
	for !x.Sweep(1000) {
	}
	if got := x.Bytes(); got > budget/4 {
		t.Errorf("%d bytes left of an empty index", got)
	}
}

// TestTooMuch stores a chain that does not fit even alone: its beginning is held, the
// rest is counted as dropped, and what is there is whole.
func TestTooMuch(t *testing.T) {
	x := newIndex(t, func(c *kvindex.Config) { c.MaxBytes = kvindex.MinBytes })
	s, other := x.Attach(kvindex.Worker{ID: 1}), x.Attach(kvindex.Worker{ID: 2})
	before := chainOf(1, 40_000)
	storePart(x, other, before, 0, len(before))
	long := chainOf(2, 400_000)
	storePart(x, s, long, 0, len(long))
	st := x.Stats()
	if int64(st.Evicted+st.Dropped)+st.Held != int64(len(before)+len(long)) || st.Dropped == 0 || x.State(s) != kvindex.Approximate {
		t.Errorf("%+v, state %v", st, x.State(s))
	}
	if got := held(x, s, long); int64(got) != x.Blocks(s, dynamo.TierDevice) || got < 50_000 {
		t.Errorf("held %d of %d", got, x.Blocks(s, dynamo.TierDevice))
	}
	if err := x.Check(); err != nil {
		t.Error(err)
	}
	x.Detach(s)
	x.Detach(other)
	for !x.Sweep(1000) {
	}
	storePart(x, x.Attach(kvindex.Worker{ID: 3}), before, 0, 1000)
	if err := x.Check(); err != nil {
		t.Error(err)
	}
}

// TestConcurrent has readers ask for sources that do not change while a writer
// changes everything around them.
func TestConcurrent(t *testing.T) {
	x := newIndex(t, func(c *kvindex.Config) { c.MaxBytes = 8 << 20 })
	shared := chainOf(1, 100)
	still := continued(shared, 2, 100)
	quiet := []kvindex.Source{x.Attach(kvindex.Worker{ID: 1}), x.Attach(kvindex.Worker{ID: 2})}
	storePart(x, quiet[0], still, 0, 200)
	x.Store(quiet[1], dynamo.TierHost, 0, false, still[:150])
	want := []kvindex.Overlap{{Source: quiet[0], Blocks: [4]uint32{200, 200, 200, 200}}, {Source: quiet[1], Blocks: [4]uint32{0, 150, 150, 150}}}

	var passing [][]dynamo.BlockHash
	var chains [][]tokens.Block
	for i := range 16 {
		chains = append(chains, chainOf(uint64(1000+i), 150))
		passing = append(passing, hashesOf(chains[i]))
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			var found []kvindex.Overlap
			q := hashesOf(still)
			for i := 0; !stop.Load(); i++ {
				found = x.Find(passing[i%len(passing)], found[:0]) // whose memory changes hands
				found = x.Find(q, found[:0])
				n := 0
				for _, o := range found {
					if o.Source == quiet[0] || o.Source == quiet[1] {
						if o != want[o.Source] {
							t.Errorf("got %v, want %v", o, want[o.Source])
							return
						}
						n++
					}
				}
				if n != 2 {
					t.Errorf("found %d of 2 sources", n)
					return
				}
				runtime.Gosched()
			}
		})
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var busy []kvindex.Source
	rounds := 4000
	if testing.Short() {
		rounds = 1000
	}
	for i := range rounds {
		if len(busy) < 6 {
			busy = append(busy, x.Attach(kvindex.Worker{ID: 9}))
		}
		k := rng.IntN(len(busy))
		s := busy[k]
		c := continued(still[:rng.IntN(200)], uint64(i), 1+rng.IntN(150))
		switch rng.IntN(12) {
		case 0:
			x.Detach(s)
			busy = slices.Delete(busy, k, k+1)
		case 1:
			x.Clear(s, dynamo.TierDevice)
		case 2, 3, 4:
			x.Remove(s, dynamo.TierDevice, hashesOf(still[rng.IntN(200):]))
		case 5:
			x.Store(s, dynamo.TierHost, 0, false, still[:rng.IntN(200)])
		case 6, 7, 8:
			for k := range chains {
				storePart(x, s, chains[k], 0, 150)
				x.Remove(s, dynamo.TierDevice, passing[(k+8)%16])
			}
		default:
			storePart(x, s, c, 0, len(c))
			if rng.IntN(2) == 0 {
				h := hashesOf(c)
				slices.Reverse(h)
				x.Remove(s, dynamo.TierDevice, h[:rng.IntN(len(h))])
			}
		}
	}
	stop.Store(true)
	readers.Wait()
	if err := x.Check(); err != nil {
		t.Error(err)
	}
}

func TestSnapshot(t *testing.T) {
	x := newIndex(t)
	s := x.Attach(kvindex.Worker{ID: 1})
	rng := rand.New(rand.NewPCG(3, 3))
	f := newForest(rng, 40, 300)
	for range 200 {
		parent, hasParent, blocks := f.piece()
		x.Store(s, dynamo.TierHost, parent, hasParent, blocks)
		_, _, blocks = f.piece()
		x.Remove(s, dynamo.TierHost, hashesOf(blocks))
	}
	y := newIndex(t)
	z := y.Attach(kvindex.Worker{ID: 1})
	chunks := 0
	var c kvindex.Cursor
	for more := true; more; chunks++ {
		var chunk []byte
		chunk, c, more = x.AppendSnapshot(nil, s, dynamo.TierHost, c, 4096)
		if len(chunk) > 8192 {
			t.Errorf("a chunk of %d bytes", len(chunk))
		}
		if err := y.Restore(z, dynamo.TierHost, chunk); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := y.Digest(z, dynamo.TierHost), x.Digest(s, dynamo.TierHost); got != want || want.Blocks == 0 || chunks < 3 {
		t.Errorf("after %d chunks: digest %v, want %v", chunks, got, want)
	}
	for _, p := range f.paths {
		got, want := y.Find(hashesOf(p), nil), x.Find(hashesOf(p), nil)
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if err := y.Check(); err != nil {
		t.Error(err)
	}
	var e *dynamo.Error
	for _, bad := range [][]byte{nil, {2}, {1, 0}, {1, 65}, {1, 1, 2, 3}, {1, 0x81, 1, 2, 3, 4, 5, 6, 7, 8}} {
		if err := y.Restore(z, dynamo.TierHost, bad); !errors.As(err, &e) || e.Kind != dynamo.KindCorrupt {
			t.Errorf("Restore(%x) = %v", bad, err)
		}
	}
}

// TestList has the blocks of a range listed by two indexes that came to what they hold
// in different ways.
func TestList(t *testing.T) {
	x, y := newIndex(t), newIndex(t)
	s, z := x.Attach(kvindex.Worker{ID: 1}), y.Attach(kvindex.Worker{ID: 1})
	var want []dynamo.BlockHash
	const first, last = 1 << 62, 1 << 63
	for i := range 20 {
		c := chainOf(uint64(i), 310)
		storePart(x, s, c, 0, 310)
		for at := 300; at >= 0; at -= 50 {
			storePart(y, z, c, at, min(at+50, 310))
		}
		x.Remove(s, dynamo.TierDevice, hashesOf(c[305:]))
		y.Remove(z, dynamo.TierDevice, hashesOf(c[305:]))
		for _, b := range c[:305] {
			if b.Hash >= first && b.Hash <= last {
				want = append(want, b.Hash)
			}
		}
	}
	slices.Sort(want)
	for i, got := range [][]dynamo.BlockHash{x.List(s, dynamo.TierDevice, first, last, nil), y.List(z, dynamo.TierDevice, first, last, nil)} {
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("index %d lists %d blocks, want %d", i, len(got), len(want))
		}
	}
	if got, want := y.Digest(z, 0), x.Digest(s, 0); got != want {
		t.Errorf("digest %v, want %v", got, want)
	}
}

func TestLimits(t *testing.T) {
	for _, change := range []func(*kvindex.Config){
		func(c *kvindex.Config) { c.MaxBytes = 1 },
		func(c *kvindex.Config) { c.MaxBytes = 1 << 50 },
		func(c *kvindex.Config) { c.ExpectStep = 0 },
	} {
		c := kvindex.DefaultConfig()
		change(&c)
		if _, err := kvindex.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	x := newIndex(t)
	s := x.Attach(kvindex.Worker{ID: 1})
	x.Store(kvindex.NoSource, 0, 0, false, chainOf(1, 3))
	x.Store(s, 9, 0, false, chainOf(1, 3))
	if got := x.Stats().Dropped; got != 6 {
		t.Errorf("dropped %d", got)
	}
	x.Remove(77, 0, []dynamo.BlockHash{1})
	x.Clear(77, 0)
	x.Detach(77)
	if got := x.Find(nil, nil); got != nil {
		t.Errorf("an empty sequence is found: %v", got)
	}
	if got := x.Find([]dynamo.BlockHash{0}, nil); got != nil {
		t.Errorf("an unknown block is found: %v", got)
	}
}

func TestAllocations(t *testing.T) {
	x := newIndex(t)
	c := chainOf(1, 200)
	for i := range 50 {
		storePart(x, x.Attach(kvindex.Worker{ID: dynamo.WorkerID(i + 1)}), c, 0, 50+i)
	}
	q := hashesOf(c)
	dst := make([]kvindex.Overlap, 0, 64)
	if n := testing.AllocsPerRun(100, func() { dst = x.Find(q, dst[:0]) }); n != 0 || len(dst) != 50 {
		t.Errorf("%v allocations for %d sources", n, len(dst))
	}
}
