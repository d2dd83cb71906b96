package model

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestPoolDoesEachUnitOnce runs many phases of many sizes, with pauses that let
// workers fall asleep.
func TestPoolDoesEachUnitOnce(t *testing.T) {
	long := 20_000 // units, enough for threads to meet at the same one
	if testing.Short() {
		long = 2_000
	}
	for threads := 1; threads <= 5; threads++ {
		p := newPool(threads)
		for phase := range 400 {
			n := phase * 7 % 61
			if phase%8 == 0 {
				n = long
			}
			counts := make([]atomic.Int32, n)
			p.run(n, func(thread, unit int) {
				if thread < 0 || thread >= threads {
					t.Errorf("thread %d of %d", thread, threads)
				}
				counts[unit].Add(1)
			})
			for i := range counts {
				if got := counts[i].Load(); got != 1 {
					t.Fatalf("unit %d of %d was done %d times", i, n, got)
				}
			}
			if phase%100 == 99 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		p.close()
	}
}

// TestPoolRaisesPanics checks that a panic in a unit reaches the caller, after
// which the pool still works.
func TestPoolRaisesPanics(t *testing.T) {
	for _, threads := range []int{1, 3} {
		p := newPool(threads)
		func() {
			defer func() {
				if r := recover(); r != "boom" {
					t.Errorf("recovered %v, want boom", r)
				}
			}()
			p.run(50, func(_, unit int) {
				if unit == 20 {
					panic("boom")
				}
			})
		}()
		var n atomic.Int32
		p.run(50, func(int, int) { n.Add(1) })
		if n.Load() != 50 {
			t.Errorf("after a panic %d of 50 units were done", n.Load())
		}
		p.close()
	}
}

// TestPoolLeavesNothing checks that close ends the workers.
func TestPoolLeavesNothing(t *testing.T) {
	before := runtime.NumGoroutine()
	p := newPool(4)
	p.run(10, func(int, int) {})
	p.close()
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
}

// BenchmarkPool measures an empty phase: what a fork and join cost.
func BenchmarkPool(b *testing.B) {
	p := newPool(2)
	defer p.close()
	work := func(int, int) {}
	for b.Loop() {
		p.run(8, work)
	}
}
