package enginetest

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/tokens"
)

// testAdapters asks for each adapter of the card, and for one that is not there. An
// engine refuses that as invalid; who stands in front of several may say that none of
// those it has can serve it.
func testAdapters(t *testing.T, s Subject) {
	names := s.Card.Adapters
	if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) || slices.Contains(names, "") || slices.Contains(names, s.Card.Model) {
		t.Fatalf("the card of model %s lists the adapters %q, want names in order, each once, none of them empty or the model's", s.Card.Model, names)
	}
	ask := func(adapter string) *dynamo.Request {
		r := s.request(20, answerIDs)
		r.Adapter, r.Root = adapter, tokens.Root(adapter, "")
		return r
	}
	for _, name := range append([]string{""}, names[:min(len(names), 3)]...) {
		first := s.answer(t, ask(name))
		if got := len(first.Tokens); got != answerIDs {
			t.Fatalf("adapter %q: got %d ids, want %d", name, got, answerIDs)
		}
		equal(t, "adapter "+name+" again", s.answer(t, ask(name)).Tokens, first.Tokens)
	}
	const missing = "enginetest-is-not-there"
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := Collect(ctx, s.Engine, ask(missing))
	if kind := dynamo.KindOf(err); err == nil || kind != dynamo.KindInvalid && kind != dynamo.KindUnavailable || !strings.Contains(err.Error(), missing) {
		t.Fatalf("an adapter that the card does not list: got error %v, want one of kind invalid or unavailable that names it", err)
	}
	if len(a.Tokens) > 0 {
		t.Fatalf("got %d ids before the error %v, want none", len(a.Tokens), err)
	}
	s.idle(t)
}
