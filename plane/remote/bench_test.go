package remote_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/echo"
)

// BenchmarkFirstToken measures the time from the request to its first token, one
// request at a time, of an engine here and over each kind of socket.
func BenchmarkFirstToken(b *testing.B) {
	for _, over := range []string{"local", overTCP, overUnix} {
		b.Run(over, func(b *testing.B) {
			s := echoService(b, func(c *echo.Config) { c.ContextLength = 8192 })
			e := s.Engine
			if over != "local" {
				e = connect(b, over, s, nil)
			}
			r := &dynamo.Request{ID: "r", Model: "echo", Tokens: prompt(500), MaxTokens: 1, IgnoreEOS: true}
			var took []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				for _, err := range e.Generate(b.Context(), r) {
					if took = append(took, time.Since(began)); err != nil {
						b.Fatal(err)
					}
				}
			}
			slices.Sort(took)
			at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Nanoseconds()) / 1000 }
			b.ReportMetric(at(0.5), "p50-µs")
			b.ReportMetric(at(0.99), "p99-µs")
		})
	}
}

// BenchmarkStreams measures the CPU time of both sides per token of 64 answers at
// once: as fast as they go, and in step at 10 ms a token.
func BenchmarkStreams(b *testing.B) {
	for _, itl := range []time.Duration{0, 10 * time.Millisecond} {
		for _, over := range []string{"local", overTCP, overUnix} {
			b.Run(fmt.Sprintf("itl=%v/%s", itl, over), func(b *testing.B) {
				const streams, tokens = 64, 100
				s := echoService(b, func(c *echo.Config) { c.ITL = itl })
				e := s.Engine
				if over != "local" {
					e = connect(b, over, s, nil)
				}
				n := 0
				before := cpuTime()
				for b.Loop() {
					n += streams * tokens
					var all sync.WaitGroup
					for range streams {
						all.Go(func() { drainAnswer(b, b.Context(), e, tokens) })
					}
					all.Wait()
				}
				b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(n), "cpu-ns/token")
				b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "tokens/s")
			})
		}
	}
}

func drainAnswer(b *testing.B, ctx context.Context, e engine.Engine, tokens int) {
	r := &dynamo.Request{ID: "r", Tokens: prompt(100), MaxTokens: tokens, IgnoreEOS: true}
	for _, err := range e.Generate(ctx, r) {
		if err != nil {
			b.Error(err)
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestAllocations checks that a token costs none on either side.
func TestAllocations(t *testing.T) {
	u := connect(t, overTCP, echoService(t, nil), nil)
	ask := func(n int) float64 {
		r := &dynamo.Request{ID: "r", Tokens: prompt(20), MaxTokens: n, IgnoreEOS: true}
		return testing.AllocsPerRun(20, func() {
			for _, err := range u.Generate(t.Context(), r) {
				if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	few, many := ask(20), ask(420)
	t.Logf("%v allocations for 20 tokens, %v for 420", few, many)
	if perToken := (many - few) / 400; perToken > 0.05 {
		t.Errorf("%.2f allocations per token", perToken)
	}
}
