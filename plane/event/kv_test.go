package event_test

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/tokens"
)

// known is what is known of a block.
type known struct {
	local     dynamo.LocalHash
	parent    dynamo.BlockHash
	hasParent bool
	engine    uint64
}

// place is a tier of a rank.
type place struct {
	tier dynamo.Tier
	rank int
}

// kvMirror is what a subscriber makes of KV events.
type kvMirror struct {
	t      testing.TB
	feed   *event.Feed
	at     event.Position
	sets   map[place]map[dynamo.BlockHash]known
	batch  event.KVBatch
	resets int
}

func newKVMirror(t testing.TB, src event.Source) *kvMirror {
	return &kvMirror{t: t, feed: event.NewFeed(src, event.Position{}), sets: map[place]map[dynamo.BlockHash]known{}}
}

// read has some batches of at most size bytes; all of what there is if many is 0.
func (m *kvMirror) read(p *event.Publisher, many, size int) {
	r := p.Reader(m.feed.Cursor())
	for i := 0; many == 0 || i < many; i++ {
		b, _ := r.Fill(nil, size)
		progress, err := m.feed.Take(b, m.apply)
		switch {
		case err != nil:
			m.t.Fatal(err)
		case progress == event.Current:
			return
		case progress != event.Behind:
			m.t.Fatalf("progress %v of a reader's own batches", progress)
		}
	}
}

// reconnect goes on from the position, as after a lost connection.
func (m *kvMirror) reconnect(src event.Source) { m.feed = event.NewFeed(src, m.at) }

func (m *kvMirror) apply(d event.Delivery) bool {
	m.at = m.at.After(d)
	switch {
	case d.Kind == event.Reset:
		clear(m.sets)
		m.resets++
		return true
	case d.Kind == event.Gap || len(d.Payload) == 0:
		return true
	}
	b := &m.batch
	if err := b.Parse(d.Payload); err != nil {
		m.t.Fatal(err)
	}
	if b.BlockSize != 2 {
		m.t.Fatalf("got block size %d, want 2", b.BlockSize)
	}
	at := place{b.Tier, b.Rank}
	if m.sets[at] == nil {
		m.sets[at] = map[dynamo.BlockHash]known{}
	}
	set := m.sets[at]
	for _, e := range b.Events {
		if d.Kind == event.Snapshot && e.Kind != kvbm.Stored {
			m.t.Fatalf("a snapshot tells of blocks %v", e.Kind)
		}
		m.change(set, e)
	}
	return true
}

func (m *kvMirror) change(set map[dynamo.BlockHash]known, e event.KVEvent) {
	switch e.Kind {
	case kvbm.Cleared:
		clear(set)
	case kvbm.Removed:
		for _, h := range e.Hashes {
			if e.HasEngine {
				for hash, k := range set {
					if k.engine == uint64(h) {
						h = hash
						break
					}
				}
			}
			delete(set, h)
		}
	case kvbm.Stored:
		parent, has := e.Parent, e.HasParent
		for _, b := range e.Blocks {
			if _, there := set[parent]; has && !there {
				m.t.Errorf("block %v comes before its parent %v", b.Hash, parent)
			}
			set[b.Hash] = known{b.Local, parent, has, b.Engine}
			parent, has = b.Hash, true
		}
	}
}

// cache is a pool with users, whose events go to a sink.
type cache struct {
	t    *testing.T
	pool *kvbm.Pool
	sink func([]kvbm.Event)
	held [][]kvbm.Held
}

func newCache(t *testing.T, sink func([]kvbm.Event)) *cache {
	c := kvbm.DefaultConfig()
	c.Blocks, c.BlockSize, c.Events = 24, 2, true
	pool, err := kvbm.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &cache{t: t, pool: pool, sink: sink}
}

// query is sequence n of all that are used: two roots, four blocks of two letters.
func query(n int) kvbm.Query {
	root := dynamo.CacheRoot(n & 1)
	ids := make([]dynamo.TokenID, 8)
	for i := range ids {
		ids[i] = dynamo.TokenID(n >> (1 + i) & 1)
	}
	chain := tokens.NewChain(root, 2)
	chain.Append(ids...)
	return kvbm.Query{Root: root, Blocks: chain.Blocks(), Tokens: ids}
}

// step uses a sequence, or ends a use, or clears.
func (c *cache) step(draw *rand.Rand) {
	p := c.pool
	switch op := draw.IntN(40); {
	case op == 0:
		p.Clear()
	case op < 20 && len(c.held) > 0:
		i := draw.IntN(len(c.held))
		for _, h := range slices.Backward(c.held[i]) {
			p.Release(h)
		}
		c.held = slices.Delete(c.held, i, i+1)
	default:
		q := query(draw.IntN(512))
		held := p.Match(nil, q)
		for i := len(held); i < len(q.Blocks); i++ {
			b, ok := p.Allocate()
			if !ok {
				break
			}
			var parent kvbm.Held
			if i > 0 {
				parent = held[i-1]
			}
			h, _ := p.Register(p.Complete(b, kvbm.Content{Root: q.Root, Block: q.Blocks[i], Tokens: q.Tokens[2*i : 2*i+2]}), parent)
			held = append(held, h)
		}
		if len(held) > 0 {
			c.held = append(c.held, held)
		}
	}
	if events := p.Events(); len(events) > 0 {
		c.sink(events)
	}
}

// matches is what the pool finds, asked for every sequence.
func (c *cache) matches() map[dynamo.BlockHash]known {
	set := map[dynamo.BlockHash]known{}
	for n := range 512 {
		q := query(n)
		found, _ := c.pool.Peek(q)
		for i := range found {
			k := known{local: q.Blocks[i].Local}
			if i > 0 {
				k.parent, k.hasParent = q.Blocks[i-1].Hash, true
			}
			set[q.Blocks[i].Hash] = k
		}
	}
	return set
}

// TestKVSource checks that whoever follows a source, however late, slow or often
// cut off, ends with what the pools match (I3).
func TestKVSource(t *testing.T) {
	c := event.DefaultKVConfig()
	c.Worker, c.Epoch, c.BlockSize, c.RingEvents = 3, 4, 2, 40
	source, err := event.NewKVSource(c)
	if err != nil {
		t.Fatal(err)
	}
	p := source.Publisher()
	caches := map[place]*cache{}
	for _, at := range []place{{dynamo.TierDevice, 0}, {dynamo.TierDevice, 1}, {dynamo.TierHost, 0}} {
		caches[at] = newCache(t, source.Sink(at.tier, at.rank))
	}
	places := slices.Collect(maps.Keys(caches))
	slices.SortFunc(places, func(a, b place) int { return 10*(int(a.tier)-int(b.tier)) + a.rank - b.rank })
	draw := rand.New(rand.NewPCG(5, 6))
	steps := 6000
	if testing.Short() {
		steps = 1500
	}
	var mirrors []*kvMirror
	resets := 0
	for i := range steps {
		caches[places[draw.IntN(3)]].step(draw)
		switch op := draw.IntN(30); {
		case op == 0 && len(mirrors) < 12: // late, and later each time
			mirrors = append(mirrors, newKVMirror(t, p.Source()))
		case op < 12 && len(mirrors) > 0:
			// The first ones read often, the last ones hardly.
			m := mirrors[min(draw.IntN(len(mirrors)), draw.IntN(len(mirrors)))]
			m.read(p, 1+draw.IntN(3), 128+draw.IntN(400))
		case op == 12 && len(mirrors) > 0:
			mirrors[draw.IntN(len(mirrors))].reconnect(p.Source())
		}
		if i%500 != 499 {
			continue
		}
		for n, m := range mirrors {
			m.read(p, 0, 4096)
			for at, c := range caches {
				if got, want := m.sets[at], c.matches(); !maps.Equal(got, want) {
					t.Fatalf("step %d, subscriber %d, %+v: %d blocks known, %d matched", i, n, at, len(got), len(want))
				}
			}
			resets += m.resets
			m.resets = 0
		}
	}
	if resets < 20 {
		t.Errorf("only %d resets: nobody lagged", resets)
	}
}

// TestKVEngineIDs checks sources that remove by the engine's ids.
func TestKVEngineIDs(t *testing.T) {
	c := event.DefaultKVConfig()
	c.Worker, c.Epoch, c.BlockSize = 3, 4, 2
	source, err := event.NewKVSource(c)
	if err != nil {
		t.Fatal(err)
	}
	block := func(hash, engine uint64) event.KVBlock {
		return event.KVBlock{Block: tokens.Block{Local: dynamo.LocalHash(hash + 1000), Hash: dynamo.BlockHash(hash)}, Engine: engine}
	}
	early := newKVMirror(t, source.Publisher().Source())
	early.read(source.Publisher(), 0, 4096)
	source.Publish(&event.KVBatch{Tier: dynamo.TierDisk, Rank: 7, Events: []event.KVEvent{
		{Kind: kvbm.Stored, HasEngine: true, Blocks: []event.KVBlock{block(1, 11), block(2, 12), block(3, 13)}},
		{Kind: kvbm.Removed, HasEngine: true, Hashes: []dynamo.BlockHash{13, 99}},
		{Kind: kvbm.Stored, Parent: 2, HasParent: true, Blocks: []event.KVBlock{block(4, 0)}},
	}})
	late := newKVMirror(t, source.Publisher().Source())
	want := map[dynamo.BlockHash]known{1: {1001, 0, false, 11}, 2: {1002, 1, true, 12}, 4: {1004, 2, true, 0}}
	for name, m := range map[string]*kvMirror{"early": early, "late": late} {
		m.read(source.Publisher(), 0, 4096)
		if got := m.sets[place{dynamo.TierDisk, 7}]; !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

// TestKVLarge checks that a large cache travels in bounded payloads, as events and
// as a snapshot.
func TestKVLarge(t *testing.T) {
	c := event.DefaultKVConfig()
	c.Worker, c.Epoch, c.BlockSize = 3, 4, 2
	source, err := event.NewKVSource(c)
	if err != nil {
		t.Fatal(err)
	}
	const blocks = 20_000
	e := kvbm.Event{Kind: kvbm.Stored}
	var hashes []dynamo.BlockHash
	for i := range blocks {
		h := dynamo.BlockHash(i + 1)
		e.Blocks = append(e.Blocks, kvbm.StoredBlock{Block: tokens.Block{Local: dynamo.LocalHash(i), Hash: h}})
		hashes = append(hashes, h)
	}
	early := newKVMirror(t, source.Publisher().Source())
	early.read(source.Publisher(), 0, 4096)
	sink := source.Sink(dynamo.TierDevice, 0)
	sink([]kvbm.Event{e})
	late := newKVMirror(t, source.Publisher().Source())
	for name, m := range map[string]*kvMirror{"early": early, "late": late} {
		m.read(source.Publisher(), 0, event.BatchBytes)
		if got := len(m.sets[place{}]); got != blocks {
			t.Errorf("%s: got %d blocks, want %d", name, got, blocks)
		}
	}
	if got := source.Publisher().Position().Seq; got < 10 || got > 30 {
		t.Errorf("%d blocks took %d events, want about one for each 2000", blocks, got)
	}
	slices.Reverse(hashes)
	sink([]kvbm.Event{{Kind: kvbm.Removed, Hashes: hashes}})
	early.read(source.Publisher(), 0, event.BatchBytes)
	if got := len(early.sets[place{}]); got != 0 {
		t.Errorf("after the removal: got %d blocks, want none", got)
	}
}

// FuzzKVAnswer asks a source anything: an error says that the question is invalid, and
// an answer is no longer than one that makes sense.
func FuzzKVAnswer(f *testing.F) {
	c := event.DefaultKVConfig()
	c.Worker, c.Epoch, c.BlockSize = 1, 1, 2
	s, err := event.NewKVSource(c)
	if err != nil {
		f.Fatal(err)
	}
	s.Publish(&event.KVBatch{Events: []event.KVEvent{{Kind: kvbm.Stored, Blocks: []event.KVBlock{{Block: tokens.Block{Local: 1, Hash: 2}}}}}})
	f.Add([]byte{0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 30})
	f.Add([]byte{1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, q []byte) {
		n := 0
		err := s.Publisher().Answer(q, func(m []byte) error {
			n += len(m)
			return nil
		})
		if err != nil && dynamo.KindOf(err) != dynamo.KindInvalid {
			t.Errorf("got %v", err)
		}
		if n > 16*event.MaxSketchCells {
			t.Errorf("an answer of %d bytes", n)
		}
	})
}

func FuzzKV(f *testing.F) {
	b := event.KVBatch{Tier: dynamo.TierHost, Rank: 300, BlockSize: 16, Events: []event.KVEvent{
		{Kind: kvbm.Cleared},
		{Kind: kvbm.Stored, Blocks: []event.KVBlock{{Block: tokens.Block{Local: 1, Hash: 2}}}},
		{Kind: kvbm.Stored, HasParent: true, Parent: 2, HasEngine: true, Blocks: []event.KVBlock{{Block: tokens.Block{Local: 3, Hash: 4}, Engine: 5}, {Engine: 6}}},
		{Kind: kvbm.Removed, Hashes: []dynamo.BlockHash{2, 4}},
		{Kind: kvbm.Removed, HasEngine: true, Hashes: []dynamo.BlockHash{5}},
	}, Digest: kvindex.Digest{Blocks: 3, Sum: 4}, HasDigest: true, Expected: []dynamo.BlockHash{7, 8}}
	whole := b.Append(nil)
	for i := range whole {
		f.Add(whole[:i+1])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		b := event.KVBatch{Events: make([]event.KVEvent, 3)}
		if err := b.Parse(p); err != nil {
			if dynamo.KindOf(err) != dynamo.KindCorrupt || len(b.Events) != 0 {
				t.Errorf("got %v and %d events, want %v and none", err, len(b.Events), dynamo.KindCorrupt)
			}
			return
		}
		if b.BlockSize == 0 {
			if !b.Unknown || len(b.Events) != 0 || b.HasDigest {
				t.Errorf("without a block size: %+v", b)
			}
			return
		}
		held := 8 * len(b.Expected)
		for _, e := range b.Events {
			held += 8*len(e.Hashes) + 16*len(e.Blocks)
		}
		if held > len(p) {
			t.Errorf("%d bytes of hashes out of %d", held, len(p))
		}
		again := b.Append(nil)
		var c event.KVBatch
		if err := c.Parse(again); err != nil || !bytes.Equal(c.Append(nil), again) {
			t.Errorf("written and read again: %x, %v", again, err)
		}
		if len(again) > len(p) {
			t.Errorf("written again it has %d bytes, was %d", len(again), len(p))
		}
	})
}

// What only a later version understands is passed over, with what is behind it; what
// is before it counts.
func TestUnknownKVEvents(t *testing.T) {
	first := event.KVBatch{BlockSize: 2, Events: []event.KVEvent{{Kind: kvbm.Removed, Hashes: []dynamo.BlockHash{5}}}}
	known := first.Append(nil)
	digest := []byte{3, 0, 16, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name    string
		payload []byte
		events  int
		unknown bool
		digest  bool
	}{
		{"nothing of it", slices.Concat(known, digest), 1, false, true},
		{"a note", slices.Concat(known, []byte{3, 99, 2, 7, 7}, digest), 1, false, true},
		{"flags", slices.Concat(known, []byte{0x10, 1, 2, 3}, digest), 1, true, false},
		{"all flags", slices.Concat(known, []byte{0xff}), 1, true, false},
		{"a note of another form", slices.Concat(known, []byte{0x07}), 1, true, false},
		{"a parent of a removed block", slices.Concat(known, []byte{0x05}), 1, true, false},
		{"alone", slices.Concat(known[:4], []byte{0x20}), 0, true, false},
		{"a format", slices.Concat([]byte{2}, known[1:]), 0, true, false},
		{"a tier", slices.Concat([]byte{1, 4}, known[2:]), 0, true, false},
	} {
		var b event.KVBatch
		if err := b.Parse(c.payload); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if len(b.Events) != c.events || b.Unknown != c.unknown || b.HasDigest != c.digest {
			t.Errorf("%s: got %d events, unknown %t, digest %t; want %d, %t, %t", c.name, len(b.Events), b.Unknown, b.HasDigest, c.events, c.unknown, c.digest)
		}
	}
	var b event.KVBatch
	if err := b.Parse([]byte{0, 0, 0, 2}); dynamo.KindOf(err) != dynamo.KindCorrupt {
		t.Errorf("format 0: got %v", err)
	}
}
