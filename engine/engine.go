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
//   - Usage.Cached is the number of prompt tokens whose KV was found. Chunk.Cached
//     says it early, on the first chunk alone, by an engine that knows it then: it is
//     never more.
//   - Many requests may run at once.
type Engine interface {
	Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error]
}

// The roles of engines: see Card.Role. The names are stored in cards.
const (
	RolePrefill = "prefill" // computes prompts, and hands their KV over
	RoleDecode  = "decode"  // goes on with KV that others computed
)

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
	// draws that are keyed by the seed, penalties on generated ids, and how far a
	// restricted answer has come.
	ResumeSeeded bool
	// Guided lists the kinds of restricted answers (dynamo.Guided) that the engine
	// offers; empty means that it refuses all of them.
	Guided []dynamo.GuidedKind
	// NumericClass names the arithmetic: equal class and revision mean equal
	// tokens for an equal request.
	NumericClass string
	// Role is which part of an answer the engine is for: RolePrefill, RoleDecode, or
	// empty for all of it. Whatever its role, it serves any request in whole; only
	// one with RolePrefill serves those with Request.Prefill.
	Role string
	// Lends says that the engine lends the KV it has to others of its kind
	// (dynamo.Request.Lend), and makes use of what they lend it.
	Lends bool
	// Adapters are the LoRA adapters that a request may name, sorted. They may come
	// and go while the engine runs; this is those there were when it was asked.
	Adapters []string
}
