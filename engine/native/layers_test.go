package native

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// meddler is a store that does something to parts as they are read.
type meddler struct {
	tier.Store
	parts tier.Parts
	after func(r tier.Ref, frame []byte, from, to int)
}

func (s meddler) GetPart(ctx context.Context, r tier.Ref, frame []byte, from, to int) error {
	err := s.parts.GetPart(ctx, r, frame, from, to)
	s.after(r, frame, from, to)
	return err
}

// inTiers are tiers that bring blocks in groups of layers.
var inTiers = map[string]func(t testing.TB, c *tier.Config, frames int){
	"host": func(_ testing.TB, c *tier.Config, frames int) {
		c.Tiers.Host.Bytes = int64(frames * c.Geometry.FrameBytes())
	},
	"disk": func(t testing.TB, c *tier.Config, frames int) {
		c.Tiers.Disk.Bytes, c.Tiers.Disk.Policy = int64(frames*c.Geometry.FrameBytes()), kvbm.PolicyAlways
		c.DiskDir = filepath.Join(t.TempDir(), "disk")
	},
	"host and disk": func(t testing.TB, c *tier.Config, frames int) {
		c.Tiers.Host.Bytes, c.Tiers.Disk.Bytes = int64(8*c.Geometry.FrameBytes()), int64(frames*c.Geometry.FrameBytes())
		c.Tiers.Disk.Policy, c.DiskDir = kvbm.PolicyAlways, filepath.Join(t.TempDir(), "disk")
	},
}

// TestTierLayers has steps begin when the first layers of a prefix have come from a tier,
// alone and in a crowd: the answers are those of an engine that computes all.
func TestTierLayers(t *testing.T) {
	folder, requests := deepFolder(t), chats(3, 3)
	for _, p := range []model.Precision{model.Int8, model.F32} {
		m := loadModel(t, folder, p, 1)
		alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
		var want []enginetest.Answer
		for _, r := range requests {
			want = append(want, collect1(t, alone, r))
		}
		for name, tiers := range inTiers {
			t.Run(fmt.Sprint(p, " ", name), func(t *testing.T) {
				var n atomic.Int64
				slow := func(tier.Ref, []byte, int, int) { time.Sleep(time.Duration(n.Add(1)%7*30) * time.Microsecond) }
				mover := startTiers(t, m, func(c *tier.Config) {
					tiers(t, c, 200)
					c.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store { return meddler{s, s.(tier.Parts), slow} }
				})
				e := early(startExchanging(t, m, "local", func(c *Config) { c.Blocks, c.Tiers = 14, mover }))
				for i, r := range requests {
					got := collect1(t, e.Engine, r)
					if !slices.Equal(got.Tokens, want[i].Tokens) {
						t.Errorf("request %d: got %v, want %v", i, got.Tokens, want[i].Tokens)
					}
					same(t, i, got.Logprobs, want[i].Logprobs)
					settled(t, mover)
				}
				first := mover.Stats().Loads
				crowd := early(startExchanging(t, m, "local", func(c *Config) { c.Blocks, c.StepTokens, c.MaxRunning, c.Tiers = 24, 64, 16, mover }))
				var all sync.WaitGroup
				for i, r := range requests {
					all.Go(func() {
						got, err := enginetest.Collect(t.Context(), crowd.Engine, r)
						if err != nil || !slices.Equal(got.Tokens, want[i].Tokens) {
							t.Errorf("request %d in the crowd: got %v, %v, want %v", i, got.Tokens, err, want[i].Tokens)
						}
					})
				}
				all.Wait()
				checkIdle(t, e)
				checkIdle(t, crowd)
				if first.Overlapped == 0 || first.Failed > 0 {
					t.Errorf("the test is too weak: %+v", first)
				}
			})
		}
	}
}

// TestTierLayersDamaged damages a bit of each group of layers as it is read: the block
// counts as damaged, the request is computed from its ids, also when a step has begun with
// it, and those that are computed in the same steps do not notice.
func TestTierLayersDamaged(t *testing.T) {
	m := loadModel(t, deepFolder(t), model.F32, 1)
	alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
	g := Geometry(m)
	const body = 4096
	for _, name := range []string{"host", "disk"} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			spot, depth, was := -1, 0, -1 // a byte of a frame, and whose
			spoil := func(r tier.Ref, frame []byte, from, to int) {
				time.Sleep(50 * time.Microsecond)
				mu.Lock()
				defer mu.Unlock()
				if r.Depth == depth && from <= spot && spot < to {
					if was < 0 {
						was = int(frame[spot])
					}
					frame[spot] = byte(was) ^ 4
				}
			}
			mover := startTiers(t, m, func(c *tier.Config) {
				inTiers[name](t, c, 200)
				c.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store { return meddler{s, s.(tier.Parts), spoil} }
			})
			e := early(startExchanging(t, m, "local", func(c *Config) { c.Blocks, c.Tiers = 26, mover }))
			other := &dynamo.Request{ID: "other", Tokens: testPrompt(20), MaxTokens: 150, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: 3}}
			var beside sync.WaitGroup
			var answer enginetest.Answer
			beside.Go(func() { answer = collect1(t, e.Engine, other) })
			for group := range layerGroups {
				r := &dynamo.Request{ID: "r", Tokens: testPrompt(200 + group), MaxTokens: 8, IgnoreEOS: true, Sampling: dynamo.Sampling{Temperature: 1, Seed: uint64(group), Logprobs: true}}
				r.Tokens[0] = dynamo.TokenID(20 + group)
				want := collect1(t, alone, r)
				collect1(t, e.Engine, r)
				settled(t, mover)
				for i := range 2 {
					filler := slices.Repeat([]dynamo.TokenID{dynamo.TokenID(7 + group), dynamo.TokenID(90 + i), 30}, 80)
					collect1(t, e.Engine, &dynamo.Request{ID: "filler", Tokens: filler, MaxTokens: 1, IgnoreEOS: true})
				}
				settled(t, mover)
				mu.Lock()
				begin := 0
				if group > 0 {
					begin = g.Groups[group-1]
				}
				spot, depth, was = body+(begin+g.Groups[group])/2, group*3, -1
				mu.Unlock()
				got := collect1(t, e.Engine, r)
				if !slices.Equal(got.Tokens, want.Tokens) || fmt.Sprint(got.Logprobs) != fmt.Sprint(want.Logprobs) {
					t.Errorf("group %d: got %v, want %v", group, got.Tokens, want.Tokens)
				}
				mu.Lock()
				if spot = -1; was < 0 {
					t.Errorf("group %d was not read", group)
				}
				mu.Unlock()
				settled(t, mover)
			}
			beside.Wait()
			if want := collect1(t, alone, other); !slices.Equal(answer.Tokens, want.Tokens) {
				t.Errorf("beside: got %v\nwant %v", answer.Tokens, want.Tokens)
			}
			s := mover.Stats()
			if bad := s.Tiers[dynamo.TierHost].Corrupt + s.Tiers[dynamo.TierDisk].Corrupt; bad != layerGroups || s.Loads.Failed != layerGroups {
				t.Errorf("%d blocks were damaged, %d found; %+v", layerGroups, bad, s.Loads)
			}
			if s.Loads.Overlapped == 0 {
				t.Error("no step had begun with what was damaged later")
			}
			checkIdle(t, e)
		})
	}
}

// settled returns when the tiers write nothing any more.
func settled(t testing.TB, m *tier.Mover) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		s := m.Stats()
		n := 0
		for i := range s.Tiers {
			n += s.Tiers[i].Writes + s.Tiers[i].Reads
		}
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s)
		}
	}
}

// TestTierLayersStall has a tier fall silent when the first layers are here: the step goes
// on without the request, which is computed when the load is late.
func TestTierLayersStall(t *testing.T) {
	m := loadModel(t, deepFolder(t), model.F32, 1)
	g := Geometry(m)
	var mover *tier.Mover
	stall := func(_ tier.Ref, _ []byte, from, _ int) {
		for from >= g.Groups[1] && mover.Stats().Loads.Late == 0 { // behind the second group
			time.Sleep(time.Millisecond)
		}
	}
	mover = startTiers(t, m, func(c *tier.Config) {
		inTiers["disk"](t, c, 200)
		c.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store { return meddler{s, s.(tier.Parts), stall} }
	})
	e := early(startExchanging(t, m, "local", func(c *Config) { c.Blocks, c.Tiers = 16, mover }))
	r := &dynamo.Request{ID: "r", Tokens: testPrompt(240), MaxTokens: 8, IgnoreEOS: true}
	want := collect1(t, e.Engine, r)
	settled(t, mover)
	collect1(t, e.Engine, &dynamo.Request{ID: "filler", Tokens: slices.Repeat([]dynamo.TokenID{7, 9, 30}, 80), MaxTokens: 1, IgnoreEOS: true})
	settled(t, mover)
	if got := collect1(t, e.Engine, r); !slices.Equal(got.Tokens, want.Tokens) {
		t.Errorf("got %v, want %v", got.Tokens, want.Tokens)
	}
	if s := mover.Stats().Loads; s.Late != 1 || s.Overlapped == 0 {
		t.Errorf("%+v; want one that is late and had begun", s)
	}
	checkIdle(t, e)
}

// BenchmarkTierLayers asks two prompts in turn of an engine whose cache holds one: the KV
// of 1,008 ids comes from a tier, and a step computes the rest, 1 id or 129, as layers come
// (token1-ms) or, in turn with that, when all is there (whole-ms).
func BenchmarkTierLayers(b *testing.B) {
	m := loadModel(b, fixture.SmolLM2(b), model.Int8, 2)
	for _, name := range []string{"host", "disk"} {
		for _, rest := range []int{1, 129} {
			b.Run(fmt.Sprint(name, "/", rest), func(b *testing.B) {
				mover := startTiers(b, m, func(c *tier.Config) { inTiers[name](b, c, 170) })
				e := startExchanging(b, m, "local", func(c *Config) { c.Blocks, c.Tiers = 74, mover })
				onTime, never := e.moves.fetcher.inTime, func(time.Duration, int, int) bool { return false }
				ask := func(i, rest int) time.Duration {
					ids := make([]dynamo.TokenID, 1008+rest)
					for j := range ids {
						ids[j] = dynamo.TokenID(1000 + (i*7919+j*j*31)%40000)
					}
					for j := range rest {
						ids[1008+j] += dynamo.TokenID(time.Now().UnixNano() % 1000)
					}
					began, took := time.Now(), time.Duration(0)
					for c, err := range e.Generate(b.Context(), &dynamo.Request{Tokens: ids, MaxTokens: 1}) {
						if err != nil {
							b.Fatal(err)
						}
						if took == 0 && len(c.Tokens) > 0 {
							took = time.Since(began)
						}
					}
					return took
				}
				for range 3 {
					ask(0, 1)
					ask(1, 1)
					settled(b, mover)
				}
				var split, whole []time.Duration
				before := mover.Stats().Loads
				for b.Loop() {
					e.moves.fetcher.inTime = onTime // nothing is on its way
					split = append(split, ask(0, rest))
					settled(b, mover)
					e.moves.fetcher.inTime = never
					whole = append(whole, ask(1, rest))
					settled(b, mover)
				}
				after := mover.Stats().Loads
				b.ReportMetric(median(split).Seconds()*1000, "token1-ms")
				b.ReportMetric(median(whole).Seconds()*1000, "whole-ms")
				b.ReportMetric(float64(after.Overlapped-before.Overlapped)/float64(len(split)), "overlapped")
				b.ReportMetric(float64(after.Arrived-before.Arrived)/float64(2*len(split)), "loads")
			})
		}
	}
}
