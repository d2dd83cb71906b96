package kvbm

import (
	"errors"
	"fmt"
)

// Config describes a pool.
type Config struct {
	// Blocks is the capacity. No default.
	Blocks int
	// BlockSize is the number of tokens in a block. Default 16.
	BlockSize int
	// PrefixCaching says whether blocks can be found again; without it every
	// registration is refused. Default true.
	PrefixCaching bool
	// HashOnly lets a hash stand for a block's ids, and for its root and all blocks
	// before it: they are neither kept nor compared, and Content, Query, Event and
	// StoredBlock have none. For simulations, in which hashes are all there is. Default
	// false.
	HashOnly bool
	// Events says whether changes are recorded for Pool.Events. Default false.
	Events bool
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{BlockSize: 16, PrefixCaching: true} }

// Validate reports all faults at once.
func (c Config) Validate() error {
	var faults []error
	if c.Blocks < 1 || c.Blocks > MaxBlocks {
		faults = append(faults, fmt.Errorf("a KV pool of %d blocks; it must have 1 to %d", c.Blocks, MaxBlocks))
	}
	if c.BlockSize < 1 || c.BlockSize > MaxBlockSize {
		faults = append(faults, fmt.Errorf("--kv-cache-block-size is %d; it must be 1 to %d", c.BlockSize, MaxBlockSize))
	}
	return errors.Join(faults...)
}
