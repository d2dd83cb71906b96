package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// A request for an adapter passes where the card lists it; the error of any other
// names it and what there is, and stays readable.
func TestCheckAdapter(t *testing.T) {
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("adapter-%04d", i))
	}
	for _, c := range []struct {
		name, adapter string
		listed        []string
		says          []string // of the error; nil: accepted
	}{
		{"none asked for", "", []string{"a"}, nil},
		{"listed", "b", []string{"a", "b"}, nil},
		{"not listed", "c", []string{"a", "b"}, []string{"model m", `"c"`, "a, b"}},
		{"no adapters at all", "c", nil, []string{"model m", `"c"`, "no adapters"}},
		{"the model's own name", "m", []string{"a"}, []string{`"m"`}},
		{"prefix", "a", []string{"ab"}, []string{`"a"`}},
		{"among many", "c", many, []string{"1000", "adapter-0000"}},
		{"nonsense", strings.Repeat("x\xff", 5000), []string{"a"}, []string{"…"}},
	} {
		card := engine.Card{Model: "m", ContextLength: 100, VocabSize: 50, MaxTopLogprobs: -1, Adapters: c.listed}
		err := engine.Check(&card, &dynamo.Request{Adapter: c.adapter, Tokens: []dynamo.TokenID{1}, MaxTokens: 5})
		if c.says == nil {
			if err != nil {
				t.Errorf("%s: got %v", c.name, err)
			}
			continue
		}
		e := wantKind(t, err, dynamo.KindInvalid)
		if e.Param != "model" || len(e.Message) > 1000 {
			t.Errorf("%s: got param %q and a message of %d bytes: %.1000s", c.name, e.Param, len(e.Message), e.Message)
		}
		for _, s := range c.says {
			if !strings.Contains(e.Message, s) {
				t.Errorf("%s: %q is not in %q", c.name, s, e.Message)
			}
		}
	}
}
