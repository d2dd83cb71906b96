package enginetest

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

func testEnds(t *testing.T, s Subject) {
	for _, prompt := range []int{1, 2, 15, 16, 17, 33} {
		first := s.answer(t, s.request(prompt, answerIDs))
		if got := len(first.Tokens); got != answerIDs {
			t.Fatalf("prompt of %d: got %d ids, want %d", prompt, got, answerIDs)
		}
		if first.Finish != dynamo.FinishLength {
			t.Fatalf("prompt of %d: ended by %v, want length", prompt, first.Finish)
		}
		equal(t, "the same request again", s.answer(t, s.request(prompt, answerIDs)).Tokens, first.Tokens)
	}
}

func testLazy(t *testing.T, s Subject) {
	for range 10 {
		_ = s.Engine.Generate(t.Context(), s.request(5, answerIDs))
	}
	s.idle(t)
}

func testMaxTokens(t *testing.T, s Subject) {
	whole := s.answer(t, s.request(5, answerIDs)).Tokens
	for n := range answerIDs + 1 {
		a := s.answer(t, s.request(5, n))
		equal(t, "MaxTokens "+strconv.Itoa(n), a.Tokens, whole[:n])
		if a.Finish != dynamo.FinishLength {
			t.Fatalf("MaxTokens %d: ended by %v, want length", n, a.Finish)
		}
	}
}

func testContext(t *testing.T, s Subject) {
	limit := s.Card.ContextLength
	for _, n := range []int{limit, limit + 1, limit + 1000} {
		err := s.refuse(t, t.Context(), s.request(n, 5), dynamo.KindInvalid)
		if e, ok := asError(err); !ok || e.Code != "context_length_exceeded" || !strings.Contains(err.Error(), strconv.Itoa(n)) || !strings.Contains(err.Error(), strconv.Itoa(limit)) {
			t.Fatalf("prompt of %d in a context of %d: the error must have code context_length_exceeded and name both numbers: %v", n, limit, err)
		}
	}
	if limit > longPrompt {
		return
	}
	for _, left := range []int{1, 3} {
		a := s.answer(t, s.request(limit-left, 1000))
		if len(a.Tokens) != left || a.Finish != dynamo.FinishLength {
			t.Fatalf("context leaves room for %d: got %d ids, ended by %v", left, len(a.Tokens), a.Finish)
		}
	}
}

func testStopTokens(t *testing.T, s Subject) {
	s.needIDs(t)
	whole := s.answer(t, s.request(7, answerIDs)).Tokens
	for i, id := range whole {
		r := s.request(7, answerIDs)
		r.StopTokens = []dynamo.TokenID{id}
		a := s.answer(t, r)
		equal(t, "stopped at position "+strconv.Itoa(i), a.Tokens, whole[:slices.Index(whole, id)+1])
		if a.Finish != dynamo.FinishStop {
			t.Fatalf("ended by %v, want stop", a.Finish)
		}
	}
}

func testMinTokens(t *testing.T, s Subject) {
	s.needIDs(t)
	whole := s.answer(t, s.request(7, answerIDs)).Tokens
	for n := range answerIDs + 1 {
		r := s.request(7, answerIDs)
		r.StopTokens, r.MinTokens = whole[:1], n
		if a := s.answer(t, r); len(a.Tokens) < n { // Collect checks it too, for every request
			t.Fatalf("MinTokens %d: got %d ids", n, len(a.Tokens))
		}
	}
}

func testEOS(t *testing.T, s Subject) {
	s.needIDs(t)
	if !s.Card.Sampling || len(s.Card.EOS) == 0 {
		t.Skip("the card claims no sampling or no end-of-sequence id: the id cannot be brought about")
	}
	eos := s.Card.EOS[0]
	ask := func(ignore bool, least int) Answer {
		r := s.request(7, 5)
		r.IgnoreEOS, r.MinTokens = ignore, least
		r.Sampling.LogitBias = []dynamo.LogitBias{{ID: eos, Bias: 1e6}}
		return s.answer(t, r)
	}
	if a := ask(false, 0); a.Finish != dynamo.FinishStop || !slices.Equal(a.Tokens, []dynamo.TokenID{eos}) {
		t.Fatalf("got %v, ended by %v; want [%d] and stop", a.Tokens, a.Finish, eos)
	}
	if a := ask(true, 0); a.Finish != dynamo.FinishLength || !slices.Equal(a.Tokens, slices.Repeat([]dynamo.TokenID{eos}, 5)) {
		t.Fatalf("ignored: got %v, ended by %v; want five times %d and length", a.Tokens, a.Finish, eos)
	}
	a := ask(false, 4)
	if a.Finish != dynamo.FinishStop || len(a.Tokens) != 4 || slices.Index(a.Tokens, eos) != 3 {
		t.Fatalf("MinTokens 4: got %v, ended by %v; want three other ids, %d and stop", a.Tokens, a.Finish, eos)
	}
}

func testConcurrent(t *testing.T, s Subject) {
	const requests = 24
	ask := func(i int) *dynamo.Request {
		r := s.request(3+5*(i%8), 4+i%9)
		if s.Card.Sampling && i%2 == 1 {
			r.Sampling = dynamo.Sampling{Temperature: 1, TopP: 0.9, Seed: uint64(i), Seeded: true}
		}
		return r
	}
	var alone [requests]Answer
	for i := range alone {
		alone[i] = s.answer(t, ask(i))
	}
	var together [requests]Answer
	var errs [requests]error
	var all sync.WaitGroup
	for i := range together {
		all.Go(func() { together[i], errs[i] = Collect(t.Context(), s.Engine, ask(i)) })
	}
	all.Wait()
	for i := range together {
		if errs[i] != nil {
			t.Fatalf("request %d: %v", i, errs[i])
		}
		equal(t, "request "+strconv.Itoa(i)+" among others", together[i].Tokens, alone[i].Tokens)
	}
	s.idle(t)
}

func testSlowReader(t *testing.T, s Subject) {
	want := s.answer(t, s.request(9, answerIDs)).Tokens
	var got []dynamo.TokenID
	for chunk, err := range s.Engine.Generate(t.Context(), s.request(9, answerIDs)) {
		if err != nil {
			t.Fatal(err)
		}
		tokens := slices.Clone(chunk.Tokens)
		if len(got) == 0 {
			// The reader holds its chunk while others are served.
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if _, err := Collect(ctx, s.Engine, s.request(4, answerIDs)); err != nil {
				t.Fatalf("another request while a reader is slow: %v", err)
			}
			cancel()
			time.Sleep(20 * time.Millisecond)
			equal(t, "the chunk held meanwhile", chunk.Tokens, tokens)
		}
		got = append(got, chunk.Tokens...)
	}
	equal(t, "answer to a slow reader", got, want)
}

func testChoices(t *testing.T, s Subject) {
	r := s.request(20, answerIDs)
	if s.Card.Sampling {
		r.Sampling = dynamo.Sampling{Temperature: 1, Seed: 7, Seeded: true}
	}
	var want []Answer
	for r.Choice = range 4 {
		want = append(want, s.answer(t, r))
	}
	r.Choice, r.N = 0, 4
	got, err := CollectChoices(t.Context(), engine.Expand(s.Engine), r)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		equal(t, "choice "+strconv.Itoa(i), got[i].Tokens, want[i].Tokens)
	}
	s.idle(t)
	for stop := range 6 {
		for _, err := range engine.Expand(s.Engine).Generate(t.Context(), r) {
			if err != nil {
				t.Fatal(err)
			}
			if stop--; stop < 0 {
				break
			}
		}
		s.idle(t)
	}
}

func testResume(t *testing.T, s Subject) {
	if !s.Card.Resume {
		if s.Card.ResumeSeeded {
			t.Fatal("the card claims ResumeSeeded without Resume")
		}
		t.Skip("not claimed by the card")
	}
	samplings := []dynamo.Sampling{{}}
	if s.Card.Sampling {
		samplings = append(samplings, dynamo.Sampling{RepetitionPenalty: 1.2})
	}
	if s.Card.Sampling && s.Card.ResumeSeeded {
		samplings = append(samplings,
			dynamo.Sampling{PresencePenalty: 0.7, FrequencyPenalty: 0.5},
			dynamo.Sampling{Temperature: 1.2, TopK: 50, Seed: 3, Seeded: true, FrequencyPenalty: 0.5, RepetitionPenalty: 1.2})
	}
	for _, sampling := range samplings {
		r := s.request(12, answerIDs)
		r.Sampling = sampling
		whole := s.answer(t, r).Tokens
		for k := range answerIDs + 1 {
			r.Resume = whole[:k]
			a := s.answer(t, r)
			equal(t, "resumed after "+strconv.Itoa(k), a.Tokens, whole[k:])
			if a.Finish != dynamo.FinishLength {
				t.Fatalf("resumed after %d: ended by %v, want length", k, a.Finish)
			}
		}
		r.Resume, r.StopTokens = whole[:4], whole[3:4]
		if a := s.answer(t, r); len(a.Tokens) > 0 || a.Finish != dynamo.FinishStop {
			t.Fatalf("resumed after the stop id: got %v, ended by %v; want nothing and stop", a.Tokens, a.Finish)
		}
	}
}

func testSeed(t *testing.T, s Subject) {
	if !s.Card.Sampling {
		t.Skip("not claimed by the card")
	}
	ask := func(seed uint64, choice int) []dynamo.TokenID {
		r := s.request(6, 16)
		r.Choice = choice
		r.Sampling = dynamo.Sampling{Temperature: 1.5, Seed: seed, Seeded: true}
		return s.answer(t, r).Tokens
	}
	first := ask(1, 0)
	equal(t, "the same seed again", ask(1, 0), first)
	if slices.Equal(ask(2, 0), first) && slices.Equal(ask(3, 0), first) {
		t.Fatalf("three seeds draw the same ids: %v", first)
	}
	if slices.Equal(ask(1, 1), first) && slices.Equal(ask(1, 2), first) {
		t.Fatalf("three choices draw the same ids: %v", first)
	}
}

func testLogprobs(t *testing.T, s Subject) {
	if s.Card.MaxTopLogprobs < 0 {
		t.Skip("not claimed by the card")
	}
	plain := s.answer(t, s.request(7, answerIDs)).Tokens
	for _, top := range []int{0, 1, min(5, s.Card.MaxTopLogprobs), s.Card.MaxTopLogprobs} {
		r := s.request(7, answerIDs)
		r.Sampling.Logprobs, r.Sampling.TopLogprobs = true, top
		a := s.answer(t, r)
		equal(t, "with logprobs", a.Tokens, plain)
		for i, p := range a.Logprobs {
			if p.ID != a.Tokens[i] {
				t.Fatalf("logprob %d is of id %d, want %d", i, p.ID, a.Tokens[i])
			}
			checkLogprob(t, p, min(top, s.Card.VocabSize))
			if top > 0 && p.Top[0].Logprob != p.Logprob {
				t.Fatalf("greedy id has logprob %v, the best alternative %v", p.Logprob, p.Top[0].Logprob)
			}
		}
	}
}

func testPromptLogprobs(t *testing.T, s Subject) {
	if !s.Card.PromptLogprobs {
		t.Skip("not claimed by the card")
	}
	s.answer(t, s.request(40, answerIDs)) // fills the prefix cache, which such a request may not use
	for _, n := range []int{0, 1, answerIDs} {
		r := s.request(40, n)
		r.Sampling.PromptLogprobs, r.Sampling.TopLogprobs = true, 2
		a := s.answer(t, r)
		if len(a.PromptLogprobs) != len(r.Tokens) {
			t.Fatalf("got %d prompt logprobs, want %d", len(a.PromptLogprobs), len(r.Tokens))
		}
		for i, p := range a.PromptLogprobs {
			if p.ID != r.Tokens[i] {
				t.Fatalf("prompt logprob %d is of id %d, want %d", i, p.ID, r.Tokens[i])
			}
			if i == 0 {
				if !math.IsNaN(float64(p.Logprob)) {
					t.Fatalf("the first id has logprob %v, want NaN", p.Logprob)
				}
				continue
			}
			checkLogprob(t, p, min(2, s.Card.VocabSize))
		}
	}
}

func checkLogprob(t *testing.T, p dynamo.TokenLogprob, top int) {
	t.Helper()
	if !(p.Logprob <= 0) {
		t.Fatalf("logprob of id %d is %v, want 0 or less", p.ID, p.Logprob)
	}
	if len(p.Top) != top {
		t.Fatalf("got %d alternatives, want %d", len(p.Top), top)
	}
	sum := 0.0
	for i, a := range p.Top {
		if i > 0 && a.Logprob > p.Top[i-1].Logprob {
			t.Fatalf("alternatives are not in order: %v", p.Top)
		}
		if a.ID == p.ID && a.Logprob != p.Logprob {
			t.Fatalf("id %d has logprob %v and, as an alternative, %v", p.ID, p.Logprob, a.Logprob)
		}
		sum += math.Exp(float64(a.Logprob))
	}
	if sum > 1.0001 {
		t.Fatalf("the alternatives' probabilities sum to %v", sum)
	}
}
