package router_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/router"
)

// peer is a worker that lends KV and takes it, in some way.
type peer struct {
	lends string        // how: "well", or what goes wrong
	each  time.Duration // to compute a token
	mu    struct {
		sync.Mutex
		asked, lending int
		given          []string // the Handover of each request
	}
}

func (p *peer) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		if r.Lend {
			p.lend(ctx, r, yield)
			return
		}
		p.mu.Lock()
		p.mu.given = append(p.mu.given, string(r.Handover))
		p.mu.Unlock()
		cached := 0
		if string(r.Handover) == "well" {
			cached = len(r.Tokens) - 1
		}
		time.Sleep(time.Duration(len(r.Tokens)-cached)*p.each + time.Millisecond)
		if yield(dynamo.Chunk{Tokens: []dynamo.TokenID{1}, Cached: cached}, nil) {
			time.Sleep(100 * time.Millisecond)
			yield(dynamo.Chunk{Finish: dynamo.FinishLength, Usage: dynamo.Usage{Prompt: len(r.Tokens), Cached: cached, Completion: 1}}, nil)
		}
	}
}

func (p *peer) lend(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
	p.mu.Lock()
	p.mu.asked++
	p.mu.lending++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.mu.lending--
	}()
	if r.MaxTokens != 0 || len(r.StopTokens) > 0 || r.Sampling.Seeded {
		yield(dynamo.Chunk{}, fmt.Errorf("asked for %+v", r))
		return
	}
	switch p.lends {
	case "gone":
		yield(dynamo.Chunk{Finish: dynamo.FinishLength}, nil)
		return
	case "draining":
		yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeDraining, Message: "it leaves"})
		return
	case "silent":
	case "late":
		time.Sleep(400 * time.Millisecond)
		yield(dynamo.Chunk{Handover: []byte("late")}, nil)
		return
	default:
		if !yield(dynamo.Chunk{Handover: []byte(p.lends)}, nil) {
			return
		}
	}
	<-ctx.Done()
	yield(dynamo.Chunk{}, engine.ContextError(ctx))
}

// saw is what a peer has seen.
func (p *peer) saw() (asked, lending int, given []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.asked, p.mu.lending, p.mu.given
}

// peers is a router over two workers, of which the first holds the prompt that is returned.
func peers(t *testing.T, change func(*router.Config, []router.Worker)) (*router.Router, []*peer, *dynamo.Request) {
	t.Helper()
	all := []*peer{{lends: "well", each: 20 * time.Microsecond}, {lends: "well", each: 20 * time.Microsecond}}
	var workers []router.Worker
	for i, p := range all {
		workers = append(workers, router.Worker{ID: dynamo.WorkerID(i + 1), Epoch: 1, Engine: p, Card: engine.Card{Model: "m", BlockSize: blockSize, ContextLength: 1 << 20, VocabSize: 1 << 20, PromptLogprobs: true, Sampling: true, Lends: true}, MaxRunning: 100})
	}
	r := open(t, func(c *router.Config) {
		c.Mode, c.PredictTTL = "kv", 0
		change(c, workers)
	})
	for _, w := range workers {
		if err := r.Add(w); err != nil {
			t.Fatal(err)
		}
		r.SetUp(w.ID, w.Epoch, true)
	}
	q := &dynamo.Request{ID: "q", Tokens: text(1, 4000), MaxTokens: 8, StopTokens: []dynamo.TokenID{3}, Sampling: dynamo.Sampling{Seeded: true}}
	apply(t, r, 1, stored(blockSize, q.Tokens))
	return r, all, q
}

func unchanged(*router.Config, []router.Worker) {}

// to is q for a worker that it names.
func to(q *dynamo.Request, id string, worker dynamo.WorkerID) *dynamo.Request {
	c := *q
	c.ID, c.Routing = dynamo.RequestID(id), &dynamo.Routing{Worker: worker}
	return &c
}

// TestPeerFetch sends a request to a worker that lacks what another holds: that one is asked
// to lend it, until the first token has come; whatever goes wrong, the request is served.
func TestPeerFetch(t *testing.T) {
	for _, c := range []struct {
		lends, outcome, handover string
		ttft                     time.Duration // at most
	}{
		{"well", "fetched", "well", 2 * time.Millisecond},
		{"gone", "gone", "", 82 * time.Millisecond},
		{"draining", "refused", "", 82 * time.Millisecond},
		{"silent", "slow", "", 340 * time.Millisecond},
		{"late", "slow", "", 340 * time.Millisecond},
		{"damaged", "lost", "damaged", 82 * time.Millisecond},
	} {
		t.Run(c.lends, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				registry := obs.NewRegistry()
				r, all, q := peers(t, func(rc *router.Config, _ []router.Worker) { rc.Metrics = router.NewMetrics(registry) })
				all[0].lends = c.lends
				began, first := time.Now(), time.Duration(0)
				for chunk, err := range r.Generate(t.Context(), to(q, "q", 2)) {
					if err != nil {
						t.Fatal(err)
					}
					if len(chunk.Tokens) > 0 {
						first = time.Since(began)
						continue
					}
					if _, lending, _ := all[0].saw(); lending > 0 {
						t.Error("it lends still, though the first token has come")
					}
				}
				asked, lending, given := all[0].saw()
				_, _, got := all[1].saw()
				if asked != 1 || lending != 0 || len(given) != 0 || len(got) != 1 || got[0] != c.handover || first > c.ttft {
					t.Errorf("asked %d times, lends %d; the other was given %q after %v, want %q", asked, lending, got, first, c.handover)
				}
				x, _ := r.Explain("q")
				f := x.Attempts[0].Fetch
				if f == nil || f.Outcome != c.outcome || f.From != dynamo.WorkerID(1).String() || f.Blocks != 1000 && f.Blocks != 999 || !strings.Contains(strings.Join(x.Attempts[0].Words, "\n"), f.From) {
					t.Errorf("explained by %+v, %q", f, x.Attempts[0].Words)
				}
				if text := scrape(t, registry); !strings.Contains(text, fmt.Sprintf("dynamo_router_fetches_total{outcome=%q} 1\n", c.outcome)) {
					t.Errorf("metrics:\n%s", text)
				}
				idle(t, r)
				// Who did not lend well is not asked again at once.
				drain(t.Context(), r, to(q, "again", 2))
				want := 1
				if c.lends == "well" || c.lends == "gone" {
					want = 2
				}
				if asked, _, _ := all[0].saw(); asked != want && c.outcome != "slow" {
					t.Errorf("asked %d times in all, want %d", asked, want)
				}
			})
		})
	}
}

// TestNoPeerFetch asks nobody to lend where that is of no use, or not wanted.
func TestNoPeerFetch(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*router.Config, []router.Worker)
		ask    func(*dynamo.Request)
	}{
		"off":                {func(c *router.Config, _ []router.Worker) { c.PeerFetch = false }, nil},
		"it does not lend":   {func(_ *router.Config, w []router.Worker) { w[0].Card.Lends = false }, nil},
		"another arithmetic": {func(_ *router.Config, w []router.Worker) { w[0].Card.NumericClass = "f32" }, nil},
		"other weights":      {func(_ *router.Config, w []router.Worker) { w[0].Card.Revision = "r" }, nil},
		"its KV is said":     {unchanged, func(q *dynamo.Request) { q.Handover = []byte("there") }},
		"prompt logprobs":    {unchanged, func(q *dynamo.Request) { q.Sampling.PromptLogprobs = true }},
		"a short prompt":     {unchanged, func(q *dynamo.Request) { q.Tokens = q.Tokens[:60] }},
		"the holder":         {unchanged, func(q *dynamo.Request) { q.Routing.Worker = 1 }},
		"a slow link": {unchanged, func(q *dynamo.Request) { // 3 ms are assumed for any
			q.Tokens = q.Tokens[:120]
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, all, q := peers(t, c.change)
				q = to(q, "q", 2)
				if c.ask != nil {
					c.ask(q)
				}
				drain(t.Context(), r, q)
				if asked, _, _ := all[0].saw(); asked != 0 {
					t.Errorf("asked %d times", asked)
				}
				if x, _ := r.Explain("q"); len(x.Attempts) != 1 || x.Attempts[0].Fetch != nil {
					t.Errorf("explained by %+v", x.Attempts)
				}
				idle(t, r)
			})
		})
	}
}

// TestPeerScore has whoever holds a prompt be busy: others, who can fetch it, cost little
// more than it, and take requests off it; as they do not where nobody fetches.
func TestPeerScore(t *testing.T) {
	for _, fetch := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r, all, q := peers(t, func(c *router.Config, _ []router.Worker) { c.PeerFetch = fetch })
			var asking sync.WaitGroup
			busy := to(q, "busy", 1)
			busy.Tokens = text(2, 2500)
			asking.Go(func() { drain(t.Context(), r, busy) })
			synctest.Wait()
			free := to(q, "free", 0)
			drain(t.Context(), r, free)
			asking.Wait()
			x, _ := r.Explain("free")
			f := x.Attempts[0].Fetch
			if _, _, given := all[1].saw(); fetch != (f != nil && f.Outcome == "fetched") || fetch != (len(given) == 1) {
				t.Errorf("fetch %v: worker %s, %+v", fetch, x.Attempts[0].Winner, f)
			}
			idle(t, r)
		})
	}
}
