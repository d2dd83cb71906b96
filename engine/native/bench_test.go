package native

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

const benchSteps = 32

// BenchmarkDecode compares the engine with the bare model on SmolLM2: tokens per
// second of 1 and 8 sequences behind prompts of 128 ids.
func BenchmarkDecode(b *testing.B) {
	path := fixture.SmolLM2(b)
	for _, threads := range []int{1, 2} {
		m := loadModel(b, path, model.Int8, threads)
		for _, n := range []int{1, 8} {
			b.Run(fmt.Sprintf("threads=%d/sequences=%d/model", threads, n), func(b *testing.B) { benchModel(b, m, n) })
			for name, s := range map[string]dynamo.Sampling{"greedy": {}, "T=1": {Temperature: 1}} {
				b.Run(fmt.Sprintf("threads=%d/sequences=%d/engine %s", threads, n, name), func(b *testing.B) { benchEngine(b, m, n, s) })
			}
		}
	}
}

func benchPrompt(i int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, 128)
	for j := range ids {
		ids[j] = dynamo.TokenID(1000 + (i*7919+j*j*31)%40000)
	}
	return ids
}

func benchModel(b *testing.B, m *model.Model, n int) {
	const length = 128 + benchSteps
	per := (length + model.BlockSize - 1) / model.BlockSize
	cache, err := m.NewCache(n * per)
	if err != nil {
		b.Fatal(err)
	}
	defer cache.Close()
	var out model.Output
	batch := make([]model.Seq, n)
	for i := range batch {
		blocks := make([]int32, per)
		for j := range blocks {
			blocks[j] = int32(i*per + j)
		}
		batch[i] = model.Seq{Tokens: benchPrompt(i), Blocks: blocks, Logits: model.LogitsLast}
	}
	if err := m.Forward(cache, batch, &out); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for step := range benchSteps {
			for i := range batch {
				batch[i].Start, batch[i].Tokens = 128+step, benchPrompt(i)[step:step+1]
			}
			if err := m.Forward(cache, batch, &out); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N*benchSteps*n)/b.Elapsed().Seconds(), "tok/s")
}

// benchEngine lets prompts be found in the cache, so that steps decode; the first
// token of an answer computes what is behind the last full block.
func benchEngine(b *testing.B, m *model.Model, n int, s dynamo.Sampling) {
	e := serveModel(b, m, plain)
	ask := func() {
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() {
				r := &dynamo.Request{Tokens: benchPrompt(i), MaxTokens: benchSteps, IgnoreEOS: true, Sampling: s}
				for _, err := range e.Generate(b.Context(), r) {
					if err != nil {
						b.Error(err)
					}
				}
			})
		}
		all.Wait()
	}
	ask()
	for b.Loop() {
		ask()
	}
	b.ReportMetric(float64(b.N*benchSteps*n)/b.Elapsed().Seconds(), "tok/s")
}

// BenchmarkPrefill computes prompts nobody asked for before.
func BenchmarkPrefill(b *testing.B) {
	m := loadModel(b, fixture.SmolLM2(b), model.Int8, 2)
	for _, length := range []int{128, 512, 1024} {
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			e := serveModel(b, m, func(c *Config) { c.PrefixCaching = false })
			prompt := make([]dynamo.TokenID, length)
			for i := range prompt {
				prompt[i] = dynamo.TokenID(1000 + i*31%40000)
			}
			for b.Loop() {
				for _, err := range e.Generate(b.Context(), &dynamo.Request{Tokens: prompt, MaxTokens: 1}) {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N*length)/b.Elapsed().Seconds(), "tok/s")
		})
	}
}

// BenchmarkTurn measures the engine without a model: nanoseconds per token.
func BenchmarkTurn(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("sequences=%d", n), func(b *testing.B) {
			h := newHashing(b, 4000)
			h.still = true
			e := start(b, h, func(c *Config) { c.MaxRunning, c.StepTokens = 64, 512 })
			b.ReportAllocs()
			for b.Loop() {
				var all sync.WaitGroup
				for range n {
					all.Go(func() {
						for range e.Generate(b.Context(), &dynamo.Request{Tokens: testPrompt(20), MaxTokens: 100, IgnoreEOS: true}) {
						}
					})
				}
				all.Wait()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*100*n), "ns/token")
		})
	}
}

// BenchmarkFirstToken asks two prompts of 1,009 ids in turn of an engine whose cache
// holds one: the first token comes after computing all, or after the KV of 1,008 has come
// from a tier.
func BenchmarkFirstToken(b *testing.B) {
	m := loadModel(b, fixture.SmolLM2(b), model.Int8, 2)
	g := Geometry(m)
	size := int64(150 * g.FrameBytes())
	for _, mode := range []struct {
		name   string
		blocks int
		change func(*tier.Config)
	}{
		{"computed", 66, nil},
		{"device", 200, nil},
		{"host", 66, func(c *tier.Config) { c.Tiers.Host.Bytes = size }},
		{"disk", 66, func(c *tier.Config) {
			c.Tiers.Disk.Bytes, c.Tiers.Disk.Policy, c.DiskDir = size, kvbm.PolicyAlways, b.TempDir()
		}},
		{"remote", 66, func(c *tier.Config) { c.Tiers.Remote.Bytes, c.RemoteDir = size, b.TempDir() }},
	} {
		b.Run(mode.name, func(b *testing.B) {
			e := serveModel(b, m, func(c *Config) {
				c.Blocks = mode.blocks
				if mode.change != nil {
					c.Tiers = startTiers(b, m, mode.change)
				}
			})
			ask := func(i int) (cached int) {
				ids := make([]dynamo.TokenID, 1009)
				for j := range ids {
					ids[j] = dynamo.TokenID(1000 + (i*7919+j*j*31)%40000)
				}
				for c, err := range e.Generate(b.Context(), &dynamo.Request{Tokens: ids, MaxTokens: 1}) {
					if err != nil {
						b.Fatal(err)
					}
					cached = max(cached, c.Cached)
				}
				return cached
			}
			for range 4 { // stores without a host tier take some blocks at a time
				ask(0)
				ask(1)
				time.Sleep(300 * time.Millisecond)
			}
			n, cached := 0, 0
			for b.Loop() {
				cached += ask(n % 2)
				n++
			}
			b.ReportMetric(float64(cached)/float64(n), "cached")
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(n), "ms/token1")
		})
	}
}
