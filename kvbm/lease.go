package kvbm

import (
	"cmp"
	"slices"
	"time"
)

// LeaseID names a lease; its maker chooses it.
type LeaseID uint64

// leases are blocks kept after their owner's end.
type leases struct {
	kept map[LeaseID]lease
	// due is sorted by expiry, then id.
	due []due
}

type lease struct {
	expires time.Time
	held    []Held
	open    []Partial
}

type due struct {
	expires time.Time
	id      LeaseID
}

func (d due) compare(e due) int {
	return cmp.Or(d.expires.Compare(e.expires), cmp.Compare(d.id, e.id))
}

// Lease takes over the blocks of a sequence, in their order, and keeps them until
// EndLease, or ExpireLeases after expires. Held blocks come first; open ones are
// those at the end that never became full. The slices are copied. An id that is
// in use panics.
func (p *Pool) Lease(id LeaseID, held []Held, open []Partial, expires time.Time) {
	if p.Leased(id) {
		panic("BUG: kvbm: two leases with one id")
	}
	for _, h := range held {
		p.checkHeld(h)
	}
	for _, b := range open {
		p.check(b.handle, statePartial)
	}
	if p.leases.kept == nil {
		p.leases.kept = map[LeaseID]lease{}
	}
	p.leases.kept[id] = lease{expires, slices.Clone(held), slices.Clone(open)}
	d := due{expires, id}
	at, _ := slices.BinarySearchFunc(p.leases.due, d, due.compare)
	p.leases.due = slices.Insert(p.leases.due, at, d)
}

// Leased reports whether a lease with this id exists.
func (p *Pool) Leased(id LeaseID) bool {
	_, ok := p.leases.kept[id]
	return ok
}

// EndLease releases the blocks of a lease. It reports false for an id that has
// none, for example because it expired.
func (p *Pool) EndLease(id LeaseID) bool {
	l, ok := p.leases.kept[id]
	if !ok {
		return false
	}
	delete(p.leases.kept, id)
	at, _ := slices.BinarySearchFunc(p.leases.due, due{l.expires, id}, due.compare)
	p.leases.due = slices.Delete(p.leases.due, at, at+1)
	for _, b := range slices.Backward(l.open) {
		p.Abort(b)
	}
	for _, h := range slices.Backward(l.held) {
		p.Release(h)
	}
	return true
}

// ExpireLeases ends the leases whose time has come and appends their ids to dst,
// the earliest first.
func (p *Pool) ExpireLeases(dst []LeaseID, now time.Time) []LeaseID {
	for len(p.leases.due) > 0 && !p.leases.due[0].expires.After(now) {
		dst = append(dst, p.leases.due[0].id)
		p.EndLease(p.leases.due[0].id)
	}
	return dst
}

// NextExpiry is the time of the first expiry, and whether there is any lease.
func (p *Pool) NextExpiry() (time.Time, bool) {
	if len(p.leases.due) == 0 {
		return time.Time{}, false
	}
	return p.leases.due[0].expires, true
}
