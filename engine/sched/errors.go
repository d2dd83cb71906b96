package sched

import (
	"fmt"

	"github.com/dynamo-go/dynamo"
)

// refuse returns the error Submit answers r with, or nil.
func (s *Scheduler) refuse(r *Request) error {
	longest := s.config.maxLen()
	switch n := r.length(&s.config); {
	case s.config.HashOnly && (len(r.Prompt)+len(r.Resumed) > 0 || r.PromptLogits || len(r.Blocks) != n/s.config.BlockSize):
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("a request to a scheduler of hashes has a length and a block for each %d tokens of it, and nothing to resume or score", s.config.BlockSize)}
	case n == 0:
		return &dynamo.Error{Kind: dynamo.KindInvalid, Message: "the prompt is empty; send at least one token"}
	case n >= longest && longest < s.config.MaxContext:
		return &dynamo.Error{
			Kind: dynamo.KindInvalid, Code: "context_length_exceeded",
			Message: fmt.Sprintf("the prompt has %d tokens, and the KV cache holds %d in all, answer included; shorten the prompt or give the server a larger KV cache", n, longest),
		}
	case n >= longest:
		return &dynamo.Error{
			Kind: dynamo.KindInvalid, Code: "context_length_exceeded",
			Message: fmt.Sprintf("the prompt has %d tokens, and the model's context is %d, answer included; shorten the prompt", n, longest),
		}
	case len(r.Resumed) >= min(limitTokens(r.MaxTokens), longest-n):
		return &dynamo.Error{
			Kind:    dynamo.KindInvalid,
			Message: fmt.Sprintf("%d tokens are already generated and the answer may have %d; nothing is left to generate", len(r.Resumed), min(limitTokens(r.MaxTokens), longest-n)),
		}
	case len(s.waiting) >= s.config.MaxWaiting:
		return &dynamo.Error{
			Kind: dynamo.KindExhausted, Code: "queue_full", RetryAfter: retryAfter,
			Message: fmt.Sprintf("the queue is full: %d requests wait, limit %d; try again later", len(s.waiting), s.config.MaxWaiting),
		}
	}
	return nil
}

// limitTokens is a MaxTokens with its zero spelled out.
func limitTokens(n int) int {
	if n <= 0 {
		return int(^uint(0) >> 1)
	}
	return n
}
