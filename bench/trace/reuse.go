package trace

import (
	"math/bits"
	"slices"
)

// reuse finds, in one pass, for every size of a cache of whole blocks what share
// of the prompts' tokens it would have held.
//
// The cache is the one engines have: a prompt matches the longest run of its first
// blocks that is there, then all of its blocks are the most recently used, the
// first before the last, and the least recently used are given up. Under that rule
// what a cache of n blocks holds is always the n most recently used, so that a
// block is found if its rank in the order of use is at most n (Mattson et al.
// 1970). Ranks are counted in a Fenwick tree over the moments of use.
type reuse struct {
	limit  int // of blocks that are remembered
	last   map[uint64]use
	tree   []int32 // Fenwick tree: 1 for each moment that is a block's last use
	moment int     // last one in use

	ranks     tally // tokens found, by rank
	tokens    int64 // of blocks that have hashes
	blocks    int64
	found     int64 // blocks of prefixes seen before
	foundTok  int64
	distinct  int64
	forgotten int64 // blocks
}

// use is what is remembered of a block.
type use struct {
	moment, count int32
}

func newReuse(limit int) *reuse {
	return &reuse{limit: limit, last: map[uint64]use{}, tree: make([]int32, 1024)}
}

// add looks a prompt up and uses its blocks.
func (r *reuse) add(q *Request) {
	n := len(q.Hashes)
	if n > r.limit/2 {
		n = r.limit / 2 // a prompt beyond any memory: its beginning counts
	}
	if r.moment+n >= len(r.tree) {
		r.compact(n)
	}
	prefix, rank := true, 0
	live := len(r.last)
	for i, h := range q.Hashes[:n] {
		tokens := int64(q.blockTokens(i))
		r.tokens += tokens
		r.blocks++
		u, known := r.last[h]
		if prefix = prefix && known; !prefix {
			continue
		}
		// How many blocks were used since, itself included; a later block of a
		// prefix is never found without the earlier ones.
		rank = max(rank, live-r.sum(int(u.moment))+1)
		r.ranks.add(int64(rank), tokens)
		r.found++
		r.foundTok += tokens
	}
	for _, h := range slices.Backward(q.Hashes[:n]) {
		u, known := r.last[h]
		if known {
			r.change(int(u.moment), -1)
		} else {
			r.distinct++
		}
		r.moment++
		r.last[h] = use{int32(r.moment), u.count + 1}
		r.change(r.moment, 1)
	}
}

// compact numbers the moments anew, forgetting the oldest blocks if there are too
// many, and makes room for n further uses.
func (r *reuse) compact(n int) {
	type entry struct {
		hash uint64
		use
	}
	all := make([]entry, 0, len(r.last))
	for h, u := range r.last {
		all = append(all, entry{h, u})
	}
	slices.SortFunc(all, func(a, b entry) int { return int(a.moment) - int(b.moment) })
	if len(all)+n > r.limit {
		gone := min(len(all), max(r.limit/4, len(all)+n-r.limit))
		for _, e := range all[:gone] {
			delete(r.last, e.hash)
		}
		r.forgotten += int64(gone)
		all = all[gone:]
	}
	for i, e := range all {
		r.last[e.hash] = use{int32(i + 1), e.count}
	}
	r.moment = len(all)
	size := 1024
	for size < 2*(len(all)+n)+1 {
		size *= 2
	}
	r.tree = make([]int32, size)
	for i := 1; i < size; i++ { // a Fenwick tree of ones up to len(all)
		low := i & -i
		r.tree[i] = int32(max(0, min(i, len(all))-(i-low)))
	}
}

// change adds d at a moment.
func (r *reuse) change(i, d int) {
	for ; i < len(r.tree); i += i & -i {
		r.tree[i] += int32(d)
	}
}

// sum counts the blocks last used up to a moment.
func (r *reuse) sum(i int) int {
	n := 0
	for ; i > 0; i -= i & -i {
		n += int(r.tree[i])
	}
	return n
}

// tally counts weights by a number, exactly below 2,048 and to 0.1 % above. It
// grows with the logarithm of the largest number.
type tally struct {
	weight []int64
	total  int64
	sum    float64
	most   int64
	least  int64
}

const tallyBits = 10

// bucket returns where n counts.
func bucket(n int64) int {
	shift := max(0, bits.Len64(uint64(n))-tallyBits-1)
	return shift<<tallyBits + int(n>>shift)
}

// top returns the largest number of a bucket.
func top(b int) int64 {
	shift := max(0, b>>tallyBits-1)
	return (int64(b-shift<<tallyBits)+1)<<shift - 1
}

func (t *tally) add(n, weight int64) {
	b := bucket(n)
	for b >= len(t.weight) {
		t.weight = append(t.weight, make([]int64, 1<<tallyBits)...)
	}
	if t.total == 0 || n < t.least {
		t.least = n
	}
	t.weight[b] += weight
	t.total += weight
	t.sum += float64(n) * float64(weight)
	t.most = max(t.most, n)
}

// quantile returns a number that the share q of the weight does not exceed.
func (t *tally) quantile(q float64) int64 {
	need := int64(q*float64(t.total) + 0.999999)
	var sum int64
	for b, w := range t.weight {
		if sum += w; w > 0 && sum >= need {
			return min(top(b), t.most)
		}
	}
	return t.most
}

// upTo sums the weight of numbers up to n.
func (t *tally) upTo(n int64) int64 {
	var sum int64
	for b, w := range t.weight {
		if top(b) > n && bucket(n) != b {
			break
		}
		sum += w
	}
	return sum
}
