package enginetest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// Answer is what one choice of a request was answered with.
type Answer struct {
	Tokens         []dynamo.TokenID
	Logprobs       []dynamo.TokenLogprob
	PromptLogprobs []dynamo.TokenLogprob
	Chunks         int
	Cached         int // of the first chunk; the usage's is the count
	Finish         dynamo.FinishReason
	Usage          dynamo.Usage
}

// Collect ranges over the whole answer to a request of one choice and copies it.
// The error is the engine's, or says which law of engine.Engine the sequence
// broke; the answer holds what came before it.
func Collect(ctx context.Context, e engine.Engine, r *dynamo.Request) (Answer, error) {
	all, err := CollectChoices(ctx, e, r)
	return all[0], err
}

// CollectChoices does what Collect does for a request of N choices, in the order
// of the choices.
func CollectChoices(ctx context.Context, e engine.Engine, r *dynamo.Request) ([]Answer, error) {
	first := r.Choice
	all := make([]Answer, max(r.N, 1))
	if r.N > 1 {
		first = 0
	}
	var failed error
	for chunk, err := range e.Generate(ctx, r) {
		if failed != nil {
			return all, fmt.Errorf("law broken: a pair after the error %q", failed)
		}
		if err != nil {
			if !empty(chunk) {
				return all, fmt.Errorf("law broken: the chunk beside an error is not empty: %+v", chunk)
			}
			failed = err
			continue
		}
		i := chunk.Choice - first
		if i < 0 || i >= len(all) {
			return all, fmt.Errorf("law broken: a chunk of choice %d, asked for %d", chunk.Choice, len(all))
		}
		if err := all[i].add(&chunk); err != nil {
			return all, err
		}
	}
	if failed != nil {
		return all, failed
	}
	for i := range all {
		if err := all[i].check(r); err != nil {
			return all, fmt.Errorf("choice %d: %w", first+i, err)
		}
	}
	return all, nil
}

func empty(c dynamo.Chunk) bool {
	return len(c.Tokens)+len(c.Text)+len(c.Logprobs)+len(c.PromptLogprobs)+c.Cached == 0 &&
		c.Finish == dynamo.FinishNone && c.Usage == dynamo.Usage{}
}

func (a *Answer) add(c *dynamo.Chunk) error {
	switch {
	case a.Finish != dynamo.FinishNone:
		return errors.New("law broken: a chunk after the one with Finish")
	case a.Chunks == 0:
		a.Cached = c.Cached
		for _, p := range c.PromptLogprobs {
			p.Top = slices.Clone(p.Top)
			a.PromptLogprobs = append(a.PromptLogprobs, p)
		}
	case len(c.PromptLogprobs) > 0:
		return errors.New("law broken: prompt logprobs after the first chunk")
	case c.Cached != 0:
		return errors.New("law broken: cached tokens on a chunk that is not the first")
	case len(c.Tokens) == 0 && c.Finish == dynamo.FinishNone:
		return errors.New("law broken: a chunk with nothing in it")
	}
	a.Chunks++
	a.Tokens = append(a.Tokens, c.Tokens...)
	for _, p := range c.Logprobs {
		p.Top = slices.Clone(p.Top)
		a.Logprobs = append(a.Logprobs, p)
	}
	a.Finish, a.Usage = c.Finish, c.Usage
	return nil
}

// check tests a whole answer against its request (I1).
func (a *Answer) check(r *dynamo.Request) error {
	whole := len(r.Resume) + len(a.Tokens)
	switch {
	case a.Finish == dynamo.FinishNone:
		return errors.New("law broken: the sequence ended without Finish and without an error")
	case a.Usage.Completion != whole:
		return fmt.Errorf("law broken: usage counts %d generated ids, delivered %d after %d resumed", a.Usage.Completion, len(a.Tokens), len(r.Resume))
	case a.Usage.Prompt != len(r.Tokens):
		return fmt.Errorf("law broken: usage counts a prompt of %d ids, it has %d", a.Usage.Prompt, len(r.Tokens))
	case a.Cached < 0 || a.Cached > a.Usage.Cached || a.Usage.Cached > len(r.Tokens):
		return fmt.Errorf("law broken: %d cached tokens on the first chunk, %d in the usage, of a prompt of %d", a.Cached, a.Usage.Cached, len(r.Tokens))
	case whole > max(r.MaxTokens, len(r.Resume)):
		return fmt.Errorf("law broken: %d ids generated, at most %d allowed", whole, r.MaxTokens)
	case a.Finish == dynamo.FinishStop && whole < r.MinTokens:
		return fmt.Errorf("law broken: a stop after %d ids, MinTokens is %d", whole, r.MinTokens)
	case r.Sampling.Logprobs && len(a.Logprobs) != len(a.Tokens), !r.Sampling.Logprobs && len(a.Logprobs) > 0:
		return fmt.Errorf("law broken: %d logprobs for %d ids (asked for: %t)", len(a.Logprobs), len(a.Tokens), r.Sampling.Logprobs)
	}
	return nil
}
