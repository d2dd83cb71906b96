package trace

import (
	"time"
)

// Request is one line of a trace.
type Request struct {
	// At is when the request came, since the start of the trace.
	At time.Duration
	// Input and Output are lengths in tokens. Input is at least 1; an Output of 0 is
	// a request that was given up before its first token.
	Input, Output int
	// Hashes has one entry for each block of the prompt, which stands for the block
	// and everything before it. A partial block at the end may have one too. Nil if
	// nothing is known.
	Hashes []uint64
	// BlockSize is the number of tokens of a block; never 0 in what Read yields.
	BlockSize int
	// Session names the conversation or agent; empty for none. Turn counts its
	// requests from 0, and Delay is the time from the end of the previous answer to
	// this request.
	Session string
	Turn    int
	Delay   time.Duration
	// ID names the request, and After names those that must have been answered
	// before it; both may be empty. At is then when that would be at the speed the
	// trace was made with.
	ID    string
	After []string
	// Priority orders waiting requests: higher runs earlier.
	Priority int
	// Model is the served model's name; empty if unknown.
	Model string
	// Choices is the number of answers; 0 is one. Output counts them all.
	Choices int

	// Finish, FirstToken and Total say what became of a recorded request: stop,
	// length or a kind of error, and the times from arrival to first token and end.
	// Zero if unknown.
	Finish            string
	FirstToken, Total time.Duration
}

// Blocks is the number of blocks that Input tokens touch, the last perhaps partial.
func (r *Request) Blocks() int { return (r.Input + r.BlockSize - 1) / r.BlockSize }

// blockTokens is the number of the prompt's tokens in block i.
func (r *Request) blockTokens(i int) int { return min(r.BlockSize, r.Input-i*r.BlockSize) }
