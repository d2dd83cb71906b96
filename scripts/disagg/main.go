// Command disagg checks on real processes that answers whose prompts one worker computes
// and which go on at another are those that one worker gives alone. It asks random
// requests of an aggregated cluster of the embedded engine, then of one of prefill and
// decode workers while workers of either part are killed, drained and started, and compares
// every answer. It prints how many are identical and where the KV went, and exits 1 if one
// differs.
//
//	go run ./scripts/disagg [-bin FILE] [-model MODEL] [-n REQUESTS] [-prefill N] [-decode N] [-transfer auto|tcp] [-split always|auto] [-faults kill,drain,stop] [-seed N]
//
// It is run by people and, through run.sh, by .ci/run. Laws: no port is fixed; every wait,
// request and process has a time limit, and so has the whole run; every process it starts
// ends with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	bin, model, transfer, faults string
	split                        string
	requests, parallel           int
	prefill, decode              int
	seed                         uint64
	every, limit                 time.Duration
	keep                         bool
	work                         string // where everything of this run lies
}

func main() {
	o := &options{}
	flag.StringVar(&o.bin, "bin", "", "dynamo binary; empty builds one")
	flag.StringVar(&o.model, "model", "smollm2", "what is served")
	flag.StringVar(&o.transfer, "transfer", "auto", "how KV moves: auto or tcp")
	flag.StringVar(&o.split, "split", "always", "the frontend's --disaggregation: always, auto or never")
	flag.StringVar(&o.faults, "faults", "kill,drain", "what happens to workers in turn: some of kill, drain and stop (SIGSTOP, and kill after a while), or none (empty)")
	flag.IntVar(&o.requests, "n", 500, "requests")
	flag.IntVar(&o.parallel, "c", 6, "requests at once")
	flag.IntVar(&o.prefill, "prefill", 2, "prefill workers")
	flag.IntVar(&o.decode, "decode", 2, "decode workers")
	flag.Uint64Var(&o.seed, "seed", 1, "of the requests and the faults")
	flag.DurationVar(&o.every, "every", 2500*time.Millisecond, "time between two faults")
	flag.DurationVar(&o.limit, "limit", 9*time.Minute, "end the whole run, failed, after this time")
	flag.BoolVar(&o.keep, "keep", false, "keep the logs of a run that passes")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "disagg:", err)
		os.Exit(1)
	}
}

func run(o *options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("the run took longer than %v (-limit)", o.limit))
	defer cancel()
	if o.requests < 1 || o.requests > maxRequests || o.parallel < 1 || o.parallel > maxParallel || o.prefill < 1 || o.decode < 1 || o.prefill+o.decode > maxWorkers {
		return fmt.Errorf("-n must be 1 to %d, -c 1 to %d, -prefill and -decode 1 or more and together at most %d", maxRequests, maxParallel, maxWorkers)
	}
	if o.work, err = os.MkdirTemp("", "disagg-"); err != nil {
		return fmt.Errorf("make a directory for the run: %w", err)
	}
	defer func() {
		if err != nil || o.keep {
			fmt.Println("logs lie in", o.work)
			return
		}
		err = os.RemoveAll(o.work)
	}()
	if err := build(ctx, o); err != nil {
		return err
	}
	requests := randomRequests(o.seed, o.requests)
	whole, err := aggregated(ctx, o, requests)
	if err != nil {
		return err
	}
	return disaggregated(ctx, o, requests, whole)
}

// build makes the binary if none was given.
func build(ctx context.Context, o *options) (err error) {
	if o.bin == "" {
		o.bin = filepath.Join(o.work, "dynamo")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", o.bin, "./cmd/dynamo").CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	o.bin, err = filepath.Abs(o.bin)
	return err
}

// aggregated asks one worker that does all.
func aggregated(ctx context.Context, o *options, requests []request) ([]answer, error) {
	c, err := startCluster(ctx, o, "aggregated", "agg")
	defer c.stop()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	answers, err := c.askAll(ctx, requests)
	if err != nil {
		return nil, fmt.Errorf("aggregated: %w", err)
	}
	fmt.Printf("aggregated: %d answers of %d tokens in %.0f s\n", len(answers), tokens(answers), time.Since(began).Seconds())
	return answers, nil
}

// disaggregated asks workers of two parts while they are disturbed, and compares.
func disaggregated(ctx context.Context, o *options, requests []request, whole []answer) error {
	var roles []string
	for range o.prefill {
		roles = append(roles, "prefill")
	}
	for range o.decode {
		roles = append(roles, "decode")
	}
	c, err := startCluster(ctx, o, "disaggregated", roles...)
	defer c.stop()
	if err != nil {
		return err
	}
	began := time.Now()
	calm, disturbed := make(chan struct{}), make(chan disturbance, 1)
	go func() { disturbed <- c.disturb(ctx, calm) }() // ends with calm
	answers, err := c.askAll(ctx, requests)
	close(calm)
	d := <-disturbed
	if err = errors.Join(err, d.err); err != nil {
		return fmt.Errorf("disaggregated: %w", err)
	}
	took := time.Since(began)
	idle := c.idle(ctx)
	c.collect(ctx, c.workers...)
	same := 0
	for i := range answers {
		if difference := answers[i].differs(&whole[i]); difference == "" {
			same++
		} else if len(requests)-same < maxShown {
			fmt.Printf("request %d (%s) differs: %s\n", i, requests[i].body, difference)
		}
	}
	paths, err := c.frontendCounts(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("disaggregated %dP%dD, %s: %d answers in %.0f s; killed %d prefill and %d decode workers, drained %d, stopped %d\n",
		o.prefill, o.decode, o.transfer, len(answers), took.Seconds(), d.killed["prefill"], d.killed["decode"], d.drained, d.stopped)
	fmt.Printf("served by: %s\n", paths)
	fmt.Printf("KV, as workers said that were asked before their end: %s\n", c.kv)
	fmt.Printf("identical %d/%d\n", same, len(answers))
	stopped, killed, stranded := c.strand(ctx, requests)
	fmt.Printf("under load, the frontend is stopped: workers hold nothing %d ms later; it is killed: %d ms\n", stopped.Milliseconds(), killed.Milliseconds())
	switch {
	case same < len(answers):
		return errors.New("answers differ")
	case idle != nil:
		return fmt.Errorf("after the last answer: %w", idle)
	case stranded != nil:
		return stranded
	case c.kv["taken"] == 0:
		return errors.New("no KV was taken over; nothing was tested")
	case strings.Contains(o.faults, "kill") && d.killed["prefill"]*d.killed["decode"] == 0:
		return errors.New("no worker of one of the parts was killed; ask for more requests (-n) or more faults (-every)")
	}
	return nil
}
