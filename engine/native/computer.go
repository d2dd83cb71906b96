package native

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/sched"
)

// computer computes batches by a model and draws the ids. It belongs to the loop's
// goroutine, but for Begin.
type computer struct {
	forward forward
	sampler sampler
	eos     []dynamo.TokenID
	tiers   *tiered       // or nil
	moves   *exchange     // or nil
	pace    *pace         // of what these bring; nil: there are neither
	shared  []sched.Entry // the entries that are computed together
	where   []int         // their indices in the batch
	raw     []float32     // a row as the model gave it
}

var _ loop.Computer = (*computer)(nil)

// Begin implements loop.Computer.
func (c *computer) Begin(r *dynamo.Request) any {
	q := newQuery(r, c.eos)
	if c.tiers != nil {
		q.kept = c.tiers.name(r)
	}
	if c.moves != nil {
		q.source = c.moves.fetcher.read(r)
	}
	return &q
}

// Compute computes the batch and draws the ids. The entries whose logits are
// wanted at every position go one by one and in pieces, so that few rows are held;
// the others go together.
func (c *computer) Compute(_ context.Context, b *sched.Batch, results []sched.Result) error {
	c.shared, c.where = c.shared[:0], c.where[:0]
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Logits != sched.LogitsAll {
			c.shared, c.where = append(c.shared, *e), append(c.where, i)
		} else if err := c.score(e, &results[i]); err != nil {
			return err
		}
	}
	if len(c.shared) > 0 {
		began := time.Now()
		if err := c.forward.run(c.shared); err != nil {
			return err
		}
		if c.pace != nil {
			c.judge(b, time.Since(began))
		}
	}
	if c.moves != nil {
		c.moves.lender.computed(b)
	}
	row := 0
	for i := range c.shared {
		e := &c.shared[i]
		if e.Logits == sched.LogitsNone {
			continue
		}
		if e.Sample && !b.Entries[c.where[i]].Void {
			results[c.where[i]] = c.sample(e, c.forward.row(row))
		}
		row++
	}
	return nil
}

// judge finds the entries of a batch that were computed without all of their KV, and notes
// how long a step of answers takes.
func (c *computer) judge(b *sched.Batch, took time.Duration) {
	arriving := false
	for i := range b.Entries {
		if x := b.Entries[i].Ref.(*loop.Task).State.(*query).arriving; x != nil {
			arriving = true
			b.Entries[i].Void = x.late
			x.note(x.waited)
		}
	}
	if c.tiers != nil {
		c.tiers.waited = arriving
	}
	if !arriving && b.Tokens == len(b.Entries) {
		c.pace.step.Store(int64(took))
	}
}

// Close implements loop.Computer.
func (c *computer) Close() error {
	if c.tiers != nil {
		c.tiers.close()
	}
	err := c.forward.close()
	if c.moves != nil {
		err = errors.Join(err, c.moves.close())
	}
	return err
}

// score computes an entry of a request for prompt logprobs.
func (c *computer) score(e *sched.Entry, result *sched.Result) error {
	t := e.Ref.(*loop.Task)
	if t.Prompt == nil {
		t.Prompt = append(t.Prompt, dynamo.TokenLogprob{ID: t.Request.Tokens[0], Logprob: float32(math.NaN())})
	}
	for at := 0; at < len(e.Tokens); at += scoreTokens {
		piece := *e
		piece.Tokens = e.Tokens[at:min(at+scoreTokens, len(e.Tokens))]
		piece.Start += at
		if err := c.forward.run([]sched.Entry{piece}); err != nil {
			return err
		}
		for i := range piece.Tokens {
			// A preempted prompt comes again: what is there already is passed over.
			next, row := piece.Start+i+1, c.forward.row(i)
			if next < len(t.Request.Tokens) && next == len(t.Prompt) {
				t.Prompt = append(t.Prompt, c.sampler.logprob(row, t.Request.Tokens[next], t.Request.Sampling.TopLogprobs))
			}
			if e.Sample && at+i+1 == len(e.Tokens) {
				*result = c.sample(e, row)
			}
		}
	}
	return nil
}

// sample draws the next id of a sequence.
func (c *computer) sample(e *sched.Entry, row []float32) sched.Result {
	t := e.Ref.(*loop.Task)
	q := t.State.(*query)
	if t.Room == 0 { // the prompt alone was of interest
		return t.Complete()
	}
	p := &t.Request.Sampling
	if p.Logprobs {
		c.raw = append(c.raw[:0], row...)
	}
	id, ok := c.sampler.pick(q, row, e.Output)
	if !ok {
		return t.Refuse(&dynamo.Error{Kind: dynamo.KindInternal, Message: "the model's output has no usable number to choose a token by; its weights may be damaged"})
	}
	lp := dynamo.TokenLogprob{Logprob: float32(math.NaN())}
	if p.Logprobs {
		lp = c.sampler.logprob(c.raw, id, p.TopLogprobs)
	}
	q.saw(id)
	return t.Post(e, id, lp)
}
