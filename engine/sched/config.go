package sched

import (
	"errors"
	"fmt"
	"time"

	"github.com/dynamo-go/dynamo/kvbm"
)

// Config describes a scheduler and its KV pool.
type Config struct {
	// BlockSize is the number of tokens in a KV block. Default 16.
	BlockSize int
	// Blocks is the number of KV blocks. No default.
	Blocks int
	// StepTokens bounds the tokens of one step; at least MaxRunning. Default 512.
	StepTokens int
	// MaxRunning bounds the sequences that hold blocks to compute in. Default 256.
	MaxRunning int
	// MaxWaiting bounds the queue; Submit refuses what exceeds it. (Preempted
	// sequences return to it beyond the limit.) Default 1024.
	MaxWaiting int
	// MaxContext is the longest sequence, prompt and answer, in tokens. The pool's
	// size limits it too. No default.
	MaxContext int
	// WholePrompts computes each prompt in one step instead of in chunks; StepTokens
	// must be MaxContext or more then. Default false.
	WholePrompts bool
	// PrefixCaching says whether sequences share the blocks of equal prefixes.
	// Default true.
	PrefixCaching bool
	// WatermarkPercent is the share of the blocks that admission leaves available
	// while others run. With less, more run at once and are preempted more often;
	// TestPressure measures what that costs. Default 5.
	WatermarkPercent int
	// PreemptFirst takes blocks from the first in order when a decoding sequence needs
	// one and there is none, instead of the last. Default false. (--preemption-mode)
	PreemptFirst bool
	// Aging is the waiting time worth one step of priority; 0 makes priorities
	// strict. Default 10 s.
	Aging time.Duration
	// HashOnly schedules sequences of which only the length and the identities of
	// blocks are known: Request.Length and Blocks stand for ids. For simulations.
	// Default false.
	HashOnly bool
	// External, if set, is asked when a sequence is about to get its blocks, of which
	// the pool has those of the first found tokens: for how many leading tokens can the
	// shell bring the KV? It replaces Request.External for requests that have none. It
	// is not asked after two loads of the sequence failed. Default nil.
	External func(ref any, found int) int
	// Events says whether KV events are recorded for Scheduler.Events. Default
	// false.
	Events bool
}

// DefaultConfig returns the defaults. Blocks and MaxContext have none.
func DefaultConfig() Config {
	return Config{
		BlockSize: 16, StepTokens: 512, MaxRunning: 256, MaxWaiting: 1024,
		PrefixCaching: true, WatermarkPercent: 5, Aging: 10 * time.Second,
	}
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	faults := []error{c.pool().Validate()}
	within := func(what string, n, least, most int) {
		if n < least || n > most {
			faults = append(faults, fmt.Errorf("%s is %d; it must be %d to %d", what, n, least, most))
		}
	}
	within("--max-running", c.MaxRunning, 1, MaxStepTokens)
	within("--step-tokens", c.StepTokens, max(c.MaxRunning, 1), MaxStepTokens)
	if c.WholePrompts && c.StepTokens < c.MaxContext {
		faults = append(faults, fmt.Errorf("--step-tokens is %d; without chunks it must be the context length (%d) or more, so that every prompt fits into a step", c.StepTokens, c.MaxContext))
	}
	within("--max-queue", c.MaxWaiting, 1, 1<<20)
	within("--context-length", c.MaxContext, 2, 1<<30)
	within("the KV watermark in percent", c.WatermarkPercent, 0, 50)
	if c.Aging < 0 || c.Aging > MaxAging {
		faults = append(faults, fmt.Errorf("the aging of priorities is %v; it must be 0 (strict priorities) to %v", c.Aging, MaxAging))
	}
	return errors.Join(faults...)
}

// pool is the pool's part of c.
func (c Config) pool() kvbm.Config {
	return kvbm.Config{Blocks: c.Blocks, BlockSize: c.BlockSize, PrefixCaching: c.PrefixCaching, HashOnly: c.HashOnly, Events: c.Events}
}

// maxLen is the longest sequence there can be.
func (c Config) maxLen() int { return min(c.MaxContext, c.Blocks*c.BlockSize) }

// watermark is WatermarkPercent in blocks, rounded up.
func (c Config) watermark() int { return (c.Blocks*c.WatermarkPercent + 99) / 100 }
