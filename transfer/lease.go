package transfer

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Outcome is how a lease ended.
type Outcome uint8

// The outcomes.
const (
	Acknowledged Outcome = iota // a peer, or the owner on its behalf, is done with it
	Expired                     // its time was over
	Revoked                     // the owner took it back
	outcomes
)

// String names the outcome, as metrics do.
func (o Outcome) String() string {
	return [...]string{Acknowledged: "acknowledged", Expired: "expired", Revoked: "revoked"}[o]
}

// Lease is a range of a memory that peers may touch until it ends. Its pages are
// the owner's again when Done is closed, not before.
type Lease struct {
	m     *Memory
	token uint64
	part  Range
	done  chan struct{}

	mu struct {
		sync.Mutex
		ended   bool
		at      time.Time
		outcome Outcome
	}
}

// Lend opens a range, whole pages of it, to peers that have its token: to read,
// or to read and write. It ends by acknowledgement, by Revoke, or after ttl; then
// peers are refused, and the range can be lent again after Done.
func (m *Memory) Lend(r Range, write bool, ttl time.Duration) (*Lease, error) {
	size := m.size
	if !within(r.Offset, r.Length, size) || r.Offset%m.pageBytes != 0 || r.Length%m.pageBytes != 0 && r.Offset+r.Length != size {
		return nil, invalid("%d bytes at %d of memory %q: lend whole pages of %d bytes within its %d", r.Length, r.Offset, m.name, m.pageBytes, size)
	}
	if ttl <= 0 {
		return nil, invalid("a lease of %v; give it a time above 0", ttl)
	}
	rs := mayRead
	if write {
		rs |= mayWrite
	}
	l := &Lease{m: m, part: r, done: make(chan struct{})}
	expires := time.Now().Add(ttl)
	m.mu.Lock()
	token, ok := m.mu.fence.lend(spanOf(r.Offset, r.Length, m.pageBytes), rs, expires)
	if ok {
		l.token = token
		m.mu.leases[token] = l
	}
	m.mu.Unlock()
	if !ok {
		return nil, coded(dynamo.KindExhausted, CodeFenced, "%d bytes at %d of memory %q are lent, or a peer may still touch them; wait for the Done of their lease", r.Length, r.Offset, m.name)
	}
	m.a.reaper.expect(expires)
	return l, nil
}

// Token is what opens the range.
func (l *Lease) Token() uint64 { return l.token }

// At names a part of the range, offset from its beginning, for a peer's remote
// list.
func (l *Lease) At(offset, length int64) Descriptor {
	return Descriptor{l.m.id, l.part.Offset + offset, length, l.token}
}

// Acknowledge ends the lease because its user is done. Peers do it from afar with
// Options.Acknowledge. Ending a lease twice does nothing.
func (l *Lease) Acknowledge() { l.end(Acknowledged) }

// Revoke ends the lease because its owner wants the range.
func (l *Lease) Revoke() { l.end(Revoked) }

// Extend has the lease last for ttl from here on, if it would not last longer; false: it
// has ended, and stays so.
func (l *Lease) Extend(ttl time.Duration) bool {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.mu.fence.extend(l.token, time.Now().Add(ttl)) // the reaper wakes at the old time, and sees
}

// Touches grows as peers touch the range: who compares it with what it was knows whether
// a transfer goes on. Of a process that copies by itself it is known only while it does.
// After the range was given back it is 0.
func (l *Lease) Touches() uint64 {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.mu.fence.touches(l.token, l.m.foreignLocked)
}

// Done is closed when the lease has ended and no peer can touch the range.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Outcome says how the lease ended, if it has.
func (l *Lease) Outcome() (o Outcome, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.outcome, l.mu.ended
}

func (l *Lease) end(o Outcome) {
	l.m.mu.Lock()
	first := l.m.mu.fence.finish(l.token)
	l.m.mu.Unlock()
	if !first {
		return
	}
	l.mu.Lock()
	l.mu.ended, l.mu.outcome, l.mu.at = true, o, time.Now()
	l.mu.Unlock()
	l.m.a.count.leases[o].Inc()
	l.m.a.count.draining.Inc()
	if !l.settle() {
		l.m.a.reaper.drain(l)
	}
}

// settle gives the range back if nobody touches it, and reports whether it has
// been given back.
func (l *Lease) settle() bool {
	select {
	case <-l.done:
		return true
	default:
	}
	l.m.mu.Lock()
	ok := l.m.mu.fence.settle(l.token, l.m.foreignLocked)
	if ok {
		delete(l.m.mu.leases, l.token)
	}
	l.m.mu.Unlock()
	if ok {
		l.m.a.count.draining.Dec()
		close(l.done)
	}
	return ok
}

// acknowledge ends the lease that a peer names.
func (m *Memory) acknowledge(token uint64) {
	m.mu.Lock()
	l := m.mu.leases[token]
	m.mu.Unlock()
	if l != nil {
		l.end(Acknowledged)
	}
}

// reaper ends leases in time, and looks after those that have ended while a peer
// was at work in them. It sleeps until there is something to do.
type reaper struct {
	a    *Agent
	bell chan struct{}
	next atomic.Int64 // when it wakes by itself, in ns since 1970

	mu struct {
		sync.Mutex
		draining []*Lease
	}
}

func (r *reaper) wake() {
	select {
	case r.bell <- struct{}{}:
	default: // it is rung
	}
}

// expect wakes the reaper if it would sleep beyond t.
func (r *reaper) expect(t time.Time) {
	if t.UnixNano() < r.next.Load() {
		r.wake()
	}
}

func (r *reaper) drain(l *Lease) {
	r.mu.Lock()
	r.mu.draining = append(r.mu.draining, l)
	r.mu.Unlock()
	r.wake()
}

// run is the reaper's goroutine.
func (r *reaper) run(stop <-chan struct{}) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	poll := drainPoll
	for {
		r.next.Store(math.MaxInt64) // a lease that comes from here on rings
		next := r.expire(time.Now())
		if r.settle() {
			poll = drainPoll
		} else {
			poll = min(2*poll, drainPollMax)
			if t := time.Now().Add(poll); next.IsZero() || t.Before(next) {
				next = t
			}
		}
		if next.IsZero() {
			next = time.Now().Add(time.Hour)
		}
		r.next.Store(next.UnixNano())
		timer.Reset(time.Until(next))
		select {
		case <-stop:
			return
		case <-r.bell:
		case <-timer.C:
		}
	}
}

// expire ends what is due and says when it has to be asked again.
func (r *reaper) expire(now time.Time) (next time.Time) {
	for _, m := range r.a.everyMemory() {
		m.mu.Lock()
		tokens, t := m.mu.fence.due(now)
		over := make([]*Lease, 0, len(tokens))
		for _, token := range tokens {
			over = append(over, m.mu.leases[token])
		}
		m.mu.Unlock()
		for _, l := range over {
			l.end(Expired)
		}
		if next.IsZero() || !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	return next
}

// settle looks at the draining leases again, cuts off those who hold one for too
// long, and reports whether none is left.
func (r *reaper) settle() bool {
	r.mu.Lock()
	all := slices.Clone(r.mu.draining)
	r.mu.Unlock()
	var settled []*Lease
	for _, l := range all {
		if l.settle() {
			settled = append(settled, l)
			continue
		}
		l.mu.Lock()
		since := time.Since(l.mu.at)
		l.mu.Unlock()
		if since >= leaseGrace {
			l.m.cutOff(l.token, since)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.draining = slices.DeleteFunc(r.mu.draining, func(l *Lease) bool { return slices.Contains(settled, l) })
	return len(r.mu.draining) == 0
}

// cutOff ends the connections over which a peer still touches a lease that ended so
// long ago. A process that maps the memory needs no such help: its copy ends, or it does.
func (m *Memory) cutOff(token uint64, since time.Duration) {
	m.sever(since, func() []uint64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.mu.fence.holders(token)
	})
}

// sever ends the connections that hold pages, but not those which only wait, and have not
// for long, until the kernel is done with what was sent.
func (m *Memory) sever(since time.Duration, holders func() []uint64) {
	for _, c := range holders() {
		if l, ok := m.a.served(c).(lender); ok {
			l.look()
		}
	}
	for _, c := range holders() {
		if l, ok := m.a.served(c).(lender); !ok || since >= lentGrace || !l.underway() {
			m.a.sever(c)
		}
	}
}
