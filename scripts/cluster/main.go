// Command cluster checks on real processes that no request is lost: for each
// scenario it starts frontends and workers on loopback, streams requests through
// them, kills, stops, cuts off or confuses one part, and compares every stream
// with the same request's undisturbed answer. It prints one line a check with
// counts and exits 1 if one fails. With -bench it measures processes instead.
//
//	go run ./scripts/cluster [-bin FILE] [-etcd FILE] [-store file|etcd|both] [-run REGEXP] [-engine echo|native|both] [-long] [-bench]
//
// It is run by people and by .ci/run. Laws: every scenario has a fresh cluster
// with a directory of its own; no port is fixed; every wait, request and process
// has a time limit, and so has the whole run; every process it starts ends with
// it.
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
	"regexp"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	bin, etcd  string
	stores     []string
	engines    []string
	run        *regexp.Regexp
	limit      time.Duration
	outage     time.Duration // how long a store is away
	keep       bool
	verbose    bool
	bench      bool
	work       string // where everything of this run lies
	concurrent int
}

func main() {
	o, err := parse()
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func parse() (*options, error) {
	o := &options{}
	flag.StringVar(&o.bin, "bin", "", "dynamo binary; empty builds one")
	flag.StringVar(&o.etcd, "etcd", "", "etcd test server (scripts/etcd); empty builds one when it is needed")
	store := flag.String("store", "both", "discovery store: file, etcd or both")
	engine := flag.String("engine", "both", "engine of the workers: echo, native or both; each has its own scenarios")
	pattern := flag.String("run", "", "run only scenarios whose name matches this expression")
	long := flag.Bool("long", false, "take the store away for 60 s instead of 15 s")
	flag.DurationVar(&o.limit, "limit", 9*time.Minute, "end the whole run, failed, after this time")
	flag.IntVar(&o.concurrent, "c", 96, "concurrent streams")
	flag.BoolVar(&o.keep, "keep", false, "keep logs and stores of scenarios that pass")
	flag.BoolVar(&o.verbose, "v", false, "print what is done")
	flag.BoolVar(&o.bench, "bench", false, "measure processes instead of checking them")
	flag.Parse()
	var err error
	if o.stores, err = choice("-store", *store, storeFile, storeEtcd); err != nil {
		return nil, err
	}
	if o.engines, err = choice("-engine", *engine, engineEcho, engineNative); err != nil {
		return nil, err
	}
	if o.run, err = regexp.Compile("(?i)" + *pattern); err != nil {
		return nil, fmt.Errorf("-run: %w", err)
	}
	if o.outage = shortOutage; *long {
		o.outage = longOutage
	}
	if o.concurrent < 1 || o.concurrent > maxConcurrent {
		return nil, fmt.Errorf("-c is %d; it must be 1 to %d", o.concurrent, maxConcurrent)
	}
	return o, nil
}

// choice reads a flag that names one of two things or both.
func choice(name, value, first, second string) ([]string, error) {
	switch value {
	case "both":
		return []string{first, second}, nil
	case first, second:
		return []string{value}, nil
	}
	return nil, fmt.Errorf("%s: %q is not one of %s, %s, both", name, value, first, second)
}

var errFailed = errors.New("some checks failed")

func run(o *options) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("the run took longer than %v (-limit)", o.limit))
	defer cancel()
	if o.work, err = os.MkdirTemp("", "cluster-"); err != nil {
		return fmt.Errorf("make a directory for the run: %w", err)
	}
	defer func() {
		if err != nil || o.keep {
			fmt.Println("logs and stores lie in", o.work)
			return
		}
		err = os.RemoveAll(o.work)
	}()
	if err := build(ctx, o); err != nil {
		return err
	}
	if o.bench {
		return bench(ctx, o)
	}
	began := time.Now()
	r := &report{verbose: o.verbose}
	for _, s := range scenarios {
		for _, store := range o.stores {
			if s.wanted(o, store) && ctx.Err() == nil {
				r.scenario(ctx, o, s, store)
			}
		}
	}
	fmt.Printf("%d checks: %d ok, %d failed, %d skipped; %.0f s\n", r.passed+r.failed+r.skipped, r.passed, r.failed, r.skipped, time.Since(began).Seconds())
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if r.failed > 0 {
		return errFailed
	}
	if r.passed == 0 {
		return errors.New("no scenario matches -run, -store and -engine")
	}
	return nil
}

// build makes the binaries that were not given.
func build(ctx context.Context, o *options) error {
	etcd := strings.Contains(strings.Join(o.stores, " "), storeEtcd) && !o.bench
	for _, b := range []struct {
		path *string
		need bool
		args []string
	}{
		{&o.bin, true, []string{"build", "-o", filepath.Join(o.work, "dynamo"), "./cmd/dynamo"}},
		{&o.etcd, etcd, []string{"build", "-C", "scripts/etcd", "-o", filepath.Join(o.work, "etcd"), "."}},
	} {
		if !b.need {
			continue
		}
		if *b.path == "" {
			cmd := exec.CommandContext(ctx, "go", b.args...)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("go %s: %w\n%s", strings.Join(b.args, " "), err, out)
			}
			*b.path = b.args[len(b.args)-2]
		}
		absolute, err := filepath.Abs(*b.path)
		if err != nil {
			return fmt.Errorf("find %s: %w", *b.path, err)
		}
		*b.path = absolute
	}
	return nil
}
