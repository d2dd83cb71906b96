package native

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/obs"
	"github.com/dynamo-go/dynamo/transfer"
)

// The ways that KV takes in these tests.
var ways = map[string]func(testing.TB, *transfer.Config){
	"local": func(testing.TB, *transfer.Config) {},
	"shm": func(_ testing.TB, c *transfer.Config) {
		c.Process = transfer.NewProcess()
		c.SocketDir = shortDir
	},
	"tcp": func(t testing.TB, c *transfer.Config) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		c.Process, c.Listener = transfer.NewProcess(), l
	},
}

var (
	oneProcess = transfer.NewProcess()
	shortDir   string // of sockets, whose paths must be short
)

// exchanger is an engine that gives KV and takes it.
type exchanger struct {
	*Engine
	moves    *exchange
	registry *obs.Registry
	stop     func() // ends its agent
}

// startExchanging runs one until the test ends.
func startExchanging(t testing.TB, m *model.Model, way string, change func(*Config)) *exchanger {
	t.Helper()
	return startAgent(t, m, way, func(*transfer.Config) {}, change)
}

// startAgent is startExchanging, with a choice about the agent.
func startAgent(t testing.TB, m *model.Model, way string, agentChange func(*transfer.Config), change func(*Config)) *exchanger {
	t.Helper()
	tc := transfer.DefaultConfig()
	tc.Name, tc.Content, tc.Key, tc.Process = "an engine", Content(m), []byte("0123456789abcdef"), oneProcess
	ways[way](t, &tc)
	agentChange(&tc)
	agent, err := transfer.New(tc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := agent.Run(ctx); err != nil {
			t.Errorf("the agent: %v", err)
		}
	})
	x := &exchanger{registry: obs.NewRegistry(), stop: func() {
		cancel()
		running.Wait()
	}}
	t.Cleanup(x.stop) // after the engine's own
	<-agent.Ready()
	c := DefaultConfig()
	c.Name, c.Blocks, c.StepTokens, c.MaxRunning = "tiny", 200, 32, 16
	c.Exchange = &Exchange{Agent: agent, Lease: 30 * time.Second, Timeout: time.Minute, Metrics: NewMetrics(x.registry)}
	change(&c)
	cache, moves, err := reserve(&c, m)
	if err != nil {
		t.Fatal(err)
	}
	x.moves = moves
	tiers, err := newTiered(&c, m, cache)
	if err != nil {
		t.Fatal(err)
	}
	if x.Engine, err = build(c, describe(&c, m.Config()), &modelForward{model: m, cache: cache}, tiers, moves); err != nil {
		t.Fatal(err)
	}
	run(t, x.Engine)
	return x
}

func prefills(c *Config) { c.Role = engine.RolePrefill }
func decodes(c *Config)  { c.Role = engine.RoleDecode }

// prefilled has e compute a prompt, and calls during with what it says, as long as it
// keeps the KV.
func prefilled(t *testing.T, e *exchanger, r *dynamo.Request, during func(ids []dynamo.TokenID, lps []dynamo.TokenLogprob, where []byte)) {
	t.Helper()
	q := *r
	q.Prefill = true
	var ids []dynamo.TokenID
	var lps []dynamo.TokenLogprob
	for chunk, err := range e.Generate(t.Context(), &q) {
		if err != nil {
			t.Fatal(err)
		}
		ids, lps = append(ids, chunk.Tokens...), append(lps, chunk.Logprobs...)
		if chunk.Handover != nil {
			during(ids, lps, slices.Clone(chunk.Handover))
			return
		}
		if chunk.Finish != dynamo.FinishNone {
			t.Fatalf("%s ends with %v, and no KV", r.ID, chunk.Finish)
		}
	}
}

// inTwo has from compute the prompt of r and to the rest.
func inTwo(t *testing.T, from, to *exchanger, r *dynamo.Request) (a enginetest.Answer) {
	t.Helper()
	prefilled(t, from, r, func(ids []dynamo.TokenID, lps []dynamo.TokenLogprob, where []byte) {
		q := *r
		q.Resume, q.Handover = slices.Concat(r.Resume, ids), where
		a = collect1(t, to.Engine, &q)
		a.Tokens, a.Logprobs = slices.Concat(ids, a.Tokens), slices.Concat(lps, a.Logprobs)
	})
	return a
}

// TestHandover asks chats of two engines in turn, one for the prompts: the answers are
// those of one engine, and nothing of a prompt is computed twice.
func TestHandover(t *testing.T) {
	shortDir = t.TempDir()
	folder := tinyFolder(t)
	requests := chats(3, 4)
	for way := range ways {
		for _, p := range []model.Precision{model.Int8, model.F32} {
			t.Run(fmt.Sprint(way, " ", p), func(t *testing.T) {
				m := loadModel(t, folder, p, 1)
				alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
				from, to := startExchanging(t, m, way, prefills), startExchanging(t, m, way, decodes)
				steps := to.Stats().Scheduler.Tokens
				want := uint64(0)
				for _, r := range requests {
					got, whole := inTwo(t, from, to, r), collect1(t, alone, r)
					if !slices.Equal(got.Tokens, whole.Tokens) || fmt.Sprint(got.Logprobs) != fmt.Sprint(whole.Logprobs) {
						t.Errorf("%s: got %v\nwant %v", r.ID, got.Tokens, whole.Tokens)
					}
					want += uint64(len(whole.Tokens) - 1)
				}
				if got := to.Stats().Scheduler.Tokens - steps; got != want {
					t.Errorf("the second engine computed %d tokens, want %d: one for each id", got, want)
				}
				checkIdle(t, from)
				checkIdle(t, to)
			})
		}
	}
}

// checkIdle checks that an engine holds nothing.
func checkIdle(t *testing.T, e *exchanger) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s := e.Stats()
		if kv := s.Scheduler.KV; s.Busy() == 0 && kv.Leases == 0 && kv.Held+kv.Partial+kv.Complete+kv.Loading == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Errorf("the engine holds %+v", kv)
			break
		}
	}
	if err := e.Check(); err != nil {
		t.Error(err)
	}
}

// taken counts what became of the KV that x was told of.
func taken(t *testing.T, x *exchanger) (n [tookCount]int) {
	t.Helper()
	for o, name := range tookNames {
		n[o] = x.metric(t, `dynamo_native_takeovers_total{outcome="`+name+`"}`)
	}
	return n
}

func (x *exchanger) metric(t testing.TB, name string) int { return int(x.seconds(t, name)) }

func (x *exchanger) seconds(t testing.TB, name string) (n float64) {
	t.Helper()
	w := httptest.NewRecorder()
	x.registry.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	_, rest, ok := strings.Cut(w.Body.String(), "\n"+name+" ")
	if _, err := fmt.Sscan(rest, &n); !ok || err != nil {
		t.Fatalf("no metric %s: %v", name, err)
	}
	return n
}

// TestHandoverFails has everything go wrong between two engines: the second one computes
// the prompt, and the answer is as ever.
func TestHandoverFails(t *testing.T) {
	shortDir = t.TempDir()
	folder, other := tinyFolder(t), t.TempDir()
	if err := fixture.TinyLlama(other, fixture.Llama{Vocab: tinyVocab, Context: tinyContext, Layers: 3, EOS: 1}); err != nil {
		t.Fatal(err)
	}
	m := loadModel(t, folder, model.F32, 1)
	alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(150), MaxTokens: 8, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: 4, Logprobs: true}}
	want := collect1(t, alone, r)
	for _, c := range []struct {
		name   string
		from   *model.Model
		agent  func(*transfer.Config)
		spoil  func(t *testing.T, from *exchanger, q *dynamo.Request)
		became took
	}{
		{"another model", loadModel(t, other, model.F32, 1), nil, nil, tookRefused},
		{"another arithmetic", loadModel(t, folder, model.Int8, 1), nil, nil, tookRefused},
		{"another cluster", nil, func(c *transfer.Config) { c.Key = []byte("another key, long enough") }, nil, tookRefused},
		{"another engine", nil, nil, func(_ *testing.T, _ *exchanger, q *dynamo.Request) {
			q.Handover = []byte(`{"engine":"mocker","tokens":5}`)
		}, tookRefused},
		{"no handover", nil, nil, func(_ *testing.T, _ *exchanger, q *dynamo.Request) { q.Handover = []byte("{") }, tookRefused},
		{"of another text", nil, nil, func(_ *testing.T, _ *exchanger, q *dynamo.Request) {
			q.Handover = rewrite(t, q.Handover, func(h *handover) { h.Tokens--; h.Blocks = h.Blocks[:blocksOf(h.Tokens)*h.perBlock()] })
		}, tookCorrupt},
		{"blocks are swapped", nil, nil, func(t *testing.T, _ *exchanger, q *dynamo.Request) {
			q.Handover = rewrite(t, q.Handover, func(h *handover) {
				b := slices.Clone(h.Blocks)
				copy(h.Blocks, b[h.perBlock():2*h.perBlock()])
				copy(h.Blocks[h.perBlock():], b[:h.perBlock()])
			})
		}, tookCorrupt},
		{"a bit flips", nil, nil, func(_ *testing.T, from *exchanger, q *dynamo.Request) {
			h, _ := readHandover(q.Handover)
			from.moves.cache.Block(int(h.place(3).block))[100] ^= 1
		}, tookCorrupt},
		{"a wrong token", nil, nil, func(t *testing.T, _ *exchanger, q *dynamo.Request) {
			q.Handover = rewrite(t, q.Handover, func(h *handover) { h.Blocks[4]++ })
		}, tookLost},
		{"the agent is gone", nil, nil, func(_ *testing.T, from *exchanger, _ *dynamo.Request) { from.stop() }, tookLost},
	} {
		for way := range ways {
			t.Run(c.name+" "+way, func(t *testing.T) {
				agent := func(*transfer.Config) {}
				if c.agent != nil {
					agent = c.agent
				}
				source := cmp.Or(c.from, m)
				from := startAgent(t, source, way, agent, prefills)
				to := startExchanging(t, m, way, decodes)
				prefilled(t, from, r, func(ids []dynamo.TokenID, lps []dynamo.TokenLogprob, where []byte) {
					q := *r
					q.Resume, q.Handover = want.Tokens[:1], where
					if c.spoil != nil {
						c.spoil(t, from, &q)
					}
					got := collect1(t, to.Engine, &q)
					if !slices.Equal(got.Tokens, want.Tokens[1:]) || fmt.Sprint(got.Logprobs) != fmt.Sprint(want.Logprobs[1:]) {
						t.Errorf("got %v, want %v", got.Tokens, want.Tokens[1:])
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

// rewrite changes a handover.
func rewrite(t *testing.T, where []byte, change func(*handover)) []byte {
	t.Helper()
	h, err := readHandover(where)
	if err != nil {
		t.Fatal(err)
	}
	change(h)
	return h.write()
}

// TestHandoverEnds has the KV kept no longer than it may be: until somebody lets go, or
// nobody has come for a while. Whoever comes later computes.
func TestHandoverEnds(t *testing.T) {
	shortDir = t.TempDir()
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(100), MaxTokens: 8, IgnoreEOS: true}
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from := startExchanging(t, m, way, func(c *Config) { prefills(c); c.Exchange.Lease = 50 * time.Millisecond })
			to := startExchanging(t, m, way, decodes)
			want := collect1(t, to.Engine, r)
			var late dynamo.Request
			prefilled(t, from, r, func(ids []dynamo.TokenID, _ []dynamo.TokenLogprob, where []byte) {
				late = *r
				late.Resume, late.Handover = ids, where
				if kv := from.Stats().Scheduler.KV; kv.Leases != 1 {
					t.Errorf("the KV is not kept: %+v", kv)
				}
				checkIdle(t, from) // it forgets by itself
			})
			to2 := startExchanging(t, m, way, decodes)
			if got := collect1(t, to2.Engine, &late); !slices.Equal(got.Tokens, want.Tokens[1:]) {
				t.Errorf("got %v, want %v", got.Tokens, want.Tokens[1:])
			}
			if got := taken(t, to2); got[tookLost] != 1 {
				t.Errorf("it became of the KV: %v", got)
			}
			if got := from.metric(t, "dynamo_native_handovers_expired_total"); got != 1 {
				t.Errorf("%v were not asked for, want 1", got)
			}
		})
	}
}

// TestHandoverLive has an engine give up its requests in the middle of their answers: they
// go on elsewhere, and nothing is computed again.
func TestHandoverLive(t *testing.T) {
	shortDir = t.TempDir()
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from, to := startExchanging(t, m, way, func(*Config) {}), startExchanging(t, m, way, func(*Config) {})
			var asking sync.WaitGroup
			var moved, all atomic.Int64
			for i := range 8 {
				r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprint(i)), Tokens: testPrompt(20 + 9*i), MaxTokens: 120, IgnoreEOS: true}
				r.Sampling = dynamo.Sampling{Temperature: float32(i % 2), Seed: uint64(i), Logprobs: i%3 == 0, FrequencyPenalty: float32(i%4) / 4}
				asking.Go(func() {
					whole, got := collect1(t, alone, r), enginetest.Answer{}
					for chunk, err := range from.Generate(t.Context(), r) {
						if err != nil {
							t.Error(err)
							return
						}
						got.Tokens, got.Logprobs = append(got.Tokens, chunk.Tokens...), append(got.Logprobs, chunk.Logprobs...)
						if len(got.Tokens) >= 10 && len(got.Tokens)-len(chunk.Tokens) < 10 {
							from.HandOver()
						}
						if chunk.Handover != nil {
							q := *r
							q.Resume, q.Handover = slices.Clone(got.Tokens), slices.Clone(chunk.Handover)
							rest := collect1(t, to.Engine, &q)
							moved.Add(1)
							got.Tokens, got.Logprobs = append(got.Tokens, rest.Tokens...), append(got.Logprobs, rest.Logprobs...)
							break
						}
					}
					all.Add(int64(len(r.Tokens) + len(whole.Tokens) - 1))
					if !slices.Equal(got.Tokens, whole.Tokens) || fmt.Sprint(got.Logprobs) != fmt.Sprint(whole.Logprobs) {
						t.Errorf("%s: got %v\nwant %v", r.ID, got.Tokens, whole.Tokens)
					}
				})
			}
			asking.Wait()
			a, b := from.Stats().Scheduler.Tokens, to.Stats().Scheduler.Tokens
			if moved.Load() == 0 || int64(a+b) != all.Load() {
				t.Errorf("%d of 8 requests moved; the engines computed %d and %d tokens, want %d together", moved.Load(), a, b, all.Load())
			}
			checkIdle(t, from)
			checkIdle(t, to)
		})
	}
}

// TestHandoverCancelled ends requests while their KV is on its way.
func TestHandoverCancelled(t *testing.T) {
	shortDir = t.TempDir()
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	for way := range ways {
		t.Run(way, func(t *testing.T) {
			from, to := startExchanging(t, m, way, prefills), startExchanging(t, m, way, decodes)
			for i := range 30 {
				r := &dynamo.Request{ID: "r", Tokens: testPrompt(30 + 5*i), MaxTokens: 8, IgnoreEOS: true}
				prefilled(t, from, r, func(ids []dynamo.TokenID, _ []dynamo.TokenLogprob, where []byte) {
					q := *r
					q.Resume, q.Handover = ids, where
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(time.Duration(i)*20*time.Microsecond, cancel)
					if _, err := enginetest.Collect(ctx, to, &q); err != nil && dynamo.KindOf(err) != dynamo.KindCancelled {
						t.Error(err)
					}
				})
			}
			checkIdle(t, from)
			checkIdle(t, to)
		})
	}
}

// Engines that exchange KV keep every other law.
func TestHandoverConformance(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	for _, change := range []func(*Config){prefills, decodes} {
		enginetest.Run(t, func(t *testing.T) enginetest.Subject {
			e := startExchanging(t, m, "local", change)
			return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: testPrompt, Idle: func() error { return idle(e.Engine) }}
		})
	}
}

func FuzzReadHandover(f *testing.F) {
	f.Add([]byte(`{"engine":"native","version":2,"agent":"AA==","memory":1,"tokens":16,"groups":1,"blocks":"AAAAAAAAAAAAAAAAAAAAAAAAAAA="}`))
	f.Add([]byte(`{"engine":"mocker"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := readHandover(b)
		if err != nil {
			return
		}
		again, err := readHandover(h.write())
		if err != nil || again.Tokens != h.Tokens || !slices.Equal(again.Blocks, h.Blocks) {
			t.Fatalf("got %+v, %v, want %+v", again, err, h)
		}
		for i := range blocksOf(h.Tokens) {
			h.place(i)
		}
	})
}

// TestHandoverTimeout has nobody answer where the KV is said to be: the prompt is computed
// when the time is over.
func TestHandoverTimeout(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	from := startAgent(t, m, "tcp", func(c *transfer.Config) { c.Advertise = silent.Addr().String() }, prefills)
	to := startExchanging(t, m, "tcp", func(c *Config) { decodes(c); c.Exchange.Timeout = 100 * time.Millisecond })
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(100), MaxTokens: 8, IgnoreEOS: true}
	want := collect1(t, from.Engine, r)
	began := time.Now()
	if got := inTwo(t, from, to, r); !slices.Equal(got.Tokens, want.Tokens) {
		t.Errorf("got %v, want %v", got.Tokens, want.Tokens)
	}
	if took := time.Since(began); took < 100*time.Millisecond || took > 30*time.Second {
		t.Errorf("it took %v, want the 100 ms that KV is waited for, and little more", took)
	}
	if got := taken(t, to); got[tookLost] != 1 {
		t.Errorf("it became of the KV: %v", got)
	}
	checkIdle(t, from)
	checkIdle(t, to)
}

// TestHandoverReuse has blocks hold one prompt after another, computed for whoever: what is
// said of them is of what they hold.
func TestHandoverReuse(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.F32, 1)
	from := startExchanging(t, m, "local", func(c *Config) { prefills(c); c.Blocks = 16 })
	to := startExchanging(t, m, "local", func(c *Config) { decodes(c); c.PrefixCaching = false })
	const rounds = 12
	for i := range rounds {
		r := &dynamo.Request{ID: "r", Tokens: testPrompt(120 + i), MaxTokens: 4, IgnoreEOS: true}
		want := enginetest.Answer{}
		if i%2 == 1 {
			want = collect1(t, from.Engine, r) // fills the blocks for itself
		} else {
			want = collect1(t, to.Engine, r)
		}
		if got := inTwo(t, from, to, r); !slices.Equal(got.Tokens, want.Tokens) {
			t.Errorf("round %d: got %v, want %v", i, got.Tokens, want.Tokens)
		}
	}
	if got := taken(t, to); got[tookTaken] != rounds {
		t.Errorf("it became of the KV: %v, want all %d taken", got, rounds)
	}
}
