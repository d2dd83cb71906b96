package openai

import (
	"github.com/dynamo-go/dynamo"
	"github.com/go-json-experiment/json/jsontext"
)

// guided reads the fields that restrict the answer's text: OpenAI's
// response_format, and the two generations of vLLM's own.
func (p *Params) guided(d *decoder, name string) (known bool, err error) {
	switch name {
	case "response_format":
		return true, p.responseFormat(d)
	case "structured_outputs":
		return true, p.structuredOutputs(d)
	}
	return p.guidedField(d, name)
}

// guidedField reads vLLM's older fields, which the reference knows in nvext.
func (p *Params) guidedField(d *decoder, name string) (known bool, err error) {
	switch name {
	case "guided_json":
		return true, p.restrict(d, dynamo.GuidedJSONSchema, (*decoder).jsonObject)
	case "guided_regex":
		return true, p.restrict(d, dynamo.GuidedRegex, (*decoder).pattern)
	case "guided_choice":
		return true, p.restrict(d, dynamo.GuidedChoice, (*decoder).choices)
	case "guided_grammar":
		return true, p.restrict(d, dynamo.GuidedGrammar, (*decoder).pattern)
	case "guided_whitespace_pattern":
		return true, into(&p.Guided.Whitespace)(d.name())
	case "guided_decoding_backend":
		backend, err := d.name()
		if err == nil && backend != "auto" {
			err = unsupported(d.param(), `the engine chooses its own; leave it out or say "auto"`)
		}
		return true, err
	}
	return false, nil
}

// restrict reads a value that restricts the answer.
func (p *Params) restrict(d *decoder, kind dynamo.GuidedKind, read func(*decoder) (string, error)) error {
	value, err := read(d)
	if err != nil {
		return err
	}
	return p.restrictBy(d.param(), kind, value)
}

// restrictBy says that the field called param restricts the answer, which one
// field may.
func (p *Params) restrictBy(param string, kind dynamo.GuidedKind, value string) error {
	switch {
	case p.Guided.Kind != "":
		return fault(param, "%s and %s both restrict the answer; send one of them", p.GuidedBy, param)
	case len(value) > MaxGuidedBytes:
		return fault(param, "%s has %d bytes; at most %d are possible", param, len(value), MaxGuidedBytes)
	}
	p.Guided.Kind, p.Guided.Value, p.GuidedBy = kind, value, param
	return nil
}

// responseFormat reads response_format, whose type may follow what it is about.
func (p *Params) responseFormat(d *decoder) error {
	start := d.InputOffset()
	var kind, schema string
	err := d.object(func(d *decoder, name string) error {
		switch name {
		case "type":
			return into(&kind)(d.name())
		case "json_schema":
			return d.object(func(d *decoder, name string) error {
				if name == "schema" {
					return into(&schema)(d.jsonObject())
				}
				return d.SkipValue() // name, description and strict
			})
		}
		return d.SkipValue()
	})
	if err != nil {
		return err
	}
	const param = "response_format"
	switch dynamo.GuidedKind(kind) {
	case "text":
		return nil
	case dynamo.GuidedJSONObject:
		return p.restrictBy(param, dynamo.GuidedJSONObject, "")
	case dynamo.GuidedJSONSchema:
		if schema == "" {
			return fault(param+".json_schema.schema", "response_format.json_schema.schema is missing; it must be a JSON object")
		}
		return p.restrictBy(param, dynamo.GuidedJSONSchema, schema)
	case dynamo.GuidedStructuralTag:
		return p.restrictBy(param, dynamo.GuidedStructuralTag, string(d.since(start)))
	case "":
		return fault(param+".type", "response_format has no type; it must be text, json_object, json_schema or structural_tag")
	}
	return unsupported(param, "its type is "+shorten(kind)+"; send text, json_object, json_schema or structural_tag")
}

// structuredOutputs reads vLLM's structured_outputs. What it does not know would
// restrict the answer otherwise than asked for, so it is refused.
func (p *Params) structuredOutputs(d *decoder) error {
	asked := false
	err := d.object(func(d *decoder, name string) error {
		asked = true
		switch name {
		case "json":
			return p.restrict(d, dynamo.GuidedJSONSchema, (*decoder).jsonObject)
		case "regex":
			return p.restrict(d, dynamo.GuidedRegex, (*decoder).pattern)
		case "choice":
			return p.restrict(d, dynamo.GuidedChoice, (*decoder).choices)
		case "grammar":
			return p.restrict(d, dynamo.GuidedGrammar, (*decoder).pattern)
		case "structural_tag":
			return p.restrict(d, dynamo.GuidedStructuralTag, (*decoder).jsonObject)
		case "json_object":
			on, err := d.boolean()
			if err != nil || !on {
				return err
			}
			return p.restrictBy(d.param(), dynamo.GuidedJSONObject, "")
		case "disable_any_whitespace":
			return into(&p.Guided.Compact)(d.boolean())
		case "disable_additional_properties":
			return into(&p.Guided.Closed)(d.boolean())
		case "whitespace_pattern":
			return into(&p.Guided.Whitespace)(d.name())
		}
		v, err := d.ReadValue()
		if err != nil || string(v) == "false" {
			return err
		}
		return unsupported(d.param(), "leave it out")
	})
	if err == nil && !asked {
		err = fault("structured_outputs", "structured_outputs is empty; it takes one of json, json_object, regex, choice, grammar and structural_tag")
	}
	return err
}

// jsonObject reads a JSON object, or a string that holds one, as it was sent.
func (d *decoder) jsonObject() (string, error) {
	if d.PeekKind() != '"' {
		if err := d.expect('{', "a JSON object"); err != nil {
			return "", err
		}
		v, err := d.ReadValue()
		return string(v), err
	}
	s, err := d.text()
	if err != nil {
		return "", err
	}
	v := jsontext.Value(s)
	if checkDepth(v) != nil || !v.IsValid() || v.Kind() != '{' {
		return "", fault(d.param(), "%s is a string that holds no JSON object; send the object itself", d.param())
	}
	return s, nil
}

// pattern reads a regular expression or a grammar. Whether it is a good one is the
// engine's to say: each has a dialect of its own.
func (d *decoder) pattern() (string, error) {
	s, err := d.text()
	if err == nil && s == "" {
		err = fault(d.param(), "%s is empty; leave it out if anything may be answered", d.param())
	}
	return s, err
}

// choices reads an array of strings, as it was sent.
func (d *decoder) choices() (string, error) {
	start, n := d.InputOffset(), 0
	err := d.array(MaxGuidedChoices, "an array of strings", func(d *decoder, _ int) error {
		n++
		_, err := d.text()
		return err
	})
	if err == nil && n == 0 {
		err = fault(d.param(), "%s is empty; it needs one string at least", d.param())
	}
	if err != nil {
		return "", err
	}
	return string(d.since(start)), nil
}
