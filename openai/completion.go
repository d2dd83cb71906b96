package openai

import (
	"github.com/dynamo-go/dynamo"
)

// CompletionRequest is the body of POST /v1/completions.
type CompletionRequest struct {
	Params

	// Prompts holds one or more prompts.
	Prompts []Prompt
	// Echo puts the prompt before the answer's text.
	Echo bool
	// Logprobs asks for the logprob of each token and so many alternatives; not
	// set is none at all, 0 is without alternatives.
	Logprobs Optional[int]
}

// Prompt is one prompt: text, or token ids that are used as they are.
type Prompt struct {
	Text   string
	Tokens []dynamo.TokenID // nil if Text holds
}

// DecodeCompletion reads the body of a completion request.
func DecodeCompletion(body []byte) (*CompletionRequest, error) {
	r := &CompletionRequest{Params: newParams()}
	bestOf := 0
	err := decodeObject(body, func(d *decoder, name string) error {
		switch name {
		case "prompt":
			return into(&r.Prompts)(d.prompts())
		case "echo":
			return into(&r.Echo)(d.boolean())
		case "logprobs":
			return someInt(&r.Logprobs)(d.integer(0, MaxTopLogprobs))
		case "best_of":
			return intoInt(&bestOf)(d.integer(1, MaxChoices))
		case "suffix":
			return refuseUnlessEmpty(d, name)
		}
		if known, err := r.Params.field(d, name); known {
			return err
		}
		return r.keep(d, name)
	})
	if err != nil {
		return nil, err
	}
	if err := r.Params.check(); err != nil {
		return nil, err
	}
	if len(r.TokenData) > 0 {
		r.Prompts = []Prompt{{Tokens: r.TokenData}}
	}
	switch {
	case len(r.Prompts) == 0:
		return nil, fault("prompt", "prompt is missing; send a string, a list of strings, or token ids")
	case len(r.Prompts)*r.N > MaxAnswers:
		return nil, fault("n", "%d prompts times n = %d are more than %d answers", len(r.Prompts), r.N, MaxAnswers)
	case bestOf > 0 && bestOf < r.N:
		return nil, fault("best_of", "best_of is %d, less than n, which is %d", bestOf, r.N)
	case bestOf > r.N:
		return nil, unsupported("best_of", "values above n are not; leave it out")
	}
	return r, nil
}

// someInt stores an int64 that fits as a value that is there.
func someInt(dst *Optional[int]) func(int64, error) error {
	return func(n int64, err error) error {
		if err == nil {
			*dst = Some(int(n))
		}
		return err
	}
}

// prompts reads a string, a list of strings, a list of token ids or a list of
// such lists.
func (d *decoder) prompts() ([]Prompt, error) {
	const want = "a string, an array of strings, an array of token ids or an array of such arrays"
	switch d.PeekKind() {
	case '"':
		s, err := d.text()
		return []Prompt{{Text: s}}, err
	case '[':
	default:
		return nil, d.expect('[', want)
	}
	var ps []Prompt
	var ids []dynamo.TokenID
	err := d.array(MaxTokens, want, func(d *decoder, i int) error {
		k := d.PeekKind()
		switch {
		case k == '0' && len(ps) == 0:
			id, err := d.token()
			ids = append(ids, id)
			return err
		case i == MaxPrompts:
			return fault("prompt", "prompt has more than %d elements", MaxPrompts)
		case k == '"' && ids == nil:
			s, err := d.text()
			ps = append(ps, Prompt{Text: s})
			return err
		case k == '[' && ids == nil:
			p, err := d.tokens(make([]dynamo.TokenID, 0, 16), MaxTokens)
			if err == nil && len(p) == 0 {
				err = fault(d.param(), "%s is empty; a prompt needs at least one token", d.param())
			}
			ps = append(ps, Prompt{Tokens: p})
			return err
		}
		if err := d.SkipValue(); err != nil {
			return err
		}
		return d.wrong(k, want)
	})
	switch {
	case err != nil:
		return nil, err
	case ids != nil:
		return []Prompt{{Tokens: ids}}, nil
	case len(ps) == 0:
		return nil, fault("prompt", "prompt is an empty array")
	}
	return ps, nil
}
