package remoteapi_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/remoteapi"
)

// heed returns a text that a request's restriction allows, if it has one that the
// server understands.
func heed(body []byte) (text string, restricted bool) {
	type schema struct {
		Enum []json.RawMessage
	}
	of := func(s *schema) string {
		if len(s.Enum) > 0 {
			return string(s.Enum[0])
		}
		return `{"ok":true}`
	}
	var q struct {
		Format struct {
			Type   string
			Schema struct {
				Name   string
				Schema *schema
			} `json:"json_schema"`
			Triggers []string
		} `json:"response_format"`
		Structured struct {
			JSON           *schema
			JSONObject     bool `json:"json_object"`
			Choice         []string
			Regex, Grammar string
		} `json:"structured_outputs"`
	}
	if json.Unmarshal(body, &q) != nil {
		return "", false
	}
	f, s := &q.Format, &q.Structured
	switch {
	case f.Type == "json_schema" && f.Schema.Name != "" && f.Schema.Schema != nil:
		return of(f.Schema.Schema), true
	case s.JSON != nil:
		return of(s.JSON), true
	case f.Type == "json_object", s.JSONObject:
		return `{"a": [1]}`, true
	case f.Type == "structural_tag" && len(f.Triggers) > 0:
		return `well <f>"x"</f>`, true
	case len(s.Choice) > 0:
		return s.Choice[len(s.Choice)-1], true
	case s.Grammar != "":
		return strings.Trim(s.Grammar[strings.LastIndex(s.Grammar, " ")+1:], `"`), true
	case s.Regex != "":
		for _, c := range []string{"aa", "abcd-012"} {
			if regexp.MustCompile(`^(?:` + s.Regex + `)$`).MatchString(c) {
				return c, true
			}
		}
	}
	return "", false
}

// TestGuided: what restricts an answer reaches the server as it was said, and
// nothing of it changes.
func TestGuided(t *testing.T) {
	type guided = dynamo.Guided
	for _, c := range []struct {
		by   dynamo.Guided
		want string // of the body, at its end
	}{
		{guided{Kind: "json_object"}, `"response_format":{"type":"json_object"}`},
		{guided{Kind: "json_schema", Value: `{"enum": ["a<b"]}`}, `"response_format":{"type":"json_schema","json_schema":{"name":"answer","schema":{"enum": ["a<b"]}}}`},
		{guided{Kind: "json_schema", Value: `{}`, Whitespace: `\s`, Compact: true, Closed: true}, `"structured_outputs":{"json":{},"whitespace_pattern":"\\s","disable_any_whitespace":true,"disable_additional_properties":true}`},
		{guided{Kind: "json_object", Compact: true}, `"structured_outputs":{"json_object":true,"disable_any_whitespace":true}`},
		{guided{Kind: "choice", Value: `["a", "b"]`}, `"structured_outputs":{"choice":["a", "b"]}`},
		{guided{Kind: "regex", Value: `"a"+\d`}, `"structured_outputs":{"regex":"\"a\"+\\d"}`},
		{guided{Kind: "grammar", Value: "root ::= \"a\"\n"}, `"structured_outputs":{"grammar":"root ::= \"a\"\n"}`},
		{guided{Kind: "structural_tag", Value: `{"triggers":["<"],"type":"structural_tag"}`}, `"response_format":{"triggers":["<"],"type":"structural_tag"}`},
		{guided{Kind: "structural_tag", Value: `{"format":{}}`}, `"structured_outputs":{"structural_tag":"{\"format\":{}}"}`},
		{guided{}, `"temperature":0`},
	} {
		f := &fakeServer{}
		r := request()
		r.Guided = c.by
		if _, _, err := collect(t, open(t, f, nil), r); err != nil {
			t.Errorf("%+v: %v", c.by, err)
			continue
		}
		if got, want := f.mu.bodies[0], ","+c.want+"}"; !strings.HasSuffix(got, want) || !json.Valid([]byte(got)) {
			t.Errorf("%+v:\ngot  %s\nwant …%s", c.by, got, want)
		}
	}
	f := &fakeServer{}
	e := open(t, f, func(*remoteapi.Config) {})
	for _, g := range []dynamo.Guided{
		{Kind: "json_schema", Value: `{}},"kv_transfer_params":{"a":{}`}, {Kind: "choice", Value: `["a"],"x":[]`}, {Kind: "structural_tag", Value: `{`}, {Kind: "magic"}, {Compact: true},
	} {
		r := request()
		r.Guided = g
		if _, _, err := collect(t, e, r); dynamo.KindOf(err) != dynamo.KindInvalid || len(f.mu.bodies) > 0 {
			t.Errorf("%+v: got %v, %s", g, err, fmt.Sprint(f.mu.bodies))
		}
	}
}
