package sched

import (
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// ID names a sequence; the shell chooses it, and gives each of its life once.
type ID uint64

// Request asks for one sequence. Submit copies its slices.
type Request struct {
	ID ID
	// Ref is the shell's own; it comes back in entries and actions.
	Ref any
	// Prompt is not empty. Resumed holds ids generated elsewhere: they follow the
	// prompt and count as output.
	Prompt, Resumed []dynamo.TokenID
	// Blocks are the identities of the Prompt's first full blocks, as far as somebody
	// has hashed them already; the others are hashed here.
	//
	// Length and Blocks are, with Config.HashOnly, all that there is of the prompt:
	// its tokens and the identities of its full blocks. Key makes those of the blocks
	// that output fills, which match nobody's with another Key.
	Length int
	Blocks []tokens.Block
	Key    uint64
	// MaxTokens bounds the output, Resumed included; 0 leaves it to the context.
	MaxTokens int
	// Priority: higher runs earlier.
	Priority int
	// Deadline ends the sequence, waiting or running; zero is none.
	Deadline time.Time
	// Root separates what must not share blocks.
	Root dynamo.CacheRoot
	// PromptLogits asks for the logits of every prompt position; such a sequence
	// takes no blocks from others.
	PromptLogits bool
	// External is the number of leading tokens whose KV the shell can bring. It is
	// ignored with PromptLogits.
	External int
	// Hold keeps the KV of a finished sequence for so long, under a lease with the
	// sequence's ID; 0 keeps nothing.
	Hold time.Duration
}

// length is the number of the prompt's tokens.
func (r *Request) length(c *Config) int {
	if c.HashOnly {
		return r.Length
	}
	return len(r.Prompt)
}

// Logits says which positions of an entry need logits.
type Logits uint8

// The choices.
const (
	LogitsNone Logits = iota
	LogitsLast        // the last position
	LogitsAll         // every position
)

// Entry is one sequence's share of a batch. See the package comment.
type Entry struct {
	ID  ID
	Ref any
	// Count is the number of Tokens, which are missing with Config.HashOnly.
	Tokens []dynamo.TokenID
	Count  int
	Start  int
	Blocks []int32
	Logits Logits
	// Sample says that an id is wanted; Output is its number, and Last that no
	// other can follow it.
	Sample bool
	Output int
	Last   bool
	// Void is set by the shell, for itself and for others that it shows the batch to: the
	// entry was not computed from what it should have been. See Scheduler.KVLate.
	Void bool
}

// Batch is the work of one step. Tokens is the sum over its entries.
type Batch struct {
	Entries []Entry
	Tokens  int
}

// Result answers one entry. It is ignored for an entry without Sample.
type Result struct {
	Token dynamo.TokenID
	// Finished ends the sequence with this token.
	Finished bool
}

// ActionKind says what an Action is.
type ActionKind uint8

// The kinds.
const (
	// Admitted: the sequence has its blocks. Cached is the number of its tokens
	// whose KV was found in the pool, Again is set after a preemption or a failed
	// load.
	Admitted ActionKind = iota
	// Preempted: it lost its blocks and waits again.
	Preempted
	// Load: bring the KV of positions Start to Start+Tokens into Blocks, the blocks
	// of these positions alone, and report KVArrived or KVFailed. The last block may be
	// one that is not full.
	Load
	// Ended: the last of a sequence, for Reason.
	Ended
	// Leased: the KV of positions 0 to Tokens, which are those of IDs, stays in Blocks
	// until Expires or EndLease.
	Leased
	// LeaseEnded: it is gone.
	LeaseEnded
)

// String returns the kind's name.
func (k ActionKind) String() string {
	return [...]string{"admitted", "preempted", "load", "ended", "leased", "lease-ended"}[k]
}

// Reason says why a sequence ended.
type Reason uint8

// The reasons.
const (
	ReasonNone      Reason = iota
	ReasonFinished         // by a Result with Finished, or at its length
	ReasonCancelled        // by Cancel
	ReasonDeadline         // its deadline passed
	ReasonFailed           // by Fail
)

// String returns the reason's name.
func (r Reason) String() string {
	return [...]string{"none", "finished", "cancelled", "deadline", "failed"}[r]
}

// Action is something the shell must know or do.
type Action struct {
	Kind   ActionKind
	ID     ID
	Ref    any // nil with LeaseEnded
	Reason Reason
	Cached int
	Again  bool
	Start  int
	Tokens int
	Blocks []int32
	IDs    []dynamo.TokenID // missing with Config.HashOnly
	// Expires is the end of a lease.
	Expires time.Time
}
