package tier

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/internal/copysum"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/obs"
)

// outcome is how a move ended, and why.
type outcome struct {
	kvbm.MoveOutcome
	err error
}

var done = outcome{kvbm.MoveDone, nil}

// work does jobs until ctx ends.
func (m *Mover) work(ctx context.Context, jobs <-chan job) {
	var scratch []byte
	s := newSealer(m.config.ClusterKey, &m.config.Geometry)
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-jobs:
			began := time.Now()
			if scratch == nil && j.move.From > dynamo.TierHost && j.move.Kind != kvbm.Offload {
				scratch = Buffer(m.config.Geometry.FrameBytes())
			}
			if j.load != nil {
				m.bring(ctx, s, j.load, j.move.From, scratch)
				continue
			}
			var o outcome
			switch j.move.Kind {
			case kvbm.Demote:
				o = m.demote(ctx, s, &j.move, scratch)
			case kvbm.Offload:
				o = m.put(ctx, &j.move, j.from)
				m.bounce <- j.from
			}
			m.finish(&j.move, o, time.Since(began))
		}
	}
}

// arrived counts a block of a load, and tells of the load's end.
func (m *Mover) arrived(l *Load, ok bool) {
	counts, tell := l.ended(ok)
	m.mu.Lock()
	switch {
	case !counts:
	case !ok:
		m.mu.loads.Failed++
	default:
		m.mu.loads.Blocks++
		if tell {
			m.mu.loads.Arrived++
		}
	}
	m.publishLocked()
	m.mu.Unlock()
	if tell {
		l.done(ok)
	}
}

// bring brings a block of a load from a tier to its end, and groups of layers of others on
// the way.
func (m *Mover) bring(ctx context.Context, s *sealer, l *Load, from dynamo.Tier, scratch []byte) {
	for {
		f := l.next(from)
		began, groups := time.Now(), f.groups
		o := m.fetch(ctx, s, l, f, scratch)
		f.took += time.Since(began)
		if o.MoveOutcome == kvbm.MoveDone {
			all := f.groups == f.ends.count()
			to := f.groups
			if all {
				to = MaxGroups
			}
			if told := l.came(groups, to); told > 0 {
				l.arrived(told)
			}
			if !all {
				l.add(f)
				continue
			}
		}
		m.finish(&f.move, o, f.took)
		m.arrived(l, o.MoveOutcome == kvbm.MoveDone)
		return
	}
}

// fetch brings the next group of layers of a block to the engine, or all, as the load and
// the store are.
func (m *Mover) fetch(ctx context.Context, s *sealer, l *Load, f *fetch, scratch []byte) outcome {
	if !l.wanted() {
		return outcome{kvbm.MoveCancelled, nil}
	}
	frame := scratch
	switch {
	case f.move.From == dynamo.TierHost:
		frame = m.memory.Frame(f.move.FromSlot)
	case f.move.Via:
		frame = m.memory.Frame(f.move.ToSlot)
	}
	to := f.groups + 1
	if _, ok := m.stores[f.move.From].(Parts); !ok || l.groups == 1 {
		to = m.config.Geometry.groups().count()
	}
	if o := m.getGroups(ctx, &f.move, frame, f.groups, to); o.err != nil {
		return o
	}
	if f.groups == 0 {
		if err := f.open(s, frame); err != nil {
			return outcome{kvbm.MoveCorrupt, err}
		}
		if f.ends != m.config.Geometry.groups() { // whoever wrote it had others
			if o := m.getGroups(ctx, &f.move, frame, 0, m.config.Geometry.groups().count()); o.err != nil {
				return o
			}
			to = f.ends.count()
		}
	}
	if o := f.check(s, l, frame, to); o.MoveOutcome != kvbm.MoveDone {
		return o
	}
	if f.groups = to; to == f.ends.count() && f.move.Via {
		// What a wrapped host store does to a frame it does here as well.
		return m.putRef(ctx, dynamo.TierHost, target(&f.move), frame)
	}
	return done
}

// open reads the header of the frame of a block.
func (f *fetch) open(s *sealer, frame []byte) error {
	h, err := s.read(frame[:s.geometry.bodyOffset()])
	if err == nil {
		err = h.differs(&f.want)
	}
	f.ends, f.sums = h.Groups, h.Sums
	return err
}

// check copies groups up to number to from a frame to the engine, and checks them: the sum
// is of the bytes that the engine is given, whatever becomes of the frame meanwhile. Those
// that nobody wants any more, as when another block of the load was wrong, are checked as
// well: what the block is must be known all the same.
func (f *fetch) check(s *sealer, l *Load, frame []byte, to int) outcome {
	var err error
	wanted, body := true, frame[s.geometry.bodyOffset():]
	for i := f.groups; i < to && err == nil; i++ {
		from, end := f.ends.begin(i), f.ends[i]
		wanted = wanted && l.write(func() { err = differ(i, copysum.Copy(f.into[from:], body[from:end], sumSeed(f.want.Key)), f.sums[i]) })
		if !wanted {
			err = differ(i, xxh3.HashSeed(body[from:end], sumSeed(f.want.Key)), f.sums[i])
		}
	}
	if err == nil && to == f.ends.count() {
		err = s.closed(frame)
	}
	switch {
	case err != nil:
		return outcome{kvbm.MoveCorrupt, err}
	case !wanted:
		return outcome{kvbm.MoveCancelled, nil}
	}
	return done
}

// demote copies a frame from one store to another.
func (m *Mover) demote(ctx context.Context, s *sealer, mv *kvbm.Move, scratch []byte) outcome {
	frame := scratch
	if mv.From == dynamo.TierHost {
		frame = m.memory.Frame(mv.FromSlot)
	}
	if o := m.get(ctx, mv, frame); o.err != nil {
		return o
	}
	h, body, err := s.open(frame)
	if err == nil {
		err = checkBody(&h, body)
	}
	if err == nil && (h.Key != mv.Key || mv.FromGeneration != 0 && h.Generation != mv.FromGeneration) {
		err = corrupt("it is block %v of generation %d, not of %d", h.Key, h.Generation, mv.FromGeneration)
	}
	if err != nil {
		return outcome{kvbm.MoveCorrupt, err}
	}
	return m.put(ctx, mv, frame)
}

// source and target name the frames of a move.
func source(mv *kvbm.Move) Ref {
	return Ref{mv.TierBlock, mv.FromSlot, mv.FromGeneration}
}

func target(mv *kvbm.Move) Ref {
	return Ref{mv.TierBlock, mv.ToSlot, mv.ToGeneration}
}

// get reads the frame that a move comes from.
func (m *Mover) get(ctx context.Context, mv *kvbm.Move, frame []byte) outcome {
	ctx, cancel := m.limit(ctx, mv.From)
	defer cancel()
	return got(m.stores[mv.From].Get(ctx, source(mv), frame))
}

// getGroups reads what of the frame that a move comes from has groups from to to-1 in it.
func (m *Mover) getGroups(ctx context.Context, mv *kvbm.Move, frame []byte, from, to int) outcome {
	begin, end := m.config.Geometry.part(from, to)
	if end-begin == len(frame) {
		return m.get(ctx, mv, frame)
	}
	ctx, cancel := m.limit(ctx, mv.From)
	defer cancel()
	return got(m.stores[mv.From].(Parts).GetPart(ctx, source(mv), frame, begin, end))
}

// got is the outcome of a read.
func got(err error) outcome {
	switch {
	case err == nil:
		return done
	case dynamo.KindOf(err) == dynamo.KindNotFound:
		return outcome{kvbm.MoveMissing, err}
	case isCorrupt(err):
		return outcome{kvbm.MoveCorrupt, err}
	}
	return outcome{kvbm.MoveUnread, err}
}

// put writes the frame that a move goes to.
func (m *Mover) put(ctx context.Context, mv *kvbm.Move, frame []byte) outcome {
	if mv.To == dynamo.TierRemote && m.isLeaving(mv.Key) {
		return outcome{kvbm.MoveCancelled, nil} // it is put when it is offered again
	}
	return m.putRef(ctx, mv.To, target(mv), frame)
}

func (m *Mover) putRef(ctx context.Context, t dynamo.Tier, r Ref, frame []byte) outcome {
	ctx, cancel := m.limit(ctx, t)
	defer cancel()
	if err := m.stores[t].Put(ctx, r, frame); err != nil {
		return outcome{kvbm.MoveUnwritten, err}
	}
	return done
}

// limit bounds one operation of a store; memory needs none.
func (m *Mover) limit(ctx context.Context, t dynamo.Tier) (context.Context, context.CancelFunc) {
	if t == dynamo.TierHost {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, operationTime)
}

// finish reports a move and dispatches what follows from it.
func (m *Mover) finish(mv *kvbm.Move, o outcome, took time.Duration) {
	var local [4]kvbm.Move
	m.mu.Lock()
	m.mu.moves = m.mu.tiers.Finish(m.mu.moves[:0], mv.ID, o.MoveOutcome, took, time.Now())
	m.leaveLocked(m.mu.moves)
	moves := append(local[:0], m.mu.moves...)
	m.publishLocked()
	m.mu.Unlock()
	m.tellChanges()
	if o.err != nil {
		m.complain(mv, o)
	}
	for _, next := range moves {
		m.dispatch(next)
	}
}

// complain logs why a move failed.
func (m *Mover) complain(mv *kvbm.Move, o outcome) {
	text, tier := "", mv.From
	if resting(o.err) {
		return // that was told when it began
	}
	switch o.MoveOutcome {
	case kvbm.MoveCorrupt:
		text = "a KV block is not what it should be; it is set aside and computed again"
	case kvbm.MoveUnread:
		text = "a KV block could not be read"
	case kvbm.MoveUnwritten:
		text, tier = "a KV block could not be written", mv.To
	default:
		m.log.Debug("a KV block is gone", obs.KeyTier, tier, obs.KeyBlock, mv.Key, obs.KeyError, o.err)
		return
	}
	if m.quiet.may(text + tier.String()) {
		m.log.Warn(text, obs.KeyTier, tier, obs.KeyBlock, mv.Key, obs.KeyError, o.err)
	}
}

// remove deletes frames until ctx ends.
func (m *Mover) remove(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case mv := <-m.deletes:
			m.removeOne(ctx, &mv)
		}
	}
}

// removeOne deletes the frame of a Delete.
func (m *Mover) removeOne(ctx context.Context, mv *kvbm.Move) {
	defer m.left(mv)
	ctx, cancel := m.limit(ctx, mv.From)
	defer cancel()
	if err := m.stores[mv.From].Delete(ctx, source(mv)); err != nil && m.quiet.may("delete") {
		m.log.Warn("a KV block could not be deleted", obs.KeyTier, mv.From, obs.KeyBlock, mv.Key, obs.KeyError, err)
	}
}

// restore takes in what a store holds from before.
func (m *Mover) restore(ctx context.Context, t dynamo.Tier) error {
	if m.stores[t] == nil {
		return nil
	}
	began, n := time.Now(), 0
	var unwanted []Ref
	err := m.stores[t].List(ctx, func(r Ref) bool {
		m.mu.Lock()
		kept := m.mu.tiers.Restore(t, r.TierBlock, r.Slot, r.Generation)
		m.mu.Unlock()
		if n++; !kept && t == dynamo.TierDisk {
			unwanted = append(unwanted, r)
		}
		return ctx.Err() == nil && (n < maxRemoteList || t != dynamo.TierRemote)
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		m.log.Warn("what a tier holds from before could not be listed in full", obs.KeyTier, t, obs.KeyError, err)
	}
	for _, r := range unwanted {
		if err := m.stores[t].Delete(ctx, r); err != nil {
			return fmt.Errorf("forget a block of the %v tier: %w", t, err)
		}
	}
	m.log.Info("KV blocks found again", obs.KeyTier, t, "blocks", n-len(unwanted), obs.KeyDuration, time.Since(began))
	m.mu.Lock()
	m.publishLocked()
	m.mu.Unlock()
	m.tellChanges()
	return nil
}

// quiet bounds the log lines of one sort.
type quiet struct {
	mu struct {
		sync.Mutex
		last map[string]time.Time
	}
}

// may reports whether a line of a sort may be written now. The sorts are few.
func (q *quiet) may(sort string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if last, ok := q.mu.last[sort]; ok && now.Sub(last) < logEvery {
		return false
	}
	if q.mu.last == nil {
		q.mu.last = map[string]time.Time{}
	}
	q.mu.last[sort] = now
	return true
}
