package node

import (
	"context"
	"path/filepath"

	"github.com/dynamo-go/dynamo/kvbm/daemon"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/obs"
)

// KVBMConfig is what only the KV daemon of a host needs to know; its tiers are those of
// Config.Tiers.
type KVBMConfig struct {
	// Socket is where clients attach. No default. (--kvbm-socket)
	Socket string
	// Models is how many models' blocks are kept at a time, each with the whole budgets;
	// a layout that clients say counts as a model. Default 1. (--models)
	Models int
	// ClientQuota bounds the bytes that the clients of one name keep there, ClientMemory
	// those that a client shares with the daemon; 0 does not. (--client-quota,
	// --client-memory)
	ClientQuota, ClientMemory int64
}

// RunKVBM runs the KV daemon of a host until ctx ends, which is no error. Of c it uses
// Tiers, the cluster key, Listener and what concerns logs and metrics.
func RunKVBM(ctx context.Context, c Config, k KVBMConfig, ready func()) error {
	n := &Node{cfg: c, log: obs.For(c.Logger, "node"), registry: obs.NewRegistry().WithProcess()}
	n.tiers = newTiers(n.registry)
	if err := c.Tiers.validate(EngineNative); err != nil {
		return err
	}
	dc, err := n.daemonConfig(&k)
	if err != nil {
		return err
	}
	d, err := daemon.New(dc)
	if err != nil {
		return err
	}
	if err := removeStale(c.AddrFile); err != nil {
		return err
	}
	return n.withSystem(ctx, func() (bool, any) { return true, map[string]string{"socket": k.Socket} }, func(ctx context.Context) error {
		var unwritten error
		running, stop := context.WithCancel(ctx)
		defer stop()
		err := d.Run(running, func() {
			if c.AddrFile == "" {
				ready()
			} else if unwritten = writeAddrFile(c.AddrFile, k.Socket); unwritten == nil {
				ready()
			} else {
				stop()
			}
		})
		if unwritten != nil || ctx.Err() != nil {
			return unwritten
		}
		return err
	})
}

func (n *Node) daemonConfig(k *KVBMConfig) (dc daemon.Config, err error) {
	f := &n.cfg.Tiers
	dc = daemon.DefaultConfig()
	dc.Socket, dc.Contents, dc.ClientQuota, dc.MemoryBytes = k.Socket, k.Models, k.ClientQuota, k.ClientMemory
	dc.HostBlocks, dc.DiskBlocks, dc.DiskDir, dc.Logger = f.HostBlocks, f.DiskBlocks, f.DiskDir, n.cfg.Logger
	t := &dc.Tiers
	t.Host.Bytes, t.Disk.Bytes, t.Remote.Bytes = f.HostBytes, f.DiskBytes, f.RemoteBytes
	t.Host.Policy, t.Disk.Policy, t.Remote.Policy = f.Host, f.Disk, f.Far
	t.Eviction, t.DiskWriteBudget = f.Eviction, f.DiskWriteBudget
	dc.TierMetrics, dc.Metrics = n.tiers.metrics(), daemon.NewMetrics(n.registry)
	if dc.ClusterKey, err = n.sealKey(); err != nil {
		return dc, err
	}
	r, err := parseRemote(f.Remote)
	if err != nil || r.scheme == "" {
		return dc, err
	}
	dc.Remote = func(c *tier.Config) error {
		if c.Tiers.Remote.Bytes == 0 {
			c.Tiers.Remote.Bytes = maxRemoteBlocks * int64(c.Geometry.FrameBytes())
		}
		if r.scheme == "file" {
			c.RemoteDir = filepath.Join(r.path, geometryName(&c.Geometry))
			return nil
		}
		return n.openRemote(&r, c)
	}
	return dc, nil
}

// DefaultKVBMConfig returns the defaults. Socket has none.
func DefaultKVBMConfig() KVBMConfig { return KVBMConfig{Models: 1} }
