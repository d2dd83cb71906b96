package native

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/transfer"
)

// lentBy has e lend what it has of r, and calls during with where that is, as long as it is
// lent; empty: it has nothing.
func lentBy(t *testing.T, e *exchanger, r *dynamo.Request, during func(where []byte)) {
	t.Helper()
	q := *r
	q.Lend, q.MaxTokens, q.Sampling = true, 0, dynamo.Sampling{}
	for chunk, err := range e.Generate(t.Context(), &q) {
		switch {
		case err != nil:
			t.Fatal(err)
		case len(chunk.Tokens) > 0:
			t.Fatalf("who lends answers %v", chunk.Tokens)
		case chunk.Handover != nil:
			during(slices.Clone(chunk.Handover))
			return
		case chunk.Finish != dynamo.FinishNone:
			during(nil)
			return
		}
	}
}

// fromPeer has to serve r with what from lends of it.
func fromPeer(t *testing.T, from, to *exchanger, r *dynamo.Request) (a enginetest.Answer) {
	t.Helper()
	lentBy(t, from, r, func(where []byte) {
		q := *r
		q.Handover = where
		a = collect1(t, to.Engine, &q)
	})
	return a
}

// TestPeer asks chats of one engine, and what they go on with of another, which fetches
// what was computed by the first: the answers are those of one engine, and of what was
// fetched nothing is computed again.
func TestPeer(t *testing.T) {
	shortDir = t.TempDir()
	folder := tinyFolder(t)
	requests := chats(3, 4)
	for way := range ways {
		for _, p := range []model.Precision{model.Int8, model.F32} {
			t.Run(fmt.Sprint(way, " ", p), func(t *testing.T) {
				m := loadModel(t, folder, p, 1)
				alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
				from, to := startExchanging(t, m, way, plain), startExchanging(t, m, way, plain)
				for _, r := range requests {
					q := *r
					q.Tokens = q.Tokens[:len(q.Tokens)-10] // and goes on elsewhere
					collect1(t, from.Engine, &q)
					before := to.Stats().Scheduler.Tokens
					got, whole := fromPeer(t, from, to, r), collect1(t, alone, r)
					if !slices.Equal(got.Tokens, whole.Tokens) || fmt.Sprint(got.Logprobs) != fmt.Sprint(whole.Logprobs) {
						t.Errorf("%s: got %v\nwant %v", r.ID, got.Tokens, whole.Tokens)
					}
					held := len(q.Tokens) / model.BlockSize * model.BlockSize
					computed := int(to.Stats().Scheduler.Tokens - before)
					if want := len(r.Tokens) - held + len(got.Tokens) - 1; computed != want || got.Usage.Cached != held {
						t.Errorf("%s: %d tokens computed, want %d; %d of the prompt found, want %d", r.ID, computed, want, got.Usage.Cached, held)
					}
				}
				if got := taken(t, to); got[tookTaken] != len(requests) {
					t.Errorf("it became of the KV: %v, want %d taken", got, len(requests))
				}
				checkIdle(t, from)
				checkIdle(t, to)
			})
		}
	}
}

// TestPeerTiers has a lender whose cache has lost the prompt bring it from host memory
// first, as far as there is room, and lend nothing where that fails.
func TestPeerTiers(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(150), MaxTokens: 4, IgnoreEOS: true}
	alone := serveModel(t, m, plain)
	want := collect1(t, alone, r)
	for name, c := range map[string]struct {
		spoil func(tier.Store) tier.Store
		found int
	}{
		"host":   {nil, 144},
		"broken": {func(s tier.Store) tier.Store { return failing{s} }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			mover := startTiers(t, m, func(tc *tier.Config) {
				tc.Tiers.Host.Bytes = 100 * int64(tc.Geometry.FrameBytes())
				if c.spoil != nil {
					tc.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store { return c.spoil(s) }
				}
			})
			from := startExchanging(t, m, "local", func(c *Config) { c.Blocks, c.Tiers = 12, mover })
			to := startExchanging(t, m, "local", plain)
			collect1(t, from.Engine, r)
			other := &dynamo.Request{ID: "o", Tokens: slices.Repeat([]dynamo.TokenID{7, 9}, 90), MaxTokens: 4, IgnoreEOS: true}
			collect1(t, from.Engine, other) // takes all of the cache
			got := fromPeer(t, from, to, r)
			if !slices.Equal(got.Tokens, want.Tokens) || got.Usage.Cached != c.found {
				t.Errorf("got %v, %d found; want %v, %d", got.Tokens, got.Usage.Cached, want.Tokens, c.found)
			}
			checkIdle(t, from)
			checkIdle(t, to)
		})
	}
}

// failing is a store that gives nothing back.
type failing struct{ tier.Store }

func (failing) Get(context.Context, tier.Ref, []byte) error {
	return &dynamo.Error{Kind: dynamo.KindUnavailable, Message: "broken"}
}

// TestPeerFails has everything go wrong between two engines after the KV was lent: the
// second one computes, and the answer is as ever.
func TestPeerFails(t *testing.T) {
	shortDir = t.TempDir()
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(150), MaxTokens: 8, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: 4, Logprobs: true}}
	want := collect1(t, serveModel(t, m, plain), r)
	for _, c := range []struct {
		name   string
		agent  func(*transfer.Config)
		spoil  func(from *exchanger, h *handover)
		became took
	}{
		{"another cluster", func(c *transfer.Config) { c.Key = []byte("another key, long enough") }, nil, tookRefused},
		{"a bit flips", nil, func(from *exchanger, h *handover) { from.moves.cache.Block(int(h.place(3).block))[100] ^= 1 }, tookCorrupt},
		{"the lender dies", nil, func(from *exchanger, _ *handover) { from.stop() }, tookLost},
	} {
		for way := range ways {
			t.Run(c.name+" "+way, func(t *testing.T) {
				agent := c.agent
				if agent == nil {
					agent = func(*transfer.Config) {}
				}
				from := startAgent(t, m, way, agent, plain)
				to := startExchanging(t, m, way, plain)
				collect1(t, from.Engine, r)
				lentBy(t, from, r, func(where []byte) {
					if h, err := readHandover(where); err != nil {
						t.Fatal(err)
					} else if c.spoil != nil {
						c.spoil(from, h)
					}
					q := *r
					q.Handover = where
					got := collect1(t, to.Engine, &q)
					if !slices.Equal(got.Tokens, want.Tokens) || fmt.Sprint(got.Logprobs) != fmt.Sprint(want.Logprobs) || got.Usage.Cached != 0 {
						t.Errorf("got %v, %d found; want %v and none", got.Tokens, got.Usage.Cached, want.Tokens)
					}
				})
				if got := taken(t, to); got[c.became] != 1 || got[tookTaken] != 0 {
					t.Errorf("it became of the KV: %v, want one %s", got, tookNames[c.became])
				}
				checkIdle(t, to)
				checkIdle(t, from)
			})
		}
	}
}

// TestPeerEnds has blocks used again after they were lent: who comes late computes. An
// engine that has nothing lends nothing, and so does one that does not keep prompts.
func TestPeerEnds(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	from := startExchanging(t, m, "local", func(c *Config) { c.Blocks = 12 })
	to := startExchanging(t, m, "local", plain)
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(150), MaxTokens: 4, IgnoreEOS: true}
	lentBy(t, from, r, func(where []byte) {
		if where != nil {
			t.Errorf("lends what it has not: %s", where)
		}
	})
	want := collect1(t, from.Engine, r)
	late := *r
	lentBy(t, from, r, func(where []byte) { late.Handover = where })
	checkIdle(t, from)
	other := &dynamo.Request{ID: "o", Tokens: slices.Repeat([]dynamo.TokenID{7, 9}, 90), MaxTokens: 4, IgnoreEOS: true}
	collect1(t, from.Engine, other)
	if got := collect1(t, to.Engine, &late); !slices.Equal(got.Tokens, want.Tokens) || got.Usage.Cached != 0 {
		t.Errorf("got %v, %d found; want %v", got.Tokens, got.Usage.Cached, want.Tokens)
	}
	if got := taken(t, to); got[tookLost] != 1 {
		t.Errorf("it became of the KV: %v", got)
	}
	lentBy(t, from, r, func(where []byte) {
		if where != nil {
			t.Error("lends what it has no more")
		}
	})
	without := startExchanging(t, m, "local", func(c *Config) { c.PrefixCaching = false })
	q := *r
	q.Lend = true
	if _, err := enginetest.Collect(t.Context(), without, &q); dynamo.KindOf(err) != dynamo.KindInvalid {
		t.Errorf("an engine that keeps nothing: %v, want a refusal", err)
	}
}

// TestPeerLent has blocks that are lent stay as they are while the engine needs room, and
// its own requests wait for them or do without.
func TestPeerLent(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	from := startExchanging(t, m, "local", func(c *Config) { c.Blocks = 20 })
	to := startExchanging(t, m, "local", plain)
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(150), MaxTokens: 4, IgnoreEOS: true}
	want := collect1(t, from.Engine, r)
	lentBy(t, from, r, func(where []byte) {
		other := &dynamo.Request{ID: "o", Tokens: slices.Repeat([]dynamo.TokenID{7, 9}, 50), MaxTokens: 4, IgnoreEOS: true}
		for i := range 4 {
			other.Tokens[0] = dynamo.TokenID(10 + i)
			collect1(t, from.Engine, other)
		}
		q := *r
		q.Handover = where
		if got := collect1(t, to.Engine, &q); !slices.Equal(got.Tokens, want.Tokens) || got.Usage.Cached != 144 {
			t.Errorf("got %v, %d found; want %v, 144", got.Tokens, got.Usage.Cached, want.Tokens)
		}
	})
	checkIdle(t, from)
}

// TestPeerCancelled ends requests while what was lent is on its way.
func TestPeerCancelled(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	from, to := startExchanging(t, m, "tcp", plain), startExchanging(t, m, "tcp", plain)
	for i := range 20 {
		r := &dynamo.Request{ID: "r", Tokens: testPrompt(60 + 5*i), MaxTokens: 8, IgnoreEOS: true}
		r.Tokens[0] = dynamo.TokenID(20 + i)
		collect1(t, from.Engine, r)
		lentBy(t, from, r, func(where []byte) {
			q := *r
			q.Handover = where
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			time.AfterFunc(time.Duration(i)*20*time.Microsecond, cancel)
			if _, err := enginetest.Collect(ctx, to, &q); err != nil && dynamo.KindOf(err) != dynamo.KindCancelled {
				t.Error(err)
			}
		})
	}
	checkIdle(t, from)
	checkIdle(t, to)
}
