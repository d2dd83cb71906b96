// Command dynamo serves language models over OpenAI's HTTP API: one binary whose
// subcommands are the roles and tools of the system. Its users are people at a
// terminal, scripts and service managers.
//
// It owns what a process owns and no other package touches: the command line,
// the environment, the configuration file, signals, the terminal and exit codes
// (0 done, 1 failed, 2 bad usage). Everything else it asks of node and hub.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// commands is the command table; each subcommand has its file.
type commands struct {
	globalFlags

	Serve    serveCmd    `cmd:"" help:"Serve a model over OpenAI's HTTP API: frontend and engine in this process."`
	Frontend frontendCmd `cmd:"" help:"Serve the models of a cluster's workers over OpenAI's HTTP API."`
	Worker   workerCmd   `cmd:"" help:"Run an engine for the frontends of a cluster."`
	Mocker   mockerCmd   `cmd:"" name:"mocker" passthrough:"" help:"Run mockers for the frontends of a cluster: worker --engine mocker, with the reference's arguments."`
	VLLM     vllmCmd     `cmd:"" name:"vllm" passthrough:"" help:"Run a vLLM for the frontends of a cluster: worker --engine vllm, with the reference's arguments."`
	Router   routerCmd   `cmd:"" help:"Say which worker a request should go to: routing alone, over HTTP, for other gateways."`
	Status   statusCmd   `cmd:"" help:"Show the workers of a cluster: models, health, load."`
	Top      topCmd      `cmd:"" help:"Watch a frontend's routers: workers, load, hit rate, last decisions."`
	Explain  explainCmd  `cmd:"" help:"Say why a request went to its worker: candidates, costs, what would have changed it."`
	Drain    drainCmd    `cmd:"" help:"Let a worker finish or hand over its requests and leave the cluster."`
	Run      runCmd      `cmd:"" help:"Ask a model one question, or chat with it in the terminal."`
	Pull     pullCmd     `cmd:"" help:"Fetch a model into the cache, or verify or refresh it there."`
	Models   modelsCmd   `cmd:"" help:"List the models in the cache."`
	KVBM     kvbmCmd     `cmd:"" name:"kvbm" help:"Keep KV for the engines of this host: a daemon that outlives them."`
	KV       kvCmd       `cmd:"" name:"kv" help:"Look after the KV kept below engines' caches: list, check, give up, bring nearer."`
	Trace    traceCmd    `cmd:"" help:"Make, describe, change and anonymize traces of requests."`
	Bench    benchCmd    `cmd:"" help:"Put load on an endpoint and measure it: latencies, throughput, goodput."`
	Replay   replayCmd   `cmd:"" help:"Play a trace against a simulated fleet, and compare ways of routing."`
	Config   configCmd   `cmd:"" help:"Show the configuration."`
	Doctor   doctorCmd   `cmd:"" help:"Check this machine: CPU, memory, disk, model cache, ports, Python."`
	Version  versionCmd  `cmd:"" help:"Show the version."`
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(run(os.Args[1:])) }

// run is the whole program; tests call it as a subcommand of their own.
func run(args []string) int {
	a := &app{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr}
	err := a.dispatch(args)
	var done exitRequest
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &done):
		return int(done)
	case errors.As(err, &usage):
		fmt.Fprintf(a.stderr, "dynamo: %v\n", err)
		if usage.command != "" {
			fmt.Fprintf(a.stderr, "run %q for the flags and their meaning\n", usage.command+" --help")
		}
		return exitUsage
	}
	fmt.Fprintf(a.stderr, "dynamo: %v\n", err)
	return exitFailed
}

// app is what every subcommand is run with.
type app struct {
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	flags    *globalFlags
	settings *settings
}

// usageError is a mistake in how the program was called: exit code 2.
type usageError struct {
	error
	command string // whose help to offer
}

// Unwrap returns the mistake.
func (u usageError) Unwrap() error { return u.error }

// exitRequest ends the program with a code and says nothing more.
type exitRequest int

// Error makes exitRequest an error.
func (e exitRequest) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// dispatch parses args and runs the subcommand.
func (a *app) dispatch(args []string) error {
	var c commands
	a.settings = &settings{env: os.LookupEnv}
	helped := false
	parser, err := kong.New(&c,
		kong.Name("dynamo"),
		kong.Description("Serve language models on your own machines.\n\nEvery flag can also be set by the environment variable named beside it and by a key of the same name in a YAML file (--config); a flag goes before the environment, the environment before the file."),
		kong.Writers(a.stdout, a.stderr),
		kong.Exit(func(int) { helped = true }),
		kong.Resolvers(a.settings),
		kong.ValueFormatter(helpText),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.UsageOnError(),
		variables(),
	)
	if err != nil {
		return fmt.Errorf("build the command table: %w", err)
	}
	a.settings.know(parser.Model)
	if len(args) == 0 {
		args = []string{"--help"}
	}
	ctx, err := parser.Parse(args)
	if helped {
		return exitRequest(exitOK)
	}
	if err != nil {
		return usage(parser, ctx, err)
	}
	a.flags = &c.globalFlags
	a.settings.finish(ctx)
	if err := ctx.Run(a); err != nil {
		var u usageError
		if errors.As(err, &u) && u.command == "" {
			return usageError{u.error, ctx.Selected().FullPath()}
		}
		return err
	}
	return nil
}

// usage turns a mistake that the parser found into one that names the command
// whose help is of use.
func usage(parser *kong.Kong, ctx *kong.Context, err error) error {
	var p *kong.ParseError
	if errors.As(err, &p) {
		ctx = p.Context
	}
	command := parser.Model.Name
	if ctx != nil {
		if n := ctx.Selected(); n != nil {
			command = n.FullPath()
		}
	}
	var u usageError
	if errors.As(err, &u) {
		err = u.error
	}
	return usageError{err, command}
}

// untilSignal returns a context that the first SIGINT or SIGTERM cancels with a
// cause naming it. The second ends the process at once with exit code 1. One
// goroutine waits for them; stop ends it.
func untilSignal(parent context.Context, stderr io.Writer) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals, quit, gone := make(chan os.Signal, 2), make(chan struct{}), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(gone)
		for n := 0; ; n++ {
			select {
			case s := <-signals:
				if n > 0 {
					fmt.Fprintln(stderr, "dynamo: second signal: stopping at once")
					os.Exit(exitFailed)
				}
				cancel(interrupted{s})
			case <-quit:
				return
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(quit)
		<-gone
		cancel(nil)
	}
}

// interrupted is the cause of a context that a signal cancelled.
type interrupted struct{ os.Signal }

// Error names the signal.
func (i interrupted) Error() string { return "interrupted (" + i.Signal.String() + ")" }
