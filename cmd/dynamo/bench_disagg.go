package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dynamo-go/dynamo/bench/report"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/sim"
)

// benchDisaggCmd sets ways of serving side by side: whole answers on each worker, and
// prompts and answers on workers of their own, with KV that moves by one path or another.
type benchDisaggCmd struct {
	Trace string `arg:"" optional:"" help:"Trace of the requests of simulated fleets, instead of --preset; its sessions are not kept, so that the load is what is said."`
	On    string `help:"sim plays the requests to simulated fleets. mocker and native start processes of that engine on this machine and put load on them." enum:"sim,mocker,native" default:"sim" oneoff:""`

	Preset      string `help:"Requests made from published statistics (dynamo trace synth --preset list)." default:"mooncake-toolagent" placeholder:"NAME" oneoff:""`
	TraceFormat string `help:"Format of the trace, if its first bytes do not tell." enum:",mooncake,mooncake-delta,dynamo,csv,sharegpt" default:"" oneoff:""`
	Requests    int    `short:"n" help:"Requests of each run; 0: 2000 in simulated fleets, 64 on processes." default:"0" placeholder:"N" oneoff:""`

	PerfModel string    `help:"Machine of the simulated and of the mocked workers (h200-8b, …; a wrong name lists them)." default:"h200-8b" placeholder:"NAME|PATH" oneoff:""`
	GPUs      int       `name:"gpus" help:"Workers of each deployment, a GPU each. 0: 8 simulated, 2 processes." default:"0" placeholder:"N" oneoff:""`
	Prefill   int       `help:"How many of them are prefill workers. 0: in simulated fleets the number with most goodput, for each deployment its own; 1 of processes." default:"0" placeholder:"N" oneoff:""`
	Loads     []float64 `help:"Loads, as shares of what the aggregated fleet can serve at all; on processes, requests open at once. Default: 0.1 to 2, or 1,2,4." placeholder:"X" oneoff:""`
	Only      []string  `help:"Deployments to run, the first of which the others are measured by: agg, agg+kv, tcp, fast, +kv, full. Default: all." placeholder:"NAME" oneoff:""`
	TCP       float64   `name:"tcp-bandwidth" help:"GB/s of the slow path in simulated and mocked fleets." default:"2.5" placeholder:"GB/S" oneoff:""`
	Fast      float64   `name:"fast-bandwidth" help:"GB/s of the fast path there." default:"64" placeholder:"GB/S" oneoff:""`

	TTFT time.Duration `name:"ttft" help:"Goodput: latest first token." default:"2s" placeholder:"TIME" oneoff:""`
	ITL  time.Duration `name:"itl" help:"Goodput: longest time between tokens, averaged over an answer." default:"20ms" placeholder:"TIME" oneoff:""`

	benchDisaggLive

	Seed   uint64 `help:"Makes the requests, and the draws of policies." default:"1" placeholder:"N" oneoff:""`
	Output string `short:"o" help:"Directory for report.html, disagg.json and the plots." placeholder:"DIR" oneoff:""`
	JSON   bool   `name:"json" help:"Print JSON." oneoff:""`
}

// Limits of bench disagg.
const (
	maxDisaggRequests = 1 << 17
	maxDisaggLoads    = 32
	maxDisaggGPUs     = 256
	// disaggRatios is how many ratios of prefill to decode workers are tried at most.
	disaggRatios = report.MaxDeployments
)

// serving is one way of serving that is compared.
type serving struct {
	name, what string
	policy     placement.Policy
	apart      bool // on prefill and decode workers
	split      placement.SplitMode
	fast       bool // KV moves by the fast path
	missing    bool // what the decode worker lacks moves alone
	tiers      bool // evicted KV goes to host memory
}

// servings are those of the literature, in its order, and aggregated serving with
// routing, which the last ones have to be better than.
var servings = []serving{
	{name: "agg", what: "whole answers on each worker, in turn", policy: placement.RoundRobin},
	{name: "agg+kv", what: "whole answers on each worker, routed by what it holds", policy: placement.KV},
	{name: "tcp", what: "prompts apart, in turn, KV by tcp", policy: placement.RoundRobin, apart: true, split: placement.SplitAlways},
	{name: "fast", what: "prompts apart, in turn, KV by the fast path", policy: placement.RoundRobin, apart: true, split: placement.SplitAlways, fast: true},
	{name: "+kv", what: "the same, routed by what workers hold", policy: placement.KV, apart: true, split: placement.SplitAlways, fast: true},
	{name: "full", what: "the same, prompts apart only where that is predicted to cost less", policy: placement.KV, apart: true, split: placement.SplitAuto, fast: true, missing: true, tiers: true},
}

// Run compares.
func (c *benchDisaggCmd) Run(a *app, kctx *kong.Context) error {
	if err := c.check(); err != nil {
		return usageError{error: err}
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	var d *report.Disagg
	var err error
	if c.On == "sim" {
		d, err = c.simulate(ctx, a)
	} else {
		d, err = c.live(ctx, a, kctx)
	}
	if err != nil {
		return err
	}
	d.TTFT, d.ITL = c.TTFT, c.ITL
	return c.show(a.stdout, d)
}

func (c *benchDisaggCmd) show(out io.Writer, d *report.Disagg) error {
	if c.Output != "" {
		if err := d.Write(c.Output); err != nil {
			return err
		}
	}
	if c.JSON {
		return d.WriteJSON(out)
	}
	if err := d.WriteText(out); err != nil {
		return err
	}
	if c.Output != "" {
		_, err := fmt.Fprintf(out, "report: %s\n", filepath.Join(c.Output, report.PageFile))
		return err
	}
	return nil
}

// check finds faults and sets what was left to this command.
func (c *benchDisaggCmd) check() error {
	simulated := c.On == "sim"
	for _, d := range []struct {
		value          *int
		simulated, not int
	}{{&c.GPUs, 8, 2}, {&c.Requests, 2000, 64}, {&c.Prefill, 0, 1}} {
		switch {
		case *d.value != 0:
		case simulated:
			*d.value = d.simulated
		default:
			*d.value = d.not
		}
	}
	if len(c.Loads) == 0 {
		if c.Loads = []float64{1, 2, 4}; simulated {
			c.Loads = []float64{0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 1, 1.2, 1.5, 2}
		}
	}
	var faults []error
	fault := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Errorf(format, args...))
		}
	}
	fault(c.GPUs < 2 || c.GPUs > maxDisaggGPUs, "--gpus is %d; it must be 2 to %d", c.GPUs, maxDisaggGPUs)
	fault(c.Prefill < 0 || c.Prefill >= c.GPUs, "--prefill is %d of %d workers; it must leave one to go on with the prompts", c.Prefill, c.GPUs)
	fault(c.Requests < 1 || c.Requests > maxDisaggRequests, "--requests is %d; it must be 1 to %d", c.Requests, maxDisaggRequests)
	fault(len(c.Loads) > maxDisaggLoads, "--loads are %d; they must be at most %d", len(c.Loads), maxDisaggLoads)
	fault(!slices.IsSorted(c.Loads), "--loads must rise")
	for _, x := range c.Loads {
		fault(!(x > 0 && x <= 1e4) || !simulated && x != float64(int(x)), "--loads: %v; a load is above 0, and on processes a whole number", x)
	}
	fault(!(c.TCP > 0 && c.TCP <= 1e6 && c.Fast > 0 && c.Fast <= 1e6), "--tcp-bandwidth and --fast-bandwidth are %v and %v GB/s; they must be above 0", c.TCP, c.Fast)
	for _, name := range c.Only {
		fault(!slices.ContainsFunc(servings, func(s serving) bool { return s.name == name }), "--only: there is no %q; there are agg, agg+kv, tcp, fast, +kv and full", name)
	}
	fault(c.TTFT <= 0 || c.ITL <= 0, "--ttft and --itl are %v and %v; they must be above 0", c.TTFT, c.ITL)
	fault(c.Trace != "" && !simulated, "a trace is for simulated fleets (--on sim); on processes --input-tokens and --output-tokens say what is asked")
	return errors.Join(faults...)
}

// servings are those that are asked for.
func (c *benchDisaggCmd) servings() []serving {
	if len(c.Only) == 0 {
		return servings
	}
	return slices.DeleteFunc(slices.Clone(servings), func(s serving) bool { return !slices.Contains(c.Only, s.name) })
}

// bandwidth is that of the path, in GB/s.
func (c *benchDisaggCmd) bandwidth(s *serving) float64 {
	if s.fast {
		return c.Fast
	}
	return c.TCP
}

// played is the trace, and the requests a second at its own pace.
type played struct {
	requests []trace.Request
	rate     float64
}

// all yields the requests; at once has all of them come together.
func (p *played) all(atOnce bool) iter.Seq2[trace.Request, error] {
	return func(yield func(trace.Request, error) bool) {
		for _, q := range p.requests {
			if atOnce {
				q.At = 0
			}
			if !yield(q, nil) {
				return
			}
		}
	}
}

// read reads the requests, without their sessions: the load is to be what is said, and not
// to wait for slow answers.
func (c *benchDisaggCmd) read(a *app) (*played, error) {
	var all iter.Seq2[trace.Request, error]
	if c.Trace != "" {
		in := traceInput{File: c.Trace, Format: c.TraceFormat}
		from, done, err := in.read(a)
		if err != nil {
			return nil, err
		}
		defer done()
		all = from
	} else {
		s, err := trace.Preset(c.Preset)
		if err != nil {
			return nil, usageError{error: err}
		}
		s.Seed, s.Requests = c.Seed, c.Requests
		all = s.All()
	}
	p := &played{}
	for q, err := range all {
		if err != nil {
			return nil, err
		}
		q.Session, q.ID, q.After, q.Delay = "", "", nil, 0
		if p.requests = append(p.requests, q); len(p.requests) == c.Requests {
			break
		}
	}
	slices.SortStableFunc(p.requests, func(a, b trace.Request) int { return int(a.At - b.At) })
	n := len(p.requests)
	if n == 0 || p.requests[n-1].At <= p.requests[0].At {
		return nil, usageError{error: errors.New("the trace has fewer than two requests, or all of them at one time; give one that has a rate")}
	}
	first := p.requests[0].At
	for i := range p.requests {
		p.requests[i].At -= first
	}
	p.rate = float64(n-1) / p.requests[n-1].At.Seconds()
	return p, nil
}

// simulate plays the requests to simulated fleets.
func (c *benchDisaggCmd) simulate(ctx context.Context, a *app) (*report.Disagg, error) {
	p, err := c.read(a)
	if err != nil {
		return nil, err
	}
	machine, err := c.machine()
	if err != nil {
		return nil, usageError{error: err}
	}
	most, err := c.capacity(ctx, p, &machine)
	if err != nil {
		return nil, err
	}
	d := &report.Disagg{Subtitle: fmt.Sprintf("%d × %s, simulated", c.GPUs, machine.Name), Facts: []string{
		fmt.Sprintf("%d requests of %s", len(p.requests), c.what()), fmt.Sprintf("aggregated serving does at most %.3g requests a second for each GPU", most/float64(c.GPUs)), buildInfo().Version,
	}}
	for _, s := range c.servings() {
		if !s.apart || c.Prefill > 0 {
			dep, err := c.deployment(ctx, p, &machine, &s, c.Prefill, most)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			d.Deployments = append(d.Deployments, dep)
			continue
		}
		all, best, err := c.ratios(ctx, p, &machine, s, most)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		dep := all[best]
		dep.Name = s.name
		d.Deployments, d.Ratios = append(d.Deployments, dep), all // in the end those of the last
		for i := range all {
			all[i].What = strings.Replace(all[i].What, s.what, "as "+s.name, 1)
		}
	}
	d.At = c.compared()
	return d, nil
}

func (c *benchDisaggCmd) what() string {
	if c.Trace != "" {
		return filepath.Base(c.Trace)
	}
	return c.Preset
}

// compared is the load at which distributions are shown: the highest that is at most 0.8
// of what aggregated serving does, or else the first; on processes the middle one.
func (c *benchDisaggCmd) compared() int {
	if c.On != "sim" {
		return len(c.Loads) / 2
	}
	at := 0
	for i, x := range c.Loads {
		if x <= 0.8 {
			at = i
		}
	}
	return at
}

// machine is one worker.
func (c *benchDisaggCmd) machine() (sim.Group, error) {
	g := sim.DefaultGroup()
	model, kvTokens, err := node.OpenPerfModel(c.PerfModel)
	if err != nil {
		return g, err
	}
	g.Name, g.Model = filepath.Base(c.PerfModel), model
	if kvTokens > 0 {
		g.Blocks = max(1, kvTokens/sim.DefaultConfig().BlockSize)
	}
	if _, m, err := perfmodel.Preset(c.PerfModel); err == nil { // it may be a file
		g.KVBytesPerToken = m.KVBytesPerToken
	}
	return g, nil
}

// config is a simulation of a serving with so many prefill workers.
func (c *benchDisaggCmd) config(p *played, machine *sim.Group, s *serving, prefill int) sim.Config {
	cfg := sim.DefaultConfig()
	cfg.Policy, cfg.Seed, cfg.Split = placement.DefaultParams(s.policy), c.Seed, s.split
	cfg.TransferBandwidth, cfg.TransferMissing = c.bandwidth(s)*1e9, s.missing
	cfg.Goodput = map[string]time.Duration{"ttft": c.TTFT, "itl": c.ITL}
	cfg.Trace, cfg.Again, cfg.Records = p.all(false), true, true
	whole := *machine
	whole.Count = c.GPUs
	if cfg.Fleet = []sim.Group{whole}; s.apart {
		first, second := *machine, *machine
		first.Count, first.Role = prefill, placement.Prefill
		second.Count, second.Role = c.GPUs-prefill, placement.Decode
		cfg.Fleet = []sim.Group{first, second}
	}
	return cfg
}

// capacity is how many requests a second the aggregated fleet serves when all come at
// once.
func (c *benchDisaggCmd) capacity(ctx context.Context, p *played, machine *sim.Group) (float64, error) {
	cfg := c.config(p, machine, &servings[0], 0)
	cfg.Trace, cfg.Queue, cfg.Wait, cfg.Records = p.all(true), len(p.requests), 1000*time.Hour, false
	r, err := sim.Run(ctx, cfg)
	if err != nil {
		return 0, err
	}
	if r.Bench.RequestThroughput <= 0 {
		return 0, errors.New("the fleet serves none of the requests; are they longer than its KV caches?")
	}
	return r.Bench.RequestThroughput, nil
}

// ratios tries numbers of prefill workers, and says which of the deployments has most
// goodput.
func (c *benchDisaggCmd) ratios(ctx context.Context, p *played, machine *sim.Group, s serving, most float64) (all []report.Deployment, best int, err error) {
	top := -1.0
	step := max(1, (c.GPUs-1+disaggRatios-1)/disaggRatios)
	for prefill := 1; prefill < c.GPUs && len(all) < disaggRatios; prefill += step {
		s.name = fmt.Sprintf("%dP%dD", prefill, c.GPUs-prefill)
		dep, err := c.deployment(ctx, p, machine, &s, prefill, most)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", s.name, err)
		}
		for i := range dep.Loads {
			if g := dep.Loads[i].Result.Goodput; g > top {
				top, best = g, len(all)
			}
		}
		all = append(all, dep)
	}
	return all, best, nil
}

// deployment runs a serving under each load.
func (c *benchDisaggCmd) deployment(ctx context.Context, p *played, machine *sim.Group, s *serving, prefill int, most float64) (report.Deployment, error) {
	dep := report.Deployment{Name: s.name, What: s.what, GPUs: c.GPUs}
	cfg := c.config(p, machine, s, prefill)
	if dep.What += fmt.Sprintf(": %s", describeFleet(cfg.Fleet)); s.apart {
		dep.What += ", " + strconv.FormatFloat(c.bandwidth(s), 'g', 4, 64) + " GB/s"
	}
	for i, share := range c.Loads {
		cfg.Speedup = most * share / p.rate
		debug.FreeOSMemory() // what the run before left
		r, err := sim.Run(ctx, cfg)
		if err != nil {
			return dep, err
		}
		r.Bench.Machine, r.Bench.Version = "simulated", buildInfo().Version
		r.Bench.E2EHist, r.Bench.InputHist, r.Bench.OutputHist = nil, nil, nil // not shown, and large
		if i != c.compared() {
			r.Bench.TTFTHist, r.Bench.ITLHist = nil, nil
		}
		l := report.Load{Offered: most * share / float64(c.GPUs), Result: r.Bench, HitRate: r.HitRate}
		if h := r.Handovers; h != nil {
			l.Moved = report.Moved{Apart: h.Apart, Bytes: h.Bytes, Transfer: h.Transfer, Overhead: report.Overhead(r.Records)}
		}
		dep.Loads = append(dep.Loads, l)
	}
	return dep, nil
}
