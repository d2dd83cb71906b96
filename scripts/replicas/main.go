// Command replicas measures frontends side by side over the same workers: whether many
// find as much in the workers' caches as one does, what becomes of requests when one is
// killed, how soon it knows again who holds what, and whether events that are lost on
// the way are found and mended.
//
//	go run ./scripts/replicas [-dynamo BINARY] [-model MODEL] [-short]
//
// It starts `dynamo mocker` and `dynamo frontend` processes on this machine, puts the
// same chats on one frontend and on all, under one seed, and prints one table. The part
// "return" fills the workers' caches with blocks of one token, as many as the flag says,
// because it is their number that counts. It ends with 1 if a bound is broken.
//
// With -short it is a form of a minute for continuous integration: smaller, and what
// depends on how busy the machine is is printed, but no reason to fail.
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
	short                      bool
}

// shorten sets what makes a form of a minute, but for flags that were given.
func (o *options) shorten() {
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for _, f := range []struct{ name, value string }{
		{"workers", "4"}, {"replicas", "3"}, {"blocks", "100000"}, {"speedup", "3"}, {"parts", "hits,kill,return,repair"},
	} {
		if !given[f.name] {
			if err := flag.Set(f.name, f.value); err != nil {
				panic("BUG: " + f.name + ": " + err.Error())
			}
		}
	}
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
	flag.DurationVar(&o.length, "time", time.Minute, "length of a run")
	flag.Uint64Var(&o.seed, "seed", 1, "of the chats")
	flag.StringVar(&o.parts, "parts", "hits,bursts,kill,return,repair", "what to measure")
	flag.BoolVar(&o.short, "short", false, "a form of a minute, which judges no times")
	flag.Parse()
	if o.short {
		o.shorten()
	}
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
	}{{"hits", o.hits}, {"bursts", o.burst}, {"kill", o.kill}, {"return", o.comeBack}, {"repair", o.repair}} {
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
