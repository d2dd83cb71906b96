package router_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
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
	"github.com/dynamo-go/dynamo/router"
)

// The cards of two engines of the same weights that can do different things.
var (
	embedded = engine.Card{
		Model: "m", Engine: "native", NumericClass: "int8", ContextLength: 64, VocabSize: 1000, BlockSize: 16,
		MaxTopLogprobs: -1, Sampling: true, Resume: true, ResumeSeeded: true,
	}
	foreign = engine.Card{
		Model: "m", Engine: "vllm", NumericClass: "vllm", ContextLength: 32, VocabSize: 1000, BlockSize: 32,
		MaxTopLogprobs: 5, PromptLogprobs: true, Sampling: true, Resume: true,
		Guided: []dynamo.GuidedKind{dynamo.GuidedRegex},
	}
)

// counting answers with 10, 11, 12, … and dies, for good, after so many ids in all;
// 0 is never.
type counting struct {
	card engine.Card
	id   dynamo.WorkerID
	r    *router.Router

	mu struct {
		sync.Mutex
		left, asked int
	}
}

func (c *counting) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.asked
}

// step reports whether it lives on for another id.
func (c *counting) step() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.left == 0 {
		return true
	}
	c.mu.left = max(c.mu.left-1, 1)
	return c.mu.left > 1
}

func (c *counting) Generate(ctx context.Context, q *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		if err := engine.Check(&c.card, q); err != nil {
			yield(dynamo.Chunk{}, err)
			return
		}
		c.mu.Lock()
		c.mu.asked++
		c.mu.Unlock()
		for n := len(q.Resume); ; n++ {
			if !c.step() {
				c.r.SetUp(c.id, 1, false)
				yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "gone"})
				return
			}
			ch := dynamo.Chunk{Choice: q.Choice, Tokens: []dynamo.TokenID{dynamo.TokenID(10 + n)}}
			if q.Sampling.Logprobs {
				ch.Logprobs = []dynamo.TokenLogprob{{ID: ch.Tokens[0]}}
			}
			if n+1 == q.MaxTokens {
				ch.Finish, ch.Usage = dynamo.FinishLength, dynamo.Usage{Prompt: len(q.Tokens), Completion: n + 1}
			}
			if !yield(ch, nil) || ch.Finish != dynamo.FinishNone {
				return
			}
		}
	}
}

// mix is a router over workers 1, 2, … with these cards, and Migrate above it.
func mix(t *testing.T, cards ...engine.Card) (*router.Router, engine.Engine, []*counting) {
	t.Helper()
	r := open(t, func(c *router.Config) { c.Wait = time.Second })
	var all []*counting
	offered := make([]*engine.Card, len(cards))
	for i := range cards {
		e := &counting{card: cards[i], id: dynamo.WorkerID(i + 1), r: r}
		all, offered[i] = append(all, e), &cards[i]
		if err := r.Add(router.Worker{ID: e.id, Epoch: 1, Engine: e, Card: cards[i], MaxRunning: 1}); err != nil {
			t.Fatal(err)
		}
		r.SetUp(e.id, 1, true)
	}
	c := engine.DefaultMigrateConfig()
	c.Card = engine.Union(offered...)
	m, err := engine.NewMigrate(r, c)
	if err != nil {
		t.Fatal(err)
	}
	return r, m, all
}

// A request goes only to workers that can do what it asks for, and the whole can do
// what any of them can.
func TestMixedAble(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*dynamo.Request)
		want   [2]bool // asked of the embedded and of the foreign engine
		err    string
	}{
		{"plain", func(*dynamo.Request) {}, [2]bool{true, true}, ""},
		{"logprobs", func(q *dynamo.Request) { q.Sampling.Logprobs = true }, [2]bool{false, true}, ""},
		{"restricted", func(q *dynamo.Request) {
			q.Guided = dynamo.Guided{Kind: dynamo.GuidedRegex, Value: "a"}
		}, [2]bool{false, true}, ""},
		{"long prompt", func(q *dynamo.Request) { q.Tokens = make([]dynamo.TokenID, 40) }, [2]bool{true, false}, ""},
		{"long answer", func(q *dynamo.Request) { q.MaxTokens = 35 }, [2]bool{true, false}, ""},
		{"too many alternatives", func(q *dynamo.Request) {
			q.Sampling.Logprobs, q.Sampling.TopLogprobs = true, 6
		}, [2]bool{false, false}, "top_logprobs is 6; this model returns at most 5"},
		{"what none can together", func(q *dynamo.Request) {
			q.Tokens, q.Sampling.Logprobs = make([]dynamo.TokenID, 40), true
		}, [2]bool{false, false}, "none of the 2 workers of model m that are known can serve this request: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, m, all := mix(t, embedded, foreign)
				began := time.Now()
				for i := range 10 {
					q := request(fmt.Sprint(i))
					c.change(q)
					_, err := enginetest.Collect(t.Context(), m, q)
					if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
						t.Fatalf("got the error %v, want %q", err, c.err)
					}
				}
				if got := [2]bool{all[0].asked() > 0, all[1].asked() > 0}; got != c.want {
					t.Errorf("asked %v, want %v", got, c.want)
				}
				if took := time.Since(began); took > 0 {
					t.Errorf("took %v: what nobody can do is not waited for", took)
				}
				idle(t, r)
			})
		})
	}
}

// An answer whose worker dies goes on where the arithmetic is the same, at another
// engine only when none of those is left, and never where it would go on otherwise.
func TestMixedGoesOn(t *testing.T) {
	seeded := func(q *dynamo.Request) { q.Sampling = dynamo.Sampling{Temperature: 1, Seed: 4, Seeded: true} }
	penalty := func(q *dynamo.Request) { q.Sampling.FrequencyPenalty = 0.5 }
	greedy := func(*dynamo.Request) {}
	for _, c := range []struct {
		name   string
		cards  []engine.Card
		change func(*dynamo.Request)
		next   int // which worker it goes on at; 0: nowhere
		err    string
	}{
		{"same arithmetic first", []engine.Card{foreign, embedded, embedded, foreign, embedded}, greedy, 4, ""},
		{"another's when none is left", []engine.Card{foreign, embedded}, greedy, 2, ""},
		{"and back", []engine.Card{embedded, foreign}, greedy, 2, ""},
		{"unseeded sampling", []engine.Card{foreign, embedded}, func(q *dynamo.Request) { q.Sampling.Temperature = 1 }, 2, ""},
		{"seeded in the same arithmetic", []engine.Card{embedded, foreign, embedded}, seeded, 3, ""},
		{"seeded elsewhere", []engine.Card{embedded, foreign}, seeded, 0, "the answer could not go on after 3 tokens"},
		{"seeded where seeds do not resume", []engine.Card{foreign, embedded, foreign}, seeded, 0, "gone"},
		{"penalties where they see the ids", []engine.Card{foreign, embedded, foreign}, penalty, 2, ""},
		{"penalties where they do not", []engine.Card{embedded, foreign}, penalty, 0, "the answer could not go on"},
		{"logprobs where there are none", []engine.Card{foreign, embedded}, func(q *dynamo.Request) { q.Sampling.Logprobs = true }, 0, "the answer could not go on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, m, all := mix(t, c.cards...)
				for i := range all[1:] {
					r.SetUp(dynamo.WorkerID(i+2), 1, false) // so that worker 1 begins
				}
				all[0].mu.left = 5
				q := request("r")
				q.MaxTokens = 8
				c.change(q)
				var ids []dynamo.TokenID
				var failed error
				for ch, err := range m.Generate(t.Context(), q) {
					if failed = err; err == nil {
						ids = append(ids, ch.Tokens...)
					}
					for i := range all[1:] {
						r.SetUp(dynamo.WorkerID(i+2), 1, true)
					}
				}
				for i, e := range all[1:] {
					if got, want := e.asked(), 0; got != want && i+2 != c.next || got == 0 && i+2 == c.next {
						t.Errorf("worker %d was asked %d times, next is to be %d", i+2, got, c.next)
					}
				}
				want := []dynamo.TokenID{10, 11, 12, 13, 14, 15, 16, 17}
				if c.next == 0 {
					want = want[:3]
				}
				if !slices.Equal(ids, want) {
					t.Errorf("got the ids %v, want %v", ids, want)
				}
				if (failed != nil) != (c.err != "") || failed != nil && !strings.Contains(failed.Error(), c.err) {
					t.Errorf("got the error %v, want %q", failed, c.err)
				}
				idle(t, r)
			})
		})
	}
}

// A worker of the same arithmetic that is full is waited for; one that comes up is
// used; and when it stays away another engine is.
func TestMixedWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m, all := mix(t, foreign, foreign, embedded)
		all[0].mu.left = 5
		r.SetUp(2, 1, false)
		r.SetUp(3, 1, false)
		busy, done := context.WithCancel(t.Context())
		defer done()
		var holding sync.WaitGroup
		var began bool
		for ch, err := range m.Generate(t.Context(), request("r")) {
			if err != nil {
				t.Fatal(err)
			}
			if !began {
				began = true
				r.SetUp(2, 1, true)
				holding.Go(func() { hold(busy, r, "other") }) // worker 2 is full
				synctest.Wait()
				r.SetUp(3, 1, true)
				time.AfterFunc(300*time.Millisecond, done)
			}
			_ = ch
		}
		holding.Wait()
		if all[1].asked() != 2 || all[2].asked() != 0 {
			t.Errorf("worker 2 was asked %d times, the other engine %d times; want 2 and 0", all[1].asked(), all[2].asked())
		}
		idle(t, r)
	})
}

// hold keeps one worker busy until ctx ends.
func hold(ctx context.Context, e engine.Engine, id string) {
	for range e.Generate(ctx, request(id)) {
		<-ctx.Done()
		return
	}
}

// A request that waits for the one worker which can serve it does not keep others
// from the rest, and gets it when it is free.
func TestMixedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m, all := mix(t, embedded, foreign)
		var both sync.WaitGroup
		var stop [2]context.CancelFunc
		for i, id := range []string{"a", "b"} {
			var ctx context.Context
			ctx, stop[i] = context.WithCancel(t.Context())
			both.Go(func() { hold(ctx, r, id) })
			synctest.Wait()
			if all[i].asked() != 1 {
				t.Fatalf("%s is not held by worker %d", id, i+1)
			}
		}
		ask := func(g *sync.WaitGroup, id string, logprobs bool) {
			g.Go(func() {
				q := request(id)
				q.Sampling.Logprobs = logprobs
				if _, err := enginetest.Collect(t.Context(), m, q); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			})
			synctest.Wait()
		}
		var asking sync.WaitGroup
		ask(&asking, "first", true)
		ask(&asking, "second", true)
		ask(&asking, "third", false)
		if n := r.Stats().Waiting; n != 3 {
			t.Errorf("%d requests wait, want 3", n)
		}
		stop[0]()
		synctest.Wait()
		if all[0].asked() != 2 || all[1].asked() != 1 {
			t.Errorf("one worker is free and was asked %d times, the other %d; want 2 and 1", all[0].asked(), all[1].asked())
		}
		stop[1]()
		both.Wait()
		asking.Wait()
		if all[0].asked() != 2 || all[1].asked() != 3 {
			t.Errorf("asked %d and %d times, want 2 and 3", all[0].asked(), all[1].asked())
		}
		idle(t, r)
	})
}

// TestMixedConformance: a mix of engines whose workers die is an engine as any other.
func TestMixedConformance(t *testing.T) {
	for _, mode := range modes() {
		t.Run(mode, func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				c := echo.DefaultConfig()
				c.ContextLength, c.VocabSize, c.EOS, c.ChunkTokens = 512, 1000, []dynamo.TokenID{2, 3}, 1
				r := open(t, func(rc *router.Config) { rc.Mode, rc.Model = mode, "" })
				var cards []*engine.Card
				for id := dynamo.WorkerID(1); id <= 4; id++ {
					if id == 3 {
						c.BlockSize, c.ContextLength = 32, 256
					}
					e, err := echo.New(c)
					if err != nil {
						t.Fatal(err)
					}
					card := e.Card()
					if id >= 3 {
						card.Engine, card.NumericClass, card.ResumeSeeded = "other", "other", false
					}
					cards = append(cards, &card)
					if err := r.Add(router.Worker{ID: id, Epoch: 1, Engine: flaky{e, id, r}, Card: card, MaxRunning: 5}); err != nil {
						t.Fatal(err)
					}
					r.SetUp(id, 1, true)
				}
				m := engine.DefaultMigrateConfig()
				m.Limit, m.Card = 1000, engine.Union(cards...)
				m.Card.Sampling = false
				top, err := engine.NewMigrate(r, m)
				if err != nil {
					t.Fatal(err)
				}
				claims := m.Card
				claims.ResumeSeeded = false // of those it may begin at
				return enginetest.Subject{Engine: top, Card: claims, Prompt: prompt, Idle: func() error {
					if s := r.Stats(); s.Booked+s.BookedTokens+s.Waiting > 0 {
						return fmt.Errorf("the router has %+v", s)
					}
					return nil
				}}
			})
		})
	}
}

// Who runs a cluster is told why workers lose requests; a client is told since when
// there is none, and no address.
func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const word = "connection to 10.1.2.3:8000 refused"
		var log strings.Builder
		r := open(t, func(c *router.Config) {
			c.Wait, c.Logger = 4500*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
		})
		broken := true
		add(t, r, 1, &scripted{do: func(ctx context.Context, q *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			if broken {
				yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: word + strings.Repeat(".", 2000)})
				return
			}
			answer(ctx, q, yield)
		}}, 0, 0)
		for i := range 3 {
			err := ask(t, r, "r")
			if code(err) != "unavailable no_worker" || !strings.Contains(err.Error(), fmt.Sprintf("none has answered for %ds", []int{5, 9, 14}[i])) || !strings.Contains(err.Error(), "(1 are known)") || strings.Contains(err.Error(), "10.1.2.3") {
				t.Errorf("got %v", err)
			}
		}
		if fault := r.Stats().Workers[0].Fault; !strings.HasPrefix(fault, word) || len(fault) > 600 {
			t.Errorf("the worker's fault is %q", fault)
		}
		if got := strings.Count(log.String(), "no worker for a request"); got != 1 || !strings.Contains(log.String(), word) {
			t.Errorf("the log has %d lines of it, want 1 with the worker's word:\n%s", got, log.String())
		}
		broken = false
		if err := ask(t, r, "well"); err != nil || r.Stats().Workers[0].Fault != "" {
			t.Errorf("got %v and the fault %q", err, r.Stats().Workers[0].Fault)
		}
		// An engine that says it is down is as good as none, and one that is back owes no
		// explanation any more.
		broken = true
		if err := ask(t, r, "broken"); err == nil || r.Stats().Workers[0].Fault == "" {
			t.Errorf("got %v and no fault", err)
		}
		r.Report(1, 1, engine.Load{Down: true})
		r.Report(1, 1, engine.Load{})
		if fault := r.Stats().Workers[0].Fault; fault != "" {
			t.Errorf("the engine is back, and the fault is %q", fault)
		}
		time.Sleep(time.Minute)
		r.Report(1, 1, engine.Load{Down: true})
		if err := ask(t, r, "down"); !strings.Contains(fmt.Sprint(err), "none has answered for 5s") {
			t.Errorf("got %v", err)
		}
		r.Report(1, 1, engine.Load{})
		broken = false
		time.Sleep(time.Minute)
		r.SetUp(1, 1, false)
		time.Sleep(time.Second)
		if err := ask(t, r, "later"); !strings.Contains(fmt.Sprint(err), "none has answered for 6s") && !strings.Contains(fmt.Sprint(err), "none has answered for 5s") {
			t.Errorf("got %v", err)
		}
		idle(t, r)
	})
}

// BenchmarkMixed is BenchmarkRequest where the workers are of two kinds.
func BenchmarkMixed(b *testing.B) {
	for _, kinds := range []int{1, 2} {
		b.Run(fmt.Sprintf("kinds=%d", kinds), func(b *testing.B) {
			r := open(b, func(c *router.Config) { c.Model = "" })
			for id := range 8 {
				c := echo.DefaultConfig()
				c.BlockSize = 16 << (id % kinds)
				e, err := echo.New(c)
				if err != nil {
					b.Fatal(err)
				}
				if err := r.Add(router.Worker{ID: dynamo.WorkerID(id + 1), Epoch: 1, Engine: e, Card: e.Card()}); err != nil {
					b.Fatal(err)
				}
				r.SetUp(dynamo.WorkerID(id+1), 1, true)
			}
			b.ReportAllocs()
			q := &dynamo.Request{ID: "r", Tokens: prompt(100), MaxTokens: 1}
			for b.Loop() {
				drain(b.Context(), r, q)
			}
		})
	}
}
