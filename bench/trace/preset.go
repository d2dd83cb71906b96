package trace

import (
	"fmt"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo"
)

// mooncakePaper is where the statistics of Mooncake's traces stand; the numbers of
// requests are those of the published files.
const mooncakePaper = "Qin et al., Mooncake, FAST'25, appendix (workload statistics), and the published files"

// presets are made so that Describe finds the published statistics in them; a test
// does.
var presets = []Synth{
	{
		Name:     "mooncake-conversation",
		Source:   mooncakePaper + ": 12,031 requests in an hour, mean input 12,035, mean output 343, 40 % of blocks reusable",
		Requests: 12031, BlockSize: 512,
		Arrival: Arrival{Process: ArrivalGamma, Rate: 3.4, CV: 1.5},
		Tree:    Tree{System: 880},
		Turns:   1.66, MaxTurns: 40,
		First:  Lengths{Median: 4600, Mean: 10_700, Min: 10, Max: 110_000},
		Follow: Lengths{Median: 250, Mean: 1400, Min: 5, Max: 60_000},
		Output: Lengths{Median: 260, Mean: 350, Min: 1, Max: 2000},
		Gap:    Lengths{Median: 40, Mean: 90, Min: 1, Max: 1800},
	},
	{
		Name:     "mooncake-toolagent",
		Source:   mooncakePaper + ": 23,608 requests in an hour, mean input 8,596, mean output 182, 59 % of blocks reusable",
		Requests: 23608, BlockSize: 512,
		Arrival: Arrival{Process: ArrivalGamma, Rate: 6.6, CV: 1.5},
		Tree:    Tree{System: 0, Share: 1, Roots: 60, Depth: 1, Branching: 1, Zipf: 1.1, Node: Lengths{Median: 4600, Mean: 5000, Min: 512, Max: 16_000}},
		Turns:   1.1, MaxTurns: 10,
		First:  Lengths{Median: 1500, Mean: 3400, Min: 10, Max: 100_000},
		Follow: Lengths{Median: 300, Mean: 900, Min: 5, Max: 20_000},
		Output: Lengths{Median: 60, Mean: 190, Min: 1, Max: 2000},
		Gap:    Lengths{Median: 5, Mean: 15, Min: 0.1, Max: 300},
	},
	{
		Name:     "mooncake-synthetic",
		Source:   mooncakePaper + ": 3,993 requests, Poisson, mean input 15,325, mean output 149, 66 % of blocks reusable",
		Requests: 3993, BlockSize: 512,
		Arrival: Arrival{Process: ArrivalPoisson, Rate: 3.8},
		Tree:    Tree{Share: 0.62, Roots: 100_000, Depth: 1, Branching: 1, Zipf: 0.3, Node: Lengths{Median: 16_300, Mean: 20_000, Min: 2000, Max: 120_000}},
		Turns:   3.3, MaxTurns: 20,
		First:  Lengths{Median: 250, Mean: 900, Min: 4, Max: 30_000},
		Follow: Lengths{Median: 60, Mean: 200, Min: 4, Max: 8000},
		Output: Lengths{Median: 80, Mean: 155, Min: 1, Max: 1200},
		Gap:    Lengths{Median: 10, Mean: 20, Min: 0.5, Max: 120},
	},
	{
		Name:     "sharegpt",
		Source:   "Kwon et al., PagedAttention, SOSP'23, figure 11: mean input 161, mean output 338, no shared prefixes counted",
		Requests: 10000, BlockSize: 16,
		Arrival: Arrival{Process: ArrivalPoisson, Rate: 10},
		Turns:   1, MaxTurns: 1,
		First:  Lengths{Median: 60, Mean: 200, Min: 4, Max: 1024},
		Output: Lengths{Median: 250, Mean: 350, Min: 1, Max: 2048},
	},
	{
		Name:     "agents",
		Source:   "vLLM and Mooncake, Serving Agentic Workloads at Scale (May 2026): Codex on SWE-bench Pro, about 80,000 tokens of context by turn 30, 131 tokens of input for each of output",
		Requests: 5000, BlockSize: 64,
		Arrival: Arrival{Process: ArrivalPoisson, Rate: 2},
		Tree:    Tree{System: 0, Share: 1, Roots: 3, Depth: 2, Branching: 40, Zipf: 1, Node: Lengths{Median: 7000, Mean: 7200, Min: 2000, Max: 14_000}},
		Turns:   30, MaxTurns: 150,
		First:  Lengths{Median: 900, Mean: 1500, Min: 50, Max: 20_000},
		Follow: Lengths{Median: 900, Mean: 1900, Min: 20, Max: 30_000},
		Output: Lengths{Median: 170, Mean: 370, Min: 10, Max: 6000},
		Gap:    Lengths{Median: 1.5, Mean: 6, Min: 0.05, Max: 300},
		Fork:   Fork{Chance: 0.03, Agents: 3, Turns: 8},
	},
	{
		Name:     "documents",
		Source:   "Li et al., LooGLE, ACL'24: 776 documents of 19,300 words on average, 6,448 questions",
		Requests: 6448, BlockSize: 512,
		Arrival: Arrival{Process: ArrivalPoisson, Rate: 2},
		Tree:    Tree{Share: 1, Roots: 776, Depth: 1, Branching: 1, Zipf: 0, Node: Lengths{Median: 21_500, Mean: 25_700, Min: 5000, Max: 120_000}},
		Turns:   1, MaxTurns: 1,
		First:  Lengths{Median: 25, Mean: 35, Min: 5, Max: 300},
		Output: Lengths{Median: 25, Mean: 60, Min: 1, Max: 600},
	},
}

// Presets lists what Preset knows: names and sources.
func Presets() []Synth {
	all := make([]Synth, len(presets))
	for i := range presets {
		all[i] = presets[i].complete()
	}
	return all
}

// Preset returns a configuration by its name.
func Preset(name string) (Synth, error) {
	var names []string
	for i := range presets {
		if presets[i].Name == name {
			return presets[i].complete(), nil
		}
		names = append(names, presets[i].Name)
	}
	return Synth{}, &dynamo.Error{Kind: dynamo.KindNotFound, Param: "preset", Message: fmt.Sprintf("there is no trace preset %q; there are %s", name, strings.Join(names, ", "))}
}

// complete fills in what all presets share.
func (s Synth) complete() Synth {
	s.Seed = 1
	if s.MaxInput == 0 {
		s.MaxInput = 128 << 10
	}
	s.Pace = 20 * time.Millisecond
	return s
}
