package tier

import (
	"context"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/tokens"
)

// Stats are counts of a Mover.
type Stats struct {
	// Tiers has the counts of each tier, by dynamo.Tier; those there are not have no
	// Capacity.
	Tiers [4]kvbm.TierStats
	Loads Counts
}

// Stats returns the counts.
func (m *Mover) Stats() (s Stats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for t := dynamo.TierHost; t <= dynamo.TierRemote; t++ {
		s.Tiers[t] = m.statsLocked(t)
	}
	s.Loads = m.mu.loads
	return s
}

func (m *Mover) statsLocked(t dynamo.Tier) kvbm.TierStats {
	return m.mu.tiers.Stats(t, time.Now())
}

// Check tells what is wrong with the books, or nil. It looks at everything and is for
// tests and simulations.
func (m *Mover) Check() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.tiers.Check()
}

// List returns up to limit of the blocks that a tier has, those that are given up last
// first, and how many there are in all.
func (m *Mover) List(t dynamo.Tier, limit int) (blocks []kvbm.TierBlock, all int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for b := range m.mu.tiers.Stored(t) {
		if len(blocks) == limit {
			break
		}
		blocks = append(blocks, b)
	}
	return blocks, m.statsLocked(t).Held
}

// Evict gives up blocks in all tiers and returns the number of copies there were.
// Copies that are being written stay.
func (m *Mover) Evict(ctx context.Context, keys ...dynamo.ContentKey) (n int, err error) {
	if !m.enter() {
		return 0, errNotRunning
	}
	defer m.inside.Done()
	for _, key := range keys {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		m.mu.Lock()
		held := m.mu.tiers.Copies(key)
		moves := m.mu.tiers.Evict(nil, key)
		m.leaveLocked(moves)
		m.publishLocked()
		m.mu.Unlock()
		m.tellChanges()
		n += held
		for i := range moves {
			m.removeOne(ctx, &moves[i])
		}
	}
	return n, nil
}

// Clear gives up all blocks in all tiers.
func (m *Mover) Clear(ctx context.Context) (n int, err error) {
	if _, err := m.Evict(ctx); err != nil {
		return 0, err
	}
	for t := dynamo.TierHost; t <= dynamo.TierRemote; t++ {
		blocks, _ := m.List(t, int(^uint(0)>>1))
		for _, b := range blocks {
			some, err := m.Evict(ctx, b.Key)
			if n += some; err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Verified says what a look at the blocks of a tier has found.
type Verified struct {
	// Checked blocks were read; Corrupt, Missing and Unread are those that were not what
	// they should be, and are given up.
	Checked, Corrupt, Missing, Unread int
	// Skipped could not be read for the moment.
	Skipped int
}

// Verify reads all blocks of a tier and checks everything about them, their names
// included, as fast as the tier gives them. What is wrong is given up as if an engine
// had met it.
func (m *Mover) Verify(ctx context.Context, t dynamo.Tier) (v Verified, err error) {
	if !m.enter() {
		return v, errNotRunning
	}
	defer m.inside.Done()
	if m.stores[t] == nil {
		return v, &dynamo.Error{Kind: dynamo.KindNotFound, Message: "there is no " + t.String() + " tier"}
	}
	blocks, _ := m.List(t, int(^uint(0)>>1))
	s := newSealer(m.config.ClusterKey, &m.config.Geometry)
	frame := Buffer(m.config.Geometry.FrameBytes())
	for _, b := range blocks {
		if ctx.Err() != nil {
			return v, context.Cause(ctx)
		}
		m.mu.Lock()
		mv, ok := m.mu.tiers.Inspect(t, b.Key)
		m.mu.Unlock()
		if !ok {
			v.Skipped++
			continue
		}
		began := time.Now()
		o := m.verify(ctx, s, &mv, frame)
		m.finish(&mv, o, time.Since(began))
		v.Checked++
		switch o.MoveOutcome {
		case kvbm.MoveCorrupt:
			v.Corrupt++
		case kvbm.MoveMissing:
			v.Missing++
		case kvbm.MoveUnread:
			v.Unread++
		}
	}
	return v, nil
}

// verify reads one frame and checks it, and that its name is that of what it says.
func (m *Mover) verify(ctx context.Context, s *sealer, mv *kvbm.Move, frame []byte) outcome {
	if o := m.get(ctx, mv, frame); o.err != nil {
		return o
	}
	h, body, err := s.open(frame)
	if err == nil {
		err = checkBody(&h, body)
	}
	if err == nil {
		err = m.named(&h, mv)
	}
	if err != nil {
		return outcome{kvbm.MoveCorrupt, err}
	}
	return done
}

// named checks that a header is of the block that a move is about, and of this model,
// and that its key is that of its content.
func (m *Mover) named(h *Header, mv *kvbm.Move) error {
	key := h.Key
	if !m.config.Named {
		k := tokens.NewKeyer(m.config.ClusterKey, h.Content)
		if key = k.First(h.Tokens); h.Depth > 0 {
			key = k.Next(h.Parent, h.Tokens)
		}
	}
	c := h.Content
	c.Adapter, c.Salt = "", ""
	switch {
	case h.Key != mv.Key || key != h.Key:
		return corrupt("it says that it is block %v, its content is that of %v", h.Key, key)
	case mv.FromGeneration != 0 && h.Generation != mv.FromGeneration:
		return corrupt("it has generation %d, not %d", h.Generation, mv.FromGeneration)
	case c != m.config.Geometry.Content:
		return corrupt("it was computed under %+v, not %+v", c, m.config.Geometry.Content)
	}
	return nil
}

// Probe asks a remote store that is shared with others which blocks of s it has behind
// those that are known. It waits for the answer, but not long.
func (m *Mover) Probe(s *Sequence) {
	if m.config.Tiers.Remote.Bytes == 0 || !m.enter() {
		return
	}
	defer m.inside.Done()
	finder, ok := m.stores[dynamo.TierRemote].(Finder)
	if !ok {
		return
	}
	m.mu.Lock()
	known, up := m.mu.tiers.Plan(s.keys, 0, time.Now()).Found, m.mu.tiers.Up(dynamo.TierRemote, time.Now())
	m.mu.Unlock()
	if !up {
		return
	}
	keys := s.keys[known:min(len(s.keys), known+maxProbe)]
	if len(keys) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	n, err := finder.Find(ctx, keys)
	if err != nil && m.quiet.may("find") {
		m.log.Warn("the remote tier does not say which KV blocks it has", obs.KeyError, err)
	}
	m.mu.Lock()
	if err != nil {
		m.mu.tiers.Failed(dynamo.TierRemote, time.Now())
	}
	for i := range n {
		m.mu.tiers.Restore(dynamo.TierRemote, s.name(known+i), -1, 0)
	}
	m.publishLocked()
	m.mu.Unlock()
	m.tellChanges()
}

// Warm promotes the blocks of s that are stored into the host tier and returns how many
// of its leading blocks are there afterwards.
func (m *Mover) Warm(ctx context.Context, s *Sequence) (int, error) {
	m.Probe(s)
	n := m.Plan(s, 0, s.Blocks()).Found
	into := make([]byte, m.config.Geometry.BlockBytes)
	for i := range n {
		told := make(chan bool, 1)
		l := m.Load(s, i, 1, func(int) []byte { return into }, func(ok bool) { told <- ok })
		if l == nil {
			return i, nil
		}
		select {
		case ok := <-told:
			if !ok {
				return i, nil
			}
		case <-ctx.Done():
			l.Cancel()
			return i, context.Cause(ctx)
		}
	}
	return n, nil
}
