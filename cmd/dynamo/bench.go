package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo/bench"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/tokenizer"
)

// maxExtraBytes bounds a file of --extra.
const maxExtraBytes = 16 << 20

// benchCmd measures endpoints.
type benchCmd struct {
	Run     benchRunCmd     `cmd:"" default:"withargs" help:"Put load on an endpoint that speaks OpenAI's HTTP API and measure it (the word run may be left out)."`
	Compare benchCompareCmd `cmd:"" help:"Set runs side by side: ratios with intervals, plots over each other."`
	Disagg  benchDisaggCmd  `cmd:"" help:"Set aggregated and disaggregated serving side by side, under several loads: in simulated fleets, or on processes that it starts."`
	Index   benchIndexCmd   `cmd:"" help:"Measure the router's prefix index alone, on a workload that other implementations can run too."`
}

// benchRunCmd is one run of the load generator.
type benchRunCmd struct {
	URL      []string `name:"url" help:"Base address of the endpoint, as in http://127.0.0.1:8000; repeated or separated by commas, connections are dealt to each in turn." placeholder:"URL" oneoff:""`
	Model    string   `short:"m" help:"Name the endpoint serves the model under." placeholder:"NAME" oneoff:""`
	Endpoint string   `help:"API to use." enum:"chat,completions" default:"chat" oneoff:""`
	Unary    bool     `help:"Ask for plain answers instead of streams; then only their end is measured." oneoff:""`

	benchLoad
	benchRequests
	benchOutput

	APIKey   string   `name:"api-key" help:"Sent as a bearer token; better set in OPENAI_API_KEY: other users of this machine can read command lines." placeholder:"KEY" env:"OPENAI_API_KEY" oneoff:"" secret:""`
	Header   []string `help:"Further request header; may be repeated." placeholder:"NAME: VALUE" sep:"none" oneoff:"" secret:""`
	Insecure bool     `help:"Do not check the certificate of an https endpoint." oneoff:""`
	QuickAck bool     `name:"quickack" help:"Acknowledge at once (Linux): if first tokens come 40 ms sooner with it, the server lacks TCP_NODELAY." oneoff:""`
}

// benchLoad says when requests are sent.
type benchLoad struct {
	Concurrency int           `short:"c" help:"Closed loop: requests open at once." placeholder:"N" oneoff:""`
	RampUp      time.Duration `help:"Closed loop: time over which its connections begin." placeholder:"TIME" oneoff:""`

	RequestRate float64       `short:"r" help:"Open loop: requests a second, whether answers come or not. Latencies count from when a request was due." placeholder:"X" oneoff:""`
	Arrival     string        `help:"Open loop: gaps between requests." enum:"poisson,constant,gamma,ramp,sine" default:"poisson" oneoff:""`
	Burstiness  float64       `help:"Coefficient of variation of gamma's gaps: above 1 they come in bursts." default:"2" placeholder:"X" oneoff:""`
	RateTo      float64       `help:"Rate at the end of a ramp." placeholder:"X" oneoff:""`
	Period      time.Duration `help:"Length of a ramp, or of one swing of a sine." default:"1m" placeholder:"TIME" oneoff:""`
	Amplitude   float64       `help:"Share of the rate by which a sine swings." default:"0.5" placeholder:"X" oneoff:""`
	Connections int           `help:"Most connections of an open loop or a trace." default:"4096" placeholder:"N" oneoff:""`

	Speedup float64 `help:"Play a trace's times, and the delays within its sessions, so much faster." default:"1" placeholder:"X" oneoff:""`

	WarmupRequests int           `help:"Requests sent before, which are not measured." default:"0" placeholder:"N" oneoff:""`
	Requests       int           `short:"n" help:"End after so many requests." placeholder:"N" oneoff:""`
	Duration       time.Duration `short:"d" help:"End after so long." placeholder:"TIME" oneoff:""`
	Grace          time.Duration `help:"How long requests that are open at the end may take." default:"30s" placeholder:"TIME" oneoff:""`
	Timeout        time.Duration `help:"Longest time of a request." default:"5m" placeholder:"TIME" oneoff:""`
	MaxErrors      int           `help:"End when more requests than this failed. 0: never." default:"0" placeholder:"N" oneoff:""`
	CancelRate     float64       `help:"Share of requests that the client gives up midway." default:"0" placeholder:"X" oneoff:""`
	CancelAfter    time.Duration `help:"With --unary: latest time at which it gives up." default:"1s" placeholder:"TIME" oneoff:""`
}

// benchRequests says what is asked.
type benchRequests struct {
	InputTokens  string `help:"Length of prompts: mean, or mean,deviation. Words without --tokenizer or --prompt-ids." default:"128" placeholder:"N[,S]" oneoff:""`
	OutputTokens string `help:"Length of answers asked for (max_tokens): mean, or mean,deviation." default:"64" placeholder:"N[,S]" oneoff:""`
	IgnoreEOS    bool   `name:"ignore-eos" help:"Add ignore_eos and min_tokens, so that answers have exactly that length; vLLM, SGLang and dynamo know them." oneoff:""`
	PrefixGroups int    `help:"Shared beginnings of prompts, of which each prompt has one." placeholder:"N" oneoff:""`
	PrefixTokens int    `help:"Length of a shared beginning; it is part of --input-tokens." placeholder:"N" oneoff:""`
	PrefixSystem bool   `help:"Send the shared beginning as a system message." oneoff:""`

	Trace       string `help:"Trace to take requests from: JSON lines (Mooncake), CSV or ShareGPT's JSON. Its times hold unless --concurrency or --request-rate is given." placeholder:"FILE" oneoff:"" xor:"source"`
	TraceFormat string `help:"Format of the trace, if its first bytes do not tell." enum:",mooncake,dynamo,csv,sharegpt" default:"" oneoff:""`
	TraceSort   bool   `help:"Sort the trace by time first." oneoff:""`
	BlockSize   int    `help:"Tokens of a block of the trace, where it does not say." placeholder:"N" oneoff:""`
	Preset      string `help:"Requests made from published statistics instead: sharegpt, mooncake-conversation and so on (dynamo trace synth --preset list)." placeholder:"NAME" oneoff:"" xor:"source"`

	Tokenizer     string `help:"Model whose tokenizer prompts are made for, so that they have exactly the tokens asked for: an alias, Hugging Face id, folder, .gguf file or tokenizer.json." placeholder:"MODEL" oneoff:""`
	PromptIDs     bool   `name:"prompt-ids" help:"Send token ids instead of text; needs --endpoint completions." oneoff:""`
	PromptIDRange string `name:"prompt-id-range" help:"Token ids to use without --tokenizer." default:"1000-30000" placeholder:"A-B" oneoff:""`
	Tools         int    `help:"Tool definitions in each chat." placeholder:"N" oneoff:""`
	ToolChoice    string `help:"tool_choice: auto, none, required or a JSON object." placeholder:"X" oneoff:""`
	Extra         string `help:"JSON object whose members are added to each body, or replace ours; @FILE reads it from a file." placeholder:"JSON" oneoff:""`
	Seed          uint64 `help:"Another seed makes other prompts, which share nothing with these." default:"1" placeholder:"N" oneoff:""`
}

// benchOutput says what comes of it.
type benchOutput struct {
	TTFT time.Duration `name:"ttft" help:"Goodput: latest first token." placeholder:"TIME" oneoff:""`
	ITL  time.Duration `name:"itl" help:"Goodput: longest time between tokens, averaged over an answer." placeholder:"TIME" oneoff:""`
	E2E  time.Duration `name:"e2e" help:"Goodput: longest time of a request." placeholder:"TIME" oneoff:""`

	Output  string         `short:"o" help:"Directory for result.json, result.csv, report.html and plots." placeholder:"DIR" oneoff:""`
	Records string         `help:"File with a JSON line for each request. Default with --output: records.jsonl in it." placeholder:"FILE" oneoff:""`
	Gaps    bool           `help:"Keep the times between tokens in the records." oneoff:""`
	JSON    bool           `name:"json" help:"Print the result as JSON." oneoff:""`
	Quiet   bool           `short:"q" help:"No progress." oneoff:""`
	PID     map[string]int `name:"pid" help:"Process to account for, by a name; may be repeated." placeholder:"NAME=PID" oneoff:""`
}

// Run measures.
func (c *benchRunCmd) Run(a *app, ctx *kong.Context) error {
	cfg, err := c.config()
	if err != nil {
		return usageError{error: err}
	}
	cfg.Settings, cfg.Version = benchSettings(ctx), buildInfo().Version
	done, err := c.source(a, &cfg)
	if err != nil {
		return err
	}
	defer done()
	if err := cfg.Validate(); err != nil {
		return asUsage(err)
	}
	if c.Output != "" {
		if err := os.MkdirAll(c.Output, 0o755); err != nil {
			return err
		}
	}
	closeRecords, err := c.records(&cfg)
	if err != nil {
		return err
	}
	view := newBenchView(a.stderr)
	if !c.Quiet {
		cfg.Progress = view.show
	}
	signalled, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	r, err := bench.Run(signalled, cfg)
	view.end()
	if err := errors.Join(err, closeRecords()); err != nil {
		return err
	}
	if err := c.report(a, r); err != nil {
		return err
	}
	if r.Requests == 0 {
		return exitRequest(exitFailed) // what went wrong has been printed
	}
	return nil
}

// config is the flags as a configuration, without what has to be opened.
func (c *benchRunCmd) config() (bench.Config, error) {
	cfg := bench.DefaultConfig()
	cfg.URLs, cfg.Model, cfg.Unary = c.URL, c.Model, c.Unary
	cfg.Completions, cfg.PromptIDs = c.Endpoint == "completions", c.PromptIDs
	cfg.IgnoreEOS, cfg.Tools, cfg.ToolChoice = c.IgnoreEOS, c.Tools, c.ToolChoice
	cfg.Headers, cfg.APIKey, cfg.QuickAck = c.Header, c.APIKey, c.QuickAck
	cfg.PrefixGroups, cfg.PrefixTokens, cfg.PrefixSystem = c.PrefixGroups, c.PrefixTokens, c.PrefixSystem
	cfg.Concurrency, cfg.RampUp, cfg.Connections, cfg.Speedup = c.Concurrency, c.RampUp, c.Connections, c.Speedup
	cfg.Arrival = trace.Arrival{Process: c.Arrival, Rate: c.RequestRate, CV: c.Burstiness, To: c.RateTo, Period: c.Period, Amplitude: c.Amplitude}
	cfg.WarmUp, cfg.Requests, cfg.Duration, cfg.Grace, cfg.Timeout = c.WarmupRequests, c.Requests, c.Duration, c.Grace, c.Timeout
	cfg.MaxErrors, cfg.CancelRate, cfg.CancelAfter = c.MaxErrors, c.CancelRate, c.CancelAfter
	cfg.Seed, cfg.Gaps, cfg.PIDs = c.Seed, c.Gaps, c.PID
	cfg.Goodput = map[string]time.Duration{}
	for name, d := range map[string]time.Duration{"ttft": c.TTFT, "itl": c.ITL, "e2e": c.E2E} {
		if d != 0 {
			cfg.Goodput[name] = d
		}
	}
	if c.Insecure {
		cfg.TLS = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // asked for
	}
	var err error
	if cfg.Input, err = parseLengths("input-tokens", c.InputTokens); err != nil {
		return cfg, err
	}
	if cfg.Output, err = parseLengths("output-tokens", c.OutputTokens); err != nil {
		return cfg, err
	}
	if cfg.FirstID, cfg.LastID, err = parseIDRange(c.PromptIDRange); err != nil {
		return cfg, err
	}
	cfg.Extra, err = c.extra()
	return cfg, err
}

// parseLengths reads MEAN[,DEVIATION].
func parseLengths(flag, s string) (bench.Lengths, error) {
	mean, deviation, two := strings.Cut(s, ",")
	m, err := strconv.ParseFloat(strings.TrimSpace(mean), 64)
	d := 0.0
	if err == nil && two {
		d, err = strconv.ParseFloat(strings.TrimSpace(deviation), 64)
	}
	if err != nil {
		return bench.Lengths{}, fmt.Errorf("--%s: %q is not a length such as 512 or 512,64", flag, s)
	}
	return bench.Lengths{Mean: m, StdDev: d}, nil
}

// extra is the value of --extra.
func (c *benchRequests) extra() ([]byte, error) {
	path, isFile := strings.CutPrefix(c.Extra, "@")
	if !isFile {
		return []byte(c.Extra), nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("--extra: %w", err)
	}
	if info.Size() > maxExtraBytes {
		return nil, fmt.Errorf("--extra: %s is longer than %s", path, mib(maxExtraBytes))
	}
	return os.ReadFile(path)
}

// openTokenizer reads the tokenizer of a model, which is fetched if it is not here.
func openTokenizer(a *app, model string) (*tokenizer.Tokenizer, error) {
	if filepath.Ext(model) == ".json" {
		return node.OpenTokenizer(model)
	}
	log, err := a.logger("warn")
	if err != nil {
		return nil, err
	}
	view := newConsole(a.stderr)
	defer view.end()
	h, err := a.hub(log, view.hub)
	if err != nil {
		return nil, err
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	m, err := h.Resolve(ctx, model)
	if err != nil {
		return nil, err
	}
	return node.OpenTokenizer(m.Path)
}

// source opens what the requests are made of; done closes it.
func (c *benchRequests) source(a *app, cfg *bench.Config) (done func(), err error) {
	done = func() {}
	if c.Tokenizer != "" {
		if cfg.Tokenizer, err = openTokenizer(a, c.Tokenizer); err != nil {
			return nil, fmt.Errorf("--tokenizer: %w", err)
		}
	}
	switch {
	case c.Trace != "":
		in := traceInput{File: c.Trace, Format: c.TraceFormat, BlockSize: c.BlockSize, Sort: c.TraceSort}
		if cfg.Trace, done, err = in.read(a); err != nil {
			return nil, fmt.Errorf("--trace: %w", err)
		}
	case c.Preset != "":
		s, err := trace.Preset(c.Preset)
		if err != nil {
			return nil, usageError{error: err}
		}
		s.Seed = c.Seed
		if cfg.Requests > 0 {
			s.Requests = cfg.Requests
		}
		cfg.Trace = s.All()
	}
	return done, nil
}

// benchSettings are the values of this command's flags, without secrets and without
// what is empty.
func benchSettings(ctx *kong.Context) map[string]string {
	all := map[string]string{}
	for _, f := range ctx.Flags() {
		value := fmt.Sprint(ctx.FlagValue(f))
		switch {
		case !oneOff(f) || f.Tag.Has("secret"):
		case value == "", value == "0", value == "0s", value == "false", value == "[]", value == "map[]":
		default:
			all[f.Name] = value
		}
	}
	return all
}

// records opens the file of records.
func (c *benchOutput) records(cfg *bench.Config) (closed func() error, err error) {
	path := c.Records
	if path == "" && c.Output != "" {
		path = filepath.Join(c.Output, "records.jsonl")
	}
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	e := jsontext.NewEncoder(w)
	cfg.Record = func(r *bench.Record) error { return json.MarshalEncode(e, r) }
	return func() error { return errors.Join(w.Flush(), f.Close()) }, nil
}
