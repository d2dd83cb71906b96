package daemon

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// Config describes a Daemon.
type Config struct {
	// Socket is the path of its socket. No default.
	Socket string
	// Tiers has the budgets and policies of each content; the host tier needs a budget.
	// No default.
	Tiers kvbm.TiersConfig
	// HostBlocks and DiskBlocks are budgets in blocks in place of bytes; 0: bytes count.
	HostBlocks, DiskBlocks int
	// Contents is how many contents (models, and each layout of one) are kept at a time;
	// each has the whole budgets. One more is refused while all are in use. Default 1.
	Contents int
	// ClientQuota bounds the bytes of blocks that the clients of one name have put and
	// that are still kept: beyond it their oldest are given up. 0: no bound. Default 0.
	ClientQuota int64
	// MemoryBytes bounds the memory of a connection; more is refused. 0: no bound.
	// Default 0.
	MemoryBytes int64
	// ClusterKey seals what is kept. No default.
	ClusterKey []byte
	// DiskDir is the folder of the disk tier; each content has its own in it.
	DiskDir string
	// Remote opens the store shared with others for blocks of a geometry: it sets
	// RemoteDir or Remote of c. Nil: there is none.
	Remote func(c *tier.Config) error
	// TierMetrics counts what the tiers do, Metrics what clients do; nil counts nothing.
	TierMetrics *tier.Metrics
	Metrics     *Metrics
	// Logger gets what an operator acts on; nil discards.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Tiers: kvbm.DefaultTiersConfig(), Contents: 1} }

// Validate reports all faults at once.
func (c *Config) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.Socket == "" || len(c.Socket) > maxSocketPath {
		fault("--socket is %q; it must be a path of 1 to %d bytes", c.Socket, maxSocketPath)
	}
	if c.Tiers.Host.Bytes <= 0 && c.HostBlocks <= 0 {
		fault("the daemon keeps blocks in host memory first; give --kvbm-cpu-cache-gb")
	}
	if (c.Tiers.Disk.Bytes > 0 || c.DiskBlocks > 0) && c.DiskDir == "" {
		fault("the disk tier needs a folder; set --kvbm-disk-dir")
	}
	if c.Contents < 1 || c.Contents > maxContents {
		fault("--models is %d; it must be 1 to %d", c.Contents, maxContents)
	}
	if c.ClientQuota < 0 || c.MemoryBytes < 0 {
		fault("--client-quota and --client-memory must be 0 (no bound) or more")
	}
	return errors.Join(faults...)
}

const (
	// maxSocketPath is what the kernel takes.
	maxSocketPath = 100
	// maxContents bounds Config.Contents.
	maxContents = 64
)
