package native

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// Config describes an engine.
type Config struct {
	// Name is the served name of the model. No default.
	Name string
	// ContextLength bounds the length of a sequence, in tokens, below what the
	// model allows; 0 leaves it to the model. Default 0.
	ContextLength int
	// CacheBytes is the size of the KV cache. Its memory is used as it fills.
	// Default 1 GiB.
	CacheBytes int64
	// Blocks is the size of the KV cache in blocks; it replaces CacheBytes unless it
	// is 0. Default 0.
	Blocks int
	// EOS lists the ids that end an answer, when they are known better than by the
	// model (its generation config may name more); nil leaves them to it. Default
	// nil.
	EOS []dynamo.TokenID
	// MaxRunning bounds the requests computed at once. Default 64.
	MaxRunning int
	// MaxQueue bounds the requests that wait; one more is refused with
	// KindExhausted. Default 1024.
	MaxQueue int
	// StepTokens bounds the tokens of one step: more make long prompts faster and
	// the answers beside them less smooth. At least MaxRunning. Default 512.
	StepTokens int
	// PrefixCaching says whether requests share the KV of equal prefixes. Default
	// true.
	PrefixCaching bool
	// Aging is the waiting time worth one step of priority; 0 makes priorities
	// strict. Default 10 s.
	Aging time.Duration
	// Tiers keeps KV below the KV cache and brings it back, for any number of engines of
	// one model; its geometry is Geometry of the model. Whoever made it runs it, beside
	// the engine. nil: what the cache loses is computed again.
	Tiers *tier.Mover
	// Role is engine.RolePrefill, engine.RoleDecode or empty, as in engine.Card.
	Role string
	// Exchange gives KV to other engines and takes theirs. nil: prompts that others
	// computed are computed again, and there is no role prefill.
	Exchange *Exchange
	// Observe hears of each step, as loop.Config.Observe does. nil: nobody does.
	Observe func(actions []sched.Action, b *sched.Batch)
	// Logger receives what an operator should know; nil discards it.
	Logger *slog.Logger
	// Events receives the KV cache's changes in order, in the loop's goroutine,
	// which it holds up; the slice is valid during the call. nil: none are made.
	Events func([]kvbm.Event)
}

// DefaultConfig returns the defaults. Name has none.
func DefaultConfig() Config {
	return Config{
		CacheBytes: 1 << 30, MaxRunning: 64, MaxQueue: 1024, StepTokens: 512,
		PrefixCaching: true, Aging: sched.DefaultConfig().Aging,
	}
}

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Name == "" {
		fault("--model-name is empty")
	}
	if c.ContextLength < 0 || c.ContextLength == 1 {
		fault("--context-length is %d; it must be 0 (the model's) or 2 and more", c.ContextLength)
	}
	if c.CacheBytes <= 0 && c.Blocks == 0 {
		fault("--kv-cache-bytes is %d; it must be more than 0", c.CacheBytes)
	}
	if c.Blocks < 0 || c.Blocks > kvbm.MaxBlocks {
		fault("the KV cache is given %d blocks; it must be 0 (sized by --kv-cache-bytes) to %d", c.Blocks, kvbm.MaxBlocks)
	}
	if c.MaxRunning < 1 {
		fault("--max-running is %d; it must be 1 or more", c.MaxRunning)
	}
	if c.MaxQueue < 1 {
		fault("--max-queue is %d; it must be 1 or more", c.MaxQueue)
	}
	if c.StepTokens < max(c.MaxRunning, 1) || c.StepTokens > sched.MaxStepTokens {
		fault("--step-tokens is %d; it must be --max-running (%d) to %d", c.StepTokens, c.MaxRunning, sched.MaxStepTokens)
	}
	if c.Aging < 0 || c.Aging > sched.MaxAging {
		fault("the aging of priorities is %v; it must be 0 (strict priorities) to %v", c.Aging, sched.MaxAging)
	}
	if c.Role == engine.RolePrefill && c.Exchange == nil {
		fault("--disaggregation-mode %s: the engine has no way to hand KV over", c.Role)
	}
	if x := c.Exchange; x != nil && (x.Agent == nil || x.Lease <= 0 || x.Timeout <= 0) {
		fault("KV is exchanged by an agent, kept for more than 0 (%v) and waited for longer than 0 (%v)", x.Lease, x.Timeout)
	}
	return errors.Join(faults...)
}

// scheduler is the scheduler's config for an engine with the given card. Blocks is
// set by then.
func (c Config) scheduler(card *engine.Card) sched.Config {
	s := sched.DefaultConfig()
	s.BlockSize, s.Blocks, s.MaxContext = card.BlockSize, c.Blocks, card.ContextLength
	s.StepTokens, s.MaxRunning, s.MaxWaiting = c.StepTokens, c.MaxRunning, c.MaxQueue
	s.PrefixCaching, s.Aging, s.Events = c.PrefixCaching, c.Aging, c.Events != nil
	return s
}
