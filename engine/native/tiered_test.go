package native

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/kvbm/tiertest"
)

// startTiers runs tiers for m until the test ends.
func startTiers(t testing.TB, m *model.Model, change func(*tier.Config)) *tier.Mover {
	t.Helper()
	c := tier.DefaultConfig()
	c.Geometry, c.ClusterKey = Geometry(m), []byte("key")
	c.Recompute = kvbm.Recompute{Token: time.Second} // computing by a tiny model is quicker than any copy
	change(&c)
	return tiertest.Start(t, c)
}

// chats are requests of several users who go on with what was said, in turn, so that a
// small cache has always lost what comes next.
func chats(users, turns int) (all []*dynamo.Request) {
	said := make([][]dynamo.TokenID, users)
	system := testPrompt(40)
	for turn := range turns {
		for u := range users {
			ids := slices.Clone(system)
			if turn > 0 {
				ids = said[u]
			}
			for i := range 30 {
				ids = append(ids, dynamo.TokenID(2+(u*97+turn*31+i*i)%300))
			}
			said[u] = slices.Clone(ids)
			r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprint(u, ".", turn)), Tokens: ids, MaxTokens: 6, IgnoreEOS: true}
			if u%2 == 1 {
				r.Sampling = dynamo.Sampling{Temperature: 0.9, Seed: uint64(u + turn), Logprobs: true, TopLogprobs: 2}
			}
			all = append(all, r)
		}
	}
	return all
}

// breaking is a store that damages every n-th frame it is given, and in memory as well.
type breaking struct {
	tier.Store
	every  int64
	n, bad *atomic.Int64
}

func (s breaking) Put(ctx context.Context, r tier.Ref, frame []byte) error {
	if err := s.Store.Put(ctx, r, frame); err != nil {
		return err
	}
	n := s.n.Add(1)
	if n%s.every != 0 {
		return nil
	}
	s.bad.Add(1)
	if m, ok := s.Store.(tier.Memory); ok {
		f := m.Frame(r.Slot)
		f[len(f)-4096+int(n*131)%2000] ^= 4 // in the bytes of the block
		return nil
	}
	return s.Store.Delete(ctx, r)
}

func (s breaking) Get(ctx context.Context, r tier.Ref, frame []byte) error {
	err := s.Store.Get(ctx, r, frame)
	if n := s.n.Add(1); err == nil && n%s.every == 0 {
		s.bad.Add(1)
		frame[int(n*37)%len(frame)] ^= 1
	}
	return err
}

// TestTiers asks chats of engines whose cache holds one of them: what was said before
// comes from the tiers, of whatever sort, and the answers are those of an engine that
// computes all; also when every third frame is damaged, and after a restart.
func TestTiers(t *testing.T) {
	folder := tinyFolder(t)
	requests := chats(5, 5)
	for _, p := range []model.Precision{model.Int8, model.F32} {
		alone := serveModel(t, loadModel(t, folder, p, 1), func(c *Config) { c.PrefixCaching = false })
		var want []enginetest.Answer
		for _, r := range requests {
			want = append(want, collect1(t, alone, r))
		}
		m := loadModel(t, folder, p, 2)
		g := Geometry(m)
		frame := int64(g.FrameBytes())
		dir := t.TempDir()
		var n, bad atomic.Int64
		for _, mode := range []struct {
			name   string
			change func(*tier.Config)
		}{
			{"host", func(c *tier.Config) { c.Tiers.Host.Bytes = 100 * frame }},
			{"small host", func(c *tier.Config) { c.Tiers.Host.Bytes = 20 * frame }},
			{"host and disk", func(c *tier.Config) {
				c.Tiers.Host.Bytes, c.Tiers.Disk.Bytes, c.DiskDir = 8*frame, 200*frame, filepath.Join(dir, "a")
			}},
			{"disk", func(c *tier.Config) { c.Tiers.Disk.Bytes, c.DiskDir = 200*frame, filepath.Join(dir, "b") }},
			{"disk found again", func(c *tier.Config) { c.Tiers.Disk.Bytes, c.DiskDir = 200*frame, filepath.Join(dir, "b") }},
			{"all", func(c *tier.Config) {
				c.Tiers.Host.Bytes, c.Tiers.Disk.Bytes, c.Tiers.Remote.Bytes = 6*frame, 12*frame, 200*frame
				c.DiskDir, c.RemoteDir = filepath.Join(dir, "c"), filepath.Join(dir, "d")
			}},
			{"remote of another", func(c *tier.Config) { c.Tiers.Remote.Bytes, c.RemoteDir = 200*frame, filepath.Join(dir, "d") }},
			{"damaged", func(c *tier.Config) {
				c.Tiers.Host.Bytes, c.Tiers.Disk.Bytes, c.Tiers.Remote.Bytes = 6*frame, 12*frame, 200*frame
				c.DiskDir, c.RemoteDir = filepath.Join(dir, "e"), filepath.Join(dir, "f")
				c.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store { return breaking{s, 3, &n, &bad} }
			}},
		} {
			if p == model.F32 && mode.name != "host and disk" && mode.name != "damaged" {
				continue
			}
			t.Run(p.String()+"/"+mode.name, func(t *testing.T) {
				mover := startTiers(t, m, func(c *tier.Config) {
					c.Tiers.Disk.Policy = kvbm.PolicyAlways
					mode.change(c)
				})
				e := serveModel(t, m, func(c *Config) { c.Blocks, c.Tiers = 17, mover })
				for i, r := range requests {
					got := collect1(t, e, r)
					if !slices.Equal(got.Tokens, want[i].Tokens) {
						t.Errorf("request %d: got %v, want %v", i, got.Tokens, want[i].Tokens)
					}
					same(t, i, got.Logprobs, want[i].Logprobs)
				}
				// Another engine shares the tiers, and has many at once in too small a cache.
				crowd := host(t, m, func(c *Config) { c.Blocks, c.StepTokens, c.MaxRunning, c.Tiers = 40, 64, 16, mover })
				together(t, crowd, requests, want)
				damaged := mode.name == "damaged"
				for range 50 { // which frames are damaged, and which loaded, is chance
					if !damaged || mover.Stats().Loads.Failed > 0 {
						break
					}
					for i, r := range requests {
						same(t, i, collect1(t, e, r).Logprobs, want[i].Logprobs)
					}
				}
				if err := errors.Join(e.Check(), crowd.Check(), mover.Check()); err != nil {
					t.Error(err)
				}
				s := mover.Stats()
				t.Logf("%d of %d prompt tokens cached; %+v, %d damaged", e.Stats().CachedTokens, e.Stats().PromptTokens, s.Loads, bad.Load())
				if s.Loads.Arrived == 0 && !damaged || s.Loads.Failed == 0 && damaged {
					t.Error("the test is too weak")
				}
			})
		}
	}
}

// TestTiersStorm has callers give up at any time, while blocks are on their way, and
// ends the engine in the middle: nothing is left, and nothing is written to a cache that
// is gone.
func TestTiersStorm(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.Int8, 2)
	g := Geometry(m)
	mover := startTiers(t, m, func(c *tier.Config) {
		c.Tiers.Host.Bytes, c.Tiers.Disk.Bytes, c.Tiers.Disk.Policy = int64(20*g.FrameBytes()), int64(200*g.FrameBytes()), kvbm.PolicyAlways
		c.DiskDir = filepath.Join(t.TempDir(), "disk")
	})
	requests := chats(6, 4)
	for round := range 3 {
		e := host(t, m, func(c *Config) { c.Blocks, c.Tiers = 30, mover })
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- e.Run(ctx) }()
		var all sync.WaitGroup
		for i, r := range requests {
			all.Go(func() {
				ctx, giveUp := context.WithTimeout(t.Context(), time.Duration(1+i*i%40)*time.Millisecond)
				defer giveUp()
				_, _ = enginetest.Collect(ctx, e, r) // how it ends depends on the clock
			})
		}
		if round < 2 {
			all.Wait()
			if err := errors.Join(idle(e), e.Check()); err != nil {
				t.Error(err)
			}
		} else {
			time.Sleep(5 * time.Millisecond)
		}
		stop()
		<-ran
		all.Wait()
		if err := mover.Check(); err != nil {
			t.Error(err)
		}
	}
	alone := serveModel(t, m, func(c *Config) { c.PrefixCaching = false })
	e := serveModel(t, m, func(c *Config) { c.Blocks, c.Tiers = 30, mover })
	for i, r := range requests {
		if got, want := collect1(t, e, r), collect1(t, alone, r); !slices.Equal(got.Tokens, want.Tokens) {
			t.Errorf("request %d: got %v, want %v", i, got.Tokens, want.Tokens)
		}
	}
}

// TestTiersOfAnother refuses tiers whose blocks are another model's.
func TestTiersOfAnother(t *testing.T) {
	folder := tinyFolder(t)
	mover := startTiers(t, loadModel(t, folder, model.Int8, 1), func(c *tier.Config) { c.Tiers.Host.Bytes = 1 << 20 })
	c := DefaultConfig()
	c.Name, c.Blocks, c.Tiers = "tiny", 20, mover
	_, err := New(c, loadModel(t, folder, model.F32, 1))
	if dynamo.KindOf(err) != dynamo.KindInvalid || !strings.Contains(err.Error(), "int8") || !strings.Contains(err.Error(), "f32") {
		t.Errorf("got %v, want a refusal that names both", err)
	}
}

// TestConformanceTiers is the conformance of an engine with a small cache above tiers.
func TestConformanceTiers(t *testing.T) {
	m := loadModel(t, tinyFolder(t), model.Int8, 2)
	g := Geometry(m)
	enginetest.Run(t, func(t *testing.T) enginetest.Subject {
		mover := startTiers(t, m, func(c *tier.Config) {
			c.Tiers.Host.Bytes, c.Tiers.Disk.Bytes = int64(10*g.FrameBytes()), int64(100*g.FrameBytes())
			c.DiskDir = filepath.Join(t.TempDir(), "disk")
		})
		e := serveModel(t, m, func(c *Config) { c.Blocks, c.StepTokens, c.Tiers = 40, 64, mover })
		return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: testPrompt, Idle: func() error { return idle(e) }}
	})
}
