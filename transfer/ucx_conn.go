//go:build dl && linux && (amd64 || arm64)

package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
)

// ucxConn is a stream of bytes between two workers, as a net.Conn. What is small is
// copied; what is large goes as a message of its own, which libucp fetches out of
// the sender's memory straight into the receiver's (by RDMA, where there is).
//
// Memory of a user is touched only within his call of Read or Write, and neither
// returns before the library has ended the operation. That is what the proof of
// the path tcp rests on, and so it holds here: who moves the bytes of a lent page
// is its owner's own call, and when the connection is cut that call ends with it.
// One thing is different. A receiver may still be fetching when the sender's call
// has been cut and the memory has other bytes. Therefore a large message counts
// only when the sender has told, after its end, that it left as it was: a commit.
// Read does not return before it.
//
// Only one goroutine reads, and one writes, at a time.
type ucxConn struct {
	w              *ucxWorker
	number, theirs uint64 // in the tags of what comes, and of what goes
	serial         uint32
	address        []byte // of the peer's worker
	open           chan struct{}
	readable       chan struct{}
	writable       chan struct{}
	dead           chan struct{} // failed, or closed here
	once           sync.Once
	reads, writes  ucxDeadline

	// Of the worker's goroutine alone.
	ep        uintptr
	larges    []*ucxRequest // sent, not committed
	committed uint64
	received  uint64    // large messages
	leaving   time.Time // closed here; until then it may take
	parted    bool      // the peer was told

	mu struct {
		sync.Mutex
		inbox   []*ucxItem
		begun   int    // of the inbox: received, or being so
		held    int    // bytes of small messages that are
		commits uint64 // told by the peer
		unread  int    // bytes sent by copying that the peer has not taken
		opened  bool
		err     error
	}
}

// ucxItem is a message in an inbox.
type ucxItem struct {
	large   bool
	ready   bool
	handle  uintptr
	ordinal uint64 // of a large one
	n       int
	buf     []byte // of a small one
	read    int
}

func newUCXConn(w *ucxWorker, address []byte) *ucxConn {
	c := &ucxConn{w: w, number: newUCXNumber(), address: address, open: make(chan struct{}), readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), dead: make(chan struct{})}
	c.reads.init()
	c.writes.init()
	ucxRemember(c)
	return c
}

// dialUCX connects to a worker.
func dialUCX(ctx context.Context, w *ucxWorker, address string) (net.Conn, error) {
	c := newUCXConn(w, []byte(address))
	if !w.post(ucxTask{conn: c, what: ucxTaskOpen}) {
		ucxForget(c)
		return nil, errStopped
	}
	select {
	case <-c.open:
		return c, nil
	case <-c.dead:
		_ = c.Close() // the fault is reported
		return nil, c.cause()
	case <-ctx.Done():
		_ = c.Close() // the fault is reported
		return nil, context.Cause(ctx)
	}
}

// answered is the peer's answer to the hello.
func (c *ucxConn) answered(b []byte) {
	if c == nil {
		return
	}
	if len(b) != ucxHello || b[0] != ucxVersion || c.theirs != 0 {
		c.w.fail(c, coded(dynamo.KindUnavailable, CodeVersion, "the peer answers by another version of the path ucx: run the same release of dynamo on both"))
		return
	}
	c.theirs = binary.BigEndian.Uint64(b[1:])
	close(c.open)
}

func (c *ucxConn) cause() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

// fail ends the connection for whoever uses it.
func (c *ucxConn) fail(err error) {
	c.mu.Lock()
	first := c.mu.err == nil
	if first {
		c.mu.err = err
	}
	c.mu.Unlock()
	if first {
		close(c.dead)
	}
}

func knock(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default: // it is rung
	}
}

// queue, next and arrived are the worker's side of the inbox.
func (c *ucxConn) queue(m *ucxItem) {
	c.mu.Lock()
	c.mu.inbox = append(c.mu.inbox, m)
	c.mu.Unlock()
}

// next returns a message that is to be received now, with room for it.
func (c *ucxConn) next() *ucxItem {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.mu.begun < len(c.mu.inbox) {
		m := c.mu.inbox[c.mu.begun]
		if m.large {
			knock(c.readable)
		}
		if !m.large && c.mu.held > 0 && c.mu.held+m.n > ucxWindow {
			return nil
		}
		c.mu.begun++
		if !m.large {
			c.mu.held += m.n
			m.buf = make([]byte, m.n)
			return m
		}
	}
	return nil
}

// unreceived returns the messages that nobody wants any more.
func (c *ucxConn) unreceived() (handles []uintptr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, m := range c.mu.inbox {
		if m.large || i >= c.mu.begun {
			handles = append(handles, m.handle)
		}
	}
	c.mu.inbox, c.mu.begun = nil, 0
	return handles
}

func (c *ucxConn) arrived(r *ucxRequest) {
	c.mu.Lock()
	r.item.ready = true
	c.mu.Unlock()
	knock(c.readable)
}

// left is the end of a message that was sent by copying.
func (c *ucxConn) left(r *ucxRequest) {
	c.mu.Lock()
	c.mu.unread -= len(r.buf)
	c.mu.Unlock()
	knock(c.writable)
}

func (c *ucxConn) commit(b []byte) {
	if c == nil || len(b) != 8 {
		return
	}
	c.mu.Lock()
	c.mu.commits = binary.BigEndian.Uint64(b)
	c.mu.Unlock()
	knock(c.readable)
}

// Read reads what is next: bytes of one small message, or as many large ones as
// fit.
func (c *ucxConn) Read(p []byte) (int, error) {
	for {
		n, batch, err := c.look(p)
		switch {
		case n > 0 || err != nil:
			return n, err
		case len(batch) > 0:
			return c.fetch(p, batch)
		}
		if err := c.wait(c.readable, &c.reads); err != nil {
			return 0, err
		}
	}
}

// look takes what is in the inbox: bytes of a small message, or large ones, which
// are still to be fetched.
func (c *ucxConn) look(p []byte) (n int, batch []*ucxItem, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.err == errUCXClosed {
		return 0, nil, c.mu.err
	}
	for len(c.mu.inbox) > 0 && c.mu.begun > 0 {
		m := c.mu.inbox[0]
		if m.large {
			if c.mu.err != nil {
				return 0, nil, c.mu.err
			}
			if m.n > len(p)-n && n == 0 { // it is read by copying
				return 0, []*ucxItem{m}, nil
			}
			if m.n > len(p)-n {
				return 0, batch, nil
			}
			n += m.n
			batch = append(batch, m)
			c.popLocked()
			continue
		}
		if len(batch) > 0 || !m.ready {
			return 0, batch, nil
		}
		if m.n == 0 {
			return 0, nil, io.EOF
		}
		n = copy(p, m.buf[m.read:])
		if m.read += n; m.read < m.n {
			return n, nil, nil
		}
		c.mu.held -= m.n
		c.popLocked()
		if c.mu.begun < len(c.mu.inbox) && !c.mu.inbox[c.mu.begun].large {
			c.w.post(ucxTask{conn: c, what: ucxTaskResume})
		}
		return n, nil, nil
	}
	if len(batch) > 0 {
		return 0, batch, nil
	}
	return 0, nil, c.mu.err
}

func (c *ucxConn) popLocked() {
	c.mu.inbox[0] = nil
	c.mu.inbox = c.mu.inbox[1:]
	c.mu.begun--
}

// fetch has large messages moved to where they are wanted. A single one that is
// too long for p goes by a buffer.
func (c *ucxConn) fetch(p []byte, batch []*ucxItem) (n int, err error) {
	whole := batch[0].n > len(p)
	if whole {
		p = make([]byte, batch[0].n)
	}
	g := &ucxGroup{left: len(batch), done: make(chan struct{})}
	tasks := make([]ucxTask, len(batch))
	for i, m := range batch {
		tasks[i].send = &ucxRequest{conn: c, receive: true, handle: m.handle, buf: p[n : n+m.n : n+m.n], group: g}
		n += m.n
	}
	if err := c.do(tasks, g, &c.reads); err != nil {
		return 0, err
	}
	last := batch[len(batch)-1].ordinal
	for {
		c.mu.Lock()
		sure := c.mu.commits >= last
		if sure && whole {
			m := batch[0]
			m.large, m.ready, m.buf = false, true, p
			c.mu.held += m.n
		}
		c.mu.Unlock()
		if sure && whole {
			return 0, nil // look copies it
		} else if sure {
			return n, nil
		}
		if err := c.wait(c.readable, &c.reads); err != nil {
			c.cut()
			return 0, c.cause()
		}
	}
}

// do posts requests and waits until the library has ended them. Who will not wait
// longer cuts the connection, which ends them.
func (c *ucxConn) do(tasks []ucxTask, g *ucxGroup, d *ucxDeadline) error {
	if !c.w.post(tasks...) {
		return errStopped
	}
	select {
	case <-g.done:
		return g.err
	case <-c.dead:
	case <-d.over():
		c.cut()
	}
	<-g.done
	return c.cause()
}

// cut ends the connection because what has begun is not done in time.
func (c *ucxConn) cut() {
	c.fail(errUCXLate)
	c.w.post(ucxTask{conn: c, what: ucxTaskBroken})
}

// wait waits for a bell.
func (c *ucxConn) wait(bell chan struct{}, d *ucxDeadline) error {
	select {
	case <-bell:
		return nil
	case <-d.over():
		return os.ErrDeadlineExceeded
	case <-c.dead:
	}
	select {
	case <-bell: // what came before the end is read
		knock(bell)
		return nil
	default:
		return c.cause()
	}
}

// Write writes one buffer.
func (c *ucxConn) Write(b []byte) (int, error) {
	if err := c.gather(net.Buffers{b}); err != nil {
		return 0, err
	}
	return len(b), nil
}

// gather writes buffers: small ones together by copying, others as they are. It
// returns when the latter are their owner's again.
func (c *ucxConn) gather(bufs net.Buffers) error {
	var tasks []ucxTask
	var stage []byte
	g := &ucxGroup{done: make(chan struct{})}
	staged := func() {
		if len(stage) > 0 {
			tasks = append(tasks, ucxTask{send: &ucxRequest{conn: c, kind: ucxKindBytes, buf: stage}})
			stage = nil
		}
	}
	total := 0
	for _, b := range bufs {
		for len(b) >= ucxLarge {
			staged()
			n := min(len(b), ucxPiece)
			r := &ucxRequest{conn: c, kind: ucxKindLarge, buf: b[:n:n], group: g}
			tasks, b = append(tasks, ucxTask{send: r}), b[n:]
			g.left++
		}
		for len(b) > 0 {
			n := min(len(b), ucxLarge-1-len(stage))
			stage, b, total = append(stage, b[:n]...), b[n:], total+n
			if len(stage) == ucxLarge-1 {
				staged()
			}
		}
	}
	staged()
	for {
		c.mu.Lock()
		err, room := c.mu.err, c.mu.unread == 0 || c.mu.unread+total <= ucxWindow
		if room && err == nil {
			c.mu.unread += total
		}
		c.mu.Unlock()
		if err != nil {
			return err
		}
		if room {
			break
		}
		if err := c.wait(c.writable, &c.writes); err != nil {
			return err
		}
	}
	if g.left > 0 {
		return c.do(tasks, g, &c.writes)
	}
	if !c.w.post(tasks...) {
		return errStopped
	}
	return nil
}

// Close ends the connection. Calls of Read and Write return when the library has
// let their memory go.
func (c *ucxConn) Close() error {
	c.once.Do(func() {
		c.fail(errUCXClosed)
		c.w.post(ucxTask{conn: c, what: ucxTaskClose})
	})
	return nil
}

type ucxAddr struct{}

// Network names the path.
func (ucxAddr) Network() string { return "ucx" }

// String says no more; libucp keeps the rest to itself.
func (ucxAddr) String() string { return "ucx" }

// LocalAddr names the path.
func (*ucxConn) LocalAddr() net.Addr { return ucxAddr{} }

// RemoteAddr names the path.
func (*ucxConn) RemoteAddr() net.Addr { return ucxAddr{} }

// SetDeadline bounds reads and writes.
func (c *ucxConn) SetDeadline(t time.Time) error {
	c.reads.set(t)
	c.writes.set(t)
	return c.closed()
}

// SetReadDeadline bounds reads.
func (c *ucxConn) SetReadDeadline(t time.Time) error {
	c.reads.set(t)
	return c.closed()
}

// SetWriteDeadline bounds writes.
func (c *ucxConn) SetWriteDeadline(t time.Time) error {
	c.writes.set(t)
	return c.closed()
}

func (c *ucxConn) closed() error {
	if err := c.cause(); errors.Is(err, errUCXClosed) {
		return err
	}
	return nil
}

// ucxDeadline is a deadline that can be waited for, and set meanwhile.
type ucxDeadline struct {
	mu struct {
		sync.Mutex
		timer *time.Timer
		past  chan struct{}
	}
}

func (d *ucxDeadline) init() { d.mu.past = make(chan struct{}) }

func (d *ucxDeadline) over() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.past
}

func (d *ucxDeadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.timer != nil && !d.mu.timer.Stop() {
		<-d.mu.past // its function closes it
	}
	d.mu.timer = nil
	select {
	case <-d.mu.past:
		d.mu.past = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	past := d.mu.past
	if left := time.Until(t); left > 0 {
		d.mu.timer = time.AfterFunc(left, func() { close(past) })
	} else {
		close(past)
	}
}
