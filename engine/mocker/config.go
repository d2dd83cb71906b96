package mocker

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/perfmodel"
)

// Config describes an engine. The defaults are the reference mocker's where it has
// the same setting.
type Config struct {
	// Name is the served name of the model. No default.
	Name string
	// ContextLength is the longest sequence, prompt and answer, in tokens; the KV
	// cache bounds it, too. No default.
	ContextLength int
	// VocabSize is the number of ids of the tokenizer in front, and EOS lists those
	// that end an answer. No default; none.
	VocabSize int
	EOS       []dynamo.TokenID
	// Words are the ids that answers are made of, none of them in EOS; empty: every
	// id that is not. Several engines may share the slice. Default empty.
	Words []dynamo.TokenID

	// BlockSize is the number of tokens in a KV block, Blocks the number of blocks
	// of each rank. Defaults 64 and 16384. (--block-size, --num-gpu-blocks-override)
	BlockSize, Blocks int
	// StepTokens bounds the tokens of one step, MaxRunning the requests in a batch,
	// MaxQueue those that wait. Defaults 8192, 256 and 1024. (--step-tokens,
	// --max-running, --max-queue)
	StepTokens, MaxRunning, MaxQueue int
	// PrefixCaching says whether requests share the KV of equal prefixes, and
	// ChunkedPrefill whether a prompt may be computed over several steps. Defaults
	// true. (--prefix-caching, --chunked-prefill)
	PrefixCaching, ChunkedPrefill bool
	// Ranks is the number of data-parallel engines, each with a scheduler and a KV
	// cache of its own. Default 1. (--data-parallel-size)
	Ranks int

	// Model says how long a step takes. Nil: perfmodel.Polynomial for this KV cache.
	// (--perf-model)
	Model perfmodel.Model
	// Speedup divides all times, 0 lets none pass; DecodeSpeedup divides those of
	// steps without a piece of a prompt once more. Defaults 1. (--speedup-ratio,
	// --decode-speedup-ratio)
	Speedup, DecodeSpeedup float64
	// PreemptFirst takes KV blocks from the oldest request when there are none left,
	// instead of the newest. Default false. (--preemption-mode)
	PreemptFirst bool
	// Role is engine.RolePrefill, engine.RoleDecode or empty for both. With
	// RolePrefill the engine also answers requests with Prefill, and keeps their KV
	// until they are ended or Lease has passed; with any, it hands over what HandOver has
	// it give up, and takes the KV of requests
	// with Handover from there instead of computing it, but for prompts shorter than a
	// block. Defaults empty and 5 minutes. (--disaggregation-mode)
	Role  string
	Lease time.Duration
	// KVBytesPerToken is the size of a token's KV. TransferBandwidth is what KV from
	// elsewhere comes at, in bytes per second and for each rank; 0: in no time. What
	// comes together shares it equally. Defaults 131072, which is Llama 3 8B's in
	// bf16, and 64e9. (--kv-bytes-per-token, --kv-transfer-bandwidth)
	KVBytesPerToken   int
	TransferBandwidth float64
	// Lends has the engine lend the KV it holds to others, and be given theirs, as the
	// embedded engine does; not with several ranks. Default false. (--kv-lend)
	Lends bool
	// TransferTiming is TimeWhole or TimeMissing: which ids a transfer takes time for.
	// Default TimeWhole. (--kv-transfer-timing-mode)
	TransferTiming string
	// Worker and Epoch are who keeps the KV, for people who read a handover.
	Worker dynamo.WorkerID
	Epoch  uint64
	// Startup is how long Ready takes. Default 0. (--startup-time)
	Startup time.Duration
	// OutputTokens is the mean length of answers that their request does not end
	// earlier; lengths are spread around it exponentially. 0: answers are as long as
	// their requests allow. Default 0. (--mock-output-tokens)
	OutputTokens int
	// Shape is what answers look like. Default: words. (--mock-shape)
	Shape Shape
	// Faults are what goes wrong, and Seed tells engines apart in what they draw for
	// it. Default none. (--fault)
	Faults Faults
	Seed   uint64

	// Observe hears of each rank's steps, as loop.Config.Observe does. nil: nobody
	// does.
	Observe func(rank int, actions []sched.Action, b *sched.Batch)
	// Logger receives what an operator should know; nil discards it.
	Logger *slog.Logger
	// Events receives the changes of a rank's KV cache in order, in the goroutine of
	// the rank's loop, which it holds up; the slice is valid during the call. nil:
	// none are made.
	Events func(rank int, events []kvbm.Event)
}

// What a transfer takes time for.
const (
	TimeWhole   = "full_prompt"         // all ids before the answer goes on
	TimeMissing = "destination_missing" // those whose KV is not there yet
)

// engineName is the kind of engine on the card.
const engineName = "mocker"

// Shape is what answers look like beside their words.
type Shape struct {
	// Open begins every answer. With Only nothing follows it but the end.
	Open []dynamo.TokenID
	Only bool
	// Close stands where Ratio of the answer's length is over.
	Close []dynamo.TokenID
	Ratio float64
}

// DefaultConfig returns the defaults. Name, ContextLength and VocabSize have none.
func DefaultConfig() Config {
	return Config{
		BlockSize: 64, Blocks: 16384, StepTokens: 8192, MaxRunning: 256, MaxQueue: 1024,
		PrefixCaching: true, ChunkedPrefill: true, Ranks: 1, Speedup: 1, DecodeSpeedup: 1, Faults: Faults{Slow: 1},
		Lease: 5 * time.Minute, KVBytesPerToken: 131072, TransferBandwidth: 64e9, TransferTiming: TimeWhole,
	}
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Name == "" {
		fault("--model-name is empty")
	}
	if c.VocabSize < 1 {
		fault("the vocabulary has %d ids; it must have one or more", c.VocabSize)
	}
	if c.Ranks < 1 || c.Ranks > MaxRanks {
		fault("--data-parallel-size is %d; it must be 1 to %d", c.Ranks, MaxRanks)
	}
	for _, f := range []struct {
		flag string
		x    float64
	}{{"--speedup-ratio", c.Speedup}, {"--decode-speedup-ratio", c.DecodeSpeedup}} {
		if !(f.x >= 0 && f.x <= maxFactor) || f.flag != "--speedup-ratio" && f.x == 0 {
			fault("%s is %v; it must be more than 0 and at most %v (--speedup-ratio may be 0: no time passes)", f.flag, f.x, float64(maxFactor))
		}
	}
	if c.Startup < 0 {
		fault("--startup-time is %v; it must be 0 or more", c.Startup)
	}
	if c.OutputTokens < 0 {
		fault("--mock-output-tokens is %d; it must be 0 (as long as requests allow) or more", c.OutputTokens)
	}
	for _, id := range slices.Concat(c.Shape.Open, c.Shape.Close) {
		if int64(id) >= int64(c.VocabSize) {
			fault("the shape of answers names token id %d; the vocabulary has %d ids", id, c.VocabSize)
		}
	}
	if !(c.Shape.Ratio >= 0 && c.Shape.Ratio <= 1) {
		fault("the share of an answer before the end of its reasoning is %v; it must be 0 to 1", c.Shape.Ratio)
	}
	return errors.Join(append(faults, c.validateRole(), c.Faults.Validate(), c.scheduler().Validate())...)
}

// validateRole finds the faults of what concerns KV from and for other engines.
func (c *Config) validateRole() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !slices.Contains([]string{"", engine.RolePrefill, engine.RoleDecode}, c.Role) {
		fault("--disaggregation-mode: %q is none of agg, %s, %s", c.Role, engine.RolePrefill, engine.RoleDecode)
	}
	if c.Lease <= 0 || c.Lease > maxLease {
		fault("KV is kept for others for %v; it must be more than 0 and at most %v", c.Lease, maxLease)
	}
	if c.KVBytesPerToken < 0 || c.KVBytesPerToken > maxKVBytesPerToken {
		fault("--kv-bytes-per-token is %d; it must be 0 to %d", c.KVBytesPerToken, maxKVBytesPerToken)
	}
	if !(c.TransferBandwidth >= 0 && c.TransferBandwidth <= math.MaxFloat32) {
		fault("--kv-transfer-bandwidth is %v bytes a second; it must be 0 (in no time) or a finite number above", c.TransferBandwidth)
	}
	if c.TransferTiming != TimeWhole && c.TransferTiming != TimeMissing {
		fault("--kv-transfer-timing-mode: %q is neither %s nor %s", c.TransferTiming, TimeWhole, TimeMissing)
	}
	return errors.Join(faults...)
}

// bandwidth is that of a link in the engine's own time, which Speedup makes pass
// faster; 0: no time passes.
func (c *Config) bandwidth() float64 { return c.TransferBandwidth * c.Speedup }

// scheduler is the scheduler's configuration of each rank.
func (c *Config) scheduler() sched.Config {
	s := sched.DefaultConfig()
	s.BlockSize, s.Blocks, s.MaxContext = c.BlockSize, c.Blocks, c.context()
	s.StepTokens, s.MaxRunning, s.MaxWaiting = c.StepTokens, c.MaxRunning, c.MaxQueue
	s.PrefixCaching, s.WholePrompts, s.PreemptFirst = c.PrefixCaching, !c.ChunkedPrefill, c.PreemptFirst
	return s
}

// context is the longest sequence.
func (c *Config) context() int { return min(c.ContextLength, c.Blocks*c.BlockSize) }
