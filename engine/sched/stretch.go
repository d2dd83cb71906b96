package sched

import "slices"

// stretch is a run of steps that consist of the same decoding sequences and admit,
// end and preempt nobody. Their sequences are brought up to date when it is over, or
// when they take or fill a block.
type stretch struct {
	active bool
	done   int // steps so far
	limit  int // steps there can be
	// order lists the running by the place within a block at which they began, and
	// among equals in their order; begin has for each place the first of order.
	order []int32
	begin []int32
	// filled are the Refs of those that filled a block.
	filled []any
}

// Stretch reports whether the steps that follow, until a Submit or Cancel, are known
// in advance: each computes one token of every running sequence, of which there are
// n, and the first of them reads kv tokens, each further one n more. Ahead and Skip
// then stand for Next and Done; the state is the same afterwards, and so are the
// events. It needs Config.HashOnly, and no batch in flight.
func (s *Scheduler) Stretch() (n, kv int, ok bool) {
	st := &s.stretch
	s.settle()
	if !s.config.HashOnly || s.inFlight || len(s.running) == 0 || len(s.deadlines) > 0 || s.pool.Stats().Leases > 0 || s.mayAdmit() {
		return 0, 0, false
	}
	limit := int(^uint(0) >> 1)
	for _, q := range s.running {
		if q.phase != phaseRunning || q.ended || q.remaining() != 1 || q.chain.Len() <= q.prompt {
			return 0, 0, false
		}
		limit = min(limit, q.maxLen-q.chain.Len()-1)
		kv += q.computed + 1
	}
	if limit <= 0 {
		return 0, 0, false
	}
	st.active, st.done, st.limit = true, 0, limit
	s.arrange()
	if s.Ahead() == 0 {
		st.active = false
		return 0, 0, false
	}
	return len(s.running), kv, true
}

// mayAdmit reports whether the next step might take a sequence from the queue. While
// sequences only grow, one that did not fit does not fit later.
func (s *Scheduler) mayAdmit() bool {
	if len(s.waiting) == 0 || len(s.running) >= s.config.MaxRunning {
		return false
	}
	return s.pool.Available() > s.waiting[0].blockedAt
}

// arrange sorts the running by their places within a block.
func (s *Scheduler) arrange() {
	st, size := &s.stretch, s.config.BlockSize
	if len(st.begin) != size+1 {
		st.begin = make([]int32, size+1)
	}
	clear(st.begin)
	for _, q := range s.running {
		q.behind = 0
		st.begin[q.computed%size+1]++
	}
	for i := range size {
		st.begin[i+1] += st.begin[i]
	}
	st.order = slices.Grow(st.order[:0], len(s.running))[:len(s.running)]
	for i, q := range s.running {
		place := q.computed % size
		st.order[st.begin[place]] = int32(i)
		st.begin[place]++
	}
	copy(st.begin[1:], st.begin[:size])
	st.begin[0] = 0
}

// at lists the running that stand at the beginning of a block after so many steps of
// the stretch.
func (s *Scheduler) at(steps int) []int32 {
	st, began := &s.stretch, s.began(steps)
	return st.order[st.begin[began]:st.begin[began+1]]
}

// began is the place at which those began.
func (s *Scheduler) began(steps int) int {
	if began := -steps % s.config.BlockSize; began < 0 {
		return began + s.config.BlockSize
	}
	return 0
}

// Ahead returns how many steps of the stretch there are up to, and with, the next in
// which a sequence takes or fills a block; so all but the last change nothing that
// can be seen from outside. 0: the stretch is over, and Next is due.
func (s *Scheduler) Ahead() int {
	st := &s.stretch
	if !st.active {
		return 0
	}
	most, place := min(st.limit-st.done, s.config.BlockSize), s.began(st.done)
	if most == 0 {
		s.settle()
		return 0
	}
	if n := int(st.begin[place+1] - st.begin[place]); n > 0 { // they may need a block for the step
		if n > s.pool.Available() {
			s.settle()
			return 0
		}
		return 1
	}
	for k := 1; k < most; k++ {
		if place--; place < 0 {
			place = s.config.BlockSize - 1
		}
		if st.begin[place+1] > st.begin[place] { // they fill one in the step before
			return k
		}
	}
	return most
}

// Skip computes so many steps of the stretch, 1 to what Ahead returned. It returns the
// Refs of the sequences that filled a block, which is valid until the next call.
func (s *Scheduler) Skip(steps int) []any {
	st := &s.stretch
	if !st.active || steps < 1 || steps > st.limit-st.done {
		panic("BUG: sched: steps skipped beyond a stretch")
	}
	last := st.done + steps - 1
	for _, i := range s.at(last) {
		q := s.running[i]
		s.account(q, last)
		if q.computed == len(q.table)*s.config.BlockSize && !q.grow(s.pool) {
			panic("BUG: sched: no block in a stretch")
		}
	}
	st.filled = st.filled[:0]
	for _, i := range s.at(last + 1) {
		q := s.running[i]
		s.account(q, last+1)
		q.seal(s.pool, s.config.BlockSize)
		st.filled = append(st.filled, q.ref)
	}
	st.done += steps
	s.stats.Steps += uint64(steps)
	s.stats.Tokens += uint64(steps * len(s.running))
	return st.filled
}

// account brings q up to date with the stretch's first steps.
func (s *Scheduler) account(q *sequence, steps int) {
	n := steps - q.behind
	q.computed += n
	q.chain.grow(n)
	q.behind = steps
}

// settle ends a stretch.
func (s *Scheduler) settle() {
	st := &s.stretch
	if !st.active {
		return
	}
	for _, q := range s.running {
		s.account(q, st.done)
	}
	st.active = false
}
