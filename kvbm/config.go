package kvbm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
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

// Policy says which blocks a tier takes in.
type Policy uint8

// The policies.
const (
	// PolicyAlways takes every block: the tier is written through.
	PolicyAlways Policy = iota
	// PolicySecondUse takes a block when it is used for the second time.
	PolicySecondUse
	// PolicyValue takes a block that is worth more than the one given up for it: cost
	// to compute it again times the probability that it is used again.
	PolicyValue
)

var policyNames = []string{"always", "second-use", "value"}

// String returns the policy's name.
func (p Policy) String() string { return policyNames[p] }

// ParsePolicy returns the policy of a name.
func ParsePolicy(name string) (Policy, error) {
	if i := slices.Index(policyNames, name); i >= 0 {
		return Policy(i), nil
	}
	return 0, fmt.Errorf("%q is no offload policy; choose one of %s", name, strings.Join(policyNames, ", "))
}

// Eviction says which block a full tier gives up for another.
type Eviction uint8

// The choices. Both prefer blocks that none behind them needs.
const (
	// EvictLRU gives up the least recently used.
	EvictLRU Eviction = iota
	// EvictFrequency gives up the least valuable of the least recently used.
	EvictFrequency
)

var evictionNames = []string{"lru", "frequency"}

// String returns the name of the choice.
func (e Eviction) String() string { return evictionNames[e] }

// ParseEviction returns the choice of a name.
func ParseEviction(name string) (Eviction, error) {
	if i := slices.Index(evictionNames, name); i >= 0 {
		return Eviction(i), nil
	}
	return 0, fmt.Errorf("%q is no way to evict; choose one of %s", name, strings.Join(evictionNames, ", "))
}

// TierConfig describes one of the tiers below the device.
type TierConfig struct {
	// Bytes is its budget; 0: there is no such tier. Default 0.
	Bytes int64
	// Policy says what it takes in. Default PolicyAlways; PolicySecondUse for disk.
	Policy Policy
	// Queue bounds the blocks on their way into it, and those on their way out: more
	// are not taken, or not brought. Default 1024.
	Queue int
	// Workers is the number of blocks moved at once. Default 2.
	Workers int
	// Bandwidth, in bytes per second and worker, and Latency are assumed of reads
	// before they are measured. Defaults 5 GB/s and 0 for host, 1 GB/s and 100 µs for
	// disk, 100 MB/s and 5 ms for remote.
	Bandwidth float64
	Latency   time.Duration
}

// TiersConfig describes the tiers below the device.
type TiersConfig struct {
	// BlockTokens and BlockBytes are the size of a block: in tokens, and in bytes as
	// stored. No defaults.
	BlockTokens int
	BlockBytes  int64
	// Host, Disk and Remote are the tiers.
	Host, Disk, Remote TierConfig
	// Eviction is the way of all. Default EvictLRU.
	Eviction Eviction
	// DiskWriteBudget bounds what is written to disk, in bytes per second on average;
	// 0 does not. Default 0. (--kvbm-disk-write-budget)
	DiskWriteBudget int64
	// Changes says whether changes are recorded for Tiers.Changes. Default false.
	Changes bool
}

// DefaultTiersConfig returns the defaults, with which there are no tiers.
func DefaultTiersConfig() TiersConfig {
	return TiersConfig{
		Host:   TierConfig{Queue: 1024, Workers: 2, Bandwidth: 5e9},
		Disk:   TierConfig{Queue: 1024, Workers: 2, Bandwidth: 1e9, Latency: 100 * time.Microsecond, Policy: PolicySecondUse},
		Remote: TierConfig{Queue: 1024, Workers: 2, Bandwidth: 1e8, Latency: 5 * time.Millisecond},
	}
}

// tier is the configuration of tier i.
func (c *TiersConfig) tier(i int) *TierConfig {
	return [...]*TierConfig{&c.Host, &c.Disk, &c.Remote}[i]
}

// slots is the number of blocks that tier i holds.
func (c *TiersConfig) slots(i int) int32 {
	return int32(min(c.tier(i).Bytes/c.BlockBytes, maxTierSlots))
}

// Slots is the number of blocks that a tier below the device holds.
func (c *TiersConfig) Slots(t dynamo.Tier) int { return int(c.slots(int(t) - 1)) }

// Validate reports all faults at once.
func (c *TiersConfig) Validate() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if c.BlockTokens < 1 || c.BlockTokens > MaxBlockSize {
		fault("a block has %d tokens; it must have 1 to %d", c.BlockTokens, MaxBlockSize)
	}
	if c.BlockBytes < 1 {
		fault("a block has %d bytes; it must have 1 or more", c.BlockBytes)
	}
	if c.DiskWriteBudget < 0 {
		fault("--kvbm-disk-write-budget is %d bytes per second; it must be 0 (no bound) or more", c.DiskWriteBudget)
	}
	if c.DiskWriteBudget > 0 && c.BlockBytes > 0 && c.DiskWriteBudget*int64(writeBurst/time.Second) < c.BlockBytes {
		fault("--kvbm-disk-write-budget is %d bytes per second, too little for a block of %d bytes within %v", c.DiskWriteBudget, c.BlockBytes, writeBurst)
	}
	for i := range numTiers {
		tc, name := c.tier(i), dynamo.Tier(i+1)
		if tc.Bytes < 0 || tc.Bytes > 0 && tc.Bytes < c.BlockBytes {
			fault("the %v tier has a budget of %d bytes, and a single block takes %d; give it many times that, or 0 to have none", name, tc.Bytes, c.BlockBytes)
		}
		if tc.Bytes == 0 {
			continue
		}
		if tc.Queue < 1 || tc.Queue > MaxTierQueue {
			fault("the queue of the %v tier is %d; it must be 1 to %d", name, tc.Queue, MaxTierQueue)
		}
		if tc.Workers < 1 || tc.Workers > maxTierWorkers {
			fault("the %v tier has %d workers; it must have 1 to %d", name, tc.Workers, maxTierWorkers)
		}
		if tc.Policy > PolicyValue || !(tc.Bandwidth >= 0) || tc.Latency < 0 {
			fault("the %v tier has policy %d, bandwidth %g and latency %v, which make no sense", name, tc.Policy, tc.Bandwidth, tc.Latency)
		}
	}
	if c.Eviction > EvictFrequency {
		fault("the way to evict is %d, which is none", c.Eviction)
	}
	return errors.Join(faults...)
}
