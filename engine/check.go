package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Check says whether an engine with card c can serve r as it stands: ids below
// the vocabulary's size, a prompt that fits the context, sampling values in
// their ranges, nothing the card does not offer. Every engine asks it first, so
// all refuse alike; a frontend may ask it before it queues a request. The error
// is a *dynamo.Error of KindInvalid that names the field.
//
// What restricts an answer is sound JSON where its kind says so, so that it may be
// written into a larger text as it stands.
//
// Check reads each id once; it changes nothing and allocates only its error, and
// what reading a restriction takes.
func Check(c *Card, r *dynamo.Request) error {
	if r.N > 1 {
		return invalid("n", "an engine serves one choice, the request asks for %d; put engine.Expand in front", r.N)
	}
	if r.Prefill && c.Role != RolePrefill {
		return invalid("prefill", "model %s runs on an engine that hands no KV over; it serves whole requests only", c.Model)
	}
	if r.Lend && !c.Lends {
		return invalid("lend", "model %s runs on an engine that lends no KV", c.Model)
	}
	if n := len(r.Handover); n > MaxHandoverBytes {
		return invalid("handover", "the handover has %d bytes; %d are possible", n, MaxHandoverBytes)
	}
	if r.Adapter != "" && !slices.Contains(c.Adapters, r.Adapter) {
		return noAdapter(c, r.Adapter)
	}
	if err := checkLength(c, r); err != nil {
		return err
	}
	for _, ids := range [...]struct {
		param string
		ids   []dynamo.TokenID
	}{{"prompt", r.Tokens}, {"resume", r.Resume}, {"stop_token_ids", r.StopTokens}} {
		if err := checkIDs(c, ids.param, ids.ids); err != nil {
			return err
		}
	}
	if err := checkSampling(c, &r.Sampling); err != nil || r.Guided == (dynamo.Guided{}) {
		return err
	}
	return checkGuided(c, &r.Guided)
}

// Accept is the first thing an engine asks: Check, and whether the request is over
// before it begins, by its context or its deadline.
func Accept(ctx context.Context, c *Card, r *dynamo.Request) error {
	if err := Check(c, r); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ContextError(ctx)
	}
	if !r.Deadline.IsZero() && !time.Now().Before(r.Deadline) {
		return DeadlineError(nil)
	}
	return nil
}

// noAdapter is the error of a request that names an adapter which is not there.
func noAdapter(c *Card, name string) error {
	if len(c.Adapters) == 0 {
		return invalid("model", "model %s runs on an engine that has no adapters, and the request asks for adapter %q; ask for the model itself", c.Model, clip(name))
	}
	shown := c.Adapters[:min(len(c.Adapters), shownAdapters)]
	return invalid("model", "the engine of model %s does not have the adapter %q; it has %d: %s", c.Model, clip(name), len(c.Adapters), strings.Join(shown, ", "))
}

// clip keeps a message readable whatever was asked for.
func clip(name string) string {
	if len(name) > shownName {
		name = name[:shownName] + "…"
	}
	return strings.ToValidUTF8(name, "\ufffd")
}

// Room is the number of ids an engine with card c may still generate for r,
// which Check has accepted: MaxTokens clamped to what the context leaves, less
// those in Resume.
func Room(c *Card, r *dynamo.Request) int {
	return max(0, min(r.MaxTokens, c.ContextLength-len(r.Tokens))-len(r.Resume))
}

func checkLength(c *Card, r *dynamo.Request) error {
	n := len(r.Tokens) + len(r.Resume)
	switch {
	case len(r.Tokens) == 0:
		return invalid("prompt", "the prompt is empty; send at least one token")
	case n > c.ContextLength, n == c.ContextLength && r.MaxTokens > len(r.Resume) && len(r.Resume) == 0:
		return TooLong(n, c.ContextLength)
	case r.MaxTokens < 0:
		return invalid("max_tokens", "max_tokens is %d; it cannot be negative", r.MaxTokens)
	case r.MinTokens < 0:
		return invalid("min_tokens", "min_tokens is %d; it cannot be negative", r.MinTokens)
	case r.MinTokens > r.MaxTokens:
		return invalid("min_tokens", "min_tokens is %d, which is more than max_tokens (%d)", r.MinTokens, r.MaxTokens)
	case len(r.Resume) > 0 && !c.Resume:
		return invalid("resume", "model %s runs on an engine that cannot resume an answer", c.Model)
	}
	return nil
}

// TooLong is the error of a prompt of n ids that leaves no room for an answer in
// a context of limit ids.
func TooLong(n, limit int) error {
	return &dynamo.Error{
		Kind: dynamo.KindInvalid, Param: "prompt", Code: "context_length_exceeded",
		Message: fmt.Sprintf("the prompt has %d tokens, but this model's context of %d tokens must hold the prompt and at least one token of the answer; shorten the prompt", n, limit),
	}
}

func checkIDs(c *Card, param string, ids []dynamo.TokenID) error {
	for i, id := range ids {
		if int64(id) >= int64(c.VocabSize) {
			return invalid(param, "%s[%d] is token id %d; the vocabulary of model %s has %d ids", param, i, id, c.Model, c.VocabSize)
		}
	}
	return nil
}

func checkSampling(c *Card, s *dynamo.Sampling) error {
	for _, v := range [...]struct {
		param       string
		value       float32
		least, most float64
	}{
		{"temperature", s.Temperature, 0, math.MaxFloat32},
		{"top_p", s.TopP, 0, 1},
		{"min_p", s.MinP, 0, 1},
		{"presence_penalty", s.PresencePenalty, -math.MaxFloat32, math.MaxFloat32},
		{"frequency_penalty", s.FrequencyPenalty, -math.MaxFloat32, math.MaxFloat32},
		{"repetition_penalty", s.RepetitionPenalty, 0, math.MaxFloat32},
	} {
		// The negation also refuses NaN.
		if x := float64(v.value); !(x >= v.least && x <= v.most) {
			return invalid(v.param, "%s is %v; it must be %s", v.param, v.value, interval(v.least, v.most))
		}
	}
	switch {
	case s.TopK < 0:
		return invalid("top_k", "top_k is %d; it must be 0 (off) or more", s.TopK)
	case s.TopLogprobs < 0:
		return invalid("top_logprobs", "top_logprobs is %d; it cannot be negative", s.TopLogprobs)
	case (s.Logprobs || s.TopLogprobs > 0 || s.PromptLogprobs) && c.MaxTopLogprobs < 0:
		return invalid("logprobs", "model %s runs on an engine that returns no logprobs", c.Model)
	case s.TopLogprobs > c.MaxTopLogprobs && c.MaxTopLogprobs >= 0:
		return invalid("top_logprobs", "top_logprobs is %d; this model returns at most %d", s.TopLogprobs, c.MaxTopLogprobs)
	case s.PromptLogprobs && !c.PromptLogprobs:
		return invalid("prompt_logprobs", "model %s runs on an engine that returns no prompt logprobs", c.Model)
	}
	for i, b := range s.LogitBias {
		switch x := float64(b.Bias); {
		case int64(b.ID) >= int64(c.VocabSize):
			return invalid("logit_bias", "logit_bias names token id %d; the vocabulary of model %s has %d ids", b.ID, c.Model, c.VocabSize)
		case math.IsNaN(x) || math.IsInf(x, 0):
			return invalid("logit_bias", "logit_bias[%d] of token id %d is %v; it must be a finite number", i, b.ID, b.Bias)
		}
	}
	return nil
}

func interval(least, most float64) string {
	switch {
	case least == 0 && most == 1:
		return "between 0 and 1"
	case least == 0:
		return "a finite number, 0 or more"
	}
	return "a finite number"
}

func invalid(param, format string, args ...any) error {
	return &dynamo.Error{Kind: dynamo.KindInvalid, Param: param, Message: fmt.Sprintf(format, args...)}
}
