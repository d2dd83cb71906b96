package main

import (
	"fmt"

	"github.com/dynamo-go/dynamo/bench/index"
)

// benchIndexCmd measures the router's prefix index.
type benchIndexCmd struct {
	Workers   int    `help:"Workers whose blocks are stored." default:"64" placeholder:"N" oneoff:""`
	Chunk     int    `help:"Most blocks of an event." default:"64" placeholder:"N" oneoff:""`
	Replicas  int    `help:"Workers that store each sequence." default:"1" placeholder:"N" oneoff:""`
	Blocks    int    `help:"Blocks to be held, times workers that hold them." default:"2000000" placeholder:"N" oneoff:""`
	Seed      uint64 `help:"Seed of the workload." default:"42" placeholder:"N" oneoff:""`
	Mode      string `help:"What to measure: storing, lookups and removal; memory; lookups beside a writer; memory that is left; hashing; deep trees of conversations." enum:"bench,mem,mixed,leak,hash,trees" default:"bench" oneoff:""`
	EngineIDs bool   `name:"engine-ids" help:"Give blocks ids of their worker's own, by which they are removed, as engines do that hash in their own way." oneoff:""`
}

// Run measures and prints one JSON object.
func (c *benchIndexCmd) Run(a *app) error {
	cfg := index.DefaultConfig()
	cfg.Workers, cfg.Chunk, cfg.Replicas, cfg.Blocks, cfg.Seed = c.Workers, c.Chunk, c.Replicas, c.Blocks, c.Seed
	cfg.Mode, cfg.EngineIDs = c.Mode, c.EngineIDs
	out, err := index.Run(cfg)
	if err != nil {
		return asUsage(err)
	}
	_, err = fmt.Fprintf(a.stdout, "%s\n", out)
	return err
}
