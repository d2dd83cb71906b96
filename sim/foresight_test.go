package sim_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/sim"
)

// TestSelective: what the index is spared changes nothing. With Check it is told of all.
func TestSelective(t *testing.T) {
	type play struct {
		size   int
		policy placement.Policy
	}
	others := []play{{48, placement.Reference}, {64, placement.Sticky}, {512, placement.LMetric}, {48, placement.KV}, {64, placement.Reference}, {512, placement.KV}}
	all, workloads, n := fleets(), shapes(5), 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, shape := range slices.Sorted(maps.Keys(workloads)) {
			s := workloads[shape]
			for _, p := range []play{{16, placement.KV}, others[n%len(others)]} {
				c := sim.DefaultConfig()
				c.Fleet, c.Policy, c.Trace, c.BlockSize = resized(all[name], p.size), placement.DefaultParams(p.policy), s.All(), p.size
				t.Run(fmt.Sprintf("%s/%s/%d/%v", name, shape, p.size, p.policy), func(t *testing.T) {
					blind := run(t, c)
					c.Again = true
					foreseen := run(t, c)
					c.Check = true
					whole := run(t, c)
					if whole.Hash != blind.Hash || whole.Hash != foreseen.Hash {
						t.Errorf("outcome %016x when the index is told of all, %016x of prompts, %016x of what is shared", whole.Hash, blind.Hash, foreseen.Hash)
					}
				})
			}
			n++
		}
	}
}

// resized are groups with as much memory in blocks of another size than 64.
func resized(groups []sim.Group, size int) []sim.Group {
	var all []sim.Group
	for _, g := range groups {
		g.Blocks = g.Blocks * 64 / size
		all = append(all, g)
	}
	return all
}

// TestForeseen plays prompts that share blocks in odd ways: blocks of several sizes, a
// shared one behind different beginnings, hashes for a part of the prompt only.
func TestForeseen(t *testing.T) {
	at := func(i, input, size int, h ...uint64) trace.Request {
		return trace.Request{At: time.Duration(i) * 70 * time.Millisecond, Input: input, Output: 25, Hashes: h, BlockSize: size}
	}
	all := []trace.Request{
		at(0, 100, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10), at(1, 95, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9), at(2, 100, 50, 1, 2), at(3, 120, 50, 1, 3, 4),
		at(4, 130, 50, 9, 2, 4), at(5, 130, 100, 1, 2), at(6, 95, 10, 1, 2, 3), at(7, 95, 10), at(8, 95, 10), at(9, 60, 5, 1, 2, 3, 4), at(10, 60, 5, 1, 2, 3, 4),
		at(11, 120, 50, 1, 3), at(12, 100, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11), at(13, 120, 15, 7, 8, 9), at(14, 120, 15, 7, 8, 10), at(15, 120, 15, 7, 8, 9),
	}
	var repeated []trace.Request
	for i := range 4 * len(all) {
		q := all[i*7%len(all)]
		q.At = time.Duration(i) * 30 * time.Millisecond
		repeated = append(repeated, q)
	}
	for _, trace := range [][]trace.Request{all, repeated} {
		c := small(3)
		c.Policy, c.Check, c.Again, c.Trace = placement.DefaultParams(placement.KV), false, true, list(trace...)
		foreseen := run(t, c)
		c.Check = true
		whole := run(t, c)
		if whole.Hash != foreseen.Hash || whole.HitRate == 0 {
			t.Errorf("outcome %016x, %016x when the index is told of all; hit rate %v", foreseen.Hash, whole.Hash, whole.HitRate)
		}
	}
}
