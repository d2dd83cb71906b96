package placement_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynamo-go/dynamo/router/placement"
)

type ticket = placement.Ticket[string]

func newQueue(limit int) *placement.Queue[string] {
	return placement.NewQueue[string](placement.QueueConfig{Limit: limit})
}

// wait makes a ticket of "tenant/class/cost/priority/deadline ms", of which all but the
// first may be missing.
func wait(name, spec string, at time.Time) *ticket {
	t := &ticket{Value: name, Arrived: at, Patience: 10 * time.Second, CostMS: 10}
	parts := strings.Split(spec+"////", "/")
	t.Tenant = parts[0]
	for i, to := range []any{1: &t.Class, 2: &t.CostMS, 3: &t.Priority} {
		if to != nil {
			_, _ = fmt.Sscan(parts[i], to)
		}
	}
	var ms int
	if n, _ := fmt.Sscan(parts[4], &ms); n > 0 {
		t.Deadline = begin.Add(time.Duration(ms) * time.Millisecond)
	}
	return t
}

func TestQueueOrder(t *testing.T) {
	for _, tc := range []struct {
		name, push, want string
	}{
		{"first come first served", "a a a", "0 1 2"},
		{"priority", "a a//10/5 a//10/-1 a//10/5", "1 3 0 2"},
		{"deadline before patience", "a a////5000 a////4000 a////20000", "2 1 0 3"},
		{"turns of tenants", "a//50 a//50 a//50 b//50 b//50 c//50", "0 3 5 1 4 2"},
		{"turns are of work", "a//25 a//25 a//25 a//25 b//50 b//50", "0 1 4 2 3 5"},
		{"who costs much waits for many turns", "a//500 b//50 b//50 b//50 b//50 b//50 b//50 b//50 b//50 b//50 b//50 b//50", "1 2 3 4 5 6 7 8 9 0 10 11"},
		{"priority is among the tenant's own", "a//50 a//50 b//50/9 b//50/9", "0 2 1 3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := newQueue(99)
			for i, spec := range strings.Fields(tc.push) {
				if _, ok := q.Push(wait(fmt.Sprint(i), spec, begin.Add(time.Duration(i)))); !ok {
					t.Fatal("refused")
				}
			}
			var got []string
			q.Serve(begin, func(x *ticket) placement.Attempt {
				got = append(got, x.Value)
				return placement.Placed
			})
			if got := strings.Join(got, " "); got != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if q.Len() != 0 {
				t.Errorf("%d are left", q.Len())
			}
		})
	}
}

// TestQueueBands: a higher band goes before all of a lower.
func TestQueueBands(t *testing.T) {
	q := newQueue(9)
	for i, b := range []int{0, 2, 1, 2} {
		x := wait(fmt.Sprint(i), "a", begin)
		x.Band = b
		q.Push(x)
	}
	var got []string
	q.Serve(begin, func(x *ticket) placement.Attempt { got = append(got, x.Value); return placement.Placed })
	if want := []string{"1", "3", "2", "0"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestQueueClasses: one class without room holds no other up, and is tried once; one
// ticket that finds none does not stand for its class.
func TestQueueClasses(t *testing.T) {
	q := newQueue(99)
	for i := range 30 {
		q.Push(wait(fmt.Sprint(i), fmt.Sprintf("%c/%d", 'a'+i%2, i%3), begin.Add(time.Duration(i))))
	}
	tried := map[uint64]int{}
	placed := 0
	q.Serve(begin, func(x *ticket) placement.Attempt {
		tried[x.Class]++
		switch {
		case x.Class == 1:
			return placement.Blocked
		case x.Class == 2 && tried[2]%2 == 1:
			return placement.Passed
		}
		placed++
		return placement.Placed
	})
	if tried[0] != 10 || tried[1] != 1 || tried[2] != 10 || placed != 15 || q.Len() != 15 || q.Waiting(0) != 0 || q.Waiting(1) != 10 || q.Waiting(2) != 5 {
		t.Errorf("tried %v, placed %d, left %d", tried, placed, q.Len())
	}
	tries := 0
	q.Serve(begin, func(*ticket) placement.Attempt { tries++; return placement.Over })
	if tries != 1 {
		t.Errorf("tried %d after it was over", tries)
	}
}

// TestQueueFull: who has less than his share takes the place of the last of whom has
// most; others are refused.
func TestQueueFull(t *testing.T) {
	q := newQueue(6)
	var all []*ticket
	push := func(spec string) string {
		x := wait(fmt.Sprint(len(all)), spec, begin.Add(time.Duration(len(all))))
		all = append(all, x)
		out, ok := q.Push(x)
		switch {
		case !ok:
			return "refused"
		case out != nil:
			return "for " + out.Value
		}
		return "ok"
	}
	for _, tc := range [][2]string{
		{"a", "ok"}, {"a//10/1", "ok"}, {"a", "ok"}, {"a", "ok"}, {"a", "ok"}, {"a", "ok"}, {"a", "refused"},
		{"b", "for 5"}, {"b", "for 4"}, {"b", "for 3"}, {"b", "refused"}, {"a", "refused"}, {"c", "for 2"}, {"c", "for 9"}, {"c", "refused"},
	} {
		if got := push(tc[0]); got != tc[1] {
			t.Errorf("%d, of %s: got %s, want %s", len(all)-1, tc[0], got, tc[1])
		}
	}
	if q.Len() != 6 || all[5].Queued() || !all[0].Queued() {
		t.Errorf("%d wait", q.Len())
	}
	// Those of a lower band give way to a higher one, not the other way round.
	for i, band := range []int{1, -1} {
		x := &ticket{Tenant: "d", Band: band, Arrived: begin}
		if _, ok := q.Push(x); ok != (i == 0) || q.Len() != 6 {
			t.Errorf("band %d: got in %t, %d wait", band, ok, q.Len())
		}
		q.Remove(x)
		q.Push(wait("again", "a", begin))
	}
}

// TestQueueFair: whatever their requests cost, tenants get equal parts of the work.
func TestQueueFair(t *testing.T) {
	q := newQueue(1 << 20)
	rng := rand.New(rand.NewPCG(3, 3))
	size := map[string]int{"small": 5, "large": 2000, "mixed": 0}
	for i := range 20000 {
		for name, cost := range size {
			if cost == 0 {
				cost = 1 + rng.IntN(1000)
			}
			if cost == 2000 && i > 500 || cost > 5 && i > 2000 {
				continue
			}
			q.Push(&ticket{Tenant: name, CostMS: float64(cost)})
		}
	}
	work := map[string]float64{}
	total := 0.0
	for total < 300_000 { // one place at a time
		served := false
		q.Serve(begin, func(x *ticket) placement.Attempt {
			if served {
				return placement.Over
			}
			served = true
			work[x.Tenant] += x.CostMS
			total += x.CostMS
			return placement.Placed
		})
	}
	for name, got := range work {
		if want := total / 3; got < want*0.95 || got > want*1.05 {
			t.Errorf("%s got %.0f ms of work, want about %.0f", name, got, want)
		}
	}
}

// TestQueueModel compares random operations with what the laws say: nothing is lost or
// doubled, and a tenant's tickets of a class leave in their order.
func TestQueueModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for range 150 {
		q := newQueue(20)
		in := map[*ticket]bool{}
		now := begin
		for i := range 200 {
			now = now.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
			switch rng.IntN(4) {
			case 0, 1:
				x := &ticket{Value: fmt.Sprint(i), Tenant: fmt.Sprint(rng.IntN(3)), Class: uint64(rng.IntN(3)), Band: rng.IntN(2), Priority: rng.IntN(2), Arrived: now, CostMS: float64(rng.IntN(300))}
				out, ok := q.Push(x)
				if out != nil {
					if !in[out] || out.Queued() {
						t.Fatal("one that did not wait was displaced")
					}
					delete(in, out)
				}
				if ok {
					in[x] = true
				}
			case 2:
				for x := range in {
					q.Remove(x)
					q.Remove(x)
					delete(in, x)
					break
				}
			case 3:
				room := map[uint64]int{0: rng.IntN(3), 1: rng.IntN(3), 2: rng.IntN(3)}
				q.Serve(now, func(x *ticket) placement.Attempt {
					if !in[x] {
						t.Fatal("one that does not wait is tried")
					}
					if room[x.Class] == 0 {
						return placement.Blocked
					}
					room[x.Class]--
					for y := range in {
						if y.Tenant == x.Tenant && y.Class == x.Class && y.Band == x.Band && (y.Priority > x.Priority || y.Priority == x.Priority && y.Arrived.Before(x.Arrived)) {
							t.Fatalf("%+v goes before %+v", x, y)
						}
					}
					delete(in, x)
					return placement.Placed
				})
				for x := range in {
					if room[x.Class] > 0 {
						t.Fatal("one waits though its class has room")
					}
				}
			}
			seen := 0
			q.All(func(x *ticket) { seen++; _ = in[x] || t.Failed() })
			if q.Len() != len(in) || seen != len(in) || q.Len() > 20 {
				t.Fatalf("%d wait, %d are seen, want %d", q.Len(), seen, len(in))
			}
		}
	}
}

func TestRetryAfter(t *testing.T) {
	q := newQueue(1000)
	if got := q.RetryAfter("a", 0, begin, 7*time.Second); got != 7*time.Second {
		t.Errorf("nothing has drained: got %v, want the fallback", got)
	}
	now := begin
	for range 200 { // 400 ms of work a second
		now = now.Add(100 * time.Millisecond)
		q.Push(&ticket{Tenant: "a", CostMS: 40})
		q.Serve(now, func(*ticket) placement.Attempt { return placement.Placed })
	}
	for range 100 {
		q.Push(&ticket{Tenant: "a", CostMS: 40})
	}
	if got, want := q.RetryAfter("a", 0, now, 0), 10*time.Second; got < want-time.Second || got > want+time.Second {
		t.Errorf("4 s of work wait: got %v, want about %v", got, want)
	}
	if got, want := q.RetryAfter("b", 0, now, 0), time.Second; got != want {
		t.Errorf("a tenant with nothing waiting: got %v, want %v", got, want)
	}
	if got := q.RetryAfter("a", 0, now.Add(10*time.Minute), 0); got != time.Minute {
		t.Errorf("it has stopped draining: got %v, want a minute", got)
	}
}

func BenchmarkQueue(b *testing.B) {
	q := newQueue(1024)
	var all [1000]ticket
	for i := range all {
		all[i] = ticket{Tenant: fmt.Sprint(i % 7), Class: uint64(i % 5), CostMS: float64(i % 90), Arrived: begin.Add(time.Duration(i))}
		q.Push(&all[i])
	}
	b.ReportAllocs()
	for b.Loop() {
		var served *ticket
		q.Serve(begin, func(x *ticket) placement.Attempt {
			if served != nil {
				return placement.Over
			}
			served = x
			return placement.Placed
		})
		q.Push(served)
	}
}
