package tier_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm/tier"
)

// waitFor returns when ok does, which real stores take a moment for.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	step := time.Millisecond
	for end := time.Now().Add(10 * time.Minute); !ok(); time.Sleep(step) {
		if time.Now().After(end) {
			t.Fatal("it takes too long")
		}
		step = min(2*step, 200*time.Millisecond)
	}
}

// waitIdle returns when nothing is on its way.
func waitIdle(t testing.TB, m *tier.Mover) {
	t.Helper()
	waitFor(t, func() bool {
		s := m.Stats()
		for i := dynamo.TierHost; i <= dynamo.TierRemote; i++ {
			if s.Tiers[i].Reads+s.Tiers[i].Writes > 0 {
				return false
			}
		}
		return true
	})
}

func contains(s, part string) bool { return strings.Contains(s, part) }
