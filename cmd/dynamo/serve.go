package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo/hub"
	"github.com/dynamo-go/dynamo/node"
)

// engineFlags describe the model's engine, wherever it runs.
type engineFlags struct {
	Engine         string        `help:"native computes the model in this process; vllm is an unmodified vLLM server, attached to (--engine-url) or started here; openai is any server of OpenAI's API, in text; mocker schedules and caches like native and lets the time of a GPU pass, but computes nothing; echo answers with the prompt's own tokens, for tests and for measuring everything but the model." enum:"native,vllm,openai,mocker,echo" default:"native"`
	EngineURL      addresses     `name:"engine-url" help:"Running server to attach to, as http://HOST:PORT, for --engine vllm and openai. Given several times, or several separated by commas, 'dynamo serve' spreads requests over all of them." placeholder:"URL"`
	EngineCommand  string        `help:"vllm executable that --engine vllm starts where there is no --engine-url; arguments after -- go to 'vllm serve'." default:"vllm" placeholder:"FILE"`
	EngineModel    string        `help:"What the server of --engine openai calls the model. Default: the name it is served under here." placeholder:"NAME"`
	EngineAPIKey   string        `name:"engine-api-key" help:"API key of the server of --engine-url, or the one that a vllm started here demands. Better set in the environment." placeholder:"KEY" secret:""`
	EngineCA       string        `name:"engine-ca" help:"PEM file of the certificates that the server of an https --engine-url is trusted by. Default: the machine's." placeholder:"FILE"`
	EngineInsecure bool          `help:"Take any certificate of an https --engine-url, of whoever shows it: for tests." negatable:""`
	EngineTimeout  time.Duration `help:"How long the server of --engine openai may send nothing while a request waits for it; 0 is no limit." default:"2m"`
	EngineEvents   string        `help:"ZMQ endpoint of the engine's KV events, where it does not say itself, as tcp://HOST:PORT." placeholder:"ENDPOINT"`
	EngineReplay   string        `help:"ZMQ endpoint of their replay." placeholder:"ENDPOINT"`
	EngineTopic    string        `help:"Their topic." placeholder:"TOPIC"`
	EchoITL        time.Duration `name:"echo-itl" help:"Time between two tokens of the echo engine; 0 answers at once." default:"0s"`
	ModelName      string        `help:"Name the model is served under. Default: the alias, org/name, or the file's base name." placeholder:"NAME"`
	ChatTemplate   string        `help:"Jinja file to use instead of the model's own chat template." placeholder:"FILE"`
	ContextLength  int           `help:"Longest sequence, prompt and answer, in tokens. 0: what the model was made for." default:"0" placeholder:"TOKENS"`
	Precision      string        `help:"int8 rounds activations to 8 bits where that is faster; f32 computes in full precision." enum:"int8,f32" default:"int8"`
	KernelLevel    string        `help:"Instruction set of the kernels: auto, or one that 'dynamo doctor' lists." default:"auto" placeholder:"LEVEL"`
	Threads        int           `help:"Threads that compute. 0: one per CPU (${threads} here)." default:"0" placeholder:"N"`
	KVCacheBytes   byteSize      `name:"kv-cache-bytes" help:"Memory for the KV cache, as 512MiB or 4GiB. auto: a quarter of the free memory, at most 16 full contexts." default:"auto" placeholder:"SIZE"`
	PrefixCaching  bool          `help:"Keep the KV of ended requests and reuse it where a prompt begins alike." default:"true" negatable:""`
	StepTokens     int           `help:"Tokens computed in one step of the batch; smaller steps keep the pace of running answers while long prompts are read." default:"512" placeholder:"TOKENS"`
	MaxRunning     int           `help:"Requests computed at once." default:"64" placeholder:"N"`
}

// serveFlags are the configuration of serve.
type serveFlags struct {
	engineFlags
	tierFlags
	mockerFlags
	httpFlags
	clusterFlags
	routingFlags
	tracingFlags

	NumWorkers int  `help:"Workers that serve the model, each a process of its own, or with --in-process an engine in this one. 0: one engine in this process." default:"0" placeholder:"N"`
	Prefill    int  `help:"Workers that compute prompts for others and hand their KV over; with --decode. Like those of --num-workers they are processes, or engines in this one." default:"0" placeholder:"N"`
	Decode     int  `help:"Workers that go on with answers whose prompts others computed." default:"0" placeholder:"N"`
	InProcess  bool `help:"Run the workers' engines in this process." negatable:""`
}

type serveCmd struct {
	Model string `arg:"" optional:"" help:"Alias (smollm2), Hugging Face id (org/name or org/name:file.gguf), model folder or .gguf file. Default: smollm2 ($DYN_MODEL)."`
	serveFlags
}

// Run serves until a signal comes.
func (c *serveCmd) Run(a *app, kctx *kong.Context) error {
	log, err := a.logger("")
	if err != nil {
		return err
	}
	view := newConsole(a.stderr)
	defer view.end()
	h, err := a.hub(log, view.hub)
	if err != nil {
		return err
	}
	cfg, err := c.config(a, log)
	if err != nil {
		return err
	}
	cfg.Progress = view.step
	if err := errors.Join(cfg.Validate(), c.checkWorkers(a)); err != nil {
		return asUsage(err)
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	if c.ownProcesses() {
		return a.unlessAsked(ctx, c.serveProcesses(ctx, a, kctx, h, cfg, view))
	}
	ref, _ := a.settings.model(c.Model)
	began := time.Now()
	err = c.serve(ctx, h, ref, cfg, func(r node.Ready) {
		view.end()
		fmt.Fprint(a.stdout, c.ready(r, time.Since(began)))
	})
	return a.unlessAsked(ctx, err)
}

// unlessAsked passes over the error of a command that was asked to stop before it
// was ready: nothing was promised.
func (a *app) unlessAsked(ctx context.Context, err error) error {
	if _, asked := errors.AsType[interrupted](context.Cause(ctx)); asked && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil
	}
	return err
}

// runNode runs a node until ctx ends.
func (a *app) runNode(ctx context.Context, cfg node.Config) error {
	n, err := node.New(cfg)
	if err != nil {
		if cfg.Listener != nil {
			err = errors.Join(err, cfg.Listener.Close())
		}
		return err
	}
	return a.unlessAsked(ctx, n.Run(ctx))
}

// nodeConfig is what the configuration of every node begins with.
func (a *app) nodeConfig(log *slog.Logger) node.Config {
	cfg := node.DefaultConfig()
	cfg.StateDir, cfg.Version, cfg.Logger = a.flags.StateDir, buildInfo().Version, log
	cfg.Loaded = debug.FreeOSMemory
	return cfg
}

// checkWorkers finds faults in the number of workers.
func (c *serveFlags) checkWorkers(a *app) error {
	for _, f := range []struct {
		flag string
		n    int
	}{{"num-workers", c.NumWorkers}, {"prefill", c.Prefill}, {"decode", c.Decode}} {
		if f.n < 0 || f.n > maxWorkers {
			return fmt.Errorf("--%s is %d; it must be 0 to %d", f.flag, f.n, maxWorkers)
		}
	}
	if c.workers() > maxWorkers {
		return fmt.Errorf("--num-workers, --prefill and --decode are %d together; they must be at most %d", c.workers(), maxWorkers)
	}
	if c.Prefill > 0 && c.NumWorkers+c.Decode == 0 {
		return fmt.Errorf("--prefill is %d and nobody goes on with their prompts; give --decode", c.Prefill)
	}
	if c.ownProcesses() && len(c.EngineURL) > 1 {
		return fmt.Errorf("--num-workers is %d and --engine-url is there %d times; there is one engine for each server: leave --num-workers out, or start a 'dynamo worker' for each", c.NumWorkers, len(c.EngineURL))
	}
	if a.settings.given["discovery-backend"] && !c.ownProcesses() {
		return errors.New("--discovery-backend: the engines run in this process, where nothing is to be found; give --num-workers, or start 'dynamo frontend' and 'dynamo worker'")
	}
	return nil
}

// ownProcesses says whether the workers are processes of their own.
func (c *serveFlags) ownProcesses() bool { return c.workers() > 0 && !c.InProcess }

// workers is the number of workers that are asked for, of all parts.
func (c *serveFlags) workers() int { return c.NumWorkers + c.Prefill + c.Decode }

func (c *serveCmd) serve(ctx context.Context, h *hub.Hub, ref string, cfg node.Config, ready func(node.Ready)) error {
	// The port is taken before the model is loaded, or even fetched: whoever
	// mistyped it learns so at once.
	l, err := node.Listen(c.HTTPHost, c.HTTPPort)
	if err != nil {
		return err
	}
	cfg.Listener = l
	m, err := h.Resolve(ctx, ref)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	cfg.ModelPath = m.Path
	cfg.Sampling = m.Sampling
	if cfg.ModelName == "" {
		cfg.ModelName = m.Name
	}
	cfg.Ready = ready
	n, err := node.New(cfg)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return n.Run(ctx)
}

// apply sets the engine's part of a node's configuration.
func (f *engineFlags) apply(c *node.Config) {
	c.Engine, c.EchoITL = f.Engine, f.EchoITL
	if len(f.EngineURL) > 0 {
		c.Foreign.URL, c.Foreign.MoreURLs = f.EngineURL[0], f.EngineURL[1:]
	}
	c.Foreign.Command, c.Foreign.Model, c.Foreign.APIKey = f.EngineCommand, f.EngineModel, f.EngineAPIKey
	c.Foreign.Timeout, c.Foreign.CA, c.Foreign.Insecure = f.EngineTimeout, f.EngineCA, f.EngineInsecure
	c.Foreign.Events, c.Foreign.Replay, c.Foreign.Topic = f.EngineEvents, f.EngineReplay, f.EngineTopic
	c.ModelName, c.ChatTemplate, c.ContextLength = f.ModelName, f.ChatTemplate, f.ContextLength
	c.Precision, c.KernelLevel, c.Threads = f.Precision, f.KernelLevel, f.Threads
	c.KVCacheBytes, c.PrefixCaching = int64(f.KVCacheBytes), f.PrefixCaching
	c.StepTokens, c.MaxRunning = f.StepTokens, f.MaxRunning
}

func (c *serveCmd) config(a *app, log *slog.Logger) (node.Config, error) {
	cfg := a.nodeConfig(log)
	c.engineFlags.apply(&cfg)
	c.httpFlags.apply(&cfg)
	c.clusterFlags.apply(&cfg.Cluster)
	c.routingFlags.apply(&cfg.Cluster, log)
	c.tracingFlags.apply(&cfg)
	cfg.Engines = c.workers()
	if c.InProcess {
		cfg.Prefill, cfg.Decode = c.Prefill, c.Decode
	}
	if cfg.Engines == 0 {
		cfg.Engines = max(len(c.EngineURL), 1)
	}
	if err := c.tierFlags.apply(a, &cfg.Tiers); err != nil {
		return cfg, err
	}
	return cfg, a.mock(&c.mockerFlags, &cfg)
}

// ready is what serve prints once it serves: what, where, and a request to try.
func (c *serveCmd) ready(r node.Ready, took time.Duration) string {
	return fmt.Sprintf("ready: %s at %s (%s; %.1f s)\n\n", r.Card.Model, httpURL(r.Addr), r.Describe(), took.Seconds()) + c.try(r.Addr, r.Card.Model)
}

// try is a request to paste.
func (c *serveCmd) try(addr, model string) string {
	auth := ""
	if c.APIKey != "" || c.APIKeys != "" {
		auth = " -H 'Authorization: Bearer YOUR-KEY'"
	}
	return fmt.Sprintf("try:   curl -N %s/v1/chat/completions -H 'Content-Type: application/json'%s \\\n", httpURL(addr), auth) +
		fmt.Sprintf("         -d '{\"model\":%s,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}]}'\n", shellJSON(model))
}

// httpURL is where a client of this host reaches a bound address.
func httpURL(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "http://" + addr
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// shellJSON writes s as a JSON string that survives single quotes in a shell.
func shellJSON(s string) string {
	b, err := json.Marshal(s, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic("BUG: a string has no JSON form")
	}
	return strings.ReplaceAll(string(b), "'", `\u0027`)
}
