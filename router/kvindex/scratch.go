package kvindex

import "math/bits"

// scratch is a lookup's working memory. It grows with the number of sources and is
// kept for the next lookup.
type scratch struct {
	sink uint64 // keeps reads that fetch memory
	last int    // index in the overlaps of the source located last

	placed   bool   // places are those of this lookup's overlaps
	placedAt uint64 // and their stamp
	stamp    uint32
	places   []uint64 // by source: stamp, index in the overlaps
	gathers  []uint64 // by source: stamp, index in sums
	sums     []sum
}

// sum is what a source holds of a run, by tier.
type sum struct {
	source Source
	masks  [tiers]uint64
}

// scanMost is the number of comparisons up to which overlaps are searched in order.
const scanMost = 256

// begin makes w ready for a lookup that has its overlaps.
func (w *scratch) begin() { w.last, w.placed = 0, false }

// mark returns a stamp that no word of w has.
func (w *scratch) mark() uint64 {
	w.stamp++
	if w.stamp == 0 { // after four billion
		clear(w.places)
		clear(w.gathers)
		w.stamp = 1
	}
	return uint64(w.stamp) << 32
}

// grown returns s with room for index i.
func grown(s []uint64, i int) []uint64 {
	if i < len(s) {
		return s
	}
	return append(s, make([]uint64, max(i+1-len(s), len(s)))...)
}

// locate returns the overlap of a source, or nil. wanted is how many will be asked
// for.
func (w *scratch) locate(s Source, found []Overlap, wanted int) *Overlap {
	if o := &found[w.last]; o.Source == s { // along a chain it is mostly the same one
		return o
	}
	if !w.placed && len(found)*wanted <= scanMost {
		for i := range found {
			if found[i].Source == s {
				w.last = i
				return &found[i]
			}
		}
		return nil
	}
	if !w.placed {
		m := w.mark()
		for i := range found {
			w.places = grown(w.places, int(found[i].Source))
			w.places[found[i].Source] = m | uint64(i)
		}
		w.placed = true
		w.placedAt = m
	}
	if int(s) >= len(w.places) || w.places[s]&^(1<<32-1) != w.placedAt {
		return nil
	}
	w.last = int(uint32(w.places[s]))
	return &found[w.last]
}

// gather collects the living holders of r by source.
func (w *scratch) gather(x *Index, r *run) {
	w.sums = w.sums[:0]
	m := w.mark()
	if l := r.lane0.Load(); l != 0 {
		w.add(m, x.lanes.info(l), r.mask0.Load())
	}
	for at := r.more.Load(); at != 0; {
		a := x.words.at(at)
		n, next := unpackHead(a[0].Load())
		e := a[arrayHead : arrayHead+n*entryWords]
		for i := 0; i+1 < len(e); i += entryWords {
			w.add(m, x.lanes.info(uint32(e[i].Load())), e[i+1].Load())
		}
		at = next
	}
}

// add adds a lane's blocks to its source's.
func (w *scratch) add(m uint64, info uint32, mask uint64) {
	if info == 0 || mask == 0 {
		return
	}
	s := Source(info >> laneSource)
	w.gathers = grown(w.gathers, int(s))
	at := w.gathers[s]
	if at&^(1<<32-1) != m {
		at = m | uint64(len(w.sums))
		w.gathers[s] = at
		w.sums = append(w.sums, sum{source: s})
	}
	w.sums[uint32(at)].masks[info>>laneTier%uint32(tiers)] |= mask
}

// extend adds to o, which holds what is before depth as far as it says so, what the
// source holds of the next m blocks. It reports whether o holds anything.
func (s *sum) extend(o *Overlap, depth uint32, m int) bool {
	have := uint64(0)
	limit := limitTo(m)
	for t := range o.Blocks {
		have |= s.masks[t]
		if o.Blocks[t] == depth {
			o.Blocks[t] += uint32(bits.TrailingZeros64(^(have & limit)))
		}
	}
	return o.Blocks[slowest] > 0
}
