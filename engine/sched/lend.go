package sched

import (
	"slices"
	"time"

	"github.com/dynamo-go/dynamo/kvbm"
)

// Lend keeps what KV there is of the leading full blocks of r, prompt and resumed ids,
// for Request.Hold; nothing of r is computed, and it waits for nobody. What the pool has
// is kept at once: Ended comes, and Leased. What lies in tiers below it is brought first,
// as a Load says, where there is room beside those that run. No action: there is nothing
// to lend, or no room to hold on to it. It refuses what Submit refuses.
func (s *Scheduler) Lend(r Request, now time.Time) ([]Action, error) {
	r.PromptLogits, r.External = false, 0
	if err := s.Submit(r, now); err != nil {
		return nil, err
	}
	q := s.live[r.ID]
	s.waiting.remove(q)
	q.lends = true
	size := s.config.BlockSize
	found, idle := s.pool.Peek(q.whole(size))
	spare := s.pool.Available() - idle
	if len(s.running) > 0 {
		spare -= s.config.watermark()
	}
	if spare < 0 {
		found = 0
	}
	external := found
	if len(s.running) < s.config.MaxRunning {
		s.ask(q, found)
		external = min(max(q.external/size, found), found+max(spare, 0))
	}
	q.external = external * size
	if external == 0 {
		s.forgetLend(q)
		return nil, nil
	}
	if found > 0 {
		q.match(s.pool, size)
	}
	q.phase = phaseRunning
	s.run(q)
	for len(q.table) < external {
		b, ok := s.pool.Load()
		if !ok {
			panic("BUG: sched: no block for what fits")
		}
		q.loading = append(q.loading, b)
		q.table = append(q.table, b.ID())
	}
	if len(q.loading) == 0 {
		s.finish(q, now)
		return s.actions, nil
	}
	q.phase = phaseLoading
	s.stats.Loads++
	s.act(Action{Kind: Load, ID: q.id, Ref: q.ref, Blocks: q.table[found:external:external], Start: found * size, Tokens: q.external - found*size})
	return s.actions, nil
}

// forgetLend ends a sequence that has nothing to lend as if it had never been.
func (s *Scheduler) forgetLend(q *sequence) {
	delete(s.live, q.id)
	s.deadlines.remove(q)
	s.stats.Accepted--
	s.recycle(q)
}

// lendRest lends what q holds without what could not be brought.
func (s *Scheduler) lendRest(q *sequence, now time.Time) {
	for _, b := range slices.Backward(q.loading) {
		s.pool.Failed(b)
	}
	q.loading, q.table, q.phase = q.loading[:0], q.table[:len(q.held)], phaseRunning
	if len(q.held) == 0 {
		s.end(q, ReasonFailed)
		return
	}
	q.computed = len(q.held) * s.config.BlockSize
	s.finish(q, now)
}

// whole asks for all full blocks of q.
func (q *sequence) whole(blockSize int) kvbm.Query {
	return kvbm.Query{Root: q.chain.Root(), Blocks: q.chain.Blocks()[:q.chain.Len()/blockSize], Tokens: q.chain.Tokens()}
}
