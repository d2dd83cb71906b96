package selection

import (
	"math"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/tokens"
)

// request is the message of the methods that are about a request.
type request struct {
	Model string
	// RequestID is the request's and, if it is reserved, the reservation's.
	RequestID string
	// Group parts the workers of a name in the reference; there is one here.
	Group string
	// Role is "prefill" for the part of a request that computes its prompt.
	Role string

	// One of these is the prompt.
	TokenIDs    []dynamo.TokenID
	BlockHashes []dynamo.BlockHash // with BlockSize, and Length where there is more
	Text        string
	Messages    jsontext.Value

	BlockSize, Length int
	Adapter           string
	// CacheSalt is what the engine receives as such: it separates caches.
	CacheSalt string

	Expected, MaxTokens      int
	Priority, StrictPriority int
	Session, Tenant          string

	Worker            dynamo.WorkerID
	Rank              *int
	Pinned            *pin
	Allowed, Excluded []dynamo.WorkerID

	Constraints constraints
	Override    override
	// Wait has a request wait for a worker, up to --worker-wait, that none can take at
	// once. LeaseSeconds stands in for the server's lease.
	Wait         bool
	LeaseSeconds float64
}

// requestFields have NVIDIA Dynamo's selection service's names where that has the same
// thing.
var requestFields = fields[request]{
	"model":                  func(q *request) any { return &q.Model },
	"model_name":             func(q *request) any { return &q.Model },
	"request_id":             func(q *request) any { return (*name)(&q.RequestID) },
	"selection_id":           func(q *request) any { return (*name)(&q.RequestID) },
	"routing_group":          func(q *request) any { return &q.Group },
	"role":                   func(q *request) any { return &q.Role },
	"token_ids":              func(q *request) any { return &q.TokenIDs },
	"block_hashes":           func(q *request) any { return &q.BlockHashes },
	"text":                   func(q *request) any { return &q.Text },
	"messages":               func(q *request) any { return &q.Messages },
	"block_size":             func(q *request) any { return &q.BlockSize },
	"isl_tokens":             func(q *request) any { return &q.Length },
	"lora_name":              func(q *request) any { return &q.Adapter },
	"cache_salt":             func(q *request) any { return &q.CacheSalt },
	"expected_output":        func(q *request) any { return &q.Expected },
	"expected_output_tokens": func(q *request) any { return &q.Expected },
	"max_tokens":             func(q *request) any { return &q.MaxTokens },
	"priority":               func(q *request) any { return &q.Priority },
	"strict_priority":        func(q *request) any { return &q.StrictPriority },
	"session":                func(q *request) any { return &q.Session },
	"session_id":             func(q *request) any { return &q.Session },
	"tenant":                 func(q *request) any { return &q.Tenant },
	"worker_id":              func(q *request) any { return &q.Worker },
	"dp_rank":                func(q *request) any { return &q.Rank },
	"pinned_worker":          func(q *request) any { return &q.Pinned },
	"allowed_worker_ids":     func(q *request) any { return &q.Allowed },
	"excluded_worker_ids":    func(q *request) any { return &q.Excluded },
	"routing_constraints":    func(q *request) any { return &q.Constraints },
	"router_config_override": func(q *request) any { return &q.Override },
	"wait":                   func(q *request) any { return &q.Wait },
	"lease_seconds":          func(q *request) any { return &q.LeaseSeconds },
}

type pin struct {
	Worker dynamo.WorkerID
	Rank   *int
}

var pinFields = fields[pin]{
	"worker_id": func(p *pin) any { return &p.Worker },
	"dp_rank":   func(p *pin) any { return &p.Rank },
}

type constraints struct {
	Required  []string
	Preferred map[string]float64
}

var constraintFields = fields[constraints]{
	"required_taints":  func(c *constraints) any { return &c.Required },
	"preferred_taints": func(c *constraints) any { return &c.Preferred },
}

type override struct {
	Policy                                       string
	OverlapCredit, PrefillLoadScale, Temperature *float64
}

var overrideFields = fields[override]{
	"policy":               func(o *override) any { return &o.Policy },
	"router_mode":          func(o *override) any { return &o.Policy },
	"overlap_score_credit": func(o *override) any { return &o.OverlapCredit },
	"prefill_load_scale":   func(o *override) any { return &o.PrefillLoadScale },
	"router_temperature":   func(o *override) any { return &o.Temperature },
}

// either is a, unless that is zero.
func either[T comparable](a, b T) T {
	var zero T
	if a != zero {
		return a
	}
	return b
}

// names are what ids, sessions and tenants may be.
var names = regexp.MustCompile(`^[A-Za-z0-9._:@-]+$`)

func checkName(param, name string) error {
	if name != "" && (len(name) > maxName || !names.MatchString(name) || strings.Trim(name, ".") == "") {
		return fault(param, "%s is %q; it has 1 to %d letters, digits and ._:@-, and not dots alone", param, clip(name), maxName)
	}
	return nil
}

// check looks for faults that can be seen without the model.
func (q *request) check() error {
	if q.Pinned != nil {
		if q.Worker != 0 || q.Rank != nil {
			return fault("pinned_worker", "pinned_worker is there beside worker_id or dp_rank, which say the same; give one of them")
		}
		q.Worker, q.Rank = q.Pinned.Worker, q.Pinned.Rank
	}
	for _, f := range []struct{ param, name string }{{"request_id", q.RequestID}, {"session", q.Session}, {"tenant", q.Tenant}} {
		if err := checkName(f.param, f.name); err != nil {
			return err
		}
	}
	if q.Group != "" && q.Group != "default" {
		return fault("routing_group", "routing_group is %q; the workers of a model are one group here: leave it out", clip(q.Group))
	}
	if q.Role != "" && q.Role != "prefill" && q.Role != "decode" {
		return fault("role", "role is %q; it is prefill, decode or left out", clip(q.Role))
	}
	for _, f := range []struct {
		param          string
		n, least, most int
	}{
		{"expected_output", q.Expected, 0, maxOutput}, {"max_tokens", q.MaxTokens, 0, maxOutput}, {"strict_priority", q.StrictPriority, 0, math.MaxInt32},
		{"priority", q.Priority, math.MinInt32, math.MaxInt32}, {"block_size", q.BlockSize, 0, maxBlockSize}, {"isl_tokens", q.Length, 0, maxPrompt},
		{"text", len(q.Text), 0, maxText}, {"messages", len(q.Messages), 0, maxText},
		{"lora_name", len(q.Adapter), 0, maxLabel}, {"cache_salt", len(q.CacheSalt), 0, maxLabel},
	} {
		if f.n < f.least || f.n > f.most {
			return fault(f.param, "%s is or has %d; that must be %d to %d", f.param, f.n, f.least, f.most)
		}
	}
	return q.checkPlace()
}

// checkPlace looks for faults in what is said about the worker.
func (q *request) checkPlace() error {
	if q.Rank != nil && (*q.Rank < 0 || *q.Rank > maxRank) {
		return fault("dp_rank", "dp_rank is %d; it must be 0 to %d", *q.Rank, maxRank)
	}
	if q.Rank != nil && q.Worker == 0 {
		return fault("dp_rank", "dp_rank is there without worker_id; a rank is one of a worker's: give both")
	}
	if lease := q.LeaseSeconds; !(lease >= 0 && lease <= maxLease.Seconds()) {
		return fault("lease_seconds", "lease_seconds is %v; it must be 0 (the server's) to %v", lease, maxLease.Seconds())
	}
	for param, x := range map[string]*float64{
		"overlap_score_credit": q.Override.OverlapCredit, "prefill_load_scale": q.Override.PrefillLoadScale, "router_temperature": q.Override.Temperature,
	} {
		if x != nil && !(*x >= 0 && *x <= maxWeight) {
			return fault("router_config_override."+param, "router_config_override.%s is %v; it must be 0 to %v", param, *x, maxWeight)
		}
	}
	for i, label := range q.Constraints.Required {
		var err error
		if q.Constraints.Required[i], err = labelOf("routing_constraints.required_taints", label); err != nil {
			return err
		}
	}
	return nil
}

// labelOf checks a label. A taint that says where a worker is, as the reference spells
// it, is the label of the place.
func labelOf(param, text string) (string, error) {
	label := strings.TrimPrefix(text, "dynamo.topology/")
	if key, _, ok := strings.Cut(label, "="); !ok || key == "" || len(label) > maxLabel {
		return "", fault(param, "%s has %q; a label is key=value, of at most %d bytes", param, clip(text), maxLabel)
	}
	return label, nil
}

// routing is what is said about the worker.
func (q *request) routing() (*dynamo.Routing, error) {
	g := &dynamo.Routing{
		Worker: q.Worker, Rank: q.Rank, Tenant: q.Tenant, Session: q.Session, ExpectedOutput: q.Expected,
		StrictPriority: q.StrictPriority, RequiredLabels: q.Constraints.Required,
		Overrides: dynamo.RoutingOverrides{
			Policy: q.Override.Policy, OverlapCredit: q.Override.OverlapCredit, PrefillLoadScale: q.Override.PrefillLoadScale, Temperature: q.Override.Temperature,
		},
	}
	const param = "routing_constraints.preferred_taints"
	for text, weight := range q.Constraints.Preferred {
		label, err := labelOf(param, text)
		if err != nil {
			return nil, err
		}
		if !(weight >= 0 && weight <= 1) {
			return nil, fault(param, "%s weighs %q with %v; a weight is 0 to 1", param, clip(text), weight)
		}
		g.PreferredLabels = append(g.PreferredLabels, dynamo.LabelPreference{Label: label, Weight: weight})
	}
	return g, nil
}

// ask turns q into what the router of m is asked.
func (q *request) ask(m *Model, adapter string) (*router.Ask, error) {
	g, err := q.routing()
	if err != nil {
		return nil, err
	}
	adapter = either(q.Adapter, adapter)
	a := &router.Ask{Wait: q.Wait, Allowed: q.Allowed, Excluded: q.Excluded, Request: &dynamo.Request{
		ID: dynamo.RequestID(q.RequestID), Model: m.Name, Adapter: adapter, MaxTokens: either(q.MaxTokens, max(q.Expected, assumedOutput)),
		Priority: q.Priority, Routing: g, Namespace: q.CacheSalt, Root: tokens.Root(adapter, q.CacheSalt), Prefill: q.Role == "prefill",
	}}
	if err := q.prompt(m, a); err != nil {
		return nil, err
	}
	return a, fits(m, a)
}

// prompt finds the prompt's tokens, or their hashes.
func (q *request) prompt(m *Model, a *router.Ask) (err error) {
	kinds := 0
	for _, there := range []bool{len(q.TokenIDs) > 0, len(q.BlockHashes) > 0, q.Text != "", len(q.Messages) > 0} {
		if there {
			kinds++
		}
	}
	if kinds != 1 {
		return fault("token_ids", "the prompt is there %d times; give exactly one of token_ids, block_hashes (with block_size), text and messages", kinds)
	}
	switch {
	case len(q.TokenIDs) > 0:
		a.Request.Tokens = q.TokenIDs
	case len(q.BlockHashes) > 0:
		return q.hashes(a)
	case q.Text != "":
		a.Request.Tokens, err = m.encode("text", q.Text, true)
	default:
		a.Request.Tokens, err = m.conversation(q.Messages)
	}
	if err == nil && len(a.Request.Tokens) == 0 {
		err = fault("text", "the prompt has no tokens")
	}
	return err
}

// fits refuses prompts that no worker of m has room for.
func fits(m *Model, a *router.Ask) error {
	n := max(len(a.Request.Tokens), a.Length)
	if m.ContextLength == 0 || n < m.ContextLength {
		return nil
	}
	e := fault("token_ids", "the prompt has %d tokens, which leaves no room for an answer in the context of %d tokens of model %s; shorten it", n, m.ContextLength, m.Name)
	e.Code = "context_length_exceeded"
	return e
}

func (q *request) hashes(a *router.Ask) error {
	if q.BlockSize < 1 {
		return fault("block_size", "block_hashes are there without block_size, the tokens of a block; give both")
	}
	full := len(q.BlockHashes) * q.BlockSize
	if full > maxPrompt {
		return fault("block_hashes", "block_hashes are those of %d tokens; a prompt has at most %d", full, maxPrompt)
	}
	if q.Length > 0 && (q.Length < full || q.Length >= full+q.BlockSize) {
		return fault("isl_tokens", "isl_tokens is %d, and block_hashes are those of %d tokens; all full blocks of the prompt have a hash", q.Length, full)
	}
	a.BlockSize, a.Length = q.BlockSize, max(q.Length, full)
	a.Hashes = q.BlockHashes
	return nil
}
