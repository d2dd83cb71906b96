package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/report"
	"github.com/dynamo-go/dynamo/bench/stats"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/router/placement"
)

// benchDisaggLive says what is asked of processes.
type benchDisaggLive struct {
	Model         string  `help:"Model that processes serve, or whose tokenizer mockers have." default:"smollm2" placeholder:"MODEL" oneoff:""`
	InputTokens   float64 `help:"Length of prompts to processes." default:"384" placeholder:"N" oneoff:""`
	OutputTokens  float64 `help:"Length of their answers." default:"32" placeholder:"N" oneoff:""`
	PrefixGroups  int     `help:"Shared beginnings of those prompts, of which each has one." default:"8" placeholder:"N" oneoff:""`
	PrefixTokens  int     `help:"Length of a shared beginning; it is part of --input-tokens." default:"256" placeholder:"N" oneoff:""`
	PromptIDRange string  `name:"prompt-id-range" help:"Token ids that those prompts are made of." default:"1000-30000" placeholder:"A-B" oneoff:""`
	WorkerThreads int     `help:"Threads of each worker of --on native." default:"1" placeholder:"N" oneoff:""`
	HostCacheGB   float64 `name:"host-cache-gb" help:"Host memory of each worker of --on native for KV that its cache has no room for, in the last of the deployments." default:"0.5" placeholder:"GB" oneoff:""`
}

// Limits of the processes.
const (
	liveStart  = 90 * time.Second // from the start of a process to its ready line
	liveStop   = 20 * time.Second // from SIGTERM to its end
	liveScrape = 5 * time.Second
	liveBody   = 16 << 20
	// liveWarmUp is how many requests are sent before, for each of those open at once.
	liveWarmUp = 2
	// liveName is what the model is served as.
	liveName = "model"
)

// live runs each serving on processes, one after another.
func (c *benchDisaggCmd) live(ctx context.Context, a *app, kctx *kong.Context) (*report.Disagg, error) {
	work, err := os.MkdirTemp("", "dynamo-bench-disagg-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the processes: %w", err)
	}
	defer os.RemoveAll(work)
	d := &report.Disagg{Subtitle: fmt.Sprintf("%d workers of %s on this machine, %s", c.GPUs, c.On, c.Model), Facts: []string{
		fmt.Sprintf("%d requests of %.0f tokens, %d of them shared, and %.0f of answer", c.Requests, c.InputTokens, c.PrefixTokens, c.OutputTokens), buildInfo().Version,
	}}
	settings := benchSettings(kctx)
	for i, s := range c.servings() {
		fmt.Fprintf(a.stderr, "dynamo: %s: %s\n", s.name, s.what)
		dep, err := c.measured(ctx, filepath.Join(work, strconv.Itoa(i)), &s, settings)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		d.Deployments = append(d.Deployments, dep)
	}
	d.At = c.compared()
	return d, nil
}

// measured starts the processes of a serving and puts each load on them.
func (c *benchDisaggCmd) measured(ctx context.Context, dir string, s *serving, settings map[string]string) (dep report.Deployment, err error) {
	f := &liveFleet{dir: dir}
	defer func() { err = errors.Join(err, f.stop()) }()
	if err := c.start(ctx, f, s); err != nil {
		return dep, err
	}
	dep = report.Deployment{Name: s.name, What: s.what + fmt.Sprintf(": %d workers", c.GPUs), GPUs: c.GPUs}
	if s.apart {
		dep.What = s.what + fmt.Sprintf(": %d prefill and %d decode workers", c.Prefill, c.GPUs-c.Prefill)
	}
	for i, load := range c.Loads {
		seed := c.Seed + uint64(i+1)<<32
		if _, _, err := c.load(ctx, f.url, int(load), liveWarmUp*int(load), ^seed, settings); err != nil {
			return dep, fmt.Errorf("warm up: %w", err)
		}
		before, err := f.scrape(ctx)
		if err != nil {
			return dep, err
		}
		r, records, err := c.load(ctx, f.url, int(load), c.Requests, seed, settings)
		if err != nil {
			return dep, err
		}
		after, err := f.scrape(ctx)
		if err != nil {
			return dep, err
		}
		l := report.Load{Offered: load, Closed: true, Result: r, Moved: after.since(before)}
		if in := r.InputTokens.Mean * float64(r.InputTokens.Count); in > 0 {
			l.HitRate = float64(r.CachedTokens) / in
		}
		if s.apart {
			l.Moved.Overhead = report.Overhead(records)
		}
		dep.Loads = append(dep.Loads, l)
	}
	return dep, nil
}

// load sends requests, so many at once.
func (c *benchDisaggCmd) load(ctx context.Context, url string, open, requests int, seed uint64, settings map[string]string) (*bench.Result, []bench.Record, error) {
	cfg := bench.DefaultConfig()
	cfg.URLs, cfg.Model, cfg.Completions, cfg.PromptIDs, cfg.IgnoreEOS = []string{url}, liveName, true, true, true
	cfg.Input, cfg.Output = bench.Lengths{Mean: c.InputTokens}, bench.Lengths{Mean: c.OutputTokens}
	cfg.PrefixGroups, cfg.PrefixTokens = c.PrefixGroups, c.PrefixTokens
	var err error
	if cfg.FirstID, cfg.LastID, err = parseIDRange(c.PromptIDRange); err != nil {
		return nil, nil, usageError{error: err}
	}
	cfg.Concurrency, cfg.Requests, cfg.Seed = open, requests, seed
	cfg.Goodput = map[string]time.Duration{"ttft": c.TTFT, "itl": c.ITL}
	cfg.Settings, cfg.Version = settings, buildInfo().Version
	var records []bench.Record
	cfg.Record = func(r *bench.Record) error {
		records = append(records, *r)
		return nil
	}
	if err := cfg.Validate(); err != nil {
		return nil, nil, asUsage(err)
	}
	r, err := bench.Run(ctx, cfg)
	switch {
	case err != nil:
		return nil, nil, err
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case r.Requests == 0:
		return nil, nil, fmt.Errorf("none of %d requests was answered: %v", requests, r.ErrorDetails)
	}
	return r, records, nil
}

// parseIDRange reads A-B.
func parseIDRange(s string) (first, last dynamo.TokenID, err error) {
	from, to, _ := strings.Cut(s, "-")
	a, err1 := strconv.ParseUint(from, 10, 31)
	b, err2 := strconv.ParseUint(to, 10, 31)
	if err1 != nil || err2 != nil || b < a {
		return 0, 0, fmt.Errorf("--prompt-id-range: %q is not a range such as 1000-30000", s)
	}
	return dynamo.TokenID(a), dynamo.TokenID(b), nil
}

// start starts a frontend and the workers of a serving.
func (c *benchDisaggCmd) start(ctx context.Context, f *liveFleet, s *serving) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	mode := placement.SplitNever
	if s.apart {
		mode = s.split
	}
	common := []string{"--discovery-backend=file", "--run-dir=" + filepath.Join(f.dir, "run"), "--state-dir=" + filepath.Join(f.dir, "state")}
	addr := filepath.Join(f.dir, "addr")
	front := append([]string{"frontend", "--http-port=0", "--addr-file=" + addr, "--router-mode=" + s.policy.String(), "--disaggregation=" + mode.String()}, common...)
	p, err := f.add(ctx, "frontend", front)
	if err != nil {
		return err
	}
	bound, err := os.ReadFile(addr)
	if err != nil {
		return fmt.Errorf("the frontend's address: %w", err)
	}
	f.url = httpURL(strings.TrimSpace(string(bound)))
	p.metrics = f.url
	for i := range c.GPUs {
		role := "agg"
		if s.apart {
			if role = "decode"; i < c.Prefill {
				role = "prefill"
			}
		}
		args := append(c.workerArgs(s, role), common...)
		if _, err := f.add(ctx, fmt.Sprintf("worker %d (%s)", i, role), args); err != nil {
			return err
		}
	}
	return f.listed(ctx)
}

// workerArgs is the command line of a worker.
func (c *benchDisaggCmd) workerArgs(s *serving, role string) []string {
	args := []string{"worker", c.Model, "--model-name=" + liveName, "--engine=" + c.On, "--disaggregation-mode=" + role, "--system-port=0"}
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }
	if c.On == node.EngineMocker {
		timing := "full_prompt"
		if s.missing {
			timing = "destination_missing"
		}
		return append(args, "--perf-model="+c.PerfModel, "--kv-transfer-bandwidth="+number(c.bandwidth(s)), "--kv-transfer-timing-mode="+timing)
	}
	path := "tcp"
	if s.fast {
		path = "auto"
	}
	if args = append(args, "--threads="+strconv.Itoa(c.WorkerThreads), "--kv-transfer="+path); s.tiers && c.HostCacheGB > 0 {
		args = append(args, "--kvbm-cpu-cache-gb="+number(c.HostCacheGB))
	}
	return args
}

// liveFleet is the processes of a serving.
type liveFleet struct {
	dir, url  string
	processes []*liveProcess
}

// liveProcess is one of them; a goroutine reads what it prints, waits for it and closes
// ended.
type liveProcess struct {
	name    string
	cmd     *exec.Cmd
	log     string
	metrics string // address of them
	lines   chan string
	ended   chan struct{}
}

// add starts a process and waits until it is ready.
func (f *liveFleet) add(ctx context.Context, name string, args []string) (*liveProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	p := &liveProcess{name: name, cmd: exec.Command(self, args...), lines: make(chan string, 2), ended: make(chan struct{})}
	p.log = filepath.Join(f.dir, fmt.Sprintf("%d.log", len(f.processes)))
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	p.cmd.Stderr = out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches this process alone
	stdout, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), out.Close())
	}
	f.processes = append(f.processes, p)
	go func() { // ends with the process
		defer close(p.ended)
		defer out.Close()
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, maxWorkerLine)
		for lines.Scan() {
			select {
			case p.lines <- lines.Text():
			default: // nobody waits for more
			}
		}
		_, _ = io.Copy(io.Discard, stdout) // after a line too long
		_ = p.cmd.Wait()                   // how it ended is of no interest once it was ready
	}()
	return p, p.ready(ctx, args[0] == "worker")
}

// ready waits for the ready line, and for a worker's line that says where its metrics are.
func (p *liveProcess) ready(ctx context.Context, worker bool) error {
	late := time.NewTimer(liveStart)
	defer late.Stop()
	for {
		select {
		case line := <-p.lines:
			rest, ok := strings.CutPrefix(line, "look:  curl ")
			if ok {
				p.metrics, _, _ = strings.Cut(rest, "/health")
			}
			if ok || !worker && strings.HasPrefix(line, "ready: ") {
				return nil
			}
		case <-p.ended:
			said, _ := os.ReadFile(p.log) // for the message alone
			return fmt.Errorf("%s ended before it was ready: %s", p.name, said[max(0, len(said)-600):])
		case <-late.C:
			return fmt.Errorf("%s was not ready within %v", p.name, liveStart)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// listed waits until the frontend serves the model.
func (f *liveFleet) listed(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, liveStart, fmt.Errorf("the frontend did not list the model within %v", liveStart))
	defer cancel()
	for {
		body, err := fetch(ctx, f.url+"/v1/models")
		if err == nil && strings.Contains(string(body), `"`+liveName+`"`) {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// stop ends all processes, the frontend first.
func (f *liveFleet) stop() error {
	var faults []error
	for _, p := range f.processes {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	}
	for _, p := range f.processes {
		select {
		case <-p.ended:
		case <-time.After(liveStop):
			_ = p.cmd.Process.Kill() // it may have ended just now
			<-p.ended
			faults = append(faults, fmt.Errorf("%s did not end within %v and was killed", p.name, liveStop))
		}
	}
	return errors.Join(faults...)
}

// fetch reads a page.
func fetch(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, liveScrape)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, r.Status)
	}
	return io.ReadAll(io.LimitReader(r.Body, liveBody))
}

// sums are metrics by name and labels, summed over the processes.
type sums map[string]float64

// scrape reads the metrics of all processes.
func (f *liveFleet) scrape(ctx context.Context) (sums, error) {
	all := sums{}
	for _, p := range f.processes {
		body, err := fetch(ctx, p.metrics+"/metrics")
		if err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", p.name, err)
		}
		for line := range strings.Lines(string(body)) {
			at := strings.LastIndexByte(line, ' ')
			if at < 0 || strings.HasPrefix(line, "#") {
				continue
			}
			if v, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64); err == nil {
				all[line[:at]] += v
			}
		}
	}
	return all, nil
}

// transferTime is the histogram of how long KV took.
const transferTime = "dynamo_native_handover_seconds"

// since is what was moved between two scrapes.
func (s sums) since(before sums) report.Moved {
	grown := func(name string) float64 { return s[name] - before[name] }
	m := report.Moved{Apart: int(grown(`dynamo_disagg_requests_total{path="handover"}`)), Bytes: grown("dynamo_native_handover_bytes_total")}
	var h stats.Histogram
	low := 0.0
	for _, b := range s.buckets(before) {
		for range int(b.count) {
			h.Record((low + b.bound) / 2)
		}
		low = b.bound
	}
	if m.Transfer = h.Summary(); m.Transfer.Count > 0 {
		m.Transfer.Mean = grown(transferTime+"_sum") / grown(transferTime+"_count")
	}
	return m
}

// bucket is how many values a histogram has between the bound before and its own.
type bucket struct{ bound, count float64 }

// buckets are those of transferTime that have grown, by their bounds. Values above the
// last bound are left out.
func (s sums) buckets(before sums) []bucket {
	var all []bucket
	for name, n := range s {
		rest, ok := strings.CutPrefix(name, transferTime+`_bucket{le="`)
		bound, err := strconv.ParseFloat(strings.TrimSuffix(rest, `"}`), 64)
		if ok && err == nil && !math.IsInf(bound, 0) {
			all = append(all, bucket{bound, n - before[name]})
		}
	}
	slices.SortFunc(all, func(a, b bucket) int { return cmp.Compare(a.bound, b.bound) })
	for i := len(all) - 1; i > 0; i-- {
		all[i].count -= all[i-1].count
	}
	return all
}
