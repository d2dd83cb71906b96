package remoteapi

import (
	"encoding/json"

	"github.com/dynamo-go/dynamo"
)

// guidedKinds are what the card claims: there is a field for each. Whether the
// server heeds it nobody says: vLLM heeds all of them, others some, and servers
// that do not know structured_outputs pass over it in silence.
var guidedKinds = []dynamo.GuidedKind{
	dynamo.GuidedJSONSchema, dynamo.GuidedJSONObject, dynamo.GuidedRegex, dynamo.GuidedChoice, dynamo.GuidedGrammar, dynamo.GuidedStructuralTag,
}

// restriction appends what restricts the answer: OpenAI's response_format where it
// has a word for it, else vLLM's structured_outputs. engine.Check has found to be
// JSON what is appended as it stands.
func restriction(b []byte, g *dynamo.Guided) []byte {
	plain := g.Whitespace == "" && !g.Compact && !g.Closed
	switch {
	case plain && g.Kind == dynamo.GuidedJSONObject:
		return append(b, `,"response_format":{"type":"json_object"}`...)
	case plain && g.Kind == dynamo.GuidedJSONSchema:
		// OpenAI's API wants a name for the schema; nothing comes of it.
		b = append(b, `,"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":`...)
		return append(append(b, g.Value...), `}}`...)
	case plain && g.Kind == dynamo.GuidedStructuralTag && isFormat(g.Value):
		return append(append(b, `,"response_format":`...), g.Value...)
	}
	b = append(b, `,"structured_outputs":{`...)
	switch g.Kind {
	case dynamo.GuidedJSONSchema:
		b = append(append(b, `"json":`...), g.Value...)
	case dynamo.GuidedJSONObject:
		b = append(b, `"json_object":true`...)
	case dynamo.GuidedChoice:
		b = append(append(b, `"choice":`...), g.Value...)
	case dynamo.GuidedRegex, dynamo.GuidedGrammar, dynamo.GuidedStructuralTag: // the kind's name is the field's
		b = append(append(append(b, '"'), g.Kind...), `":`...)
		b = quote(b, g.Value)
	default:
		panic("BUG: remoteapi: no field for " + string(g.Kind))
	}
	if g.Whitespace != "" {
		b = quote(append(b, `,"whitespace_pattern":`...), g.Whitespace)
	}
	if g.Compact {
		b = append(b, `,"disable_any_whitespace":true`...)
	}
	if g.Closed {
		b = append(b, `,"disable_additional_properties":true`...)
	}
	return append(b, '}')
}

// isFormat reports whether a structural tag is a response_format as it stands.
func isFormat(tag string) bool {
	var format struct {
		Type string `json:"type"`
	}
	return json.Unmarshal([]byte(tag), &format) == nil && format.Type == string(dynamo.GuidedStructuralTag)
}
