package tier

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
)

// Mover keeps and brings KV blocks. New opens the stores and starts nothing; Run does
// the work and closes them. Before Run and after it, nothing is taken and nothing is
// found. It is safe for concurrent use.
type Mover struct {
	config  Config
	log     *slog.Logger
	stores  [4]Store // by dynamo.Tier; nil where there is none
	memory  Memory   // the host tier's, or nil
	queues  [4]queue
	deletes chan kvbm.Move
	bounce  chan []byte // frames for what goes from an engine past the host tier
	sealers sync.Pool   // *sealer; a MAC's state is worth keeping
	inside  sync.WaitGroup
	ready   chan struct{}
	closing sync.Once
	quiet   quiet
	mu      struct {
		sync.Mutex
		tiers   *kvbm.Tiers
		running bool
		moves   []kvbm.Move
		told    [4]kvbm.TierStats // what the metrics have
		telling bool              // somebody is in Config.Events
		changes []kvbm.Change
		loads   Counts
		counted Counts // what the metrics have of them
		// leaving counts the deletions under way of each block in a remote store, which
		// goes by keys: what is put there meanwhile would be lost.
		leaving map[dynamo.ContentKey]int
	}
}

// Counts are loads by their end.
type Counts struct {
	// Begun counts loads, Arrived, Failed and Late those that brought everything, that
	// met an error, and that took too long. What is left was cancelled, or is under way.
	Begun, Arrived, Failed, Late uint64
	// Blocks counts the blocks brought.
	Blocks uint64
	// Overlapped counts those that an engine computed with before all was there.
	Overlapped uint64
}

// queue is the work of one tier's goroutines.
type queue struct {
	reads, writes chan job
}

// job is a move and what it takes. One with a load is a place in it: whoever takes it
// brings a block from the move's tier, as Load.next says.
type job struct {
	move kvbm.Move
	load *Load
	from []byte // of an Offload: its frame, from bounce
}

// New opens the stores of a configuration. They are closed by Run, or by Close where
// Run is never called.
func New(c Config) (*Mover, error) {
	if err := c.Validate(); err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "configure the KV tiers: " + err.Error()}
	}
	c.Tiers = *c.sized()
	c.Tiers.Changes = c.Events != nil
	tiers, err := kvbm.NewTiers(c.Tiers)
	if err != nil {
		return nil, fmt.Errorf("plan the KV tiers: %w", err)
	}
	m := &Mover{config: c, log: obs.For(c.Logger, "kvbm"), deletes: make(chan kvbm.Move, maxDeletes), ready: make(chan struct{})}
	m.mu.tiers, m.mu.leaving = tiers, map[dynamo.ContentKey]int{}
	if c.Recompute != (kvbm.Recompute{}) {
		tiers.SetRecompute(c.Recompute)
	}
	m.sealers.New = func() any { return newSealer(c.ClusterKey, &m.config.Geometry) }
	if err := m.openStores(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	for t := dynamo.TierHost; t <= dynamo.TierRemote; t++ {
		if m.stores[t] == nil {
			continue
		}
		n := m.tierConfig(t).Queue
		m.queues[t] = queue{reads: make(chan job, n), writes: make(chan job, n)}
	}
	if m.memory == nil {
		n := min(max(bounceBytes/c.Geometry.FrameBytes(), minBounce), maxBounce)
		m.bounce = make(chan []byte, n)
		for range n {
			m.bounce <- nil // made when first used
		}
	}
	return m, nil
}

// openStores opens the store of each tier with a budget.
func (m *Mover) openStores() error {
	c, frame := &m.config, m.config.Geometry.FrameBytes()
	if n := c.Tiers.Slots(dynamo.TierHost); n > 0 {
		h, err := NewHost(n, frame, c.HugePages)
		if err != nil {
			return err
		}
		m.stores[dynamo.TierHost], m.memory = h, h
	}
	if n := c.Tiers.Slots(dynamo.TierDisk); n > 0 {
		d, err := OpenDisk(DiskConfig{Dir: c.DiskDir, Slots: n, FrameBytes: frame, ClusterKey: c.ClusterKey})
		if err != nil {
			return err
		}
		m.stores[dynamo.TierDisk] = d
	}
	if c.Tiers.Slots(dynamo.TierRemote) > 0 {
		s := c.Remote
		if s == nil {
			var err error
			if s, err = OpenShared(c.RemoteDir); err != nil {
				return err
			}
		}
		m.stores[dynamo.TierRemote] = s
	}
	if c.Wrap != nil {
		for t, s := range m.stores {
			if s != nil {
				m.stores[t] = c.Wrap(dynamo.Tier(t), s)
			}
		}
	}
	return nil
}

// Close closes the stores of a Mover that is not run.
func (m *Mover) Close() (err error) {
	m.closing.Do(func() {
		for t, s := range m.stores {
			if s == nil {
				continue
			}
			if fault := s.Close(); fault != nil {
				err = errors.Join(err, fmt.Errorf("close the %v tier: %w", dynamo.Tier(t), fault))
			}
		}
	})
	return err
}

// Geometry is what all blocks have in common.
func (m *Mover) Geometry() Geometry { return m.config.Geometry }

func (m *Mover) tierConfig(t dynamo.Tier) *kvbm.TierConfig {
	c := &m.config.Tiers
	return [...]*kvbm.TierConfig{nil, &c.Host, &c.Disk, &c.Remote}[t]
}

// Run finds again what the stores hold, and moves blocks until ctx ends. It is called
// once, and closes the stores. A store that hangs then is left behind, with the
// goroutines that wait for it.
func (m *Mover) Run(ctx context.Context) error {
	if err := m.restore(ctx, dynamo.TierDisk); err != nil {
		return errors.Join(err, m.Close())
	}
	m.mu.Lock()
	m.mu.running = true
	m.mu.Unlock()
	var workers sync.WaitGroup
	workers.Go(func() {
		if err := m.restore(ctx, dynamo.TierRemote); err != nil && ctx.Err() == nil {
			m.log.Error("list the remote tier", obs.KeyError, err)
		}
	})
	for t := dynamo.TierHost; t <= dynamo.TierRemote; t++ {
		if m.stores[t] == nil {
			continue
		}
		for range m.tierConfig(t).Workers {
			workers.Go(func() { m.work(ctx, m.queues[t].reads) })
			workers.Go(func() { m.work(ctx, m.queues[t].writes) })
		}
	}
	workers.Go(func() { m.remove(ctx) })
	close(m.ready)
	<-ctx.Done()
	m.mu.Lock()
	m.mu.running = false
	m.mu.Unlock()
	m.inside.Wait()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		workers.Wait()
	}()
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
		// Whoever hangs in a store may still touch its buffers: nothing is closed.
		m.abandon()
		return errors.Join(context.Cause(ctx), &dynamo.Error{Kind: dynamo.KindDeadline, Message: fmt.Sprintf("a store of the KV tiers has not answered for %v; it is left as it is", stopTime)})
	}
	m.abandon()
	return errors.Join(context.Cause(ctx), m.Close())
}

// Ready is closed when Run takes blocks in and brings them: what was on disk is found
// again.
func (m *Mover) Ready() <-chan struct{} { return m.ready }

// enter reports whether the Mover runs, and keeps it running until inside.Done.
func (m *Mover) enter() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.running {
		m.inside.Add(1)
	}
	return m.mu.running
}

// abandon ends what is still in the queues.
func (m *Mover) abandon() {
	for t := range m.queues {
		for _, q := range []chan job{m.queues[t].reads, m.queues[t].writes} {
			for len(q) > 0 {
				if j := <-q; j.load != nil {
					m.arrived(j.load, false)
				}
			}
		}
	}
}

// Offer says that the engine has block i of s, of which body are the bytes, computed
// just now or used again. If a tier takes it they are copied before Offer returns.
func (m *Mover) Offer(s *Sequence, i int, body []byte) {
	if !m.enter() {
		return
	}
	defer m.inside.Done()
	var local [4]kvbm.Move
	m.mu.Lock()
	m.mu.moves = m.mu.tiers.Offer(m.mu.moves[:0], s.name(i), time.Now())
	m.leaveLocked(m.mu.moves)
	moves := append(local[:0], m.mu.moves...)
	m.mu.Unlock()
	m.tellChanges()
	for _, mv := range moves {
		if mv.Kind == kvbm.Offload {
			m.offload(s, i, mv, body)
		} else {
			m.dispatch(mv)
		}
	}
}

// offload copies a block from the engine.
func (m *Mover) offload(s *Sequence, i int, mv kvbm.Move, body []byte) {
	began := time.Now()
	h := s.header(i)
	h.Generation = mv.FromGeneration
	if mv.To == dynamo.TierHost {
		frame := m.memory.Frame(mv.ToSlot)
		m.seal(frame, &h, body)
		m.finish(&mv, m.put(context.Background(), &mv, frame), time.Since(began))
		return
	}
	select {
	case frame := <-m.bounce:
		if frame == nil {
			frame = Buffer(m.config.Geometry.FrameBytes())
		}
		m.seal(frame, &h, body)
		m.queues[mv.To].writes <- job{move: mv, from: frame} // as long as kvbm.Tiers lets it be
	default:
		m.finish(&mv, outcome{kvbm.MoveCancelled, nil}, 0)
	}
}

// seal writes a frame.
func (m *Mover) seal(frame []byte, h *Header, body []byte) {
	s := m.sealers.Get().(*sealer)
	defer m.sealers.Put(s)
	s.seal(frame, h, body)
}

// Touch says that the blocks of s up to number n were used together: those in front
// are kept longest.
func (m *Mover) Touch(s *Sequence, n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.tiers.Touch(s.keys[:n])
}

// Plan says how many blocks of s, from number first up to number end, are stored and
// worth bringing.
func (m *Mover) Plan(s *Sequence, first, end int) kvbm.Plan {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.mu.running || first >= end {
		return kvbm.Plan{}
	}
	return m.mu.tiers.Plan(s.keys[first:end], first, time.Now())
}

// SetRecompute says what it costs the engine to compute tokens. It has no effect with
// Config.Recompute.
func (m *Mover) SetRecompute(r kvbm.Recompute) {
	if m.config.Recompute != (kvbm.Recompute{}) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.tiers.SetRecompute(r)
}

// Load begins to bring n blocks of s, from number first on, each into the memory that
// into gives for it (by its number), and tells done, from another goroutine, that all
// are there or that they will not be. done must return soon. If they are not all
// stored any more, Load returns nil, and done is not called.
func (m *Mover) Load(s *Sequence, first, n int, into func(i int) []byte, done func(ok bool)) *Load {
	return m.LoadLayers(s, first, n, into, nil, done)
}

// LoadLayers is Load for an engine that can begin when the first group of layers
// (Geometry.Groups) of all blocks is there. They come one after another from stores that
// are Parts, and arrived hears how many are there, written and checked, while there are
// more to come: from other goroutines, each number once, but not always in order, nor
// always before done. It must return soon.
func (m *Mover) LoadLayers(s *Sequence, first, n int, into func(i int) []byte, arrived func(groups int), done func(ok bool)) *Load {
	if !m.enter() {
		return nil
	}
	defer m.inside.Done()
	l := m.newLoad(n, arrived, done)
	m.mu.Lock()
	for i := range n {
		m.mu.tiers.Learn(s.name(first + i))
	}
	plan := m.mu.tiers.Plan(s.keys[first:first+n], first, time.Now())
	m.mu.moves = m.mu.tiers.Fetch(m.mu.moves[:0], s.keys[first:first+n], time.Now())
	m.leaveLocked(m.mu.moves)
	moves := slices.Clone(m.mu.moves)
	m.mu.loads.Begun++
	m.mu.Unlock()
	m.tellChanges()
	jobs, places := make([]fetch, 0, n), make([]job, 0, n)
	for _, mv := range moves {
		if mv.Kind != kvbm.Fetch {
			m.dispatch(mv)
			continue
		}
		l.from[mv.From] = true
		want := s.header(first + len(jobs))
		want.Generation = mv.FromGeneration
		jobs = append(jobs, fetch{move: mv, want: want, into: into(first + len(jobs))})
		places = append(places, job{move: mv, load: l})
		l.add(&jobs[len(jobs)-1])
	}
	if len(jobs) < n {
		for i := range jobs {
			m.finish(&jobs[i].move, outcome{kvbm.MoveCancelled, nil}, 0)
		}
		return nil
	}
	patience := min(max(loadPatience*plan.Load, shortestLoad), longestLoad)
	l.timer = time.AfterFunc(patience, func() { m.late(l, patience) })
	for _, j := range places {
		m.queues[j.move.From].reads <- j // as long as kvbm.Tiers lets it be
	}
	return l
}

// late ends a load that takes too long.
func (m *Mover) late(l *Load, patience time.Duration) {
	l.mu.Lock()
	tell := !l.mu.over
	l.mu.over = true
	l.mu.Unlock()
	if !tell {
		return
	}
	m.mu.Lock()
	m.mu.loads.Late++
	for t := dynamo.TierHost; t <= dynamo.TierRemote; t++ {
		if l.from[t] {
			m.mu.tiers.Slow(t, patience, time.Now())
		}
	}
	m.mu.Unlock()
	if m.quiet.may("late") {
		m.log.Warn("KV blocks did not come in time; they are computed", obs.KeyDuration, patience)
	}
	l.done(false)
}

// dispatch gives a move between stores to their goroutines.
func (m *Mover) dispatch(mv kvbm.Move) {
	switch mv.Kind {
	case kvbm.Demote:
		m.queues[mv.To].writes <- job{move: mv} // as long as kvbm.Tiers lets it be
	case kvbm.Delete:
		select {
		case m.deletes <- mv:
		default: // it stays where it is, and is given up when it is found again
			m.left(&mv)
		}
	}
}

// leaveLocked notes the deletions among moves that begin.
func (m *Mover) leaveLocked(moves []kvbm.Move) {
	for i := range moves {
		if moves[i].Kind == kvbm.Delete && moves[i].From == dynamo.TierRemote {
			m.mu.leaving[moves[i].Key]++
		}
	}
}

// left notes that a deletion has ended.
func (m *Mover) left(mv *kvbm.Move) {
	if mv.From != dynamo.TierRemote {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.leaving[mv.Key]--; m.mu.leaving[mv.Key] == 0 {
		delete(m.mu.leaving, mv.Key)
	}
}

// isLeaving reports whether a block is being deleted from the remote store.
func (m *Mover) isLeaving(k dynamo.ContentKey) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.leaving[k] > 0
}
