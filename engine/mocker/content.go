package mocker

import (
	"math"
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/tokens"
)

// plan is what a request is answered with: a function of the request alone, so that
// a resumed answer goes on as it would have.
type plan struct {
	key    uint64
	length int // ids of the answer, resumed ones included
	ends   bool
	source source
}

// plan plans the answer to r.
func (c *computer) plan(r *dynamo.Request) plan {
	key := mix(uint64(tokens.LocalHash(0, r.Tokens)), uint64(r.Choice))
	if r.Sampling.Temperature > 0 {
		key = mix(key, r.Sampling.Seed)
	}
	p := plan{key: key, length: len(r.Resume) + engine.Room(&c.card, r)}
	if c.config.OutputTokens > 0 && !r.IgnoreEOS && len(c.config.EOS) > 0 {
		drawn := min(-math.Log(1-unit(mix(key, saltLength))), maxSpread) * float64(c.config.OutputTokens)
		if n := max(1+int(drawn), r.MinTokens); n < p.length {
			p.length, p.ends = n, true
		}
	}
	return p
}

// id is the id at a position of the answer.
func (c *computer) id(t *loop.Task, p *plan, position int) dynamo.TokenID {
	s := &c.config.Shape
	if position < len(s.Open) {
		return s.Open[position]
	}
	if begin := max(len(s.Open), int(s.Ratio*float64(p.length))); position >= begin && position-begin < len(s.Close) {
		return s.Close[position-begin]
	}
	r := t.Request
	if over := s.Only && position+1 >= r.MinTokens || p.ends && position == p.length-1; over && !r.IgnoreEOS && len(c.config.EOS) > 0 {
		return c.config.EOS[0]
	}
	return c.word(t, mix(p.key, uint64(position)+saltWord), position)
}

// word is a word, and none that ends the answer too early.
func (c *computer) word(t *loop.Task, key uint64, position int) dynamo.TokenID {
	n := uint64(len(c.config.Words))
	if n == 0 {
		n = uint64(c.config.VocabSize)
	}
	i := key % n
	id := c.spell(i)
	for range n {
		early := position+1 < t.Request.MinTokens && slices.Contains(t.Stops, id)
		if !early && (len(c.config.Words) > 0 || !slices.Contains(c.config.EOS, id)) {
			break
		}
		i = (i + 1) % n
		id = c.spell(i)
	}
	return id
}

func (c *computer) spell(i uint64) dynamo.TokenID {
	if len(c.config.Words) > 0 {
		return c.config.Words[i]
	}
	return dynamo.TokenID(i)
}

// logprob makes numbers up for an id: it has half of the probability, the id after
// it a quarter, and so on.
func (c *computer) logprob(id dynamo.TokenID, alternatives int) dynamo.TokenLogprob {
	lp := dynamo.TokenLogprob{ID: id, Logprob: -math.Ln2}
	n := min(alternatives, c.config.VocabSize)
	if n == 0 {
		return lp
	}
	lp.Top = make([]dynamo.TopLogprob, n)
	for i := range lp.Top {
		other := (uint64(id) + uint64(i)) % uint64(c.config.VocabSize)
		lp.Top[i] = dynamo.TopLogprob{ID: dynamo.TokenID(other), Logprob: float32(i+1) * -math.Ln2}
	}
	return lp
}
