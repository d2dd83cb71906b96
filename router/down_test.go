package router_test

import (
	"testing"
	"testing/synctest"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// A worker that says its engine is down is sent nothing until it says otherwise, and
// one that drains meanwhile does not come back.
func TestEngineDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, defaults)
		first, second := takes(0), takes(0)
		add(t, r, 1, first, 0, 0)
		add(t, r, 2, second, 0, 0)
		several := func(n int) (a, b int64) {
			t.Helper()
			wasA, wasB := first.asked.Load(), second.asked.Load()
			for range n {
				if err := ask(t, r, "r"); err != nil {
					t.Fatal(err)
				}
			}
			return first.asked.Load() - wasA, second.asked.Load() - wasB
		}
		if a, b := several(10); a != 5 || b != 5 {
			t.Errorf("both up: got %d and %d", a, b)
		}
		r.Report(1, 1, engine.Load{Down: true})
		if a, b := several(10); a != 0 || b != 10 {
			t.Errorf("the first is down: got %d and %d", a, b)
		}
		r.Report(2, 1, engine.Load{Down: true})
		if err := ask(t, r, "r"); dynamo.KindOf(err) != dynamo.KindUnavailable {
			t.Errorf("both are down: got %v", err)
		}
		r.Report(1, 1, engine.Load{})
		if a, b := several(10); a != 10 || b != 0 {
			t.Errorf("the first is back: got %d and %d", a, b)
		}
		r.SetDraining(2, 1)
		r.Report(2, 1, engine.Load{})
		if a, b := several(10); a != 10 || b != 0 {
			t.Errorf("the second drains: got %d and %d", a, b)
		}
	})
}
