package openai

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

// TestGuided: every way of restricting an answer, by both routes.
func TestGuided(t *testing.T) {
	type guided = dynamo.Guided
	const schema = `{"type":"object", "properties":{"a":{}}}`
	tag := `{"type":"structural_tag","structures":[{"begin":"<f>","schema":{},"end":"</f>"}],"triggers":["<f>"]}`
	for _, c := range []struct {
		fields, by string
		want       dynamo.Guided
	}{
		{`"user":"u"`, "", guided{}},
		{`"response_format":{"type":"text"}`, "", guided{}},
		{`"response_format":null,"structured_outputs":null,"guided_json":null`, "", guided{}},
		{`"response_format":{"type":"text"},"guided_regex":"a+"`, "guided_regex", guided{Kind: "regex", Value: "a+"}},
		{`"response_format":{"type":"json_object"}`, "response_format", guided{Kind: "json_object"}},
		{`"response_format":{"type":"json_schema","json_schema":{"name":"n","strict":true,"schema": ` + schema + ` }}`, "response_format", guided{Kind: "json_schema", Value: schema}},
		{`"response_format":{"json_schema":{"schema":{},"description":"d"},"type":"json_schema"}`, "response_format", guided{Kind: "json_schema", Value: "{}"}},
		{`"response_format": ` + tag, "response_format", guided{Kind: "structural_tag", Value: tag}},
		{`"structured_outputs":{"json":` + schema + `,"whitespace_pattern":" ?","disable_additional_properties":true}`, "structured_outputs.json", guided{Kind: "json_schema", Value: schema, Whitespace: " ?", Closed: true}},
		{`"structured_outputs":{"json":"{\"a\":1}"}`, "structured_outputs.json", guided{Kind: "json_schema", Value: `{"a":1}`}},
		{`"structured_outputs":{"json_object":true,"disable_any_whitespace":true,"disable_fallback":false}`, "structured_outputs.json_object", guided{Kind: "json_object", Compact: true}},
		{`"structured_outputs":{"json_object":false,"choice":["a"]}`, "structured_outputs.choice", guided{Kind: "choice", Value: `["a"]`}},
		{`"structured_outputs":{"regex":"\\d+","json":null}`, "structured_outputs.regex", guided{Kind: "regex", Value: `\d+`}},
		{`"structured_outputs":{"choice": ["yes" , "n\u006f"]}`, "structured_outputs.choice", guided{Kind: "choice", Value: `["yes" , "n\u006f"]`}},
		{`"structured_outputs":{"grammar":"root ::= \"a\""}`, "structured_outputs.grammar", guided{Kind: "grammar", Value: `root ::= "a"`}},
		{`"structured_outputs":{"structural_tag":"{\"type\":\"structural_tag\"}"}`, "structured_outputs.structural_tag", guided{Kind: "structural_tag", Value: `{"type":"structural_tag"}`}},
		{`"guided_json":` + schema + `,"guided_decoding_backend":"auto","guided_whitespace_pattern":""`, "guided_json", guided{Kind: "json_schema", Value: schema}},
		{`"guided_choice":["a",""]`, "guided_choice", guided{Kind: "choice", Value: `["a",""]`}},
		{`"guided_grammar":"g"`, "guided_grammar", guided{Kind: "grammar", Value: "g"}},
		{`"nvext":{"guided_json":{"a":1},"guided_whitespace_pattern":"x"}`, "nvext.guided_json", guided{Kind: "json_schema", Value: `{"a":1}`, Whitespace: "x"}},
		{`"nvext":{"guided_regex":"r"}`, "nvext.guided_regex", guided{Kind: "regex", Value: "r"}},
		{`"nvext":{"guided_choice":["c"],"guided_decoding_backend":"auto"}`, "nvext.guided_choice", guided{Kind: "choice", Value: `["c"]`}},
		{`"nvext":{"guided_grammar":"g"}`, "nvext.guided_grammar", guided{Kind: "grammar", Value: "g"}},
	} {
		chat, err := DecodeChat([]byte(`{"model":"m",` + c.fields + `,` + hi + `}`))
		if err != nil {
			t.Errorf("%s: %v", c.fields, err)
			continue
		}
		completion, err := DecodeCompletion([]byte(`{"model":"m","prompt":"x",` + c.fields + `}`))
		if err != nil {
			t.Errorf("%s: %v", c.fields, err)
			continue
		}
		for _, p := range []*Params{&chat.Params, &completion.Params} {
			if p.Guided != c.want || p.GuidedBy != c.by {
				t.Errorf("%s:\ngot  %+v by %q\nwant %+v by %q", c.fields, p.Guided, p.GuidedBy, c.want, c.by)
			}
		}
	}
}

// TestGuidedFaults wants each refused with the field's name.
func TestGuidedFaults(t *testing.T) {
	deep := strings.Repeat(`[`, MaxDepth) + strings.Repeat(`]`, MaxDepth)
	for _, c := range []struct{ fields, param, message string }{
		{`"response_format":"json"`, "response_format", "must be an object"},
		{`"response_format":{}`, "response_format.type", "no type"},
		{`"response_format":{"type":3}`, "response_format.type", "must be a string"},
		{`"response_format":{"type":"ebnf"}`, "response_format", "ebnf"},
		{`"response_format":{"type":"json_schema"}`, "response_format.json_schema.schema", "missing"},
		{`"response_format":{"type":"json_schema","json_schema":{"schema":null}}`, "response_format.json_schema.schema", "missing"},
		{`"response_format":{"type":"json_schema","json_schema":{"schema":[1]}}`, "response_format.json_schema.schema", "must be a JSON object, not an array"},
		{`"response_format":{"type":"json_schema","json_schema":{"schema":{"a":1,"a":2}}}`, "response_format.json_schema.schema.a", "twice"},
		{`"response_format":{"type":"json_object"},"structured_outputs":{"regex":"a"}`, "structured_outputs.regex", "response_format and structured_outputs.regex both"},
		{`"guided_json":{},"nvext":{"guided_choice":["a"]}`, "nvext.guided_choice", "guided_json and nvext.guided_choice both"},
		{`"structured_outputs":{"regex":"a","choice":["a"]}`, "structured_outputs.choice", "structured_outputs.regex and structured_outputs.choice both"},
		{`"structured_outputs":{}`, "structured_outputs", "empty"},
		{`"structured_outputs":[]`, "structured_outputs", "must be an object"},
		{`"structured_outputs":{"json":7}`, "structured_outputs.json", "must be a JSON object, not a number"},
		{`"structured_outputs":{"json":"[1]"}`, "structured_outputs.json", "no JSON object"},
		{`"structured_outputs":{"json":"{\"a\":1"}`, "structured_outputs.json", "no JSON object"},
		{`"structured_outputs":{"json":"{\"a\":1,\"a\":2}"}`, "structured_outputs.json", "no JSON object"},
		{`"structured_outputs":{"json":"{\"a\":` + deep + `}"}`, "structured_outputs.json", "no JSON object"},
		{`"structured_outputs":{"regex":["a"]}`, "structured_outputs.regex", "must be a string, not an array"},
		{`"structured_outputs":{"regex":""}`, "structured_outputs.regex", "empty"},
		{`"structured_outputs":{"choice":[]}`, "structured_outputs.choice", "empty"},
		{`"structured_outputs":{"choice":"a"}`, "structured_outputs.choice", "must be an array of strings"},
		{`"structured_outputs":{"choice":["a",1]}`, "structured_outputs.choice[1]", "must be a string"},
		{`"structured_outputs":{"choice":["a",null]}`, "structured_outputs.choice[1]", "must be a string"},
		{`"structured_outputs":{"choice":[` + strings.Repeat(`"a",`, MaxGuidedChoices) + `"a"]}`, "structured_outputs.choice", "more than"},
		{`"structured_outputs":{"json_object":"yes"}`, "structured_outputs.json_object", "true or false"},
		{`"structured_outputs":{"json":{},"disable_fallback":true}`, "structured_outputs.disable_fallback", "not supported"},
		{`"structured_outputs":{"json":{},"_backend":"outlines"}`, "structured_outputs._backend", "not supported"},
		{`"structured_outputs":{"whitespace_pattern":" "}`, "structured_outputs", "nothing asks for JSON"},
		{`"guided_regex":5`, "guided_regex", "must be a string"},
		{`"guided_choice":[]`, "guided_choice", "empty"},
		{`"guided_json":[1]`, "guided_json", "must be a JSON object"},
		{`"guided_decoding_backend":"outlines","guided_regex":"a"`, "guided_decoding_backend", "not supported"},
		{`"nvext":{"guided_regex":5}`, "nvext.guided_regex", "must be a string"},
		{`"nvext":{"guided_decoding_backend":"x"}`, "nvext.guided_decoding_backend", "not supported"},
		{`"guided_grammar":"` + strings.Repeat("g", MaxGuidedBytes+1) + `"`, "guided_grammar", "at most"},
	} {
		_, err := DecodeChat([]byte(`{"model":"m",` + c.fields + `,` + hi + `}`))
		checkFault(t, c.fields, err, c.param, c.message)
	}
}

// TestTransfersDropped: what says where KV blocks come from is counted, whatever it
// is, and left nowhere.
func TestTransfersDropped(t *testing.T) {
	for fields, want := range map[string]int{
		`"kv_transfer_params":{"do_remote_prefill":true}`:                                  1,
		`"kv_transfer_params":"x","ec_transfer_params":[1]`:                                2,
		`"kv_transfer_params":null,"future":1`:                                             0,
		`"nvext":{"kv_transfer_params":{"do_remote_prefill":true}},"ec_transfer_params":0`: 1,
	} {
		chat, err := DecodeChat([]byte(`{"model":"m",` + fields + `,` + hi + `}`))
		if err != nil {
			t.Errorf("%s: %v", fields, err)
			continue
		}
		completion, err := DecodeCompletion([]byte(`{"model":"m","prompt":"x",` + fields + `}`))
		if err != nil {
			t.Errorf("%s: %v", fields, err)
			continue
		}
		for _, p := range []*Params{&chat.Params, &completion.Params} {
			if p.Transfers != want {
				t.Errorf("%s: counted %d, want %d", fields, p.Transfers, want)
			}
			for _, m := range p.Extra {
				if strings.Contains(m.Name, "transfer") {
					t.Errorf("%s: %s is kept", fields, m.Name)
				}
			}
		}
	}
}

// checkGuided wants what was accepted to be what an engine may be given.
func checkGuided(t *testing.T, p *Params) {
	t.Helper()
	g := &p.Guided
	ok := len(g.Value) <= MaxGuidedBytes && (g.Kind == "") == (p.GuidedBy == "")
	switch g.Kind {
	case dynamo.GuidedJSONSchema, dynamo.GuidedStructuralTag:
		var object map[string]any
		ok = ok && json.Unmarshal([]byte(g.Value), &object) == nil && object != nil
	case dynamo.GuidedChoice:
		var list []string
		ok = ok && json.Unmarshal([]byte(g.Value), &list) == nil && len(list) > 0
	case dynamo.GuidedRegex, dynamo.GuidedGrammar:
		ok = ok && g.Value != ""
	case dynamo.GuidedJSONObject:
		ok = ok && g.Value == ""
	default:
		ok = ok && *g == (dynamo.Guided{})
	}
	if !ok {
		t.Fatalf("accepted %+v by %q", *g, p.GuidedBy)
	}
}
