package model

import (
	"github.com/dynamo-go/dynamo"
)

// LogitsMode says which positions of a Seq get a row of logits.
type LogitsMode uint8

// The modes.
const (
	LogitsNone LogitsMode = iota // only fill the KV cache
	LogitsLast                   // the last position
	LogitsAll                    // every position
)

// Seq is the part of one sequence that a step computes.
type Seq struct {
	// Tokens are the ids at positions Start and up. Never empty.
	Tokens []dynamo.TokenID
	// Start is the absolute position of Tokens[0]. The positions before it are in
	// the cache.
	Start int
	// Blocks is the block table from position 0 to at least the last of Tokens.
	// Sequences may share blocks that none of them writes in this step, or that
	// one writes and others only read at positions it has written.
	Blocks []int32
	// Logits says which rows of logits are wanted.
	Logits LogitsMode
	// Await is called before anything of a layer is read or written, for each layer in
	// turn, in the goroutine of Forward: it returns when that layer of the positions before
	// Start is in the cache. Nil: all of them are. False says that it is not: from there on
	// nothing of the sequence is written to the cache, and its logits are of no use.
	Await func(layer int) bool
}

// Output holds the logits of a step. It is reused: the zero value is ready, and
// it grows with the most rows ever asked for.
type Output struct {
	vocab, stride, rows int
	data                []float32
}

// Rows returns the number of rows of the last step.
func (o *Output) Rows() int { return o.rows }

// Row returns row i: the raw logits of all ids for the i-th wanted position, in
// batch order. It is valid until the next step and may be changed.
func (o *Output) Row(i int) []float32 {
	return o.data[i*o.stride : i*o.stride+o.vocab : i*o.stride+o.vocab]
}

// grow makes room for rows of logits.
func (o *Output) grow(rows, vocab, stride int) {
	if n := rows * stride; cap(o.data) < n {
		o.data = make([]float32, n)
	}
	o.vocab, o.stride, o.rows = vocab, stride, rows
	o.data = o.data[:cap(o.data)]
}

// Forward computes all tokens of batch as one step: it writes their keys and
// values into c and the wanted logits into out. It fails, before writing
// anything, when a sequence does not fit the model or the cache. It allocates
// only to grow its buffers.
func (m *Model) Forward(c *Cache, batch []Seq, out *Output) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return invalid("the model is closed: load it again")
	}
	wanted, err := m.check(c, batch)
	if err != nil {
		return err
	}
	out.grow(wanted, m.config.Vocab, stride(m.head))
	if len(batch) > 0 {
		m.mu.step.run(c, batch, out)
	}
	return nil
}

// check reports the first sequence that cannot be computed, and counts the rows
// of logits.
func (m *Model) check(c *Cache, batch []Seq) (wanted int, err error) {
	if c.kv.KVShape != m.kvShape() {
		return 0, invalid("the kv cache was made for another model")
	}
	for i := range batch {
		s := &batch[i]
		n := s.Start + len(s.Tokens)
		switch {
		case len(s.Tokens) == 0 || s.Start < 0 || n > m.config.ContextLength:
			return 0, invalid("sequence %d of the batch covers positions %d to %d, but a context of %d", i, s.Start, n-1, m.config.ContextLength)
		case len(s.Blocks) < (n+BlockSize-1)/BlockSize:
			return 0, invalid("sequence %d of the batch has %d blocks for %d positions", i, len(s.Blocks), n)
		}
		for _, b := range s.Blocks[:(n+BlockSize-1)/BlockSize] {
			if b < 0 || int(b) >= c.Blocks() {
				return 0, invalid("sequence %d of the batch names block %d of %d", i, b, c.Blocks())
			}
		}
		for _, id := range s.Tokens {
			if int64(id) >= int64(m.config.Vocab) {
				return 0, invalid("sequence %d of the batch has the id %d, but the vocabulary has %d", i, id, m.config.Vocab)
			}
		}
		switch s.Logits {
		case LogitsLast:
			wanted++
		case LogitsAll:
			wanted += len(s.Tokens)
		}
	}
	return wanted, nil
}
