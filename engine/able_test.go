package engine_test

import (
	"context"
	"iter"
	"reflect"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
)

// weakCard is another engine of the weights of hashedCard, which can do less.
var weakCard = engine.Card{
	Model: "hashed", Engine: "weak", NumericClass: "other", ContextLength: 20, VocabSize: 16, EOS: []dynamo.TokenID{3, 5},
	MaxTopLogprobs: -1, Resume: true, Guided: []dynamo.GuidedKind{dynamo.GuidedRegex},
}

// Able and Check agree on what an engine lacks, whatever the request is.
func TestAble(t *testing.T) {
	for name, r := range shapes() {
		for _, restricted := range []bool{false, true} {
			if restricted {
				r.Guided = dynamo.Guided{Kind: dynamo.GuidedRegex, Value: "a"}
			}
			for _, c := range []engine.Card{hashedCard, weakCard} {
				able, check := engine.Able(&c, &r), engine.Check(&c, &r)
				if (able == nil) != (check == nil) || able != nil && able.Error() != check.Error() {
					t.Errorf("%s, restricted %t, card %s: Able says %v, Check %v", name, restricted, c.Engine, able, check)
				}
			}
		}
	}
	outside := dynamo.Request{Tokens: []dynamo.TokenID{99}, MaxTokens: 1, Adapter: "nobody's"}
	if err := engine.Able(&hashedCard, &outside); err != nil {
		t.Errorf("ids and adapters are not its business: %v", err)
	}
}

func TestGoesOn(t *testing.T) {
	greedy, seeded, penalty := dynamo.Sampling{}, dynamo.Sampling{Temperature: 1, Seeded: true}, dynamo.Sampling{PresencePenalty: 1}
	strong, other := hashedCard, hashedCard
	other.NumericClass = "other"
	text := hashedCard
	text.TextOnly = true
	for _, c := range []struct {
		name     string
		from, to *engine.Card
		sampling dynamo.Sampling
		want     bool
	}{
		{"nothing has come", nil, &weakCard, seeded, true},
		{"greedy, same", &strong, &strong, greedy, true},
		{"greedy, other arithmetic", &strong, &other, greedy, true},
		{"greedy, other engine", &weakCard, &strong, greedy, true},
		{"seeded, same", &strong, &strong, seeded, true},
		{"seeded, other arithmetic", &strong, &other, seeded, false},
		{"seeded, back to who cannot", &strong, &weakCard, seeded, false},
		{"seeded, from who draws otherwise", &weakCard, &strong, seeded, false},
		{"seeded, where nobody resumes draws", &weakCard, &weakCard, seeded, false},
		{"penalty, to who sees the ids", &weakCard, &strong, penalty, true},
		{"penalty, to who does not", &strong, &weakCard, penalty, false},
		{"to text", &strong, &text, greedy, false},
	} {
		if got := engine.GoesOn(c.from, c.to, &dynamo.Request{Sampling: c.sampling}); got != c.want {
			t.Errorf("%s: got %t, want %t", c.name, got, c.want)
		}
	}
}

func TestUnion(t *testing.T) {
	a, b := hashedCard, weakCard
	a.Adapters, b.Adapters, b.VocabSize = []string{"y"}, []string{"x", "y"}, 12
	want := hashedCard
	want.EOS, want.Adapters, want.Guided, want.VocabSize = []dynamo.TokenID{3, 5}, []string{"x", "y"}, b.Guided, 12
	if got := engine.Union(&a, &b); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := engine.Union(&b); !reflect.DeepEqual(got, b) {
		t.Errorf("of one: got %+v, want %+v", got, b)
	}
	if a.Adapters[0] != "y" || len(a.EOS) != 1 {
		t.Error("Union changed what it was given")
	}
}

// relay hands each attempt to the next of several engines and says which it is.
type relay struct {
	cards []engine.Card
	next  []engine.Engine
	begun []*engine.Card // what Begun said
}

func (l *relay) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		i := min(len(l.begun), len(l.next)-1)
		l.begun = append(l.begun, engine.Begun(ctx))
		engine.Placed(ctx, dynamo.WorkerID(i+1), &l.cards[i])
		l.next[i].Generate(ctx, r)(yield)
	}
}

// Whoever stands below is told which engine the answer is from; a word of the end is
// made up by the rules of the engine that owes it; and seeds decide by the engine that
// drew.
func TestMigrateBegun(t *testing.T) {
	lostAfter := func(n int) *hashed {
		return newHashed(1, false, func(_ int, _ *dynamo.Request, generated int) error {
			if generated == n {
				return lostError(engine.CodeLost)
			}
			return nil
		})
	}
	whole := newHashed(1, false, nil)
	union := engine.Union(&hashedCard, &weakCard)
	run := func(r dynamo.Request, l *relay) (enginetest.Answer, error) {
		return enginetest.Collect(t.Context(), migrate(t, l, func(c *engine.MigrateConfig) { c.Card = union }), &r)
	}
	r := shapes()["greedy"]
	want, err := enginetest.Collect(t.Context(), whole, &r)
	if err != nil {
		t.Fatal(err)
	}
	l := &relay{cards: []engine.Card{weakCard, weakCard, hashedCard}, next: []engine.Engine{lostAfter(0), lostAfter(4), whole}}
	got, err := run(r, l)
	if err != nil || !reflect.DeepEqual(got.Tokens, want.Tokens) {
		t.Errorf("got %v, error %v; want %v", got.Tokens, err, want.Tokens)
	}
	if len(l.begun) != 3 || l.begun[0] != nil || l.begun[1] != nil || l.begun[2] != &l.cards[1] {
		t.Errorf("Begun said %v", l.begun)
	}
	// weakCard's context holds 15 ids after a prompt of 5; the union's holds more.
	r.MaxTokens = 40
	got, err = run(r, &relay{cards: []engine.Card{weakCard}, next: []engine.Engine{lostAfter(15)}})
	if err != nil || got.Finish != dynamo.FinishLength || len(got.Tokens) != 15 {
		t.Errorf("at the end of its engine's context: got %d ids, %v, error %v", len(got.Tokens), got.Finish, err)
	}
	l = &relay{cards: []engine.Card{weakCard, hashedCard}, next: []engine.Engine{lostAfter(4), whole}}
	if _, err := run(shapes()["seeded"], l); err == nil || len(l.begun) != 1 {
		t.Errorf("a seeded answer went on at another engine: %d attempts, error %v", len(l.begun), err)
	}
	if _, err := run(shapes()["seeded"], &relay{cards: []engine.Card{hashedCard, hashedCard}, next: []engine.Engine{lostAfter(4), whole}}); err != nil {
		t.Errorf("a seeded answer did not go on where it can: %v", err)
	}
	if engine.Begun(t.Context()) != nil {
		t.Error("Begun says something where no Migrate is")
	}
}

// lateCount is an engine that tells at the end of an answer alone how much of the
// prompt it found.
type lateCount struct {
	next   engine.Engine
	cached int
}

func (l lateCount) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		for c, err := range l.next.Generate(ctx, r) {
			c.Cached = 0
			if c.Finish != dynamo.FinishNone {
				c.Usage.Cached = l.cached
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

// The usage's count is the first worker's, of whose answer a part has come, as far as
// it said it; a later worker's is about what the first has computed.
func TestMigrateCachedLate(t *testing.T) {
	fails := func(at int) *hashed {
		return newHashed(1, false, func(_ int, _ *dynamo.Request, generated int) error {
			if generated == at {
				return lostError(engine.CodeLost)
			}
			return nil
		})
	}
	whole := newHashed(1, false, nil) // says 2 at its first chunk
	for _, c := range []struct {
		name  string
		first engine.Engine
		then  engine.Engine
		want  int
	}{
		{"never lost", lateCount{whole, 4}, nil, 4},
		{"lost before a chunk", lateCount{fails(0), 4}, lateCount{whole, 3}, 3},
		{"lost in the middle, unsaid", lateCount{fails(3), 4}, lateCount{whole, 3}, 0},
		{"lost in the middle, said", fails(3), lateCount{whole, 3}, 2},
		{"lost in the middle, said by the later alone", lateCount{fails(3), 4}, newHashed(1, false, nil), 0},
	} {
		l := &relay{cards: []engine.Card{hashedCard, hashedCard}, next: []engine.Engine{c.first, c.then}}
		if c.then == nil {
			l.next = l.next[:1]
		}
		r := shapes()["greedy"]
		a, err := enginetest.Collect(t.Context(), migrate(t, l, unchanged), &r)
		if err != nil || a.Usage.Cached != c.want {
			t.Errorf("%s: got %d cached in the usage, error %v; want %d", c.name, a.Usage.Cached, err, c.want)
		}
	}
}
