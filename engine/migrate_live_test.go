package engine_test

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/obs"
)

// leaver is an engine of whose workers those of the first attempts leave after so many
// ids: they say where the KV is, and keep it while their sequence is not ended.
type leaver struct {
	*hashed
	leaves func(attempt, generated int) bool
	kept   *int // how many keep KV just now
	events *[]string
}

func (l leaver) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		note := func(format string, args ...any) { *l.events = append(*l.events, fmt.Sprintf(format, args...)) }
		l.mu.Lock()
		attempt := l.mu.attempts[r.ID]
		l.mu.Unlock()
		if want := fmt.Sprint(attempt - 1); len(r.Handover) > 0 && (string(r.Handover) != want || *l.kept != 1) {
			note("attempt %d is told of %q while %d keep KV", attempt, r.Handover, *l.kept)
		}
		generated, first := len(r.Resume), true
		for chunk, err := range l.hashed.Generate(ctx, r) {
			if generated += len(chunk.Tokens); err == nil && chunk.Finish == dynamo.FinishNone && l.leaves(attempt, generated) {
				chunk.Handover = []byte(fmt.Sprint(attempt))
				*l.kept++
				if yield(chunk, nil) {
					note("attempt %d is asked for more after it has left", attempt)
					yield(dynamo.Chunk{}, lostError(engine.CodeDraining))
				}
				*l.kept--
				note("%d lets go", attempt)
				return
			}
			if first {
				first = false
				note("%d begins", attempt)
			}
			if !yield(chunk, err) {
				return
			}
		}
	}
}

// TestMigrateLive: an answer whose worker leaves with its KV goes on at another while the
// first one keeps it, and is what it would have been.
func TestMigrateLive(t *testing.T) {
	for name, r := range shapes() {
		want, err := enginetest.Collect(t.Context(), newHashed(2, true, nil), &r)
		if err != nil {
			t.Fatal(err)
		}
		for at := range len(want.Tokens) + 1 {
			kept, events, registry := 0, []string(nil), obs.NewRegistry()
			l := leaver{newHashed(2, true, nil), func(attempt, generated int) bool { return attempt < 2 && generated >= at*(attempt+1) }, &kept, &events}
			m := migrate(t, l, func(c *engine.MigrateConfig) { c.Metrics = engine.NewMigrateMetrics(registry) })
			got, err := enginetest.Collect(t.Context(), m, &r)
			if err != nil {
				t.Fatalf("%s, left after %d ids: %v", name, at, err)
			}
			got.Cached, got.Usage.Cached = want.Cached, want.Usage.Cached
			same(t, fmt.Sprintf("%s, left after %d ids", name, at), got, want)
			if kept != 0 || strings.Contains(fmt.Sprint(events), "attempt") {
				t.Errorf("%s, left after %d ids: %d keep KV; %q", name, at, kept, events)
			}
			if i := slices.Index(events, "0 lets go"); i >= 0 && len(l.mu.asked) > 1 && !slices.Contains(events[:i], "1 begins") && !slices.Contains(events, "1 lets go") {
				t.Errorf("%s, left after %d ids: let go before another began: %q", name, at, events)
			}
			if n := len(l.mu.asked); n > 1 && !strings.Contains(scrape(t, registry), `dynamo_engine_migrated_requests_total{class="live",outcome="completed"} 1`) {
				t.Errorf("%s, left after %d ids: %d attempts, and not counted as live", name, at, n)
			}
		}
	}
}

// TestMigrateLiveNot: where a request must not go on elsewhere, or too often, a worker that
// leaves is its failure; and where the next worker fails at once a third one is asked, which
// knows of no KV.
func TestMigrateLiveNot(t *testing.T) {
	r := dynamo.Request{ID: "r", Tokens: []dynamo.TokenID{4, 5, 6, 7}, MaxTokens: 12, IgnoreEOS: true}
	leaves := func(attempt, generated int) bool { return generated >= 3*(attempt+1) }
	for _, limit := range []int{0, 1} {
		kept, events := 0, []string(nil)
		l := leaver{newHashed(1, true, nil), leaves, &kept, &events}
		_, err := enginetest.Collect(t.Context(), migrate(t, l, func(c *engine.MigrateConfig) { c.Limit = limit }), &r)
		if dynamo.KindOf(err) != dynamo.KindUnavailable || kept != 0 || len(l.mu.asked) != limit+1 {
			t.Errorf("limit %d: got %v after %d attempts, %d keep KV", limit, err, len(l.mu.asked), kept)
		}
	}
	kept, events := 0, []string(nil)
	h := newHashed(1, true, func(attempt int, _ *dynamo.Request, _ int) error {
		if attempt == 1 {
			return lostError(engine.CodeLost)
		}
		return nil
	})
	l := leaver{h, func(attempt, generated int) bool { return attempt == 0 && generated >= 4 }, &kept, &events}
	got, err := enginetest.Collect(t.Context(), migrate(t, l, unchanged), &r)
	want, _ := enginetest.Collect(t.Context(), newHashed(1, true, nil), &r)
	if err != nil || !slices.Equal(got.Tokens, want.Tokens) || kept != 0 || len(h.mu.asked) != 3 || h.mu.asked[2].Handover != nil {
		t.Errorf("got %v, %v after %d attempts, %d keep KV, want %v after 3", got.Tokens, err, len(h.mu.asked), kept, want.Tokens)
	}
	// A caller that goes away meanwhile ends both.
	for n := range 12 {
		l := leaver{newHashed(1, true, nil), func(attempt, generated int) bool { return attempt == 0 && generated >= 4 }, &kept, &events}
		seen := 0
		for range migrate(t, l, unchanged).Generate(t.Context(), &r) {
			if seen++; seen > n {
				break
			}
		}
		if kept != 0 {
			t.Errorf("%d keep KV after the caller left after %d chunks", kept, n)
		}
	}
}
