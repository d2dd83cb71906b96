package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/bench/trace"
	"github.com/dynamo-go/dynamo/router/placement"
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

// TestHandoverChecks breaks what holds of prompts that are computed apart.
func TestHandoverChecks(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tamper func(s *simulation, e *event)
		want   string
	}{
		{"nothing", func(*simulation, *event) {}, ""},
		{"the KV goes while it is taken", func(s *simulation, e *event) {
			if e.kind == kindArrived {
				w := s.workers[0]
				w.handle(w.s.EndLease(1, s.moment()))
			}
		}, "I4"},
		{"nobody lets go", func(_ *simulation, e *event) {
			if e.kind == kindLetGo {
				e.kind, e.stamp = kindStep, 1<<31
				e.number = 0
			}
		}, "I4"},
		{"a token comes twice", func(s *simulation, e *event) {
			if e.kind == kindHanded {
				e.r.made = 0
			}
		}, "I2"},
		{"tokens are lost on the way", func(s *simulation, e *event) {
			if e.kind == kindArrived {
				e.r, s.workers[1].link.open[0].r.made = nil, 5
			}
		}, "I2"},
		{"the prefill worker stays booked", func(s *simulation, e *event) {
			if e.kind == kindHanded {
				s.prefill.fleet.Touch(0).Booked++
			}
		}, "I1"},
		{"the index of prefill workers forgets", func(s *simulation, e *event) {
			if e.kind == kindLetGo {
				s.prefill.index.Clear(s.prefill.sources[0], dynamo.TierDevice)
			}
		}, "I3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := DefaultConfig()
			first, second := DefaultGroup(), DefaultGroup()
			first.Role, second.Role = placement.Prefill, placement.Decode
			c.Fleet, c.Check, c.BlockSize, c.Split = []Group{first, second}, true, 16, placement.SplitAlways
			c.Trace = func(yield func(trace.Request, error) bool) {
				yield(trace.Request{Input: 64, Output: 40, BlockSize: 16, Hashes: []uint64{1, 2, 3, 4}}, nil)
			}
			s, err := newSimulation(c)
			if err != nil {
				t.Fatal(err)
			}
			defer s.plan.stop()
			for s.fault == nil {
				if s.send(); len(s.events) == 0 {
					break
				}
				e := s.events.pop()
				s.now = e.at
				tt.tamper(s, &e)
				s.take(&e)
			}
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

// TestForesee: a trace that is too large to be held is read twice, and played alike; and
// what the index is told is what more than one request has.
func TestForesee(t *testing.T) {
	s, err := trace.Preset("mooncake-toolagent")
	if err != nil {
		t.Fatal(err)
	}
	s.Requests = 150
	c := DefaultConfig()
	g := DefaultGroup()
	g.Count = 4
	c.Fleet, c.Trace, c.Again = []Group{g}, s.All(), true
	outcome := func(held int64) (r *Result, told int64) {
		p, err := newSimulation(c)
		if err != nil {
			t.Fatal(err)
		}
		defer p.plan.stop()
		if held >= 0 {
			if p.foresight, err = foresee(t.Context(), &p.config, held); err != nil {
				t.Fatal(err)
			}
			if got, want := len(p.foresight.held) > 0, held > 0; got != want {
				t.Errorf("held: %v, want %v, of at most %d bytes", got, want, held)
			}
		}
		if err = p.play(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, source := range p.router.sources {
			told += p.router.index.Blocks(source, dynamo.TierDevice)
		}
		if r, err = p.close(); err != nil {
			t.Fatal(err)
		}
		return r, told
	}
	blind, all := outcome(-1)
	held, some := outcome(maxHeld)
	reread, same := outcome(0)
	if blind.Hash != held.Hash || blind.Hash != reread.Hash {
		t.Errorf("outcomes %016x, %016x held, %016x read twice", blind.Hash, held.Hash, reread.Hash)
	}
	if some != same || some == 0 || 2*some > all {
		t.Errorf("the index has %d blocks of what is held, %d of what is read twice, %d of all", some, same, all)
	}
}
