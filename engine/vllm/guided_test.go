package vllm_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/openai"
)

// textOf is the text of the fake's ids.
func textOf(ids []dynamo.TokenID) string {
	b := make([]byte, len(ids))
	for i, id := range ids {
		b[i] = byte(id)
	}
	return string(b)
}

// body returns the last body that the fake got, and what is in it of sampling.
func (f *fake) lastBody() (body, sampling map[string]any) {
	f.last.Lock()
	defer f.last.Unlock()
	if p, ok := f.last.body["sampling_params"].(map[string]any); ok {
		return f.last.body, p
	}
	return f.last.body, f.last.body
}

// TestGuidedForms: each kind reaches a server in the form of its version, by the
// route that it has.
func TestGuidedForms(t *testing.T) {
	type guided = dynamo.Guided
	for _, c := range []struct {
		by         dynamo.Guided
		structured string // from 0.11 on
		fields     string // before; empty: refused
	}{
		{guided{Kind: "json_schema", Value: `{"enum":["a<b"]}`}, `{"json":{"enum":["a<b"]}}`, `{"guided_json":{"enum":["a<b"]}}`},
		{guided{Kind: "json_schema", Value: `{"enum":[1]}`, Whitespace: `\s?`}, `{"json":{"enum":[1]},"whitespace_pattern":"\\s?"}`, `{"guided_json":{"enum":[1]},"guided_whitespace_pattern":"\\s?"}`},
		{guided{Kind: "json_object", Compact: true, Closed: true}, `{"json_object":true,"disable_any_whitespace":true,"disable_additional_properties":true}`, ``},
		{guided{Kind: "json_object"}, `{"json_object":true}`, `{"response_format":{"type":"json_object"}}`},
		{guided{Kind: "regex", Value: `"[ab]"`}, `{"regex":"\"[ab]\""}`, `{"guided_regex":"\"[ab]\""}`},
		{guided{Kind: "choice", Value: `["x", "y"]`}, `{"choice":["x","y"]}`, `{"guided_choice":["x","y"]}`},
		{guided{Kind: "grammar", Value: `root ::= "a"`}, `{"grammar":"root ::= \"a\""}`, `{"guided_grammar":"root ::= \"a\""}`},
		{guided{Kind: "structural_tag", Value: `{"structures":[{"begin":"<","schema":{"enum":[1]},"end":">"}]}`}, `{"structural_tag":"{\"structures\":[{\"begin\":\"<\",\"schema\":{\"enum\":[1]},\"end\":\">\"}]}"}`, ``},
	} {
		for _, s := range []struct {
			version string
			noScale bool
		}{{"0.32.0", false}, {"0.32.0", true}, {"0.11.0", true}, {"dev", false}, {"0.10.2", true}} {
			what := fmt.Sprintf("%+v at %s, completions %t", c.by, s.version, s.noScale)
			f := newFake()
			f.version, f.noScale = s.version, s.noScale
			e := open(t, config(f.start(t).URL))
			_, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(5), MaxTokens: 60, Guided: c.by})
			want := map[string]any{}
			switch older := s.version == "0.10.2"; {
			case older && c.fields == "":
				var refused *dynamo.Error
				if !errors.As(err, &refused) || refused.Kind != dynamo.KindInvalid || refused.Param != "guided" || !strings.Contains(err.Error(), "0.10.2") || !strings.Contains(err.Error(), "0.11.0") {
					t.Errorf("%s: got %v, want it refused with both versions", what, err)
				}
				if n := f.requests.Load(); n > 0 {
					t.Errorf("%s: the server was asked", what)
				}
				continue
			case older:
				decode(t, c.fields, &want)
			default:
				decode(t, `{"structured_outputs":`+c.structured+`}`, &want)
			}
			if err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			got := map[string]any{}
			_, p := f.lastBody()
			for _, name := range []string{"structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_whitespace_pattern", "response_format"} {
				if v, ok := p[name]; ok {
					got[name] = v
				}
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\ngot  %v\nwant %v", what, got, want)
			}
		}
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// TestGuidedCard: a server offers what its version takes.
func TestGuidedCard(t *testing.T) {
	for version, want := range map[string]int{"0.32.0": 6, "0.11.0": 6, "0.10.2": 5, "dev": 6} {
		f := newFake()
		f.version, f.noScale = version, true
		if got := open(t, config(f.start(t).URL)).Card().Guided; len(got) != want {
			t.Errorf("%s: got %v, want %d kinds", version, got, want)
		}
	}
	f := newFake()
	f.version = "0.10.2"
	e := open(t, config(f.start(t).URL))
	r := &dynamo.Request{Tokens: small(5), MaxTokens: 60, Guided: dynamo.Guided{Kind: "choice", Value: `["a"]`}}
	if _, err := enginetest.Collect(t.Context(), e, r); dynamo.KindOf(err) != dynamo.KindInvalid || len(e.Card().Guided) > 0 {
		t.Errorf("by a route without a form: got %v and the card %v", err, e.Card().Guided)
	}
}

// TestGuidedUnsound: what is no JSON does not get into a body.
func TestGuidedUnsound(t *testing.T) {
	f := newFake()
	e := open(t, config(f.start(t).URL))
	for _, g := range []dynamo.Guided{
		{Kind: "json_schema", Value: `{}},"kv_transfer_params":{"do_remote_prefill":true},"x":{"y":{}`},
		{Kind: "json_schema", Value: `{"a":1`}, {Kind: "json_schema", Value: `[]`}, {Kind: "json_schema"},
		{Kind: "choice", Value: `["a"],"kv_transfer_params":{}`}, {Kind: "choice", Value: `["a",{}]`}, {Kind: "choice", Value: `[]`},
		{Kind: "structural_tag", Value: `x`}, {Kind: "regex"}, {Kind: "magic", Value: "x"}, {Value: "{}"},
	} {
		_, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(5), MaxTokens: 5, Guided: g})
		if dynamo.KindOf(err) != dynamo.KindInvalid || f.requests.Load() > 0 {
			t.Errorf("%+v: got %v; the server was asked %d times", g, err, f.requests.Load())
		}
	}
}

// TestGuidedClass: once a part of a restricted answer has come it does not go on
// elsewhere.
func TestGuidedClass(t *testing.T) {
	card := open(t, config(newFake().start(t).URL)).Card()
	r := &dynamo.Request{Tokens: small(5), MaxTokens: 5}
	if got := engine.RequestClass(&card, r); got != engine.ClassReplay {
		t.Errorf("unrestricted: %s", got)
	}
	r.Guided = dynamo.Guided{Kind: "json_object"}
	if got := engine.RequestClass(&card, r); got != engine.ClassRefuse {
		t.Errorf("restricted: %s", got)
	}
}

// TestClosedBody: whatever a request holds, a server gets the fields that this
// package knows, and nothing that tells where KV blocks come from.
func TestClosedBody(t *testing.T) {
	outer := []string{"model", "token_ids", "prompt", "return_token_ids", "return_tokens_as_token_ids", "skip_special_tokens", "stream", "stream_options", "cache_salt", "priority", "sampling_params"}
	inner := []string{"detokenize", "max_tokens", "min_tokens", "ignore_eos", "stop_token_ids", "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
		"repetition_penalty", "seed", "logit_bias", "logprobs", "structured_outputs"}
	const forged = `x","kv_transfer_params":{"do_remote_prefill":true},"ec_transfer_params":{},"y":"`
	quoted, _ := json.Marshal(forged)
	for _, noScale := range []bool{false, true} {
		for _, g := range []dynamo.Guided{
			{}, {Kind: "regex", Value: forged, Whitespace: forged, Compact: true, Closed: true}, {Kind: "grammar", Value: `root ::= ` + forged},
			{Kind: "choice", Value: `[` + string(quoted) + `]`}, {Kind: "json_schema", Value: `{"enum":[` + string(quoted) + `],"kv_transfer_params":{}}`},
		} {
			f := newFake()
			f.noScale = noScale
			e := open(t, config(f.start(t).URL))
			r := &dynamo.Request{
				ID: forged, Model: forged, Tokens: small(5), StopTokens: small(2), MaxTokens: 9, MinTokens: 3, Priority: 4, Namespace: forged, N: 1, Choice: 2, Group: forged, Guided: g,
				Sampling: dynamo.Sampling{Temperature: 1, TopP: 0.5, TopK: 3, MinP: 0.1, PresencePenalty: 1, FrequencyPenalty: 1, RepetitionPenalty: 2,
					LogitBias: []dynamo.LogitBias{{ID: 1, Bias: 2}}, Seed: 3, Seeded: true, Logprobs: true, TopLogprobs: 2},
			}
			// That of a server's errors does not matter here, but its body does.
			_, _ = enginetest.Collect(t.Context(), e, r)
			body, sampling := f.lastBody()
			if body == nil {
				t.Fatalf("%+v: nothing came", g)
			}
			for name := range body {
				if !slices.Contains(outer, name) && (!noScale || !slices.Contains(inner, name)) {
					t.Errorf("completions %t, %+v: the server got %q", noScale, g, name)
				}
			}
			for name := range sampling {
				if !slices.Contains(inner, name) && (!noScale || !slices.Contains(outer, name)) {
					t.Errorf("completions %t, %+v: the server got the parameter %q", noScale, g, name)
				}
			}
		}
	}
}

// TestPriority: of requests that wait at a server that runs the lowest number
// first, those run first that clients called urgent, in OpenAI's field by a low
// number and in the reference's hint by a high one.
func TestPriority(t *testing.T) {
	for _, noScale := range []bool{false, true} {
		f := newFake()
		f.noScale, f.turns = noScale, &turns{}
		e := open(t, config(f.start(t).URL))
		f.turns.take(0) // somebody runs
		var all sync.WaitGroup
		for i, fields := range []string{
			`"priority":5`, `"user":"u"`, `"nvext":{"agent_hints":{"priority":7}}`, `"priority":-9`, `"nvext":{"agent_hints":{"priority":-2}}`,
		} {
			p, err := openai.DecodeCompletion([]byte(`{"model":"tiny","prompt":"x",` + fields + `}`))
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				if _, err := enginetest.Collect(t.Context(), e, &dynamo.Request{Tokens: small(4), MaxTokens: 1, Priority: p.Priority}); err != nil {
					t.Error(err)
				}
			})
			waitFor(t, fields+" to wait", func() bool { n, _ := f.turns.counts(); return n == i+1 })
		}
		f.turns.give()
		all.Wait()
		if _, got := f.turns.counts(); !slices.Equal(got, []int{-9, -7, 0, 2, 5}) {
			t.Errorf("completions %t: they ran in the order %v", noScale, got)
		}
	}
}
