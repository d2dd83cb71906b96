package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/sim"
)

// replayCmd plays a trace against simulated fleets.
type replayCmd struct {
	Traces []string `arg:"" optional:"" name:"trace" help:"Trace: JSON lines (Mooncake and the tools that play such files), CSV (Azure, BurstGPT) or ShareGPT's JSON, gzip or not. Several are played one after the other, and intervals given over them."`

	Preset      string  `help:"Requests made from published statistics instead of a trace: sharegpt, mooncake-conversation and so on (dynamo trace synth --preset list). Each seed makes others." placeholder:"NAME" oneoff:""`
	Rate        float64 `help:"Requests a second of --preset. Default: its own." placeholder:"X" oneoff:""`
	TraceFormat string  `help:"Format of the trace, if its first bytes do not tell." enum:",mooncake,mooncake-delta,dynamo,csv,sharegpt" default:"" oneoff:""`
	TraceBlock  int     `name:"trace-block-size" help:"Tokens of a block of the trace, where it does not say. Default: 512." placeholder:"N" oneoff:""`
	TraceSort   bool    `help:"Sort the trace by time first." oneoff:""`
	Requests    int     `short:"n" help:"End after so many requests; 0: all." default:"0" placeholder:"N" oneoff:""`
	Speedup     float64 `help:"Play the trace's times, and the delays within its sessions, so much faster." default:"1" placeholder:"X" oneoff:""`

	replayFleet
	replayRouter
	replayOutput
}

// replayFleet says who serves.
type replayFleet struct {
	Fleet              []string `help:"Workers: machines of --perf-model, how many of each and, where they do one part of the work alone, prefill or decode, as in h200-8b:4,h100-8b:4 or h200-8b:2:prefill,h200-8b:6:decode." placeholder:"NAME:N[:ROLE]" oneoff:""`
	NumWorkers         int      `help:"Equal workers, instead of --fleet." default:"8" placeholder:"N" oneoff:""`
	PerfModel          string   `help:"How long their steps take: a machine (h200-8b, …; a wrong name lists them), a file or a folder. Default: the reference mocker's polynomial." placeholder:"NAME|PATH" oneoff:""`
	BlockSize          int      `help:"Tokens in a KV block." default:"64" placeholder:"N" oneoff:""`
	NumGPUBlocks       int      `name:"num-gpu-blocks-override" help:"KV blocks of each worker. 0: as many as its machine has, or else 16384." default:"0" placeholder:"N" oneoff:""`
	ContextLength      int      `help:"Longest sequence in tokens. 0: what the KV cache holds." default:"0" placeholder:"N" oneoff:""`
	StepTokens         int      `help:"Most tokens of a step." default:"8192" placeholder:"N" oneoff:""`
	MaxRunning         int      `help:"Most requests in a batch." default:"256" placeholder:"N" oneoff:""`
	MaxQueue           int      `help:"Most requests that wait at a worker." default:"1024" placeholder:"N" oneoff:""`
	Stepwise           bool     `help:"Make each step an event of its own, instead of stretches of steps in which nothing can be decided. The outcome is the same." oneoff:""`
	Check              bool     `help:"Check every invariant as it goes." oneoff:""`
	simulatedTransfers `embed:""`
	simulatedDelays    `embed:""`
}

// simulatedTransfers say how KV moves between workers of two roles.
type simulatedTransfers struct {
	Disaggregation string  `help:"Whether prompts are computed by the prefill workers of --fleet: where that is predicted to cost less (auto), always or never." enum:"auto,always,never" default:"auto" oneoff:""`
	Bandwidth      float64 `name:"kv-transfer-bandwidth" help:"GB/s (10⁹ bytes) at which KV comes to each worker; 0: in no time." default:"64" placeholder:"GB/S" oneoff:""`
	TimingMode     string  `name:"kv-transfer-timing-mode" help:"What that takes time for: the whole prompt (full_prompt), or the part of it whose KV is not there yet (destination_missing)." enum:"full_prompt,destination_missing" default:"full_prompt" oneoff:""`
	BytesPerToken  int     `name:"kv-bytes-per-token" help:"Bytes of a token's KV. 0: as the machine has it, or else 131072." default:"0" placeholder:"BYTES" oneoff:""`
}

// apply sets what is not the fleet's.
func (c *simulatedTransfers) apply(cfg *sim.Config) error {
	var err error
	if cfg.Split, err = placement.ParseSplitMode(c.Disaggregation); err != nil {
		return usageError{error: fmt.Errorf("--disaggregation: %w", err)}
	}
	cfg.TransferBandwidth, cfg.TransferMissing = c.Bandwidth*1e9, c.TimingMode == "destination_missing"
	return nil
}

// simulatedDelays are the times that pass between processes.
type simulatedDelays struct {
	Ingress    time.Duration `help:"From when a request is sent to when the router decides." default:"400us" placeholder:"TIME" oneoff:""`
	Dispatch   time.Duration `help:"From there to the worker." default:"200us" placeholder:"TIME" oneoff:""`
	Return     time.Duration `help:"From a step's end to router and client." default:"200us" placeholder:"TIME" oneoff:""`
	EventDelay time.Duration `help:"From a step's end to when the router knows its KV events." default:"1ms" placeholder:"TIME" oneoff:""`
}

// replayRouter says who chooses.
type replayRouter struct {
	RouterMode    []string      `aliases:"policy" help:"How workers are chosen: one or more of kv, round-robin and so on (a wrong name lists them); several are compared with the first." default:"kv" placeholder:"NAME" oneoff:""`
	OverlapCredit float64       `name:"router-kv-overlap-score-credit" help:"For dynamo: what a block on the device is worth, in blocks of prefill." default:"1" placeholder:"X" oneoff:""`
	CreditDecay   float64       `name:"router-kv-overlap-score-credit-decay" help:"For dynamo: how fast that falls with the prefill pending beyond the least loaded worker's." default:"0" placeholder:"X" oneoff:""`
	PrefillScale  float64       `name:"router-prefill-load-scale" help:"For dynamo: factor of the prefill part of the cost." default:"1" placeholder:"X" oneoff:""`
	RequestWeight float64       `name:"router-decode-active-request-weight" help:"For dynamo: what each active request costs, in blocks." default:"0" placeholder:"X" oneoff:""`
	Temperature   float64       `name:"router-temperature" help:"For dynamo: draws workers by their cost instead of taking the cheapest." default:"0" placeholder:"T" oneoff:""`
	KVEvents      bool          `name:"router-kv-events" help:"Whether the router hears of workers' blocks; without, it goes by what it has sent them." default:"true" negatable:"" oneoff:""`
	PredictTTL    seconds       `name:"router-predicted-ttl-secs" help:"How long a worker is expected to hold what it has been sent, until its events say so; 0 is not at all." default:"5" placeholder:"S" oneoff:""`
	TTL           seconds       `name:"router-ttl-secs" help:"The same without --router-kv-events." default:"120" placeholder:"S" oneoff:""`
	KnownModels   bool          `help:"Give the router the workers' performance models, instead of letting it learn them." oneoff:""`
	WorkerWait    time.Duration `help:"How long a request waits for a worker when all are full." default:"10s" placeholder:"TIME" oneoff:""`
	Queue         int           `help:"How many requests wait for a worker." default:"1024" placeholder:"N" oneoff:""`
	Seed          uint64        `help:"Makes the draws of policies, and the requests of --preset." default:"1" placeholder:"N" oneoff:""`
	Seeds         int           `help:"Run with so many seeds from --seed on, and give intervals over them." default:"1" placeholder:"N" oneoff:""`
}

// replayOutput says what comes of it.
type replayOutput struct {
	TTFT   time.Duration `name:"ttft" help:"Goodput: latest first token." placeholder:"TIME" oneoff:""`
	ITL    time.Duration `name:"itl" help:"Goodput: longest time between tokens, averaged over an answer." placeholder:"TIME" oneoff:""`
	E2E    time.Duration `name:"e2e" help:"Goodput: longest time of a request." placeholder:"TIME" oneoff:""`
	Output string        `short:"o" help:"Directory for a report of each mode, as dynamo bench writes it, and of their comparison." placeholder:"DIR" oneoff:""`
	JSON   bool          `name:"json" help:"Print JSON." oneoff:""`
}

// maxTrials bounds the traces times --seeds.
const maxTrials = 1000

// Run plays each trial once for each mode.
func (c *replayCmd) Run(a *app, kctx *kong.Context) error {
	fleet, err := c.fleet()
	if err != nil {
		return err
	}
	policies, err := c.policies()
	if err != nil {
		return err
	}
	trials, err := c.trials(len(policies))
	if err != nil {
		return usageError{error: err}
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	runs := make([]replayRun, 0, len(policies)*len(trials))
	for i, t := range trials {
		for _, p := range policies {
			cfg := c.config(fleet, p, t.seed)
			if err := c.simulatedTransfers.apply(&cfg); err != nil {
				return err
			}
			cfg.Records = i == 0 && (c.Output != "" || len(policies) > 1)
			run, err := c.play(ctx, a, t, cfg)
			if err != nil {
				return fmt.Errorf("%v: %w", p.Policy, err)
			}
			run.mode, run.trial = p.Policy.String(), t
			run.Bench.Config = benchSettings(kctx)
			run.Bench.Config["router-mode"], run.Bench.Config["seed"] = run.mode, strconv.FormatUint(t.seed, 10)
			if run.Bench.Config["trace"] = t.file; t.file == "" {
				delete(run.Bench.Config, "trace")
			}
			runs = append(runs, run)
		}
	}
	return c.show(a, runs, len(policies))
}

// trial is what each mode is played with once.
type trial struct {
	file string // empty: requests of the preset
	seed uint64
}

// String names the trial.
func (t trial) String() string {
	if t.file == "" {
		return fmt.Sprintf("seed %d", t.seed)
	}
	return fmt.Sprintf("%s, seed %d", t.file, t.seed)
}

// trials are the traces and seeds.
func (c *replayCmd) trials(modes int) ([]trial, error) {
	files := c.Traces
	if c.Preset != "" {
		files = append(files, "")
	}
	switch {
	case len(files) == 0 || c.Preset != "" && len(files) > 1:
		return nil, errors.New("one of TRACE and --preset says what is played")
	case c.Seeds < 1 || c.Seeds*len(files) > maxTrials:
		return nil, fmt.Errorf("--seeds is %d, with %d traces; they must be 1 or more and at most %d together", c.Seeds, len(files), maxTrials)
	}
	var all []trial
	for _, file := range files {
		if file == "-" && (modes > 1 || c.Seeds*len(files) > 1) {
			return nil, errors.New("standard input can be played once only; give a file for several modes or seeds")
		}
		for i := range c.Seeds {
			all = append(all, trial{file, c.Seed + uint64(i)})
		}
	}
	return all, nil
}

// replayRun is one run with what it cost here.
type replayRun struct {
	*sim.Result
	mode   string
	trial  trial
	wall   time.Duration
	memory int64
}

// play plays the trace once.
func (c *replayCmd) play(ctx context.Context, a *app, t trial, cfg sim.Config) (run replayRun, err error) {
	debug.FreeOSMemory() // what the run before left is not this one's
	began := time.Now()
	done, err := c.source(a, t, &cfg)
	if err != nil {
		return run, err
	}
	defer done()
	if err := cfg.Validate(); err != nil {
		return run, asUsage(err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(gcPercent(&cfg)))
	if run.Result, err = sim.Run(ctx, cfg); err != nil {
		return run, err
	}
	run.wall = time.Since(began)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	run.memory = int64(m.Sys - m.HeapReleased)
	run.Bench.Started, run.Bench.Version = began, buildInfo().Version
	run.Bench.Machine = "simulated: " + describeFleet(cfg.Fleet)
	run.Bench.Client.CPUSeconds = run.wall.Seconds()
	return run, nil
}

// gcPercent is how much the heap of a simulation grows between collections. That of a
// small fleet is a few megabytes, which would be collected every few milliseconds.
func gcPercent(c *sim.Config) int {
	blocks := 0
	for i := range c.Fleet {
		blocks += c.Fleet[i].Count * c.Fleet[i].Blocks
	}
	if blocks <= 1<<20 { // 64 MB of pools at most
		return 200
	}
	return 100
}

// source opens what is played, for cfg.
func (c *replayCmd) source(a *app, t trial, cfg *sim.Config) (done func(), err error) {
	if t.file != "" {
		in := traceInput{File: t.file, Format: c.TraceFormat, BlockSize: c.TraceBlock, Sort: c.TraceSort}
		if info, err := os.Stat(t.file); err == nil && info.Mode().IsRegular() && !in.Sort { // a pipe is read once, and sorting is dear
			cfg.Trace, cfg.Again = reopen(a, in), true
			return func() {}, nil
		}
		cfg.Trace, done, err = in.read(a)
		return done, err
	}
	s, err := trace.Preset(c.Preset)
	if err != nil {
		return nil, usageError{error: err}
	}
	s.Seed = t.seed
	if c.Requests > 0 {
		s.Requests = c.Requests
	}
	if c.Rate > 0 {
		s.Arrival.Rate = c.Rate
	}
	cfg.Trace, cfg.Again = s.All(), true
	return func() {}, nil
}

// reopen yields the trace of a file, which it opens each time.
func reopen(a *app, in traceInput) iter.Seq2[trace.Request, error] {
	return func(yield func(trace.Request, error) bool) {
		all, done, err := in.read(a)
		if err != nil {
			yield(trace.Request{}, err)
			return
		}
		defer done()
		all(yield)
	}
}

// config is the flags as a configuration.
func (c *replayCmd) config(fleet []sim.Group, p placement.Params, seed uint64) sim.Config {
	cfg := sim.DefaultConfig()
	cfg.Requests, cfg.Speedup, cfg.Fleet, cfg.Policy, cfg.Seed = c.Requests, c.Speedup, fleet, p, seed
	cfg.BlockSize, cfg.ContextLength, cfg.Known = c.BlockSize, c.ContextLength, c.KnownModels
	cfg.Queue, cfg.Wait = c.Queue, c.WorkerWait
	cfg.Approximate, cfg.PredictTTL, cfg.ApproximateTTL = !c.KVEvents, time.Duration(c.PredictTTL), time.Duration(c.TTL)
	cfg.Ingress, cfg.Dispatch, cfg.Return, cfg.EventDelay = c.Ingress, c.Dispatch, c.Return, c.EventDelay
	cfg.Stepwise, cfg.Check = c.Stepwise, c.Check
	cfg.Goodput = map[string]time.Duration{}
	for name, d := range map[string]time.Duration{"ttft": c.TTFT, "itl": c.ITL, "e2e": c.E2E} {
		if d != 0 {
			cfg.Goodput[name] = d
		}
	}
	return cfg
}

// policies are those that are compared.
func (c *replayRouter) policies() ([]placement.Params, error) {
	var all []placement.Params
	for _, name := range c.RouterMode {
		policy, ok := placement.ParsePolicy(name)
		if !ok {
			return nil, usageError{error: fmt.Errorf("--router-mode: %q is none of %s", name, strings.Join(placement.Policies(), ", "))}
		}
		p := placement.DefaultParams(policy)
		r := &p.Reference
		r.OverlapCredit, r.CreditDecay, r.PrefillScale, r.RequestWeight, r.Temperature = c.OverlapCredit, c.CreditDecay, c.PrefillScale, c.RequestWeight, c.Temperature
		all = append(all, p)
	}
	return all, nil
}

// fleet is the workers that the flags describe.
func (c *replayFleet) fleet() ([]sim.Group, error) {
	list := c.Fleet
	if len(list) == 0 {
		list = []string{c.PerfModel + ":" + strconv.Itoa(c.NumWorkers)}
	}
	var fleet []sim.Group
	for _, item := range list {
		g, err := c.group(item)
		if err != nil {
			return nil, usageError{error: err}
		}
		fleet = append(fleet, g)
	}
	return fleet, nil
}

// group is the workers of an item of --fleet.
func (c *replayFleet) group(item string) (g sim.Group, err error) {
	rest, role := item, placement.Whole
	if before, last, ok := cutLast(item, ":"); ok {
		if r, named := simulatedRoles[last]; named {
			rest, role = before, r
		}
	}
	name, count, ok := cutLast(rest, ":")
	n, err := strconv.Atoi(count)
	if !ok || err != nil {
		return g, fmt.Errorf("--fleet: %q is not a machine and a number, as in h200-8b:4 or h200-8b:4:prefill", item)
	}
	g = sim.DefaultGroup()
	g.Count, g.Role, g.StepTokens, g.MaxRunning, g.MaxQueue = n, role, c.StepTokens, c.MaxRunning, c.MaxQueue
	if name != "" {
		model, kvTokens, err := node.OpenPerfModel(name)
		if err != nil {
			return g, err
		}
		g.Name, g.Model = filepath.Base(name), model
		if kvTokens > 0 && c.BlockSize > 0 {
			g.Blocks = max(1, kvTokens/c.BlockSize)
		}
		if _, machine, err := perfmodel.Preset(name); err == nil { // it may be a file
			g.KVBytesPerToken = machine.KVBytesPerToken
		}
	}
	if c.NumGPUBlocks > 0 {
		g.Blocks = c.NumGPUBlocks
	}
	if c.BytesPerToken > 0 {
		g.KVBytesPerToken = c.BytesPerToken
	}
	return g, nil
}

// simulatedRoles are the roles in --fleet.
var simulatedRoles = map[string]placement.Role{"agg": placement.Whole, "prefill": placement.Prefill, "decode": placement.Decode}

// cutLast cuts s around the last separator.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}

func describeFleet(fleet []sim.Group) string {
	var parts []string
	for i := range fleet {
		what := fmt.Sprintf("%d × %s", fleet[i].Count, fleet[i].Name)
		if role := fleet[i].Role; role != placement.Whole {
			what += " " + role.String()
		}
		parts = append(parts, what)
	}
	return strings.Join(parts, ", ")
}

// directory makes the directory of a run's report.
func (c *replayOutput) directory(name string) (string, error) {
	dir := filepath.Join(c.Output, name)
	return dir, os.MkdirAll(dir, 0o755)
}
