package sim

import (
	"context"
	"sort"

	"github.com/dynamo-go/dynamo/bench/trace"
)

// foresight knows which blocks of a trace's prompts more than one of its requests has.
// Nobody ever asks for another one: only the request that has it would, before any
// worker holds it. So the index need not hear of it, and finds the same without.
type foresight struct {
	shared hashSet
	all    hashSet // until the trace has been gone through
	chain  []uint64
	// held is the whole trace if it is small, so that it need not be read once more.
	held  []trace.Request
	bytes int64
}

// foresee goes through the trace, and holds it if it has no more than so many bytes. It
// returns nil, which takes every block for shared, when there are too many.
func foresee(ctx context.Context, c *Config, held int64) (*foresight, error) {
	f, n := &foresight{}, 0
	for q, err := range c.Trace {
		switch {
		case err != nil:
			return nil, nil // the play comes upon it too, and in its place
		case n&0xfff == 0 && ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case f.all.n > maxForeseen:
			return nil, nil
		}
		f.add(&q)
		if f.bytes += heldBytes + 8*int64(len(q.Hashes)); f.bytes <= held {
			f.held = append(f.held, q)
		}
		if n++; n == c.Requests {
			break
		}
	}
	for _, slot := range f.all.slots {
		if slot&again != 0 {
			f.shared.add(slot)
		}
	}
	if f.all = (hashSet{}); len(f.held) < n {
		f.held = nil
	}
	return f, nil
}

// add counts the blocks of a request. Whatever is there, or there twice, has come with
// all that is before it, so that most need no look.
func (f *foresight) add(q *trace.Request) {
	f.chain = f.chain[:0]
	chain := uint64(0)
	for _, h := range q.Hashes {
		chain = mix(chain ^ h)
		f.chain = append(f.chain, chain)
	}
	there := sort.Search(len(f.chain), func(i int) bool { return !f.all.has(f.chain[i]) })
	for i := there - 1; i >= 0 && f.all.add(f.chain[i]); i-- {
	}
	for _, h := range f.chain[there:] {
		f.all.add(h)
	}
}

// trace yields what is held.
func (f *foresight) trace(yield func(trace.Request, error) bool) {
	for i := range f.held {
		q := f.held[i]
		f.held[i] = trace.Request{} // it has gone into the play
		if !yield(q, nil) {
			return
		}
	}
}

// tokens is the number of a prompt's leading tokens in blocks that are shared.
func (f *foresight) tokens(q *trace.Request) int {
	if f == nil {
		return q.Input
	}
	chain := uint64(0)
	for i, h := range q.Hashes {
		chain = mix(chain ^ h)
		if !f.shared.has(chain) {
			return i * q.BlockSize
		}
	}
	if len(q.Hashes) == 0 {
		return 0
	}
	return q.Input
}

// hashSet is a set of hashes but for their lowest bit: open addressing, at most half
// full.
type hashSet struct {
	slots []uint64 // a power of two; 0 is empty
	n     int
}

// again is set in the slot of a hash that was added twice.
const again = 1

// add adds a hash, and reports whether that is the second time.
func (s *hashSet) add(h uint64) (second bool) {
	if 2*s.n >= len(s.slots) {
		s.grow()
	}
	i := s.slot(h)
	if s.slots[i] != 0 {
		second = s.slots[i]&again == 0
		s.slots[i] |= again
		return second
	}
	s.slots[i] = s.key(h)
	s.n++
	return false
}

func (s *hashSet) has(h uint64) bool { return s.n > 0 && s.slots[s.slot(h)] != 0 }

// key is what a slot has of h, without again.
func (s *hashSet) key(h uint64) uint64 { return max(h&^again, again<<1) }

// slot is where h is, or would be.
func (s *hashSet) slot(h uint64) int {
	key, mask := s.key(h), len(s.slots)-1
	i := int(h>>1) & mask
	for s.slots[i] != 0 && s.slots[i]&^again != key {
		i = (i + 1) & mask
	}
	return i
}

func (s *hashSet) grow() {
	old := s.slots
	s.slots = make([]uint64, max(1<<10, 2*len(old)))
	for _, slot := range old {
		if slot != 0 {
			s.slots[s.slot(slot)] = slot
		}
	}
}
