package router

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/tokens"
)

// prefixes know which leading blocks of a prompt each worker holds. Blocks of
// different sizes have an index each, for their hashes never meet.
//
// Whoever writes holds mu; lookups hold nothing and may run beside a writer.
type prefixes struct {
	config  kvindex.Config
	metrics *Metrics
	log     *slog.Logger
	all     atomic.Pointer[[]*sized] // replaced, never changed

	mu struct {
		sync.Mutex
		caches map[placement.Key]*cache
		told   indexCounts // as the metrics have them
		closed bool        // the metrics are to have nothing of it
		words  []func()    // for the log, once the lock is free
	}
	expired atomic.Int64 // when expectations were last looked through, by Unix time in ns
}

// sized is the index of the blocks of one size.
type sized struct {
	blockSize int
	index     *kvindex.Index
	// owners are the workers of the index's sources, by source; replaced, never
	// changed. One that has left has a negative index.
	owners atomic.Pointer[[]owner]
}

// owner is whose a source is.
type owner struct {
	m    *member
	rank int
}

// cache is what is known of a worker's blocks. Its fields are guarded by
// prefixes.mu, but for batch and those after it, which belong to the goroutine that
// follows the worker's events.
type cache struct {
	m       *member
	sources []source
	state   cacheState
	heard   bool      // it has told of a block
	sent    int       // requests that it was sent before that
	since   time.Time // when the first of them was
	flood   flood
	made    int  // how often it was begun anew
	named   bool // blocks of it are removed by the engine's ids
	// at is up to where the worker's events are in it.
	at     event.Position
	unsure bool // events were passed over that are not understood, and no digest was right since
	warned bool // the log was told so

	batch event.KVBatch
	plain []tokens.Block
	ids   []uint64
}

// source is a data-parallel rank's part of a cache.
type source struct {
	at   *sized
	rank int
	id   kvindex.Source
}

// cacheState says how far what is known of a worker's blocks can be relied on.
type cacheState uint8

const (
	cacheNone        cacheState = iota // nothing has been heard
	cacheExact                         // all that the worker has told is known
	cacheRepairing                     // something is missing, and on its way
	cacheApproximate                   // decisions stand in for events
)

var cacheStates = [...]string{cacheNone: "none", cacheExact: "exact", cacheRepairing: "repairing", cacheApproximate: "approximate"}

func newPrefixes(c kvindex.Config, m *Metrics, log *slog.Logger) *prefixes {
	p := &prefixes{config: c, metrics: m, log: log}
	p.all.Store(&[]*sized{})
	p.mu.caches = map[placement.Key]*cache{}
	return p
}

// warnLocked tells the log once the lock is free.
func (p *prefixes) warnLocked(message string, args ...any) {
	p.mu.words = append(p.mu.words, func() { p.log.Warn(message, args...) })
}

// unlock frees the lock and says what there is to say.
func (p *prefixes) unlock() {
	words := p.mu.words
	p.mu.words = nil
	p.mu.Unlock()
	for _, say := range words {
		say()
	}
}

// add makes room for a worker; with guess, decisions are to say what it holds.
func (p *prefixes) add(m *member, guess bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &cache{m: m}
	p.mu.caches[m.key()] = c
	if guess {
		c.state = cacheApproximate
	}
	if m.Card.BlockSize > 0 {
		_, _ = p.sizedLocked(m.Card.BlockSize) // what is sent to it can be noted
	}
}

// drop forgets a worker.
func (p *prefixes) drop(m *member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.mu.caches[m.key()]
	if c == nil {
		return
	}
	delete(p.mu.caches, m.key())
	c.forgetLocked()
}

// forgetLocked empties a cache.
func (c *cache) forgetLocked() {
	for _, s := range c.sources {
		s.at.index.Detach(s.id)
		s.at.own(s.id, nil, 0)
	}
	c.sources = c.sources[:0]
	c.made++
	c.named, c.at = false, event.Position{}
}

// own notes whose a source is.
func (z *sized) own(id kvindex.Source, m *member, rank int) {
	owners := slices.Clone(*z.owners.Load())
	for len(owners) <= int(id) {
		owners = append(owners, owner{})
	}
	owners[id] = owner{m, rank}
	if m != nil && rank >= int(m.ranks.Load()) {
		m.ranks.Store(int32(rank + 1))
	}
	z.owners.Store(&owners)
}

// sizedLocked returns the index of a block size.
func (p *prefixes) sizedLocked(blockSize int) (*sized, error) {
	all := *p.all.Load()
	for _, z := range all {
		if z.blockSize == blockSize {
			return z, nil
		}
	}
	if len(all) == maxBlockSizes {
		return nil, &dynamo.Error{Kind: dynamo.KindExhausted, Message: "the workers of a model have blocks of too many sizes; what one of a further size holds is not known"}
	}
	index, err := kvindex.New(p.config)
	if err != nil {
		return nil, err
	}
	z := &sized{blockSize: blockSize, index: index}
	z.owners.Store(&[]owner{})
	all = append(slices.Clone(all), z)
	p.all.Store(&all)
	return z, nil
}

// sourceLocked returns the source of a rank's blocks.
func (p *prefixes) sourceLocked(c *cache, blockSize, rank int) (source, error) {
	for _, s := range c.sources {
		if s.rank == rank && s.at.blockSize == blockSize {
			return s, nil
		}
	}
	if len(c.sources) == maxSources {
		return source{}, &dynamo.Error{Kind: dynamo.KindExhausted, Message: "a worker tells of too many ranks and block sizes; what the further ones hold is not known"}
	}
	z, err := p.sizedLocked(blockSize)
	if err != nil {
		return source{}, err
	}
	s := source{at: z, rank: rank, id: z.index.Attach(kvindex.Worker{ID: c.m.ID, Epoch: c.m.Epoch, Rank: rank})}
	z.own(s.id, c.m, rank)
	c.sources = append(c.sources, s)
	return s, nil
}

// apply takes in what a worker says of its cache. An error says that what is known
// of it cannot be trusted and is to be begun anew.
func (p *prefixes) apply(k placement.Key, d event.Delivery) error {
	p.mu.Lock()
	c := p.mu.caches[k]
	p.mu.Unlock()
	if c == nil {
		return nil // it has left
	}
	if len(d.Payload) > 0 {
		if err := c.batch.Parse(d.Payload); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.unlock()
	if p.mu.caches[k] != c {
		return nil
	}
	now := time.Now()
	switch isolated, ended := c.flood.isolated(now); {
	case isolated:
		return nil
	case ended:
		return errIsolated
	}
	switch d.Kind {
	case event.Gap:
		c.state = cacheRepairing
		return nil
	case event.Reset:
		c.forgetLocked()
		c.state, c.unsure = cacheRepairing, false
	}
	switch {
	case len(d.Payload) > 0 && c.batch.Unknown:
		p.passOverLocked(c)
	case d.Last || d.Kind == event.Event:
		c.state = cacheExact // a gap is over once an event comes
		if c.unsure {
			c.state = cacheRepairing
		}
	}
	if len(d.Payload) == 0 || c.batch.BlockSize == 0 {
		c.at = c.at.After(d)
		return nil
	}
	c.heard = c.heard || len(c.batch.Events) > 0
	if c.flood.take(c.batchBlocks(), now) {
		p.warnLocked("a worker floods the router with KV events; it is passed over for a while, and what it holds is guessed", obs.KeyWorker, c.m.ID, obs.KeyDuration, isolateFor)
		if p.metrics != nil {
			p.metrics.floods.Inc()
		}
		c.forgetLocked()
		c.state = cacheApproximate
		return nil
	}
	if err := p.storeLocked(c); err != nil {
		return err
	}
	c.at = c.at.After(d)
	return nil
}

// passOverLocked notes that c's worker has told of something that only a later version
// of this program understands. What is known of it is to be used until a digest says
// whether anything is missing, and has that repaired.
func (p *prefixes) passOverLocked(c *cache) {
	c.unsure = true
	if c.state != cacheApproximate || c.heard {
		c.state = cacheRepairing
	}
	if p.metrics != nil {
		p.metrics.unknown.Inc()
	}
	if !c.warned {
		c.warned = true
		p.warnLocked("a worker of a later version tells of its KV cache what is not understood here; that is passed over, and what is missing is fetched; upgrade this process", obs.KeyWorker, c.m.ID)
	}
}

// errIsolated has the worker's cache begun anew after an isolation.
var errIsolated = &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "the worker's KV events were passed over for a while, for there were too many of them; its cache is begun anew"}

// batchBlocks counts the blocks that the batch tells of.
func (c *cache) batchBlocks() (n int) {
	for i := range c.batch.Events {
		n += 1 + len(c.batch.Events[i].Blocks) + len(c.batch.Events[i].Hashes)
	}
	return n
}

// storeLocked applies the batch that c has parsed.
func (p *prefixes) storeLocked(c *cache) error {
	b := &c.batch
	if b.BlockSize == 0 {
		return nil // of a form that is not understood
	}
	s, err := p.sourceLocked(c, b.BlockSize, b.Rank)
	if err != nil {
		return err
	}
	x := s.at.index
	for i := range b.Events {
		e := &b.Events[i]
		c.named = c.named || e.HasEngine
		switch {
		case e.Kind == kvbm.Cleared:
			x.Clear(s.id, b.Tier)
		case e.Kind == kvbm.Removed && e.HasEngine:
			c.ids = c.ids[:0]
			for _, h := range e.Hashes {
				c.ids = append(c.ids, uint64(h))
			}
			x.RemoveEngine(s.id, b.Tier, c.ids)
		case e.Kind == kvbm.Removed:
			x.Remove(s.id, b.Tier, e.Hashes)
		default:
			c.plain, c.ids = c.plain[:0], c.ids[:0]
			for _, block := range e.Blocks {
				c.plain = append(c.plain, block.Block)
				c.ids = append(c.ids, block.Engine)
			}
			if e.HasEngine {
				x.StoreEngine(s.id, b.Tier, e.Parent, e.HasParent, c.plain, c.ids)
			} else {
				x.Store(s.id, b.Tier, e.Parent, e.HasParent, c.plain)
			}
		}
	}
	return nil
}

// expect notes that a worker will soon hold the blocks of a prompt that it is sent,
// for the requests that come before it says so itself: for ttl, and for approximate
// where it sends no events. It reports that this has just been noticed.
func (p *prefixes) expect(m *member, rank int, l *lookup, now time.Time, ttl, approximate time.Duration) (silent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.mu.caches[m.key()]
	if c == nil || m.Card.BlockSize < 1 {
		return false
	}
	if c.state != cacheApproximate && !c.heard {
		silent = c.sentLocked(now)
	}
	if c.state == cacheApproximate {
		ttl = approximate
	}
	for i := range l.parts {
		part := &l.parts[i]
		if part.at.blockSize != m.Card.BlockSize || len(part.hashes) == 0 {
			continue
		}
		if s, err := p.sourceLocked(c, part.at.blockSize, max(rank, 0)); err == nil {
			s.at.index.Expect(s.id, part.hashes, now.Add(ttl))
		}
	}
	return silent
}

// sentLocked counts a request to a worker that has told of no block. After some of
// them and some time it is taken to send no events.
func (c *cache) sentLocked(now time.Time) bool {
	if c.sent++; c.sent == 1 {
		c.since = now
	}
	if c.sent <= silentRequests || now.Sub(c.since) < silentFor {
		return false
	}
	c.state = cacheApproximate
	return true
}

// expire forgets what was expected until now.
func (p *prefixes) expire(now time.Time) {
	last := p.expired.Load()
	if now.UnixNano()-last < int64(expireEvery) || !p.expired.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	p.mu.Lock()
	defer p.unlock()
	for _, z := range *p.all.Load() {
		z.index.Expire(now)
		z.index.Sweep(sweepRuns) // what is left of workers that have gone
	}
	p.tellLocked()
}

// tellLocked brings the metrics up to date, and tells the log when an index has first
// become too small.
func (p *prefixes) tellLocked() {
	var now indexCounts
	for _, z := range *p.all.Load() {
		s := z.index.Stats()
		now.blocks += s.Held
		now.bytes += s.Bytes
		now.evicted += s.Evicted
	}
	if p.mu.closed {
		now.blocks, now.bytes = 0, 0
	}
	was := p.mu.told
	p.mu.told = now
	if mm := p.metrics; mm != nil {
		mm.indexBlocks.Add(float64(now.blocks - was.blocks))
		mm.indexBytes.Add(float64(now.bytes - was.bytes))
		mm.indexEvictions.Add(float64(now.evicted - was.evicted))
	}
	if was.evicted == 0 && now.evicted > 0 {
		p.warnLocked("the prefix index is full and gives up blocks; hits will be missed, raise --router-index-bytes", "limit_bytes", p.config.MaxBytes)
	}
}

// close takes the indexes out of the gauges, for good.
func (p *prefixes) close() {
	p.mu.Lock()
	defer p.unlock()
	p.mu.closed = true
	p.tellLocked()
}

// indexCounts are sums over the indexes.
type indexCounts struct {
	blocks, bytes int64
	evicted       uint64
}

// lookup is what the indexes say of one prompt.
type lookup struct {
	parts []part
	// overlaps are those of the last decision, for placement.
	overlaps []placement.Overlap
	ranks    []int   // parallel to them: the rank that holds most
	slots    []int32 // by candidate: 1 + its place in overlaps
}

// part is what the index of one block size says.
type part struct {
	at     *sized
	hashes []dynamo.BlockHash
	found  []kvindex.Overlap
}

var lookups = sync.Pool{New: func() any { return new(lookup) }}

// look hashes a prompt and finds out who holds its beginning.
func (p *prefixes) look(q *dynamo.Request, now time.Time) *lookup {
	l := lookups.Get().(*lookup)
	all := *p.all.Load()
	for len(l.parts) < len(all) {
		l.parts = append(l.parts, part{})
	}
	l.parts = l.parts[:len(all)]
	for i, z := range all {
		part := &l.parts[i]
		part.at = z
		part.hashes = tokens.AppendSequence(part.hashes[:0], q, z.blockSize)
	}
	p.expire(now)
	l.find()
	return l
}

// find looks again: what workers hold changes while a request waits.
func (l *lookup) find() {
	for i := range l.parts {
		part := &l.parts[i]
		part.found = part.found[:0]
		if len(part.hashes) > 0 {
			part.found = part.at.index.Find(part.hashes, part.found)
		}
	}
}

// most is how many leading tokens of the prompt the worker holds that holds most.
func (l *lookup) most() (n int) {
	if l == nil {
		return 0
	}
	for i := range l.parts {
		for _, o := range l.parts[i].found {
			n = max(n, int(o.Blocks[len(o.Blocks)-1])*l.parts[i].at.blockSize)
		}
	}
	return n
}

// done gives the memory of l back.
func (l *lookup) done() {
	if l == nil {
		return
	}
	for i := range l.parts {
		l.parts[i].at = nil
	}
	lookups.Put(l)
}

// place says in q what the candidates, n in number, hold. Router.mu is held: it
// guards the members' places among the candidates.
func (l *lookup) place(q *placement.Request, n int) {
	l.overlaps, l.ranks = l.overlaps[:0], l.ranks[:0]
	if len(l.slots) < n {
		l.slots = make([]int32, n)
	}
	unit := 1 // blocks of several sizes are counted in tokens
	q.BlockSize = 1
	if len(l.parts) == 1 {
		q.BlockSize = l.parts[0].at.blockSize
	}
	for i := range l.parts {
		part := &l.parts[i]
		if len(l.parts) > 1 {
			unit = part.at.blockSize
		}
		owners := *part.at.owners.Load()
		for _, o := range part.found {
			if int(o.Source) >= len(owners) || owners[o.Source].m == nil || owners[o.Source].m.index < 0 {
				continue
			}
			l.note(owners[o.Source], o, uint32(unit))
		}
	}
	for _, o := range l.overlaps {
		l.slots[o.Candidate] = 0
	}
	q.Overlaps = l.overlaps
}

// note adds what one rank holds. Of several ranks of one worker the one that holds
// most counts in each tier, and is the one to serve the request if the worker does.
func (l *lookup) note(w owner, o kvindex.Overlap, unit uint32) {
	candidate := w.m.index
	slot := l.slots[candidate]
	if slot == 0 {
		l.overlaps, l.ranks = append(l.overlaps, placement.Overlap{Candidate: int32(candidate)}), append(l.ranks, w.rank)
		slot = int32(len(l.overlaps))
		l.slots[candidate] = slot
	}
	blocks := &l.overlaps[slot-1].Blocks
	if last := len(blocks) - 1; o.Blocks[last]*unit > blocks[last] {
		l.ranks[slot-1] = w.rank
	}
	for t := range blocks {
		blocks[t] = max(blocks[t], o.Blocks[t]*unit)
	}
}

// rank is the rank of a candidate that holds most of the prompt; -1: none holds any.
func (l *lookup) rank(candidate int) int {
	if l == nil {
		return -1
	}
	for i := range l.overlaps {
		if int(l.overlaps[i].Candidate) == candidate {
			return l.ranks[i]
		}
	}
	return -1
}

// held returns how many leading tokens of the prompt a candidate was found to hold,
// in whatever tier.
func (l *lookup) held(q *placement.Request, candidate int) int {
	if l == nil {
		return 0
	}
	for i := range l.overlaps {
		if o := &l.overlaps[i]; int(o.Candidate) == candidate {
			return min(int(o.Blocks[len(o.Blocks)-1])*q.BlockSize, q.Tokens)
		}
	}
	return 0
}

// cacheView is what is known of a cache, in numbers.
type cacheView struct {
	state  cacheState
	blocks uint64
}

// state lists what is known of the caches.
func (p *prefixes) state(now time.Time) (map[placement.Key]cacheView, IndexState) {
	p.expire(now)
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[placement.Key]cacheView{}
	s := IndexState{Limit: p.config.MaxBytes}
	for k, c := range p.mu.caches {
		v := cacheView{state: c.state}
		s.Sources += len(c.sources)
		for _, src := range c.sources {
			for t := range dynamo.TierRemote + 1 {
				v.blocks += uint64(src.at.index.Blocks(src.id, t))
			}
			if v.state == cacheExact && src.at.index.State(src.id) == kvindex.Approximate {
				v.state = cacheApproximate // blocks of it were given up
			}
		}
		s.Blocks += v.blocks
		all[k] = v
	}
	for _, z := range *p.all.Load() {
		s.Bytes += z.index.Bytes()
	}
	return all, s
}
