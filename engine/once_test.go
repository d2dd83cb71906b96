package engine_test

import (
	"context"
	"errors"
	"iter"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
)

// bringing takes a second until it answers a request, and another for a second id; it fails
// those with MaxTokens 0. It notes when they came.
type bringing struct {
	mu struct {
		sync.Mutex
		came map[dynamo.RequestID]time.Duration
	}
	began time.Time
}

func (b *bringing) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		b.mu.Lock()
		b.mu.came[r.ID] = time.Since(b.began)
		b.mu.Unlock()
		for range 2 {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				yield(dynamo.Chunk{}, engine.ContextError(ctx))
				return
			}
			if r.MaxTokens == 0 {
				yield(dynamo.Chunk{}, errors.New("it fails"))
				return
			}
			if !yield(dynamo.Chunk{Tokens: []dynamo.TokenID{7}}, nil) {
				return
			}
		}
		yield(dynamo.Chunk{Finish: dynamo.FinishLength, Usage: dynamo.Usage{Completion: 2}}, nil)
	}
}

// TestBringOnce: of the requests of a group whose KV is elsewhere, one goes ahead until it
// answers, fails, or is given up; others wait for nobody.
func TestBringOnce(t *testing.T) {
	const s = time.Second
	where := []byte("there")
	group := func(id string) dynamo.Request {
		return dynamo.Request{ID: dynamo.RequestID(id), Group: "g", Handover: where, MaxTokens: 2}
	}
	failing, other, whole, alone := group("failing"), group("other"), group("whole"), group("alone")
	failing.MaxTokens, other.Group, whole.Handover, alone.Group = 0, "h", nil, ""
	for _, c := range []struct {
		name     string
		requests []dynamo.Request // one every 10 ms
		give     time.Duration    // up the first one
		want     []time.Duration
	}{
		{"one goes ahead", []dynamo.Request{group("a"), group("b"), group("c")}, 0, []time.Duration{0, s, s}},
		{"it fails", []dynamo.Request{failing, group("b"), group("c")}, 0, []time.Duration{0, s, s}},
		{"it is given up", []dynamo.Request{group("a"), group("b"), group("c")}, s / 2, []time.Duration{0, s / 2, s / 2}},
		{"others", []dynamo.Request{group("a"), other, whole, alone}, 0, []time.Duration{0, s / 100, s / 50, 3 * s / 100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bringing{began: time.Now()}
				b.mu.came = map[dynamo.RequestID]time.Duration{}
				e := engine.BringOnce(b)
				var all sync.WaitGroup
				for i, r := range c.requests {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					if i == 0 && c.give > 0 {
						time.AfterFunc(c.give, cancel)
					}
					all.Go(func() {
						_, err := enginetest.Collect(ctx, e, &r)
						if want := i == 0 && (c.give > 0 || r.MaxTokens == 0); (err != nil) != want {
							t.Errorf("%s: %v", r.ID, err)
						}
					})
					time.Sleep(s / 100)
				}
				all.Wait()
				for i, r := range c.requests {
					if got := b.mu.came[r.ID]; got != c.want[i] {
						t.Errorf("%s came after %v, want %v", r.ID, got, c.want[i])
					}
				}
			})
		})
	}
	// One that waits can be given up, and a group that is gone begins anew.
	synctest.Test(t, func(t *testing.T) {
		b := &bringing{began: time.Now()}
		b.mu.came = map[dynamo.RequestID]time.Duration{}
		e := engine.BringOnce(b)
		for i := range 2 {
			first, second := group("first"+strconv.Itoa(i)), group("second"+strconv.Itoa(i))
			var all sync.WaitGroup
			all.Go(func() {
				if _, err := enginetest.Collect(t.Context(), e, &first); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(s / 100)
			ctx, cancel := context.WithTimeout(t.Context(), s/2)
			defer cancel()
			if _, err := enginetest.Collect(ctx, e, &second); dynamo.KindOf(err) != dynamo.KindDeadline {
				t.Errorf("got %v, want the deadline", err)
			}
			all.Wait()
			if _, came := b.mu.came[second.ID]; came || b.mu.came[first.ID] != time.Duration(i)*2*s {
				t.Errorf("they came after %v", b.mu.came)
			}
		}
	})
}
