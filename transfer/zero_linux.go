package transfer

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lending is what an agent knows of lending to the kernel.
type lending struct {
	setup   func(completions uint32) (*uring, error)
	refused atomic.Bool // the system has no io_uring for this process
	rings   atomic.Int32
}

func (l *lending) init() { l.setup = newURing }

// zeroConn is a connection that sends large payload by io_uring's SENDMSG_ZC. Its ring is
// made when it first lends, and given back by the goroutine that waits at the ring.
//
// A closed connection drops what lies in its queue if some of it is lent: then the kernel
// gives that back at once, and not when, or if, the peer has taken it.
type zeroConn struct {
	*net.TCPConn
	a    *Agent
	raw  syscall.RawConn
	over chan struct{} // closed when the ring was given back

	out shipment // of who writes

	mu struct {
		sync.Mutex
		ledger
		ring     *uring // nil: there is none yet, or any more
		busy     bool   // a frame is being lent
		closed   bool
		off      bool // nothing more is lent
		watchers int
	}
}

var (
	_ lender   = (*zeroConn)(nil)
	_ gatherer = (*zeroConn)(nil)
)

// shipment is the frame that is being lent.
type shipment struct {
	head     []byte
	rest     net.Buffers // not sent
	loan     *loan
	ring     *uring
	msg      unix.Msghdr // for the kernel, which must not find it on a stack
	iov      []unix.Iovec
	err      error
	sendHead func(fd uintptr) bool
	sendRest func(fd uintptr) bool
}

// errCopy ends a shipment whose rest is to be copied.
var errCopy = errors.New("the kernel takes no loan")

// errNoAnswer ends a connection. A send that does not wait has its result at once; without
// it, what was sent is not known.
var errNoAnswer = errors.New("io_uring has not said how a send went")

// lends makes a connection one that lends, where that is possible.
func (a *Agent) lends(nc net.Conn) net.Conn {
	t, ok := nc.(*net.TCPConn)
	if !ok || a.cfg.TLS != nil || a.lending.refused.Load() || !a.cfg.ZeroCopy.between(t.LocalAddr(), t.RemoteAddr()) {
		return nc
	}
	if c := newZeroConn(a, t); c != nil {
		return c
	}
	return nc // it is closed, which whoever uses it finds
}

func newZeroConn(a *Agent, t *net.TCPConn) *zeroConn {
	raw, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	c := &zeroConn{TCPConn: t, a: a, raw: raw, over: make(chan struct{})}
	c.out.sendHead, c.out.sendRest = c.sendHead, c.sendRest
	c.mu.parts = map[uint64]lot{}
	return c
}

// Close closes the connection, after which nothing more is lent.
func (c *zeroConn) Close() error {
	c.mu.Lock()
	c.mu.closed = true
	lent := c.mu.busy || len(c.mu.parts) > 0
	c.muteLocked()
	u := c.mu.ring
	c.mu.Unlock()
	if lent {
		_ = c.SetLinger(0) // fails for a closed one
	}
	if u != nil {
		u.ring() // what has come before it was unmuted
	}
	return c.TCPConn.Close()
}

func (c *zeroConn) underway() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.mu.busy && len(c.mu.parts) > 0
}

func (c *zeroConn) settle() {
	c.mu.Lock()
	u := c.mu.ring
	c.mu.Unlock()
	if u != nil {
		<-c.over
	}
}

func (c *zeroConn) gather(bufs net.Buffers) error {
	_, err := bufs.WriteTo(c.TCPConn)
	return err
}

func (c *zeroConn) lend(bufs net.Buffers, back func()) (lent bool, err error) {
	if !worthLending(bufs[1:]) || !c.begin() {
		return false, c.gather(bufs)
	}
	o := &c.out
	o.head, o.rest, o.err, o.loan = bufs[0], bufs[1:], nil, &loan{parts: 1, back: back}
	if err = c.raw.Write(o.sendHead); err == nil && o.err == nil {
		err = c.raw.Write(o.sendRest)
	}
	if err == nil {
		err = o.err
	}
	if err == errCopy {
		err = c.gather(o.rest)
	}
	lent = c.end(o.loan) // not before, because what is copied belongs to the loan, too
	o.loan, o.ring, o.rest = nil, nil, nil
	clear(o.iov)
	return lent, err
}

// begin has a ring for a frame, until end.
func (c *zeroConn) begin() bool {
	c.mu.Lock()
	u, no := c.mu.ring, c.mu.closed || c.mu.off || len(c.mu.parts) > lentParts/2
	c.mu.busy = u != nil && !no
	c.mu.Unlock()
	switch {
	case no:
		return false
	case u == nil:
		if u = c.setup(); u == nil {
			return false
		}
	}
	c.out.ring = u
	return true
}

// setup makes the ring, and what waits at it.
func (c *zeroConn) setup() *uring {
	rings := &c.a.lending.rings
	if c.a.lending.refused.Load() || rings.Load() >= maxRings {
		return nil
	}
	u, err := c.a.lending.setup(2 * lentParts)
	if err != nil {
		c.refuse(err)
		return nil
	}
	rings.Add(1)
	u.mute(true)
	c.mu.Lock()
	ok := !c.mu.closed
	if ok {
		c.mu.ring, c.mu.busy = u, true
		c.muteLocked()
	}
	c.mu.Unlock()
	if ok && c.a.spawn(func() { c.wait(u) }) {
		return u
	}
	c.mu.Lock()
	c.mu.ring, c.mu.busy, c.mu.off = nil, false, true
	c.mu.Unlock()
	u.close()
	rings.Add(-1)
	return nil
}

// refuse takes note that no ring can be had: by this process, or not now.
func (c *zeroConn) refuse(err error) {
	c.mu.Lock()
	c.mu.off = true
	c.mu.Unlock()
	for _, e := range []error{unix.ENOSYS, unix.EPERM, unix.EACCES, unix.EINVAL} {
		if errors.Is(err, e) && !c.a.lending.refused.Swap(true) {
			c.a.log.Info("the system lends nothing: what is sent by tcp is copied", "err", err)
		}
	}
}

// end is the end of a frame's sending. It reports whether some of the frame was lent.
func (c *zeroConn) end(l *loan) (lent bool) {
	c.look()
	c.mu.Lock()
	c.mu.busy = false
	l.parts--
	lent = l.lent
	over := lent && l.parts == 0
	u := c.finishedLocked()
	c.mu.Unlock()
	if over {
		l.back()
	}
	if u != nil {
		u.ring()
	}
	return lent
}

func (c *zeroConn) sendHead(fd uintptr) bool {
	o := &c.out
	for len(o.head) > 0 {
		n, err := unix.SendmsgN(int(fd), o.head, nil, nil, unix.MSG_MORE|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case err == unix.EAGAIN:
			return false
		case err == unix.EINTR:
		case err != nil:
			o.err = os.NewSyscallError("sendmsg", err)
			return true
		default:
			o.head = o.head[n:]
		}
	}
	return true
}

func (c *zeroConn) sendRest(fd uintptr) bool {
	o := &c.out
	for len(o.rest) > 0 {
		n, err := c.sendPart(int(fd))
		switch err {
		case nil:
			o.sent(n)
		case unix.EAGAIN:
			return false
		case unix.EINTR:
		case errCopy:
			o.err = err
			return true
		case unix.ENOMEM, unix.ENOBUFS: // as much is lent as may be, of all processes of this user (ulimit -l)
			c.mu.Lock()
			c.mu.copied++
			c.mu.Unlock()
			o.err = errCopy
			return true
		case unix.EINVAL, unix.EOPNOTSUPP, unix.EFAULT: // such a socket, or such memory, does not lend
			c.giveUp(err)
			o.err = errCopy
			return true
		case errNoAnswer:
			o.err = err
			return true
		default:
			o.err = os.NewSyscallError("sendmsg", err)
			return true
		}
	}
	return true
}

// sent takes from the rest what was sent.
func (o *shipment) sent(n int) {
	for n > 0 {
		if n < len(o.rest[0]) {
			o.rest[0] = o.rest[0][n:]
			return
		}
		n -= len(o.rest[0])
		o.rest[0] = nil
		o.rest = o.rest[1:]
	}
}

// sendPart lends as much of the rest as the kernel takes.
func (c *zeroConn) sendPart(fd int) (n int, err error) {
	o := &c.out
	o.iov = o.iov[:0]
	for _, b := range o.rest {
		v := unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		o.iov = append(o.iov, v)
	}
	o.msg = unix.Msghdr{Iov: &o.iov[0]}
	o.msg.SetIovlen(len(o.iov))
	c.mu.Lock()
	if len(c.mu.parts) >= lentParts {
		c.mu.Unlock()
		return 0, errCopy
	}
	user := c.mu.request(o.loan)
	c.mu.Unlock()
	if err := o.ring.send(fd, &o.msg, user); err != nil {
		c.mu.Lock()
		c.mu.withdraw(user)
		c.mu.Unlock()
		c.giveUp(err)
		return 0, errCopy
	}
	c.look()
	c.mu.Lock()
	answer := c.mu.answer
	c.mu.Unlock()
	switch {
	case answer.user != user:
		return 0, errNoAnswer
	case answer.res <= 0:
		return 0, unix.Errno(-answer.res)
	}
	return int(answer.res), nil
}

// giveUp lends nothing more.
func (c *zeroConn) giveUp(why error) {
	c.mu.Lock()
	c.mu.off = true
	c.muteLocked()
	c.mu.Unlock()
	c.a.log.Debug("a connection does not lend what it sends", "addr", c.RemoteAddr(), "err", why)
}

func (c *zeroConn) look() {
	c.mu.Lock()
	done := c.takeLocked(nil)
	vain := !c.mu.off && c.mu.copied >= lentCopied && c.a.cfg.ZeroCopy != ZeroCopyAlways
	if vain {
		c.mu.off = true
		c.muteLocked()
		done = c.takeLocked(done) // what has come before it was unmuted
	}
	u := c.finishedLocked()
	c.mu.Unlock()
	for _, l := range done {
		l.back()
	}
	if u != nil {
		u.ring()
	}
	if vain {
		c.a.log.Debug("the kernel copies what a connection lends, which lends nothing more", "addr", c.RemoteAddr())
	}
}

// takeLocked takes completions, and appends the loans that have ended.
func (c *zeroConn) takeLocked(done []*loan) []*loan {
	for c.mu.ring != nil {
		e, ok := c.mu.ring.next()
		if !ok {
			break
		}
		l, bytes, copied := c.mu.complete(e)
		if l != nil {
			done = append(done, l)
		}
		c.count(bytes, copied)
	}
	return done
}

func (c *zeroConn) count(bytes int, copied bool) {
	switch {
	case copied:
		c.a.count.lentCopied.Add(float64(bytes))
	case bytes > 0:
		c.a.count.lentSent.Add(float64(bytes))
	}
}

func (c *zeroConn) watch(on bool) {
	c.mu.Lock()
	if on {
		c.mu.watchers++
	} else {
		c.mu.watchers--
	}
	c.muteLocked()
	c.mu.Unlock()
	if on {
		c.look()
	}
}

// muteLocked lets the ring wake its goroutine, or not.
func (c *zeroConn) muteLocked() {
	if c.mu.ring != nil {
		c.mu.ring.mute(c.mu.watchers == 0 && !c.mu.closed && !c.mu.off)
	}
}

// finishedLocked returns the ring if it has served.
func (c *zeroConn) finishedLocked() *uring {
	if (c.mu.closed || c.mu.off) && !c.mu.busy && len(c.mu.parts) == 0 {
		return c.mu.ring
	}
	return nil
}

// wait is the ring's goroutine: it takes what the kernel gives back, and the ring when it
// has served.
func (c *zeroConn) wait(u *uring) {
	defer close(c.over)
	event := make([]byte, 8)
	for {
		c.look()
		c.mu.Lock()
		over, closed := c.finishedLocked() != nil, c.mu.closed
		if over {
			c.mu.ring = nil
		}
		c.mu.Unlock()
		if over {
			u.close()
			c.a.lending.rings.Add(-1)
			return
		}
		if closed { // an event that was missed while the ring was muted costs no more than this
			_ = u.event.SetReadDeadline(time.Now().Add(cancelGrace)) // the read finds the fault
		}
		if _, err := u.event.Read(event); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			panic("BUG: the eventfd of a ring was closed under it: " + err.Error())
		}
	}
}
