package node

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/plane/discovery"
	"github.com/dynamo-go/dynamo/plane/event"
	"github.com/dynamo-go/dynamo/transfer/s3"
)

// TiersConfig says where the embedded engine keeps KV that its own cache has no room
// for. All zero: nowhere.
type TiersConfig struct {
	// HostBytes and DiskBytes are the budgets of host memory and of disk; HostBlocks and
	// DiskBlocks say the same in blocks, and go before. Default 0: no such tier.
	// (--kvbm-cpu-cache-gb, --kvbm-disk-cache-gb, --kvbm-cpu-cache-override-num-blocks,
	// --kvbm-disk-cache-override-num-blocks)
	HostBytes, DiskBytes   int64
	HostBlocks, DiskBlocks int
	// DiskDir is the folder of the disk tier; in it each process and model has one of
	// its own, which the next process finds again. No default. (--kvbm-disk-dir)
	DiskDir string
	// Remote is a store shared with others: a folder, as a path or file:///PATH; an
	// object store, as s3://BUCKET/PREFIX?endpoint=URL; or the daemon of this host, as
	// unix:///SOCKET. Empty: none. (--kvbm-remote)
	Remote string
	// RemoteBytes bounds what is kept there; 0 does not, or only by what can be counted.
	// (--kvbm-remote-cache-gb)
	RemoteBytes int64
	// Host, Disk and Far say which blocks host memory, disk and the remote store take
	// in, Eviction which they give up. Defaults always, second-use, always and lru.
	// (--kvbm-cpu-policy, --kvbm-disk-policy, --kvbm-remote-policy, --kvbm-eviction)
	Host, Disk, Far kvbm.Policy
	Eviction        kvbm.Eviction
	// DiskWriteBudget bounds what is written to disk, in bytes per second on average; 0
	// does not. (--kvbm-disk-write-budget)
	DiskWriteBudget int64
	// Access is who asks an object store.
	Access ObjectAccess
}

// ObjectAccess is what an object store knows its users by.
type ObjectAccess struct{ KeyID, Secret, Session, Region string }

// DefaultTiersConfig returns the defaults: no tiers.
func DefaultTiersConfig() TiersConfig { return TiersConfig{Disk: kvbm.PolicySecondUse} }

// enabled says whether there are tiers.
func (c *TiersConfig) enabled() bool {
	return c.HostBytes > 0 || c.DiskBytes > 0 || c.HostBlocks > 0 || c.DiskBlocks > 0 || c.Remote != ""
}

// validate reports what can be seen without the model.
func (c *TiersConfig) validate(engine string) error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, f := range []struct {
		flag string
		n    int64
	}{
		{"--kvbm-cpu-cache-gb", c.HostBytes}, {"--kvbm-disk-cache-gb", c.DiskBytes}, {"--kvbm-remote-cache-gb", c.RemoteBytes},
		{"--kvbm-cpu-cache-override-num-blocks", int64(c.HostBlocks)}, {"--kvbm-disk-cache-override-num-blocks", int64(c.DiskBlocks)},
		{"--kvbm-disk-write-budget", c.DiskWriteBudget},
	} {
		if f.n < 0 {
			fault("%s is %d; it must be 0 or more", f.flag, f.n)
		}
	}
	if c.enabled() && engine != EngineNative {
		fault("--kvbm-cpu-cache-gb, --kvbm-disk-cache-gb and --kvbm-remote are for --engine native; %s has a KV cache of its own", engine)
	}
	if (c.DiskBytes > 0 || c.DiskBlocks > 0) && c.DiskDir == "" {
		fault("--kvbm-disk-cache-gb needs a folder, and there is no home directory here; give --kvbm-disk-dir")
	}
	if c.RemoteBytes > 0 && c.Remote == "" {
		fault("--kvbm-remote-cache-gb is the budget of a remote store; say which with --kvbm-remote")
	}
	r, err := parseRemote(c.Remote)
	if err == nil && r.scheme == "s3" {
		err = c.checkBucket(r.url)
	}
	return errors.Join(append(faults, err)...)
}

// remoteStore is what --kvbm-remote names.
type remoteStore struct {
	scheme string // "file", "unix" or "s3"; empty: none
	path   string // of a folder or a socket
	url    *url.URL
}

// parseRemote reads --kvbm-remote.
func parseRemote(text string) (r remoteStore, err error) {
	if text == "" {
		return r, nil
	}
	if !strings.Contains(text, "://") {
		return remoteStore{scheme: "file", path: text}, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return r, fmt.Errorf("--kvbm-remote: %w", err)
	}
	switch {
	case (u.Scheme == "file" || u.Scheme == "unix") && u.Host == "" && u.Path != "":
		return remoteStore{scheme: u.Scheme, path: u.Path}, nil
	case u.Scheme == "s3" && u.Host != "":
		return remoteStore{scheme: "s3", url: u}, nil
	}
	return r, fmt.Errorf("--kvbm-remote: %q is none of PATH, file:///PATH, unix:///SOCKET and s3://BUCKET/PREFIX?endpoint=URL", text)
}

// tiers are the KV tiers of a process, which its engines share. They are opened with
// the first engine, since only then the size of a block is known, and run while an
// engine does.
type tiers struct {
	metrics func() *tier.Metrics
	objects func() *s3.Metrics
	mu      struct {
		sync.Mutex
		key     []byte // the cluster's, where it is known by then
		mover   *tier.Mover
		ran     bool
		engines int // that run
		stop    context.CancelFunc
		ended   chan struct{}
	}
}

func newTiers(r *obs.Registry) *tiers {
	return &tiers{metrics: sync.OnceValue(func() *tier.Metrics { return tier.NewMetrics(r) }), objects: sync.OnceValue(func() *s3.Metrics { return s3.NewMetrics(r) })}
}

// know says which cluster key blocks are named and sealed with.
func (t *tiers) know(key []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mu.key = key
}

// openTiers returns the tiers for an engine of m; nil if there are none. kv is told what
// each tier has; nil is nobody.
func (n *Node) openTiers(m *model.Model, kv *event.KVSource) (*tier.Mover, error) {
	if !n.cfg.Tiers.enabled() {
		return nil, nil
	}
	t := n.tiers
	t.mu.Lock()
	mover, key := t.mu.mover, t.mu.key
	t.mu.Unlock()
	if mover != nil {
		return mover, nil
	}
	if key == nil {
		var err error
		if key, err = n.sealKey(); err != nil {
			return nil, err
		}
	}
	c := n.tierConfig(native.Geometry(m), key)
	c.Metrics, c.Logger = t.metrics(), n.cfg.Logger
	if kv != nil {
		sinks := [...]func([]kvbm.Event){dynamo.TierHost: kv.Sink(dynamo.TierHost, 0), dynamo.TierDisk: kv.Sink(dynamo.TierDisk, 0), dynamo.TierRemote: kv.Sink(dynamo.TierRemote, 0)}
		c.Events = func(t dynamo.Tier, events []kvbm.Event) { sinks[t](events) }
	}
	mover, err := n.openMover(&c)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.mu.mover = mover
	t.mu.Unlock()
	return mover, nil
}

// sealKey is the cluster key of a process that takes part in no cluster.
func (n *Node) sealKey() ([]byte, error) {
	if path := n.cfg.Cluster.KeyFile; path != "" {
		key, err := discovery.ReadKey(path)
		if err != nil {
			return nil, fmt.Errorf("--cluster-key-file: %w", err)
		}
		return key, nil
	}
	if n.cfg.StateDir == "" {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: "what KV tiers keep is sealed with a secret, and there is no home directory to keep one in; give --cluster-key-file or --state-dir"}
	}
	return discovery.MakeKey(n.cfg.StateDir)
}

// tierConfig turns budgets into those of a geometry.
func (n *Node) tierConfig(g tier.Geometry, key []byte) tier.Config {
	f := &n.cfg.Tiers
	c := tier.DefaultConfig()
	c.Geometry, c.ClusterKey = g, key
	frame := int64(g.FrameBytes())
	c.Tiers.Host.Bytes, c.Tiers.Disk.Bytes = f.HostBytes, f.DiskBytes
	if f.HostBlocks > 0 {
		c.Tiers.Host.Bytes = int64(f.HostBlocks) * frame
	}
	if f.DiskBlocks > 0 {
		c.Tiers.Disk.Bytes = int64(f.DiskBlocks) * frame
	}
	if f.Remote != "" {
		if c.Tiers.Remote.Bytes = f.RemoteBytes; f.RemoteBytes == 0 {
			c.Tiers.Remote.Bytes = maxRemoteBlocks * frame
		}
	}
	c.Tiers.Host.Policy, c.Tiers.Disk.Policy, c.Tiers.Remote.Policy = f.Host, f.Disk, f.Far
	c.Tiers.Eviction, c.Tiers.DiskWriteBudget = f.Eviction, f.DiskWriteBudget
	return c
}

// openMover opens the stores, and says which flag to change where that fails.
func (n *Node) openMover(c *tier.Config) (*tier.Mover, error) {
	if want, mem := c.Tiers.Host.Bytes, AvailableMemory(); want > mem.AvailableBytes {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--kvbm-cpu-cache-gb asks for %s and the %s has %s left; ask for less", size(want), mem.Limit, size(mem.AvailableBytes))}
	}
	if err := largeEnough(c); err != nil {
		return nil, err
	}
	r, err := parseRemote(n.cfg.Tiers.Remote)
	if err != nil {
		return nil, err
	}
	switch r.scheme {
	case "file":
		c.RemoteDir = filepath.Join(r.path, geometryName(&c.Geometry))
	case "":
	default:
		if err := n.openRemote(&r, c); err != nil {
			return nil, err
		}
	}
	if c.Tiers.Disk.Bytes == 0 {
		return newMover(c)
	}
	return n.openDisk(c)
}

// largeEnough finds budgets that are there and hold no block.
func largeEnough(c *tier.Config) error {
	frame := int64(c.Geometry.FrameBytes())
	for _, f := range []struct {
		flag  string
		bytes int64
	}{{"kvbm-cpu-cache-gb", c.Tiers.Host.Bytes}, {"kvbm-disk-cache-gb", c.Tiers.Disk.Bytes}, {"kvbm-remote-cache-gb", c.Tiers.Remote.Bytes}} {
		if f.bytes > 0 && f.bytes < frame {
			return &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("--%s is %d bytes, and a single block of this model takes %d; give it many times that, or 0 to have none", f.flag, f.bytes, frame)}
		}
	}
	return nil
}

func newMover(c *tier.Config) (*tier.Mover, error) {
	m, err := tier.New(*c)
	if err != nil && c.Remote != nil {
		err = errors.Join(err, c.Remote.Close())
	}
	return m, err
}

// openDisk opens the stores with the first folder of the disk tier that no other process
// uses.
func (n *Node) openDisk(c *tier.Config) (*tier.Mover, error) {
	dir := n.cfg.Tiers.DiskDir
	refuse := func(why error) error {
		if c.Remote != nil {
			why = errors.Join(why, c.Remote.Close())
		}
		return why
	}
	for i := range maxDiskFolders {
		c.DiskDir = filepath.Join(dir, geometryName(&c.Geometry)+"-"+strconv.Itoa(i))
		if err := os.MkdirAll(c.DiskDir, 0o700); err != nil {
			return nil, refuse(&dynamo.Error{Kind: dynamo.KindInvalid, Err: err, Message: "--kvbm-disk-dir: no folder can be made in " + dir})
		}
		if err := roomFor(c.DiskDir, c.Tiers.Disk.Bytes); err != nil {
			return nil, refuse(err)
		}
		m, err := tier.New(*c)
		switch {
		case err == nil:
			return m, nil
		case dynamo.KindOf(err) == dynamo.KindUnavailable && n.inUse(c.DiskDir):
			continue
		}
		return nil, refuse(fmt.Errorf("--kvbm-disk-dir: %w", err))
	}
	return nil, refuse(&dynamo.Error{Kind: dynamo.KindExhausted, Message: fmt.Sprintf("--kvbm-disk-dir: %d processes of this model use %s already; give another folder", maxDiskFolders, dir)})
}

// inUse reports whether another process has the folder of a disk tier.
func (n *Node) inUse(dir string) bool {
	f, err := tier.OpenFolder(dir)
	if err != nil {
		return false
	}
	return f.InUse && f.Close() == nil
}

// geometryName names what blocks of one geometry have in common, for folders.
func geometryName(g *tier.Geometry) string {
	sum := xxh3.HashString128(fmt.Sprintf("%+v", *g)).Bytes()
	return "kv-" + hex.EncodeToString(sum[:6])
}

// around runs the tiers beside an engine: from before its first step to after its last.
// An engine whose tiers end goes on without.
func (t *tiers) around(log *slog.Logger, run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		t.mu.Lock()
		if t.mu.engines++; t.mu.engines == 1 && !t.mu.ran {
			var own context.Context
			own, t.mu.stop = context.WithCancel(context.WithoutCancel(ctx))
			t.mu.ran, t.mu.ended = true, make(chan struct{})
			go func(m *tier.Mover, ended chan struct{}) { // ends with the last engine
				defer close(ended)
				if err := m.Run(own); own.Err() == nil {
					log.Error("the KV tiers ended; what they hold is computed again", obs.KeyError, err)
				}
			}(t.mu.mover, t.mu.ended)
		}
		t.mu.Unlock()
		defer t.leave()
		return run(ctx)
	}
}

// leave ends the tiers with the last engine.
func (t *tiers) leave() {
	t.mu.Lock()
	t.mu.engines--
	last, stop, ended := t.mu.engines == 0, t.mu.stop, t.mu.ended
	t.mu.Unlock()
	if last {
		stop()
		<-ended
	}
}

// close closes tiers that were opened and never ran.
func (t *tiers) close() error {
	t.mu.Lock()
	m, ran := t.mu.mover, t.mu.ran
	t.mu.ran = t.mu.ran || m != nil
	t.mu.Unlock()
	if m == nil || ran {
		return nil
	}
	return m.Close()
}
