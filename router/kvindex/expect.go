package kvindex

import (
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// expectation is a lane whose blocks are believed to be there until a time.
type expectation struct {
	until time.Time
	lane  uint32
}

// Expect notes that a source will soon hold the first blocks of a sequence, because a
// request was sent there; lookups count them as if it did, until then or up to Config.ExpectStep longer. With short times it bridges the time
// until the engine's events come, with long ones it takes their place.
func (x *Index) Expect(s Source, hashes []dynamo.BlockHash, until time.Time) {
	x.tidy()
	lane := x.expectLane(s, until)
	if lane == 0 {
		x.stats.Dropped += uint64(len(hashes))
		return
	}
	x.chain = x.chain[:0]
	for _, h := range hashes {
		x.chain = append(x.chain, tokens.Block{Hash: h})
	}
	x.refs = slices.Grow(x.refs[:0], len(hashes))[:len(hashes)]
	x.store(lane, 0, false, x.chain, x.refs)
	for _, c := range x.settled { // each block is expected once, by the newest
		r := x.runs.at(c.id)
		for l, m := range x.holders(r) {
			if l == lane || !x.lanes.alive(l) || !x.lanes.all[l].guess || x.lanes.all[l].source != s {
				continue
			}
			if old := m.Load(); old&c.bits != 0 {
				m.Store(old &^ c.bits)
				if old&^c.bits == 0 {
					r.hold--
				}
				x.credit(&x.lanes.all[l], r, old&c.bits, -1)
			}
		}
	}
}

// expectLane returns the lane of what is expected until a time.
func (x *Index) expectLane(s Source, until time.Time) uint32 {
	src := x.source(s)
	if src == nil {
		return 0
	}
	end := until.Truncate(x.step)
	if end.Before(until) {
		end = end.Add(x.step)
	}
	i, ok := slices.BinarySearchFunc(src.expected, end, func(e expectation, end time.Time) int { return e.until.Compare(end) })
	if ok {
		return src.expected[i].lane
	}
	if len(src.expected) >= maxExpectations {
		return src.expected[min(i, len(src.expected)-1)].lane
	}
	l := x.lanes.open(&x.budget, s, dynamo.TierDevice, true)
	if l == 0 {
		return 0
	}
	src.expected = slices.Insert(src.expected, i, expectation{end, l})
	if x.expireAt.IsZero() || end.Before(x.expireAt) {
		x.expireAt = end
	}
	return l
}

// Expire ends the expectations whose time has come.
func (x *Index) Expire(now time.Time) {
	if x.expireAt.IsZero() || now.Before(x.expireAt) {
		return
	}
	x.expireAt = time.Time{}
	for i := range x.sources {
		src := &x.sources[i]
		n := 0
		for n < len(src.expected) && !src.expected[n].until.After(now) {
			x.end(src.expected[n].lane)
			n++
		}
		src.expected = slices.Delete(src.expected, 0, n)
		if len(src.expected) > 0 && (x.expireAt.IsZero() || src.expected[0].until.Before(x.expireAt)) {
			x.expireAt = src.expected[0].until
		}
	}
	x.tidy()
}
