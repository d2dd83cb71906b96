package kvindex_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

// place is a tier of a source.
type place struct {
	s kvindex.Source
	t dynamo.Tier
}

// model is what the index promises, in maps.
type model struct {
	held     map[place]map[dynamo.BlockHash]bool
	ids      map[place]map[uint64]dynamo.BlockHash
	expected map[kvindex.Source]map[dynamo.BlockHash]time.Time
	live     map[kvindex.Source]bool
}

func newModel() *model {
	return &model{
		held: map[place]map[dynamo.BlockHash]bool{}, ids: map[place]map[uint64]dynamo.BlockHash{},
		expected: map[kvindex.Source]map[dynamo.BlockHash]time.Time{}, live: map[kvindex.Source]bool{},
	}
}

func (m *model) store(p place, blocks []tokens.Block, ids []uint64) {
	if m.held[p] == nil {
		m.held[p], m.ids[p] = map[dynamo.BlockHash]bool{}, map[uint64]dynamo.BlockHash{}
	}
	for i, b := range blocks {
		m.held[p][b.Hash] = true
		if ids != nil {
			m.ids[p][ids[i]] = b.Hash
		}
	}
}

func (m *model) remove(p place, hashes []dynamo.BlockHash) {
	for _, h := range hashes {
		delete(m.held[p], h)
	}
}

func (m *model) removeEngine(p place, ids []uint64) {
	for _, id := range ids {
		h, ok := m.ids[p][id]
		if !ok {
			continue
		}
		delete(m.ids[p], id)
		more := false
		for _, other := range m.ids[p] {
			more = more || other == h
		}
		if !more {
			delete(m.held[p], h)
		}
	}
}

func (m *model) clear(p place) { delete(m.held, p); delete(m.ids, p) }

func (m *model) detach(s kvindex.Source) {
	for t := range dynamo.TierRemote + 1 {
		m.clear(place{s, t})
	}
	delete(m.expected, s)
	delete(m.live, s)
}

func (m *model) find(hashes []dynamo.BlockHash) (all []kvindex.Overlap) {
	for s := range m.live {
		o := kvindex.Overlap{Source: s}
		for t := range o.Blocks {
		walk:
			for _, h := range hashes {
				_, have := m.expected[s][h]
				for t := range dynamo.Tier(t) + 1 {
					have = have || m.held[place{s, t}][h]
				}
				if !have {
					break walk
				}
				o.Blocks[t]++
			}
		}
		if o.Blocks[3] > 0 {
			all = append(all, o)
		}
	}
	sortOverlaps(all)
	return all
}

func sortOverlaps(all []kvindex.Overlap) {
	slices.SortFunc(all, func(a, b kvindex.Overlap) int { return cmp.Compare(a.Source, b.Source) })
}

// forest is chains that share beginnings: block i of a path is known by the path.
type forest struct {
	rng   *rand.Rand
	paths [][]tokens.Block
}

func newForest(rng *rand.Rand, paths, depth int) *forest {
	f := &forest{rng: rng}
	for range paths {
		var p []tokens.Block
		if len(f.paths) > 0 && rng.IntN(4) > 0 {
			from := f.paths[rng.IntN(len(f.paths))]
			p = append(p, from[:rng.IntN(len(from)+1)]...)
		}
		for n := 1 + rng.IntN(depth); len(p) < n; {
			l := dynamo.LocalHash(rng.Uint64())
			h := tokens.FirstHash(l)
			if len(p) > 0 {
				h = tokens.BlockHash(p[len(p)-1].Hash, l)
			}
			p = append(p, tokens.Block{Local: l, Hash: h})
		}
		f.paths = append(f.paths, p)
	}
	return f
}

// piece is a part of a path, and what comes before it.
func (f *forest) piece() (parent dynamo.BlockHash, hasParent bool, blocks []tokens.Block) {
	p := f.paths[f.rng.IntN(len(f.paths))]
	from := 0
	if f.rng.IntN(3) > 0 {
		from = f.rng.IntN(len(p))
	}
	to := from + 1 + f.rng.IntN(len(p)-from)
	if f.rng.IntN(3) == 0 {
		to = from + 1
	}
	if from > 0 {
		parent, hasParent = p[from-1].Hash, true
	}
	return parent, hasParent, p[from:to]
}

// whole is a piece with all that is before it.
func (f *forest) whole(parent dynamo.BlockHash, hasParent bool, blocks []tokens.Block) []tokens.Block {
	if !hasParent {
		return blocks
	}
	for _, p := range f.paths {
		if i := slices.IndexFunc(p, func(b tokens.Block) bool { return b.Hash == parent }); i >= 0 {
			return append(slices.Clone(p[:i+1]), blocks...)
		}
	}
	panic("the parent is in no path")
}

func hashesOf(blocks []tokens.Block) (h []dynamo.BlockHash) {
	for _, b := range blocks {
		h = append(h, b.Hash)
	}
	return h
}

// run drives the index and the model through the same random life.
type life struct {
	t   *testing.T
	x   *kvindex.Index
	m   *model
	f   *forest
	rng *rand.Rand
	now time.Time
	all []kvindex.Source
}

func newLife(t *testing.T, seed uint64, c kvindex.Config) *life {
	rng := rand.New(rand.NewPCG(seed, 1))
	x, err := kvindex.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &life{t: t, x: x, m: newModel(), f: newForest(rng, 12, 200), rng: rng, now: time.Unix(1000, 0)}
}

func (l *life) step() {
	if len(l.all) < 2 || l.rng.IntN(60) == 0 && len(l.all) < 20 {
		s := l.x.Attach(kvindex.Worker{ID: dynamo.WorkerID(l.rng.Uint64())})
		l.all = append(l.all, s)
		l.m.live[s] = true
	}
	p := place{l.all[l.rng.IntN(len(l.all))], 0}
	if l.rng.IntN(3) == 0 {
		p.t = dynamo.Tier(l.rng.IntN(4))
	}
	parent, hasParent, blocks := l.f.piece()
	engine := p.s%2 == 1 // a source removes by hashes, or by its engine's ids
	switch k := l.rng.IntN(100); {
	case k < 50 && !engine:
		l.x.Store(p.s, p.t, parent, hasParent, blocks)
		l.m.store(p, blocks, nil)
	case k < 50:
		ids := make([]uint64, len(blocks))
		for i, b := range blocks {
			ids[i] = uint64(b.Hash) + uint64(p.s)<<3 + uint64(l.rng.IntN(8)/7)
		}
		l.x.StoreEngine(p.s, p.t, parent, hasParent, blocks, ids)
		l.m.store(p, blocks, ids)
	case k < 85 && !engine:
		h := hashesOf(blocks)
		if l.rng.IntN(2) == 0 {
			slices.Reverse(h)
		}
		h = append(h, dynamo.BlockHash(l.rng.Uint64()))
		l.x.Remove(p.s, p.t, h)
		l.m.remove(p, h)
	case k < 85:
		var ids []uint64
		for _, b := range blocks {
			ids = append(ids, uint64(b.Hash)+uint64(p.s)<<3+uint64(l.rng.IntN(2)))
		}
		l.x.RemoveEngine(p.s, p.t, ids)
		l.m.removeEngine(p, ids)
	case k < 88:
		l.x.Clear(p.s, p.t)
		l.m.clear(p)
	case k < 90:
		l.x.Detach(p.s)
		l.m.detach(p.s)
		l.all = slices.DeleteFunc(l.all, func(s kvindex.Source) bool { return s == p.s })
	case k < 96:
		h := hashesOf(l.f.whole(parent, hasParent, blocks))
		until := l.now.Add(time.Duration(1+l.rng.IntN(5)) * time.Second)
		l.x.Expect(p.s, h, until)
		if l.m.expected[p.s] == nil {
			l.m.expected[p.s] = map[dynamo.BlockHash]time.Time{}
		}
		for _, h := range h {
			l.m.expected[p.s][h] = until
		}
	case k < 98:
		l.now = l.now.Add(time.Second)
		l.x.Expire(l.now)
		for _, e := range l.m.expected {
			for h, until := range e {
				if !until.After(l.now) {
					delete(e, h)
				}
			}
		}
	default:
		l.x.Sweep(l.rng.IntN(50))
	}
}

func (l *life) check(query []dynamo.BlockHash) {
	l.t.Helper()
	got := l.x.Find(query, nil)
	sortOverlaps(got)
	if want := l.m.find(query); !slices.Equal(got, want) {
		l.t.Fatalf("Find of %d blocks\n got %v\nwant %v", len(query), got, want)
	}
}

func (l *life) checkAll() {
	l.t.Helper()
	for _, p := range l.f.paths {
		l.check(hashesOf(p))
	}
	held := int64(0)
	for _, s := range l.all {
		for t := range dynamo.TierRemote + 1 {
			var want kvindex.Digest
			for h := range l.m.held[place{s, t}] {
				want.Note(h)
			}
			held += want.Blocks
			if got := l.x.Digest(s, t); got != want {
				l.t.Fatalf("digest of source %d in %v\n got %v\nwant %v", s, t, got, want)
			}
		}
		held += int64(len(l.m.expected[s]))
	}
	if err := l.x.Check(); err != nil {
		l.t.Fatal(err)
	}
	if got := l.x.Stats(); got.Held != held || got.Evicted+got.Dropped > 0 {
		l.t.Fatalf("held %d, want %d; %+v", got.Held, held, got)
	}
}

func TestModel(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLife(t, uint64(seed), kvindex.DefaultConfig())
			for range 300 {
				l.step()
				p := l.f.paths[l.rng.IntN(len(l.f.paths))]
				l.check(hashesOf(p))
			}
			l.checkAll()
			for _, s := range l.all {
				l.x.Detach(s)
			}
			for range 1000 {
				if l.x.Sweep(100) {
					break
				}
			}
			if got := l.x.Stats(); got.Runs != 0 || got.Blocks != 0 || got.Held != 0 || got.Ending != 0 {
				t.Fatalf("after all sources have gone: %+v", got)
			}
		})
	}
}
