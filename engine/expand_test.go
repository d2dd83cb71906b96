package engine_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// counting yields n chunks of one id each out of a buffer it reuses.
func counting(n int, seen func(*dynamo.Request)) script {
	return func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		seen(r)
		ids := make([]dynamo.TokenID, 1)
		for i := range n {
			if ctx.Err() != nil {
				yield(dynamo.Chunk{}, engine.ContextError(ctx))
				return
			}
			c := dynamo.Chunk{Choice: r.Choice, Tokens: ids}
			ids[0] = dynamo.TokenID(1000*r.Choice + i)
			if i == n-1 {
				c.Finish = dynamo.FinishLength
			}
			if !yield(c, nil) {
				return
			}
			ids[0] = 0 // whoever still looks at it sees it
		}
	}
}

func TestExpand(t *testing.T) {
	var mu sync.Mutex
	var ids []string
	e := engine.Expand(counting(50, func(r *dynamo.Request) {
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, fmt.Sprintf("%s of %s, n=%d, choice %d", r.ID, r.Group, r.N, r.Choice))
	}))
	got := make([][]dynamo.TokenID, 3)
	finished := 0
	r := &dynamo.Request{ID: "r", N: 3, Tokens: []dynamo.TokenID{1}}
	for c, err := range e.Generate(t.Context(), r) {
		if err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
		got[c.Choice] = append(got[c.Choice], c.Tokens...)
		if c.Finish != dynamo.FinishNone {
			finished++
		}
	}
	for choice, tokens := range got {
		for i, id := range tokens {
			if id != dynamo.TokenID(1000*choice+i) {
				t.Fatalf("choice %d: got %d at %d", choice, id, i)
			}
		}
		if len(tokens) != 50 {
			t.Errorf("choice %d has %d ids, want 50", choice, len(tokens))
		}
	}
	if finished != 3 {
		t.Errorf("%d choices finished, want 3", finished)
	}
	want := []string{"r/0 of r, n=1, choice 0", "r/1 of r, n=1, choice 1", "r/2 of r, n=1, choice 2"}
	if ids[0] != want[0] {
		t.Errorf("%s went first, want %s", ids[0], want[0])
	}
	slices.Sort(ids)
	if !slices.Equal(ids, want) {
		t.Errorf("got requests %q, want %q", ids, want)
	}
	if r.N != 3 || r.ID != "r" {
		t.Errorf("the request was changed: %+v", r)
	}
}

func TestExpandPassesOneThrough(t *testing.T) {
	e := counting(1, func(*dynamo.Request) {})
	for _, n := range []int{0, 1} {
		r := &dynamo.Request{N: n}
		plain := testing.AllocsPerRun(100, func() { _ = outcome(t.Context(), e, r) })
		if through := testing.AllocsPerRun(100, func() { _ = outcome(t.Context(), engine.Expand(e), r) }); through > plain+1 {
			t.Errorf("n=%d: %v allocations through Expand, %v without", n, through, plain)
		}
	}
}

// TestExpandEnds breaks, cancels and fails at every point; the bubble fails if a
// goroutine is left.
func TestExpandEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := errors.New("out of luck")
		slow := func(fail int) script {
			return func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				for i := range 5 {
					select {
					case <-time.After(time.Millisecond):
					case <-ctx.Done():
						yield(dynamo.Chunk{}, engine.ContextError(ctx))
						return
					}
					if r.Choice == 1 && i == fail {
						yield(dynamo.Chunk{}, failure)
						return
					}
					if !yield(dynamo.Chunk{Tokens: []dynamo.TokenID{7}}, nil) {
						return
					}
				}
			}
		}
		for n := range 21 {
			got := 0
			for range engine.Expand(slow(-1)).Generate(t.Context(), &dynamo.Request{N: 4}) {
				if got++; got > n {
					break
				}
			}
			if want := min(n+1, 20); got != want {
				t.Fatalf("got %d chunks, want %d", got, want)
			}

			ctx, cancel := context.WithCancel(t.Context())
			got = 0
			var last error
			for _, err := range engine.Expand(slow(-1)).Generate(ctx, &dynamo.Request{N: 4}) {
				if last != nil {
					t.Fatal("a pair after the error")
				}
				if last = err; got >= n {
					cancel()
				}
				got++
			}
			if n < 10 && dynamo.KindOf(last) != dynamo.KindCancelled {
				t.Fatalf("cancelled after %d chunks: got %v", n, last)
			}
			cancel()
		}
		for fail := range 5 {
			if err := outcome(t.Context(), engine.Expand(slow(fail)), &dynamo.Request{N: 4}); !errors.Is(err, failure) {
				t.Fatalf("got %v, want the failing choice's error", err)
			}
		}
	})
}

func TestExpandPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if got := recover(); got != "BUG: here" {
				t.Errorf("recovered %v in the caller's goroutine, want the engine's panic", got)
			}
		}()
		_ = outcome(t.Context(), engine.Expand(script(func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			if r.Choice == 2 {
				panic("BUG: here")
			}
			yield(dynamo.Chunk{}, nil)
			<-ctx.Done()
		})), &dynamo.Request{N: 4})
	})
}

func TestExpandLimit(t *testing.T) {
	err := outcome(t.Context(), engine.Expand(counting(1, func(*dynamo.Request) {})), &dynamo.Request{N: engine.MaxChoices + 1})
	if e := wantKind(t, err, dynamo.KindInvalid); e.Param != "n" {
		t.Errorf("got param %q, want n", e.Param)
	}
}

func BenchmarkExpand(b *testing.B) {
	for _, n := range []int{1, 2, 8} {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			e := engine.Expand(counting(1000, func(*dynamo.Request) {}))
			r := &dynamo.Request{N: n}
			for b.Loop() {
				_ = outcome(b.Context(), e, r)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(1000*n), "ns/token")
		})
	}
}
