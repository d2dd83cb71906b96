package mocker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/engine/enginetest"
	"github.com/dynamo-go/dynamo/engine/loop"
	"github.com/dynamo-go/dynamo/engine/mocker"
	"github.com/dynamo-go/dynamo/engine/native"
	"github.com/dynamo-go/dynamo/engine/native/model"
	"github.com/dynamo-go/dynamo/engine/sched"
	"github.com/dynamo-go/dynamo/internal/fixture"
)

// arrival is a request of a trace and the step before which it comes.
type arrival struct {
	step    int
	request *dynamo.Request
}

// shape is what both engines are configured with.
type shape struct {
	blocks, running, step int
	caching               bool
}

const equalContext, equalVocab = 256, 320

// trace draws requests that share prefixes, priorities and a pool too small for all.
func trace(seed uint64) (all []arrival) {
	random := rand.New(rand.NewPCG(seed, 3))
	prompt := func(n int, key uint64) []dynamo.TokenID {
		ids := make([]dynamo.TokenID, n)
		p := rand.New(rand.NewPCG(key, 4))
		for i := range ids {
			ids[i] = dynamo.TokenID(2 + p.IntN(equalVocab-2))
		}
		return ids
	}
	// The first one runs to the end, so that there are steps to arrive at.
	all = append(all, arrival{0, &dynamo.Request{Tokens: prompt(10, 99), MaxTokens: equalContext - 10, Priority: 5}})
	for i := range 70 {
		r := &dynamo.Request{Tokens: prompt(1+random.IntN(120), uint64(i)), MaxTokens: 1 + random.IntN(60), Priority: random.IntN(3)}
		if random.IntN(2) == 0 {
			r.Tokens = slices.Concat(prompt(16*random.IntN(6), uint64(i%3)), r.Tokens[:1+random.IntN(len(r.Tokens))])
		}
		all = append(all, arrival{random.IntN(180), r})
	}
	slices.SortStableFunc(all, func(a, b arrival) int { return a.step - b.step })
	for i, a := range all {
		a.request.ID, a.request.IgnoreEOS = dynamo.RequestID(fmt.Sprint(i)), true
	}
	return all
}

// recorder writes down the steps of an engine and lets requests arrive in them.
type recorder struct {
	t      *testing.T
	engine interface {
		engine.Engine
		Stats() loop.Stats
		Run(ctx context.Context) error
	}
	left    []arrival
	steps   []string
	asking  sync.WaitGroup
	preempt int
}

// arrive asks what is due before step number n, one after the other.
func (r *recorder) arrive(n int) {
	for waiting := r.engine.Stats().Submitted; len(r.left) > 0 && r.left[0].step <= n; r.left = r.left[1:] {
		q := r.left[0].request
		r.asking.Go(func() {
			if _, err := enginetest.Collect(context.Background(), r.engine, q); err != nil {
				r.t.Errorf("request %s: %v", q.ID, err)
			}
		})
		for waiting++; r.engine.Stats().Submitted < waiting; {
			time.Sleep(20 * time.Microsecond)
		}
	}
}

func (r *recorder) observe(actions []sched.Action, b *sched.Batch) {
	var s strings.Builder
	for _, a := range actions {
		fmt.Fprintf(&s, "%s(%s cached=%d again=%t) ", a.Kind, a.Ref.(*loop.Task).Request.ID, a.Cached, a.Again)
		if a.Kind == sched.Preempted {
			r.preempt++
		}
	}
	for _, e := range b.Entries {
		fmt.Fprintf(&s, "%s[%d+%d sample=%t output=%d last=%t in %v] ", e.Ref.(*loop.Task).Request.ID, e.Start, len(e.Tokens), e.Sample, e.Output, e.Last, e.Blocks)
	}
	r.steps = append(r.steps, s.String())
	r.arrive(len(r.steps))
}

func (r *recorder) run() []string {
	r.arrive(0)
	ctx, cancel := context.WithCancel(r.t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.engine.Run(ctx) }()
	r.asking.Wait()
	cancel()
	if err := <-ran; !errors.Is(err, context.Canceled) {
		r.t.Errorf("Run: %v", err)
	}
	if len(r.left) > 0 {
		r.t.Fatalf("%d requests did not arrive: there were no steps to arrive at", len(r.left))
	}
	return r.steps
}

// The embedded engine and the mocker form the same batches of the same requests,
// step for step: sequences, chunks, blocks, prefix hits and preemptions.
func TestBatchesEqualNative(t *testing.T) {
	dir := t.TempDir()
	if err := fixture.TinyLlama(dir, fixture.Llama{Vocab: equalVocab, Context: equalContext, Layers: 1, EOS: 1}); err != nil {
		t.Fatal(err)
	}
	o := model.DefaultOptions()
	o.Threads = 1
	m, err := model.Load(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	preemptions, steps := 0, 0
	for i, s := range []shape{{60, 16, 64, true}, {40, 8, 24, true}, {30, 4, 512, true}, {40, 8, 48, false}} {
		all := trace(uint64(i))
		real := &recorder{t: t, left: all}
		nc := native.DefaultConfig()
		nc.Name, nc.Blocks, nc.MaxRunning, nc.StepTokens, nc.PrefixCaching, nc.Observe = "tiny", s.blocks, s.running, s.step, s.caching, real.observe
		if real.engine, err = native.New(nc, m); err != nil {
			t.Fatal(err)
		}
		want := real.run()
		mock := &recorder{t: t, left: all}
		mc := mocker.DefaultConfig()
		mc.Name, mc.ContextLength, mc.VocabSize, mc.EOS, mc.BlockSize, mc.Speedup = "tiny", equalContext, equalVocab, []dynamo.TokenID{1}, model.BlockSize, 0
		mc.Blocks, mc.MaxRunning, mc.StepTokens, mc.PrefixCaching = s.blocks, s.running, s.step, s.caching
		mc.Observe = func(_ int, actions []sched.Action, b *sched.Batch) { mock.observe(actions, b) }
		if mock.engine, err = mocker.New(mc); err != nil {
			t.Fatal(err)
		}
		got := mock.run()
		for n := range min(len(got), len(want)) {
			if got[n] != want[n] {
				t.Fatalf("shape %+v, step %d:\nmocker %s\nnative %s", s, n, got[n], want[n])
			}
		}
		if len(got) != len(want) {
			t.Fatalf("shape %+v: the mocker took %d steps, the embedded engine %d", s, len(got), len(want))
		}
		preemptions, steps = preemptions+real.preempt, steps+len(want)
	}
	if preemptions == 0 {
		t.Error("nothing was preempted: the traces are too easy")
	}
	t.Logf("%d steps, %d preemptions", steps, preemptions)
}
