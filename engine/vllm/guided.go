package vllm

import (
	"fmt"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// guidedForm is how a version is told what restricts an answer.
type guidedForm struct {
	since version
	// structured: in structured_outputs, which both routes know. Otherwise in fields
	// beside the prompt, which completions alone know.
	structured bool
	kinds      []dynamo.GuidedKind
}

// guidedForm returns the form of the server's version.
func (d *discovered) guidedForm() *guidedForm {
	v, ok := parseVersion(d.info.Version)
	for i := range guidedForms {
		if f := &guidedForms[i]; !ok || !v.before(f.since) {
			return f
		}
	}
	panic("BUG: vllm: a version before the oldest: " + d.info.Version)
}

// guidedKinds are the kinds that the server takes by the route that is used.
func (d *discovered) guidedKinds() []dynamo.GuidedKind {
	f := d.guidedForm()
	if d.info.TokensInOut && !f.structured {
		return nil
	}
	return slices.Clone(f.kinds)
}

// checkGuided refuses what the server's version lacks and a newer one has.
func (d *discovered) checkGuided(g *dynamo.Guided) error {
	what := string(g.Kind)
	if g.Compact || g.Closed {
		what += " with disable_any_whitespace or disable_additional_properties"
	}
	f, newer := d.guidedForm(), &guidedForms[0]
	if slices.Contains(f.kinds, g.Kind) && (f.structured || !g.Compact && !g.Closed && !d.info.TokensInOut) || !slices.Contains(newer.kinds, g.Kind) {
		return nil
	}
	return &dynamo.Error{Kind: dynamo.KindInvalid, Param: "guided", Code: "unsupported_parameter", Message: fmt.Sprintf(
		"guided decoding by %s needs vLLM %s or newer; the server is vLLM %s: upgrade it", what, newer.since, d.info.Version)}
}

// guided writes what restricts the answer, in the form of the server's version.
// engine.Check has found to be JSON what is written as it stands.
func (w *body) guided(d *discovered, g *dynamo.Guided) {
	if !d.guidedForm().structured {
		w.guidedFields(g)
		return
	}
	w.name("structured_outputs")
	w.b, w.first = append(w.b, '{'), true
	switch g.Kind {
	case dynamo.GuidedJSONSchema:
		w.raw("json", g.Value)
	case dynamo.GuidedJSONObject:
		w.raw("json_object", "true")
	case dynamo.GuidedChoice:
		w.raw("choice", g.Value)
	case dynamo.GuidedRegex:
		w.text("regex", g.Value)
	case dynamo.GuidedGrammar:
		w.text("grammar", g.Value)
	case dynamo.GuidedStructuralTag:
		w.text("structural_tag", g.Value) // theirs is a string that holds JSON
	default:
		panic("BUG: vllm: no form for " + string(g.Kind))
	}
	if g.Whitespace != "" {
		w.text("whitespace_pattern", g.Whitespace)
	}
	if g.Compact {
		w.raw("disable_any_whitespace", "true")
	}
	if g.Closed {
		w.raw("disable_additional_properties", "true")
	}
	w.b, w.first = append(w.b, '}'), false
}

// guidedFields writes the fields of older versions, which completions know.
func (w *body) guidedFields(g *dynamo.Guided) {
	switch g.Kind {
	case dynamo.GuidedJSONSchema:
		w.raw("guided_json", g.Value)
	case dynamo.GuidedJSONObject:
		w.raw("response_format", `{"type":"json_object"}`)
	case dynamo.GuidedChoice:
		w.raw("guided_choice", g.Value)
	case dynamo.GuidedRegex:
		w.text("guided_regex", g.Value)
	case dynamo.GuidedGrammar:
		w.text("guided_grammar", g.Value)
	default:
		panic("BUG: vllm: no field for " + string(g.Kind))
	}
	if g.Whitespace != "" {
		w.text("guided_whitespace_pattern", g.Whitespace)
	}
}
