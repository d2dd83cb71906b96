// Package echo is an Engine without a model's arithmetic: it answers a prompt
// with the prompt's own ids, in order and from the beginning again when they are
// used up, at once or at a steady pace. Tests use it where any answer will do,
// measurements where everything but the model is of interest.
//
// Laws: an answer is a function of the request alone; the engine owns no
// goroutine and shares nothing between requests.
package echo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// Engine echoes prompts.
type Engine struct {
	config Config
	card   engine.Card
}

var _ engine.Engine = (*Engine)(nil)

// New returns an engine; the error lists the faults of c.
func New(c Config) (*Engine, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.EOS = slices.Clone(c.EOS)
	identity := sha256.Sum256(fmt.Appendf(nil, "echo %d %v", c.VocabSize, c.EOS))
	return &Engine{config: c, card: engine.Card{
		Model: c.Model, Engine: "echo", Revision: hex.EncodeToString(identity[:]),
		ContextLength: c.ContextLength, BlockSize: c.BlockSize, VocabSize: c.VocabSize, EOS: c.EOS,
		MaxTopLogprobs: -1, Resume: true, ResumeSeeded: true, NumericClass: "exact",
	}}, nil
}

// Card says what the engine serves.
func (e *Engine) Card() engine.Card { return e.card }

// Generate implements engine.Engine. The ids at which the answer may not end are
// passed over, as a model that is told not to end would choose others: those of
// the end of a sequence (a rendered chat is full of them, and an answer that ends
// at the prompt's first turn is of no use) unless the request ignores their
// meaning, and the request's stop ids before MinTokens.
func (e *Engine) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		if err := engine.Check(&e.card, r); err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		a := answer{engine: e, r: r, room: engine.Room(&e.card, r), produced: len(r.Resume)}
		a.catchUp()
		a.run(ctx, yield)
	}
}

// answer is one request's progress.
type answer struct {
	engine   *Engine
	r        *dynamo.Request
	room     int // ids that may still be generated
	produced int // ids generated, resumed ones included
	next     int // index of the prompt id that is looked at next
	finish   dynamo.FinishReason
}

// catchUp moves to where the ids in Resume left off. An answer whose last resumed
// id ends it is complete.
func (a *answer) catchUp() {
	total := a.produced
	for a.produced = 0; a.produced < total; {
		a.finish = dynamo.FinishNone
		a.draw()
	}
}

// draw returns the next id of the answer.
func (a *answer) draw() dynamo.TokenID {
	prompt := a.r.Tokens
	id := prompt[a.next%len(prompt)]
	for range prompt {
		id = prompt[a.next%len(prompt)]
		a.next++
		if !a.passedOver(id) {
			break
		}
	}
	a.produced++
	if a.stops(id) && a.produced >= a.r.MinTokens {
		a.finish = dynamo.FinishStop
	}
	return id
}

func (a *answer) passedOver(id dynamo.TokenID) bool {
	return !a.r.IgnoreEOS && slices.Contains(a.engine.config.EOS, id) ||
		a.produced+1 < a.r.MinTokens && slices.Contains(a.r.StopTokens, id)
}

func (a *answer) stops(id dynamo.TokenID) bool {
	return slices.Contains(a.r.StopTokens, id) || !a.r.IgnoreEOS && slices.Contains(a.engine.config.EOS, id)
}

func (a *answer) run(ctx context.Context, yield func(dynamo.Chunk, error) bool) {
	pace := newPace(a.engine.config.ITL, a.r.Deadline)
	defer pace.stop()
	buffer := make([]dynamo.TokenID, 0, min(a.engine.config.ChunkTokens, max(a.room, 1)))
	for ended := false; !ended; {
		if err := pace.wait(ctx); err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		chunk := dynamo.Chunk{Choice: a.r.Choice, Tokens: a.fill(buffer[:0])}
		if a.finish == dynamo.FinishNone && a.room == 0 {
			a.finish = dynamo.FinishLength
		}
		if ended = a.finish != dynamo.FinishNone; ended {
			chunk.Finish = a.finish
			chunk.Usage = dynamo.Usage{Prompt: len(a.r.Tokens), Completion: a.produced}
		}
		if !yield(chunk, nil) {
			return
		}
	}
}

// fill appends the ids of one chunk.
func (a *answer) fill(ids []dynamo.TokenID) []dynamo.TokenID {
	for len(ids) < cap(ids) && a.room > 0 && a.finish == dynamo.FinishNone {
		ids = append(ids, a.draw())
		a.room--
		if a.engine.config.ITL > 0 {
			break
		}
	}
	return ids
}

// pace spaces the tokens of one answer: token i is due i·itl after the first, so
// that a late wake-up is caught up and the average holds.
type pace struct {
	itl      time.Duration
	deadline time.Time
	due      time.Time
	timer    *time.Timer
}

func newPace(itl time.Duration, deadline time.Time) *pace {
	p := &pace{itl: itl, deadline: deadline}
	if itl > 0 {
		p.timer = time.NewTimer(itl)
		p.due = time.Now().Add(itl)
	}
	return p
}

// wait returns when the next token is due, or an error when the request is over.
func (p *pace) wait(ctx context.Context) error {
	if err := p.ended(ctx); err != nil || p.timer == nil {
		return err
	}
	var overdue <-chan time.Time
	if !p.deadline.IsZero() && p.deadline.Before(p.due) {
		timer := time.NewTimer(time.Until(p.deadline))
		defer timer.Stop()
		overdue = timer.C
	}
	select {
	case <-p.timer.C:
	case <-overdue:
		return engine.DeadlineError(nil)
	case <-ctx.Done():
		return engine.ContextError(ctx)
	}
	p.due = p.due.Add(p.itl)
	p.timer.Reset(time.Until(p.due))
	return nil
}

func (p *pace) ended(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return engine.ContextError(ctx)
	default:
	}
	if !p.deadline.IsZero() && !time.Now().Before(p.deadline) {
		return engine.DeadlineError(nil)
	}
	return nil
}

func (p *pace) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}
