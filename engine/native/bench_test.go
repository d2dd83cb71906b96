package native

import (
	"fmt"
	"sync"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
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
