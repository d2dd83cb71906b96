package enginetest

import (
	"context"
	"hash/fnv"
	"iter"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// Texts makes the answers of a text-only engine comparable to others: each piece
// of text becomes one id, which depends on the text alone.
func Texts(next engine.Engine) engine.Engine { return texts{next} }

type texts struct{ next engine.Engine }

// Generate implements engine.Engine.
func (e texts) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		for c, err := range e.next.Generate(ctx, r) {
			if c.Text != "" {
				h := fnv.New32a()
				_, _ = h.Write([]byte(c.Text)) // never fails
				c.Tokens, c.Text = []dynamo.TokenID{dynamo.TokenID(h.Sum32())}, ""
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

// testForm: an answer comes as ids or as text, as the card says, and a text-only
// card claims nothing that needs ids.
func testForm(t *testing.T, s Subject) {
	if c := s.Card; c.TextOnly && (c.Resume || c.ResumeSeeded || c.PromptLogprobs || c.MaxTopLogprobs >= 0) {
		t.Errorf("a text-only card claims what needs ids: %+v", c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for chunk, err := range s.Engine.Generate(ctx, s.request(5, answerIDs)) {
		if err != nil {
			t.Fatal(err)
		}
		if s.Card.TextOnly && len(chunk.Tokens) > 0 || !s.Card.TextOnly && chunk.Text != "" {
			t.Fatalf("the card says text-only: %t; got %v and %q", s.Card.TextOnly, chunk.Tokens, chunk.Text)
		}
	}
	s.idle(t)
}

// needIDs skips a part that is about ids which end an answer.
func (s Subject) needIDs(t *testing.T) {
	t.Helper()
	if s.Card.TextOnly {
		t.Skip("a text-only engine leaves it to its server which ids end an answer")
	}
}
