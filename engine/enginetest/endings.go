package enginetest

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
)

func testBreak(t *testing.T, s Subject) {
	want := s.answer(t, s.request(8, answerIDs)).Tokens
	goroutines := runtime.NumGoroutine()
	for stop := range answerIDs {
		got := 0
		for chunk, err := range s.Engine.Generate(t.Context(), s.request(8, answerIDs)) {
			if err != nil {
				t.Fatal(err)
			}
			if got += len(chunk.Tokens); got > stop {
				break
			}
		}
		s.idle(t)
	}
	settled(t, goroutines, "after broken loops")
	equal(t, "after broken loops", s.answer(t, s.request(8, answerIDs)).Tokens, want)
}

func testCancel(t *testing.T, s Subject) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.refuse(t, ctx, s.request(8, answerIDs), dynamo.KindCancelled)

	stopping, stop := context.WithCancelCause(t.Context())
	stop(&dynamo.Error{Kind: dynamo.KindUnavailable, Message: "stopping"})
	s.refuse(t, stopping, s.request(8, answerIDs), dynamo.KindUnavailable)

	want := s.answer(t, s.request(8, answerIDs)).Tokens
	goroutines := runtime.NumGoroutine()
	for at := range answerIDs {
		cancelAt(t, s, at)
	}
	settled(t, goroutines, "after cancelled requests")
	equal(t, "after cancelled requests", s.answer(t, s.request(8, answerIDs)).Tokens, want)
}

// cancelAt cancels a request once more than at ids have come: the next pair is
// the error, unless the answer was complete.
func cancelAt(t *testing.T, s Subject, at int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, over := 0, false
	for chunk, err := range s.Engine.Generate(ctx, s.request(8, answerIDs)) {
		switch {
		case over:
			t.Fatal("a pair after the end")
		case err == nil && ctx.Err() != nil:
			t.Fatalf("cancelled after %d ids: got a chunk of %d more, want the error", got, len(chunk.Tokens))
		case err != nil && (ctx.Err() == nil || dynamo.KindOf(err) != dynamo.KindCancelled):
			t.Fatalf("got the error %v of kind %v, want cancelled", err, dynamo.KindOf(err))
		}
		over = err != nil || chunk.Finish != dynamo.FinishNone
		if got += len(chunk.Tokens); got > at {
			cancel()
		}
	}
	if !over {
		t.Fatal("the sequence ended without Finish and without an error")
	}
	s.idle(t)
}

func testDeadline(t *testing.T, s Subject) {
	r := s.request(8, answerIDs)
	r.Deadline = time.Now().Add(-time.Second)
	s.refuse(t, t.Context(), r, dynamo.KindDeadline)

	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	s.refuse(t, ctx, s.request(8, answerIDs), dynamo.KindDeadline)

	// A deadline in the middle of an answer: an engine may be faster, but not late.
	r = s.request(8, s.Card.ContextLength)
	r.Deadline = time.Now().Add(30 * time.Millisecond)
	_, err := Collect(t.Context(), s.Engine, r)
	if late := time.Since(r.Deadline); late > patience/10 {
		t.Fatalf("ended %v after its deadline", late)
	}
	if err != nil && dynamo.KindOf(err) != dynamo.KindDeadline {
		t.Fatalf("got the error %v of kind %v, want deadline", err, dynamo.KindOf(err))
	}
	s.idle(t)
}

func testInvalid(t *testing.T, s Subject) {
	nan := float32(math.NaN())
	outside := dynamo.TokenID(s.Card.VocabSize)
	for _, c := range []struct {
		name  string
		spoil func(*dynamo.Request)
	}{
		{"empty prompt", func(r *dynamo.Request) { r.Tokens = nil }},
		{"id outside the vocabulary", func(r *dynamo.Request) { r.Tokens = slices.Concat(r.Tokens, []dynamo.TokenID{outside}) }},
		{"largest id", func(r *dynamo.Request) { r.Tokens = []dynamo.TokenID{math.MaxUint32} }},
		{"stop id outside the vocabulary", func(r *dynamo.Request) { r.StopTokens = []dynamo.TokenID{outside} }},
		{"negative MaxTokens", func(r *dynamo.Request) { r.MaxTokens = -1 }},
		{"negative MinTokens", func(r *dynamo.Request) { r.MinTokens = -1 }},
		{"MinTokens above MaxTokens", func(r *dynamo.Request) { r.MinTokens = r.MaxTokens + 1 }},
		{"negative temperature", func(r *dynamo.Request) { r.Sampling.Temperature = -1 }},
		{"temperature NaN", func(r *dynamo.Request) { r.Sampling.Temperature = nan }},
		{"infinite temperature", func(r *dynamo.Request) { r.Sampling.Temperature = float32(math.Inf(1)) }},
		{"top_p above 1", func(r *dynamo.Request) { r.Sampling.TopP = 1.5 }},
		{"min_p NaN", func(r *dynamo.Request) { r.Sampling.MinP = nan }},
		{"negative top_k", func(r *dynamo.Request) { r.Sampling.TopK = -3 }},
		{"penalty NaN", func(r *dynamo.Request) { r.Sampling.FrequencyPenalty = nan }},
		{"negative repetition penalty", func(r *dynamo.Request) { r.Sampling.RepetitionPenalty = -1 }},
		{"bias NaN", func(r *dynamo.Request) { r.Sampling.LogitBias = []dynamo.LogitBias{{ID: 0, Bias: nan}} }},
		{"bias outside the vocabulary", func(r *dynamo.Request) { r.Sampling.LogitBias = []dynamo.LogitBias{{ID: outside, Bias: 1}} }},
		{"too many alternatives", func(r *dynamo.Request) {
			r.Sampling.Logprobs, r.Sampling.TopLogprobs = true, max(s.Card.MaxTopLogprobs, 0)+1
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.request(5, answerIDs)
			c.spoil(r)
			s.refuse(t, t.Context(), r, dynamo.KindInvalid)
		})
	}
}

func asError(err error) (*dynamo.Error, bool) {
	var e *dynamo.Error
	ok := errors.As(err, &e)
	return e, ok
}
