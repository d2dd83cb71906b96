package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/dynamo-go/dynamo/node"
)

// kvbmCmd is the KV daemon of a host.
type kvbmCmd struct {
	tierFlags

	KVBMSocket     string   `name:"kvbm-socket" help:"Unix socket that engines attach to. Default: kvbm.sock in --run-dir." placeholder:"FILE"`
	RunDir         string   `help:"The user's run directory: discovery files and workers' sockets." default:"${run_dir}" placeholder:"DIR"`
	ClusterKeyFile string   `help:"File of the secret that all parts of a cluster share: 32 bytes in hexadecimal, mode 0600. Default: cluster.key in --state-dir." placeholder:"FILE"`
	Models         int      `help:"Models whose blocks are kept at a time, each with the whole budgets, and each layout of a model counts as one; one more is refused while those are in use." default:"1" placeholder:"N"`
	ClientQuota    byteSize `help:"Bound on what the clients of one name keep here, as 4GB; beyond it their oldest blocks go. auto: none." default:"auto" placeholder:"SIZE"`
	ClientMemory   byteSize `help:"Bound on the memory that a client shares with the daemon. auto: none." default:"auto" placeholder:"SIZE"`
	SystemHost     string   `help:"Address of the health and metrics server." default:"127.0.0.1" placeholder:"HOST"`
	SystemPort     int      `help:"Port of the health and metrics server (/health, /live, /metrics); 0 takes a free one, -1 is none." default:"-1" placeholder:"PORT"`
	AddrFile       string   `help:"File the socket's path is written to once engines can attach." placeholder:"FILE"`
	Pprof          bool     `help:"Serve Go's profiles under /debug/pprof of the health and metrics server." negatable:""`
}

// Run serves until a signal comes.
func (c *kvbmCmd) Run(a *app) error {
	log, err := a.logger("")
	if err != nil {
		return err
	}
	cfg := a.nodeConfig(log)
	if err := c.tierFlags.apply(a, &cfg.Tiers); err != nil {
		return err
	}
	cfg.Cluster.KeyFile, cfg.Pprof, cfg.AddrFile = c.ClusterKeyFile, c.Pprof, c.AddrFile
	k := node.KVBMConfig{Socket: c.KVBMSocket, Models: c.Models, ClientQuota: int64(c.ClientQuota), ClientMemory: int64(c.ClientMemory)}
	if k.Socket == "" {
		k.Socket = filepath.Join(c.RunDir, "kvbm.sock")
	}
	if k.Socket, err = filepath.Abs(k.Socket); err != nil {
		return err
	}
	ctx, stop := untilSignal(context.Background(), a.stderr)
	defer stop()
	if c.SystemPort > 65535 {
		return usageError{error: fmt.Errorf("--system-port is %d; it must be at most 65535", c.SystemPort)}
	}
	if c.SystemPort >= 0 {
		if cfg.Listener, err = node.Listen(c.SystemHost, uint16(c.SystemPort)); err != nil {
			return err
		}
		defer cfg.Listener.Close() // the node closes it too, if it comes to run
	}
	return node.RunKVBM(ctx, cfg, k, func() {
		fmt.Fprintf(a.stdout, "ready: KV daemon at %s\nuse:   dynamo worker MODEL --kvbm-remote unix://%s\n", k.Socket, k.Socket)
		if cfg.Listener != nil {
			fmt.Fprintf(a.stdout, "look:  dynamo kv stat --socket %s; curl %s/metrics\n", k.Socket, httpURL(cfg.Listener.Addr().String()))
		}
	})
}
