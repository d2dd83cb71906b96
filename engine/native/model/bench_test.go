package model_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

// text returns n ids that look like text: the prompts of the greedy fixture, over
// and over.
func text(t testing.TB, n int) []dynamo.TokenID {
	var ids []dynamo.TokenID
	for f := readGreedy(t); len(ids) < n; {
		for _, p := range f.Prompts {
			ids = append(append(ids, p.Prompt...), p.Output...)
		}
	}
	return ids[:n]
}

// perThreads runs a benchmark with one and two threads in the default precision.
func perThreads(b *testing.B, name string, f func(b *testing.B, m *model.Model)) {
	for threads := 1; threads <= 2; threads++ {
		b.Run(fmt.Sprintf("%s/threads=%d", name, threads), func(b *testing.B) {
			f(b, load(b, fixture.SmolLM2(b), model.Int8, threads))
		})
	}
}

// rate reports tokens per second, for so many in each iteration.
func rate(b *testing.B, tokens int) {
	b.ReportMetric(float64(tokens*b.N)/b.Elapsed().Seconds(), "tok/s")
}

func BenchmarkPrefill(b *testing.B) {
	for _, n := range []int{128, 512, 1024} {
		perThreads(b, fmt.Sprint(n), func(b *testing.B, m *model.Model) {
			c := newCache(b, m, n/model.BlockSize+1)
			ids, table := text(b, n), blocks(0, n)
			var out model.Output
			for b.Loop() {
				// In chunks, as an engine's token budget cuts it.
				for at := 0; at < n; at += 512 {
					s := model.Seq{Tokens: ids[at:min(n, at+512)], Start: at, Blocks: table}
					if at+512 >= n {
						s.Logits = model.LogitsLast
					}
					forward(b, m, c, &out, s)
				}
			}
			rate(b, n)
		})
	}
}

// decode measures steps of one token for each of several sequences.
func decode(b *testing.B, m *model.Model, sequences, context int) {
	per := (context+32)/model.BlockSize + 1
	c := newCache(b, m, per*sequences)
	var out model.Output
	ids := text(b, context+32)
	batch := make([]model.Seq, sequences)
	for i := range batch {
		table := blocks(i*per, context+32)
		forward(b, m, c, &out, model.Seq{Tokens: ids[:context], Blocks: table})
		batch[i] = model.Seq{Tokens: ids[context : context+1], Start: context, Blocks: table, Logits: model.LogitsLast}
	}
	for n := 0; b.Loop(); n++ {
		for i := range batch {
			at := context + n%32
			batch[i].Start, batch[i].Tokens = at, ids[at:at+1]
		}
		if err := m.Forward(c, batch, &out); err != nil {
			b.Fatal(err)
		}
	}
	rate(b, sequences)
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{128, 1024} {
		perThreads(b, fmt.Sprint(n), func(b *testing.B, m *model.Model) { decode(b, m, 1, n) })
	}
}

func BenchmarkDecode8(b *testing.B) {
	perThreads(b, "128", func(b *testing.B, m *model.Model) { decode(b, m, 8, 128) })
}

// BenchmarkLoad reports the resident memory after loading beside the time.
func BenchmarkLoad(b *testing.B) {
	for threads := 1; threads <= 2; threads++ {
		b.Run(fmt.Sprintf("threads=%d", threads), func(b *testing.B) {
			path := fixture.SmolLM2(b)
			o := model.DefaultOptions()
			o.Threads = threads
			for b.Loop() {
				m, err := model.Load(b.Context(), path, o)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				runtime.GC()
				b.ReportMetric(residentMB(), "MB-resident")
				if err := m.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// residentMB is this process's resident memory, 0 where it cannot be told.
func residentMB() float64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	var kb float64
	if _, rest, ok := strings.Cut(string(status), "VmRSS:"); ok {
		_, _ = fmt.Sscan(rest, &kb) // 0 where it is not a number
	}
	return kb / 1024
}

// TestForwardDoesNotAllocate holds once buffers have grown.
func TestForwardDoesNotAllocate(t *testing.T) {
	for _, p := range []model.Precision{model.Int8, model.F32} {
		for _, threads := range []int{1, 2} {
			m := load(t, "testdata/tiny/llama3", p, threads)
			c := newCache(t, m, 16)
			ids, _ := wanted(t, "llama3")
			batch := []model.Seq{
				{Tokens: ids[:40], Blocks: blocks(0, 40), Logits: model.LogitsAll},
				{Tokens: ids[:1], Start: 40, Blocks: blocks(4, 41), Logits: model.LogitsLast},
			}
			var out model.Output
			n := testing.AllocsPerRun(20, func() {
				if err := m.Forward(c, batch, &out); err != nil {
					t.Fatal(err)
				}
			})
			if n != 0 {
				t.Errorf("%s with %d threads: %g allocations in a step", p, threads, n)
			}
		}
	}
}
