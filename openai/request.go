package openai

import (
	"math"
	"strconv"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/go-json-experiment/json/jsontext"
)

// Params are the fields that chat and completion requests share.
type Params struct {
	// Model is the served name asked for. Never empty.
	Model string
	// Stream asks for server-sent events; IncludeUsage for a last event with the
	// usage; ContinuousUsage for the usage so far in each.
	Stream          bool
	IncludeUsage    bool
	ContinuousUsage bool

	// N is the number of choices for each prompt, 1 or more.
	N int
	// MaxTokens bounds the answer; not set, the route's default holds.
	MaxTokens Optional[int]
	// MinTokens forbids ending by a stop id earlier.
	MinTokens int

	// Temperature and the rest are as in dynamo.Sampling; not set, the model's
	// defaults hold.
	Temperature       Optional[float64]
	TopP              Optional[float64]
	TopK              Optional[int]
	MinP              Optional[float64]
	PresencePenalty   Optional[float64]
	FrequencyPenalty  Optional[float64]
	RepetitionPenalty Optional[float64]
	// LogitBias is sorted as sent.
	LogitBias []dynamo.LogitBias
	// Seed makes the answer repeatable.
	Seed Optional[int64]

	// Stop are the stop strings, none empty. StopTokens ends the answer at an id.
	Stop       []string
	StopTokens []dynamo.TokenID
	// IncludeStop leaves the stop string or token in the text.
	IncludeStop bool
	// IgnoreEOS keeps generating past the model's own end.
	IgnoreEOS bool

	// SkipSpecial leaves special tokens out of the text; default true.
	SkipSpecial bool
	// AddSpecial lets the tokenizer add its special tokens around the prompt;
	// not set, the route's default holds.
	AddSpecial Optional[bool]
	// ReturnTokenIDs adds prompt_token_ids and token_ids to the answer.
	ReturnTokenIDs bool
	// TokensAsIDs writes tokens as "token_id:123" in logprobs.
	TokensAsIDs bool

	// Guided restricts the answer's text, and GuidedBy is the field that says so,
	// for errors; empty if none does.
	Guided   dynamo.Guided
	GuidedBy string

	// CacheSalt narrows what of the KV cache may be reused.
	CacheSalt string
	// Priority orders waiting requests: higher runs earlier. (vLLM's field
	// `priority` runs lower values earlier, so it arrives here negated;
	// nvext.agent_hints.priority arrives as it is.)
	Priority int
	// Routing is what the request says about where it is to run; nil is nothing.
	Routing *dynamo.Routing
	// ShowWorker and ShowTiming ask for who served the request, and how long its
	// parts took, in the answer's nvext.
	ShowWorker, ShowTiming bool
	// User is whatever the client calls its user.
	User string
	// TokenData, from nvext, replaces the prompt.
	TokenData []dynamo.TokenID
	// Transfers is the number of fields that tell an engine where to get KV blocks
	// from or where to leave them (kv_transfer_params, ec_transfer_params). They are
	// nobody's outside the system: a forged one ends a vLLM server. Routers in front
	// of it send them along all the same, so they are dropped and not refused.
	Transfers int

	// Extra holds fields nobody knows, in their order.
	Extra []Member

	streamOptions bool
	rawPrompt     bool
}

func newParams() Params { return Params{N: 1, SkipSpecial: true} }

// field reads the member called name if it is one of Params' own.
func (p *Params) field(d *decoder, name string) (known bool, err error) {
	switch name {
	case "model":
		return true, into(&p.Model)(d.name())
	case "stream":
		return true, into(&p.Stream)(d.boolean())
	case "stream_options":
		p.streamOptions = true
		return true, d.object(p.streamOption)
	case "n":
		return true, intoInt(&p.N)(d.integer(1, MaxChoices))
	case "max_tokens", "max_completion_tokens":
		return true, p.maxTokens(d)
	case "min_tokens":
		return true, intoInt(&p.MinTokens)(d.integer(0, MaxTokens))
	case "stop":
		return true, p.stop(d)
	case "stop_token_ids":
		return true, into(&p.StopTokens)(d.tokens(p.StopTokens, MaxStopTokens))
	case "include_stop_str_in_output":
		return true, into(&p.IncludeStop)(d.boolean())
	case "ignore_eos":
		return true, into(&p.IgnoreEOS)(d.boolean())
	case "skip_special_tokens":
		return true, into(&p.SkipSpecial)(d.boolean())
	case "add_special_tokens":
		return true, some(&p.AddSpecial)(d.boolean())
	case "return_token_ids":
		return true, into(&p.ReturnTokenIDs)(d.boolean())
	case "return_tokens_as_token_ids":
		return true, into(&p.TokensAsIDs)(d.boolean())
	case "cache_salt":
		return true, into(&p.CacheSalt)(d.name())
	case "priority":
		n, err := d.integer(math.MinInt32, math.MaxInt32)
		p.Priority = int(-n)
		return true, err
	case "user":
		return true, into(&p.User)(d.name())
	case "nvext":
		return true, d.object(p.extension)
	case "kv_transfer_params", "ec_transfer_params":
		p.Transfers++
		return true, d.SkipValue()
	}
	if known, err := p.sampling(d, name); known {
		return true, err
	}
	if known, err := p.guided(d, name); known {
		return true, err
	}
	return refused(d, name)
}

// sampling reads the fields that say how tokens are drawn.
func (p *Params) sampling(d *decoder, name string) (known bool, err error) {
	switch name {
	case "temperature":
		return true, some(&p.Temperature)(d.number(0, 2))
	case "top_p":
		return true, some(&p.TopP)(d.number(0, 1))
	case "top_k":
		n, err := d.integer(-1, MaxTokens)
		p.TopK = Some(int(max(n, 0))) // -1 is vLLM's way of saying off
		return true, err
	case "min_p":
		return true, some(&p.MinP)(d.number(0, 1))
	case "presence_penalty":
		return true, some(&p.PresencePenalty)(d.number(-2, 2))
	case "frequency_penalty":
		return true, some(&p.FrequencyPenalty)(d.number(-2, 2))
	case "repetition_penalty":
		return true, some(&p.RepetitionPenalty)(d.number(0.01, 100))
	case "logit_bias":
		return true, d.object(p.bias)
	case "seed":
		return true, some(&p.Seed)(d.integer(math.MinInt64, math.MaxInt64))
	}
	return false, nil
}

// intoInt stores an int64 that fits.
func intoInt(dst *int) func(int64, error) error {
	return func(n int64, err error) error {
		if err == nil {
			*dst = int(n)
		}
		return err
	}
}

func (p *Params) maxTokens(d *decoder) error {
	n, err := d.integer(1, MaxTokens)
	if err != nil {
		return err
	}
	if p.MaxTokens.Set && p.MaxTokens.Value != int(n) {
		return fault(d.param(), "max_tokens and max_completion_tokens differ; send one of them")
	}
	p.MaxTokens = Some(int(n))
	return nil
}

func (p *Params) streamOption(d *decoder, name string) error {
	switch name {
	case "include_usage":
		return into(&p.IncludeUsage)(d.boolean())
	case "continuous_usage_stats":
		return into(&p.ContinuousUsage)(d.boolean())
	}
	return d.SkipValue()
}

// stop reads one stop string or a list of them; a number in the list is a stop
// token id, as in the reference.
func (p *Params) stop(d *decoder) error {
	one := func(d *decoder, _ int) error {
		if d.PeekKind() == '0' {
			id, err := d.token()
			p.StopTokens = append(p.StopTokens, id)
			return err
		}
		s, err := d.text()
		switch {
		case err != nil:
			return err
		case s == "":
			return fault(d.param(), "%s is empty; a stop string needs at least one character", d.param())
		case len(s) > MaxStopBytes:
			return fault(d.param(), "%s is longer than %d bytes", d.param(), MaxStopBytes)
		}
		p.Stop = append(p.Stop, s)
		return nil
	}
	if d.PeekKind() == '[' {
		return d.array(MaxStops, "a string or an array of strings", one)
	}
	if k := d.PeekKind(); k != '"' {
		return d.expect('"', "a string or an array of strings")
	}
	if err := one(d, 0); err != nil {
		return err
	}
	return nil
}

// bias reads one entry of logit_bias, {"token id": bias}.
func (p *Params) bias(d *decoder, name string) error {
	id, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return fault("logit_bias", "logit_bias has the key %q; keys are token ids", shorten(name))
	}
	x, err := d.number(-100, 100)
	if err != nil {
		return err
	}
	if len(p.LogitBias) == MaxLogitBias {
		return fault("logit_bias", "logit_bias has more than %d entries", MaxLogitBias)
	}
	p.LogitBias = append(p.LogitBias, dynamo.LogitBias{ID: dynamo.TokenID(id), Bias: float32(x)})
	return nil
}

// extension reads nvext, the reference's own extensions.
func (p *Params) extension(d *decoder, name string) error {
	switch name {
	case "ignore_eos":
		return into(&p.IgnoreEOS)(d.boolean())
	case "greed_sampling":
		greedy, err := d.boolean()
		if greedy {
			p.Temperature = Some(0.0)
		}
		return err
	case "cache_salt":
		return into(&p.CacheSalt)(d.name())
	case "use_raw_prompt":
		return into(&p.rawPrompt)(d.boolean())
	case "token_data":
		return into(&p.TokenData)(d.tokens(nil, MaxTokens))
	case "max_thinking_tokens":
		if err := d.SkipValue(); err != nil {
			return err
		}
		return unsupported("nvext."+name, "leave it out")
	}
	if known, err := p.routing(d, name); known {
		return err
	}
	if known, err := p.guidedField(d, name); known {
		return err
	}
	return d.SkipValue() // annotations and unknown ones add to the answer, they do not change it
}

// refused are the known fields that would change the answer and that nothing
// executes; each with the value that asks for nothing.
func refused(d *decoder, name string) (known bool, err error) {
	harmless := func(jsontext.Value) bool { return false }
	switch name {
	case "audio", "web_search_options", "logits_processors", "prompt_embeds", "mm_processor_kwargs", "thinking_token_budget",
		"truncate_prompt_tokens", "allowed_token_ids", "logprob_token_ids", "repetition_detection", "length_penalty", "vllm_xargs":
	case "bad_words", "functions":
		harmless = func(v jsontext.Value) bool { return string(v) == "[]" }
	case "use_beam_search", "early_stopping":
		harmless = func(v jsontext.Value) bool { return string(v) == "false" }
	case "verbosity":
		harmless = func(v jsontext.Value) bool { return string(v) == `"medium"` }
	case "modalities":
		harmless = func(v jsontext.Value) bool { return strings.Join(strings.Fields(string(v)), "") == `["text"]` }
	case "prompt_logprobs":
	default:
		return false, nil
	}
	v, err := d.ReadValue()
	if err != nil || harmless(v) {
		return true, err
	}
	return true, unsupported(name, "leave it out")
}

// keep remembers an unknown field.
func (p *Params) keep(d *decoder, name string) error {
	if len(p.Extra) == MaxExtra {
		return d.SkipValue()
	}
	v, err := d.raw()
	p.Extra = append(p.Extra, Member{name, v})
	return err
}

// check looks at fields together, once all are read.
func (p *Params) check() error {
	switch {
	case p.Model == "":
		e := fault("model", "you must provide a model parameter; GET /v1/models lists the models served here")
		e.Code = "missing_required_parameter"
		return e
	case p.streamOptions && !p.Stream:
		return fault("stream_options", "stream_options is allowed only together with \"stream\": true")
	case p.MaxTokens.Set && p.MinTokens > p.MaxTokens.Value:
		return fault("min_tokens", "min_tokens is %d, more than max_tokens, which is %d", p.MinTokens, p.MaxTokens.Value)
	case p.Guided.Kind == "" && p.Guided != (dynamo.Guided{}):
		return fault("structured_outputs", "structured_outputs (or guided_whitespace_pattern) says how JSON is to be written, but nothing asks for JSON; add a schema, or leave it out")
	case len(p.StopTokens) > MaxStopTokens:
		return fault("stop_token_ids", "stop_token_ids has more than %d elements", MaxStopTokens)
	}
	return nil
}
