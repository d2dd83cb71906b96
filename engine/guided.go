package engine

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/dynamo-go/dynamo"
	"github.com/go-json-experiment/json/jsontext"
)

// checkGuided says whether an engine with card c can restrict an answer by g. The
// error names the field "guided", which a frontend replaces by the client's own.
func checkGuided(c *Card, g *dynamo.Guided) error {
	if !slices.Contains(c.Guided, g.Kind) {
		return &dynamo.Error{Kind: dynamo.KindInvalid, Param: "guided", Code: "unsupported_parameter", Message: notGuided(c, g.Kind)}
	}
	if n := max(len(g.Value), len(g.Whitespace)); n > MaxGuidedBytes {
		return invalid("guided", "what the answer is restricted by (%s) has %d bytes; at most %d are possible", g.Kind, n, MaxGuidedBytes)
	}
	switch g.Kind {
	case dynamo.GuidedJSONSchema, dynamo.GuidedStructuralTag:
		if v := jsontext.Value(g.Value); !v.IsValid() || v.Kind() != '{' {
			return invalid("guided", "the %s is no JSON object", g.Kind)
		}
	case dynamo.GuidedChoice:
		if !isChoice(g.Value) {
			return invalid("guided", "the choice is no JSON array of strings, one at least")
		}
	case dynamo.GuidedRegex, dynamo.GuidedGrammar:
		if g.Value == "" {
			return invalid("guided", "the %s is empty", g.Kind)
		}
	case dynamo.GuidedJSONObject:
		if g.Value != "" {
			return invalid("guided", "json_object takes no value; a schema goes with json_schema")
		}
	}
	return nil
}

func notGuided(c *Card, kind dynamo.GuidedKind) string {
	if len(c.Guided) == 0 {
		return fmt.Sprintf("guided decoding (%s) is not supported by the engine of model %s: leave it out and ask for the format in the prompt, or ask a model whose engine does it", kind, c.Model)
	}
	offered := make([]string, len(c.Guided))
	for i, k := range c.Guided {
		offered[i] = string(k)
	}
	return fmt.Sprintf("guided decoding by %q is not supported by the engine of model %s, which offers %s", string(kind), c.Model, strings.Join(offered, ", "))
}

// isChoice reports whether s is a JSON array of strings, one at least.
func isChoice(s string) bool {
	d := jsontext.NewDecoder(strings.NewReader(s))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '[' || d.PeekKind() == ']' {
		return false
	}
	for d.PeekKind() == '"' {
		if _, err := d.ReadToken(); err != nil {
			return false
		}
	}
	if t, err := d.ReadToken(); err != nil || t.Kind() != ']' {
		return false
	}
	_, err := d.ReadToken()
	return errors.Is(err, io.EOF)
}
