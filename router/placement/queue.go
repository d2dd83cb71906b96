package placement

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// QueueConfig says what a Queue holds.
type QueueConfig struct {
	// Limit is how many wait; one more is refused, or takes the place of one whose
	// tenant has more than its share. Default 1024.
	Limit int
}

// DefaultQueueConfig returns the defaults.
func DefaultQueueConfig() QueueConfig { return QueueConfig{Limit: 1024} }

// Ticket is a request in a Queue. Its owner fills in what is exported before Push, and
// changes none of it while it waits.
type Ticket[T any] struct {
	// Value is the owner's.
	Value T
	// Tenant is whom the request is counted to; those of one share a turn.
	Tenant string
	// Class is equal for requests that the same workers can take: the adapter, the
	// kind, the pin. Where one of a class finds no room the others of it need not be
	// tried.
	Class uint64
	// Band comes before everything: all of a higher band are served before any of a
	// lower. It is for whoever runs the cluster, not for clients.
	Band int
	// Priority orders the requests of a tenant, the higher first.
	Priority int
	// Deadline is when an answer is of no use any more; zero is never. Of a tenant's
	// requests of one priority those with the nearest deadline go first, as far as
	// they have one that is nearer than what Patience gives the others.
	Deadline time.Time
	// Arrived is when it came, and Patience how long it may wait.
	Arrived  time.Time
	Patience time.Duration
	// CostMS is what it is expected to take of a worker: the milliseconds of computing
	// what is not cached. Tenants get equal parts of those, not of requests.
	CostMS float64

	order  uint64
	queued bool
}

// Queued reports whether the ticket waits.
func (t *Ticket[T]) Queued() bool { return t.queued }

// Due is when the ticket's wait is over: at its deadline, or when its patience ends.
func (t *Ticket[T]) Due() time.Time {
	due := t.Arrived.Add(t.Patience)
	if !t.Deadline.IsZero() && t.Deadline.Before(due) {
		return t.Deadline
	}
	return due
}

// compare sorts the tickets of a tenant.
func (t *Ticket[T]) compare(o *Ticket[T]) int {
	return cmp.Or(cmp.Compare(o.Priority, t.Priority), t.Due().Compare(o.Due()), cmp.Compare(t.order, o.order))
}

// Queue holds the requests that no worker can take at the moment, and says in which
// order they are tried when one may: by band; among tenants by deficit round robin over
// predicted milliseconds; within a tenant by priority, deadline and arrival; and never
// one behind another whose class has no room while its own has.
//
// It has no clock and no lock: time comes in, and the owner serialises.
type Queue[T any] struct {
	config QueueConfig
	bands  []*band[T] // highest first
	n      int
	order  uint64
	round  uint64 // of Serve
	drain  drain
}

// band is the tenants with requests of one band, in the order of their turns.
type band[T any] struct {
	number  int
	tenants []*tenant[T]
	turn    int
}

// tenant is what one tenant has waiting in a band.
type tenant[T any] struct {
	name    string
	n       int
	deficit float64 // milliseconds it may still use in this turn
	visited bool    // this turn's quantum is given
	lanes   []*lane[T]
}

// lane is a tenant's requests of one class, best first.
type lane[T any] struct {
	class   uint64
	tickets []*Ticket[T]
	// Of those before passed it is known in this round that they find no room.
	round  uint64
	passed int
}

// NewQueue returns an empty Queue.
func NewQueue[T any](c QueueConfig) *Queue[T] { return &Queue[T]{config: c} }

// Len is how many wait.
func (q *Queue[T]) Len() int { return q.n }

// Waiting is how many of a class wait.
func (q *Queue[T]) Waiting(class uint64) (n int) {
	for _, b := range q.bands {
		for _, tn := range b.tenants {
			for _, l := range tn.lanes {
				if l.class == class {
					n += len(l.tickets)
				}
			}
		}
	}
	return n
}

// Push makes a ticket wait. Where the queue is full it is refused, unless its tenant
// has less waiting than an equal share and another has more: then that one's last is
// taken out, and returned to be refused in its place.
func (q *Queue[T]) Push(t *Ticket[T]) (displaced *Ticket[T], ok bool) {
	if t.queued {
		panic("BUG: a ticket is queued twice")
	}
	if q.n >= q.config.Limit {
		if displaced = q.displace(t); displaced == nil {
			return nil, false
		}
	}
	q.order++
	t.order, t.queued = q.order, true
	t.CostMS = clampFloat(t.CostMS, leastCostMS, mostCostMS)
	b := q.band(t.Band)
	tn := b.tenant(t.Tenant)
	l := tn.lane(t.Class)
	at, _ := slices.BinarySearchFunc(l.tickets, t, (*Ticket[T]).compare)
	l.tickets = slices.Insert(l.tickets, at, t)
	tn.n++
	q.n++
	return displaced, true
}

// displace takes out the last ticket of the tenant that has most waiting, if t's has
// less than its share and that one more. A higher band than t's gives up nothing.
func (q *Queue[T]) displace(t *Ticket[T]) *Ticket[T] {
	held := map[string]int{t.Tenant: 0}
	for _, b := range q.bands {
		for _, tn := range b.tenants {
			held[tn.name] += tn.n
		}
	}
	share := q.config.Limit / len(held)
	if held[t.Tenant] >= max(share, 1) {
		return nil
	}
	var worst *Ticket[T]
	most := max(share, held[t.Tenant]+1)
	for i := len(q.bands) - 1; i >= 0 && q.bands[i].number <= t.Band; i-- {
		for _, tn := range q.bands[i].tenants {
			if held[tn.name] <= most {
				continue
			}
			most = held[tn.name]
			worst = nil
			for _, l := range tn.lanes {
				if last := l.tickets[len(l.tickets)-1]; worst == nil || worst.compare(last) < 0 {
					worst = last
				}
			}
		}
		if worst != nil {
			break
		}
	}
	if worst != nil {
		q.Remove(worst)
	}
	return worst
}

// Remove takes a ticket out, which its owner has given up. One that does not wait is
// no matter.
func (q *Queue[T]) Remove(t *Ticket[T]) {
	if !t.queued {
		return
	}
	b := q.band(t.Band)
	tn := b.tenant(t.Tenant)
	l := tn.lane(t.Class)
	at, found := slices.BinarySearchFunc(l.tickets, t, (*Ticket[T]).compare)
	if !found {
		panic("BUG: a queued ticket is not in its lane; was it changed?")
	}
	l.tickets = slices.Delete(l.tickets, at, at+1)
	t.queued = false
	tn.n--
	q.n--
	if len(l.tickets) == 0 {
		tn.lanes = slices.DeleteFunc(tn.lanes, func(x *lane[T]) bool { return x == l })
	}
	if tn.n == 0 {
		at := slices.Index(b.tenants, tn)
		b.tenants = slices.Delete(b.tenants, at, at+1)
		if at < b.turn {
			b.turn--
		}
	}
	if len(b.tenants) == 0 {
		q.bands = slices.DeleteFunc(q.bands, func(x *band[T]) bool { return x == b })
	}
}

// Attempt is what became of a ticket that was tried.
type Attempt uint8

// The attempts.
const (
	// Placed: it has a worker, and leaves the queue.
	Placed Attempt = iota
	// Blocked: there is no room for any of its class.
	Blocked
	// Passed: there is no room for it, because of what it is; others of its class may
	// find some.
	Passed
	// Over: nobody needs to be tried any more.
	Over
)

// Serve tries those that wait, in their order, until none is left that could be
// placed. try must not touch the queue. It costs time in proportion to those that are
// placed and passed, and to tenants and classes, not to all that wait.
func (q *Queue[T]) Serve(now time.Time, try func(*Ticket[T]) Attempt) {
	q.round++
	v := visit[T]{round: q.round}
	for i := 0; i < len(q.bands); {
		b := q.bands[i]
		tn, l := v.next(b)
		if l == nil {
			i++
			continue
		}
		t := l.tickets[l.passed]
		switch try(t) {
		case Placed:
			tn.deficit = max(tn.deficit-t.CostMS, 0) // below it only where there is no other
			q.Remove(t)
			q.drain.served(now, t.CostMS)
			if len(b.tenants) == 0 {
				i = 0
			}
		case Blocked:
			v.blocked = append(v.blocked, t.Class)
		case Passed:
			l.passed++
		case Over:
			return
		}
	}
}

// visit is what is known in one round of Serve.
type visit[T any] struct {
	round   uint64
	blocked []uint64 // classes without room
}

// next is the tenant whose turn it is and its lane whose first is to be tried, among
// those that are not known to find no room; nil if there are none.
func (v *visit[T]) next(b *band[T]) (*tenant[T], *lane[T]) {
	for {
		idle, short := true, 0.0 // what the tenant that lacks least lacks
		for range b.tenants {
			b.turn %= len(b.tenants)
			tn := b.tenants[b.turn]
			l := v.first(tn)
			if l == nil {
				tn.deficit, tn.visited = 0, false
				b.turn++
				continue
			}
			if !tn.visited {
				tn.visited = true
				tn.deficit += quantumMS
			}
			lacks := l.tickets[l.passed].CostMS - tn.deficit
			if lacks <= 0 || len(b.tenants) == 1 {
				return tn, l
			}
			if idle || lacks < short {
				short = lacks
			}
			idle, tn.visited = false, false
			b.turn++
		}
		if idle {
			return nil, nil
		}
		// A quantum each was not enough for anybody: as many rounds are given at once as
		// the first needs.
		rounds := math.Floor(short / quantumMS)
		for _, tn := range b.tenants {
			if v.first(tn) != nil {
				tn.deficit += rounds * quantumMS
			}
		}
	}
}

// first is the tenant's lane whose best ticket comes before those of its others.
func (v *visit[T]) first(tn *tenant[T]) (best *lane[T]) {
	for _, l := range tn.lanes {
		if l.round != v.round {
			l.round, l.passed = v.round, 0
		}
		if l.passed == len(l.tickets) || slices.Contains(v.blocked, l.class) {
			continue
		}
		if best == nil || l.tickets[l.passed].compare(best.tickets[best.passed]) < 0 {
			best = l
		}
	}
	return best
}

func (q *Queue[T]) band(number int) *band[T] {
	at, found := slices.BinarySearchFunc(q.bands, number, func(b *band[T], n int) int { return cmp.Compare(n, b.number) })
	if !found {
		q.bands = slices.Insert(q.bands, at, &band[T]{number: number})
	}
	return q.bands[at]
}

func (b *band[T]) tenant(name string) *tenant[T] {
	for _, tn := range b.tenants {
		if tn.name == name {
			return tn
		}
	}
	tn := &tenant[T]{name: name}
	b.tenants = append(b.tenants, tn)
	return tn
}

func (tn *tenant[T]) lane(class uint64) *lane[T] {
	for _, l := range tn.lanes {
		if l.class == class {
			return l
		}
	}
	l := &lane[T]{class: class}
	tn.lanes = append(tn.lanes, l)
	return l
}

// All calls f for each ticket that waits, in no particular order; f must not touch the
// queue.
func (q *Queue[T]) All(f func(*Ticket[T])) {
	for _, b := range q.bands {
		for _, tn := range b.tenants {
			for _, l := range tn.lanes {
				for _, t := range l.tickets {
					f(t)
				}
			}
		}
	}
}

// ahead counts the milliseconds of work of those that would be tried before a ticket
// of the tenant that came now: all of higher bands and, of its own, as much of each
// other tenant as of this one.
func (q *Queue[T]) ahead(tenantName string, bandNumber int) float64 {
	total := 0.0
	for _, b := range q.bands {
		own, others := 0.0, []float64(nil)
		for _, tn := range b.tenants {
			sum := 0.0
			for _, l := range tn.lanes {
				for _, t := range l.tickets {
					sum += t.CostMS
				}
			}
			switch {
			case b.number > bandNumber:
				total += sum
			case b.number == bandNumber && tn.name == tenantName:
				own = sum
			case b.number == bandNumber:
				others = append(others, sum)
			}
		}
		total += own
		for _, sum := range others {
			total += min(sum, own+quantumMS)
		}
	}
	return total
}

// RetryAfter is when a request of a tenant that finds the queue full may come again:
// when what waits before it is served, at the rate at which the queue has drained
// lately. It is within 1 s and a minute, in whole seconds; where nothing has drained it
// is the fallback.
func (q *Queue[T]) RetryAfter(tenantName string, band int, now time.Time, fallback time.Duration) time.Duration {
	rate := q.drain.rate(now)
	if rate <= 0 {
		return fallback
	}
	seconds := clampFloat(q.ahead(tenantName, band)/rate, 1, maxRetryAfter.Seconds())
	return time.Duration(math.Round(seconds)) * time.Second
}

// drain follows the milliseconds of work that leave the queue a second, over a window
// that forgets by half in drainHalfLife.
type drain struct {
	sum   float64
	span  float64 // seconds, forgotten alike
	at    time.Time
	begun bool
}

func (d *drain) forget(now time.Time) {
	if !d.begun {
		d.at, d.begun = now, true
		return
	}
	seconds := now.Sub(d.at).Seconds()
	if !(seconds > 0) { // a clock that goes backwards
		return
	}
	keep := math.Exp2(-seconds / drainHalfLife.Seconds())
	// What is left of a second ages by its own length too.
	d.sum, d.span, d.at = d.sum*keep, d.span*keep+seconds*(1+keep)/2, now
}

func (d *drain) served(now time.Time, cost float64) {
	d.forget(now)
	d.sum += cost
}

func (d *drain) rate(now time.Time) float64 {
	if !d.begun {
		return 0
	}
	d.forget(now)
	return d.sum / max(d.span, 1)
}
