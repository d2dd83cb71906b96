package native

import (
	"fmt"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// tiered keeps the KV of an engine's blocks in tiers below its cache. Blocks are offered
// when a step has filled them and when a request found them in the cache; before a
// request gets its blocks, the tiers are asked for those that the cache has not. These come
// group of layers by group of layers, and a step may begin with the first.
type tiered struct {
	mover *tier.Mover
	cache *model.Cache
	*pace
	wake  func()
	wrote func(blocks []int32) // hears which are written to; nil: nobody does

	open  map[*loop.Task]*bringing // the loop's
	token float64                  // nanoseconds to compute a token, measured
	// waited says that the step may have waited for layers; the loop's.
	waited bool
	mu     struct {
		sync.Mutex
		ended    []*bringing
		arriving []*bringing
	}
}

// bringing is blocks on their way to a task.
type bringing struct {
	t     *loop.Task
	began time.Time
	load  *tier.Load // or nil, if it could not begin
	ok    bool
	told  bool // that a step may begin; tiered.mu guards it
	arrival
}

// kept is what tiered has of a request.
type kept struct {
	sequence *tier.Sequence
	computed int // positions accounted for
	// from and to are the blocks that were brought last.
	from, to int
}

var _ loop.Tiers = (*tiered)(nil)

// Geometry is that of the KV blocks of m, for a tier.Mover that keeps them.
func Geometry(m *model.Model) tier.Geometry {
	c := m.Config()
	g := tier.Geometry{BlockTokens: model.BlockSize, BlockBytes: m.BlockBytes()}
	g.Content.Revision = c.Revision + " " + c.NumericClass
	g.Content.Layout = fmt.Sprintf("native 1: %d layers, %d heads of %d", c.Layers, c.KVHeads, c.HeadDim)
	g.Content.DType, g.Content.Shard = m.KVType(), "1/1"
	for i := range groupsOf(c.Layers) {
		_, layers := groupOf(i, c.Layers)
		g.Groups[i] = layers * (m.BlockBytes() / c.Layers)
	}
	return g
}

// newTiered connects an engine's cache with the tiers of its configuration; nil if it
// has none.
func newTiered(c *Config, m *model.Model, cache *model.Cache) (*tiered, error) {
	if c.Tiers == nil {
		return nil, nil
	}
	if got, want := c.Tiers.Geometry(), Geometry(m); got != want {
		return nil, &dynamo.Error{
			Kind:    dynamo.KindInvalid,
			Message: fmt.Sprintf("the KV tiers keep blocks of another model: %+v, not %+v", got, want),
		}
	}
	return &tiered{mover: c.Tiers, cache: cache, pace: newPace(), open: map[*loop.Task]*bringing{}}, nil
}

// name names the blocks of a request. It is called in the goroutine of its caller.
func (d *tiered) name(r *dynamo.Request) kept {
	s := d.mover.Sequence(tier.Scope{Adapter: r.Adapter, Namespace: r.Namespace, Root: r.Root})
	if s != nil {
		s.Append(r.Tokens...)
		s.Append(r.Resume...)
		if !r.Lend { // who lends what a shared store has brings it for those that can, too
			d.mover.Probe(s)
		}
	}
	return kept{sequence: s}
}

// External implements loop.Tiers.
func (d *tiered) External(t *loop.Task, found int) int {
	s := t.State.(*query).kept.sequence
	if s == nil {
		return found
	}
	first := found / model.BlockSize
	return (first + d.mover.Plan(s, first, (s.Len()-1)/model.BlockSize).Blocks) * model.BlockSize
}

// Begin implements loop.Tiers.
func (d *tiered) Begin(t *loop.Task, start, n int, blocks []int32) {
	k, b := &t.State.(*query).kept, &bringing{t: t, began: time.Now()}
	b.start(func(time.Duration) { b.load.Overlapped() })
	k.from, k.to = start/model.BlockSize, (start+n)/model.BlockSize
	d.open[t] = b
	if d.wrote != nil {
		d.wrote(blocks)
	}
	into := func(i int) []byte { return d.cache.Block(int(blocks[i-k.from])) }
	b.load = d.mover.LoadLayers(k.sequence, k.from, k.to-k.from, into, func(groups int) { d.came(b, groups) }, func(ok bool) { d.over(b, ok) })
	if b.load == nil {
		d.over(b, false)
	}
}

// came hears that so many groups of layers are here, but not all. It is called in a
// goroutine of the tiers.
func (d *tiered) came(b *bringing, groups int) {
	all := d.cache.Depth()
	_, layers := groupOf(groups-1, all)
	b.advance(layers)
	if !d.inTime(time.Since(b.began), groups, groupsOf(all)) {
		return
	}
	d.mu.Lock()
	if !b.told {
		b.told = true
		d.mu.arriving = append(d.mu.arriving, b)
	}
	d.mu.Unlock()
	d.wake()
}

// over hears that all is here, or will not be. Whoever waits for the last layer finds that
// it has ended.
func (d *tiered) over(b *bringing, ok bool) {
	d.mu.Lock()
	b.ok = ok
	d.mu.ended = append(d.mu.ended, b)
	d.mu.Unlock()
	if ok {
		b.advance(d.cache.Depth())
	}
	close(b.done)
	d.wake()
}

// Cancel implements loop.Tiers.
func (d *tiered) Cancel(t *loop.Task) {
	if b := d.open[t]; b != nil && b.load != nil {
		b.load.Cancel()
	}
	d.forget(t)
}

// forget takes what is brought for a task out of what is of interest.
func (d *tiered) forget(t *loop.Task) {
	delete(d.open, t)
	t.State.(*query).arriving = nil
}

// Ended implements loop.Tiers.
func (d *tiered) Ended() (*loop.Task, bool) {
	for b := d.take(&d.mu.ended); b != nil; b = d.take(&d.mu.ended) {
		if d.open[b.t] == b { // not given up in the meantime
			d.forget(b.t)
			return b.t, b.ok
		}
	}
	return nil, false
}

// Arriving implements loop.Tiers.
func (d *tiered) Arriving() *loop.Task {
	for b := d.take(&d.mu.arriving); b != nil; b = d.take(&d.mu.arriving) {
		if d.open[b.t] == b {
			b.t.State.(*query).arriving = &b.arrival
			return b.t
		}
	}
	return nil
}

// take takes the first of a list.
func (d *tiered) take(list *[]*bringing) (b *bringing) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(*list) > 0 {
		b = (*list)[0]
		*list = append((*list)[:0], (*list)[1:]...)
	}
	return b
}

// Computed implements loop.Tiers.
func (d *tiered) Computed(b *sched.Batch, took time.Duration) {
	if b.Tokens >= measureTokens && !d.waited {
		each := float64(took) / float64(b.Tokens)
		if d.token == 0 {
			d.token = each
		}
		d.token += (each - d.token) / measureSteps
		d.mover.SetRecompute(kvbm.Recompute{Token: time.Duration(d.token)})
	}
	d.waited = false
	for i := range b.Entries {
		e := &b.Entries[i]
		if k := &e.Ref.(*loop.Task).State.(*query).kept; k.sequence != nil && !e.Void {
			d.offer(k, e)
		}
	}
}

// offer offers the blocks that an entry has filled, and those before them that its
// request found in the cache.
func (d *tiered) offer(k *kept, e *sched.Entry) {
	s, end := k.sequence, e.Start+len(e.Tokens)
	if end > s.Len() {
		s.Append(e.Tokens[s.Len()-e.Start:]...)
	}
	first := e.Start / model.BlockSize
	if found := k.computed / model.BlockSize; e.Start > k.computed {
		for i := found; i < first; i++ {
			if i < k.from || i >= k.to {
				d.mover.Offer(s, i, d.cache.Block(int(e.Blocks[i])))
			}
		}
		d.mover.Touch(s, first)
	}
	k.computed = max(k.computed, end)
	full := end / model.BlockSize
	for i := first; i < full; i++ {
		d.mover.Offer(s, i, d.cache.Block(int(e.Blocks[i])))
	}
	if full > first && full%touchBlocks == 0 {
		d.mover.Touch(s, full)
	}
}

// close gives up all that is on its way: the cache is written to no more.
func (d *tiered) close() {
	for t := range d.open {
		d.Cancel(t)
	}
}
