package tier

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
)

// Config describes a Mover.
type Config struct {
	// Geometry is that of the engine's blocks. No default.
	Geometry Geometry
	// ClusterKey is the secret under which blocks are named and frames sealed. With
	// another one nothing of a disk or a remote store is found again. No default; an
	// empty one seals against damage, not against people.
	ClusterKey []byte
	// Tiers has the budgets and the policies; its BlockTokens and BlockBytes are set
	// from Geometry. Default kvbm.DefaultTiersConfig, which has no tiers.
	Tiers kvbm.TiersConfig
	// Named says that blocks are named by those who bring them (Mover.Named), and not by
	// what their sequence says. Default false.
	Named bool
	// Recompute is what it costs an engine to compute tokens, which decides what is worth
	// bringing; it replaces what engines measure and tell. Default zero: they tell.
	Recompute kvbm.Recompute
	// HugePages asks for large pages for the host tier. Default true.
	HugePages bool
	// DiskDir is the folder of the disk tier; this process is its only user. It is
	// made. No default.
	DiskDir string
	// RemoteDir is a folder on a file system shared between instances that use the
	// same cluster key; Remote is another store to use instead, which the Mover closes.
	// One of them is set if Tiers.Remote has a budget. No default.
	RemoteDir string
	Remote    Store
	// Wrap, if set, puts something between the Mover and its stores: faults, in tests.
	Wrap func(dynamo.Tier, Store) Store
	// Events, if set, hears which blocks a tier has from now on and which no more, in
	// order and in one call at a time, as pools tell it (without ids and numbers). It
	// must return soon and not call the Mover; the slice is valid during the call.
	Events func(dynamo.Tier, []kvbm.Event)
	// Metrics counts; nil counts nothing.
	Metrics *Metrics
	// Logger receives what an operator should know; nil discards it.
	Logger *slog.Logger
}

// DefaultConfig returns the defaults, with which there are no tiers.
func DefaultConfig() Config {
	return Config{Tiers: kvbm.DefaultTiersConfig(), HugePages: true}
}

// Validate reports all faults at once.
func (c *Config) Validate() error {
	faults := []error{c.sized().Validate()}
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if g := &c.Geometry; g.BlockBytes < 1 || g.BlockBytes > MaxBlockBytes {
		fault("a block has %d bytes; it must have 1 to %d", g.BlockBytes, MaxBlockBytes)
	}
	if g := &c.Geometry; g.Groups != (Groups{}) && !g.Groups.whole(g.BlockBytes) {
		fault("the groups of layers of a block end at %v; they must follow each other up to its %d bytes", g.Groups, g.BlockBytes)
	}
	if !contentFits(&c.Geometry.Content) {
		fault("the names of model revision, layout, dtype and shard take more than %d bytes", maxContentBytes)
	}
	if c.Geometry.Content.Adapter != "" || c.Geometry.Content.Salt != "" {
		fault("a geometry has neither adapter nor salt: each sequence has its own")
	}
	if c.Tiers.Disk.Bytes > 0 && c.DiskDir == "" {
		fault("the disk tier needs a folder; set --kvbm-disk-dir")
	}
	if c.Tiers.Remote.Bytes > 0 && c.RemoteDir == "" && c.Remote == nil {
		fault("the remote tier needs a shared folder or an object store; set --kvbm-remote")
	}
	return errors.Join(faults...)
}

// sized is the configuration of the tiers, with the size of a block.
func (c *Config) sized() *kvbm.TiersConfig {
	t := c.Tiers
	t.BlockTokens, t.BlockBytes = c.Geometry.BlockTokens, int64(c.Geometry.FrameBytes())
	return &t
}
