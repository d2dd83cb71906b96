package sim

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"time"

	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/kvindex"
	"github.com/dynamo-go/dynamo/router/placement"
)

// Group is a number of equal workers.
type Group struct {
	// Name is the machine's, for reports.
	Name  string
	Count int
	// Model says how long a step takes. Nil: perfmodel.Polynomial for this KV cache.
	Model perfmodel.Model
	// Blocks is the number of KV blocks, of Config.BlockSize tokens. Default 16384.
	Blocks int
	// StepTokens bounds the tokens of a step, MaxRunning the requests in a batch,
	// MaxQueue those that wait. Defaults 8192, 256 and 1024.
	StepTokens, MaxRunning, MaxQueue int
	// Role is what they do: prompts for other workers (placement.Prefill), answers to
	// prompts that others computed (placement.Decode), or both. Those that have answers
	// serve whole requests, too. Default placement.Whole.
	Role placement.Role
	// KVBytesPerToken is the size of a token's KV, where it is moved. Default 131072.
	KVBytesPerToken int
}

// DefaultGroup is one worker as the mocker's defaults have it.
func DefaultGroup() Group {
	return Group{Name: "mocker", Count: 1, Blocks: 16384, StepTokens: 8192, MaxRunning: 256, MaxQueue: 1024}
}

// Config says what is simulated.
type Config struct {
	// Trace gives the requests, in the order of their times.
	Trace iter.Seq2[trace.Request, error]
	// Again says that Trace yields the same once more. It is then gone through before
	// the first request is sent, to know what of a prompt no other has: the index need
	// not hear of that, and the outcome is the same, sooner. Default false.
	Again bool
	// Requests ends the trace after so many, 0 does not. Speedup divides its times and
	// the delays within its sessions. Defaults 0 and 1.
	Requests int
	Speedup  float64
	// Fleet are the workers. No default.
	Fleet []Group
	// BlockSize is the number of tokens in a KV block; a trace's blocks are made into
	// such. ContextLength is the longest sequence, in tokens; 0 leaves it to the KV
	// caches. Defaults 64 and 0.
	BlockSize, ContextLength int
	// Policy chooses the worker. Default kv.
	Policy placement.Params
	// Known gives the policy the workers' performance models; otherwise it learns them
	// from what requests take, as a router does. Default false.
	Known bool
	// PredictTTL is how long a worker is expected to hold what it has been sent, until
	// its events say so; 0 is not at all. Default 5 s, as the router's.
	PredictTTL time.Duration
	// Approximate lets the index know nothing but what workers have been sent, for
	// ApproximateTTL after each. Defaults false and 2 minutes.
	Approximate    bool
	ApproximateTTL time.Duration
	// Split says who decides, where there are prefill workers, whether a prompt is
	// computed apart from its answer. Default placement.SplitAuto.
	Split placement.SplitMode
	// TransferBandwidth is what KV comes to each worker at, in bytes per second; 0: in no
	// time. What comes together shares it equally. TransferMissing moves the KV alone that
	// a worker lacks, and not that of the whole prompt. Defaults 64e9 and false, as the
	// mocker's.
	TransferBandwidth float64
	TransferMissing   bool
	// Seed makes the draws of policies and tells equal costs apart.
	Seed uint64

	// Queue is how many requests wait while no worker can take one, Wait how long;
	// more and longer ones are refused. Defaults 1024 and 10 s, as the router's.
	Queue int
	Wait  time.Duration
	// Ingress, Dispatch, Return and EventDelay are the delays that the package comment
	// names. Defaults 400 µs, 200 µs, 200 µs and 1 ms: what processes on one machine
	// take.
	Ingress, Dispatch, Return, EventDelay time.Duration

	// Stepwise makes each step an event of its own. Default false.
	Stepwise bool
	// Check checks all invariants as it goes. Default false.
	Check bool
	// Records keeps a record of each request. Default false.
	Records bool
	// Goodput are the targets an answer has to keep: ttft, itl, e2e.
	Goodput map[string]time.Duration
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Speedup: 1, BlockSize: 64, Policy: placement.DefaultParams(placement.KV), Seed: 1, Queue: 1024, Wait: 10 * time.Second,
		PredictTTL: 5 * time.Second, ApproximateTTL: 2 * time.Minute, TransferBandwidth: 64e9,
		Ingress: 400 * time.Microsecond, Dispatch: 200 * time.Microsecond, Return: 200 * time.Microsecond, EventDelay: time.Millisecond,
	}
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.Trace == nil, "the trace is missing")
	fault(c.Requests < 0, "--requests is %d; it must be 0 (all of the trace) or more", c.Requests)
	fault(!(c.Speedup > 0 && c.Speedup <= 1e6), "--speedup is %v; it must be above 0 and at most a million", c.Speedup)
	fault(c.ContextLength < 0, "--context-length is %d; it must be 0 (as long as the KV cache) or more", c.ContextLength)
	fault(c.Queue < 0, "--queue is %d; it must be 0 or more", c.Queue)
	fault(c.Wait < 0, "--worker-wait is %v; it must be 0 or more", c.Wait)
	for _, d := range []struct {
		flag string
		time.Duration
	}{{"--ingress", c.Ingress}, {"--dispatch", c.Dispatch}, {"--return", c.Return}, {"--event-delay", c.EventDelay}} {
		fault(d.Duration < 0 || d.Duration > maxDelay, "%s is %v; it must be within 0 and %v", d.flag, d.Duration, maxDelay)
	}
	fault(c.PredictTTL < 0, "--router-predicted-ttl-secs is %v; it must be 0 (off) or more", c.PredictTTL)
	fault(!(c.TransferBandwidth >= 0 && c.TransferBandwidth <= math.MaxFloat32), "--kv-transfer-bandwidth is %v bytes a second; it must be 0 (in no time) or a finite number above", c.TransferBandwidth)
	fault(c.ApproximateTTL <= 0, "--router-ttl-secs is %v; it must be more than 0", c.ApproximateTTL)
	for name, d := range c.Goodput {
		fault(name != "ttft" && name != "itl" && name != "e2e", "%q is no goodput target; there are ttft, itl and e2e", name)
		fault(d <= 0, "--%s is %v; it must be above 0", name, d)
	}
	if err := c.Policy.Validate(); err != nil {
		faults = append(faults, err)
	}
	workers, answering := 0, 0
	for i := range c.Fleet {
		g := &c.Fleet[i]
		fault(g.Count < 1, "--fleet: %d workers of %s; there must be 1 or more", g.Count, g.Name)
		workers += max(g.Count, 0)
		if g.Role != placement.Prefill {
			answering += max(g.Count, 0)
		}
		fault(g.KVBytesPerToken < 0 || g.KVBytesPerToken > maxBytesPerToken, "the KV of a token is %d bytes at %s; it must be 0 (the default) to %d", g.KVBytesPerToken, g.Name, maxBytesPerToken)
		if err := c.scheduler(g).Validate(); err != nil {
			faults = append(faults, fmt.Errorf("the workers %s: %w", g.Name, err))
		}
	}
	fault(workers < 1 || workers > MaxWorkers, "the fleet has %d workers; it must have 1 to %d", workers, MaxWorkers)
	fault(workers > 0 && answering == 0, "--fleet: all %d workers compute prompts, and nobody goes on with them; give some another role, as in h200-8b:4:decode", workers)
	return errors.Join(faults...)
}

// disaggregated reports whether there are prefill workers.
func (c *Config) disaggregated() bool {
	return slices.ContainsFunc(c.Fleet, func(g Group) bool { return g.Role == placement.Prefill })
}

// bytesPerToken is the size of a token's KV.
func (g *Group) bytesPerToken() int {
	if g.KVBytesPerToken == 0 {
		return defaultBytesPerToken
	}
	return g.KVBytesPerToken
}

// defaultBytesPerToken is that of Llama 3 8B in bf16.
const defaultBytesPerToken = 131072

// scheduler is the configuration of the schedulers of a group.
func (c *Config) scheduler(g *Group) sched.Config {
	s := sched.DefaultConfig()
	s.BlockSize, s.Blocks, s.HashOnly = c.BlockSize, g.Blocks, true
	s.MaxContext = g.Blocks * c.BlockSize
	if c.ContextLength > 0 {
		s.MaxContext = min(c.ContextLength, s.MaxContext)
	}
	s.StepTokens, s.MaxRunning, s.MaxWaiting = g.StepTokens, g.MaxRunning, g.MaxQueue
	s.Events = c.events()
	return s
}

// events reports whether workers tell of their blocks.
func (c *Config) events() bool { return !c.Approximate && (c.Policy.Policy.UsesOverlap() || c.Check) }

// selective reports whether the index is spared what nobody will look for. Where it
// could run out of memory, or of ends of expectations, that might be seen.
func (c *Config) selective() bool {
	return !c.Check && !c.Approximate && c.PredictTTL <= maxSelectiveTTL && 64*c.blocks() <= kvindex.MaxBytes
}

// blocks are those of the whole fleet.
func (c *Config) blocks() int64 {
	n := int64(0)
	for i := range c.Fleet {
		n += int64(c.Fleet[i].Count) * int64(c.Fleet[i].Blocks)
	}
	return n
}

// model is the group's model of time.
func (c *Config) model(g *Group) perfmodel.Model {
	if g.Model != nil {
		return g.Model
	}
	return &perfmodel.Polynomial{KVCapacityTokens: g.Blocks * c.BlockSize}
}
