package kvindex

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/dynamo-go/dynamo"
)

// Overlap says how many leading blocks of a sequence a source holds.
type Overlap struct {
	Source Source
	// Blocks[t] counts the leading blocks of which each is in tier t or a faster
	// one, so it does not decrease with t.
	Blocks [4]uint32
}

const slowest = tiers - 1

// Find appends the sources that hold the sequence's first block, with how far they
// hold it. hashes are chained. It does not allocate when dst has room, takes no
// lock and may run in any number of goroutines beside one that writes: what it
// says of a source whose blocks do not change meanwhile is exact.
func (x *Index) Find(hashes []dynamo.BlockHash, dst []Overlap) []Overlap {
	if len(hashes) == 0 {
		return dst
	}
	q := unsafe.Slice((*uint64)(unsafe.SliceData(hashes)), len(hashes))
	r := x.enter()
	dst = x.find(&r.work, q, dst)
	r.leave()
	return dst
}

// find follows the sequence from run to run: the runs it needs are those whose
// heads are the sequence's first block and then each first block that the run
// before does not have. When such a head is nowhere, nobody holds its block, and
// all is said.
func (x *Index) find(w *scratch, q []uint64, dst []Overlap) []Overlap {
	base := len(dst)
	r, m := x.match(q)
	if r == nil {
		return dst
	}
	dst = x.first(w, r, m, dst)
	if len(dst) == base {
		return dst
	}
	found := dst[base:]
	w.begin()
	for i := m; i < len(q); i += runBlocks { // have fetched what the loop will most likely read
		w.sink += q[i]
	}
	for depth := 0; ; {
		// The common length is a case of its own so that the processor can guess the
		// place of the next head and fetch it while this run is still on its way.
		if m == runBlocks {
			depth += runBlocks
		} else {
			depth += m
		}
		if depth >= len(q) {
			return dst
		}
		if r, m = x.match(q[depth:]); r == nil || !x.proceed(w, r, uint32(depth), m, found) {
			return dst
		}
	}
}

// match returns the run whose head is q's first block, and how many blocks of it
// are those of q: as hashes are chained, equal ones have equal predecessors.
func (x *Index) match(q []uint64) (*run, int) {
	slots := *x.heads.slots.Load()
	tag := headTag(x.mix(q[0]))
	for i := headHome(tag, len(slots)); ; i++ {
		w := slots[i&(len(slots)-1)].Load()
		if w == 0 {
			return nil, 0
		}
		if uint32(w>>32) != tag {
			continue
		}
		r := x.runs.at(uint32(w))
		n := r.len()
		if n == runBlocks && len(q) >= runBlocks && x.segs.at(r.segs[runBlocks/segmentBlocks-1])[segmentBlocks-1] == q[runBlocks-1] {
			return r, runBlocks
		}
		if m := x.common(r, q[:min(n, len(q))]); m > 0 {
			return r, m
		}
	}
}

// common is the number of r's blocks that q begins with.
func (x *Index) common(r *run, q []uint64) int {
	m := 0
	for ; m+segmentBlocks <= len(q); m += segmentBlocks { // whole segments, by their last hash
		if x.segs.at(r.segs[m/segmentBlocks%8])[segmentBlocks-1] != q[m+segmentBlocks-1] {
			break
		}
	}
	if m == len(q) {
		return m
	}
	s := x.segs.at(r.segs[m/segmentBlocks%8])
	for m < len(q) && s[m%segmentBlocks] == q[m] {
		m++
		if m%segmentBlocks == 0 {
			break
		}
	}
	return m
}

// first appends the sources that hold the head of r, of whose blocks the sequence
// has m.
func (x *Index) first(w *scratch, r *run, m int, dst []Overlap) []Overlap {
	if r.state.Load()&manyBit != 0 {
		w.gather(x, r)
		for i := range w.sums {
			o := Overlap{Source: w.sums[i].source}
			if w.sums[i].extend(&o, 0, m) {
				dst = append(dst, o)
			}
		}
		return dst
	}
	limit := limitTo(m)
	if l := r.lane0.Load(); l != 0 {
		if info, mask := x.lanes.info(l), r.mask0.Load(); info != 0 && mask&1 != 0 {
			dst = append(dst, Overlap{})
			dst[len(dst)-1].set(Source(info>>laneSource), lead(mask, limit))
		}
	}
	for at := r.more.Load(); at != 0; {
		a := x.words.at(at)
		n, next := unpackHead(a[0].Load())
		dst = x.appendHolders(dst, a[arrayHead:arrayHead+n*entryWords], limit)
		at = next
	}
	return dst
}

// appendHolders appends the sources of an array's entries, which are of the fastest
// tier, but those that lack the head.
func (x *Index) appendHolders(dst []Overlap, e []atomic.Uint64, limit uint64) []Overlap {
	dst = slices.Grow(dst, len(e)/entryWords)
	k := len(dst)
	out := dst[:cap(dst)]
	all := x.lanes.ended.Load() == 0 // then who is in an array is alive
	for ; len(e) >= entryWords && k < len(out); e = e[entryWords:] {
		mask := e[1].Load()
		if mask&1 == 0 {
			continue
		}
		key := e[0].Load()
		if !all && x.lanes.info(uint32(key)) == 0 {
			continue
		}
		out[k].set(Source(key>>(32+laneSource)), lead(mask, limit))
		k++
	}
	return out[:k]
}

// set makes o say that s holds n blocks in the fastest tier. It writes the words one
// by one: the processor stalls when they are put together elsewhere and copied.
func (o *Overlap) set(s Source, n uint32) {
	o.Source = s
	o.Blocks[0] = n
	o.Blocks[1] = n
	o.Blocks[2] = n
	o.Blocks[3] = n
}

// limitTo has ones for the first m blocks of a run.
func limitTo(m int) uint64 { return ^uint64(0) >> (runBlocks - m) }

// lead is the number of ones mask begins with, within limit.
func lead(mask, limit uint64) uint32 { return uint32(bits.TrailingZeros64(^(mask & limit))) }

// proceed extends the sources found that hold all blocks before depth by what they
// hold of r, of whose blocks the sequence has m. It reports whether any of them
// holds these m.
func (x *Index) proceed(w *scratch, r *run, depth uint32, m int, found []Overlap) (any bool) {
	if r.state.Load()&manyBit != 0 {
		w.gather(x, r)
		for i := range w.sums {
			if o := w.locate(w.sums[i].source, found, len(w.sums)); o != nil {
				w.sums[i].extend(o, depth, m)
				any = any || o.Blocks[slowest] == depth+uint32(m)
			}
		}
		return any
	}
	limit := limitTo(m)
	if l := r.lane0.Load(); l != 0 {
		any = x.extendHolder(w, l, r.mask0.Load(), limit, depth, 1, found)
	}
	for at := r.more.Load(); at != 0; {
		a := x.words.at(at)
		n, next := unpackHead(a[0].Load())
		e := a[arrayHead : arrayHead+n*entryWords]
		for i := 0; i+1 < len(e); i += entryWords {
			if x.extendHolder(w, uint32(e[i].Load()), e[i+1].Load(), limit, depth, n, found) {
				any = true
			}
		}
		at = next
	}
	return any
}

// extendHolder extends the source of a lane of the fastest tier, and reports whether
// it holds all blocks within limit. It is one of n.
func (x *Index) extendHolder(w *scratch, lane uint32, mask, limit uint64, depth uint32, n int, found []Overlap) bool {
	if mask&1 == 0 {
		return false
	}
	info := x.lanes.info(lane)
	if info == 0 {
		return false
	}
	o := w.locate(Source(info>>laneSource), found, n)
	if o == nil || o.Blocks[slowest] != depth {
		return false
	}
	n32 := lead(mask, limit)
	for t := range o.Blocks {
		if o.Blocks[t] == depth {
			o.Blocks[t] += n32
		}
	}
	return mask&limit == limit
}
