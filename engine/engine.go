// Package engine defines Engine, the one-method interface that everything which
// yields tokens implements, near or far, and the decorators that stand between
// a frontend and an engine. It owns no model and no network; its laws are
// tested for every implementation by package engine/enginetest.
package engine

import (
	"context"
	"iter"

	"github.com/dynamo-go/dynamo"
)

// Engine yields the answer to a request, chunk by chunk.
//
// Laws:
//   - Generate does nothing until the sequence is ranged over, and then runs in
//     the caller's goroutine. A sequence is ranged over once.
//   - Breaking the loop or cancelling ctx ends the request everywhere before
//     the range statement returns.
//   - The sequence ends exactly once: after a chunk with Finish set for every
//     choice, or after one pair with a non-nil error (whose Kind is the thing to
//     branch on). The chunk beside an error is empty.
//   - A chunk's slices are valid until the next one is asked for.
//   - Many requests may run at once.
type Engine interface {
	Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error]
}

// Card says what an engine serves and what it can do. It is what discovery
// publishes, what the frontend validates against, and what enginetest tests.
type Card struct {
	// Model is the served name; Engine the kind of engine ("native", "echo").
	Model, Engine string
	// Revision is the SHA-256 of the weights' identity, in hexadecimal.
	Revision string
	// ContextLength is the longest sequence, prompt and answer, in tokens.
	ContextLength int
	// BlockSize is the KV block size in tokens.
	BlockSize int
	// VocabSize is the number of ids; every id of a request is below it.
	VocabSize int
	// EOS lists the ids that end an answer unless a request ignores them.
	EOS []dynamo.TokenID
	// MaxTopLogprobs is the largest TopLogprobs the engine honours; negative
	// means it returns no logprobs at all.
	MaxTopLogprobs int
	// PromptLogprobs, Sampling and Resume say whether the engine honours these
	// parts of a request; without Sampling it ignores how ids are drawn.
	PromptLogprobs, Sampling, Resume bool
	// TextOnly says that answers come as Chunk.Text without ids. Such a request is
	// never split or migrated, and its prompt and stop ids are best effort.
	TextOnly bool
	// ResumeSeeded says that Resume also keeps what depends on the ids before:
	// draws that are keyed by the seed, and penalties on generated ids.
	ResumeSeeded bool
	// NumericClass names the arithmetic: equal class and revision mean equal
	// tokens for an equal request.
	NumericClass string
}
