package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/node"
	"github.com/dynamo-go/dynamo/transfer"
)

// placeFlags describe a worker's place in its cluster.
type placeFlags struct {
	WorkerID     string `name:"worker-id" help:"Name of this worker in its cluster, 1 to 16 hexadecimal digits. Default: a new one each time." placeholder:"HEX"`
	RPCHost      string `name:"rpc-host" help:"Address to listen on for frontends; 0.0.0.0 for every interface." default:"127.0.0.1" placeholder:"HOST"`
	RPCPort      uint16 `name:"rpc-port" help:"Port to listen on for frontends; 0 takes a free one." default:"0" placeholder:"PORT"`
	RPCAdvertise string `name:"rpc-advertise" help:"HOST:PORT at which frontends reach this worker, where that is not what it listens on. Default: the listening address, or this host's name with 0.0.0.0." placeholder:"HOST:PORT"`
	RPCUnix      bool   `name:"rpc-unix" help:"Also listen on a Unix socket in the run directory, for frontends of this host." default:"true" negatable:""`
	SystemHost   string `help:"Address of the health and metrics server." default:"127.0.0.1" placeholder:"HOST"`
	SystemPort   int    `help:"Port of a worker's health and metrics server (/health, /live, /metrics); 0 takes a free one, -1 is none." default:"-1" placeholder:"PORT"`
	WeightsID    string `name:"weights-id" help:"Name of the weights, of your choice. Workers of one model's name that were started with the same one serve it together even if their engines, formats or arithmetic differ, and answers go on from one to another: give it only to workers of the same weights. Default: only workers that are alike in everything do." placeholder:"NAME"`
	Labels       string `help:"Labels of this worker's place, as zone=a,rack=7." placeholder:"KEY=VALUE,…"`
}

// workerFlags are the configuration of a worker.
type workerFlags struct {
	engineFlags
	tierFlags
	mockerFlags
	clusterFlags
	tracingFlags
	placeFlags

	NumWorkers         int           `help:"Workers in this process, each as if it were alone; more than 1 with --engine mocker or echo." default:"1" placeholder:"N" oneoff:""`
	DisaggregationMode string        `help:"Part of this worker, with --engine native, vllm or mocker: whole answers (agg), prompts for others (prefill), or answers whose prompts were computed by prefill workers (decode). A frontend uses both kinds of a model together." enum:"agg,prefill,decode" default:"agg"`
	KVTransfer         string        `name:"kv-transfer" help:"How KV moves between workers of --engine native: by shared memory within a host and by tcp between hosts (auto), by tcp in any case, by libucp, which uses RDMA (ucx: of a binary built with the tag dl), or not at all (off)." enum:"auto,tcp,ucx,off" default:"auto"`
	KVTransferHost     string        `name:"kv-transfer-host" help:"Address to listen on for workers that take KV. Default: --rpc-host." placeholder:"HOST"`
	KVTransferPort     uint16        `name:"kv-transfer-port" help:"Port to listen on for them; 0 takes a free one." default:"0" placeholder:"PORT"`
	KVTransferZeroCopy string        `name:"kv-transfer-zero-copy" help:"When Linux sends KV by tcp from where it lies (io_uring): to other hosts, unless it copies after all (auto), never (off), or within a host, too, where it gains nothing (always)." enum:"auto,off,always" default:"auto"`
	StaggerDelay       time.Duration `help:"Time between the starts of two workers of this process; negative: 0, 100 ms or 200 ms as their number wants it." default:"0s" oneoff:""`
	AddrFile           string        `help:"File the bound address is written to once requests are served." placeholder:"FILE"`
	DrainTimeout       time.Duration `help:"How long running answers may take to end after SIGTERM or 'dynamo drain'; those left are handed over to other workers." default:"30s"`
	Pprof              bool          `help:"Serve Go's profiles under /debug/pprof of the health and metrics server." negatable:""`
	WithParent         bool          `help:"Drain when standard input ends: the process that started this one is gone." hidden:"" oneoff:""`
}

// workerCmd is one engine of a cluster.
type workerCmd struct {
	Model      string   `arg:"" optional:"" help:"Alias (smollm2), Hugging Face id (org/name or org/name:file.gguf), model folder or .gguf file. Default: smollm2 ($DYN_MODEL)."`
	EngineArgs []string `arg:"" optional:"" help:"After --: further arguments of a vllm that is started here."`
	workerFlags
}

// Run works until a signal or a drain comes.
func (c *workerCmd) Run(a *app) error {
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
	cfg.Progress, cfg.EngineLine, cfg.Foreign.Args = view.step, func(line string) { view.say("vllm: %s", line) }, c.EngineArgs
	if err := cfg.Validate(); err != nil {
		return asUsage(err)
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	if c.WithParent {
		ctx = untilEnd(ctx, a.stdin)
	}
	if c.SystemPort >= 0 {
		if cfg.Listener, err = node.Listen(c.SystemHost, uint16(c.SystemPort)); err != nil {
			return err
		}
		defer cfg.Listener.Close() // the node closes it too, if it comes to run
	}
	ref, _ := a.settings.model(c.Model)
	began := time.Now()
	m, err := h.Resolve(ctx, ref)
	if err != nil {
		return a.unlessAsked(ctx, err)
	}
	cfg.ModelPath, cfg.Sampling = m.Path, m.Sampling
	if cfg.ModelName == "" {
		cfg.ModelName = m.Name
	}
	cfg.Ready = func(r node.Ready) {
		view.end()
		if r.Workers > 1 {
			fmt.Fprintf(a.stdout, "ready: %d workers serve %s (%s; %.1f s)\n", r.Workers, r.Card.Model, r.Describe(), time.Since(began).Seconds())
		} else {
			fmt.Fprintf(a.stdout, "ready: worker %s serves %s at %s (%s; %.1f s)\n", r.Worker, r.Card.Model, r.Addr, r.Describe(), time.Since(began).Seconds())
		}
		if cfg.Listener != nil {
			fmt.Fprintf(a.stdout, "look:  curl %s/health and /metrics\n", httpURL(cfg.Listener.Addr().String()))
		}
	}
	return a.runNode(ctx, cfg)
}

func (c *workerCmd) config(a *app, log *slog.Logger) (cfg node.Config, err error) {
	cfg = a.nodeConfig(log)
	cfg.Role = node.RoleWorker
	c.engineFlags.apply(&cfg)
	if err := c.tierFlags.apply(a, &cfg.Tiers); err != nil {
		return cfg, err
	}
	if err := a.mock(&c.mockerFlags, &cfg); err != nil {
		return cfg, err
	}
	c.clusterFlags.apply(&cfg.Cluster)
	c.tracingFlags.apply(&cfg)
	cfg.AddrFile, cfg.DrainTimeout, cfg.Pprof = c.AddrFile, c.DrainTimeout, c.Pprof
	cfg.Worker = node.WorkerConfig{
		Count: c.NumWorkers, Stagger: c.StaggerDelay, Host: c.RPCHost, Port: c.RPCPort, Advertise: c.RPCAdvertise, Unix: c.RPCUnix, Weights: c.WeightsID,
		KVTransfer: node.KVTransferConfig{Path: c.KVTransfer, Host: c.KVTransferHost, Port: c.KVTransferPort, ZeroCopy: transfer.ZeroCopy(c.KVTransferZeroCopy)},
	}
	if c.DisaggregationMode != "agg" {
		cfg.Worker.Role = c.DisaggregationMode
	}
	if cfg.Worker.Labels, err = parseLabels(c.Labels); err != nil {
		return cfg, usageError{error: err}
	}
	if c.WorkerID != "" {
		id, err := dynamo.ParseWorkerID(c.WorkerID)
		if err != nil {
			return cfg, usageError{error: fmt.Errorf("--worker-id: %w", err)}
		}
		cfg.Worker.ID = id
	}
	if c.SystemPort > 65535 {
		return cfg, usageError{error: fmt.Errorf("--system-port is %d; it must be at most 65535", c.SystemPort)}
	}
	return cfg, nil
}

// parseLabels reads KEY=VALUE,….
func parseLabels(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	labels := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if _, twice := labels[key]; !ok || key == "" || twice {
			return nil, fmt.Errorf("--labels: %q is not KEY=VALUE, or its key is there already", part)
		}
		labels[key] = value
	}
	return labels, nil
}
