package placement

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/dynamo-go/dynamo/perfmodel"
)

// Policy says what makes one worker better than another.
type Policy uint8

// The policies. Their numbers are in records, so they are append-only.
const (
	// RoundRobin takes the worker whose last turn is longest ago.
	RoundRobin Policy = iota
	// Random takes any.
	Random
	// LeastLoaded takes the one that is filled least relative to its capacity.
	LeastLoaded
	// PowerOfTwo takes the less loaded of two random ones.
	PowerOfTwo
	// KV takes the one where the request costs the fleet the fewest milliseconds: its
	// own and those it costs others. See Terms.
	KV
	// Reference takes the one with the lowest cost by the formula of NVIDIA Dynamo's
	// KV router, or draws by it; see ReferenceParams.
	Reference
	// Sticky keeps to workers that hold most of the prompt while they are not much
	// slower, as the prefix affinity filter of llm-d does; see StickyParams.
	Sticky
	// LMetric takes the lowest product of prefill backlog, this prompt's included, and
	// batch size.
	LMetric
	// Session keeps the requests of a session at one worker, by rendezvous hashing,
	// unless that one holds much more than the others.
	Session
	// Direct takes the worker that the request is pinned to, and refuses one that is not.
	Direct
)

var policies = [...]string{
	RoundRobin: "round-robin", Random: "random", LeastLoaded: "least-loaded", PowerOfTwo: "power-of-two",
	KV: "kv", Reference: "dynamo", Sticky: "sticky", LMetric: "lmetric", Session: "session", Direct: "direct",
}

// aliases are further names that ParsePolicy knows.
var aliases = map[string]Policy{"p2c": PowerOfTwo}

// Policies lists the names that String prints.
func Policies() []string { return slices.Clone(policies[:]) }

// String returns the policy's name.
func (p Policy) String() string {
	if int(p) < len(policies) {
		return policies[p]
	}
	return "policy(" + strconv.Itoa(int(p)) + ")"
}

// ParsePolicy reads what String prints, and "p2c" for "power-of-two".
func ParsePolicy(name string) (Policy, bool) {
	if p, known := aliases[name]; known {
		return p, true
	}
	i := slices.Index(policies[:], name)
	return Policy(max(i, 0)), i >= 0
}

// UsesOverlap reports whether the policy looks at who holds what of the prompt.
func (p Policy) UsesOverlap() bool {
	switch p {
	case KV, Reference, Sticky, LMetric:
		return true
	}
	return false
}

// Params are a policy and what it can be told. KV needs nothing but its name.
type Params struct {
	Policy Policy
	// Reference is for the policy of that name.
	Reference ReferenceParams
	// Sticky is for the policy of that name.
	Sticky StickyParams
	// Prior stands in for the model of a candidate that has none; zero for a GPU of
	// 2023 with a model of 8 B parameters. Where no candidate has a model only
	// ratios matter, and those hardly differ between machines.
	Prior perfmodel.ClosedForm
}

// ReferenceParams are the flags of NVIDIA Dynamo's KV router, by its names.
type ReferenceParams struct {
	// OverlapCredit is what a block held on the device is worth, HostCredit and
	// DiskCredit one that is held there alone, in blocks of prefill. Defaults 1, 0.75
	// and 0.25. (--router-kv-overlap-score-credit, --router-host-cache-hit-weight,
	// --router-disk-cache-hit-weight)
	OverlapCredit, HostCredit, DiskCredit float64
	// SharedCredit is what a block in the remote tier alone is worth. Default 0.
	// (--shared-cache-multiplier)
	SharedCredit float64
	// CreditDecay lowers OverlapCredit where more prefill is pending than at the
	// least loaded: 1 halves it at one request's worth. Default 0.
	// (--router-kv-overlap-score-credit-decay)
	CreditDecay float64
	// PrefillScale multiplies the prefill part of the cost. Default 1.
	// (--router-prefill-load-scale, and --kv-overlap-score-weight of old)
	PrefillScale float64
	// RequestWeight is what each active request costs, in blocks. Default 0.
	// (--router-decode-active-request-weight)
	RequestWeight float64
	// Temperature draws workers with exp(-cost/temperature), costs scaled to 0…1; 0
	// takes the lowest. Default 0. (--router-temperature)
	Temperature float64
	// IgnorePrefill leaves pending prompts out of the cost. Default false.
	// (--no-router-track-prefill-tokens)
	IgnorePrefill bool
	// IgnoreBlocks leaves the blocks in use out of the cost. Default false.
	// (--no-router-track-active-blocks)
	IgnoreBlocks bool
}

// StickyParams are those of llm-d's prefix affinity filter, by its names.
type StickyParams struct {
	// AffinityThreshold is the part of the prompt, in 0…1, that a worker holds to be
	// kept to. Default 0.8.
	AffinityThreshold float64
	// ExplorationProbability is how often the filter is passed over. Default 0.01.
	ExplorationProbability float64
	// MaxTTFTPenaltyMS is by how many milliseconds the best of them may be slower
	// than the best of all, predicted to the first token. Default 5000.
	MaxTTFTPenaltyMS float64
}

// DefaultParams returns a policy with the defaults of all.
func DefaultParams(p Policy) Params {
	return Params{
		Policy:    p,
		Reference: ReferenceParams{OverlapCredit: 1, HostCredit: 0.75, DiskCredit: 0.25, PrefillScale: 1},
		Sticky:    StickyParams{AffinityThreshold: 0.8, ExplorationProbability: 0.01, MaxTTFTPenaltyMS: 5000},
	}
}

// Validate reports all faults at once: what is not a number, negative or out of its
// range.
func (p *Params) Validate() error {
	var faults []error
	if int(p.Policy) >= len(policies) {
		faults = append(faults, fmt.Errorf("--router-mode: there is no %v", p.Policy))
	}
	check := func(flag string, v, most float64) {
		if !(v >= 0) || v > most || math.IsInf(v, 0) {
			faults = append(faults, fmt.Errorf("%s is %v; it must be a number from 0 to %v", flag, v, most))
		}
	}
	r := &p.Reference
	check("--router-kv-overlap-score-credit", r.OverlapCredit, maxWeight)
	check("--router-host-cache-hit-weight", r.HostCredit, 1)
	check("--router-disk-cache-hit-weight", r.DiskCredit, 1)
	check("--shared-cache-multiplier", r.SharedCredit, 1)
	check("--router-kv-overlap-score-credit-decay", r.CreditDecay, maxWeight)
	check("--router-prefill-load-scale", r.PrefillScale, maxWeight)
	check("--router-decode-active-request-weight", r.RequestWeight, maxWeight)
	check("--router-temperature", r.Temperature, maxWeight)
	check("the affinity threshold of the policy sticky", p.Sticky.AffinityThreshold, 1)
	check("the exploration probability of the policy sticky", p.Sticky.ExplorationProbability, 1)
	check("the TTFT penalty of the policy sticky", p.Sticky.MaxTTFTPenaltyMS, maxWeight)
	if p.Prior != (perfmodel.ClosedForm{}) {
		if err := p.Prior.Validate(); err != nil {
			faults = append(faults, fmt.Errorf("the model of workers that have none: %w", err))
		}
	}
	return errors.Join(faults...)
}
