package transfer

import (
	"net"
	"time"
)

// ZeroCopy says when the path tcp lends what it sends to the kernel, which reads it
// where it lies, instead of having it copied first.
type ZeroCopy string

// The ways. Only Linux lends, from 6.2 on and where io_uring is allowed, and only over
// connections without TLS. Elsewhere all are ZeroCopyOff.
const (
	// ZeroCopyAuto lends large frames to other hosts, as long as the kernel does not
	// report that it has copied them after all, as it does where a device cannot gather.
	ZeroCopyAuto ZeroCopy = "auto"
	// ZeroCopyOff lends nothing; so does the empty string.
	ZeroCopyOff ZeroCopy = "off"
	// ZeroCopyAlways lends within a host, too, where the kernel copies and nothing is
	// gained. It is for tests and measurements.
	ZeroCopyAlways ZeroCopy = "always"
)

func (z ZeroCopy) known() bool {
	return z == "" || z == ZeroCopyAuto || z == ZeroCopyOff || z == ZeroCopyAlways
}

// between reports whether a connection between two addresses may lend. What stays
// within the host is copied by the kernel when it is received.
func (z ZeroCopy) between(local, remote net.Addr) bool {
	l, ok := local.(*net.TCPAddr)
	r, also := remote.(*net.TCPAddr)
	switch {
	case !ok || !also:
		return false
	case z == ZeroCopyAlways:
		return true
	}
	return z == ZeroCopyAuto && !r.IP.IsLoopback() && !r.IP.Equal(l.IP)
}

// lender is a connection that lends what it sends, if that pays: the kernel reads it
// after the call has returned, until it gives it back.
type lender interface {
	// lend sends buffers, of which the first is copied. If lent, the others belong to
	// the kernel until back is called, once, perhaps before lend returns; it must not
	// block.
	lend(bufs net.Buffers, back func()) (lent bool, err error)
	// look takes what the kernel has given back so far. From watch(true) to
	// watch(false) that is done as soon as the kernel gives something back, otherwise
	// when somebody looks or lends again: to be woken for each part would cost more
	// than many a copy.
	look()
	watch(on bool)
	// underway reports whether all that the kernel has of the connection's is on its
	// way, and nothing is being sent.
	underway() bool
	// settle returns, after Close, when the kernel has given everything back.
	settle()
}

// worthLending reports whether payload is so large that to lend it costs less than to
// copy it.
func worthLending(payload net.Buffers) bool {
	if len(payload) == 0 {
		return false
	}
	total := 0
	for _, b := range payload {
		total += len(b)
	}
	return total >= lendBytes && total/len(payload) >= lendSegment
}

// regain waits until the kernel has given back what was lent to it for an exchange that
// has ended. A peer that has answered has what was sent, so that comes at once; otherwise
// the connection is given up, after lentGrace, which ends the loan.
func (l *link) regain(x *exchange, over <-chan struct{}) {
	if !x.lent {
		return
	}
	x.lent = false
	c := l.nc.(lender)
	c.look()
	select {
	case <-x.back:
		return
	default:
	}
	c.watch(true)
	defer c.watch(false)
	timer := time.NewTimer(cancelGrace)
	defer timer.Stop()
	var late time.Time
	for {
		select {
		case <-x.back:
			return
		case <-over:
			over, late = nil, time.Now().Add(lentGrace)
		case <-timer.C:
			c.look() // an event that was missed costs no more than this
			if !late.IsZero() && !time.Now().Before(late) {
				l.fail(lost(nil, "%q has not taken what a transfer that has ended sent", l.p.Name()))
			}
			timer.Reset(cancelGrace)
		}
	}
}
