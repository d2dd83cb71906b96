package index

import (
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/dynamo-go/dynamo/router/kvindex"
)

// TestWorkload holds the workload to what is published of it.
func TestWorkload(t *testing.T) {
	for _, tc := range []struct {
		workers, sequences, events, blocks int
		checksum                           uint64
		digest                             [2]uint64
	}{
		{8, 7715, 35032, 2_000_243, 0xdc7e3ec909ce11a4, [2]uint64{0x936a0033c2b6ee0e, 0x425f9d1694507086}},
		{64, 7268, 34797, 2_000_323, 0x1146709c4cf6d39b, [2]uint64{0x79b4ee79e819b847, 0x2d690fa4143a67e6}},
	} {
		if raced || testing.Short() && tc.workers != 8 {
			continue
		}
		c := DefaultConfig()
		c.Workers = tc.workers
		w := generate(c.Params)
		if len(w.sequences) != tc.sequences || len(w.events) != tc.events || w.held != tc.blocks || w.checksum != tc.checksum {
			t.Errorf("%d workers: %d sequences, %d events, %d blocks, checksum %x", tc.workers, len(w.sequences), len(w.events), w.held, w.checksum)
		}
		x, err := c.subject()
		if err != nil {
			t.Fatal(err)
		}
		for i := range w.events {
			x.store(&w.events[i])
		}
		var found []kvindex.Overlap
		for i, n := range []int{128, 512} {
			digest := uint64(0)
			for _, q := range queries(w.sequences, n, queryCount, c.Seed) {
				found = x.Find(chain(nil, q), found[:0])
				digest += x.digest(found)
			}
			if digest != tc.digest[i] {
				t.Errorf("%d workers, %d blocks: digest %x, want %x", tc.workers, n, digest, tc.digest[i])
			}
		}
	}
}

// TestRun runs each mode on a small workload, with and without ids of the
// engines'.
func TestRun(t *testing.T) {
	for _, mode := range Modes {
		for _, engine := range []bool{false, true} {
			c := DefaultConfig()
			c.Blocks, c.Mode, c.EngineIDs = 100_000, mode, engine
			if raced {
				c.Blocks = 5_000
			}
			if (raced || testing.Short()) && (mode == "bench" || mode == "hash") { // which last a while
				continue
			}
			out, err := Run(c)
			if err != nil {
				t.Fatal(err)
			}
			var m map[string]any
			if err := json.Unmarshal(out, &m); err != nil {
				t.Fatalf("%s: %v", out, err)
			}
			want := map[string]string{"bench": "rm16_blk_s", "mem": "bytes_b_per_hb", "mixed": "read_p99_us", "leak": "bytes_left", "hash": "bs16_first", "trees": "find_s"}[mode]
			if _, ok := m[want]; !ok || m["mode"] != mode {
				t.Errorf("mode %s prints %s", mode, out)
			}
			if mode == "hash" && (m["bs16_first"] != "b99a2b1e33afff9a" || m["bs16_last_seq"] != "30cb4698746ab8d1" || m["bs64_first"] != "c4a7311214eead83" || m["bs64_last_seq"] != "08a5c43277e72afc") {
				t.Errorf("wrong hashes: %s", out)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	for _, mode := range []string{"mixed", "trees", "leak"} { // the smallest workload is one too
		c := DefaultConfig()
		c.Blocks, c.Mode = minBlocks, mode
		if _, err := Run(c); err != nil {
			t.Error(err)
		}
	}
	for _, change := range []func(*Config){
		func(c *Config) { c.Workers = 0 },
		func(c *Config) { c.Chunk = 0 },
		func(c *Config) { c.Replicas = 65 },
		func(c *Config) { c.Blocks = -1 },
		func(c *Config) { c.Mode = "fast" },
	} {
		c := DefaultConfig()
		change(&c)
		if _, err := Run(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
