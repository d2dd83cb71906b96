package rpc

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
)

// conn is one connection after its handshake. run is its reader and owns the
// writer and the keeper.
type conn struct {
	nc      net.Conn
	under   net.Conn // what end closes: nc, or beneath TLS, which would say goodbye to a peer that does not read
	cfg     *Config
	srv     *Server // nil on a client
	counts  *counters
	who     string // the peer, for people
	peer    terms
	begin   time.Time
	closed  chan struct{} // closed by end
	leaving func(error)   // hears of a GOAWAY, in the reader; may be nil

	fragment int // payload of the largest frame this side sends
	giveBack int // bytes read of a stream after which credit is returned

	lastRead atomic.Int64 // since begin
	lastSent atomic.Int64 // since begin
	writing  atomic.Int64 // when the write under way began, 0 for none
	woken    []*Stream    // the reader's: streams whose receiver waits

	table   table
	streams sync.WaitGroup // the server's handlers

	mu struct {
		sync.Mutex
		dead error    // why no stream can be opened any more
		free []uint32 // a client's numbers to use next, of slots used before
		next uint32   // its first slot not used yet
		left error    // a client's: the server said GOAWAY, and waits for this side to close
	}
	w struct {
		sync.Mutex
		buf     []byte
		idle    bool  // the writer waits for work
		waiting int   // senders that wait for room
		passes  int   // how many of them may go on
		over    bool  // one of the next three is set: no sender goes on
		final   error // set: the writer writes what is there, and the connection ends with it
		shut    error // why nothing is written any more, though the reader goes on
		err     error // why the connection is over
	}
	work, room sync.Cond
}

// terms are what a peer announces in the handshake.
type terms struct {
	window, message, streams int
}

func newConn(nc net.Conn, cfg *Config, peer terms, counts *counters) *conn {
	c := &conn{nc: nc, under: nc, cfg: cfg, counts: counts, peer: peer, begin: time.Now(), closed: make(chan struct{})}
	if t, ok := nc.(*tls.Conn); ok {
		c.under = t.NetConn()
	}
	c.fragment = min(maxFrameBytes, peer.window/4-headerBytes)
	c.giveBack = cfg.WindowBytes / 4
	c.work.L, c.room.L = &c.w, &c.w
	return c
}

// run reads until the connection ends, and returns why. lost is called before
// the streams fail.
func (c *conn) run(lost func(error)) error {
	c.counts.connections.Inc()
	var g sync.WaitGroup
	g.Go(c.write) // ends with end
	g.Go(c.keep)  // ends with end
	c.end(c.cause(c.read()))
	g.Wait()
	c.w.Lock()
	err := c.w.err
	c.w.Unlock()
	c.counts.connections.Dec()
	c.counts.lose(lostCause(err))
	err = lostError(c.who, err)
	if lost != nil {
		lost(err)
	}
	c.failStreams(err)
	return err
}

// cause returns why a connection is over whose reader ended with err.
func (c *conn) cause(err error) error {
	c.w.Lock()
	defer c.w.Unlock()
	switch {
	case c.w.final != nil:
		return c.w.final
	case c.w.shut != nil && errors.Is(err, os.ErrDeadlineExceeded):
		return c.w.shut
	}
	return err
}

func lostCause(err error) string {
	switch {
	case code(err) == codeProtocol:
		return lostProtocol
	case code(err) == codeSilent:
		return lostSilent
	case errors.Is(err, errLeft):
		return lostLeft
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), code(err) == errClosing.Code:
		return lostClosed
	}
	return lostBroken
}

// end closes the connection; the first cause stays.
func (c *conn) end(cause error) {
	c.w.Lock()
	if c.w.err != nil {
		c.w.Unlock()
		return
	}
	c.w.over, c.w.err = true, cause
	c.w.Unlock()
	_ = c.under.Close() // it is given up; its state is of no interest
	close(c.closed)
	c.work.Broadcast()
	c.room.Broadcast()
}

// failStreams ends all streams of a connection that is over.
func (c *conn) failStreams(err error) {
	c.mu.Lock()
	c.mu.dead = err
	c.mu.Unlock()
	c.table.each(func(s *Stream) { s.lose(err) })
}

// read takes in frames. It waits for nothing but bytes.
func (c *conn) read() error {
	buf := make([]byte, firstReadBytes)
	from, to, small := 0, 0, 0
	for {
		n, err := c.nc.Read(buf[to:])
		if n > 0 {
			c.lastRead.Store(int64(time.Since(c.begin)))
			c.counts.received.Add(float64(n))
			to += n
			used, perr := c.consume(buf[from:to])
			if perr != nil {
				c.control(frameGoaway, 0, appendWireError(nil, perr))
				c.drain(perr)
				c.discard(buf)
				return perr
			}
			from += used
		}
		if err != nil {
			return err
		}
		if small++; n > firstReadBytes/2 {
			small = 0
		}
		switch {
		case to == len(buf) && len(buf) < maxReadBytes:
			grown := make([]byte, 2*len(buf))
			from, to = 0, copy(grown, buf[from:to])
			buf = grown
		case from == to && small > smallReads && len(buf) > firstReadBytes:
			buf, from, to = make([]byte, firstReadBytes), 0, 0
		case from == to:
			from, to = 0, 0
		case len(buf)-to < headerBytes+maxFrameBytes:
			from, to = 0, copy(buf, buf[from:to])
		}
	}
}

// discard reads on until the connection ends, and drops what comes. A close with
// bytes unread would reset the connection, and could take away what was sent.
func (c *conn) discard(buf []byte) {
	for {
		if _, err := c.nc.Read(buf); err != nil {
			return
		}
	}
}

// consume handles the whole frames in b, wakes the receivers they are for, and
// returns how much it used.
func (c *conn) consume(b []byte) (used int, err error) {
	for {
		f, n, err := parseFrame(b[used:])
		if err != nil {
			return used, err
		}
		if n == 0 {
			break
		}
		if f.typ == frameData {
			if s := c.table.get(f.stream); s != nil {
				wake, ok := s.deliver(b[used : used+n])
				if !ok {
					return used, protocolError("it sends more than stream %d has credit for", f.stream)
				}
				if wake {
					c.woken = append(c.woken, s)
				}
			}
		} else if err := c.handle(f); err != nil {
			return used, err
		}
		used += n
	}
	for i, s := range c.woken {
		s.readable.Signal()
		c.woken[i] = nil
	}
	c.woken = c.woken[:0]
	return used, nil
}

// handle takes in every frame but DATA.
func (c *conn) handle(f frame) error {
	switch f.typ {
	case frameOpen:
		if c.srv == nil {
			return protocolError("a server opens no streams")
		}
		return c.srv.open(c, f)
	case frameAlive:
		return nil
	case frameGoaway:
		e, err := parseWireError(f.payload)
		if err != nil {
			return err
		}
		return c.goaway(e)
	}
	s := c.table.get(f.stream)
	if s == nil {
		return nil // it crossed with the stream's end
	}
	switch f.typ {
	case frameClose:
		s.closeReceive()
	case frameWindow:
		if len(f.payload) != 4 {
			return protocolError("a WINDOW of %d bytes", len(f.payload))
		}
		return s.addCredit(int64(binary.BigEndian.Uint32(f.payload)))
	case frameCancel, frameEnd:
		if (f.typ == frameEnd) == (c.srv != nil) {
			return protocolError("a frame of type %d from the wrong side", f.typ)
		}
		var ended error
		if len(f.payload) > 0 {
			e, err := parseWireError(f.payload)
			if err != nil {
				return err
			}
			ended = e
		}
		s.remoteEnd(ended)
	}
	return nil
}

// goaway takes in that the peer wants no more streams.
func (c *conn) goaway(e *dynamo.Error) error {
	if e.Code == codeProtocol {
		c.end(&dynamo.Error{Kind: dynamo.KindCorrupt, Code: codeProtocol, Message: "the peer closed the connection", Err: e}) // the peer waits for it
		return nil
	}
	c.mu.Lock()
	c.mu.dead = lostError(c.who, e)
	unused := false
	if c.srv == nil {
		c.mu.left, unused = e, len(c.mu.free) == int(c.mu.next)
	}
	c.mu.Unlock()
	if c.leaving != nil {
		c.leaving(e)
	}
	if unused {
		c.end(e)
	}
	return nil
}

// drain lets the writer write what is queued. Then the peer has its turn: the
// connection ends when it has read all that and closed its side, or after
// drainTimeout.
func (c *conn) drain(cause error) {
	_ = c.nc.SetDeadline(time.Now().Add(drainTimeout)) // a connection that refuses it is over, and its reader knows
	c.w.Lock()
	c.w.over = true
	if c.w.final == nil {
		c.w.final = cause
	}
	c.w.Unlock()
	c.work.Signal()
	c.room.Broadcast()
}

// control queues a frame without waiting.
func (c *conn) control(typ frameType, stream uint32, payload []byte) {
	c.w.Lock()
	if c.w.err != nil || c.w.shut != nil {
		c.w.Unlock()
		return
	}
	over := len(c.w.buf) > hardQueueBytes
	if !over {
		c.w.buf = appendHeader(c.w.buf, typ, 0, stream, len(payload))
		c.w.buf = append(c.w.buf, payload...)
	}
	idle := c.w.idle
	c.w.idle = false
	c.w.Unlock()
	switch {
	case over:
		c.end(protocolError("it does not read: more than %d bytes wait for it", hardQueueBytes))
	case idle:
		c.work.Signal()
	}
}

// enqueue queues a frame, waits while the queue is full, and reports false when
// the connection is over. The payload is head and body.
func (c *conn) enqueue(typ frameType, flags byte, stream uint32, head, body []byte) bool {
	c.w.Lock()
	if len(c.w.buf) >= queueBytes {
		c.waitRoomLocked()
	}
	if c.w.over {
		c.w.Unlock()
		return false
	}
	b := appendHeader(c.w.buf, typ, flags, stream, len(head)+len(body))
	if len(head) > 0 {
		b = append(b, head...)
	}
	c.w.buf = append(b, body...)
	idle := c.w.idle
	c.w.idle = false
	c.w.Unlock()
	if idle {
		c.work.Signal()
	}
	return true
}

// waitRoomLocked waits for a pass from the writer. Each pass is good for one
// frame, whatever the queue holds by then, so that nobody waits for ever.
func (c *conn) waitRoomLocked() {
	c.w.waiting++
	for c.w.passes == 0 && !c.w.over {
		c.room.Wait()
	}
	c.w.waiting--
	if c.w.passes > 0 {
		c.w.passes--
	}
}

// write is the writer. Once awake it lets the goroutines that are ready to run
// go first: they are the other receivers of the same engine step, and what they
// send leaves in the same write.
func (c *conn) write() {
	var out []byte
	flushed := false // what was queued before the end, on a connection that cannot be closed by halves
	for {
		c.w.Lock()
		for len(c.w.buf) == 0 && c.w.err == nil && (c.w.final == nil || flushed) {
			c.w.idle = true
			c.work.Wait()
		}
		c.w.idle = false
		c.w.Unlock()
		runtime.Gosched()

		c.w.Lock()
		if c.w.err != nil {
			c.w.Unlock()
			return
		}
		out, c.w.buf = c.w.buf, out[:0]
		final := c.w.final
		n := max(0, min(c.w.waiting-c.w.passes, passesPerWrite))
		c.w.passes += n
		c.w.Unlock()
		for range n {
			c.room.Signal()
		}
		if len(out) > 0 {
			c.writing.Store(int64(time.Since(c.begin)) | 1)
			_, err := c.nc.Write(out)
			c.writing.Store(0)
			c.lastSent.Store(int64(time.Since(c.begin)))
			if err != nil {
				c.shut(err)
				return
			}
			c.counts.sent.Add(float64(len(out)))
		}
		if half, ok := c.nc.(halfCloser); ok && final != nil {
			c.shut(half.CloseWrite())
			return
		}
		flushed = final != nil
		if cap(out) > idleQueueBytes && len(out) < idleQueueBytes/4 {
			out = nil
		}
	}
}

// halfCloser is a connection that can tell its peer that no more bytes come, and
// read on: TCP, Unix sockets, TLS.
type halfCloser interface{ CloseWrite() error }

// shut ends writing, not reading: what the peer sent before it closed, or before
// the write failed, is taken in until its end, for drainTimeout at most. So the
// end of an answer arrives although its receiver has just failed to write
// something else. Senders learn of a failure when the reader ends, as of every
// other loss. A failed write that was to end the connection ends it at once.
func (c *conn) shut(err error) {
	c.w.Lock()
	final := c.w.final
	c.w.over = true
	if c.w.shut = err; err == nil {
		c.w.shut = final
	}
	c.w.Unlock()
	c.room.Broadcast()
	switch {
	case final == nil:
		_ = c.nc.SetReadDeadline(time.Now().Add(drainTimeout)) // a connection that refuses it is over, and its reader knows
	case err != nil:
		c.end(final)
	}
}

// keep sends something into every silence of this side, and ends the connection
// when the other side's lasts. Nobody answers: on a slow link an answer would
// wait behind all that is queued.
func (c *conn) keep() {
	every := c.cfg.PingEvery
	t := time.NewTimer(every)
	defer t.Stop()
	wait, slept := every, time.Now()
	for {
		select {
		case <-c.closed:
			return
		case <-t.C:
		}
		now := time.Now()
		if now.Sub(slept) > wait+every {
			// This process stood still; what the peer sent meanwhile waits to be read.
			c.lastRead.Store(int64(now.Sub(c.begin)))
		}
		age := now.Sub(c.begin)
		silent := age - time.Duration(c.lastRead.Load())
		if silent >= c.cfg.DeadAfter {
			c.end(silentError(silent))
			return
		}
		writing := time.Duration(c.writing.Load())
		if writing > 0 && age-writing > writeTimeout {
			c.end(protocolError("it does not read: a write takes longer than %v", writeTimeout))
			return
		}
		quiet := age - time.Duration(c.lastSent.Load())
		if quiet >= every && writing == 0 {
			c.control(frameAlive, 0, nil)
		}
		if quiet >= every {
			quiet = 0
		}
		wait, slept = min(every-quiet, c.cfg.DeadAfter-silent), now
		t.Reset(wait)
	}
}
