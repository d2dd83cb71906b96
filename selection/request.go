package selection

import (
	"io"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/router"
	"github.com/dynamo-go/dynamo/tokens"
)

// request is the body of the routes that are about a request. Names are NVIDIA
// Dynamo's selection service's where that has the same thing; those in a second
// position are further names of the one before.
type request struct {
	Model     string `json:"model"`
	ModelName string `json:"model_name"`
	// RequestID is the request's and, if it is reserved, the reservation's.
	RequestID   string `json:"request_id"`
	SelectionID string `json:"selection_id"`
	// Group parts the workers of a name in the reference; there is one here.
	Group string `json:"routing_group"`
	// Role is "prefill" for the part of a request that computes its prompt.
	Role string `json:"role"`

	// One of these is the prompt.
	TokenIDs    []dynamo.TokenID `json:"token_ids"`
	BlockHashes []hash           `json:"block_hashes"` // with BlockSize, and Length where there is more
	Text        string           `json:"text"`
	Messages    jsontext.Value   `json:"messages"`

	BlockSize int    `json:"block_size"`
	Length    int    `json:"isl_tokens"`
	Adapter   string `json:"lora_name"`
	// CacheSalt is what the engine receives as such: it separates caches.
	CacheSalt string `json:"cache_salt"`

	Expected       int `json:"expected_output"`
	ExpectedTokens int `json:"expected_output_tokens"`
	MaxTokens      int `json:"max_tokens"`
	Priority       int `json:"priority"`
	StrictPriority int `json:"strict_priority"`

	Session   string `json:"session"`
	SessionID string `json:"session_id"`
	Tenant    string `json:"tenant"`

	Worker   workerID   `json:"worker_id"`
	Rank     *int       `json:"dp_rank"`
	Pinned   *pin       `json:"pinned_worker"`
	Allowed  []workerID `json:"allowed_worker_ids"`
	Excluded []workerID `json:"excluded_worker_ids"`

	Constraints constraints `json:"routing_constraints"`
	Override    override    `json:"router_config_override"`
	// Wait has a request wait for a worker, up to --worker-wait, that none can take at
	// once. LeaseSeconds stands in for the server's lease.
	Wait         bool    `json:"wait"`
	LeaseSeconds float64 `json:"lease_seconds"`
}

type pin struct {
	Worker workerID `json:"worker_id"`
	Rank   *int     `json:"dp_rank"`
}

type constraints struct {
	Required  []string           `json:"required_taints"`
	Preferred map[string]float64 `json:"preferred_taints"`
}

type override struct {
	Policy           string   `json:"policy"`
	Mode             string   `json:"router_mode"`
	OverlapCredit    *float64 `json:"overlap_score_credit"`
	PrefillLoadScale *float64 `json:"prefill_load_scale"`
	Temperature      *float64 `json:"router_temperature"`
}

// workerID is a worker's id: a number, or a string of 16 hexadecimal digits or with
// a decimal number.
type workerID dynamo.WorkerID

// UnmarshalJSONFrom reads it.
func (w *workerID) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	n, err := readID(d, "a worker's id")
	*w = workerID(n)
	return err
}

// hash is a block's: a number, negative or not, or a string of hexadecimal digits.
type hash dynamo.BlockHash

// UnmarshalJSONFrom reads it.
func (h *hash) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	n, err := readID(d, "a block's hash")
	*h = hash(n)
	return err
}

// readID reads 64 bits. Null is 0.
func readID(d *jsontext.Decoder, what string) (uint64, error) {
	v, err := d.ReadValue()
	if err != nil {
		return 0, err
	}
	var text string
	switch v.Kind() {
	case 'n':
		return 0, nil
	case '0':
		text = string(v)
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			return n, nil
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return uint64(n), nil // as the reference writes hashes
		}
	case '"':
		if err := json.Unmarshal(v, &text); err != nil {
			return 0, err
		}
		digits, base := text, 10
		if hex, ok := strings.CutPrefix(text, "0x"); ok {
			digits, base = hex, 16
		} else if len(text) == 16 || strings.ContainsAny(text, "abcdefABCDEF") {
			base = 16
		}
		if n, err := strconv.ParseUint(digits, base, 64); err == nil {
			return n, nil
		}
	}
	param := paramOf(d.StackPointer())
	return 0, fault(param, "%s is %s, which is not %s: that is a number of 64 bits, or a string of 16 hexadecimal digits", param, clip(string(v)), what)
}

// decode reads a body into v.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // without support there is none
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	_ = rc.SetReadDeadline(time.Time{})
	if err != nil {
		return syntax(err)
	}
	if len(body) == 0 {
		return syntax(io.EOF)
	}
	if err := json.Unmarshal(body, v, json.RejectUnknownMembers(true)); err != nil {
		return syntax(err)
	}
	return nil
}

// either is the one of two names of a field that was used.
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
	if name != "" && (len(name) > maxName || !names.MatchString(name)) {
		return fault(param, "%s is %q; it has 1 to %d letters, digits and ._:@-", param, clip(name), maxName)
	}
	return nil
}

// check looks for faults that can be seen without the model.
func (q *request) check() error {
	q.Model, q.RequestID, q.Session = either(q.Model, q.ModelName), either(q.RequestID, q.SelectionID), either(q.Session, q.SessionID)
	q.Expected, q.Override.Policy = either(q.Expected, q.ExpectedTokens), either(q.Override.Policy, q.Override.Mode)
	if q.Pinned != nil {
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
		{"token_ids", len(q.TokenIDs), 0, maxPrompt}, {"text", len(q.Text), 0, maxText}, {"messages", len(q.Messages), 0, maxText},
		{"allowed_worker_ids", len(q.Allowed), 0, maxWorkers}, {"excluded_worker_ids", len(q.Excluded), 0, maxWorkers},
		{"routing_constraints.required_taints", len(q.Constraints.Required), 0, maxLabels},
		{"routing_constraints.preferred_taints", len(q.Constraints.Preferred), 0, maxLabels},
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
	if q.Wait && len(q.Allowed)+len(q.Excluded) > 0 {
		return fault("wait", "wait and a list of workers do not go together, for the workers may change meanwhile; leave one of them out")
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
		Worker: dynamo.WorkerID(q.Worker), Rank: q.Rank, Tenant: q.Tenant, Session: q.Session, ExpectedOutput: q.Expected,
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
	a := &router.Ask{Wait: q.Wait, Request: &dynamo.Request{
		ID: dynamo.RequestID(q.RequestID), Model: m.Name, Adapter: adapter, MaxTokens: either(q.MaxTokens, max(q.Expected, assumedOutput)),
		Priority: q.Priority, Routing: g, Namespace: q.CacheSalt, Root: tokens.Root(adapter, q.CacheSalt), Prefill: q.Role == "prefill",
	}}
	for _, id := range q.Allowed {
		a.Allowed = append(a.Allowed, dynamo.WorkerID(id))
	}
	for _, id := range q.Excluded {
		a.Excluded = append(a.Excluded, dynamo.WorkerID(id))
	}
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
	a.Hashes = make([]dynamo.BlockHash, len(q.BlockHashes))
	for i, h := range q.BlockHashes {
		a.Hashes[i] = dynamo.BlockHash(h)
	}
	return nil
}
