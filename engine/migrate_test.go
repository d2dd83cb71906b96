package engine_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/fnv"
	"iter"
	"log/slog"
	"math"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/echo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/obs"
)

// hashed is an engine whose ids depend on everything that ids of a model depend
// on: the prompt, where it ends, every id before, seed and choice. So an answer
// that went on wrongly is another answer.
type hashed struct {
	card  engine.Card
	chunk int  // ids per chunk
	apart bool // the finish comes in a chunk of its own
	// fail is asked before each chunk, and at last before the end, how many ids
	// the answer has, resumed ones included; an error ends the attempt.
	fail func(attempt int, r *dynamo.Request, generated int) error

	mu struct {
		sync.Mutex
		attempts map[dynamo.RequestID]int
		asked    []dynamo.Request
	}
}

var hashedCard = engine.Card{
	Model: "hashed", Engine: "test", ContextLength: 64, VocabSize: 16, EOS: []dynamo.TokenID{3},
	MaxTopLogprobs: 2, PromptLogprobs: true, Sampling: true, Resume: true, ResumeSeeded: true,
}

func newHashed(chunk int, apart bool, fail func(int, *dynamo.Request, int) error) *hashed {
	h := &hashed{card: hashedCard, chunk: chunk, apart: apart, fail: fail}
	h.mu.attempts = map[dynamo.RequestID]int{}
	return h
}

func (h *hashed) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		if err := engine.Check(&h.card, r); err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		h.mu.Lock()
		attempt := h.mu.attempts[r.ID]
		h.mu.attempts[r.ID]++
		h.mu.asked = append(h.mu.asked, *r)
		h.mu.Unlock()
		h.run(ctx, r, attempt, yield)
	}
}

func (h *hashed) draw(r *dynamo.Request, out []dynamo.TokenID) dynamo.TokenID {
	for salt := 0; ; salt++ {
		f := fnv.New64a()
		fmt.Fprint(f, r.Tokens, "|", out, r.Sampling.Seed, r.Choice, salt)
		id := dynamo.TokenID(f.Sum64() % uint64(h.card.VocabSize))
		if !h.stops(r, id) || len(out)+1 >= r.MinTokens {
			return id
		}
	}
}

func (h *hashed) stops(r *dynamo.Request, id dynamo.TokenID) bool {
	for _, s := range r.StopTokens {
		if s == id {
			return true
		}
	}
	return !r.IgnoreEOS && id == h.card.EOS[0]
}

func logprob(id dynamo.TokenID, position, top int) dynamo.TokenLogprob {
	p := dynamo.TokenLogprob{ID: id, Logprob: -float32(position) - float32(id)/100}
	for i := range top {
		p.Top = append(p.Top, dynamo.TopLogprob{ID: id + dynamo.TokenID(i), Logprob: p.Logprob - float32(i)})
	}
	return p
}

func (h *hashed) run(ctx context.Context, r *dynamo.Request, attempt int, yield func(dynamo.Chunk, error) bool) {
	out := append([]dynamo.TokenID(nil), r.Resume...)
	room := engine.Room(&h.card, r)
	cached := 2 + attempt // differs, as it would elsewhere
	first, finish := true, dynamo.FinishNone
	if n := len(out); n > 0 && n >= r.MinTokens && h.stops(r, out[n-1]) {
		finish = dynamo.FinishStop
	}
	buffer := make([]dynamo.TokenID, 0, h.chunk)
	for {
		if ctx.Err() != nil {
			yield(dynamo.Chunk{}, engine.ContextError(ctx))
			return
		}
		if h.fail != nil {
			if err := h.fail(attempt, r, len(out)); err != nil {
				yield(dynamo.Chunk{}, err)
				return
			}
		}
		c := dynamo.Chunk{Choice: r.Choice}
		if first {
			c.Cached = min(cached, len(r.Tokens))
			if r.Sampling.PromptLogprobs {
				for i, id := range r.Tokens {
					c.PromptLogprobs = append(c.PromptLogprobs, logprob(id, i, r.Sampling.TopLogprobs))
				}
				c.PromptLogprobs[0].Logprob = -0.5
			}
		}
		buffer = buffer[:0]
		for len(buffer) < h.chunk && room > 0 && finish == dynamo.FinishNone {
			id := h.draw(r, out)
			out, buffer, room = append(out, id), append(buffer, id), room-1
			if r.Sampling.Logprobs {
				c.Logprobs = append(c.Logprobs, logprob(id, len(out), r.Sampling.TopLogprobs))
			}
			if h.stops(r, id) && len(out) >= r.MinTokens {
				finish = dynamo.FinishStop
			}
		}
		c.Tokens = buffer
		if finish == dynamo.FinishNone && room == 0 {
			finish = dynamo.FinishLength
		}
		if finish != dynamo.FinishNone && !(h.apart && len(buffer) > 0) {
			c.Finish = finish
			c.Usage = dynamo.Usage{Prompt: len(r.Tokens), Cached: min(cached, len(r.Tokens)), Completion: len(out)}
		}
		first = false
		if !yield(c, nil) || c.Finish != dynamo.FinishNone {
			return
		}
		for i := range buffer {
			buffer[i] = 99 // whoever still looks at it sees it
		}
	}
}

func lostError(code string) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: code, Message: "gone"}
}

func migrate(t *testing.T, next engine.Engine, change func(*engine.MigrateConfig)) *engine.Migrate {
	t.Helper()
	c := engine.DefaultMigrateConfig()
	c.Card = hashedCard
	change(&c)
	m, err := engine.NewMigrate(next, c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func unchanged(*engine.MigrateConfig) {}

// shapes are the requests whose answers must not change by a migration.
func shapes() map[string]dynamo.Request {
	base := dynamo.Request{ID: "r", Model: "hashed", Tokens: []dynamo.TokenID{5, 9, 1, 7, 7}, MaxTokens: 12, IgnoreEOS: true}
	with := func(change func(*dynamo.Request)) dynamo.Request {
		r := base
		change(&r)
		return r
	}
	return map[string]dynamo.Request{
		"greedy":         base,
		"seeded":         with(func(r *dynamo.Request) { r.Sampling = dynamo.Sampling{Temperature: 1, Seed: 9, Seeded: true} }),
		"end of seq":     with(func(r *dynamo.Request) { r.IgnoreEOS = false; r.MaxTokens = 40 }),
		"stop ids":       with(func(r *dynamo.Request) { r.StopTokens = []dynamo.TokenID{2, 8} }),
		"min tokens":     with(func(r *dynamo.Request) { r.StopTokens = []dynamo.TokenID{1, 2, 8, 9, 10}; r.MinTokens = 6 }),
		"min equals max": with(func(r *dynamo.Request) { r.IgnoreEOS = false; r.MinTokens = 12 }),
		"logprobs":       with(func(r *dynamo.Request) { r.Sampling.Logprobs, r.Sampling.TopLogprobs = true, 2 }),
		"prompt logprobs": with(func(r *dynamo.Request) {
			r.Sampling.Logprobs, r.Sampling.PromptLogprobs, r.Sampling.TopLogprobs = true, true, 1
		}),
		"context's end": with(func(r *dynamo.Request) { r.MaxTokens = 1000 }),
		"no tokens":     with(func(r *dynamo.Request) { r.MaxTokens = 0; r.Sampling.PromptLogprobs = true }),
		"resumed":       with(func(r *dynamo.Request) { r.Resume = []dynamo.TokenID{4, 4, 6} }),
		"choice 2":      with(func(r *dynamo.Request) { r.Choice = 2 }),
	}
}

// same compares what clients see of answers: everything but the chunks' number.
func same(t *testing.T, what string, got, want enginetest.Answer) {
	t.Helper()
	got.Chunks, want.Chunks = 0, 0
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// TestMigrateAnywhere breaks every request at every position once, and with each of
// them at some positions again.
func TestMigrateAnywhere(t *testing.T) {
	codes := []string{engine.CodeLost, engine.CodeStalled, engine.CodeDraining, engine.CodeRefused}
	for name, r := range shapes() {
		for _, mode := range []struct {
			chunk int
			apart bool
		}{{1, false}, {1, true}, {3, false}, {4, true}} {
			want, err := enginetest.Collect(t.Context(), newHashed(mode.chunk, mode.apart, nil), &r)
			if err != nil {
				t.Fatal(err)
			}
			n := len(want.Tokens) + len(r.Resume)
			for i := len(r.Resume); i <= n; i++ {
				for _, k := range slices.Compact([]int{i, min(i+1, n), min(i+4, n), n}) {
					breaks := 0
					h := newHashed(mode.chunk, mode.apart, func(attempt int, _ *dynamo.Request, generated int) error {
						if attempt == 0 && generated >= i || attempt == 1 && generated >= k {
							breaks++
							return lostError(codes[(i+k+attempt)%len(codes)])
						}
						return nil
					})
					got, err := enginetest.Collect(t.Context(), migrate(t, h, unchanged), &r)
					what := fmt.Sprintf("%s, chunks of %d (finish apart: %t), broken at %d and %d", name, mode.chunk, mode.apart, i, k)
					if err != nil {
						t.Fatalf("%s: %v", what, err)
					}
					// The cached tokens are those of the first attempt whose chunk came.
					if want := want; breaks > 0 {
						want.Cached, want.Usage.Cached = got.Cached, got.Cached
						same(t, what, got, want)
						continue
					}
					same(t, what, got, want)
				}
			}
		}
	}
}

func TestMigrateChoices(t *testing.T) {
	r := shapes()["logprobs"]
	r.N, r.IgnoreEOS = 4, false
	want, err := enginetest.CollectChoices(t.Context(), engine.Expand(newHashed(1, false, nil)), &r)
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.MaxTokens {
		h := newHashed(1, false, func(attempt int, q *dynamo.Request, generated int) error {
			if attempt == 0 && generated == i+q.Choice || attempt == 1 && generated == i+2*q.Choice {
				return lostError(engine.CodeLost)
			}
			return nil
		})
		got, err := enginetest.CollectChoices(t.Context(), engine.Expand(migrate(t, h, unchanged)), &r)
		if err != nil {
			t.Fatal(err)
		}
		for c := range got {
			want[c].Cached, want[c].Usage.Cached = got[c].Cached, got[c].Usage.Cached
			same(t, fmt.Sprintf("choice %d broken at %d", c, i), got[c], want[c])
		}
	}
}

func TestMigrateCached(t *testing.T) {
	r := shapes()["greedy"]
	for at, want := range map[int]int{0: 3, 1: 2, 5: 2} {
		h := newHashed(1, false, func(attempt int, _ *dynamo.Request, generated int) error {
			if attempt == 0 && generated == at {
				return lostError(engine.CodeLost)
			}
			return nil
		})
		a, err := enginetest.Collect(t.Context(), migrate(t, h, unchanged), &r)
		if err != nil || a.Cached != want || a.Usage.Cached != want {
			t.Errorf("broken at %d: got %d cached, %d in the usage, error %v; want %d", at, a.Cached, a.Usage.Cached, err, want)
		}
	}
}

// TestMigrateOnce: what belongs to the whole answer comes on its first chunk and
// is not asked for again.
func TestMigrateOnce(t *testing.T) {
	r := shapes()["prompt logprobs"]
	h := newHashed(1, false, func(attempt int, _ *dynamo.Request, generated int) error {
		if attempt < 2 && generated == 2+attempt {
			return lostError(engine.CodeLost)
		}
		return nil
	})
	n := 0
	for c, err := range migrate(t, h, unchanged).Generate(t.Context(), &r) {
		if err != nil {
			t.Fatal(err)
		}
		if first := n == 0; (c.Cached > 0) != first || (len(c.PromptLogprobs) > 0) != first {
			t.Errorf("chunk %d: %d cached, %d prompt logprobs", n, c.Cached, len(c.PromptLogprobs))
		}
		n++
	}
	for i, asked := range h.mu.asked {
		if asked.Sampling.PromptLogprobs != (i == 0) || len(asked.Resume) != []int{0, 2, 3}[i] || asked.MaxTokens != r.MaxTokens {
			t.Errorf("attempt %d asked %+v", i, asked)
		}
	}
}

// TestMigrateEarlyStop: a stop id that comes before MinTokens ends nothing.
func TestMigrateEarlyStop(t *testing.T) {
	attempts := 0
	e := script(func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		if attempts++; attempts > 1 {
			yield(dynamo.Chunk{Tokens: []dynamo.TokenID{6}, Finish: dynamo.FinishLength, Usage: dynamo.Usage{Prompt: len(r.Tokens), Completion: len(r.Resume) + 1}}, nil)
		} else if yield(dynamo.Chunk{Tokens: []dynamo.TokenID{4}}, nil) {
			yield(dynamo.Chunk{}, lostError(engine.CodeLost))
		}
	})
	r := dynamo.Request{Tokens: []dynamo.TokenID{1}, StopTokens: []dynamo.TokenID{4}, MinTokens: 2, MaxTokens: 2}
	a, err := enginetest.Collect(t.Context(), migrate(t, e, unchanged), &r)
	if err != nil || len(a.Tokens) != 2 {
		t.Errorf("got %+v, error %v; want two ids", a, err)
	}
}

// TestMigrateComplete: when only the word of the end was lost nobody is asked.
func TestMigrateComplete(t *testing.T) {
	for name, r := range shapes() {
		want, err := enginetest.Collect(t.Context(), newHashed(1, true, nil), &r)
		if err != nil {
			t.Fatal(err)
		}
		n := len(want.Tokens) + len(r.Resume)
		if len(want.Tokens) == 0 {
			continue
		}
		h := newHashed(1, true, func(_ int, _ *dynamo.Request, generated int) error {
			if generated == n {
				return lostError(engine.CodeLost)
			}
			return nil
		})
		got, err := enginetest.Collect(t.Context(), migrate(t, h, unchanged), &r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		same(t, name, got, want)
		if len(h.mu.asked) != 1 {
			t.Errorf("%s: asked %d times, want once", name, len(h.mu.asked))
		}
	}
}

func TestMigrateNot(t *testing.T) {
	other := func(k dynamo.Kind, code string) error { return &dynamo.Error{Kind: k, Code: code, Message: "no"} }
	for _, c := range []struct {
		name   string
		err    error
		change func(*engine.MigrateConfig)
	}{
		{"internal", other(dynamo.KindInternal, ""), unchanged},
		{"invalid", other(dynamo.KindInvalid, ""), unchanged},
		{"exhausted", other(dynamo.KindExhausted, "queue_timeout"), unchanged},
		{"no worker", other(dynamo.KindUnavailable, engine.CodeNoWorker), unchanged},
		{"corrupt", other(dynamo.KindCorrupt, ""), unchanged},
		{"plain", fmt.Errorf("plain"), unchanged},
		{"limit 0", lostError(engine.CodeLost), func(c *engine.MigrateConfig) { c.Limit = 0 }},
		{"class refuse", lostError(engine.CodeLost), func(c *engine.MigrateConfig) { c.Card.Resume = false }},
	} {
		r := shapes()["greedy"]
		h := newHashed(1, false, func(_ int, _ *dynamo.Request, generated int) error {
			if generated == 4 {
				return c.err
			}
			return nil
		})
		a, err := enginetest.Collect(t.Context(), migrate(t, h, c.change), &r)
		if err != c.err || len(a.Tokens) != 4 || len(h.mu.asked) != 1 {
			t.Errorf("%s: got the error %v after %d ids and %d attempts; want %v after 4 and 1", c.name, err, len(a.Tokens), len(h.mu.asked), c.err)
		}
	}
	text := script(func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		if yield(dynamo.Chunk{Text: "half a"}, nil) {
			yield(dynamo.Chunk{}, lostError(engine.CodeLost))
		}
	})
	r := shapes()["greedy"]
	if _, err := enginetest.Collect(t.Context(), migrate(t, text, unchanged), &r); !reflect.DeepEqual(err, lostError(engine.CodeLost)) {
		t.Errorf("text only: got %v, want the worker's error", err)
	}
}

func TestMigrateLimit(t *testing.T) {
	for limit := 1; limit <= 5; limit++ {
		r := shapes()["greedy"]
		h := newHashed(1, false, func(attempt int, _ *dynamo.Request, generated int) error {
			if generated == 2*(attempt+1) {
				return lostError(engine.CodeLost)
			}
			return nil
		})
		registry := obs.NewRegistry()
		m := migrate(t, h, func(c *engine.MigrateConfig) {
			c.Limit = limit
			c.Metrics = engine.NewMigrateMetrics(registry)
		})
		a, err := enginetest.Collect(t.Context(), m, &r)
		tried := fmt.Sprintf("%d workers were tried", limit+1)
		if limit == 5 { // the answer of 12 ids is broken at 2, 4, 6, 8, 10
			if err != nil {
				t.Errorf("limit %d: %v", limit, err)
			}
			continue
		}
		if dynamo.KindOf(err) != dynamo.KindUnavailable || len(a.Tokens) != 2*(limit+1) || !strings.Contains(err.Error(), tried) || !strings.Contains(err.Error(), "lost") {
			t.Errorf("limit %d: got %d ids and the error %v; want %d and one that says %q", limit, len(a.Tokens), err, 2*(limit+1), tried)
		}
		if _, lost := engine.Lost(err); lost {
			t.Errorf("limit %d: the error %v invites another migration", limit, err)
		}
		if got := scrape(t, registry); !strings.Contains(got, fmt.Sprintf(`dynamo_frontend_model_migration_total{migration_type="ongoing_request",model="hashed"} %d`, limit)) ||
			!strings.Contains(got, `dynamo_engine_migrated_requests_total{class="replay",outcome="limit"} 1`) ||
			!strings.Contains(got, fmt.Sprintf(`dynamo_engine_migrations_total{cause="lost"} %d`, limit+1)) {
			t.Errorf("limit %d: metrics:\n%s", limit, got)
		}
	}
}

// TestMigrateNobody: the error that ends a request which had migrated says so.
func TestMigrateNobody(t *testing.T) {
	h := newHashed(1, false, func(attempt int, _ *dynamo.Request, generated int) error {
		switch {
		case attempt == 1:
			return &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeNoWorker, Message: "no worker", RetryAfter: time.Second}
		case generated == 3:
			return lostError(engine.CodeDraining)
		}
		return nil
	})
	r := shapes()["greedy"]
	_, err := enginetest.Collect(t.Context(), migrate(t, h, unchanged), &r)
	e, _ := err.(*dynamo.Error)
	if e == nil || e.Kind != dynamo.KindUnavailable || e.Code != engine.CodeNoWorker || e.RetryAfter != time.Second || !strings.Contains(err.Error(), "after 3 tokens") {
		t.Errorf("got %+v", err)
	}
}

func TestMigrateDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := shapes()["greedy"]
		r.Deadline = time.Now().Add(time.Second)
		h := newHashed(1, false, func(_ int, _ *dynamo.Request, generated int) error {
			if generated == 3 {
				time.Sleep(2 * time.Second)
				return lostError(engine.CodeLost)
			}
			return nil
		})
		a, err := enginetest.Collect(t.Context(), migrate(t, h, unchanged), &r)
		if dynamo.KindOf(err) != dynamo.KindDeadline || len(a.Tokens) != 3 || len(h.mu.asked) != 1 {
			t.Errorf("got %d ids, %d attempts, the error %v", len(a.Tokens), len(h.mu.asked), err)
		}
	})
}

// barren fails every attempt before anything comes.
func barren(int, *dynamo.Request, int) error { return lostError(engine.CodeLost) }

func TestMigrateBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := func(c *engine.MigrateConfig) { c.Limit = 1000 }
		r := shapes()["greedy"]
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second+time.Millisecond, &dynamo.Error{Kind: dynamo.KindCancelled, Message: "client gone"})
		defer cancel()
		began, h := time.Now(), newHashed(1, false, barren)
		_, err := enginetest.Collect(ctx, migrate(t, h, many), &r)
		if dynamo.KindOf(err) != dynamo.KindCancelled || time.Since(began) != 5*time.Second+time.Millisecond {
			t.Errorf("cancelled: got %v after %v", err, time.Since(began))
		}
		if n := len(h.mu.asked); n < 6 || n > 14 {
			t.Errorf("asked %d times in five seconds", n)
		}
		r.Deadline = time.Now().Add(3 * time.Second)
		_, err = enginetest.Collect(t.Context(), migrate(t, newHashed(1, false, barren), many), &r)
		if dynamo.KindOf(err) != dynamo.KindDeadline || !time.Now().Equal(r.Deadline) {
			t.Errorf("deadline: got %v, %v late", err, time.Since(r.Deadline))
		}
	})
}

// TestMigrateCancelled: an error that comes because the client is gone is no
// worker's failure, whatever it says.
func TestMigrateCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := newHashed(1, false, func(_ int, _ *dynamo.Request, generated int) error {
		if generated == 3 {
			cancel()
			return lostError(engine.CodeLost)
		}
		return nil
	})
	r := shapes()["greedy"]
	_, err := enginetest.Collect(ctx, migrate(t, h, unchanged), &r)
	if dynamo.KindOf(err) != dynamo.KindCancelled || len(h.mu.asked) != 1 {
		t.Errorf("got %v after %d attempts", err, len(h.mu.asked))
	}
}

func TestMigrateStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 2 * time.Second
		r := shapes()["greedy"]
		want, _ := enginetest.Collect(t.Context(), newHashed(1, false, nil), &r)
		stuck := script(func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			h := newHashed(1, false, func(_ int, _ *dynamo.Request, generated int) error {
				time.Sleep(timeout * 9 / 10) // slow is not stalled
				if generated == 5 && len(r.Resume) == 0 {
					<-ctx.Done()
					return engine.ContextError(ctx)
				}
				return nil
			})
			h.Generate(ctx, r)(yield)
		})
		registry := obs.NewRegistry()
		var log bytes.Buffer
		m := migrate(t, stuck, func(c *engine.MigrateConfig) {
			c.StallTimeout, c.Metrics = timeout, engine.NewMigrateMetrics(registry)
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		var got []dynamo.TokenID
		began := time.Now()
		for c, err := range m.Generate(t.Context(), &r) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, c.Tokens...)
			time.Sleep(10 * timeout) // nor is a slow reader
		}
		same(t, "ids", enginetest.Answer{Tokens: got}, enginetest.Answer{Tokens: want.Tokens})
		least := 12*(10*timeout+timeout*9/10) + timeout
		if took := time.Since(began); took < least || took > least+2*timeout {
			t.Errorf("took %v, want %v and up to %v more", took, least, 2*timeout)
		}
		if s := scrape(t, registry); !strings.Contains(s, `dynamo_engine_migrations_total{cause="stalled"} 1`) || !strings.Contains(s, `outcome="completed"} 1`) {
			t.Errorf("metrics:\n%s", s)
		}
		if s := log.String(); strings.Count(s, "request migrates") != 1 || !strings.Contains(s, "req=r") || !strings.Contains(s, "cause=stalled") || !strings.Contains(s, "tokens=5") {
			t.Errorf("log:\n%s", s)
		}
		// Waiting for a worker is no stall.
		patient := script(func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			engine.Placed(ctx, 0, nil)
			time.Sleep(5 * timeout)
			engine.Placed(ctx, 7, &hashedCard)
			newHashed(1, false, nil).Generate(ctx, r)(yield)
		})
		a, err := enginetest.Collect(t.Context(), migrate(t, patient, func(c *engine.MigrateConfig) { c.StallTimeout = timeout; c.Limit = 0 }), &r)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "after a wait", a, want)
	})
}

func scrape(t *testing.T, r *obs.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	return w.Body.String()
}

// flaky is an engine that dies at positions that are keyed by the request and how
// much of it there is.
type flaky struct {
	next engine.Engine
	most int // it answers attempts that resume as many ids or more in peace
}

func (f flaky) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		h := fnv.New64a()
		fmt.Fprint(h, r.ID, len(r.Tokens), r.MaxTokens, r.Resume, r.Choice)
		left := int(h.Sum64()>>8)%5 + 1
		for c, err := range f.next.Generate(ctx, r) {
			if err == nil && len(c.Tokens) > 0 && ctx.Err() == nil && len(r.Resume) < f.most {
				if left--; left < 0 {
					yield(dynamo.Chunk{}, lostError(engine.CodeLost))
					return
				}
			}
			if !yield(c, err) {
				return
			}
		}
	}
}

func TestMigrateConformance(t *testing.T) {
	for name, wrap := range map[string]func(engine.Engine) engine.Engine{
		"steady": func(e engine.Engine) engine.Engine { return e },
		"flaky":  func(e engine.Engine) engine.Engine { return flaky{e, math.MaxInt} },
	} {
		for _, stall := range []time.Duration{0, time.Minute} {
			t.Run(fmt.Sprint(name, " ", stall), func(t *testing.T) {
				enginetest.Run(t, func(t *testing.T) enginetest.Subject {
					c := echo.DefaultConfig()
					c.ContextLength, c.VocabSize, c.EOS, c.ChunkTokens = 512, 1000, []dynamo.TokenID{2, 3}, 1
					e, err := echo.New(c)
					if err != nil {
						t.Fatal(err)
					}
					m := migrate(t, wrap(e), func(c *engine.MigrateConfig) {
						c.Card, c.Limit, c.StallTimeout = e.Card(), 1000, stall
					})
					return enginetest.Subject{Engine: m, Card: e.Card(), Prompt: prompt}
				})
			})
		}
	}
}

func prompt(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(10 + (n*7+i*i)%900)
	}
	return ids
}

func TestMigrateConfig(t *testing.T) {
	_, err := engine.NewMigrate(newHashed(1, false, nil), engine.MigrateConfig{Limit: -1, StallTimeout: -1})
	if err == nil || !strings.Contains(err.Error(), "--migration-limit") || !strings.Contains(err.Error(), "--stall-timeout") {
		t.Errorf("got %v, want both faults", err)
	}
	if got := migrate(t, newHashed(1, false, nil), unchanged).Class(); got != engine.ClassReplay {
		t.Errorf("class %q", got)
	}
}

func echoOf(t testing.TB) *echo.Engine {
	c := echo.DefaultConfig()
	c.ContextLength, c.ChunkTokens = 100000, 1
	e, err := echo.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestMigrateAllocations(t *testing.T) {
	e := echoOf(t)
	m := migrate(t, e, func(c *engine.MigrateConfig) { c.Card = e.Card() })
	ask := func(n int) float64 {
		r := dynamo.Request{Tokens: prompt(3), MaxTokens: n}
		return testing.AllocsPerRun(20, func() {
			for range m.Generate(t.Context(), &r) {
			}
		})
	}
	// Above 256 ids the room for them doubles.
	if few, many := ask(2), ask(4096); many > few+8 {
		t.Errorf("%v allocations for 4096 tokens, %v for 2", many, few)
	}
}

func BenchmarkMigrate(b *testing.B) {
	e := echoOf(b)
	for name, c := range map[string]engine.MigrateConfig{
		"none":    {},
		"replay":  {Limit: 3, Card: e.Card()},
		"stalls":  {Limit: 3, Card: e.Card(), StallTimeout: time.Minute},
		"refuses": {Limit: 0, Card: e.Card()},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var next engine.Engine = e
			if name != "none" {
				m, err := engine.NewMigrate(e, c)
				if err != nil {
					b.Fatal(err)
				}
				next = m
			}
			r := dynamo.Request{Tokens: prompt(100), MaxTokens: 1000}
			for b.Loop() {
				for range next.Generate(b.Context(), &r) {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/token")
		})
	}
}
