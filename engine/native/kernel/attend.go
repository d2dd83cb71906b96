package kernel

import "math"

// Attention is one call of Attend: consecutive queries of one sequence against
// one kv head.
type Attention struct {
	KV *KV
	// Layer and Head choose the kv head.
	Layer, Head int
	// Blocks is the sequence's block table from position 0.
	Blocks []int32
	// First is the absolute position of the first query, Queries their number.
	// Query i sees the positions 0…First+i, which must have been stored.
	First, Queries int
	// QHeads is the number of query heads that share the kv head.
	QHeads int
	// Scale multiplies the queries, usually 1/sqrt(HeadDim).
	Scale float32
	// Q holds query i's head h at Q[i*QStride + h*HeadDim], Dst its result at
	// Dst[i*DstStride + h*HeadDim]. Strides count values.
	Q, Dst             []float32
	QStride, DstStride int
}

// AttendScratch is the working memory of Attend, one for each goroutine. It
// grows with the longest context seen. The zero value is ready.
type AttendScratch struct {
	q      []float32 // a tile's scaled queries, transposed: [HeadDim][rows]
	scores []float32 // [block][rows][16]
	out    []float32 // [rows][HeadDim]
	sums   [attendRows]float32
}

// attendRows is the largest number of rows, (query, head) pairs, in a tile.
const attendRows = 12

// Grow makes room for contexts of up to positions values, so that Attend does
// not allocate. Attend calls it itself.
func (s *AttendScratch) Grow(headDim, positions int) {
	blocks := (positions + KVBlock - 1) / KVBlock
	if n := blocks * attendRows * lanes; cap(s.scores) < n {
		s.scores = make([]float32, n+n/4)
	}
	if n := headDim * attendRows; cap(s.q) < n {
		s.q, s.out = make([]float32, n), make([]float32, n)
	}
	s.scores, s.q, s.out = s.scores[:cap(s.scores)], s.q[:cap(s.q)], s.out[:cap(s.out)]
}

// Attend computes softmax(q·K)·V for every query and query head of a:
//
//	q'   = q·Scale, rounded
//	s[p] = fma over d upwards of K[d][p] · q'[d], from 0
//	e[p] = exp32(s[p] - max s)
//	sum  = the e[p] in 16 lanes (p mod 16), folded
//	out  = (fma over p upwards of e[p] · V[p], from 0) · (1/sum)
//
// over the positions p the query sees. A query's result does not depend on the
// queries beside it.
func (k *Kernels) Attend(a *Attention, s *AttendScratch) {
	if a.Queries <= 0 || a.QHeads <= 0 {
		return
	}
	hd, last := a.KV.HeadDim, a.First+a.Queries-1
	a.check()
	s.Grow(hd, last+1)
	_ = a.Q[(a.Queries-1)*a.QStride+a.QHeads*hd-1]
	_ = a.Dst[(a.Queries-1)*a.DstStride+a.QHeads*hd-1]
	rows := a.Queries * a.QHeads
	for r := 0; r < rows; r += attendRows {
		k.attendTile(a, s, r, min(attendRows, rows-r))
	}
}

// check panics when the block table does not cover the queries or names blocks
// outside the cache: the assembly behind Attend follows it blindly.
func (a *Attention) check() {
	c := a.KV
	n := (a.First + a.Queries + KVBlock - 1) / KVBlock
	if a.First < 0 || n > len(a.Blocks) || uint(a.Layer) >= uint(c.Layers) || uint(a.Head) >= uint(c.Heads) {
		panic("BUG: attention outside its block table or cache")
	}
	for _, b := range a.Blocks[:n] {
		if uint(b) >= uint(c.blocks) {
			panic("BUG: attention over a block outside the cache")
		}
	}
}

// attendTile computes rows r0…r0+n-1, numbered query after query.
func (k *Kernels) attendTile(a *Attention, s *AttendScratch, r0, n int) {
	hd := a.KV.HeadDim
	for r := 0; r < n; r++ {
		query, head := (r0+r)/a.QHeads, (r0+r)%a.QHeads
		q := a.Q[query*a.QStride+head*hd:][:hd]
		to := s.q[r:]
		for d, v := range q {
			to[d*n] = v * a.Scale
		}
	}
	k.scores(a, s, r0, n)
	for r := 0; r < n; r++ {
		s.sums[r] = k.softmax(s.scores[r*lanes:], n*lanes, a.First+(r0+r)/a.QHeads+1)
	}
	k.weigh(a, s, r0, n)
	for r := 0; r < n; r++ {
		query, head := (r0+r)/a.QHeads, (r0+r)%a.QHeads
		inv := 1 / s.sums[r]
		out := s.out[r*hd:][:hd]
		dst := a.Dst[query*a.DstStride+head*hd:][:hd]
		if k.scaleFast(dst, out, inv) {
			continue
		}
		for d, v := range out {
			dst[d] = v * inv
		}
	}
}

// scores fills s.scores for the blocks the last row sees. Lanes of positions a
// row does not see hold garbage; softmax skips them.
func (k *Kernels) scores(a *Attention, s *AttendScratch, r0, n int) {
	blocks := (a.First+(r0+n-1)/a.QHeads)/KVBlock + 1
	if k.scoresFast(a, s, n, blocks) {
		return
	}
	c := a.KV
	for b := 0; b < blocks; b++ {
		at := c.offset(a.Layer, int(a.Blocks[b]), a.Head)
		out := s.scores[b*n*lanes:][:n*lanes]
		clear(out)
		for d := 0; d < c.HeadDim; d++ {
			var keys [lanes]float32
			c.widen(keys[:], at, d*KVBlock)
			for r, q := range s.q[d*n : d*n+n] {
				acc := (*[lanes]float32)(out[r*lanes:])
				for l, key := range keys {
					acc[l] = fma32(key, q, acc[l])
				}
			}
		}
	}
}

// softmax turns the first n scores of a row, 16 of them every stride values,
// into exp(score - max) and returns their sum.
func (k *Kernels) softmax(x []float32, stride, n int) float32 {
	if sum, ok := k.softmaxFast(x, stride, n); ok {
		return sum
	}
	m := float32(math.Inf(-1))
	for p := 0; p < n; p++ {
		if v := x[p/lanes*stride+p%lanes]; v > m {
			m = v
		}
	}
	var sum [lanes]float32
	for p := 0; p < n; p++ {
		e := &x[p/lanes*stride+p%lanes]
		*e = exp32(*e - m)
		sum[p%lanes] += *e
	}
	return fold16(&sum)
}

// weigh fills s.out with the values weighed by s.scores. All rows of the tile
// walk the positions its first row sees together; the few positions only later
// rows see follow query by query, so that no row touches a value it must not.
func (k *Kernels) weigh(a *Attention, s *AttendScratch, r0, n int) {
	clear(s.out[:n*a.KV.HeadDim])
	common := a.First + r0/a.QHeads + 1
	k.weighRows(a, s, span{rows: n, row: 0, count: n, from: 0, to: common})
	for r := 0; r < n; {
		query := (r0 + r) / a.QHeads
		end := min(n, (query+1)*a.QHeads-r0)
		k.weighRows(a, s, span{rows: n, row: r, count: end - r, from: common, to: a.First + query + 1})
		r = end
	}
}

// span is a set of rows of a tile of rows rows, from row on, and a range of
// positions.
type span struct {
	rows, row, count int
	from, to         int
}

// weighRows continues the sums of a span's rows over its positions.
func (k *Kernels) weighRows(a *Attention, s *AttendScratch, p span) {
	if p.from >= p.to || k.weighFast(a, s, p) {
		return
	}
	c := a.KV
	hd := c.HeadDim
	for i := p.from; i < p.to; i++ {
		b, l := i/KVBlock, i%KVBlock
		at := c.offset(a.Layer, int(a.Blocks[b]), a.Head) + c.HeadBytes()/2
		for d := 0; d < hd; d += lanes {
			var values [lanes]float32
			c.widen(values[:], at, l*hd+d)
			for r := p.row; r < p.row+p.count; r++ {
				e := s.scores[(b*p.rows+r)*lanes+l]
				out := (*[lanes]float32)(s.out[r*hd+d:])
				for j, v := range values {
					out[j] = fma32(e, v, out[j])
				}
			}
		}
	}
}
