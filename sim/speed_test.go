package sim_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/perfmodel"
	"github.com/dynamo-go/dynamo/router/placement"
	"github.com/dynamo-go/dynamo/sim"
)

// shape is a trace with prompts of 4,500 tokens, two thirds of which are shared by
// groups, and answers of 64.
func shape(requests int, rate float64) trace.Synth {
	return trace.Synth{
		Seed: 1, Requests: requests, BlockSize: 64,
		Arrival: trace.Arrival{Process: trace.ArrivalPoisson, Rate: rate},
		Tree:    trace.Tree{Share: 1, Roots: 200, Depth: 1, Branching: 1, Zipf: 0.6, Node: trace.Lengths{Median: 3000}},
		Turns:   1, MaxTurns: 1,
		First: trace.Lengths{Median: 1500}, Output: trace.Lengths{Median: 64}, MaxInput: 128 << 10, Pace: 20 * time.Millisecond,
	}
}

func fleet(preset string, count int) sim.Group {
	m, machine, err := perfmodel.Preset(preset)
	if err != nil {
		panic(err)
	}
	g := sim.DefaultGroup()
	g.Name, g.Count, g.Model, g.Blocks = preset, count, m, machine.KVBlocks*machine.BlockTokens/64
	return g
}

// BenchmarkRun plays 20,000 requests to 8 workers; reading the trace is included.
func BenchmarkRun(b *testing.B) {
	s := shape(20000, 40)
	var file bytes.Buffer
	w := trace.Write(&file)
	for q, err := range (trace.Change{Renumber: true}).Apply(s.All()) {
		if err := errors.Join(err, w.Request(&q)); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	for _, policy := range []placement.Policy{placement.RoundRobin, placement.KV} {
		for _, stepwise := range []bool{false, true} {
			b.Run(fmt.Sprintf("%v/stepwise=%v", policy, stepwise), func(b *testing.B) {
				var r *sim.Result
				for b.Loop() {
					c := sim.DefaultConfig()
					c.Fleet, c.Stepwise = []sim.Group{fleet("h200-8b", 8)}, stepwise
					c.Policy = placement.DefaultParams(policy)
					c.Again = true
					c.Trace = func(yield func(trace.Request, error) bool) {
						trace.Read(bytes.NewReader(file.Bytes()), trace.Options{})(yield)
					}
					var err error
					if r, err = sim.Run(b.Context(), c); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.N)*20000/b.Elapsed().Seconds(), "req/s")
				b.ReportMetric(1e3*r.Bench.TTFT.P50, "ttft-p50-ms")
				b.ReportMetric(100*r.HitRate, "hit-%")
				b.ReportMetric(float64(r.Steps)/20000, "steps/req")
				b.Logf("hash %016x errors %v", r.Hash, r.Bench.Errors)
			})
		}
	}
}

// BenchmarkFleet plays a part of an hour of a million requests to 1,000 workers.
func BenchmarkFleet(b *testing.B) {
	const requests = 200000
	for _, policy := range []placement.Policy{placement.RoundRobin, placement.KV} {
		b.Run(policy.String(), func(b *testing.B) {
			var r *sim.Result
			for b.Loop() {
				s := shape(requests, 278)
				s.BlockSize, s.Tree.Roots, s.Output = 512, 5000, trace.Lengths{Median: 100, Mean: 150, Min: 1, Max: 1000}
				c := sim.DefaultConfig()
				c.Fleet, c.Policy, c.Trace, c.Again = []sim.Group{fleet("h200-8b", 1000)}, placement.DefaultParams(policy), s.All(), true
				var err error
				if r, err = sim.Run(b.Context(), c); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*requests/b.Elapsed().Seconds(), "req/s")
			b.ReportMetric(100*r.HitRate, "hit-%")
			b.ReportMetric(float64(r.Steps)/requests, "steps/req")
		})
	}
}
