package openai

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
)

// route returns the request's routing to write to, making it if there is none.
func (p *Params) route() *dynamo.Routing {
	if p.Routing == nil {
		p.Routing = &dynamo.Routing{}
	}
	return p.Routing
}

// routing reads the field of nvext called name if it says where the request is to
// run.
func (p *Params) routing(d *decoder, name string) (known bool, err error) {
	switch name {
	case "backend_instance_id", "decode_worker_id":
		return true, p.worker(d)
	case "prefill_worker_id":
		id, err := d.worker()
		if err == nil {
			p.route().PrefillWorker = id
		}
		return true, err
	case "dp_rank":
		rank, err := d.rank()
		if err == nil && rank != nil {
			p.route().Rank = rank
		}
		return true, err
	case "prefill_dp_rank":
		rank, err := d.rank()
		if err == nil && rank != nil {
			p.route().PrefillRank = rank
		}
		return true, err
	case "agent_hints":
		return true, d.object(p.hint)
	case "session_control":
		return true, p.session(d)
	case "routing_constraints":
		return true, d.object(p.constraint)
	case "router_config_override":
		return true, d.object(p.override)
	case "extra_fields":
		return true, d.array(MaxExtra, "an array of strings", p.extraField)
	}
	return false, nil
}

// worker reads backend_instance_id or decode_worker_id, which mean the same.
func (p *Params) worker(d *decoder) error {
	id, err := d.worker()
	if err != nil {
		return err
	}
	if r := p.route(); r.Worker != 0 && r.Worker != id {
		return fault(d.param(), "nvext.backend_instance_id and nvext.decode_worker_id differ; send one of them")
	}
	p.Routing.Worker = id
	return nil
}

// hint reads a field of agent_hints. Those that nothing acts on are checked where
// they are known and otherwise passed over: ignoring them changes no answer.
func (p *Params) hint(d *decoder, name string) error {
	switch name {
	case "priority":
		return intoInt(&p.Priority)(d.integer(math.MinInt32, math.MaxInt32))
	case "strict_priority":
		n, err := d.integer(0, math.MaxInt32)
		if err == nil && n > 0 {
			p.route().StrictPriority = int(n)
		}
		return err
	case "osl":
		n, err := d.integer(0, MaxTokens)
		if err == nil && n > 0 {
			p.route().ExpectedOutput = int(n)
		}
		return err
	case "latency_sensitivity":
		_, err := d.number(0, math.MaxInt32)
		return err
	case "speculative_prefill":
		_, err := d.boolean()
		return err
	}
	return d.SkipValue()
}

// session reads session_control.
func (p *Params) session(d *decoder) error {
	param, id, action := d.param(), "", ""
	err := d.object(func(d *decoder, name string) (err error) {
		switch name {
		case "session_id":
			id, err = d.name()
			return err
		case "action":
			action, err = d.name()
			return err
		case "timeout":
			_, err = d.number(0, math.MaxInt32) // a binding lasts as long as the router is told
			return err
		}
		return d.SkipValue()
	})
	if err != nil {
		return err
	}
	if action != "" && action != "bind" {
		return unsupported(param+".action", "it is "+strconv.Quote(shorten(action))+" and must be \"bind\", or left out")
	}
	return p.bind(param+".session_id", id)
}

// bind names the session of the request.
func (p *Params) bind(param, id string) error {
	if id == "" || len(id) > MaxSessionBytes {
		return fault(param, "%s has %d bytes; it must have 1 to %d", param, len(id), MaxSessionBytes)
	}
	p.route().Session = id
	return nil
}

// constraint reads a field of routing_constraints.
func (p *Params) constraint(d *decoder, name string) error {
	switch name {
	case "required_taints":
		return d.array(MaxLabels, "an array of strings", func(d *decoder, _ int) error {
			text, err := d.name()
			if err != nil {
				return err
			}
			label, err := labelOf(d.param(), text)
			if r := p.route(); err == nil && !slices.Contains(r.RequiredLabels, label) {
				r.RequiredLabels = append(r.RequiredLabels, label)
			}
			return err
		})
	case "preferred_taints":
		return d.object(func(d *decoder, name string) error {
			weight, err := d.number(0, 1)
			if err != nil {
				return err
			}
			label, err := labelOf("nvext.routing_constraints.preferred_taints", name)
			if err != nil {
				return err
			}
			r := p.route()
			switch i := slices.IndexFunc(r.PreferredLabels, func(l dynamo.LabelPreference) bool { return l.Label == label }); {
			case i >= 0:
				r.PreferredLabels[i].Weight = max(r.PreferredLabels[i].Weight, weight)
			case len(r.PreferredLabels) == MaxLabels:
				return fault("nvext.routing_constraints.preferred_taints", "nvext.routing_constraints.preferred_taints has more than %d entries", MaxLabels)
			default:
				r.PreferredLabels = append(r.PreferredLabels, dynamo.LabelPreference{Label: label, Weight: weight})
			}
			return nil
		})
	}
	return fault(d.param(), "nvext.routing_constraints has no field %q; it has required_taints and preferred_taints", shorten(name))
}

// topologyTaint is what the reference puts in front of a place's name.
const topologyTaint = "dynamo.topology/"

// labelOf checks a label; a taint that says where a worker is, as the reference
// spells it, is the label of the place.
func labelOf(param, text string) (string, error) {
	label := strings.TrimPrefix(text, topologyTaint)
	if key, _, ok := strings.Cut(label, "="); !ok || key == "" || len(label) > MaxLabelBytes {
		return "", fault(param, "%s is %q; a label is key=value, of at most %d bytes", param, shorten(text), MaxLabelBytes)
	}
	return label, nil
}

// policyName is what a policy may be called; which there are the router says.
var policyName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// override reads a field of router_config_override.
func (p *Params) override(d *decoder, name string) error {
	weight := func(dst **float64) error {
		x, err := d.number(0, MaxRoutingWeight)
		if err == nil {
			*dst = &x
		}
		return err
	}
	o := &p.route().Overrides
	switch name {
	case "router_mode", "policy":
		s, err := d.name()
		if err == nil && !policyName.MatchString(s) {
			return fault(d.param(), "%s is %q; it must be the name of a router policy, such as \"kv\" or \"round-robin\"", d.param(), shorten(s))
		}
		o.Policy = s
		return err
	case "overlap_score_credit":
		return weight(&o.OverlapCredit)
	case "prefill_load_scale", "overlap_score_weight": // the latter is what it was called before
		return weight(&o.PrefillLoadScale)
	case "router_temperature":
		return weight(&o.Temperature)
	case "assume_kv_reuse", "track_prefill_tokens", "shared_cache_multiplier":
		if err := d.SkipValue(); err != nil {
			return err
		}
		return unsupported("nvext.router_config_override."+name, "leave it out")
	}
	return fault(d.param(), "nvext.router_config_override has no field %q; it has policy, overlap_score_credit, prefill_load_scale and router_temperature", shorten(name))
}

// extraField reads what the answer is to tell beside the text; what it cannot tell
// is passed over.
func (p *Params) extraField(d *decoder, _ int) error {
	name, err := d.name()
	switch name {
	case "worker_id":
		p.ShowWorker = true
	case "timing":
		p.ShowTiming = true
	}
	return err
}

// worker reads a worker's id: a number, or a string that ParseWorker reads.
func (d *decoder) worker() (dynamo.WorkerID, error) {
	k := d.PeekKind()
	if k != '0' && k != '"' {
		return 0, d.expect('0', "a worker's id")
	}
	raw, err := d.ReadValue()
	if err != nil {
		return 0, err
	}
	text := string(raw)
	if k == '"' {
		if text, err = d.unquote(raw); err != nil {
			return 0, err
		}
		return parseWorker(d.param(), text)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, notWorker(d.param(), text)
	}
	return dynamo.WorkerID(n), nil
}

// parseWorker reads a worker's id as a decimal number, which is how the reference
// writes it, or in hexadecimal, which is how ids are printed here. Hexadecimal is
// what begins with 0x, what has a letter, and what has 16 digits with a leading
// zero.
func parseWorker(param, text string) (dynamo.WorkerID, error) {
	digits, base := text, 10
	if hex, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		digits, base = hex, 16
	} else if strings.ContainsAny(text, "abcdefABCDEF") || len(text) == 16 && text[0] == '0' {
		base = 16
	}
	n, err := strconv.ParseUint(digits, base, 64)
	if err != nil || n == 0 {
		return 0, notWorker(param, text)
	}
	return dynamo.WorkerID(n), nil
}

func notWorker(param, text string) error {
	return fault(param, "%s is %s, which is no worker's id; it is a decimal number from 1 to 18446744073709551615, or 16 hexadecimal digits", param, strconv.Quote(shorten(text)))
}

// noRank is how the reference says in 32 bits that there is no rank.
const noRank = math.MaxUint32

// rank reads a data-parallel rank; nil is none.
func (d *decoder) rank() (*int, error) {
	n, err := d.integer(0, noRank)
	if err != nil {
		return nil, err
	}
	return rankOf(d.param(), uint64(n))
}

func rankOf(param string, n uint64) (*int, error) {
	if n == noRank {
		return nil, nil
	}
	if n > MaxRank {
		return nil, fault(param, "%s is %d; it must be between 0 and %d", param, n, MaxRank)
	}
	rank := int(n)
	return &rank, nil
}

// routingHeader is a header that says what a field of nvext does, and wins over it.
type routingHeader struct {
	names []string // as net/http spells them; of several the first that is there counts
	take  func(p *Params, name, value string) error
}

var routingHeaders = []routingHeader{
	{[]string{"X-Dynamo-Worker-Instance-Id", "X-Worker-Instance-Id"}, func(p *Params, name, value string) error {
		id, err := parseWorker(name, value)
		if err == nil {
			p.route().Worker = id
		}
		return err
	}},
	{[]string{"X-Dynamo-Prefill-Instance-Id", "X-Prefill-Instance-Id"}, func(p *Params, name, value string) error {
		id, err := parseWorker(name, value)
		if err == nil {
			p.route().PrefillWorker = id
		}
		return err
	}},
	{[]string{"X-Dynamo-Dp-Rank", "X-Dp-Rank", "X-Data-Parallel-Rank"}, func(p *Params, name, value string) error {
		rank, err := headerRank(name, value)
		if rank != nil {
			p.route().Rank = rank
		}
		return err
	}},
	{[]string{"X-Dynamo-Prefill-Dp-Rank", "X-Prefill-Dp-Rank"}, func(p *Params, name, value string) error {
		rank, err := headerRank(name, value)
		if rank != nil {
			p.route().PrefillRank = rank
		}
		return err
	}},
	{[]string{"X-Dynamo-Request-Priority"}, func(p *Params, name, value string) error {
		n, err := headerInteger(name, value, math.MinInt32, math.MaxInt32)
		if err == nil {
			p.Priority = int(n)
		}
		return err
	}},
	{[]string{"X-Dynamo-Request-Strict-Priority"}, func(p *Params, name, value string) error {
		n, err := headerInteger(name, value, 0, math.MaxInt32)
		if err == nil {
			p.route().StrictPriority = int(n)
		}
		return err
	}},
	{[]string{"X-Dynamo-Routing-Mode"}, func(p *Params, name, value string) error {
		mode := dynamo.RoutingMode(strings.ToLower(value))
		if mode != dynamo.RoutingAggregated && mode != dynamo.RoutingDisaggregated {
			return fault(name, "%s is %q; it must be %q or %q", name, shorten(value), dynamo.RoutingAggregated, dynamo.RoutingDisaggregated)
		}
		p.route().Mode = mode
		return nil
	}},
	{[]string{"X-Dynamo-Session-Id"}, func(p *Params, name, value string) error { return p.bind(name, value) }},
}

// TakeHeaders takes in what the request's headers, by their names in net/http's
// spelling, say about where it is to run. They win over the body's nvext; an empty
// one says nothing.
func (p *Params) TakeHeaders(headers map[string][]string) error {
	for i := range routingHeaders {
		h := &routingHeaders[i]
		for _, name := range h.names {
			values := headers[name]
			if len(values) == 0 || values[0] == "" {
				continue
			}
			if err := h.take(p, strings.ToLower(name), strings.TrimSpace(values[0])); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

func headerInteger(name, value string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < least || n > most {
		return 0, fault(name, "%s is %q; it must be an integer between %d and %d", name, shorten(value), least, most)
	}
	return n, nil
}

func headerRank(name, value string) (*int, error) {
	n, err := headerInteger(name, value, 0, noRank)
	if err != nil {
		return nil, err
	}
	return rankOf(name, uint64(n))
}
