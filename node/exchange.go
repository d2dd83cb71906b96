package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/native"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/transfer"
)

// The ways by which KV moves between workers of the embedded engine.
const (
	TransferAuto = "auto" // shared memory within a host, tcp between hosts
	TransferTCP  = "tcp"  // tcp, within a host as well
	TransferUCX  = "ucx"  // libucp, which uses RDMA; tcp where there is none
	TransferOff  = "off"  // none: prompts are computed where the answer is
)

// KVTransferConfig says how KV moves between the workers of a cluster.
type KVTransferConfig struct {
	// Path is TransferAuto, TransferTCP, TransferUCX or, the same as empty, TransferOff. Default auto.
	// (--kv-transfer)
	Path string
	// Host and Port are listened on for other workers; port 0 takes a free one, an empty
	// host is the worker's. Default both. (--kv-transfer-host, --kv-transfer-port)
	Host string
	Port uint16
	// ZeroCopy says when tcp has the kernel send KV from where it lies. Default auto.
	// (--kv-transfer-zero-copy)
	ZeroCopy transfer.ZeroCopy
	// Process joins the workers of one process, which copy directly. nil: this one stands
	// alone.
	Process *transfer.Process
}

// validate reports all faults at once.
func (c *KVTransferConfig) validate() error {
	var faults []error
	if all := []string{"", TransferAuto, TransferTCP, TransferUCX, TransferOff}; !slices.Contains(all, c.Path) {
		faults = append(faults, fmt.Errorf("--kv-transfer: %q is none of %s, %s, %s, %s", c.Path, TransferAuto, TransferTCP, TransferUCX, TransferOff))
	}
	if all := []transfer.ZeroCopy{"", transfer.ZeroCopyAuto, transfer.ZeroCopyOff, transfer.ZeroCopyAlways}; !slices.Contains(all, c.ZeroCopy) {
		faults = append(faults, fmt.Errorf("--kv-transfer-zero-copy: %q is none of %s, %s, %s", c.ZeroCopy, transfer.ZeroCopyAuto, transfer.ZeroCopyOff, transfer.ZeroCopyAlways))
	}
	return errors.Join(faults...)
}

// off says that no KV moves.
func (c *KVTransferConfig) off() bool { return c.Path == "" || c.Path == TransferOff }

// peering is what a worker needs to know of itself to reach others of its cluster.
type peering struct {
	key       []byte
	name      string
	advertise string // the address of its rpc listener; empty: the others are in this process
}

// exchanging is the agent by which an engine gives and takes KV; it runs while the engine
// does.
type exchanging struct {
	native.Exchange
	listener net.Listener
}

// newExchange returns the agent of a worker with model m; nil: it is no worker, or moves no
// KV.
func (n *Node) newExchange(m *model.Model) (x *exchanging, err error) {
	if n.peering == nil || n.cfg.Worker.KVTransfer.off() {
		return nil, nil
	}
	c := transfer.DefaultConfig()
	c.Name, c.Key, c.Content, c.Process = n.peering.name, n.peering.key, native.Content(m), n.cfg.Worker.KVTransfer.Process
	c.Logger, c.Metrics, c.Dial, c.ZeroCopy = n.cfg.Logger, n.metrics.transfer, n.cfg.Cluster.Dial, n.cfg.Worker.KVTransfer.ZeroCopy
	if c.TLS, err = n.cfg.Cluster.tlsConfig(); err != nil {
		return nil, err
	}
	x = &exchanging{Exchange: native.DefaultExchange()}
	x.Metrics = n.metrics.native
	if len(n.cfg.Worker.Listeners) == 0 && n.peering.advertise != "" {
		if x.listener, err = listenPlainTCP(cmp.Or(n.cfg.Worker.KVTransfer.Host, n.cfg.Worker.Host), n.cfg.Worker.KVTransfer.Port, "kv-transfer-"); err != nil {
			return nil, fmt.Errorf("listen for workers that want KV: %w", err)
		}
		c.Listener, c.UCX = x.listener, n.cfg.Worker.KVTransfer.Path == TransferUCX
		if c.Advertise, err = advertisedBeside(n.peering.advertise, x.listener.Addr().String()); err != nil {
			return nil, errors.Join(err, x.close())
		}
		if dir := n.cfg.Cluster.RunDir; n.cfg.Worker.KVTransfer.Path == TransferAuto && dir != "" {
			if dir, err = filepath.Abs(dir); err == nil && len(dir) <= maxSocketDir && os.MkdirAll(dir, 0o700) == nil {
				c.SocketDir = dir
			} else {
				n.log.Warn("no shared memory between the workers of this host, which move KV by tcp; a shorter --run-dir helps", obs.KeyError, err)
			}
		}
	}
	if x.Agent, err = transfer.New(c); err != nil {
		return nil, errors.Join(err, x.close())
	}
	return x, nil
}

// advertisedBeside is an address of the host of another, with the port of what is bound.
func advertisedBeside(other, bound string) (string, error) {
	host, _, err := net.SplitHostPort(other)
	if err != nil {
		return "", fmt.Errorf("read the address of this worker: %w", err)
	}
	_, port, err := net.SplitHostPort(bound)
	if err != nil {
		return "", fmt.Errorf("read the bound address: %w", err)
	}
	return net.JoinHostPort(host, port), nil
}

// close ends what never ran.
func (x *exchanging) close() error {
	if x == nil || x.listener == nil {
		return nil
	}
	return x.listener.Close()
}

// around runs the agent beside an engine, longer than it.
func (x *exchanging) around(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) (err error) {
		working, stop := context.WithCancel(context.WithoutCancel(ctx))
		failing, fail := context.WithCancelCause(ctx)
		var agent sync.WaitGroup
		agent.Go(func() {
			if err := x.Agent.Run(working); err != nil {
				fail(fmt.Errorf("move KV between workers: %w", err))
			}
		})
		defer agent.Wait()
		defer stop()
		select {
		case <-x.Agent.Ready():
		case <-failing.Done():
		}
		return run(failing)
	}
}

// canDisaggregate says whether an engine can do the worker's part.
func (w *WorkerConfig) canDisaggregate(engineName string) bool {
	return w.Role == "" || engineName == EngineMocker || engineName == EngineVLLM || engineName == EngineNative && (!w.KVTransfer.off() || w.Role == engine.RoleDecode)
}

// know keeps what the worker needs to reach others.
func (n *Node) know(key []byte, id dynamo.WorkerID, p *place) {
	n.peering = &peering{key: key, name: "worker " + id.String(), advertise: p.bound}
	for _, a := range p.addresses {
		if tcp, ok := strings.CutPrefix(a, "tcp://"); ok {
			n.peering.advertise = tcp
		}
	}
}
