package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/dynamo-go/dynamo/node"
)

// httpFlags describe the HTTP server, wherever the engines are.
type httpFlags struct {
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

	RequestTrace          string   `help:"File in which each request is recorded as it ends: times, lengths and keyed hashes of prompt blocks, never text. For dynamo trace and dynamo bench." placeholder:"FILE"`
	RequestTraceKeyFile   string   `help:"File with a secret key for the hashes, of at least 16 bytes; recordings under one key can be joined. Default: a random key that nobody keeps." placeholder:"FILE"`
	RequestTraceBlockSize int      `help:"Tokens of a block that gets a hash; 0 is the model's KV block." default:"0" placeholder:"N"`
	RequestTraceRoll      byteSize `help:"Size at which a file is full; it is kept as FILE.000001.gz and so on." default:"256MiB" placeholder:"SIZE"`
	RequestTraceFiles     int      `help:"Full files that are kept." default:"16" placeholder:"N"`
}

func (f *httpFlags) apply(c *node.Config) {
	c.AddrFile, c.APIKey, c.APIKeysFile = f.AddrFile, f.APIKey, f.APIKeys
	c.MaxQueue, c.BodyLimitBytes, c.DrainTimeout = f.MaxQueue, int64(f.BodyLimit), f.DrainTimeout
	c.MaxWait, c.RequestTimeout, c.Pprof = f.MaxWait, f.RequestTimeout, f.Pprof
	c.Recording.Path, c.RecordingKeyFile = f.RequestTrace, f.RequestTraceKeyFile
	c.Recording.BlockSize, c.Recording.RollBytes, c.Recording.Files = f.RequestTraceBlockSize, int64(f.RequestTraceRoll), f.RequestTraceFiles
}

// frontendCmd is the frontend alone: HTTP for the workers of a cluster.
type frontendCmd struct {
	httpFlags
	clusterFlags
	routingFlags
	tracingFlags
	MaxInProgress int `help:"Requests in progress at once, for each model; the workers' own limits hold besides." default:"4096" placeholder:"N"`
}

// Run serves until a signal comes.
func (c *frontendCmd) Run(a *app) error {
	log, err := a.logger("")
	if err != nil {
		return err
	}
	cfg := c.config(a, log)
	if err := cfg.Validate(); err != nil {
		return asUsage(err)
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	l, err := node.Listen(c.HTTPHost, c.HTTPPort)
	if err != nil {
		return err
	}
	cfg.Listener = l
	cfg.Ready = func(r node.Ready) {
		fmt.Fprintf(a.stdout, "ready: frontend at %s (store %s); start workers with: dynamo worker MODEL\n", httpURL(r.Addr), c.DiscoveryBackend)
	}
	return a.runNode(ctx, cfg)
}

func (c *frontendCmd) config(a *app, log *slog.Logger) node.Config {
	cfg := a.nodeConfig(log)
	cfg.Role = node.RoleFrontend
	c.httpFlags.apply(&cfg)
	c.clusterFlags.apply(&cfg.Cluster)
	c.routingFlags.apply(&cfg.Cluster, log)
	c.tracingFlags.apply(&cfg)
	cfg.MaxRunning = c.MaxInProgress
	return cfg
}
