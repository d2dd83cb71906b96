package kvbm_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/tokens"
)

// model says what a pool must do, without its data structures. A key is a whole
// prefix, written out; a page is one block's worth of memory.
type model struct {
	free  int
	found map[string]*page   // what Match finds
	dups  map[string][]*page // other pages of the same key, the latest last
	idle  []string           // keys without holders, least recently used first
	hash  map[dynamo.BlockHash]string
}

type page struct {
	key    string
	refs   int
	parent string // key before it
	lone   bool   // refused: in neither map
}

func (m *model) available() int { return m.free + len(m.idle) }

// take makes room for one page, if it can.
func (m *model) take() bool {
	switch {
	case m.free > 0:
		m.free--
	case len(m.idle) > 0:
		m.drop(m.idle[0])
	default:
		return false
	}
	return true
}

func (m *model) drop(key string) {
	m.idle = slices.Delete(m.idle, slices.Index(m.idle, key), slices.Index(m.idle, key)+1)
	delete(m.found, key)
	for h, k := range m.hash {
		if k == key {
			delete(m.hash, h)
		}
	}
}

func (m *model) match(keys []string) (out []*page) {
	for i, k := range keys {
		p := m.found[k]
		if p == nil || i > 0 && p.parent != keys[i-1] {
			break
		}
		if p.refs == 0 {
			m.idle = slices.Delete(m.idle, slices.Index(m.idle, k), slices.Index(m.idle, k)+1)
		}
		p.refs++
		out = append(out, p)
	}
	return out
}

func (m *model) register(key string, h dynamo.BlockHash, parent *page) (*page, kvbm.Outcome) {
	p := &page{key: key, refs: 1}
	if parent != nil {
		p.parent = parent.key
	}
	owner, taken := m.hash[h]
	switch {
	case parent != nil && parent.lone, taken && owner != key:
		p.lone = true
		return p, kvbm.Refused
	case !taken:
		m.hash[h], m.found[key] = key, p
		return p, kvbm.Registered
	}
	if m.found[key].refs == 0 {
		m.idle = slices.Delete(m.idle, slices.Index(m.idle, key), slices.Index(m.idle, key)+1)
		m.found[key] = p
		m.free++
		return p, kvbm.Duplicate
	}
	m.dups[key] = append(m.dups[key], p)
	return p, kvbm.Duplicate
}

func (m *model) release(p *page) {
	p.refs--
	d := m.dups[p.key]
	switch {
	case p.refs > 0:
	case p.lone:
		m.free++
	case m.found[p.key] != p:
		m.dups[p.key] = slices.Delete(d, slices.Index(d, p), slices.Index(d, p)+1)
		m.free++
	case len(d) > 0:
		m.found[p.key], m.dups[p.key] = d[len(d)-1], d[:len(d)-1]
		m.free++
	default:
		m.idle = append(m.idle, p.key)
	}
}

// tenant is one owner in both worlds.
type tenant struct {
	user
	keys  []string
	pages []*page
}

// world runs the same operations on a pool and on the model.
type world struct {
	t       testing.TB
	pool    *kvbm.Pool
	m       *model
	size    int
	weak    dynamo.BlockHash // mask of hashes: few bits make collisions
	bare    bool             // hashes are all there is
	tenants []*tenant
	leases  map[kvbm.LeaseID]*tenant
	nextID  kvbm.LeaseID
	now     int
	seq     uint64
	heard   map[dynamo.BlockHash]dynamo.BlockHash // what the events say Match finds, and its parent
}

func newWorld(t testing.TB, blocks, size int, weak dynamo.BlockHash, bare bool) *world {
	p, err := kvbm.New(kvbm.Config{Blocks: blocks, BlockSize: size, PrefixCaching: true, Events: true, HashOnly: bare})
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		t: t, pool: p, size: size, weak: weak, bare: bare, leases: map[kvbm.LeaseID]*tenant{}, heard: map[dynamo.BlockHash]dynamo.BlockHash{},
		m: &model{free: blocks, found: map[string]*page{}, dups: map[string][]*page{}, hash: map[dynamo.BlockHash]string{}},
	}
}

// step does one operation, chosen by op, with its details drawn from draw.
func (w *world) step(op byte, draw func(n int) int) {
	pick := func() *tenant {
		if len(w.tenants) == 0 {
			return nil
		}
		return w.tenants[draw(len(w.tenants))]
	}
	switch op % 8 {
	case 0, 1:
		w.take(draw)
	case 2, 3, 4:
		if u := pick(); u != nil && len(u.open) > 0 && len(u.held) < len(u.keys) {
			w.seal(u)
		}
	case 5:
		if u := pick(); u != nil {
			w.end(u)
			u.release(w.pool)
		}
	case 6:
		if u := pick(); u != nil && draw(2) == 0 {
			w.remove(u)
			w.nextID++
			w.pool.Lease(w.nextID, u.held, u.open, at(w.now+1+draw(5)))
			w.leases[w.nextID] = u
		}
		w.now++
		for _, id := range w.pool.ExpireLeases(nil, at(w.now)) {
			w.giveBack(w.leases[id])
			delete(w.leases, id)
		}
	case 7:
		if draw(16) == 0 {
			w.pool.Clear()
			clear(w.heard)
			for len(w.m.idle) > 0 {
				w.m.drop(w.m.idle[0])
				w.m.free++
			}
		}
	}
	w.compare()
}

// take starts a tenant with a random short sequence over two letters, so that
// prefixes meet.
func (w *world) take(draw func(n int) int) {
	u := &tenant{}
	u.chain = tokens.NewChain(dynamo.CacheRoot(draw(2)), w.size)
	for range 1 + draw(4*w.size) {
		u.chain.Append(dynamo.TokenID(draw(2)))
	}
	for i := range u.chain.Blocks() {
		u.chain.Blocks()[i].Hash &= w.weak
		u.keys = append(u.keys, fmt.Sprint(u.chain.Root(), u.chain.Tokens()[:(i+1)*w.size]))
	}
	u.held = w.pool.Match(nil, w.query(u))
	u.pages = w.m.match(u.keys)
	if len(u.held) != len(u.pages) {
		w.t.Fatalf("Match found %d blocks, want %d", len(u.held), len(u.pages))
	}
	for range (u.chain.Len()+w.size-1)/w.size - len(u.held) {
		ok := w.m.take()
		b, got := w.pool.Allocate()
		if got != ok {
			w.t.Fatalf("Allocate says %v, want %v", got, ok)
		}
		if !got {
			w.giveBack(u)
			u.release(w.pool)
			return
		}
		u.open = append(u.open, b)
	}
	w.tenants = append(w.tenants, u)
}

func (w *world) seal(u *tenant) {
	i := len(u.held)
	var parent *page
	if i > 0 {
		parent = u.pages[i-1]
	}
	h, got := w.offer(u, i)
	p, want := w.m.register(u.keys[i], u.chain.Blocks()[i].Hash, parent)
	if got != want {
		w.t.Fatalf("Register of %s says %v, want %v", u.keys[i], got, want)
	}
	u.open, u.held, u.pages = u.open[1:], append(u.held, h), append(u.pages, p)
}

// query asks for all blocks of u.
func (w *world) query(u *tenant) kvbm.Query {
	q := kvbm.Query{Root: u.chain.Root(), Blocks: u.chain.Blocks(), Tokens: u.chain.Tokens()}
	if w.bare {
		q.Tokens = nil
	}
	return q
}

// offer seals block i of u, in one of the two ways there are.
func (w *world) offer(u *tenant, i int) (kvbm.Held, kvbm.Outcome) {
	if i%2 == 0 {
		c := u.content(i)
		if w.bare {
			c.Tokens = nil
		}
		return w.pool.Register(w.pool.Complete(u.open[0], c), u.last())
	}
	before := w.pool.Stats()
	held := w.pool.Seal(u.held, u.open[:1], w.query(u))
	switch after := w.pool.Stats(); {
	case after.Registered > before.Registered:
		return held[i], kvbm.Registered
	case after.Duplicates > before.Duplicates:
		return held[i], kvbm.Duplicate
	}
	return held[i], kvbm.Refused
}

func (w *world) remove(u *tenant) {
	i := slices.Index(w.tenants, u)
	w.tenants = slices.Delete(w.tenants, i, i+1)
}

func (w *world) end(u *tenant) {
	w.remove(u)
	w.giveBack(u)
}

func (w *world) giveBack(u *tenant) {
	w.m.free += len(u.open)
	for i := len(u.pages) - 1; i >= 0; i-- {
		w.m.release(u.pages[i])
	}
}

// compare checks I4, the counts, and that the events tell what is found.
func (w *world) compare() {
	if err := w.pool.Check(); err != nil {
		w.t.Fatal(err)
	}
	st := w.pool.Stats()
	if st.Free != w.m.free || st.Idle != len(w.m.idle) || w.pool.Available() != w.m.available() {
		w.t.Fatalf("free %d, idle %d, available %d; want %d, %d, %d", st.Free, st.Idle, w.pool.Available(), w.m.free, len(w.m.idle), w.m.available())
	}
	for _, e := range w.pool.Events() {
		w.seq++
		if e.Seq != w.seq {
			w.t.Fatalf("event %d, want %d", e.Seq, w.seq)
		}
		parent := e.Parent
		for _, b := range e.Blocks {
			if _, twice := w.heard[b.Hash]; twice || (len(b.Tokens) != w.size) != w.bare {
				w.t.Fatalf("stored %s twice or without tokens", b.Hash)
			}
			w.heard[b.Hash], parent = parent, b.Hash
		}
		for _, h := range e.Hashes {
			if _, ok := w.heard[h]; !ok {
				w.t.Fatalf("removed %s, which was not stored", h)
			}
			delete(w.heard, h)
		}
		if e.Kind == kvbm.Cleared && len(w.heard) > 0 {
			w.t.Fatalf("cleared, and %d left", len(w.heard))
		}
	}
	if len(w.heard) != len(w.m.hash) {
		w.t.Fatalf("events tell of %d blocks, want %d", len(w.heard), len(w.m.hash))
	}
	for h, key := range w.m.hash {
		parent, ok := w.heard[h]
		if before := w.m.found[key].parent; !ok || before != "" && w.m.hash[parent] != before {
			w.t.Fatalf("events say %v that %s is stored, behind %s, want behind %s", ok, key, w.m.hash[parent], before)
		}
	}
}

// TestModel compares random operations with the model, with good hashes and with
// bad ones, and with hashes alone.
func TestModel(t *testing.T) {
	const steps = 20_000
	good := ^dynamo.BlockHash(0)
	for i, weak := range []dynamo.BlockHash{good, 0xf, 0x3, good} {
		for seed := range uint64(4) {
			bare := i == 3
			t.Run(fmt.Sprintf("hashes=%x/bare=%v/seed=%d", uint64(weak), bare, seed), func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, uint64(weak)))
				w := newWorld(t, 4+r.IntN(20), 1+r.IntN(3), weak, bare)
				for range steps {
					w.step(byte(r.UintN(256)), r.IntN)
				}
				if s := w.pool.Stats(); s.Found == 0 || s.Evicted == 0 || s.Duplicates == 0 || (s.Refused == 0) != (weak == good) {
					t.Errorf("the run missed something: %+v", s)
				}
			})
		}
	}
}

// TestSealBehindRefused: what comes behind a block that is refused is refused too.
func TestSealBehindRefused(t *testing.T) {
	p, err := kvbm.New(kvbm.Config{Blocks: 4, BlockSize: 1, PrefixCaching: true})
	if err != nil {
		t.Fatal(err)
	}
	open := func(n int) (all []kvbm.Partial) {
		for range n {
			b, _ := p.Allocate()
			all = append(all, b)
		}
		return all
	}
	block := func(h uint64) tokens.Block { return tokens.Block{Hash: dynamo.BlockHash(h)} }
	p.Seal(nil, open(1), kvbm.Query{Blocks: []tokens.Block{block(7)}, Tokens: []dynamo.TokenID{1}})
	held := p.Seal(nil, open(2), kvbm.Query{Blocks: []tokens.Block{block(7), block(8)}, Tokens: []dynamo.TokenID{2, 3}})
	if s := p.Stats(); len(held) != 2 || s.Registered != 1 || s.Refused != 2 || s.Complete != 2 {
		t.Errorf("%d holds, %+v; want 2, with 1 block registered and 2 refused", len(held), s)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
}

// TestEveryTokenCounts: a block is not found by ids of which any one is another, or under
// another root, though the hash be the same; nor is what comes behind it.
func TestEveryTokenCounts(t *testing.T) {
	for _, size := range []int{1, 3, 4, 7, 8, 9, 15, 16, 20, 64} {
		p, err := kvbm.New(kvbm.Config{Blocks: 3, BlockSize: size, PrefixCaching: true})
		if err != nil {
			t.Fatal(err)
		}
		u := filled(p, 3)
		q := kvbm.Query{Root: u.chain.Root(), Blocks: u.chain.Blocks(), Tokens: u.chain.Tokens()}
		if found, _ := p.Peek(q); found != 3 {
			t.Errorf("blocks of %d: found %d of 3", size, found)
		}
		for i := range q.Tokens {
			q.Tokens[i]++
			if found, _ := p.Peek(q); found != i/size {
				t.Errorf("blocks of %d: found %d with another id at %d, want %d", size, found, i, i/size)
			}
			q.Tokens[i]--
		}
		q.Root++
		if found, _ := p.Peek(q); found != 0 {
			t.Errorf("blocks of %d: found %d under another root", size, found)
		}
	}
}

// FuzzPool lets the fuzzer choose the operations of TestModel.
func FuzzPool(f *testing.F) {
	f.Add([]byte{4, 0, 0, 7, 1, 0, 1, 2, 0, 2, 0, 5, 0, 0, 0, 7, 1, 0, 1})
	f.Add([]byte{9, 1, 1, 3, 0, 1, 1, 2, 0, 6, 0, 0, 3, 0, 1, 1, 6, 1, 6, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 2000 {
			return
		}
		next := func() byte {
			if len(ops) == 0 {
				return 0
			}
			b := ops[0]
			ops = ops[1:]
			return b
		}
		head := next()
		w := newWorld(t, 1+int(head&15), 1+int(head>>4&1), ^dynamo.BlockHash(0)>>(60*(head>>7)), head>>5&5 == 1)
		for len(ops) > 0 {
			w.step(next(), func(n int) int { return int(next()) % n })
		}
	})
}

// TestStaleHandles gives handles away and uses them again.
func TestStaleHandles(t *testing.T) {
	content := kvbm.Content{Block: tokens.Block{Local: 1, Hash: 1}, Tokens: []dynamo.TokenID{1}}
	for name, misuse := range map[string]func(p *kvbm.Pool, b kvbm.Partial){
		"abort twice":      func(p *kvbm.Pool, b kvbm.Partial) { p.Abort(b); p.Abort(b) },
		"complete aborted": func(p *kvbm.Pool, b kvbm.Partial) { p.Abort(b); p.Complete(b, content) },
		"complete twice":   func(p *kvbm.Pool, b kvbm.Partial) { p.Complete(b, content); p.Complete(b, content) },
		"register discarded": func(p *kvbm.Pool, b kvbm.Partial) {
			c := p.Complete(b, content)
			p.Discard(c)
			p.Register(c, kvbm.Held{})
		},
		"discard registered": func(p *kvbm.Pool, b kvbm.Partial) {
			c := p.Complete(b, content)
			p.Register(c, kvbm.Held{})
			p.Discard(c)
		},
		"release twice": func(p *kvbm.Pool, b kvbm.Partial) {
			h, _ := p.Register(p.Complete(b, content), kvbm.Held{})
			p.Release(h)
			p.Release(h)
		},
		"zero handle":         func(p *kvbm.Pool, b kvbm.Partial) { p.Release(kvbm.Held{}) },
		"short block":         func(p *kvbm.Pool, b kvbm.Partial) { p.Complete(b, kvbm.Content{}) },
		"lease of one's past": func(p *kvbm.Pool, b kvbm.Partial) { p.Abort(b); p.Lease(1, nil, []kvbm.Partial{b}, time.Time{}) },
		"take after a change": func(p *kvbm.Pool, b kvbm.Partial) {
			p.Peek(kvbm.Query{})
			p.Abort(b)
			p.Take(nil)
		},
		"two leases, one id": func(p *kvbm.Pool, b kvbm.Partial) {
			p.Lease(1, nil, nil, time.Time{})
			p.Lease(1, nil, nil, time.Time{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := kvbm.New(kvbm.Config{Blocks: 2, BlockSize: 1, PrefixCaching: true})
			if err != nil {
				t.Fatal(err)
			}
			b, _ := p.Allocate()
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			misuse(p, b)
		})
	}
}

// TestConfig wants every fault named.
func TestConfig(t *testing.T) {
	if err := (kvbm.Config{Blocks: 0, BlockSize: -1}).Validate(); err == nil || len(err.(interface{ Unwrap() []error }).Unwrap()) != 2 {
		t.Errorf("got %v, want two faults", err)
	}
	if _, err := kvbm.New(kvbm.Config{Blocks: kvbm.MaxBlocks + 1, BlockSize: 16}); err == nil {
		t.Error("a pool that is too large was made")
	}
}

// TestSizeGrowsWithUse: a pool takes memory for the blocks that were used, not for those it may use.
func TestSizeGrowsWithUse(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p, err := kvbm.New(kvbm.Config{Blocks: kvbm.MaxBlocks, BlockSize: 64, PrefixCaching: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, ok := p.Allocate(); !ok {
			t.Fatal("no block")
		}
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("100 blocks of 64 tokens took %d bytes", used)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
}

// TestAllocations wants none in steady state.
func TestAllocations(t *testing.T) {
	const blocks, size = 64, 16
	p, err := kvbm.New(kvbm.Config{Blocks: blocks, BlockSize: size, PrefixCaching: true, Events: true})
	if err != nil {
		t.Fatal(err)
	}
	u := &user{chain: tokens.NewChain(0, size)}
	round := dynamo.TokenID(0)
	n := testing.AllocsPerRun(200, func() { cycle(p, u, &round) })
	if n != 0 {
		t.Errorf("%.1f allocations a round, want none", n)
	}
}

// cycle takes, seals and releases the blocks of a 256-token sequence, half of it
// known.
func cycle(p *kvbm.Pool, u *user, round *dynamo.TokenID) {
	*round++
	u.chain.Reset(0, p.Config().BlockSize)
	u.held, u.open = u.held[:0], u.open[:0]
	for i := range dynamo.TokenID(256) {
		if i >= 128 {
			i += *round << 8
		}
		u.chain.Append(i)
	}
	u.held = p.Match(u.held, kvbm.Query{Blocks: u.chain.Blocks(), Tokens: u.chain.Tokens()})
	for i := len(u.held); i < len(u.chain.Blocks()); i++ {
		b, ok := p.Allocate()
		if !ok {
			panic("the pool is too small")
		}
		h, _ := p.Register(p.Complete(b, u.content(i)), u.last())
		u.held = append(u.held, h)
	}
	u.release(p)
	p.Events()
}

// BenchmarkCycle is the cost of 16 blocks from request to release, the hashing
// included.
func BenchmarkCycle(b *testing.B) {
	p, err := kvbm.New(kvbm.Config{Blocks: 1 << 14, BlockSize: 16, PrefixCaching: true, Events: true})
	if err != nil {
		b.Fatal(err)
	}
	u := &user{chain: tokens.NewChain(0, 16)}
	round := dynamo.TokenID(0)
	b.ReportAllocs()
	for b.Loop() {
		cycle(p, u, &round)
	}
}
