package echo_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/echo"
	"github.com/dynamo-go/dynamo/engine/enginetest"
)

func open(t *testing.T, change func(*echo.Config)) *echo.Engine {
	t.Helper()
	c := echo.DefaultConfig()
	c.ContextLength, c.VocabSize, c.EOS = 512, 1000, []dynamo.TokenID{2, 3}
	change(&c)
	e, err := echo.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func prompt(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(10 + (n*7+i*i)%900)
	}
	return ids
}

func TestConformance(t *testing.T) {
	for _, mode := range []struct {
		name   string
		change func(*echo.Config)
	}{
		{"at once", func(*echo.Config) {}},
		{"in chunks", func(c *echo.Config) { c.ChunkTokens = 3 }},
		{"paced", func(c *echo.Config) { c.ITL = 50 * time.Microsecond }},
	} {
		t.Run(mode.name, func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				e := open(t, mode.change)
				return enginetest.Subject{Engine: e, Card: e.Card(), Prompt: prompt}
			})
		})
	}
	t.Run("behind decorators", func(t *testing.T) {
		enginetest.Run(t, func(t *testing.T) enginetest.Subject {
			e := open(t, func(*echo.Config) {})
			a, err := engine.NewAdmit(engine.Expand(e), engine.AdmitConfig{MaxRunning: 3, MaxQueue: 100})
			if err != nil {
				t.Fatal(err)
			}
			idle := func() error {
				if s := a.Stats(); s.Running+s.Queued > 0 {
					return fmt.Errorf("admitted: %+v", s)
				}
				return nil
			}
			return enginetest.Subject{Engine: a, Card: e.Card(), Prompt: prompt, Idle: idle}
		})
	})
}

func TestEcho(t *testing.T) {
	ids := func(n ...dynamo.TokenID) []dynamo.TokenID { return n }
	for _, c := range []struct {
		name   string
		r      dynamo.Request
		want   []dynamo.TokenID
		finish dynamo.FinishReason
	}{
		{"wraps around", dynamo.Request{Tokens: ids(5, 6, 7), MaxTokens: 5}, ids(5, 6, 7, 5, 6), dynamo.FinishLength},
		{"passes over the end of sequence", dynamo.Request{Tokens: ids(2, 5, 3, 6), MaxTokens: 4}, ids(5, 6, 5, 6), dynamo.FinishLength},
		{"keeps it when ignored", dynamo.Request{Tokens: ids(2, 5), MaxTokens: 3, IgnoreEOS: true}, ids(2, 5, 2), dynamo.FinishLength},
		{"has nothing else", dynamo.Request{Tokens: ids(2, 3), MaxTokens: 3}, ids(3), dynamo.FinishStop},
		{"stop id is last", dynamo.Request{Tokens: ids(5, 6, 7), MaxTokens: 9, StopTokens: ids(6)}, ids(5, 6), dynamo.FinishStop},
		{"stop id before MinTokens", dynamo.Request{Tokens: ids(5, 6, 7), MaxTokens: 9, StopTokens: ids(6), MinTokens: 3}, ids(5, 7, 5, 6), dynamo.FinishStop},
		{"resumes", dynamo.Request{Tokens: ids(5, 2, 6, 7), MaxTokens: 5, Resume: ids(5, 6)}, ids(7, 5, 6), dynamo.FinishLength},
		{"asks for nothing", dynamo.Request{Tokens: ids(5)}, nil, dynamo.FinishLength},
	} {
		a, err := enginetest.Collect(t.Context(), open(t, func(*echo.Config) {}), &c.r)
		if err != nil || !slices.Equal(a.Tokens, c.want) || a.Finish != c.finish {
			t.Errorf("%s: got %v, %v, error %v; want %v, %v", c.name, a.Tokens, a.Finish, err, c.want, c.finish)
		}
	}
}

func TestChunks(t *testing.T) {
	r := dynamo.Request{Tokens: prompt(10), MaxTokens: 100}
	for tokens, want := range map[int]int{1: 100, 8: 13, 100: 1, 1000: 1} {
		a, err := enginetest.Collect(t.Context(), open(t, func(c *echo.Config) { c.ChunkTokens = tokens }), &r)
		if err != nil || a.Chunks != want {
			t.Errorf("%d tokens a chunk: got %d chunks, error %v; want %d", tokens, a.Chunks, err, want)
		}
	}
}

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const itl = 20 * time.Millisecond
		e := open(t, func(c *echo.Config) { c.ITL = itl; c.ChunkTokens = 8 })
		began, n := time.Now(), time.Duration(0)
		for _, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: prompt(3), MaxTokens: 50}) {
			if err != nil {
				t.Fatal(err)
			}
			if n++; time.Since(began) != n*itl {
				t.Fatalf("chunk %d came after %v, want %v", n, time.Since(began), n*itl)
			}
			if n == 10 {
				time.Sleep(itl / 2) // a slow reader is caught up with
			}
		}
		if n != 50 {
			t.Fatalf("got %d chunks, want 50", n)
		}
	})
}

func TestPacedDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t, func(c *echo.Config) { c.ITL = time.Second })
		r := dynamo.Request{Tokens: prompt(3), MaxTokens: 50, Deadline: time.Now().Add(3500 * time.Millisecond)}
		a, err := enginetest.Collect(t.Context(), e, &r)
		if dynamo.KindOf(err) != dynamo.KindDeadline || len(a.Tokens) != 3 || time.Now().After(r.Deadline) {
			t.Errorf("deadline: got %d ids, error %v, %v late", len(a.Tokens), err, time.Since(r.Deadline))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		r.Deadline = time.Time{}
		a, err = enginetest.Collect(ctx, e, &r)
		if dynamo.KindOf(err) != dynamo.KindDeadline || len(a.Tokens) != 1 {
			t.Errorf("context: got %d ids, error %v", len(a.Tokens), err)
		}
	})
}

func TestConfig(t *testing.T) {
	if _, err := echo.New(echo.Config{ITL: -1}); err == nil {
		t.Fatal("a config of nothing is accepted")
	}
}

func TestAllocations(t *testing.T) {
	e := open(t, func(*echo.Config) {})
	ask := func(n int) float64 {
		r := dynamo.Request{Tokens: prompt(3), MaxTokens: n}
		return testing.AllocsPerRun(10, func() {
			for range e.Generate(t.Context(), &r) {
			}
		})
	}
	if few, many := ask(2), ask(400); many > few {
		t.Errorf("%v allocations for 400 tokens, %v for 2; want no more per token", many, few)
	}
}

func BenchmarkToken(b *testing.B) {
	c := echo.DefaultConfig()
	e, err := echo.New(c)
	if err != nil {
		b.Fatal(err)
	}
	r := dynamo.Request{Tokens: prompt(100), MaxTokens: 1000}
	for b.Loop() {
		for range e.Generate(b.Context(), &r) {
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/token")
}
