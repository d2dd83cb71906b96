package model

import (
	"math"
	"slices"

	"github.com/dynamo-go/dynamo/engine/native/kernel"
)

// step is one Forward under way: the buffers, kept from call to call, and the
// phases, each of which is a method that does one row or one unit of it. Rows are tokens in
// batch order.
type step struct {
	m       *Model
	k       *kernel.Kernels
	pool    *pool
	scale   float32 // of attention scores
	int8    bool
	scratch []scratch // by thread
	phases  phases

	// This call's.
	cache *Cache
	batch []Seq
	out   *Output
	row   []rowPlace
	// dropped are the sequences whose Await has given up.
	dropped []bool
	rows    int // rows going on; fewer after the last layer's keys are stored
	layer   *layer
	depth   int // index of layer
	next    []float32
	keep    []int32 // rows whose logits are wanted
	tiles   []tile

	// Row-major buffers with these strides.
	hidden, qkv, heads, ffn int
	x, tmp                  []float32 // [row][hidden] residual stream; result to be added to it
	proj                    []float32 // [row][qkv] queries, keys, values
	att                     []float32 // [row][heads] attention's result
	gateUp                  []float32 // [row][2·ffn]
	norm                    []float32 // [row][hidden] normalised rows, full precision only
	cos, sin                []float32 // [row][HeadDim/2]
	qHidden, qHeads, qFFN   kernel.Quantized

	// The phase by rows under way, and the rows of one unit.
	phase    func(row int)
	unitRows int

	// The products of one phase, over the same input.
	products [3]product
	nProduct int
	chunk    int // groups in a unit
	q        *kernel.Quantized
	f        []float32
	fStride  int
}

// phases are the methods as values, made once so that calls do not allocate.
type phases struct {
	embed, heads, quantizeHeads, addAttention, quantizeFFN, addFFN func(row int)
	rows, attend, multiply, gated                                  func(thread, unit int)
}

// scratch is what one thread needs.
type scratch struct {
	attention kernel.Attention
	attend    kernel.AttendScratch
	_         [64]byte
}

// rowPlace says where a row lies in its sequence.
type rowPlace struct {
	seq, position int32
}

// tile is a unit of attention: consecutive queries of one sequence and one kv
// head.
type tile struct {
	seq, head, row, first, queries int32
}

// product is one matrix to multiply with, and where the result goes.
type product struct {
	w      *kernel.Matrix
	dst    []float32
	stride int
	units  int
}

// serialRows is the number of rows up to which work by rows is not worth a fork;
// tileQueries the number of queries in a unit of attention.
const (
	serialRows  = 4
	tileQueries = 16
)

// stride returns the room a row of a product takes: its padded rows.
func stride(w *kernel.Matrix) int { return w.Groups() * kernel.GroupRows }

func newStep(m *Model) *step {
	s := &step{m: m, k: m.kernels, pool: m.mu.pool, int8: m.precision == Int8}
	s.scale = float32(1 / math.Sqrt(float64(m.config.HeadDim)))
	s.scratch = make([]scratch, s.pool.threads())
	l := &m.layers[0]
	s.hidden = max(stride(l.o), stride(l.down))
	s.qkv = stride(l.q) + stride(l.k) + stride(l.v)
	s.heads = m.config.Heads * m.config.HeadDim
	s.ffn = max(stride(l.gate), stride(l.up))
	s.phases = phases{s.embedRow, s.headsRow, s.quantizeHeadsRow, s.addAttentionRow, s.quantizeFFNRow, s.addFFNRow,
		s.rowsUnit, s.attendTile, s.multiplyUnit, s.gatedUnit}
	return s
}

// grow makes room for n rows.
func (s *step) grow(n int) {
	s.rows = n
	for _, b := range []struct {
		buf    *[]float32
		stride int
	}{{&s.x, s.hidden}, {&s.tmp, s.hidden}, {&s.proj, s.qkv}, {&s.att, s.heads}, {&s.gateUp, 2 * s.ffn},
		{&s.cos, len(s.m.frequencies)}, {&s.sin, len(s.m.frequencies)}} {
		if cap(*b.buf) < n*b.stride {
			*b.buf = make([]float32, n*b.stride)
		}
		*b.buf = (*b.buf)[:n*b.stride]
	}
	if s.int8 {
		s.qHidden.Grow(n, s.m.config.Hidden)
		s.qHeads.Grow(n, s.heads)
		s.qFFN.Grow(n, s.m.config.FFN)
	} else {
		if cap(s.norm) < n*s.hidden {
			s.norm = make([]float32, n*s.hidden)
		}
		s.norm = s.norm[:n*s.hidden]
	}
}

// begin lays the batch out as rows.
func (s *step) begin(c *Cache, batch []Seq, out *Output) {
	s.cache, s.batch, s.out = c, batch, out
	s.row, s.keep = s.row[:0], s.keep[:0]
	s.dropped = slices.Grow(s.dropped[:0], len(batch))[:len(batch)]
	clear(s.dropped)
	for i := range batch {
		q := &batch[i]
		for j := range q.Tokens {
			if q.Logits == LogitsAll || q.Logits == LogitsLast && j == len(q.Tokens)-1 {
				s.keep = append(s.keep, int32(len(s.row)))
			}
			s.row = append(s.row, rowPlace{int32(i), int32(q.Start + j)})
		}
	}
	s.grow(len(s.row))
}

// run computes one step.
func (s *step) run(c *Cache, batch []Seq, out *Output) {
	s.begin(c, batch, out)
	m := s.m
	s.next = m.layers[0].attnNorm
	s.byRow(s.phases.embed)
	s.tile(false)
	for i := range m.layers {
		s.layer, s.depth = &m.layers[i], i
		last := i == len(m.layers)-1
		s.next = m.outNorm
		if !last {
			s.next = m.layers[i+1].attnNorm
		}
		s.runLayer(last)
		if s.rows == 0 {
			break // nobody wants logits
		}
	}
	if s.rows > 0 {
		s.multiply(&s.qHidden, s.norm, s.hidden, product{w: m.head, dst: out.data, stride: out.stride})
	}
	s.cache, s.batch, s.out = nil, nil, nil
}

// runLayer computes one layer. Only in the last one the rows shrink to those
// whose logits are wanted, once their keys and values are stored.
func (s *step) runLayer(last bool) {
	l := s.layer
	k, v := stride(l.q), stride(l.q)+stride(l.k)
	s.multiply(&s.qHidden, s.norm, s.hidden, product{w: l.q, dst: s.proj, stride: s.qkv},
		product{w: l.k, dst: s.proj[k:], stride: s.qkv}, product{w: l.v, dst: s.proj[v:], stride: s.qkv})
	s.await()
	s.byRow(s.phases.heads)
	if last {
		s.tile(true)
	}
	s.pool.run(len(s.tiles), s.phases.attend)
	if last {
		s.shrink()
	}
	if s.int8 {
		s.byRow(s.phases.quantizeHeads)
	}
	s.multiply(&s.qHeads, s.att, s.heads, product{w: l.o, dst: s.tmp, stride: s.hidden})
	s.byRow(s.phases.addAttention)
	s.multiplyGated()
	if s.int8 {
		s.byRow(s.phases.quantizeFFN)
	}
	s.multiply(&s.qFFN, s.gateUp, 2*s.ffn, product{w: l.down, dst: s.tmp, stride: s.hidden})
	s.byRow(s.phases.addFFN)
}

// await waits for what is to be in the cache before this layer stores anything there.
func (s *step) await() {
	for i := range s.batch {
		if wait := s.batch[i].Await; wait != nil && !s.dropped[i] {
			s.dropped[i] = !wait(s.depth)
		}
	}
}

// byRow runs a phase for every row.
func (s *step) byRow(phase func(row int)) {
	s.phase, s.unitRows = phase, s.rows
	if t := s.pool.threads(); t > 1 && s.rows > serialRows {
		s.unitRows = max(1, min(16, s.rows/(4*t)))
	}
	s.pool.run((s.rows+s.unitRows-1)/max(s.unitRows, 1), s.phases.rows)
}

// rowsUnit runs the phase for some rows.
func (s *step) rowsUnit(_, unit int) {
	for i := unit * s.unitRows; i < min((unit+1)*s.unitRows, s.rows); i++ {
		s.phase(i)
	}
}

// tile cuts attention into units, the longest first. With wanted it is cut for
// the rows whose logits are wanted alone.
func (s *step) tile(wanted bool) {
	s.tiles = s.tiles[:0]
	row := 0
	for i := range s.batch {
		q := &s.batch[i]
		n := len(q.Tokens)
		from := 0
		if wanted && q.Logits != LogitsAll {
			from = n
			if q.Logits == LogitsLast {
				from = n - 1
			}
		}
		for end := n; end > from; end -= min(tileQueries, end-from) {
			begin := max(from, end-tileQueries)
			for h := range s.m.config.KVHeads {
				s.tiles = append(s.tiles, tile{int32(i), int32(h), int32(row + begin), int32(q.Start + begin), int32(end - begin)})
			}
		}
		row += n
	}
}

// shrink moves the rows whose logits are wanted to the front and forgets the
// others.
func (s *step) shrink() {
	for to, from := range s.keep {
		from := int(from)
		if to == from {
			continue
		}
		copy(s.x[to*s.hidden:(to+1)*s.hidden], s.x[from*s.hidden:])
		copy(s.att[to*s.heads:(to+1)*s.heads], s.att[from*s.heads:])
	}
	s.rows = len(s.keep)
}

// multiply computes products over the same input: q, or in full precision f.
func (s *step) multiply(q *kernel.Quantized, f []float32, fStride int, products ...product) {
	s.q, s.f, s.fStride = q, f, fStride
	s.nProduct = copy(s.products[:], products)
	groups := 0
	for i := range products {
		groups += products[i].w.Groups()
	}
	s.chunk = groups
	if t := s.pool.threads(); t > 1 {
		// An even number of groups: with one row the kernels take two at a time.
		s.chunk = max(2, min(32, groups/(4*t)&^1))
	}
	units := 0
	for i := range s.products[:s.nProduct] {
		p := &s.products[i]
		p.units = (p.w.Groups() + s.chunk - 1) / s.chunk
		units += p.units
	}
	if s.rows > 0 {
		s.pool.run(units, s.phases.multiply)
	}
}

// multiplyUnit computes some groups of one product.
func (s *step) multiplyUnit(_, unit int) {
	for i := range s.products[:s.nProduct] {
		p := &s.products[i]
		if unit >= p.units {
			unit -= p.units
			continue
		}
		g0 := unit * s.chunk
		g1 := min(g0+s.chunk, p.w.Groups())
		s.product(p.dst, p.stride, p.w, g0, g1)
		return
	}
}

// product computes groups g0…g1-1 of one matrix times the phase's input.
func (s *step) product(dst []float32, stride int, w *kernel.Matrix, g0, g1 int) {
	if s.int8 {
		s.k.MatMulQ(dst, stride, s.q, s.rows, w, g0, g1)
		return
	}
	s.k.MatMulF(dst, stride, s.f, s.fStride, s.rows, w, g0, g1)
}

// gatedBytes is how much of the gated activation's input a unit makes at once:
// it is read again while it is still in the second-level cache.
const gatedBytes = 512 << 10

// multiplyGated computes silu(gate)·up in place of the gate. A unit makes some
// columns of both and combines them where they are.
func (s *step) multiplyGated() {
	if s.rows == 0 {
		return
	}
	s.q, s.f, s.fStride = &s.qHidden, s.norm, s.hidden
	groups := s.layer.gate.Groups()
	s.chunk = groups
	if t := s.pool.threads(); t > 1 {
		s.chunk = max(2, groups/(4*t)&^1)
	}
	s.chunk = min(s.chunk, max(2, gatedBytes/(2*4*kernel.GroupRows*s.rows)&^1))
	s.pool.run((groups+s.chunk-1)/s.chunk, s.phases.gated)
}

// gatedUnit computes some groups of the gated activation.
func (s *step) gatedUnit(_, unit int) {
	l := s.layer
	g0 := unit * s.chunk
	g1 := min(g0+s.chunk, l.gate.Groups())
	s.product(s.gateUp, 2*s.ffn, l.gate, g0, g1)
	s.product(s.gateUp[s.ffn:], 2*s.ffn, l.up, g0, g1)
	from, to := g0*kernel.GroupRows, min(g1*kernel.GroupRows, s.m.config.FFN)
	for i := range s.rows {
		gate, up := s.gateUp[2*i*s.ffn:][from:to], s.gateUp[(2*i+1)*s.ffn:][from:to]
		s.k.SiluMul(gate, gate, up)
	}
}
