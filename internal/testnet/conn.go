package testnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// conn is one end of a connection. The network's lock guards all that changes.
type conn struct {
	net           *Network
	host          *Host
	peer          *conn
	local, remote net.Addr
	seq           uint64
	in, out       *pipe

	closed  bool // by its owner
	done    bool // the other side has been told so
	reset   bool // broken: reads and writes fail
	aborted bool // its host was killed and the other side may not know yet

	readBy, writeBy    time.Time // deadlines; zero is none
	readable, writable gate
	writing            bool // a Write is under way; another one waits for it
}

var _ net.Conn = (*conn)(nil)

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		now := time.Now()
		c.in.advanceLocked(now)
		if err := c.brokenLocked("read"); err != nil {
			return 0, err
		}
		switch {
		case c.host.paused:
			n.waitLocked(&c.readable, time.Time{}, nil)
			continue
		case past(c.readBy, now):
			return 0, c.fault("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		case c.in.arrived > c.in.read:
			k := c.in.takeLocked(b)
			c.peer.writable.open()
			return k, nil
		case c.in.fin:
			return 0, io.EOF
		}
		n.waitLocked(&c.readable, earlier(c.readBy, c.in.next()), nil)
	}
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	n := c.net
	n.mu.Lock()
	defer n.mu.Unlock()
	mine, wrote := false, 0
	defer func() {
		if mine {
			c.writing = false
			c.writable.open()
		}
	}()
	for {
		now := time.Now()
		c.in.advanceLocked(now)
		if err := c.brokenLocked("write"); err != nil {
			return wrote, err
		}
		switch {
		case c.host.paused:
			n.waitLocked(&c.writable, time.Time{}, nil)
			continue
		case past(c.writeBy, now):
			return wrote, c.fault("write", os.ErrDeadlineExceeded)
		case c.in.fin: // there is no half close, so nobody reads any more
			return wrote, c.fault("write", os.NewSyscallError("write", syscall.EPIPE))
		case c.writing && !mine:
			n.waitLocked(&c.writable, c.writeBy, nil)
			continue
		}
		mine, c.writing = true, true
		if k := min(len(b)-wrote, c.out.free()); k > 0 {
			c.out.addLocked(now, b[wrote:wrote+k], false)
			c.peer.readable.open()
			wrote += k
		}
		if wrote == len(b) {
			return wrote, nil
		}
		n.waitLocked(&c.writable, earlier(c.writeBy, c.in.next()), nil)
	}
}

// Close implements net.Conn. Bytes written before are still delivered.
func (c *conn) Close() error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fault("close", net.ErrClosed)
	}
	c.closed = true
	if !c.host.paused {
		c.finishLocked()
	}
	c.readable.open()
	c.writable.open()
	return nil
}

// finishLocked tells the other side that this one is closed.
func (c *conn) finishLocked() {
	if c.done {
		return
	}
	c.done = true
	if !c.reset {
		c.out.addLocked(time.Now(), nil, true)
	}
	c.forgetLocked()
	c.peer.readable.open()
	c.peer.writable.open()
}

// resetLocked breaks this end.
func (c *conn) resetLocked() {
	c.reset = true
	c.forgetLocked()
	c.readable.open()
	c.writable.open()
}

// abortLocked ends this end as its host ends. The other side learns of it when
// the way there is open.
func (c *conn) abortLocked() {
	over := c.done // the other side reads what was written, then the end
	c.aborted = !over
	c.resetLocked()
	if !over && !c.out.link.cut {
		c.peer.resetLocked()
	}
	c.forgetLocked()
}

// forgetLocked drops this end from the network once it is over. An end whose
// host died in a partition stays until its peer knows.
func (c *conn) forgetLocked() {
	for _, e := range []*conn{c, c.peer} {
		over := e.reset || e.done
		if over && (!e.aborted || e.peer.reset || e.peer.done) {
			delete(e.net.mu.conns, e)
		}
	}
}

// brokenLocked returns why the connection cannot be used at all, or nil.
func (c *conn) brokenLocked(op string) error {
	switch {
	case c.closed:
		return c.fault(op, net.ErrClosed)
	case c.reset && !c.host.paused:
		return c.fault(op, os.NewSyscallError(op, syscall.ECONNRESET))
	}
	return nil
}

func (c *conn) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: c.local.Network(), Source: c.local, Addr: c.remote, Err: err}
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *conn) setDeadlines(read, write *time.Time) error {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	if c.closed {
		return c.fault("set", net.ErrClosed)
	}
	if read != nil {
		c.readBy = *read
		c.readable.open()
	}
	if write != nil {
		c.writeBy = *write
		c.writable.open()
	}
	return nil
}

// past reports whether a deadline is over.
func past(deadline, now time.Time) bool { return !deadline.IsZero() && !deadline.After(now) }

// address is a net.Addr of the network.
type address struct{ network, text string }

// Network implements net.Addr.
func (a address) Network() string { return a.network }

// String implements net.Addr.
func (a address) String() string { return a.text }
