package transfer

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
)

// link is a connection to a peer, on the side that asks. Whoever has the turn
// writes; one goroutine reads answers, those with bytes straight into the memory
// of who waits for them.
type link struct {
	p    *Peer
	turn chan struct{}
	dead chan struct{}
	out  []byte      // of who has the turn
	bufs net.Buffers // likewise

	notes atomic.Bool // has carried some
	patience

	mu struct {
		sync.Mutex
		last    uint64
		waiting map[uint64]*exchange
		err     error
	}
}

// exchange is a request and its answer. One goroutine uses it for one after the
// other.
type exchange struct {
	op       Op
	segments []segment
	checksum bool
	id       uint64
	done     chan error  // capacity 1
	then     func(error) // called instead, by who reads the answer

	lent     bool          // the kernel has what was sent until it is back
	back     chan struct{} // capacity 1
	returned func()        // tells it; nil: nothing may be lent
}

// end tells whoever waits.
func (x *exchange) end(err error) {
	if x.then != nil {
		x.then(err)
		return
	}
	x.done <- err
}

func newLink(p *Peer, nc net.Conn) (*link, bool) {
	l := &link{p: p, patience: patience{nc: nc}, turn: make(chan struct{}, 1), dead: make(chan struct{})}
	l.mu.waiting = map[uint64]*exchange{}
	l.turn <- struct{}{}
	if !p.a.spawn(l.run) {
		_ = nc.Close() // nothing is owed to it
		return nil, false
	}
	return l, true
}

// run reads answers until the connection ends.
func (l *link) run() {
	err := l.receive()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = lost(nil, "%q has closed the connection; its process has ended, or it withdrew what was asked for", l.p.Name())
	}
	l.fail(lost(err, "the connection to %q is lost", l.p.Name()))
}

// fail ends the link and everything that waits for it.
func (l *link) fail(err error) {
	l.mu.Lock()
	first := l.mu.err == nil
	var waiting map[uint64]*exchange
	if first {
		l.mu.err = err
		waiting, l.mu.waiting = l.mu.waiting, nil
	}
	l.mu.Unlock()
	if !first {
		return
	}
	_ = l.nc.Close() // what matters is err
	close(l.dead)
	for _, x := range waiting {
		x.end(err)
	}
	if l.notes.Load() {
		l.p.interrupted()
	}
}

func (l *link) alive() bool {
	select {
	case <-l.dead:
		return false
	default:
		return true
	}
}

func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.err
}

// expect registers an exchange. The first one starts the watch over the peer's
// silence.
func (l *link) expect(x *exchange) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.err != nil {
		return l.mu.err
	}
	l.mu.last++
	x.id = l.mu.last
	l.mu.waiting[x.id] = x
	if len(l.mu.waiting) > 1 {
		return nil
	}
	return l.patience.expect()
}

// claim takes an exchange off the list: whoever does so ends it.
func (l *link) claim(id uint64) *exchange {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.mu.waiting[id]
	delete(l.mu.waiting, id)
	return x
}

// withdraw claims an exchange that may not be on the list yet.
func (l *link) withdraw(x *exchange) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := l.mu.waiting[x.id] == x
	if found {
		delete(l.mu.waiting, x.id)
	}
	return found
}

// exchange sends a request and waits for its answer. When it returns nothing
// touches the memory of its segments.
func (l *link) exchange(ctx context.Context, x *exchange) error {
	select {
	case <-l.turn:
	case <-l.dead:
		return l.cause()
	case <-ctx.Done():
		return ended(ctx)
	}
	if _, ok := l.nc.(lender); ok && x.back == nil {
		x.back = make(chan struct{}, 1)
		x.returned = func() { x.back <- struct{}{} }
	}
	err := l.expect(x)
	if err == nil {
		if err = l.send(ctx, x); err != nil {
			l.fail(lost(err, "the connection to %q does not take what is sent", l.p.Name()))
			err = nil // x gets it
		}
	}
	l.turn <- struct{}{}
	if err != nil {
		return err
	}
	defer l.regain(x, ctx.Done())
	select {
	case err := <-x.done:
		return err
	case <-ctx.Done():
	}
	if l.claim(x.id) != nil {
		return ended(ctx) // the answer will find nobody
	}
	grace := time.NewTimer(cancelGrace) // not AfterFunc, which may fail the link after x is done
	defer grace.Stop()
	select {
	case <-x.done:
	case <-grace.C:
		l.fail(lost(context.Cause(ctx), "a cancelled transfer from %q did not end", l.p.Name()))
		<-x.done
	}
	return ended(ctx)
}

// begin sends a small request and does not wait: neither for the turn, which it
// may fail to get, nor for the answer. What it writes fits into what the kernel
// buffers, because nothing else is on the way.
func (l *link) begin(x *exchange) bool {
	select {
	case <-l.turn:
	default:
		return false
	}
	defer func() { l.turn <- struct{}{} }()
	l.mu.Lock()
	busy := len(l.mu.waiting) > beginWaiting
	l.mu.Unlock()
	if busy || l.expect(x) != nil {
		return false
	}
	if err := l.send(context.Background(), x); err != nil {
		l.fail(lost(err, "the connection to %q does not take what is sent", l.p.Name())) // x gets it
	}
	return true
}

// send writes a request. It has the turn.
func (l *link) send(ctx context.Context, x *exchange) error {
	h := header{kind: kindRead, count: uint32(len(x.segments)), id: x.id}
	if x.checksum {
		h.flags = flagSums
	}
	l.bufs = append(l.bufs[:0], nil)
	if x.op == Write {
		h.kind = kindWrite
		for i := range x.segments {
			b := x.segments[i].bytes()
			h.bytes += uint32(len(b))
			l.bufs = append(l.bufs, b)
		}
	}
	l.out = h.append(l.out[:0])
	for i := range x.segments {
		s := &x.segments[i]
		e := entry{s.remote, uint32(s.length), s.token, uint64(s.offset), 0}
		if x.checksum && x.op == Write {
			e.sum = sum(s.bytes())
		}
		l.out = e.append(l.out)
	}
	l.bufs[0] = l.out
	return l.write(ctx, l.bufs, x)
}

// write writes buffers. A write that is cancelled has cancelGrace to end by
// itself, because half a frame ends the connection.
func (l *link) write(ctx context.Context, bufs net.Buffers, x *exchange) error {
	if err := l.writing(); err != nil {
		return err
	}
	var stop func() bool
	over := make(chan struct{})
	if ctx.Done() != nil {
		stop = context.AfterFunc(ctx, func() {
			_ = l.nc.SetWriteDeadline(time.Now().Add(cancelGrace)) // a closed connection is what is wanted
			close(over)
		})
	}
	var err error
	if c, ok := l.nc.(lender); ok && x.returned != nil {
		x.lent, err = c.lend(bufs, x.returned)
	} else {
		err = writeAll(l.nc, bufs)
	}
	if stop != nil && !stop() {
		<-over // so that it does not meet the next one's write
		l.until = time.Time{}
	}
	return err
}

// receive reads answers.
func (l *link) receive() error {
	br := bufio.NewReaderSize(&l.patience, readBytes)
	head := make([]byte, frameHead)
	var table []byte
	var entries []entry
	for {
		if _, err := br.Peek(1); err != nil {
			return err
		}
		if _, err := io.ReadFull(br, head); err != nil {
			return err
		}
		h, err := readHeader(head)
		if err != nil {
			return err
		}
		need := int(h.count) * entryBytes
		if cap(table) < need {
			table = make([]byte, need)
		}
		if _, err := io.ReadFull(br, table[:need]); err != nil {
			return err
		}
		if entries, err = readTable(h, table[:need], entries); err != nil {
			return err
		}
		if err := l.answer(br, h, entries); err != nil {
			return err
		}
		if err := l.rewind(); err != nil {
			return err
		}
	}
}

// rewind gives the peer time again after it has answered.
func (l *link) rewind() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.mu.waiting) == 0 {
		l.relax()
		return nil
	}
	return l.patience.expect()
}

// answer gives a frame to who waits for it.
func (l *link) answer(br *bufio.Reader, h header, entries []entry) error {
	switch h.kind {
	case kindHeard:
		if h.status == noteHeard {
			l.p.acknowledged(h.id)
		} else {
			l.p.interrupted()
		}
		return nil
	case kindAck:
		text := make([]byte, h.bytes)
		if _, err := io.ReadFull(br, text); err != nil {
			return err
		}
		x := l.claim(h.id)
		if x == nil {
			return nil // cancelled
		}
		if h.status == statusOK && x.op == Read {
			x.end(lost(nil, "%q answered a read without bytes", l.p.Name()))
			return lost(nil, "%q breaks the protocol", l.p.Name())
		}
		x.end(x.verdict(h, string(text)))
		return nil
	case kindData:
		return l.data(br, h, entries)
	}
	return lost(nil, "the peer sent a request, kind %d, as an answer", h.kind)
}

// verdict turns an ack into the error of the exchange.
func (x *exchange) verdict(h header, text string) error {
	if h.status == statusOK {
		return nil
	}
	err := refused(h, text)
	var e *dynamo.Error
	if errors.As(err, &e) && int(h.index) < len(x.segments) {
		e.Message = x.segments[h.index].descriptors() + ": " + e.Message
	}
	return err
}

// data reads the bytes of a read, unless nobody wants them any more.
func (l *link) data(br *bufio.Reader, h header, entries []entry) error {
	x := l.claim(h.id)
	if x == nil {
		_, err := io.CopyN(io.Discard, br, int64(h.bytes))
		return err
	}
	if x.op != Read || len(entries) != len(x.segments) {
		err := lost(nil, "%q answered with %d segments where %d were asked for", l.p.Name(), len(entries), len(x.segments))
		x.end(err)
		return err
	}
	var failed error
	for i := range entries {
		s := &x.segments[i]
		if int64(entries[i].length) != s.length {
			err := lost(nil, "%q answered with a segment of %d bytes where %d were asked for", l.p.Name(), entries[i].length, s.length)
			x.end(err)
			return err
		}
		got, err := readSummed(br, s.bytes(), x.checksum)
		if err != nil {
			x.end(lost(err, "the connection to %q was lost in the middle of an answer", l.p.Name()))
			return err
		}
		if x.checksum && got != entries[i].sum && failed == nil {
			failed = corrupt(s)
		}
	}
	x.end(failed)
	return nil
}

// carry writes notes. With atOnce it does not wait for the turn.
func (l *link) carry(ctx context.Context, notes []*note) (bool, error) {
	if ctx == atOnce {
		select {
		case <-l.turn:
		default:
			return false, nil
		}
	} else {
		select {
		case <-l.turn:
		case <-l.dead:
			return false, l.cause()
		case <-ctx.Done():
			return false, ended(ctx)
		}
	}
	l.notes.Store(true)
	l.out = l.out[:0]
	for _, n := range notes {
		l.out = n.frame(l.out, l.p.notes.stream)
	}
	err := l.writing()
	if err == nil {
		_, err = l.nc.Write(l.out)
	}
	if err != nil {
		err = lost(err, "the connection to %q does not take notifications", l.p.Name())
		l.fail(err)
	}
	l.turn <- struct{}{}
	return err == nil, err
}
