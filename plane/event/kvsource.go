package event

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/router/kvindex"
)

// KVConfig configures a KVSource.
type KVConfig struct {
	// Worker and Epoch say whose KV cache it is, BlockSize how many tokens its
	// blocks hold.
	Worker    dynamo.WorkerID
	Epoch     uint64
	BlockSize int
	// RingBytes and RingEvents are the publisher's (4 MiB and 65536).
	RingBytes  int
	RingEvents int
	// Lose says whether the n-th payload of changes, from 1, is kept from all who
	// listen, who notice by the next digest only: a fault to test them with. Default
	// nil: none is.
	Lose    func(n uint64) bool
	Logger  *slog.Logger
	Metrics *Metrics
}

// DefaultKVConfig returns the defaults; Worker, Epoch and BlockSize have none.
func DefaultKVConfig() KVConfig {
	return KVConfig{RingBytes: defaultRingBytes, RingEvents: defaultRingEvents}
}

// Validate reports every fault of the configuration.
func (c KVConfig) Validate() error {
	var err error
	if c.BlockSize < 1 || c.BlockSize > kvbm.MaxBlockSize {
		err = invalid("the KV blocks of a source must hold 1 token or more, and no more than a pool's")
	}
	return errors.Join(err, c.publisher().Validate())
}

func (c KVConfig) publisher() PublisherConfig {
	p := DefaultPublisherConfig(Source{TopicKV, c.Worker, c.Epoch})
	p.RingBytes, p.RingEvents, p.Logger, p.Metrics = c.RingBytes, c.RingEvents, c.Logger, c.Metrics
	return p
}

// KVSource publishes what a worker's KV caches store and remove, and knows what
// they hold, so that subscribers can begin at any time. It is safe for concurrent
// use.
type KVSource struct {
	config KVConfig
	p      *Publisher
	// changed says that wake holds a token or that Run is about to tell digests.
	changed atomic.Bool
	wake    chan struct{} // one place

	// The publisher's lock is taken while this one is held, never the other way
	// round: a change and its number belong together.
	mu struct {
		sync.Mutex
		caches []*kvCache // one for each tier and rank that ever had events
		seq    uint64     // of the newest event
		told   uint64     // payloads of changes
		batch  KVBatch    // reused
		buf    []byte     // reused
	}
}

// kvCache is what one tier of one rank holds. Entries lie in a slice so that a
// copy of them for a snapshot is one move of memory.
type kvCache struct {
	tier    dynamo.Tier
	rank    int
	index   map[dynamo.BlockHash]int32
	engine  map[uint64]dynamo.BlockHash // by the engine's id, where there are such
	entries []kvEntry
	// more are the engine's ids of a block beyond that of its entry: it is held until
	// all have been removed.
	more   map[dynamo.BlockHash][]uint64
	digest kvindex.Digest // of entries
}

// kvEntry is one block and what is before it.
type kvEntry struct {
	block     KVBlock
	parent    dynamo.BlockHash
	hasParent bool
	hasEngine bool
}

// NewKVSource returns a source whose caches are empty.
func NewKVSource(c KVConfig) (*KVSource, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	s := &KVSource{config: c, wake: make(chan struct{}, 1)}
	pc := c.publisher()
	pc.Snapshot, pc.Answer = s.snapshot, s.answer
	var err error
	s.p, err = NewPublisher(pc)
	return s, err
}

// Publisher returns what to attach to a bus.
func (s *KVSource) Publisher() *Publisher { return s.p }

// Run publishes the digests of what the caches hold, every so often while that
// changes and once more after, and seldom while it does not, until ctx ends, and
// returns its cause. Subscribers find by them that they have missed something that
// nobody noticed.
func (s *KVSource) Run(ctx context.Context) error {
	timer := time.NewTimer(digestIdle)
	defer timer.Stop()
	for again := false; ; {
		wake := s.wake
		if again {
			timer.Reset(digestEvery)
			wake = nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-wake:
			again = true
			continue
		case <-timer.C:
		}
		select {
		case <-s.wake: // it is for what is told here
		default:
		}
		again = s.changed.Swap(false) // before the look: a change after it wakes again
		s.tellDigests()
		timer.Reset(digestIdle)
	}
}

// tellDigests publishes the digest of each cache.
func (s *KVSource) tellDigests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.mu.caches {
		b := KVBatch{Tier: c.tier, Rank: c.rank, BlockSize: s.config.BlockSize, Digest: c.digest, HasDigest: true}
		s.mu.buf = b.Append(s.mu.buf[:0])
		s.mu.seq = s.p.Publish(s.mu.buf)
	}
}

// change notes that digests are to be told. It never waits.
func (s *KVSource) change() {
	if s.changed.Load() || s.changed.Swap(true) {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Sink returns a receiver of the events of one pool, such as native.Config.Events
// wants. Calling it costs no more than noting the blocks and copying their hashes;
// it keeps nothing of its argument.
func (s *KVSource) Sink(t dynamo.Tier, rank int) func([]kvbm.Event) {
	if t >= tiers || rank < 0 || rank > MaxKVRank {
		panic("BUG: event: a KV cache of no possible tier or rank")
	}
	return func(events []kvbm.Event) {
		defer s.change()
		s.mu.Lock()
		defer s.mu.Unlock()
		b := &s.mu.batch
		*b = KVBatch{Tier: t, Rank: rank, BlockSize: s.config.BlockSize, Events: b.Events[:0], blocks: b.blocks[:0]}
		for i := range events {
			e := &events[i]
			start := len(b.blocks)
			for _, stored := range e.Blocks {
				b.blocks = append(b.blocks, KVBlock{Block: stored.Block})
			}
			// Slices of a buffer that has moved since still hold what they held.
			b.Events = append(b.Events, KVEvent{
				Kind: e.Kind, Parent: e.Parent, HasParent: e.HasParent,
				Blocks: b.blocks[start:len(b.blocks):len(b.blocks)], Hashes: e.Hashes,
			})
		}
		s.publishLocked(b)
		clear(b.Events) // the hashes are the caller's
	}
}

// Publish takes over the changes that an adapter of an engine tells of. Removal by
// the engine's ids (HasEngine) is passed on and looked up. Tier, rank and block
// size must be possible ones; BlockSize 0 is the source's.
func (s *KVSource) Publish(b *KVBatch) {
	if b.BlockSize == 0 {
		b.BlockSize = s.config.BlockSize
	}
	defer s.change()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publishLocked(b)
}

// Expect tells that a rank is about to hold the first blocks of a sequence, because a
// request with them was accepted: so all who choose among workers foresee the same,
// whoever chose. What exceeds maxExpected is left out, and nothing is told where the
// rank holds all of them already.
func (s *KVSource) Expect(rank, blockSize int, hashes []dynamo.BlockHash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.knownLocked(dynamo.TierDevice, rank); c != nil {
		if !slices.ContainsFunc(hashes, func(h dynamo.BlockHash) bool { _, held := c.index[h]; return !held }) {
			return
		}
	}
	if len(hashes) == 0 {
		return
	}
	b := KVBatch{Tier: dynamo.TierDevice, Rank: rank, BlockSize: blockSize, Expected: hashes[:min(len(hashes), maxExpected)]}
	s.mu.buf = b.Append(s.mu.buf[:0])
	s.mu.seq = s.p.Publish(s.mu.buf)
}

// publishLocked notes the changes and publishes them in payloads of about
// kvPayloadBytes.
func (s *KVSource) publishLocked(b *KVBatch) {
	cache := s.cacheLocked(b.Tier, b.Rank)
	buf := b.appendHeader(s.mu.buf[:0])
	header := len(buf)
	flush := func() {
		if len(buf) > header {
			if s.mu.told++; s.config.Lose == nil || !s.config.Lose(s.mu.told) {
				s.mu.seq = s.p.Publish(buf)
			}
			buf = buf[:header]
		}
	}
	for i := range b.Events {
		cache.apply(&b.Events[i])
		for e := range pieces(b.Events[i]) {
			buf = appendKVEvent(buf, &e)
			if len(buf) >= kvPayloadBytes {
				flush()
			}
		}
	}
	flush()
	if s.mu.buf = buf; cap(buf) > 4*kvPayloadBytes {
		s.mu.buf = nil
	}
}

// pieces yields an event in ones of at most kvPieceBlocks blocks.
func pieces(e KVEvent) func(func(KVEvent) bool) {
	return func(yield func(KVEvent) bool) {
		for len(e.Blocks) > kvPieceBlocks || len(e.Hashes) > kvPieceBlocks {
			first := e
			if e.Kind == kvbm.Stored {
				first.Blocks, e.Blocks = e.Blocks[:kvPieceBlocks], e.Blocks[kvPieceBlocks:]
				e.Parent, e.HasParent = first.Blocks[kvPieceBlocks-1].Hash, true
			} else {
				first.Hashes, e.Hashes = e.Hashes[:kvPieceBlocks], e.Hashes[kvPieceBlocks:]
			}
			if !yield(first) {
				return
			}
		}
		if e.Kind == kvbm.Cleared || len(e.Blocks)+len(e.Hashes) > 0 {
			yield(e)
		}
	}
}

// knownLocked returns the cache of a tier of a rank; nil if it never had events.
func (s *KVSource) knownLocked(t dynamo.Tier, rank int) *kvCache {
	for _, c := range s.mu.caches {
		if c.tier == t && c.rank == rank {
			return c
		}
	}
	return nil
}

func (s *KVSource) cacheLocked(t dynamo.Tier, rank int) *kvCache {
	if c := s.knownLocked(t, rank); c != nil {
		return c
	}
	c := &kvCache{tier: t, rank: rank, index: map[dynamo.BlockHash]int32{}, engine: map[uint64]dynamo.BlockHash{}, more: map[dynamo.BlockHash][]uint64{}}
	s.mu.caches = append(s.mu.caches, c)
	return c
}

// apply notes one change.
func (c *kvCache) apply(e *KVEvent) {
	switch e.Kind {
	case kvbm.Cleared:
		clear(c.index)
		clear(c.engine)
		clear(c.more)
		c.entries, c.digest = c.entries[:0], kvindex.Digest{}
	case kvbm.Removed:
		for _, h := range e.Hashes {
			if e.HasEngine {
				c.removeID(uint64(h))
			} else if i, ok := c.index[h]; ok {
				c.remove(i)
			}
		}
	case kvbm.Stored:
		parent, has := e.Parent, e.HasParent
		for _, b := range e.Blocks {
			c.store(kvEntry{b, parent, has, e.HasEngine})
			parent, has = b.Hash, true
		}
	}
}

// store notes a block.
func (c *kvCache) store(e kvEntry) {
	h, id := e.block.Hash, e.block.Engine
	if e.hasEngine {
		if old, ok := c.engine[id]; ok && old != h {
			c.removeID(id) // it stands for another block from here on
		}
	}
	i, there := c.index[h]
	switch {
	case !there:
		c.index[h] = int32(len(c.entries))
		c.entries = append(c.entries, e)
		c.digest.Note(h)
	case e.hasEngine && c.engine[id] != h:
		c.more[h] = append(c.more[h], id)
	default:
		old := &c.entries[i]
		old.parent, old.hasParent = e.parent, e.hasParent
	}
	if e.hasEngine {
		c.engine[id] = h
	}
}

// removeID takes away an id of the engine's, and the block that it alone stands for.
func (c *kvCache) removeID(id uint64) {
	h, known := c.engine[id]
	if !known {
		return
	}
	delete(c.engine, id)
	i := c.index[h]
	more := c.more[h]
	if len(more) == 0 {
		c.remove(i)
		return
	}
	if at := slices.Index(more, id); at >= 0 {
		more[at] = more[len(more)-1]
	} else {
		c.entries[i].block.Engine = more[len(more)-1]
	}
	if more = more[:len(more)-1]; len(more) == 0 {
		delete(c.more, h)
	} else {
		c.more[h] = more
	}
}

// remove takes entry i out; the last one takes its place.
func (c *kvCache) remove(i int32) {
	old := &c.entries[i]
	h := old.block.Hash
	if old.hasEngine && c.engine[old.block.Engine] == h {
		delete(c.engine, old.block.Engine)
	}
	for _, id := range c.more[h] {
		delete(c.engine, id)
	}
	delete(c.more, h)
	delete(c.index, h)
	c.digest.Drop(h)
	last := len(c.entries) - 1
	if int(i) < last {
		c.entries[i] = c.entries[last]
		c.index[c.entries[i].block.Hash] = i
	}
	c.entries = c.entries[:last]
}

// snapshot tells what the caches hold, each block after the one before it. The
// engine waits for the copy of the entries, not for the rest.
func (s *KVSource) snapshot() (seq uint64, parts [][]byte) {
	seq, caches := s.held()
	for _, c := range caches {
		parts = c.parts(parts, s.config.BlockSize, true)
	}
	return seq, parts
}

// held returns the caches without their indexes.
func (s *KVSource) held() (seq uint64, caches []kvCache) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.mu.caches {
		caches = append(caches, kvCache{tier: c.tier, rank: c.rank, entries: slices.Clone(c.entries), more: cloneIDs(c.more), digest: c.digest})
	}
	return s.mu.seq, caches
}

func cloneIDs(m map[dynamo.BlockHash][]uint64) map[dynamo.BlockHash][]uint64 {
	out := make(map[dynamo.BlockHash][]uint64, len(m))
	for h, ids := range m {
		out[h] = slices.Clone(ids)
	}
	return out
}

// parts appends payloads of about kvPayloadBytes that store all entries; with
// digest, the last one tells that of the cache.
func (c *kvCache) parts(parts [][]byte, blockSize int, digest bool) [][]byte {
	batch := KVBatch{Tier: c.tier, Rank: c.rank, BlockSize: blockSize}
	buf := batch.appendHeader(nil)
	header := len(buf)
	c.chains(func(e KVEvent) {
		for e := range pieces(e) {
			if buf = appendKVEvent(buf, &e); len(buf) >= kvPayloadBytes {
				parts = append(parts, buf)
				buf = batch.appendHeader(make([]byte, 0, len(buf)))
			}
		}
	})
	if len(buf) > header {
		parts = append(parts, buf)
	}
	if !digest {
		return parts
	}
	batch.Digest, batch.HasDigest = c.digest, true
	return append(parts, batch.Append(nil))
}

// chains yields the entries as stored events, parents first. An entry whose parent
// is not there begins a chain that names it all the same.
func (c *kvCache) chains(yield func(KVEvent)) {
	index := make(map[dynamo.BlockHash]int32, len(c.entries))
	for i := range c.entries {
		index[c.entries[i].block.Hash] = int32(i)
	}
	done := make([]bool, len(c.entries))
	var path []int32
	var blocks []KVBlock
	for i := range c.entries {
		for j, ok := int32(i), true; ok && !done[j]; {
			done[j] = true
			path = append(path, j)
			if ok = c.entries[j].hasParent; ok {
				j, ok = index[c.entries[j].parent]
			}
		}
		for len(path) > 0 {
			first := c.entries[path[len(path)-1]]
			e := KVEvent{Kind: kvbm.Stored, Parent: first.parent, HasParent: first.hasParent, HasEngine: first.hasEngine}
			blocks = blocks[:0]
			for len(path) > 0 && c.entries[path[len(path)-1]].hasEngine == e.HasEngine {
				blocks = append(blocks, c.entries[path[len(path)-1]].block)
				path = path[:len(path)-1]
			}
			e.Blocks = blocks
			yield(e)
			for i, b := range blocks {
				c.moreIDs(&e, i, b, yield)
			}
		}
	}
}

// moreIDs yields block i of e, stored once more for each further id of it.
func (c *kvCache) moreIDs(e *KVEvent, i int, b KVBlock, yield func(KVEvent)) {
	for _, id := range c.more[b.Hash] {
		again := KVEvent{Kind: kvbm.Stored, Parent: e.Parent, HasParent: e.HasParent, HasEngine: true}
		if i > 0 {
			again.Parent, again.HasParent = e.Blocks[i-1].Hash, true
		}
		again.Blocks = []KVBlock{{Block: b.Block, Engine: id}}
		yield(again)
	}
}
