package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo/hub"
	"github.com/dynamo-go/dynamo/node"
)

// engineFlags describe the model's engine, wherever it runs.
type engineFlags struct {
	Engine        string        `help:"native computes the model in this process; echo answers with the prompt's own tokens, for tests and for measuring everything but the model." enum:"native,echo" default:"native"`
	EchoITL       time.Duration `name:"echo-itl" help:"Time between two tokens of the echo engine; 0 answers at once." default:"0s"`
	ModelName     string        `help:"Name the model is served under. Default: the alias, org/name, or the file's base name." placeholder:"NAME"`
	ChatTemplate  string        `help:"Jinja file to use instead of the model's own chat template." placeholder:"FILE"`
	ContextLength int           `help:"Longest sequence, prompt and answer, in tokens. 0: what the model was made for." default:"0" placeholder:"TOKENS"`
	Precision     string        `help:"int8 rounds activations to 8 bits where that is faster; f32 computes in full precision." enum:"int8,f32" default:"int8"`
	KernelLevel   string        `help:"Instruction set of the kernels: auto, or one that 'dynamo doctor' lists." default:"auto" placeholder:"LEVEL"`
	Threads       int           `help:"Threads that compute. 0: one per CPU (${threads} here)." default:"0" placeholder:"N"`
	KVCacheBytes  byteSize      `name:"kv-cache-bytes" help:"Memory for the KV cache, as 512MiB or 4GiB. auto: a quarter of the free memory, at most 16 full contexts." default:"auto" placeholder:"SIZE"`
	PrefixCaching bool          `help:"Keep the KV of ended requests and reuse it where a prompt begins alike." default:"true" negatable:""`
	StepTokens    int           `help:"Tokens computed in one step of the batch; smaller steps keep the pace of running answers while long prompts are read." default:"512" placeholder:"TOKENS"`
	MaxRunning    int           `help:"Requests computed at once." default:"64" placeholder:"N"`
}

// serveFlags are the configuration of serve.
type serveFlags struct {
	engineFlags

	HTTPHost       string        `name:"http-host" help:"Address to listen on; 0.0.0.0 for every interface." default:"127.0.0.1" placeholder:"HOST"`
	HTTPPort       uint16        `name:"http-port" help:"Port to listen on; 0 takes a free one." default:"8000" placeholder:"PORT"`
	AddrFile       string        `help:"File the bound address is written to once requests are served." placeholder:"FILE"`
	APIKey         string        `name:"api-key" help:"Key every request must carry (Authorization: Bearer KEY). Better set in the environment." placeholder:"KEY" secret:""`
	APIKeys        string        `name:"api-keys" help:"File of hashed keys and their tenants." placeholder:"FILE"`
	MaxQueue       int           `help:"Requests that wait for their turn; further ones are refused with 429." default:"1024" placeholder:"N"`
	MaxWait        time.Duration `help:"How long a request waits for its turn before it is refused with 429; 0 is no limit." default:"1m"`
	RequestTimeout time.Duration `help:"How long a request may take altogether; 0 is no limit." default:"0s"`
	Pprof          bool          `help:"Serve Go's profiles under /debug/pprof." negatable:""`
	BodyLimit      byteSize      `help:"Largest request body." default:"16MiB" placeholder:"SIZE"`
	DrainTimeout   time.Duration `help:"How long running answers may take to end after SIGTERM or Ctrl-C." default:"30s"`
}

type serveCmd struct {
	Model string `arg:"" optional:"" help:"Alias (smollm2), Hugging Face id (org/name or org/name:file.gguf), model folder or .gguf file. Default: smollm2 ($DYN_MODEL)."`
	serveFlags
}

// Run serves until a signal comes.
func (c *serveCmd) Run(a *app) error {
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
	cfg := c.config(a, log)
	cfg.Progress = view.step
	if err := cfg.Validate(); err != nil {
		return asUsage(err)
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	ref, _ := a.settings.model(c.Model)
	began := time.Now()
	err = c.serve(ctx, h, ref, cfg, func(r node.Ready) {
		view.end()
		fmt.Fprint(a.stdout, c.ready(r, time.Since(began)))
	})
	if _, asked := errors.AsType[interrupted](context.Cause(ctx)); asked && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil // asked to stop before it was ready: nothing was promised
	}
	return err
}

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
	c.ModelName, c.ChatTemplate, c.ContextLength = f.ModelName, f.ChatTemplate, f.ContextLength
	c.Precision, c.KernelLevel, c.Threads = f.Precision, f.KernelLevel, f.Threads
	c.KVCacheBytes, c.PrefixCaching = int64(f.KVCacheBytes), f.PrefixCaching
	c.StepTokens, c.MaxRunning = f.StepTokens, f.MaxRunning
}

func (c *serveCmd) config(a *app, log *slog.Logger) node.Config {
	cfg := node.DefaultConfig()
	c.engineFlags.apply(&cfg)
	cfg.AddrFile, cfg.StateDir = c.AddrFile, a.flags.StateDir
	cfg.APIKey, cfg.APIKeysFile = c.APIKey, c.APIKeys
	cfg.MaxQueue, cfg.BodyLimitBytes, cfg.DrainTimeout = c.MaxQueue, int64(c.BodyLimit), c.DrainTimeout
	cfg.MaxWait, cfg.RequestTimeout, cfg.Pprof = c.MaxWait, c.RequestTimeout, c.Pprof
	cfg.Version, cfg.Logger = buildInfo().Version, log
	return cfg
}

// ready is what serve prints once it serves: what, where, and a request to try.
func (c *serveCmd) ready(r node.Ready, took time.Duration) string {
	host, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		host, port = r.Addr, ""
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	url := "http://" + net.JoinHostPort(host, port)
	auth := ""
	if c.APIKey != "" || c.APIKeys != "" {
		auth = " -H 'Authorization: Bearer YOUR-KEY'"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "ready: %s at %s (%s; %.1f s)\n\n", r.Card.Model, url, r.Describe(), took.Seconds())
	fmt.Fprintf(&b, "try:   curl -N %s/v1/chat/completions -H 'Content-Type: application/json'%s \\\n", url, auth)
	fmt.Fprintf(&b, "         -d '{\"model\":%s,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}]}'\n", shellJSON(r.Card.Model))
	return b.String()
}

// shellJSON writes s as a JSON string that survives single quotes in a shell.
func shellJSON(s string) string {
	b, err := json.Marshal(s, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic("BUG: a string has no JSON form")
	}
	return strings.ReplaceAll(string(b), "'", `\u0027`)
}
