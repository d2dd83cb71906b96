package model

import (
	"fmt"
	"slices"

	"github.com/dynamo-go/dynamo/engine/native/kernel"
	"github.com/dynamo-go/dynamo/engine/native/weights"
)

// item is one matrix to pack: where it comes from, what it becomes and where it
// goes.
type item struct {
	tensor weights.Tensor
	format kernel.Format
	bytes  int64 // packed
	// pairs is the size of the heads whose rows are stored as interleaved rope
	// pairs, or 0.
	pairs int
	to    **kernel.Matrix
}

// plan is what loading will do, checked against the file before any memory is
// asked for.
type plan struct {
	src       *source
	precision Precision
	items     []item
	bytes     int64
	model     *Model
	err       error
}

// newPlan checks every tensor the model needs. The small ones, norms and biases,
// are read at once into the model.
func newPlan(s *source, p Precision) (*plan, error) {
	m := &Model{config: s.config, precision: p}
	m.config.NumericClass = p.String()
	pl := &plan{src: s, precision: p, model: m}
	c := &m.config
	pl.matrix(s.names.embed, c.Vocab, c.Hidden, 0, &m.embed)
	m.outNorm = pl.vector(s.names.outNorm, c.Hidden, 0)
	c.Tied = pl.headIsEmbedding()
	if !c.Tied {
		pl.matrix(s.names.head, c.Vocab, c.Hidden, 0, &m.head)
	}
	m.layers = make([]layer, c.Layers)
	for i := range m.layers {
		pl.layer(i, &m.layers[i])
		if pl.err != nil {
			return nil, pl.err // a claimed number of layers costs nothing
		}
	}
	m.frequencies = c.frequencies(pl.ropeDivisors())
	return pl, pl.err
}

// headIsEmbedding decides whether the head is tied: as the configuration says,
// or by there being no head.
func (p *plan) headIsEmbedding() bool {
	if p.src.tied != nil {
		return *p.src.tied
	}
	_, ok := p.src.tensors.Tensor(p.src.names.head)
	_, foreign := p.src.tensors.Foreign(p.src.names.head)
	return !ok && !foreign
}

// ropeDivisors returns the frequency divisors a GGUF of Llama 3.1 carries in
// place of scaling parameters.
func (p *plan) ropeDivisors() []float32 {
	name := p.src.names.ropeDivisors
	if _, ok := p.src.tensors.Tensor(name); name == "" || !ok {
		return nil
	}
	d := p.vector(name, p.model.config.HeadDim/2, 0)
	for _, v := range d {
		if !(v > 0) && p.err == nil {
			p.err = corrupt("tensor %s of %s holds the divisor %g: download the model again", name, p.src.path, v)
		}
	}
	return d
}

// layer plans one layer.
func (p *plan) layer(i int, l *layer) {
	c, n := &p.model.config, &p.src.names
	qRows, kvRows := c.Heads*c.HeadDim, c.KVHeads*c.HeadDim
	pairs := 0
	if p.src.interleaved {
		pairs = c.HeadDim
	}
	l.attnNorm = p.vector(in(n.attnNorm, i), c.Hidden, 0)
	p.matrix(in(n.q, i), qRows, c.Hidden, pairs, &l.q)
	p.matrix(in(n.k, i), kvRows, c.Hidden, pairs, &l.k)
	p.matrix(in(n.v, i), kvRows, c.Hidden, 0, &l.v)
	p.matrix(in(n.o, i), c.Hidden, qRows, 0, &l.o)
	l.qBias = p.optional(in(n.qBias, i), qRows, pairs)
	l.kBias = p.optional(in(n.kBias, i), kvRows, pairs)
	l.vBias = p.optional(in(n.vBias, i), kvRows, 0)
	l.oBias = p.optional(in(n.oBias, i), c.Hidden, 0)
	if c.qkNorm() {
		l.qNorm, l.kNorm = p.vector(in(n.qNorm, i), c.HeadDim, 0), p.vector(in(n.kNorm, i), c.HeadDim, 0)
	}
	l.ffnNorm = p.vector(in(n.ffnNorm, i), c.Hidden, 0)
	p.matrix(in(n.gate, i), c.FFN, c.Hidden, 0, &l.gate)
	p.matrix(in(n.up, i), c.FFN, c.Hidden, 0, &l.up)
	p.matrix(in(n.down, i), c.Hidden, c.FFN, 0, &l.down)
	for _, name := range []string{in(n.gateBias, i), in(n.upBias, i), in(n.downBias, i)} {
		if _, ok := p.src.tensors.Tensor(name); ok && p.err == nil {
			p.err = invalid("%s has a bias in its feed-forward part (%s), which is not supported: use another model", p.src.path, name)
		}
	}
}

// find returns a tensor of the shape wanted, or keeps the error.
func (p *plan) find(name string, shape ...int) (weights.Tensor, bool) {
	if p.err != nil {
		return weights.Tensor{}, false
	}
	t, ok := p.src.tensors.Tensor(name)
	if !ok {
		p.err = missing(p.src.path, p.src.tensors, name, fmt.Sprintf("shape %v", shape))
		return t, false
	}
	if !slices.Equal(t.Shape, shape) {
		p.err = corrupt("tensor %s of %s has shape %v, but the configuration needs %v: download the model again", name, p.src.path, t.Shape, shape)
		return t, false
	}
	return t, true
}

// missing is the error about a tensor that is not there, or not readable.
func missing(path string, t interface{ Foreign(string) (string, bool) }, name, want string) error {
	if d, ok := t.Foreign(name); ok {
		return invalid("tensor %s of %s is stored as %s, which is not supported: use a file quantized as one of %s", name, path, d, weights.Supported())
	}
	return corrupt("%s has no tensor %s (expected one of %s): download the model again or use another", path, name, want)
}

// matrix plans a matrix of rows × cols.
func (p *plan) matrix(name string, rows, cols, pairs int, to **kernel.Matrix) {
	t, ok := p.find(name, rows, cols)
	if !ok {
		return
	}
	f := packedFormat(t.DType, p.precision)
	n, err := kernel.MatrixBytes(f, rows, cols)
	if err != nil {
		p.err = invalid("tensor %s of %s cannot be computed in precision %s (%v): try --precision f32", name, p.src.path, p.precision, err)
		return
	}
	p.items = append(p.items, item{tensor: t, format: f, bytes: n, pairs: pairs, to: to})
	p.bytes += n
}

// packedFormat is what a stored type becomes. The 4- and 8-bit codes of files are
// exact in both precisions; the rest is widened exactly in full precision and
// quantized to 8 bits otherwise.
func packedFormat(d weights.DType, p Precision) kernel.Format {
	switch d {
	case weights.Q4_0, weights.Q4_1:
		return kernel.Q4
	case weights.Q4_K:
		return kernel.Q4S
	case weights.Q8_0:
		return kernel.Q8
	}
	switch {
	case p == Int8:
		return kernel.Q8
	case d == weights.BF16:
		return kernel.BF16
	case d == weights.F16:
		return kernel.F16
	}
	return kernel.F32
}

// vector reads a vector of n values, undoing interleaved pairs.
func (p *plan) vector(name string, n, pairs int) []float32 {
	t, ok := p.find(name, n)
	if !ok {
		return nil
	}
	stored := make([]float32, n)
	if err := weights.Dequantize(stored, t, 0); err != nil {
		p.err = err
		return nil
	}
	out := make([]float32, n)
	for i := range out {
		out[i] = stored[storedRow(i, pairs)]
	}
	return out
}

// optional reads a vector that need not be there.
func (p *plan) optional(name string, n, pairs int) []float32 {
	_, ok := p.src.tensors.Tensor(name)
	_, foreign := p.src.tensors.Foreign(name)
	if !ok && !foreign {
		return nil
	}
	return p.vector(name, n, pairs)
}

// storedRow says which stored row is row r of a matrix whose heads of size pairs
// are stored as interleaved rope pairs: the two halves of a head alternate.
func storedRow(r, pairs int) int {
	if pairs == 0 {
		return r
	}
	head, i := r/pairs, r%pairs
	half := pairs / 2
	return head*pairs + 2*(i%half) + i/half
}
