package disagg_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/disagg"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/mocker"
	"github.com/dynamo-go/dynamo/perfmodel"
)

const vocab = 300

// mock runs a mocker until the test ends.
func mock(t testing.TB, role string, change func(*mocker.Config)) *mocker.Engine {
	t.Helper()
	c := mocker.DefaultConfig()
	c.Name, c.ContextLength, c.VocabSize, c.EOS, c.Role = "mock", 160, vocab, []dynamo.TokenID{1, 7}, role
	c.BlockSize, c.Blocks, c.StepTokens, c.MaxRunning, c.MaxQueue, c.Speedup = 4, 400, 48, 16, 64, 0
	if change != nil {
		change(&c)
	}
	e, err := mocker.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ran
	})
	return e
}

func idle(all ...*mocker.Engine) error {
	var faults []error
	for i, e := range all {
		s := e.Stats()
		if kv := s.Scheduler.KV; s.Busy() > 0 || kv.Partial+kv.Complete+kv.Held+kv.Loading+kv.Leases > 0 {
			faults = append(faults, fmt.Errorf("engine %d: %d requests, blocks %+v", i, s.Busy(), kv))
		}
		faults = append(faults, e.Check())
	}
	return errors.Join(faults...)
}

func compose(t testing.TB, c disagg.Config) *disagg.Engine {
	t.Helper()
	e, err := disagg.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func prompt(n int) []dynamo.TokenID {
	ids := make([]dynamo.TokenID, n)
	for i := range ids {
		ids[i] = dynamo.TokenID(8 + (n*31+i*i*7+i)%(vocab-8))
	}
	return ids
}

func TestConformance(t *testing.T) {
	never := func() bool { return false }
	for _, mode := range []struct {
		name   string
		change func(*mocker.Config)
		config disagg.Config
	}{
		{"both", nil, disagg.Config{}},
		{"time", func(c *mocker.Config) {
			c.Speedup, c.Model = 1, &perfmodel.ClosedForm{PrefillFixedSeconds: 5e-5, DecodeFixedSeconds: 5e-5}
		}, disagg.Config{}},
		{"small pools", func(c *mocker.Config) { c.Blocks, c.MaxRunning, c.StepTokens = 42, 3, 5 }, disagg.Config{}},
		{"KV that does not come", func(c *mocker.Config) { c.Faults.Transfer = 0.5 }, disagg.Config{}},
		{"no prefill side", nil, disagg.Config{HasPrefill: never}},
		{"no decode side", nil, disagg.Config{HasDecode: never}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			enginetest.Run(t, func(t *testing.T) enginetest.Subject {
				p, d := mock(t, engine.RolePrefill, mode.change), mock(t, engine.RoleDecode, mode.change)
				c := mode.config
				c.Prefill, c.Decode = p, d
				return enginetest.Subject{Engine: compose(t, c), Card: d.Card(), Prompt: prompt, Idle: func() error { return idle(p, d) }}
			})
		})
	}
}

// placed tells which worker has a request, as a router does.
type placed struct {
	engine.Engine
	worker dynamo.WorkerID
}

func (p placed) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) {
		engine.PlacedAt(ctx, engine.Place{Worker: p.worker})
		p.Engine.Generate(ctx, r)(yield)
	}
}

// A trip names the worker of each part.
func TestTrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, d := placed{mock(t, engine.RolePrefill, nil), 3}, placed{mock(t, engine.RoleDecode, nil), 7}
		for _, c := range []struct {
			apart           bool
			prefill, decode dynamo.WorkerID
		}{{true, 3, 7}, {false, 0, 7}} {
			var trip engine.Trip
			e := compose(t, disagg.Config{Prefill: p, Decode: d, HasPrefill: func() bool { return c.apart }})
			if _, err := enginetest.Collect(engine.WithTrip(t.Context(), &trip), e, &dynamo.Request{Tokens: prompt(40), MaxTokens: 3, IgnoreEOS: true}); err != nil {
				t.Fatal(err)
			}
			if trip.Prefill.Worker != c.prefill || trip.Decode.Worker != c.decode {
				t.Errorf("the prompt was at worker %d, the answer at %d; want %d and %d", trip.Prefill.Worker, trip.Decode.Worker, c.prefill, c.decode)
			}
		}
	})
}

// The prompt is computed on one side, the rest on the other, which takes the KV; the
// answer is that of one engine.
func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := mock(t, "", nil)
		timed := func(c *mocker.Config) {
			c.Speedup, c.Model = 1, &perfmodel.ClosedForm{PrefillFixedSeconds: 1, DecodeFixedSeconds: 0.01}
			c.KVBytesPerToken, c.TransferBandwidth, c.StepTokens = 1000, 1e6, 200
		}
		p, d := mock(t, engine.RolePrefill, timed), mock(t, engine.RoleDecode, timed)
		e := compose(t, disagg.Config{Prefill: p, Decode: d})
		for i, r := range []*dynamo.Request{
			{Tokens: prompt(100), MaxTokens: 10, IgnoreEOS: true},
			{Tokens: prompt(50), Resume: []dynamo.TokenID{9, 9, 9}, MaxTokens: 10, IgnoreEOS: true, Choice: 1},
			{Tokens: prompt(20), MaxTokens: 10, Sampling: dynamo.Sampling{Temperature: 1, Seed: 5, Logprobs: true, TopLogprobs: 2}, IgnoreEOS: true},
		} {
			want, err := enginetest.Collect(t.Context(), whole, r)
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			var at []time.Duration
			for chunk, err := range e.Generate(t.Context(), r) {
				if err != nil || chunk.Handover != nil {
					t.Fatal(chunk, err)
				}
				for range chunk.Tokens {
					at = append(at, time.Since(began))
				}
			}
			n := len(r.Tokens) + len(r.Resume)
			if got, want := at[1]-at[0], time.Duration(n)*time.Millisecond+10*time.Millisecond; at[0] != time.Second || got != want {
				t.Errorf("request %d: first id after %v, the second %v later; want 1s, %v", i, at[0], got, want)
			}
			got, err := enginetest.Collect(t.Context(), e, r)
			if err != nil || !slices.Equal(got.Tokens, want.Tokens) || got.Finish != want.Finish || got.Usage.Completion != want.Usage.Completion || got.Usage.Prompt != want.Usage.Prompt {
				t.Errorf("request %d: got %+v, %v; want %+v", i, got, err, want)
			}
			if cached := (n - 1) / 4 * 4; got.Usage.Cached != min(cached, len(r.Tokens)) {
				t.Errorf("request %d again: %d ids of the prompt found, want %d", i, got.Usage.Cached, cached)
			}
		}
		if in, out := p.Stats().OutputTokens, d.Stats().OutputTokens; in != 6 || out != 9+9+6+6+9+9 {
			t.Errorf("the prefill side drew %d ids, the decode side %d", in, out)
		}
		if err := idle(p, d); err != nil {
			t.Error(err)
		}
	})
}

// answer is an engine that does as a function says.
type answer func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool)

func (a answer) Generate(ctx context.Context, r *dynamo.Request) iter.Seq2[dynamo.Chunk, error] {
	return func(yield func(dynamo.Chunk, error) bool) { a(ctx, r, yield) }
}

func fails(kind dynamo.Kind, code string) answer {
	return func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
		yield(dynamo.Chunk{}, &dynamo.Error{Kind: kind, Code: code, Message: "it fails"})
	}
}

// Whatever the prefill side does before it has said where the KV is, the answer comes
// whole and once.
func TestPrefillFails(t *testing.T) {
	whole := mock(t, "", nil)
	r := &dynamo.Request{ID: "r", Tokens: prompt(30), MaxTokens: 8, IgnoreEOS: true}
	want, err := enginetest.Collect(t.Context(), whole, r)
	if err != nil {
		t.Fatal(err)
	}
	first := dynamo.Chunk{Tokens: want.Tokens[:1], Cached: 4}
	for name, c := range map[string]struct {
		prefill answer
		cached  int
	}{
		"lost":         {fails(dynamo.KindUnavailable, engine.CodeLost), 0},
		"refused":      {fails(dynamo.KindExhausted, engine.CodeRefused), 0},
		"no worker":    {fails(dynamo.KindUnavailable, engine.CodeNoWorker), 0},
		"a bug":        {fails(dynamo.KindInternal, ""), 0},
		"its own pool": {fails(dynamo.KindInvalid, "context_length_exceeded"), 0},
		"nothing":      {func(context.Context, *dynamo.Request, func(dynamo.Chunk, error) bool) {}, 0},
		"lost after an id": {func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			_ = yield(first, nil) && yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "lost"})
		}, 4},
		"no handover": {func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			yield(dynamo.Chunk{Tokens: want.Tokens[:1], Cached: 4, Finish: dynamo.FinishLength, Usage: dynamo.Usage{Prompt: 30, Cached: 4, Completion: 1}}, nil)
		}, 4},
		"a handover with the end": {func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			yield(dynamo.Chunk{Tokens: want.Tokens[:1], Handover: []byte("?"), Finish: dynamo.FinishLength, Usage: dynamo.Usage{Prompt: 30, Cached: 4, Completion: 1}}, nil)
		}, 4},
		"a handover behind the id": {func(_ context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			_ = yield(first, nil) && yield(dynamo.Chunk{Handover: []byte("?")}, nil)
		}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			d := mock(t, engine.RoleDecode, nil)
			prefill := func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
				if !r.Prefill || r.Handover != nil {
					t.Errorf("asked for %+v", r)
				}
				c.prefill(ctx, r, yield)
			}
			got, err := enginetest.Collect(t.Context(), compose(t, disagg.Config{Prefill: answer(prefill), Decode: d}), r)
			if err != nil || !slices.Equal(got.Tokens, want.Tokens) || got.Finish != want.Finish || got.Usage != (dynamo.Usage{Prompt: 30, Cached: c.cached, Completion: 8}) {
				t.Errorf("got %+v, %v; want %v", got, err, want.Tokens)
			}
			if err := idle(d); err != nil {
				t.Error(err)
			}
		})
	}
	// Nor does it matter if nobody is on the decode side for the moment: that may wait.
	d := mock(t, engine.RoleDecode, nil)
	e := compose(t, disagg.Config{Prefill: fails(dynamo.KindUnavailable, engine.CodeNoWorker), Decode: d, HasDecode: func() bool { return false }})
	if got, err := enginetest.Collect(t.Context(), e, r); err != nil || !slices.Equal(got.Tokens, want.Tokens) {
		t.Errorf("nobody on the decode side: got %+v, %v; want %v", got, err, want.Tokens)
	}
	// But the prefill side's word on a whole request counts, and so does a loss after
	// the first id, which whoever is above makes up for.
	for code, ids := range map[string]int{"context_length_exceeded": 0, engine.CodeLost: 1} {
		p := answer(func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			_ = (ids == 0 || yield(first, nil)) && yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindInvalid, Code: code, Message: "it fails"})
		})
		e := compose(t, disagg.Config{Prefill: p, Decode: d, HasDecode: func() bool { return false }})
		got, err := enginetest.Collect(t.Context(), e, r)
		var failure *dynamo.Error
		if !errors.As(err, &failure) || failure.Code != code || len(got.Tokens) != ids {
			t.Errorf("nobody on the decode side: got %+v, %v; want %d ids and %s", got, err, ids, code)
		}
	}
}

// A decode worker that is lost costs one migration, after which the prompt and the ids
// so far are computed on the prefill side again.
func TestDecodeFails(t *testing.T) {
	whole := mock(t, "", nil)
	p, d := mock(t, engine.RolePrefill, nil), mock(t, engine.RoleDecode, nil)
	r := &dynamo.Request{ID: "r", Tokens: prompt(30), MaxTokens: 8, IgnoreEOS: true}
	want, err := enginetest.Collect(t.Context(), whole, r)
	if err != nil {
		t.Fatal(err)
	}
	for after := range 7 { // ids of the decode side
		var asked atomic.Int32
		failing := answer(func(ctx context.Context, r *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			if len(r.Handover) == 0 {
				t.Errorf("after %d: no handover", after)
			}
			left := after
			for chunk, err := range d.Generate(ctx, r) {
				if asked.Load() == 0 {
					chunk.Tokens, chunk.Finish, chunk.Usage = chunk.Tokens[:min(left, len(chunk.Tokens))], 0, dynamo.Usage{}
					if left -= len(chunk.Tokens); left == 0 {
						asked.Add(1)
						_ = (len(chunk.Tokens) == 0 || yield(chunk, nil)) && yield(dynamo.Chunk{}, &dynamo.Error{Kind: dynamo.KindUnavailable, Code: engine.CodeLost, Message: "lost"})
						return
					}
				}
				if !yield(chunk, err) {
					return
				}
			}
		})
		e := compose(t, disagg.Config{Prefill: p, Decode: failing})
		mc := engine.DefaultMigrateConfig()
		mc.Card = d.Card()
		m, err := engine.NewMigrate(e, mc)
		if err != nil {
			t.Fatal(err)
		}
		got, err := enginetest.Collect(t.Context(), m, r)
		if err != nil || !slices.Equal(got.Tokens, want.Tokens) || got.Usage.Completion != 8 || asked.Load() != 1 {
			t.Errorf("lost after %d: got %+v, %v; want %v", after, got, err, want.Tokens)
		}
		if err := idle(p, d); err != nil {
			t.Errorf("lost after %d: %v", after, err)
		}
	}
}

// Both sides have let go when the sequence ends, whenever that is; the prefill side
// has when the answer goes on elsewhere.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timed := func(c *mocker.Config) {
			c.Speedup, c.Model = 1, &perfmodel.ClosedForm{PrefillFixedSeconds: 0.1, DecodeFixedSeconds: 0.01}
			c.KVBytesPerToken, c.TransferBandwidth = 1000, 1e6
		}
		p, d := mock(t, engine.RolePrefill, timed), mock(t, engine.RoleDecode, timed)
		e := compose(t, disagg.Config{Prefill: p, Decode: d})
		r := &dynamo.Request{Tokens: prompt(40), MaxTokens: 20, IgnoreEOS: true}
		for at := 5 * time.Millisecond; at < 400*time.Millisecond; at += 10 * time.Millisecond {
			r.Tokens[0] = dynamo.TokenID(at / 1e6 % 290) // not in the cache
			ctx, cancel := context.WithTimeout(t.Context(), at)
			_, err := enginetest.Collect(ctx, e, r)
			if ended := idle(p, d); dynamo.KindOf(orNil(err)) != dynamo.KindDeadline && at < 300*time.Millisecond || ended != nil {
				t.Errorf("given up after %v: %v, %v", at, err, ended)
			}
			cancel()
		}
		for breakAt := 1; breakAt < 10; breakAt++ {
			n := 0
			for _, err := range e.Generate(t.Context(), r) {
				if n++; err != nil {
					t.Error(err)
				}
				if n == 4 && idle(p) != nil {
					t.Errorf("the prefill side still keeps the KV: %v", idle(p))
				}
				if n == breakAt {
					break
				}
			}
			if err := idle(p, d); err != nil {
				t.Errorf("broken off at chunk %d: %v", breakAt, err)
			}
		}
	})
}

func orNil(err error) error {
	if err == nil {
		return errors.New("none")
	}
	return err
}

// A prefill worker that is slow to let go holds up no answer.
func TestSlowToLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mock(t, engine.RoleDecode, nil)
		slow := answer(func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			yield(dynamo.Chunk{Tokens: []dynamo.TokenID{9}, Handover: []byte("?")}, nil)
			time.Sleep(time.Minute)
		})
		began := time.Now()
		n := 0
		for chunk, err := range compose(t, disagg.Config{Prefill: slow, Decode: d}).Generate(t.Context(), &dynamo.Request{Tokens: prompt(9), MaxTokens: 30, IgnoreEOS: true}) {
			if n += len(chunk.Tokens); err != nil || time.Since(began) > 0 {
				t.Fatalf("got %v, %v after %v", chunk.Tokens, err, time.Since(began))
			}
		}
		if took := time.Since(began); n != 30 || took != time.Minute {
			t.Errorf("%d ids, ended after %v", n, took)
		}
	})
}

// Many at once share both sides.
func TestConcurrent(t *testing.T) {
	whole := mock(t, "", nil)
	small := func(c *mocker.Config) { c.Blocks, c.MaxRunning = 60, 4 }
	p, d := mock(t, engine.RolePrefill, small), mock(t, engine.RoleDecode, small)
	e := compose(t, disagg.Config{Prefill: p, Decode: d})
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			r := &dynamo.Request{ID: dynamo.RequestID(fmt.Sprint(i)), Tokens: prompt(20 + i), MaxTokens: 10 + i, IgnoreEOS: true}
			want, err := enginetest.Collect(t.Context(), whole, r)
			if err != nil {
				t.Error(err)
			}
			got, err := enginetest.Collect(t.Context(), e, r)
			if err != nil || !slices.Equal(got.Tokens, want.Tokens) || got.Usage.Completion != want.Usage.Completion {
				t.Errorf("request %d: got %+v, %v; want %+v", i, got, err, want)
			}
		})
	}
	all.Wait()
	if err := idle(p, d); err != nil {
		t.Error(err)
	}
}

// TestSplit: who is asked decides which requests are served in two parts, hears how long
// the KV took, and has its context go on with them. Those whose KV is somewhere already,
// or for which one side is missing, are nobody's to decide.
func TestSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		timed := func(c *mocker.Config) {
			c.Speedup, c.Model, c.KVBytesPerToken, c.TransferBandwidth = 1, &perfmodel.ClosedForm{PrefillFixedSeconds: 1, DecodeFixedSeconds: 0.01}, 1000, 1e6
		}
		p, d := mock(t, engine.RolePrefill, timed), mock(t, engine.RoleDecode, timed)
		apart, asked, prefill := false, 0, true
		var moved []time.Duration
		e := compose(t, disagg.Config{
			Prefill: p, Decode: d, HasPrefill: func() bool { return prefill },
			Split: func(ctx context.Context, r *dynamo.Request) (context.Context, bool) {
				asked++
				return context.WithValue(ctx, key{}, r.ID), apart
			},
			Moved: func(ctx context.Context, took time.Duration) {
				if ctx.Value(key{}) != dynamo.RequestID("r") {
					t.Errorf("the context has %v", ctx.Value(key{}))
				}
				moved = append(moved, took)
			},
		})
		for i, c := range []struct {
			apart, prefill bool
			handover       string
			asked, loads   int // in all
			prefills       uint64
		}{
			{false, true, "", 1, 0, 0},
			{true, true, "", 2, 1, 1},
			{true, false, "", 2, 1, 1},
			{true, true, `{"engine":"mocker","tokens":30,"bytes_per_token":1000,"lease_seconds":60}`, 2, 2, 1},
		} {
			apart, prefill = c.apart, c.prefill
			r := &dynamo.Request{ID: "r", Tokens: prompt(40), MaxTokens: 3, IgnoreEOS: true}
			r.Tokens[0] += dynamo.TokenID(i) // nothing is in a cache
			if c.handover != "" {
				r.Handover = []byte(c.handover)
			}
			if _, err := enginetest.Collect(t.Context(), e, r); err != nil {
				t.Error(err)
			}
			if got := p.Stats().Scheduler.Steps; asked != c.asked || int(d.Stats().Scheduler.Loads) != c.loads || got != c.prefills {
				t.Errorf("%+v: asked %d times, %d loads, %d steps of the prefill side", c, asked, d.Stats().Scheduler.Loads, got)
			}
		}
		if len(moved) != 1 || moved[0] != 50*time.Millisecond {
			t.Errorf("the KV took %v, want 40 ms and a step", moved)
		}
	})
}

// A worker of the decode side that leaves says so through both.
func TestLeaves(t *testing.T) {
	where := []byte("there")
	e := compose(t, disagg.Config{
		Prefill: answer(func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			yield(dynamo.Chunk{Tokens: []dynamo.TokenID{5}, Handover: []byte("here")}, nil)
		}),
		Decode: answer(func(_ context.Context, _ *dynamo.Request, yield func(dynamo.Chunk, error) bool) {
			_ = yield(dynamo.Chunk{Tokens: []dynamo.TokenID{6}}, nil) && yield(dynamo.Chunk{Handover: where}, nil)
		}),
	})
	var ids []dynamo.TokenID
	var got []byte
	for chunk, err := range e.Generate(t.Context(), &dynamo.Request{Tokens: prompt(9), MaxTokens: 9}) {
		if err != nil {
			t.Fatal(err)
		}
		ids, got = append(ids, chunk.Tokens...), slices.Concat(got, chunk.Handover)
	}
	if !slices.Equal(ids, []dynamo.TokenID{5, 6}) || string(got) != "there" {
		t.Errorf("got %v and KV %q, want 5 and 6 and the decode side's", ids, got)
	}
}

// Each part goes to the worker that the request names for it.
func TestPromptOf(t *testing.T) {
	rank := 3
	r := &dynamo.Request{Routing: &dynamo.Routing{Worker: 1, PrefillWorker: 2, PrefillRank: &rank}}
	if g := disagg.PromptOf(r).Routing; g.Worker != 2 || g.Rank != &rank || r.Routing.Worker != 1 {
		t.Errorf("got %+v", g)
	}
	if r := (&dynamo.Request{}); disagg.PromptOf(r) != r {
		t.Error("a request that names nobody is copied")
	}
}
