package tier_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// rusty is a store that flips a bit in one frame of ten that it gives back, and fails
// one write of twenty.
type rusty struct{ *faulty }

func (r rusty) Get(ctx context.Context, ref tier.Ref, frame []byte) error {
	err := r.Store.Get(ctx, ref, frame)
	if n := rand.IntN(10 * len(frame)); n < len(frame) {
		frame[n] ^= 1
	}
	return err
}

func (r rusty) Put(ctx context.Context, ref tier.Ref, frame []byte) error {
	if rand.IntN(20) == 0 {
		return &tierError{context.DeadlineExceeded}
	}
	return r.Store.Put(ctx, ref, frame)
}

// TestCrowd has many use the tiers at once, in every way, while the stores rot: no wrong
// byte arrives, nothing is written after a Cancel, and the books are right at all times.
func TestCrowd(t *testing.T) {
	c := config(t, 20, 40, 100)
	c.Wrap = func(_ dynamo.Tier, s tier.Store) tier.Store { return rusty{&faulty{Store: s}} }
	m, _ := run(t, c)
	waitFor(t, func() bool { _, err := m.Evict(t.Context()); return err == nil })
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	enough := func() bool {
		s := m.Stats()
		return s.Loads.Arrived > 20 && s.Loads.Failed > 0 && s.Tiers[dynamo.TierHost].Corrupt > 5 && s.Tiers[dynamo.TierDisk].Corrupt > 5
	}
	var all sync.WaitGroup
	for g := range 6 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for ctx.Err() == nil {
				crowdStep(t, m, r)
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			if enough() {
				stop()
			}
			if err := m.Check(); err != nil {
				t.Error(err)
			}
			for i := dynamo.TierHost; i <= dynamo.TierRemote; i++ {
				_, _ = m.Verify(ctx, i) // it ends with ctx
			}
		}
	})
	all.Wait()
	if !enough() {
		t.Errorf("the test is too weak: %+v", m.Stats())
	}
}

func crowdStep(t *testing.T, m *tier.Mover, r *rand.Rand) {
	s := sequence(t, m, r.IntN(20), 1+r.IntN(12))
	switch r.IntN(8) {
	case 0:
		into := make([]byte, geometry().BlockBytes*s.Blocks())
		at := func(i int) []byte { return into[i*geometry().BlockBytes:][:geometry().BlockBytes] }
		if l := m.Load(s, 0, s.Blocks(), at, func(bool) {}); l != nil {
			if r.IntN(2) == 0 {
				time.Sleep(time.Duration(r.IntN(300)) * time.Microsecond)
			}
			l.Cancel()
			clear(into) // with -race this finds who still writes
		}
	case 1:
		if _, err := m.Evict(t.Context(), s.Keys()[r.IntN(s.Blocks())]); err != nil {
			t.Error(err)
		}
	case 2:
		m.Probe(s)
		m.Touch(s, s.Blocks())
	case 3, 4:
		if p := m.Plan(s, 0, s.Blocks()); p.Blocks > 0 {
			load(t, m, s, 0, p.Blocks)
		}
	default:
		offer(m, s)
	}
}
