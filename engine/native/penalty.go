package native

import (
	"math"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// query is what the sampler knows of a request: its parameters and the ids seen
// so far, which it counts only if a penalty needs them.
type query struct {
	r     *dynamo.Request
	stops []dynamo.TokenID // ids that end the answer
	count *counts          // nil without penalties
	kept  kept             // for the tiers below the cache
	// source is where another engine keeps its KV; nil: nowhere.
	source *source
	// arriving is KV from there or from the tiers, while it comes and the request may be
	// computed.
	arriving *arrival
}

func newQuery(r *dynamo.Request, eos []dynamo.TokenID) query {
	q := query{r: r, stops: r.StopTokens}
	if !r.IgnoreEOS {
		q.stops = slices.Concat(r.StopTokens, eos)
	}
	p := &r.Sampling
	repetition := p.RepetitionPenalty != 0 && p.RepetitionPenalty != 1
	if repetition || p.PresencePenalty != 0 || p.FrequencyPenalty != 0 {
		q.count = &counts{index: map[dynamo.TokenID]int{}}
		if repetition {
			for _, id := range r.Tokens {
				q.count.at(id)
			}
		}
		for _, id := range r.Resume {
			q.saw(id)
		}
	}
	return q
}

// saw records an output id.
func (q *query) saw(id dynamo.TokenID) {
	if q.count != nil {
		q.count.seen[q.count.at(id)].times++
	}
}

// adjust applies to the logits everything that comes before the temperature.
func (q *query) adjust(row []float32, position int) {
	p := &q.r.Sampling
	for _, b := range p.LogitBias {
		row[b.ID] += b.Bias
	}
	if q.count != nil {
		repetition := p.RepetitionPenalty
		if repetition == 0 {
			repetition = 1
		}
		for _, c := range q.count.seen {
			x := row[c.id]
			if x > 0 {
				x /= repetition
			} else {
				x = float32(x * repetition)
			}
			if c.times > 0 {
				x -= float32(p.FrequencyPenalty * float32(c.times))
				x -= p.PresencePenalty
			}
			row[c.id] = x
		}
	}
	if position+1 < q.r.MinTokens {
		for _, id := range q.stops {
			row[id] = float32(math.Inf(-1))
		}
	}
}

// counts are the distinct ids of a sequence in the order they came, with how
// often each is in the output.
type counts struct {
	index map[dynamo.TokenID]int
	seen  []count
}

type count struct {
	id    dynamo.TokenID
	times uint32
}

// at returns the index of id in seen, adding it if it is new.
func (c *counts) at(id dynamo.TokenID) int {
	i, ok := c.index[id]
	if !ok {
		i = len(c.seen)
		c.index[id] = i
		c.seen = append(c.seen, count{id: id})
	}
	return i
}
