package enginetest

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
)

// restriction is a way of restricting an answer, and which texts fit. Those that
// end by their length are the beginning of one.
type restriction struct {
	by  dynamo.Guided
	fit func(text string) bool
	// open says that texts may be of any length, so that an answer may end by its
	// length before it fits.
	open bool
}

// restrictions has each kind at least once. Every text that fits is short, where
// the kind allows to say so.
var restrictions = []restriction{
	{dynamo.Guided{Kind: dynamo.GuidedChoice, Value: `["alpha","beta gamma","be\u0074a"]`}, oneOf("alpha", "beta gamma", "beta"), false},
	{dynamo.Guided{Kind: dynamo.GuidedChoice, Value: `["\"quoted\", with a comma"]`}, oneOf(`"quoted", with a comma`), false},
	{dynamo.Guided{Kind: dynamo.GuidedRegex, Value: `(ab|c[de]){2}-[0-9]{3}`}, regexp.MustCompile(`^(ab|c[de]){2}-[0-9]{3}$`).MatchString, false},
	{dynamo.Guided{Kind: dynamo.GuidedJSONSchema, Value: `{"type":"string","enum":["red","green"]}`}, oneOf(`"red"`, `"green"`), false},
	{dynamo.Guided{Kind: dynamo.GuidedJSONSchema, Compact: true, Value: `{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"],"additionalProperties":false}`}, func(text string) bool {
		var v map[string]bool
		err := json.Unmarshal([]byte(text), &v)
		_, ok := v["ok"]
		return err == nil && ok && len(v) == 1
	}, true},
	{dynamo.Guided{Kind: dynamo.GuidedJSONObject}, func(text string) bool {
		var v map[string]any
		return json.Unmarshal([]byte(text), &v) == nil
	}, true},
	{dynamo.Guided{Kind: dynamo.GuidedGrammar, Value: `root ::= "yes" | "no"`}, oneOf("yes", "no"), false},
	{dynamo.Guided{Kind: dynamo.GuidedStructuralTag, Value: `{"type":"structural_tag","structures":[{"begin":"<f>","schema":{"enum":["x"]},"end":"</f>"}],"triggers":["<f>"]}`}, func(text string) bool {
		return strings.Count(text, "<f>") == strings.Count(text, `<f>"x"</f>`)
	}, true},
}

func oneOf(texts ...string) func(string) bool {
	return func(text string) bool { return slices.Contains(texts, text) }
}

// testGuided: an answer is a text that its restriction allows, however it is
// drawn, for each kind that the card claims; the others are refused.
func testGuided(t *testing.T, s Subject) {
	if len(s.Card.Guided) > 0 && !s.Card.TextOnly && s.Text == nil {
		t.Fatal("the card claims restricted answers: give the suite the subject's Text")
	}
	for _, c := range restrictions {
		r := s.request(9, restrictedIDs)
		r.IgnoreEOS, r.Guided = false, c.by
		if !slices.Contains(s.Card.Guided, c.by.Kind) {
			err := s.refuse(t, t.Context(), r, dynamo.KindInvalid)
			if e, ok := asError(err); !ok || e.Param != "guided" || !strings.Contains(err.Error(), string(c.by.Kind)) {
				t.Errorf("%s: the error must have the param guided and name the kind: %v", c.by.Kind, err)
			}
			continue
		}
		samplings := []dynamo.Sampling{{}}
		for seed := uint64(1); s.Card.Sampling && seed <= 3; seed++ {
			samplings = append(samplings, dynamo.Sampling{Temperature: 1, Seed: seed, Seeded: true})
		}
		for _, r.Sampling = range samplings {
			text, finish := s.text(t, r)
			if c.open && finish == dynamo.FinishLength {
				continue
			}
			if finish != dynamo.FinishStop || !c.fit(text) {
				t.Errorf("%s %s: got %q, ended by %v", c.by.Kind, c.by.Value, text, finish)
			}
		}
	}
}

// text asks r and returns the text of the answer.
func (s Subject) text(t *testing.T, r *dynamo.Request) (string, dynamo.FinishReason) {
	t.Helper()
	if !s.Card.TextOnly {
		a := s.answer(t, r)
		if n := len(a.Tokens); n > 0 && a.Finish == dynamo.FinishStop {
			a.Tokens = a.Tokens[:n-1] // the stop id is not part of the text
		}
		return s.Text(a.Tokens), a.Finish
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	text, finish := "", dynamo.FinishNone
	for c, err := range s.Engine.Generate(ctx, r) {
		if err != nil {
			t.Fatal(err)
		}
		text, finish = text+c.Text, c.Finish
	}
	s.idle(t)
	return text, finish
}
