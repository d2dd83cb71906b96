// Package enginetest is the conformance suite of engine.Engine: whatever yields
// tokens, leaf or decorator, near or far, passes Run in its own tests. It owns
// the laws that package engine states and tests beyond them only what an
// engine's card claims.
//
// Of an engine whose card says text-only the pieces of text are counted in place of
// ids, see Texts: it must be set up to yield each token as a piece of its own. What
// the laws say of ids that end an answer is not asked of it.
//
// The suite asks small requests, but many: an engine under test should have a
// small model and a short context.
package enginetest

import (
	"context"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// Subject is an engine under test.
type Subject struct {
	Engine engine.Engine
	// Card is what the engine claims.
	Card engine.Card
	// Prompt returns a prompt of n valid ids, the same for the same n, with no id
	// of Card.EOS in it. Prompts of different lengths should differ early.
	Prompt func(n int) []dynamo.TokenID
	// Text returns the text of generated ids; nil will do if the card claims no
	// restricted answers (Card.Guided).
	Text func(ids []dynamo.TokenID) string
	// Idle returns an error if the engine still holds anything for a request
	// (queued, running, blocks in use). The suite asks it the moment a sequence
	// has ended. nil: not asked.
	Idle func() error
}

// Limits of what the suite waits for and asks.
const (
	patience      = 30 * time.Second // for a single request
	answerIDs     = 10               // length of a usual answer
	restrictedIDs = 60               // length of an answer that its restriction ends earlier
	longPrompt    = 1100             // contexts above it are not filled: it would take too long
)

// Run tests the engine that open returns, once per part of the suite. open
// registers the engine's end with t.Cleanup; after it no goroutine may be left.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for _, part := range []struct {
		name string
		test func(*testing.T, Subject)
	}{
		{"Form", testForm},
		{"Ends", testEnds},
		{"Lazy", testLazy},
		{"MaxTokens", testMaxTokens},
		{"Context", testContext},
		{"StopTokens", testStopTokens},
		{"MinTokens", testMinTokens},
		{"EOS", testEOS},
		{"Break", testBreak},
		{"Cancel", testCancel},
		{"Deadline", testDeadline},
		{"Concurrent", testConcurrent},
		{"SlowReader", testSlowReader},
		{"Choices", testChoices},
		{"Resume", testResume},
		{"Seed", testSeed},
		{"Logprobs", testLogprobs},
		{"PromptLogprobs", testPromptLogprobs},
		{"Adapters", testAdapters},
		{"Guided", testGuided},
		{"Invalid", testInvalid},
	} {
		t.Run(part.name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			t.Run("engine", func(t *testing.T) {
				s := open(t)
				if s.Card.TextOnly && part.name != "Form" && part.name != "Guided" {
					s.Engine = Texts(s.Engine)
				}
				part.test(t, s)
			})
			settled(t, before, "after the engine's end")
		})
	}
}

// request returns a greedy request for n ids that ignores the end of sequence.
func (s Subject) request(prompt, n int) *dynamo.Request {
	return &dynamo.Request{
		ID: "enginetest", Model: s.Card.Model, Tokens: s.Prompt(prompt),
		MaxTokens: n, IgnoreEOS: true,
	}
}

// answer asks r and fails the test unless it is answered lawfully.
func (s Subject) answer(t *testing.T, r *dynamo.Request) Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	kept := clone(r)
	a, err := Collect(ctx, s.Engine, r)
	if err != nil {
		t.Fatalf("request of %d ids for %d: %v", len(r.Tokens), r.MaxTokens, err)
	}
	if !reflect.DeepEqual(r, kept) {
		t.Fatalf("the engine changed the request: got %+v, want %+v", r, kept)
	}
	s.idle(t)
	return a
}

// refuse asks r and wants an error of the given kind and nothing before it.
func (s Subject) refuse(t *testing.T, ctx context.Context, r *dynamo.Request, want dynamo.Kind) error {
	t.Helper()
	a, err := Collect(ctx, s.Engine, r)
	if err == nil {
		t.Fatalf("got an answer of %d ids, want an error of kind %v", len(a.Tokens), want)
	}
	if got := dynamo.KindOf(err); got != want {
		t.Fatalf("got an error of kind %v (%v), want %v", got, err, want)
	}
	if len(a.Tokens) > 0 {
		t.Fatalf("got %d ids before the error %v, want none", len(a.Tokens), err)
	}
	s.idle(t)
	return err
}

func (s Subject) idle(t *testing.T) {
	t.Helper()
	if s.Idle == nil {
		return
	}
	if err := s.Idle(); err != nil {
		t.Fatalf("the engine still holds something after the end of the sequence: %v", err)
	}
}

// settled waits a moment for the number of goroutines to fall back to n.
func settled(t *testing.T, n int, when string) {
	t.Helper()
	var got int
	for wait := time.Millisecond; wait < 3*time.Second; wait *= 2 {
		if got = runtime.NumGoroutine(); got <= n {
			return
		}
		time.Sleep(wait)
	}
	stacks := make([]byte, 1<<16)
	stacks = stacks[:runtime.Stack(stacks, true)]
	t.Errorf("%d goroutines %s, want %d:\n%s", got, when, n, stacks)
}

func equal(t *testing.T, what string, got, want []dynamo.TokenID) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func clone(r *dynamo.Request) *dynamo.Request {
	c := *r
	c.Tokens, c.Resume, c.StopTokens = slices.Clone(r.Tokens), slices.Clone(r.Resume), slices.Clone(r.StopTokens)
	c.Sampling.LogitBias = slices.Clone(r.Sampling.LogitBias)
	return &c
}
