package rpc

import (
	"context"
	"encoding/binary"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
)

// Stream is one exchange of messages between a client and an endpoint. One
// goroutine at a time may send and one may receive; Cancel and Done are for
// everybody.
type Stream struct {
	c       *conn
	id      uint32
	request []byte
	// leave ends the handler's context on a server, and lets go of the caller's on
	// a client.
	leave func(error)

	credit   atomic.Int64 // what the other side takes in further
	aborted  atomic.Bool  // neither side of the exchange goes on here
	stopped  atomic.Bool  // nothing can be sent any more
	sendOver bool         // the sender's: CloseSend was called

	// The receiver's: the buffer it walks, what of it is used, how much of that
	// was not returned as credit, and the message being put together.
	cur     *buffer // nil or the one being walked
	pos     int
	used    int
	msg     []byte
	partial bool

	readable, writable sync.Cond
	mu                 struct {
		sync.Mutex
		in      *buffer // frames for the receiver, nil for none; it takes the whole buffer
		room    int     // what the other side may send yet
		waiting bool    // the receiver waits for in
		starved bool    // the sender waits for credit
		closed  bool    // no more messages come
		ended   bool    // the stream is over on the other side too
		err     error   // what Recv ends with once in is empty; nil is EOF
		cause   error   // why it was aborted
		done    chan struct{}
		expiry  *time.Timer // of a client's deadline
	}
}

func newStream(c *conn, id uint32) *Stream {
	s := &Stream{c: c, id: id}
	s.credit.Store(int64(c.peer.window))
	s.mu.room = c.cfg.WindowBytes
	s.readable.L, s.writable.L = &s.mu, &s.mu
	return s
}

// buffer holds frames on their way from the reader to a receiver. An idle stream
// has none.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, firstBufferBytes)} }}

func (b *buffer) free() {
	if cap(b.b) <= keptBufferBytes {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

// Request returns what Open carried, on a server. It belongs to the handler.
func (s *Stream) Request() []byte { return s.request }

// Send copies b and sends it as one message. It waits while the receiver gives
// no credit or the connection's queue is full. When the stream is over it
// returns why: the error that ended it, or io.EOF when it ended well.
func (s *Stream) Send(b []byte) error {
	if len(b) > s.c.peer.message {
		return tooLarge(len(b), s.c.peer.message)
	}
	if s.sendOver {
		return &dynamo.Error{Kind: dynamo.KindInternal, Message: "BUG: message sent after CloseSend"}
	}
	return s.send(b)
}

// send sends b in as many frames as it takes.
func (s *Stream) send(b []byte) error {
	for {
		n := min(len(b), s.c.fragment)
		flags := byte(0)
		if n < len(b) {
			flags = flagMore
		}
		cost := int64(headerBytes + n)
		if s.stopped.Load() || s.credit.Load() < cost {
			if err := s.waitCredit(cost); err != nil {
				return err
			}
		}
		s.credit.Add(-cost)
		if !s.c.enqueue(frameData, flags, s.id, nil, b[:n]) {
			return s.waitEnd()
		}
		if b = b[n:]; flags == 0 {
			return nil
		}
	}
}

// waitCredit returns when there is credit for a frame, or why there never is.
func (s *Stream) waitCredit(cost int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.stopped.Load() {
		if s.credit.Load() >= cost {
			return nil
		}
		s.mu.starved = true
		s.writable.Wait()
	}
	return s.overLocked()
}

// waitEnd returns what the stream ends with; its connection is over.
func (s *Stream) waitEnd() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.stopped.Load() {
		s.writable.Wait()
	}
	return s.overLocked()
}

// overLocked says why nothing can be sent.
func (s *Stream) overLocked() error {
	switch {
	case s.mu.cause != nil:
		return s.mu.cause
	case s.mu.err != nil:
		return s.mu.err
	}
	return io.EOF
}

// Recv returns the next message; it is valid until the next Recv. It returns
// io.EOF when the other side has sent all it wanted, and a *dynamo.Error when
// the stream ends otherwise: with the error of the handler, engine.CodeLost when
// the connection is lost (what had arrived comes first), on a client with
// engine.ContextError as soon as its context ends.
func (s *Stream) Recv() ([]byte, error) {
	if !s.partial {
		if cap(s.msg) > keptMessageBytes {
			s.msg = nil
		}
		s.msg = s.msg[:0]
	}
	for {
		if s.aborted.Load() || s.cur == nil || s.pos == len(s.cur.b) {
			if err := s.refill(); err != nil {
				return nil, err
			}
		}
		h := binary.BigEndian.Uint64(s.cur.b[s.pos:])
		from := s.pos + headerBytes
		to := from + int(h>>32&0xffff)
		p := s.cur.b[from:to:to]
		s.used += to - s.pos
		s.pos = to
		if s.used >= s.c.giveBack {
			s.grant()
		}
		more := h>>48&flagMore != 0
		if !more && !s.partial {
			return p, nil
		}
		if len(s.msg)+len(p) > s.c.cfg.MaxMessageBytes {
			err := tooLarge(len(s.msg)+len(p), s.c.cfg.MaxMessageBytes)
			s.abort(err)
			return nil, err
		}
		s.msg, s.partial = append(s.msg, p...), more
		if !more {
			return s.msg, nil
		}
	}
}

// refill gives the walked buffer back and takes the one the reader has filled.
func (s *Stream) refill() error {
	if s.cur != nil && s.pos == len(s.cur.b) {
		s.cur.free()
		s.cur = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.mu.cause != nil:
			return s.mu.cause
		case s.cur != nil:
			return nil
		case s.mu.in != nil:
			s.cur, s.mu.in, s.pos = s.mu.in, nil, 0
			return nil
		case s.mu.closed && s.mu.err != nil:
			return s.mu.err
		case s.mu.closed && s.partial:
			return &dynamo.Error{Kind: dynamo.KindCorrupt, Message: "the stream ended within a message"}
		case s.mu.closed:
			return io.EOF
		}
		s.mu.waiting = true
		s.readable.Wait()
	}
}

// grant returns what was read as credit.
func (s *Stream) grant() {
	n := s.used
	s.used = 0
	s.mu.Lock()
	s.mu.room += n
	over := s.mu.closed || s.mu.cause != nil
	s.mu.Unlock()
	if over {
		return
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	s.c.control(frameWindow, s.id, b[:])
}

// CloseSend says that no more messages come from this side.
func (s *Stream) CloseSend() error {
	if s.sendOver {
		return nil
	}
	s.sendOver = true
	if s.stopped.Load() {
		return s.waitEnd()
	}
	if !s.c.enqueue(frameClose, 0, s.id, nil, nil) {
		return s.waitEnd()
	}
	return nil
}

// Cancel gives the stream up: both its ends fail here with the cause at once,
// and the server's handler learns of it. It does not wait for that; Done does.
// On a server it ends the handler's own context. A stream that has ended, or was
// cancelled before, stays as it is.
func (s *Stream) Cancel(cause error) { s.abort(cancelled(cause)) }

// Done returns a channel that is closed when the stream holds nothing on the
// other side any more: on a client the server has confirmed the end, after its
// handler returned, or the connection is gone.
func (s *Stream) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.done == nil {
		s.mu.done = make(chan struct{})
		if s.mu.ended {
			close(s.mu.done)
		}
	}
	return s.mu.done
}

// deliver takes in a DATA frame. It reports whether to wake the receiver, and
// false when the frame exceeds the stream's credit.
func (s *Stream) deliver(raw []byte) (wake, ok bool) {
	s.mu.Lock()
	if len(raw) > s.mu.room {
		s.mu.Unlock()
		return false, false
	}
	s.mu.room -= len(raw)
	if s.mu.cause == nil && !s.mu.closed {
		if s.mu.in == nil {
			s.mu.in = buffers.Get().(*buffer)
		}
		s.mu.in.b = append(s.mu.in.b, raw...)
		wake, s.mu.waiting = s.mu.waiting, false
	}
	s.mu.Unlock()
	return wake, true
}

// addCredit takes in a WINDOW.
func (s *Stream) addCredit(n int64) error {
	if s.credit.Add(n) > MaxWindowBytes {
		return protocolError("stream %d has more credit than any window", s.id)
	}
	s.mu.Lock()
	starved := s.mu.starved
	s.mu.starved = false
	s.mu.Unlock()
	if starved {
		s.writable.Signal()
	}
	return nil
}

// closeReceive takes in a CLOSE.
func (s *Stream) closeReceive() {
	s.mu.Lock()
	s.mu.closed = true
	s.mu.Unlock()
	s.readable.Broadcast()
}

// abort ends the stream on this side at once, and tells the other.
func (s *Stream) abort(cause error) {
	s.mu.Lock()
	if s.mu.ended || s.mu.cause != nil {
		s.mu.Unlock()
		return
	}
	s.stopLocked(cause)
	s.mu.Unlock()
	s.readable.Broadcast()
	s.writable.Broadcast()
	if s.c.srv == nil {
		s.c.control(frameCancel, s.id, appendWireError(nil, cause))
		return
	}
	s.leave(cause)
}

func (s *Stream) stopLocked(cause error) {
	s.mu.cause, s.mu.in = cause, nil
	s.aborted.Store(true)
	s.stopped.Store(true)
}

// remoteEnd takes in a CANCEL on a server, an END on a client.
func (s *Stream) remoteEnd(err error) {
	if s.c.srv != nil {
		if err == nil {
			err = cancelled(context.Canceled)
		}
		s.abort(err)
		return
	}
	left := s.c.forget(s)
	s.finish(err)
	if left != nil {
		s.c.end(left)
	}
}

// lose ends the stream because its connection is over.
func (s *Stream) lose(err error) {
	if s.c.srv != nil {
		s.abort(err)
		return
	}
	s.finish(err)
}

// finish ends the stream for good. What has arrived can still be read.
func (s *Stream) finish(err error) {
	s.mu.Lock()
	if s.mu.ended {
		s.mu.Unlock()
		return
	}
	s.mu.ended = true
	if !s.mu.closed {
		s.mu.closed, s.mu.err = true, err
	}
	s.stopped.Store(true)
	done, expiry := s.mu.done, s.mu.expiry
	s.mu.Unlock()
	if expiry != nil {
		expiry.Stop()
	}
	if done != nil {
		close(done)
	}
	s.readable.Broadcast()
	s.writable.Broadcast()
	if s.leave != nil {
		s.leave(nil)
	}
}

// follow ties the stream to the context of the call.
func (s *Stream) follow(ctx context.Context) {
	if ctx.Done() == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { s.abort(engine.ContextError(ctx)) })
	s.mu.Lock()
	ended := s.mu.ended
	if !ended {
		s.leave = func(error) { stop() }
	}
	s.mu.Unlock()
	if ended {
		stop()
	}
}

// expire ends the stream on this side when the time is over.
func (s *Stream) expire(after time.Duration) {
	t := time.AfterFunc(after, func() { s.abort(engine.DeadlineError(nil)) })
	s.mu.Lock()
	s.mu.expiry = t
	ended := s.mu.ended
	s.mu.Unlock()
	if ended {
		t.Stop()
	}
}
