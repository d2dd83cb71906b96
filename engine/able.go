package engine

import (
	"cmp"
	"slices"

	"github.com/dynamo-go/dynamo"
)

// Able says whether an engine with card c offers what r asks for: nil, or the
// error of Check that says what it lacks. Engines of the same weights differ in
// that, and whoever stands in front of several asks it of each. It looks at no
// single id and reads no schema, so it is cheap, and Check may still refuse.
// Adapters it leaves out: they come and go while the card stays.
func Able(c *Card, r *dynamo.Request) error {
	if err := checkLength(c, r); err != nil {
		return err
	}
	if err := checkSampling(c, &r.Sampling); err != nil {
		return err
	}
	if r.Guided != (dynamo.Guided{}) && !slices.Contains(c.Guided, r.Guided.Kind) {
		return checkGuided(c, &r.Guided)
	}
	return nil
}

// GoesOn says whether an answer that an engine with card from began may go on at
// one with card to, where both have the same weights; nil: no part of it has come.
//
// A greedy answer goes on exactly where the arithmetic is the same, and elsewhere as
// that engine would have gone on. Draws that a client's seed decides are another
// engine's own affair: they go on only in the same arithmetic.
func GoesOn(from, to *Card, r *dynamo.Request) bool {
	if from == nil {
		return true
	}
	if RequestClass(to, r) != ClassReplay {
		return false
	}
	return !seeded(r) || from.ResumeSeeded && SameArithmetic(from, to)
}

// SameArithmetic says whether engines of the same weights compute the same: equal
// requests get equal ids.
func SameArithmetic(a, b *Card) bool {
	return a.Engine == b.Engine && a.NumericClass == b.NumericClass && a.Revision == b.Revision
}

// seeded says whether a client's seed decides about the answer.
func seeded(r *dynamo.Request) bool { return r.Sampling.Temperature > 0 && r.Sampling.Seeded }

// Union is the card of a name that engines of the same weights serve together: what
// one of them can do, the name can. Ids are those that all of them know; engine,
// revision, class and block size are the first one's; it has no role. At least one
// card is needed.
func Union(cards ...*Card) Card {
	u := *cards[0]
	u.Role = ""
	u.EOS, u.Guided, u.Adapters = slices.Clone(u.EOS), slices.Clone(u.Guided), slices.Clone(u.Adapters)
	for _, c := range cards[1:] {
		u.ContextLength = max(u.ContextLength, c.ContextLength)
		u.VocabSize = min(u.VocabSize, c.VocabSize)
		u.MaxTopLogprobs = max(u.MaxTopLogprobs, c.MaxTopLogprobs)
		u.PromptLogprobs = u.PromptLogprobs || c.PromptLogprobs
		u.Sampling = u.Sampling || c.Sampling
		u.Resume = u.Resume || c.Resume
		u.ResumeSeeded = u.ResumeSeeded || c.ResumeSeeded
		u.EOS, u.Guided, u.Adapters = append(u.EOS, c.EOS...), append(u.Guided, c.Guided...), append(u.Adapters, c.Adapters...)
	}
	if len(cards) > 1 {
		u.EOS, u.Guided, u.Adapters = distinct(u.EOS), distinct(u.Guided), distinct(u.Adapters)
	}
	return u
}

// distinct sorts list and drops what is there twice.
func distinct[T cmp.Ordered](list []T) []T {
	slices.Sort(list)
	return slices.Compact(list)
}
