package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
)

// TestChecks breaks the laws one by one: each has to be noticed by its name.
func TestChecks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tamper func(s *simulation)
		want   string
	}{
		{"nothing", func(*simulation) {}, ""},
		{"a request vanishes", func(s *simulation) { s.meter.started++ }, "I1"},
		{"a booking stays", func(s *simulation) { s.router.fleet.Touch(0).Booked++ }, "I1"},
		{"a token is missing", func(s *simulation) { s.workers[0].token(&request{made: 3}, 2) }, "I2"},
		{"the index forgets", func(s *simulation) { s.router.index.Clear(s.router.sources[0], dynamo.TierDevice) }, "I3"},
		{"an event is lost", func(s *simulation) {
			for b := range s.workers[0].shadow.parent {
				delete(s.workers[0].shadow.parent, b)
				break
			}
		}, "I3"},
		{"a request waits for ever", func(s *simulation) { s.router.queued++ }, "I8"},
		{"an inbox is left", func(s *simulation) { s.workers[0].inbox = append(s.workers[0].inbox, &request{}) }, "I8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := DefaultConfig()
			c.Fleet, c.Check, c.BlockSize = []Group{DefaultGroup()}, true, 16
			c.Trace = func(yield func(trace.Request, error) bool) {
				yield(trace.Request{Input: 64, Output: 40, BlockSize: 16, Hashes: []uint64{1, 2, 3, 4}}, nil)
			}
			s, err := newSimulation(c)
			if err != nil {
				t.Fatal(err)
			}
			defer s.plan.stop()
			if err := s.play(t.Context()); err != nil {
				t.Fatal(err)
			}
			tt.tamper(s)
			_, err = s.close()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestQueue compares the heap with the order it promises.
func TestQueue(t *testing.T) {
	var q queue
	x := uint64(1)
	for range 2000 {
		x = mix(x)
		q.push(event{at: int64(x % 50), kind: kind(x >> 8 % 7), number: x >> 16 % 10})
		if x>>40%3 == 0 {
			q.pop()
		}
	}
	last := event{at: -1}
	for n := len(q); n > 0; n-- {
		e := q.pop()
		if e.before(&last) {
			t.Fatalf("%+v comes after %+v", e, last)
		}
		last = e
	}
	if len(q) != 0 || last.at < 0 {
		t.Errorf("%d events are left, the last one was at %v", len(q), time.Duration(last.at))
	}
}
