package engine_test

import (
	"context"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

func TestCheck(t *testing.T) {
	card := engine.Card{Model: "m", ContextLength: 100, VocabSize: 50, MaxTopLogprobs: 5, PromptLogprobs: true, Sampling: true, Resume: true,
		Guided: []dynamo.GuidedKind{dynamo.GuidedJSONSchema, dynamo.GuidedJSONObject, dynamo.GuidedRegex, dynamo.GuidedChoice}}
	ids := func(n int) []dynamo.TokenID { return slices.Repeat([]dynamo.TokenID{49}, n) }
	for _, c := range []struct {
		name   string
		change func(*dynamo.Request, *engine.Card)
		param  string // of the error; empty: accepted
		says   string
	}{
		{"plain", func(*dynamo.Request, *engine.Card) {}, "", ""},
		{"n", func(r *dynamo.Request, _ *engine.Card) { r.N = 2 }, "n", "2"},
		{"empty", func(r *dynamo.Request, _ *engine.Card) { r.Tokens = nil }, "prompt", "empty"},
		{"fills the context", func(r *dynamo.Request, _ *engine.Card) { r.Tokens = ids(99) }, "", ""},
		{"leaves no room", func(r *dynamo.Request, _ *engine.Card) { r.Tokens = ids(100) }, "prompt", "100"},
		{"needs no room", func(r *dynamo.Request, _ *engine.Card) { r.Tokens, r.MaxTokens = ids(100), 0 }, "", ""},
		{"resumed to the end", func(r *dynamo.Request, _ *engine.Card) { r.Tokens, r.Resume, r.MaxTokens = ids(90), ids(10), 50 }, "", ""},
		{"too long", func(r *dynamo.Request, _ *engine.Card) { r.Tokens = ids(1234) }, "prompt", "1234"},
		{"id", func(r *dynamo.Request, _ *engine.Card) { r.Tokens = []dynamo.TokenID{1, 50} }, "prompt", "prompt[1] is token id 50"},
		{"resumed id", func(r *dynamo.Request, _ *engine.Card) { r.Resume = []dynamo.TokenID{math.MaxUint32} }, "resume", "4294967295"},
		{"no resume", func(r *dynamo.Request, c *engine.Card) { r.Resume, c.Resume = ids(1), false }, "resume", "m"},
		{"prefill", func(r *dynamo.Request, c *engine.Card) { r.Prefill, c.Role = true, engine.RolePrefill }, "", ""},
		{"prefill elsewhere", func(r *dynamo.Request, c *engine.Card) { r.Prefill, c.Role = true, engine.RoleDecode }, "prefill", "whole requests"},
		{"handover", func(r *dynamo.Request, _ *engine.Card) { r.Handover = make([]byte, engine.MaxHandoverBytes) }, "", ""},
		{"huge handover", func(r *dynamo.Request, _ *engine.Card) { r.Handover = make([]byte, engine.MaxHandoverBytes+1) }, "handover", "262145"},
		{"max_tokens", func(r *dynamo.Request, _ *engine.Card) { r.MaxTokens = -1 }, "max_tokens", "-1"},
		{"temperature", func(r *dynamo.Request, _ *engine.Card) { r.Sampling.Temperature = float32(math.NaN()) }, "temperature", "NaN"},
		{"top_p", func(r *dynamo.Request, _ *engine.Card) { r.Sampling.TopP = 1.25 }, "top_p", "between 0 and 1"},
		{"frequency_penalty", func(r *dynamo.Request, _ *engine.Card) { r.Sampling.FrequencyPenalty = float32(math.Inf(-1)) }, "frequency_penalty", "finite"},
		{"negative penalty", func(r *dynamo.Request, _ *engine.Card) { r.Sampling.FrequencyPenalty = -2 }, "", ""},
		{"alternatives", func(r *dynamo.Request, _ *engine.Card) { r.Sampling.TopLogprobs = 6 }, "top_logprobs", "at most 5"},
		{"no logprobs", func(r *dynamo.Request, c *engine.Card) { r.Sampling.Logprobs, c.MaxTopLogprobs = true, -1 }, "logprobs", "no logprobs"},
		{"restricted", func(r *dynamo.Request, c *engine.Card) { r.Guided, c.Guided = dynamo.Guided{Kind: "json_object"}, nil }, "guided", "not supported by the engine of model m"},
		{"restricted otherwise", func(r *dynamo.Request, _ *engine.Card) { r.Guided = dynamo.Guided{Kind: "grammar", Value: "g"} }, "guided", "grammar"},
		{"restricted without a kind", func(r *dynamo.Request, _ *engine.Card) { r.Guided.Value = "g" }, "guided", "not supported"},
		{"object", func(r *dynamo.Request, _ *engine.Card) { r.Guided.Kind = "json_object" }, "", ""},
		{"object with a value", func(r *dynamo.Request, _ *engine.Card) { r.Guided = dynamo.Guided{Kind: "json_object", Value: "{}"} }, "guided", "no value"},
		{"schema", func(r *dynamo.Request, _ *engine.Card) {
			r.Guided = dynamo.Guided{Kind: "json_schema", Value: ` {"a": [1]}`}
		}, "", ""},
		{"schema that is none", func(r *dynamo.Request, _ *engine.Card) { r.Guided = dynamo.Guided{Kind: "json_schema", Value: `[]`} }, "guided", "no JSON object"},
		{"schema that goes on", func(r *dynamo.Request, _ *engine.Card) {
			r.Guided = dynamo.Guided{Kind: "json_schema", Value: `{}},"x":{`}
		}, "guided", "no JSON object"},
		{"choice", func(r *dynamo.Request, _ *engine.Card) { r.Guided = dynamo.Guided{Kind: "choice", Value: `["a", ""]`} }, "", ""},
		{"choice of nothing", func(r *dynamo.Request, _ *engine.Card) { r.Guided = dynamo.Guided{Kind: "choice", Value: `[]`} }, "guided", "array of strings"},
		{"choice of numbers", func(r *dynamo.Request, _ *engine.Card) { r.Guided = dynamo.Guided{Kind: "choice", Value: `["a",1]`} }, "guided", "array of strings"},
		{"choice that goes on", func(r *dynamo.Request, _ *engine.Card) {
			r.Guided = dynamo.Guided{Kind: "choice", Value: `["a"],"x":[1]`}
		}, "guided", "array of strings"},
		{"choice without end", func(r *dynamo.Request, _ *engine.Card) { r.Guided = dynamo.Guided{Kind: "choice", Value: `["a"`} }, "guided", "array of strings"},
		{"empty regex", func(r *dynamo.Request, _ *engine.Card) { r.Guided.Kind = "regex" }, "guided", "empty"},
		{"huge regex", func(r *dynamo.Request, _ *engine.Card) {
			r.Guided = dynamo.Guided{Kind: "regex", Value: strings.Repeat("a", engine.MaxGuidedBytes+1)}
		}, "guided", "at most"},
		{"no prompt logprobs", func(r *dynamo.Request, c *engine.Card) { r.Sampling.PromptLogprobs, c.PromptLogprobs = true, false }, "prompt_logprobs", "no prompt"},
	} {
		r, own := &dynamo.Request{Tokens: ids(3), MaxTokens: 5}, card
		c.change(r, &own)
		err := engine.Check(&own, r)
		if c.param == "" {
			if err != nil {
				t.Errorf("%s: got %v", c.name, err)
			}
			continue
		}
		if e := wantKind(t, err, dynamo.KindInvalid); e.Param != c.param || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: got param %q, %q; want %q and %q in it", c.name, e.Param, e.Message, c.param, c.says)
		}
	}
}

func TestRoom(t *testing.T) {
	card := &engine.Card{ContextLength: 100}
	for _, c := range []struct{ prompt, resume, most, want int }{
		{10, 0, 5, 5}, {10, 3, 5, 2}, {10, 9, 5, 0}, {98, 0, 50, 2}, {90, 4, 50, 6}, {90, 10, 50, 0}, {100, 0, 0, 0}, {1, 0, math.MaxInt, 99},
	} {
		r := &dynamo.Request{Tokens: make([]dynamo.TokenID, c.prompt), Resume: make([]dynamo.TokenID, c.resume), MaxTokens: c.most}
		if got := engine.Room(card, r); got != c.want {
			t.Errorf("%+v: got %d", c, got)
		}
	}
}

func TestContextError(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	caused, because := context.WithCancelCause(t.Context())
	because(&dynamo.Error{Kind: dynamo.KindUnavailable, Message: "stopping"})
	late, done := context.WithTimeout(t.Context(), 0)
	defer done()
	<-late.Done()
	for _, c := range []struct {
		ctx  context.Context
		want dynamo.Kind
	}{{cancelled, dynamo.KindCancelled}, {caused, dynamo.KindUnavailable}, {late, dynamo.KindDeadline}} {
		wantKind(t, engine.ContextError(c.ctx), c.want)
	}
}
