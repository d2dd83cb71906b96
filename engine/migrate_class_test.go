package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/obs"
)

// TestMigrateClass: which requests go on once a part of the answer has come, by
// what the engine's card claims; and that each goes elsewhere before.
func TestMigrateClass(t *testing.T) {
	cards := map[string]func(*engine.Card){
		engine.ClassReplay:         func(*engine.Card) {},
		engine.ClassReplayUnseeded: func(c *engine.Card) { c.ResumeSeeded = false },
		engine.ClassRefuse:         func(c *engine.Card) { c.Resume, c.ResumeSeeded = false, false },
		"text":                     func(c *engine.Card) { c.TextOnly = true },
	}
	sampled := dynamo.Sampling{Temperature: 0.7, Seed: 5}
	with := func(s dynamo.Sampling, change func(*dynamo.Sampling)) dynamo.Sampling { change(&s); return s }
	seeded := with(sampled, func(s *dynamo.Sampling) { s.Seeded = true })
	for _, c := range []struct {
		name     string
		sampling dynamo.Sampling
		unseeded string // the class at an engine without ResumeSeeded
		guided   dynamo.GuidedKind
	}{
		{"greedy", dynamo.Sampling{}, engine.ClassReplay, ""},
		{"greedy with a seed", dynamo.Sampling{Seed: 3, Seeded: true}, engine.ClassReplay, ""},
		{"greedy with the repetition penalty", dynamo.Sampling{RepetitionPenalty: 1.3}, engine.ClassReplay, ""},
		{"greedy with the presence penalty", dynamo.Sampling{PresencePenalty: 0.5}, engine.ClassRefuse, ""},
		{"greedy with a negative frequency penalty", dynamo.Sampling{FrequencyPenalty: -0.5}, engine.ClassRefuse, ""},
		{"sampled", sampled, engine.ClassReplay, ""},
		{"sampled with filters", with(sampled, func(s *dynamo.Sampling) { s.TopK, s.TopP, s.MinP = 5, 0.9, 0.1 }), engine.ClassReplay, ""},
		{"sampled with the frequency penalty", with(sampled, func(s *dynamo.Sampling) { s.FrequencyPenalty = 1 }), engine.ClassRefuse, ""},
		{"seeded", seeded, engine.ClassRefuse, ""},
		{"seeded with the repetition penalty", with(seeded, func(s *dynamo.Sampling) { s.RepetitionPenalty = 1.3 }), engine.ClassRefuse, ""},
		{"greedy and restricted", dynamo.Sampling{}, engine.ClassRefuse, dynamo.GuidedJSONObject},
		{"sampled and restricted", sampled, engine.ClassRefuse, dynamo.GuidedJSONObject},
	} {
		r := shapes()["greedy"]
		r.Sampling, r.Guided.Kind = c.sampling, c.guided
		for card, change := range cards {
			want := map[string]string{engine.ClassReplay: engine.ClassReplay, engine.ClassReplayUnseeded: c.unseeded}[card]
			if want == "" {
				want = engine.ClassRefuse
			}
			claims := hashedCard
			change(&claims)
			if got := engine.RequestClass(&claims, &r); got != want {
				t.Errorf("%s, card %s: class %q, want %q", c.name, card, got, want)
			}
			for _, at := range []int{0, 1, 7} {
				migrateClass(t, fmt.Sprintf("%s, card %s, lost after %d", c.name, card, at), claims, &r, at, want)
			}
		}
	}
}

// migrateClass loses r's worker after so many ids and looks at what becomes of it.
func migrateClass(t *testing.T, what string, card engine.Card, r *dynamo.Request, at int, class string) {
	t.Helper()
	h := newHashed(1, false, func(attempt int, _ *dynamo.Request, generated int) error {
		if attempt == 0 && generated == at {
			return lostError(engine.CodeLost)
		}
		return nil
	})
	h.card.Guided = []dynamo.GuidedKind{dynamo.GuidedJSONObject}
	registry := obs.NewRegistry()
	m := migrate(t, h, func(c *engine.MigrateConfig) { c.Card, c.Metrics = card, engine.NewMigrateMetrics(registry) })
	a, err := enginetest.Collect(t.Context(), m, r)
	outcome, ids, attempts := "completed", r.MaxTokens, 2
	if at > 0 && class == engine.ClassRefuse {
		outcome, ids, attempts = "refused", at, 1
	}
	if _, lost := engine.Lost(err); lost != (outcome == "refused") || err != nil && !lost || len(a.Tokens) != ids || len(h.mu.asked) != attempts {
		t.Errorf("%s: got %d ids of %d attempts and the error %v; want %d of %d", what, len(a.Tokens), len(h.mu.asked), err, ids, attempts)
	}
	count := fmt.Sprintf(`dynamo_engine_migrated_requests_total{class="%s",outcome="%s"} 1`, class, outcome)
	if got := scrape(t, registry); !strings.Contains(got, count) {
		t.Errorf("%s: the metrics lack %s:\n%s", what, count, got)
	}
}

// TestMigrateRefusedComplete: an answer that lacks only the word of its end is
// complete in every class.
func TestMigrateRefusedComplete(t *testing.T) {
	r := shapes()["seeded"]
	h := newHashed(1, true, func(_ int, _ *dynamo.Request, generated int) error {
		if generated == r.MaxTokens {
			return lostError(engine.CodeLost)
		}
		return nil
	})
	a, err := enginetest.Collect(t.Context(), migrate(t, h, func(c *engine.MigrateConfig) { c.Card.ResumeSeeded = false }), &r)
	if err != nil || len(a.Tokens) != r.MaxTokens || a.Finish != dynamo.FinishLength {
		t.Errorf("got %+v, error %v", a, err)
	}
}
