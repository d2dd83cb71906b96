package event_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/testnet"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

// indexed applies KV payloads to an index, as a router does, and compares the digests
// that they tell.
type indexed struct {
	t       *testing.T
	x       *kvindex.Index
	sources map[int]kvindex.Source // by rank
	digests int                    // told
	batch   event.KVBatch
}

func newIndexed(t *testing.T) *indexed {
	x, err := kvindex.New(kvindex.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	return &indexed{t: t, x: x, sources: map[int]kvindex.Source{}}
}

func (n *indexed) take(payload []byte) {
	n.t.Helper()
	b := &n.batch
	if err := b.Parse(payload); err != nil {
		n.t.Fatal(err)
	}
	s, known := n.sources[b.Rank]
	if !known {
		s = n.x.Attach(kvindex.Worker{ID: 1, Epoch: 1, Rank: b.Rank})
		n.sources[b.Rank] = s
	}
	for _, e := range b.Events {
		var blocks []tokens.Block
		var ids []uint64
		for _, block := range e.Blocks {
			blocks, ids = append(blocks, block.Block), append(ids, block.Engine)
		}
		switch {
		case e.Kind == kvbm.Cleared:
			n.x.Clear(s, b.Tier)
		case e.Kind == kvbm.Removed && e.HasEngine:
			for _, h := range e.Hashes {
				ids = append(ids, uint64(h))
			}
			n.x.RemoveEngine(s, b.Tier, ids)
		case e.Kind == kvbm.Removed:
			n.x.Remove(s, b.Tier, e.Hashes)
		case e.HasEngine:
			n.x.StoreEngine(s, b.Tier, e.Parent, e.HasParent, blocks, ids)
		default:
			n.x.Store(s, b.Tier, e.Parent, e.HasParent, blocks)
		}
	}
	if b.HasDigest {
		n.digests++
		if got := n.x.Digest(s, b.Tier); got != b.Digest {
			n.t.Errorf("tier %v, rank %d: the index has %+v, the source says %+v", b.Tier, b.Rank, got, b.Digest)
		}
	}
}

// taken reads all that a publisher has.
func (n *indexed) taken(p *event.Publisher, feed *event.Feed) {
	n.t.Helper()
	for r := p.Reader(feed.Cursor()); ; {
		b, some := r.Fill(nil, 32<<10)
		if _, err := feed.Take(b, func(d event.Delivery) bool {
			if len(d.Payload) > 0 {
				n.take(d.Payload)
			}
			return true
		}); err != nil {
			n.t.Fatal(err)
		}
		if !some {
			return
		}
	}
}

// churn changes a source's caches at random. With ids, an engine removes by its own,
// several of which may stand for one block.
type churn struct {
	rng    *rand.Rand
	ids    bool
	next   uint64
	chains [][]tokens.Block
}

func (c *churn) step(s *event.KVSource) {
	b := event.KVBatch{Tier: dynamo.Tier(c.rng.IntN(2)), Rank: c.rng.IntN(2)}
	e := event.KVEvent{HasEngine: c.ids}
	chain := c.chains[c.rng.IntN(len(c.chains))]
	from := c.rng.IntN(len(chain))
	to := from + 1 + c.rng.IntN(len(chain)-from)
	switch n := c.rng.IntN(100); {
	case n == 0:
		e = event.KVEvent{Kind: kvbm.Cleared}
	case n < 45:
		e.Kind = kvbm.Removed
		for _, block := range chain[from:to] {
			h := block.Hash
			if c.ids {
				h = dynamo.BlockHash(c.rng.Uint64N(c.next + 1))
			}
			e.Hashes = append(e.Hashes, h)
		}
	default:
		if from > 0 {
			e.Parent, e.HasParent = chain[from-1].Hash, true
		}
		for _, block := range chain[from:to] {
			if c.next++; c.rng.IntN(8) == 0 && c.next > 400 {
				e.Blocks = append(e.Blocks, event.KVBlock{Block: block, Engine: c.next - c.rng.Uint64N(400)}) // used before
			} else {
				e.Blocks = append(e.Blocks, event.KVBlock{Block: block, Engine: c.next})
			}
		}
	}
	b.Events = []event.KVEvent{e}
	s.Publish(&b)
}

// An index that has all events, or a snapshot and what came since, has the digests
// that the source tells.
func TestDigestsAgree(t *testing.T) {
	for _, ids := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := event.DefaultKVConfig()
			c.Worker, c.Epoch, c.BlockSize, c.RingBytes = 1, 1, 2, event.MaxRingBytes
			s, err := event.NewKVSource(c)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { _ = s.Run(ctx) })
			change := churn{rng: rand.New(rand.NewPCG(5, 6)), ids: ids}
			for i := range 12 {
				tokensOf := make([]dynamo.TokenID, 40)
				for j := range tokensOf {
					tokensOf[j] = dynamo.TokenID(j + i/4*1000*(j/20)) // some share their beginnings
				}
				change.chains = append(change.chains, tokens.AppendBlocks(nil, 0, 2, tokensOf))
			}
			whole, source := newIndexed(t), s.Publisher().Source()
			feed := event.NewFeed(source, event.Position{Epoch: 1})
			for i := range 3000 {
				change.step(s)
				time.Sleep(20 * time.Millisecond)
				whole.taken(s.Publisher(), feed)
				if i%500 == 499 { // one that comes late
					late := newIndexed(t)
					late.taken(s.Publisher(), event.NewFeed(source, event.Position{}))
					for rank, x := range late.sources {
						for tier := range dynamo.Tier(2) {
							if got, want := late.x.Digest(x, tier), whole.x.Digest(whole.sources[rank], tier); got != want {
								t.Errorf("ids %v, step %d: a snapshot has %+v, the events led to %+v", ids, i, got, want)
							}
						}
					}
				}
			}
			time.Sleep(20 * time.Second)
			whole.taken(s.Publisher(), feed)
			if n := whole.digests; n < 40 {
				t.Errorf("%d digests were told", n)
			}
			before := whole.digests
			time.Sleep(40 * time.Second)
			whole.taken(s.Publisher(), feed)
			if n := whole.digests - before; n != 0 {
				t.Errorf("%d digests were told of caches that do not change", n)
			}
			cancel()
			running.Wait()
		})
	}
}

// Notes of kinds that are not known are passed over, and a digest may have more in it.
func TestNotesOfLaterVersions(t *testing.T) {
	b := event.KVBatch{BlockSize: 2, Events: []event.KVEvent{{Kind: kvbm.Removed, Hashes: []dynamo.BlockHash{1, 2}}}}
	p := b.Append(nil)
	p = append(p, 3, 77, 5, 'l', 'a', 't', 'e', 'r')
	p = append(p, 3, 0, 17, 9, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 'x')
	p = append(p, 2) // cleared
	var got event.KVBatch
	if err := got.Parse(p); err != nil {
		t.Fatal(err)
	}
	if len(got.Events) != 2 || !got.HasDigest || got.Digest != (kvindex.Digest{Blocks: 9, Sum: 8}) {
		t.Errorf("got %+v", got)
	}
	for _, bad := range [][]byte{{3}, {3, 0}, {3, 0, 16, 1}, {3, 0, 2, 1, 2}} {
		if err := got.Parse(append(b.Append(nil), bad...)); dynamo.KindOf(err) != dynamo.KindCorrupt {
			t.Errorf("note % x: got %v, want corrupt", bad, err)
		}
	}
}

// A source foretells what it does not hold yet, and only that.
func TestExpect(t *testing.T) {
	c := event.DefaultKVConfig()
	c.Worker, c.Epoch, c.BlockSize = 1, 1, 2
	s, err := event.NewKVSource(c)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]dynamo.TokenID, 12_000)
	for i := range ids {
		ids[i] = dynamo.TokenID(i)
	}
	chain := tokens.AppendBlocks(nil, 0, 2, ids)
	var hashes []dynamo.BlockHash
	b := event.KVBatch{Events: []event.KVEvent{{Kind: kvbm.Stored}}}
	for i, block := range chain {
		hashes = append(hashes, block.Hash)
		if i < 10 {
			b.Events[0].Blocks = append(b.Events[0].Blocks, event.KVBlock{Block: block})
		}
	}
	s.Publish(&b)
	s.Expect(0, 2, hashes[:10]) // all held
	s.Expect(0, 2, hashes[:15])
	s.Expect(0, 2, nil)
	s.Expect(1, 2, hashes[:3]) // another rank holds none
	s.Expect(0, 2, hashes)     // too many to tell all
	var got []event.KVBatch
	feed := event.NewFeed(s.Publisher().Source(), event.Position{Epoch: 1})
	for r := s.Publisher().Reader(feed.Cursor()); ; {
		batch, some := r.Fill(nil, 64<<10)
		if _, err := feed.Take(batch, func(d event.Delivery) bool {
			var b event.KVBatch
			if err := b.Parse(d.Payload); err != nil {
				t.Fatal(err)
			}
			got = append(got, b)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if !some {
			break
		}
	}
	if len(got) != 4 {
		t.Fatalf("%d events, want 4", len(got))
	}
	for i, want := range [][]dynamo.BlockHash{nil, hashes[:15], hashes[:3], hashes[:4096]} {
		if !slices.Equal(got[i].Expected, want) {
			t.Errorf("event %d: %d blocks are expected, want %d", i, len(got[i].Expected), len(want))
		}
	}
}

// asked runs f in a bubble with a source and a connection to ask it over.
func asked(t *testing.T, f func(*testing.T, *event.KVSource, event.Asker)) {
	synctest.Test(t, func(t *testing.T) {
		n := testnet.New()
		l, err := n.Host("worker").Listen(":0")
		if err != nil {
			t.Fatal(err)
		}
		k := connect(t, l, n.Host("frontend").Dial)
		c := event.DefaultKVConfig()
		c.Worker, c.Epoch, c.BlockSize = testWorker, 1, 2
		s, err := event.NewKVSource(c)
		if err != nil {
			t.Fatal(err)
		}
		detach, err := k.bus.Attach(s.Publisher())
		if err != nil {
			t.Fatal(err)
		}
		defer detach()
		f(t, s, func(ctx context.Context, src event.Source, question []byte, take func([]byte) error) error {
			return event.AskRPC(ctx, k.peer, src, question, take)
		})
	})
}

// A source says which of the blocks that it is asked for it holds, with all that a
// snapshot says of them.
func TestAskBlocks(t *testing.T) {
	asked(t, func(t *testing.T, s *event.KVSource, ask event.Asker) {
		ids := make([]dynamo.TokenID, 2000)
		for i := range ids {
			ids[i] = dynamo.TokenID(i)
		}
		chain := tokens.AppendBlocks(nil, 0, 2, ids)
		b := event.KVBatch{Tier: 1, Rank: 3, Events: []event.KVEvent{{Kind: kvbm.Stored, HasEngine: true}}}
		for i, block := range chain {
			b.Events[0].Blocks = append(b.Events[0].Blocks, event.KVBlock{Block: block, Engine: uint64(i)})
		}
		s.Publish(&b)
		src := s.Publisher().Source()
		var got []event.KVBlock
		take := func(payload []byte) error {
			var part event.KVBatch
			if err := part.Parse(payload); err != nil {
				return err
			}
			if part.Tier != 1 || part.Rank != 3 || part.HasDigest {
				t.Errorf("got a part %+v", part)
			}
			for _, e := range part.Events {
				for i, block := range e.Blocks {
					if want := chain[block.Engine-1].Hash; i == 0 && (!e.HasParent || e.Parent != want) {
						t.Errorf("block %d: parent %v, want %v", block.Engine, e.Parent, want)
					}
					got = append(got, block)
				}
			}
			return nil
		}
		want := []dynamo.BlockHash{chain[7].Hash, chain[8].Hash, 12345, chain[999].Hash}
		if err := ask.AskBlocks(t.Context(), src, 1, 3, want, take); err != nil {
			t.Fatal(err)
		}
		if len(got) != 3 || got[0].Engine+got[1].Engine+got[2].Engine != 7+8+999 {
			t.Errorf("got %+v", got)
		}
		sketch, err := ask.AskSketch(t.Context(), src, 1, 3, 9, 240)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range chain[1:] {
			sketch.Put(block.Hash, -1)
		}
		var left []dynamo.BlockHash
		if ok := sketch.Peel(func(h dynamo.BlockHash, in bool) { left = append(left, h) }); !ok || !slices.Equal(left, []dynamo.BlockHash{chain[0].Hash}) {
			t.Errorf("left is %v", left)
		}
	})
}

// Questions that make no sense get an error that says so, and cost nothing.
func TestAskNonsense(t *testing.T) {
	asked(t, func(t *testing.T, s *event.KVSource, ask event.Asker) {
		src := s.Publisher().Source()
		nothing := func([]byte) error { return nil }
		for name, q := range map[string][]byte{
			"nothing": nil, "cut short": {0, 0}, "tier": {0, 200, 0}, "rank": {0, 0, 0xff, 0xff, 0xff, 0x7f}, "kind": {9, 0, 0},
			"no seed": {0, 0, 0, 1, 2}, "no cells": {0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}, "huge": {0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xff, 0xff, 0x7f},
			"odd": {0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 4}, "half a hash": {1, 0, 0, 1, 2, 3},
		} {
			if err := ask(t.Context(), src, q, nothing); dynamo.KindOf(err) != dynamo.KindInvalid {
				t.Errorf("%s: got %v, want invalid", name, err)
			}
		}
		other := src
		other.Epoch++
		if err := ask(t.Context(), other, []byte{1, 0, 0}, nothing); dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Errorf("another life: got %v", err)
		}
		other = src
		other.Topic = "nothing"
		if err := ask(t.Context(), other, nil, nothing); dynamo.KindOf(err) != dynamo.KindNotFound {
			t.Errorf("another topic: got %v", err)
		}
		if _, err := ask.AskSketch(t.Context(), src, 2, 5, 1, 30); err != nil {
			t.Errorf("a tier that has nothing: %v", err)
		}
		if seq := s.Publisher().Position().Seq; seq != 0 {
			t.Errorf("questions made events up to %d", seq)
		}
	})
}
