// Command replicas measures frontends side by side over the same workers: whether many
// find as much in the workers' caches as one does, what becomes of requests when one is
// killed, and how soon it knows again who holds what.
//
//	go run ./scripts/replicas [-dynamo BINARY] [-model MODEL]
//
// It starts `dynamo mocker` and `dynamo frontend` processes on this machine, puts the
// same chats on one frontend and on all, under one seed, and prints one table. The
// last part fills the workers' caches with blocks of one token, as many as the flag
// says, because it is their number that counts. It ends with 1 if a bound is broken.
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
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	binary, model, perf, modes string
	workers, replicas, blocks  int
	rate, speedup              float64
	length                     time.Duration
	seed                       uint64
	parts                      string
}

func main() {
	o := options{}
	flag.StringVar(&o.binary, "dynamo", "", "the binary to measure; empty builds it")
	flag.StringVar(&o.model, "model", "smollm2", "model whose files name the tokenizer")
	flag.StringVar(&o.perf, "perf-model", "h200-8b", "how long the workers' steps take")
	flag.StringVar(&o.modes, "mode", "kv", "routing mode")
	flag.IntVar(&o.workers, "workers", 8, "mock workers")
	flag.IntVar(&o.replicas, "replicas", 8, "frontends")
	flag.IntVar(&o.blocks, "blocks", 2_000_000, "blocks of the caches in the last part")
	flag.Float64Var(&o.rate, "rate", 25, "requests a second")
	flag.Float64Var(&o.speedup, "speedup", 0.1, "of the workers: less loads them more")
	flag.DurationVar(&o.length, "time", 30*time.Second, "length of a run")
	flag.Uint64Var(&o.seed, "seed", 1, "of the chats")
	flag.StringVar(&o.parts, "parts", "hits,bursts,kill,return", "what to measure")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "replicas:", err)
		os.Exit(1)
	}
}

// run measures and prints. Its error is a bound that is broken, or why it could not.
func (o *options) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "replicas-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.binary == "" {
		o.binary = filepath.Join(dir, "dynamo")
		build := exec.CommandContext(ctx, "go", "build", "-o", o.binary, "./cmd/dynamo")
		build.Env = append(build.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build dynamo: %w: %s", err, out)
		}
	}
	if out, err := exec.CommandContext(ctx, o.binary, "pull", o.model).CombinedOutput(); err != nil {
		return fmt.Errorf("dynamo pull %s: %w: %s", o.model, err, out)
	}
	t := &table{}
	defer t.print()
	var broken []error
	for _, part := range []struct {
		name string
		run  func(context.Context, string, *table) error
	}{{"hits", o.hits}, {"bursts", o.burst}, {"kill", o.kill}, {"return", o.comeBack}} {
		if !listed(o.parts, part.name) {
			continue
		}
		sub, err := os.MkdirTemp(dir, part.name+"-")
		if err != nil {
			return err
		}
		if err := part.run(ctx, sub, t); err != nil {
			broken = append(broken, fmt.Errorf("%s: %w", part.name, err))
		}
	}
	return errors.Join(broken...)
}
