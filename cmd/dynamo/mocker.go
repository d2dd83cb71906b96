package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo/engine/mocker"
	"github.com/dynamo-go/dynamo/node"
)

// mockerFlags describe a mocker engine, beside what every engine has.
type mockerFlags struct {
	PerfModel            string        `help:"How long the steps of --engine mocker take: a machine (h200-8b, …; a wrong name lists them), a file of coefficients or tables, or a file or folder of the reference's profiler. Default: the reference mocker's polynomial." placeholder:"NAME|PATH"`
	SpeedupRatio         float64       `help:"How many times as fast as that --engine mocker runs; 0: no time passes at all." default:"1" placeholder:"X"`
	DecodeSpeedupRatio   float64       `help:"How many times as fast again its steps without prompts are." default:"1" placeholder:"X"`
	BlockSize            int           `help:"Tokens in a KV block of --engine mocker." default:"64" placeholder:"TOKENS"`
	NumGPUBlocksOverride int           `name:"num-gpu-blocks-override" help:"KV blocks of each rank of --engine mocker. 0: as many as the machine of --perf-model has, or else 16384." default:"0" placeholder:"N"`
	DataParallelSize     int           `help:"Data-parallel ranks of --engine mocker, each with a scheduler and a KV cache of its own." default:"1" placeholder:"N"`
	ChunkedPrefill       bool          `help:"Whether --engine mocker computes long prompts in several steps; without it --step-tokens must reach the context length." default:"true" negatable:""`
	PreemptionMode       string        `help:"Whose KV blocks --engine mocker takes when there are none left: the newest request's (lifo) or the oldest one's (fifo)." enum:"lifo,fifo" default:"lifo"`
	KVBytesPerToken      int           `name:"kv-bytes-per-token" help:"Bytes of a token's KV in --engine mocker. 0: as the machine of --perf-model has it, or else 131072." default:"0" placeholder:"BYTES"`
	KVTransferBandwidth  float64       `name:"kv-transfer-bandwidth" help:"GB/s (10⁹ bytes) at which KV comes from prefill workers to each rank of --engine mocker; 0: in no time." default:"64" placeholder:"GB/S"`
	KVTransferTimingMode string        `name:"kv-transfer-timing-mode" help:"What that takes time for: the whole prompt (full_prompt), or the part of it whose KV is not there yet (destination_missing)." enum:"full_prompt,destination_missing" default:"full_prompt"`
	KVLend               bool          `name:"kv-lend" help:"Whether --engine mocker lends the KV it holds to other workers, and is given theirs, as the embedded engine does; see --kv-peer-fetch."`
	StartupTime          time.Duration `help:"How long --engine mocker takes to start." default:"0s"`
	MockOutputTokens     int           `help:"Mean length of the answers of --engine mocker where requests allow more; 0: as long as they allow." default:"0" placeholder:"TOKENS"`
	MockShape            string        `help:"What its answers look like: words, reasoning (<think>…</think> and words) or tool (one tool call)." enum:"words,reasoning,tool" default:"words"`
	Reasoning            string        `help:"Tokens that begin and end the reasoning of its answers, as {\"start_thinking_token_id\":1,\"end_thinking_token_id\":2,\"thinking_ratio\":0.6}." placeholder:"JSON"`
	FaultWorkers         int           `help:"How many of the workers of this process what --fault says goes wrong with; 0: all." default:"0" placeholder:"N"`
	Fault                faultList     `help:"What goes wrong with --engine mocker: slow=FACTOR, stall=TOKENS or crash=TOKENS (after so many generated tokens), refuse=P, drop-events=P, wrong-events=P, lose-events=P, transfer=P (with that probability). May be repeated." placeholder:"KIND=VALUE"`
}

// faultList is a list whose flag may be repeated; as text its parts are separated
// by commas.
type faultList []string

// String writes the list as it is read.
func (f faultList) String() string { return strings.Join(f, ",") }

// apply sets the mocker's part of a node's configuration.
func (f *mockerFlags) apply(c *node.MockerConfig) error {
	c.PerfModel, c.Speedup, c.DecodeSpeedup = f.PerfModel, f.SpeedupRatio, f.DecodeSpeedupRatio
	c.BlockSize, c.Blocks, c.Ranks, c.ChunkedPrefill = f.BlockSize, f.NumGPUBlocksOverride, f.DataParallelSize, f.ChunkedPrefill
	c.PreemptFirst, c.KVBytesPerToken = f.PreemptionMode == "fifo", f.KVBytesPerToken
	c.TransferBandwidth, c.TransferTiming, c.Lends = f.KVTransferBandwidth*1e9, f.KVTransferTimingMode, f.KVLend
	c.Startup, c.OutputTokens, c.Shape = f.StartupTime, f.MockOutputTokens, f.MockShape
	c.FaultyWorkers = f.FaultWorkers
	if f.Reasoning != "" {
		c.Reasoning = &node.MockReasoning{}
		if err := json.Unmarshal([]byte(f.Reasoning), c.Reasoning, json.RejectUnknownMembers(true)); err != nil {
			return fmt.Errorf("--reasoning: %q is not as {\"start_thinking_token_id\":1,\"end_thinking_token_id\":2,\"thinking_ratio\":0.6}: %w", f.Reasoning, err)
		}
	}
	var faults []error
	for _, text := range f.Fault {
		faults = append(faults, mocker.ParseFault(&c.Faults, text))
	}
	return errors.Join(faults...)
}

// mock sets the mocker's part of a node's configuration, and what a mocker has
// other defaults of than an engine that computes on this machine.
func (a *app) mock(f *mockerFlags, c *node.Config) error {
	if c.Engine == node.EngineMocker {
		d := mocker.DefaultConfig()
		if a.settings.origin("max-running") == "default" {
			c.MaxRunning = d.MaxRunning
		}
		if a.settings.origin("step-tokens") == "default" {
			c.StepTokens = d.StepTokens
		}
	}
	if err := f.apply(&c.Mocker); err != nil {
		return usageError{error: err}
	}
	return nil
}

// mockerCmd is 'worker --engine mocker' with the arguments of the reference's
// module of that name.
type mockerCmd struct {
	Args []string `arg:"" optional:"" help:"Arguments of 'dynamo worker' and of the reference's mocker in any order; --model-path names the model."`
}

// Run starts the worker.
func (c *mockerCmd) Run(a *app, kctx *kong.Context) error {
	if slices.Contains(c.Args, "--help") || slices.Contains(c.Args, "-h") {
		fmt.Fprintln(a.stdout, "dynamo mocker is 'dynamo worker --engine mocker' with the reference's names of flags: --model-path names the model, and where the names differ both are understood. The flags of 'dynamo worker':")
		return a.dispatch([]string{"worker", "--help"})
	}
	args, err := mockerArgs(c.Args, workerFlagKinds(kctx.Model.Node))
	if err != nil {
		return usageError{error: err}
	}
	return a.dispatch(args)
}

// mockerNames are the reference's flags that have other names here. Those that
// begin with a ! stand alone.
var mockerNames = map[string]string{
	"max-num-seqs": "max-running", "max-num-batched-tokens": "step-tokens", "max-model-len": "context-length", "planner-profile-data": "perf-model",
	"enable-prefix-caching": "!prefix-caching", "no-enable-prefix-caching": "!no-prefix-caching",
	"is-prefill-worker": "!disaggregation-mode=prefill", "is-decode-worker": "!disaggregation-mode=decode",
	"enable-chunked-prefill": "!chunked-prefill", "no-enable-chunked-prefill": "!no-chunked-prefill",
}

// mockerOnly are the reference's flags of which this mocker has one way alone.
var mockerOnly = map[string][]string{
	"engine-type": {"vllm"}, "request-plane": {"tcp"},
}

// mockerArgs translates the arguments of the reference's module. A flag that means
// nothing here is refused: who asks for it would be misled.
func mockerArgs(args []string, worker map[string]bool) ([]string, error) {
	ours, model := []string{"worker", "--engine=mocker"}, ""
	for i := 0; i < len(args); i++ {
		name, value, joined := strings.Cut(strings.TrimPrefix(args[i], "--"), "=")
		if !strings.HasPrefix(args[i], "--") {
			return nil, fmt.Errorf("%q is the value of no flag; --model-path names the model", args[i])
		}
		translated := name
		if n, ok := mockerNames[name]; ok {
			translated = n
		}
		if alone, ok := strings.CutPrefix(translated, "!"); ok {
			ours = append(ours, "--"+alone)
			continue
		}
		alone, known := worker[strings.TrimPrefix(translated, "no-")]
		if !known {
			alone, known = worker[translated]
		}
		only := mockerOnly[name]
		if !known && only == nil && name != "model-path" && name != "model" {
			return nil, fmt.Errorf("--%s is not supported here; see 'dynamo worker --help' for what a mocker can do", name)
		}
		if known && alone {
			ours = append(ours, args[i])
			continue
		}
		if !joined {
			if i++; i == len(args) {
				return nil, errors.New("--" + name + " wants a value")
			}
			value = args[i]
		}
		switch {
		case name == "model-path" || name == "model":
			model = value
		case only != nil && !slices.Contains(only, value):
			return nil, fmt.Errorf("--%s %s is not supported here; only %s is", name, value, only[0])
		case only != nil:
		case name == "startup-time" || name == "stagger-delay":
			if _, err := strconv.ParseFloat(value, 64); err == nil {
				value += "s"
			}
			ours = append(ours, "--"+name+"="+value)
		default:
			ours = append(ours, "--"+translated+"="+value)
		}
	}
	if model == "" {
		return nil, errors.New("--model-path is missing: the folder or Hugging Face id of the model whose tokenizer is used")
	}
	return append(ours, model), nil
}
