package bench

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestAlarm wakes many, in any order of asking, none early, and lets those go whose
// context ends.
func TestAlarm(t *testing.T) {
	for _, a := range []alarm{newAlarm(), timers{}} {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				d, start := time.Duration((i*37)%50)*200*time.Microsecond, time.Now()
				if ok, slept := a.sleep(ctx, d), time.Since(start); !ok || slept < d {
					t.Errorf("%v and %v, want true and at least %v", ok, slept, d)
				}
			})
		}
		all.Wait()
		all.Go(func() {
			if a.sleep(ctx, time.Hour) {
				t.Error("an hour has passed")
			}
		})
		cancel()
		all.Wait()
		a.close()
	}
}

// BenchmarkAlarm is how late an alarm wakes.
func BenchmarkAlarm(b *testing.B) {
	for name, a := range map[string]alarm{"timer": newAlarm(), "runtime": timers{}} {
		b.Run(name, func(b *testing.B) {
			late := time.Duration(0)
			for b.Loop() {
				due := time.Now().Add(3300 * time.Microsecond)
				a.sleep(b.Context(), 3300*time.Microsecond)
				late += time.Since(due)
			}
			b.ReportMetric(float64(late.Microseconds())/float64(b.N), "µs-late")
		})
		a.close()
	}
}
