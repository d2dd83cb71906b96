package main

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/node"
)

// budgetFlags are the budgets and policies of the KV tiers below an engine's cache, of
// an engine's process or of the daemon. Their names and environment twins are the
// reference's where that has them.
type budgetFlags struct {
	KVBMCPUCacheGB             float64  `name:"kvbm-cpu-cache-gb" help:"Host memory for KV that the engine's cache has no room for, in GB of 10^9 bytes; 0: none." default:"0" placeholder:"GB"`
	KVBMDiskCacheGB            float64  `name:"kvbm-disk-cache-gb" help:"Disk for it, in GB; it is found again after a restart. 0: none." default:"0" placeholder:"GB"`
	KVBMCPUCacheOverrideBlocks int      `name:"kvbm-cpu-cache-override-num-blocks" help:"Host memory in blocks, in place of GB." default:"0" placeholder:"N"`
	KVBMDiskCacheOverride      int      `name:"kvbm-disk-cache-override-num-blocks" help:"Disk in blocks, in place of GB." default:"0" placeholder:"N"`
	KVBMDiskDir                string   `name:"kvbm-disk-dir" aliases:"kvbm-disk-cache-dir" alsoenv:"DYN_KVBM_DISK_CACHE_DIR" help:"Folder of the disk tier; each process and each model has one of its own in it. Default: kv in --cache-dir." placeholder:"DIR"`
	KVBMRemoteCacheGB          float64  `name:"kvbm-remote-cache-gb" help:"Bound on what this process puts into the store of --kvbm-remote, in GB; 0: none but the store's own." default:"0" placeholder:"GB"`
	KVBMCPUPolicy              string   `name:"kvbm-cpu-policy" help:"Which blocks go to host memory: always all, those used a second time, or those worth more (cost to compute times probability of use) than what they push out." enum:"always,second-use,value" default:"always"`
	KVBMDiskPolicy             string   `name:"kvbm-disk-policy" help:"Which blocks go to disk." enum:"always,second-use,value" default:"second-use"`
	KVBMRemotePolicy           string   `name:"kvbm-remote-policy" help:"Which blocks go to the store of --kvbm-remote." enum:"always,second-use,value" default:"always"`
	KVBMDisableDiskFilter      bool     `name:"kvbm-disable-disk-offload-filter" help:"All blocks go to disk: --kvbm-disk-policy always." negatable:""`
	KVBMEviction               string   `name:"kvbm-eviction" help:"What a full tier gives up: the least recently used, or the least valuable of those." enum:"lru,frequency" default:"lru"`
	KVBMDiskWriteBudget        byteRate `name:"kvbm-disk-write-budget" help:"Bound on what is written to disk on average, as 50MB (a second) or 500GB/day, to spare its endurance; blocks beyond it are not kept there. 0: none." default:"0" placeholder:"RATE"`
}

// tierFlags are the KV tiers of an engine.
type tierFlags struct {
	budgetFlags

	KVBMRemote    string `name:"kvbm-remote" help:"Store of KV that instances share: a folder (PATH or file:///PATH), s3://BUCKET/PREFIX?endpoint=URL, or the KV daemon of this host (unix:///SOCKET, see 'dynamo kvbm'). Default: none." placeholder:"URL"`
	KVBMS3KeyID   string `name:"kvbm-s3-key-id" help:"Access key of an object store." alsoenv:"AWS_ACCESS_KEY_ID" placeholder:"ID"`
	KVBMS3Secret  string `name:"kvbm-s3-secret" help:"Its secret. Better set in the environment." alsoenv:"AWS_SECRET_ACCESS_KEY" placeholder:"SECRET" secret:""`
	KVBMS3Session string `name:"kvbm-s3-session" help:"Token of temporary access keys." alsoenv:"AWS_SESSION_TOKEN" placeholder:"TOKEN" secret:""`
	KVBMS3Region  string `name:"kvbm-s3-region" help:"Region of an object store." default:"us-east-1" alsoenv:"AWS_REGION AWS_DEFAULT_REGION" placeholder:"NAME"`
}

// apply sets the tiers' part of a node's configuration.
func (f *tierFlags) apply(a *app, c *node.TiersConfig) error {
	c.Remote = f.KVBMRemote
	c.Access = node.ObjectAccess{KeyID: f.KVBMS3KeyID, Secret: f.KVBMS3Secret, Session: f.KVBMS3Session, Region: f.KVBMS3Region}
	return f.budgetFlags.apply(a, c)
}

func (f *budgetFlags) apply(a *app, c *node.TiersConfig) (err error) {
	c.HostBlocks, c.DiskBlocks, c.DiskDir = f.KVBMCPUCacheOverrideBlocks, f.KVBMDiskCacheOverride, f.KVBMDiskDir
	if c.DiskDir == "" && a.flags.CacheDir != "" {
		c.DiskDir = filepath.Join(a.flags.CacheDir, "kv")
	}
	var faults []error
	gb := func(flag string, n float64) int64 {
		if !(n >= 0) || n*1e9 >= math.MaxInt64 {
			faults = append(faults, fmt.Errorf("--%s is %g; it must be 0 or more", flag, n))
			return 0
		}
		return int64(n * 1e9)
	}
	c.HostBytes, c.DiskBytes = gb("kvbm-cpu-cache-gb", f.KVBMCPUCacheGB), gb("kvbm-disk-cache-gb", f.KVBMDiskCacheGB)
	c.RemoteBytes, c.DiskWriteBudget = gb("kvbm-remote-cache-gb", f.KVBMRemoteCacheGB), int64(f.KVBMDiskWriteBudget)
	for _, p := range []struct {
		to   *kvbm.Policy
		name string
	}{{&c.Host, f.KVBMCPUPolicy}, {&c.Disk, f.KVBMDiskPolicy}, {&c.Far, f.KVBMRemotePolicy}} {
		if *p.to, err = kvbm.ParsePolicy(p.name); err != nil {
			faults = append(faults, err)
		}
	}
	if f.KVBMDisableDiskFilter {
		c.Disk = kvbm.PolicyAlways
	}
	if c.Eviction, err = kvbm.ParseEviction(f.KVBMEviction); err != nil {
		faults = append(faults, err)
	}
	return asUsage(errors.Join(faults...))
}

// byteRate is a number of bytes per second: 50MB, 50MB/s, 500GB/day.
type byteRate int64

// UnmarshalText reads a rate.
func (r *byteRate) UnmarshalText(text []byte) error {
	amount, per, _ := strings.Cut(string(text), "/")
	var b byteSize
	if err := b.UnmarshalText([]byte(amount)); err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(per)) {
	case "", "s", "sec", "second":
		*r = byteRate(b)
	case "day", "d":
		if *r = byteRate(float64(b) / (24 * time.Hour).Seconds()); *r == 0 && b > 0 {
			*r = 1
		}
	default:
		return fmt.Errorf("%q is not a rate such as 50MB/s or 500GB/day", text)
	}
	return nil
}

// String writes the rate as it is read.
func (r byteRate) String() string {
	if r == 0 {
		return "0"
	}
	return byteSize(r).String() + "/s"
}
