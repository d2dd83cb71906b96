//go:build dl && linux && (amd64 || arm64)

package transfer

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// ucxWorker is a worker of libucp and the one goroutine that calls the library for
// it. Connections hand it what is to be done; while something is going on it
// drives the library forward, and else it sleeps on the library's descriptor.
//
// A message's tag is the number of the connection it is for, as the receiver has
// given it, and its kind. Numbers are random, and known to the two sides only.
type ucxWorker struct {
	a               *Agent
	lib             *ucxLibrary
	context, worker uintptr
	own             []byte // its address
	events          *os.File
	raw             syscall.RawConn
	accepted        chan *ucxConn

	// Of the goroutine alone.
	conns         map[uint64]*ucxConn
	flying, spare []*ucxRequest
	leaving       []*ucxConn
	params        *ucxRequestParams // none
	force         *ucxRequestParams // closes at once
	info          *ucxTagInfo
	ready         [1]unix.PollFd

	mu struct {
		sync.Mutex
		todo   []ucxTask
		asleep bool
		ending bool // no connection comes any more
		ended  bool
	}
}

// A hello is the version, the number of who sends it, and of a client the address
// of its worker.
const (
	ucxVersion = 1
	ucxHello   = 1 + 8
)

// The kinds of messages, in the low bits of their tags.
const (
	ucxKindHello  = iota // makes a connection, and its answer
	ucxKindBytes         // copied on both sides; none end the connection
	ucxKindLarge         // from memory to memory
	ucxKindCommit        // how many large ones have left their memory as they were
	ucxKindBits   = 2
)

// ucxRequest is an operation of the library, or one that waits to become one.
type ucxRequest struct {
	conn    *ucxConn
	kind    uint8
	receive bool
	handle  uintptr // of a message to be received
	request uintptr
	buf     []byte // touched until the request is over
	item    *ucxItem
	group   *ucxGroup
	done    bool
	err     error
}

// ucxGroup is several requests that somebody waits for.
type ucxGroup struct {
	left int // of the worker's goroutine, once it is posted
	err  error
	done chan struct{}
}

func (g *ucxGroup) end(err error) {
	if err != nil && g.err == nil {
		g.err = err
	}
	if g.left--; g.left == 0 {
		close(g.done)
	}
}

// ucxTask is one thing that a connection asks the worker for.
type ucxTask struct {
	conn *ucxConn
	send *ucxRequest // or receive
	what uint8
}

const (
	ucxTaskRequest = iota
	ucxTaskOpen
	ucxTaskResume // receive what was held back
	ucxTaskClose
	ucxTaskBroken
)

func newUCXWorker(a *Agent) (*ucxWorker, error) {
	lib, err := loadUCX()
	if err != nil {
		return nil, err
	}
	w := &ucxWorker{a: a, lib: lib, accepted: make(chan *ucxConn, maxStrangers), conns: map[uint64]*ucxConn{},
		params: new(ucxRequestParams), force: &ucxRequestParams{mask: ucxFieldRequestFlags, flags: ucxCloseFlagForce}, info: new(ucxTagInfo)}
	if w.context, w.worker, err = lib.newContext(); err != nil {
		return nil, err
	}
	if err = w.prepare(); err != nil {
		lib.freeContext(w.context, w.worker)
		return nil, err
	}
	return w, nil
}

// prepare learns the worker's address and its descriptor.
func (w *ucxWorker) prepare() (err error) {
	if w.own, err = w.lib.address(w.worker); err != nil {
		return err
	}
	if len(w.own) > maxAddressBytes {
		return invalid("the address of libucp has %d bytes; %d are possible: name fewer devices in UCX_NET_DEVICES", len(w.own), maxAddressBytes)
	}
	fd, err := w.lib.events(w.worker)
	if err != nil {
		return err
	}
	if fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil { // the library closes its own
		return err
	}
	if err = unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd) // the fault is reported
		return err
	}
	w.events = os.NewFile(uintptr(fd), "libucp")
	w.raw, err = w.events.SyscallConn()
	return err
}

// free ends a worker that has not run.
func (w *ucxWorker) free() {
	_ = w.events.Close() // nothing is owed to it
	w.lib.freeContext(w.context, w.worker)
}

// post hands tasks over.
func (w *ucxWorker) post(tasks ...ucxTask) bool {
	w.mu.Lock()
	if w.mu.ended {
		w.mu.Unlock()
		return false
	}
	w.mu.todo = append(w.mu.todo, tasks...)
	wake := w.mu.asleep
	w.mu.asleep = false
	w.mu.Unlock()
	if wake {
		w.wake()
	}
	return true
}

func (w *ucxWorker) wake() { _ = w.events.SetReadDeadline(time.Unix(1, 0)) } // fails for a bug only

// end lets the worker end when its last connection has.
func (w *ucxWorker) end() {
	w.mu.Lock()
	w.mu.ending, w.mu.asleep = true, false
	w.mu.Unlock()
	w.wake()
}

// run is the worker's goroutine.
func (w *ucxWorker) run() {
	idle := 0
	for {
		busy := w.begin()
		for range ucxProgress {
			if n, _, _ := purego.SyscallN(w.lib.workerProgress, w.worker); uint32(n) == 0 {
				break
			}
			busy = true
		}
		busy = w.sort() || busy
		if busy || idle == 0 {
			busy = w.reap() || busy
		}
		w.part()
		if busy {
			idle = 0
			continue
		}
		if w.finished() {
			return
		}
		if idle++; idle < ucxSpin {
			continue
		}
		w.sleep()
		idle = 0
	}
}

// finished ends the worker if nothing is left of it.
func (w *ucxWorker) finished() bool {
	w.mu.Lock()
	ending := w.mu.ending
	w.mu.Unlock()
	for ending {
		select {
		case c := <-w.accepted:
			_ = c.Close() // nobody has it
			continue
		default:
		}
		break
	}
	w.mu.Lock()
	done := w.mu.ending && len(w.mu.todo) == 0 && len(w.conns) == 0 && len(w.leaving) == 0
	w.mu.ended = done
	w.mu.Unlock()
	if !done {
		return false
	}
	w.sort() // nobody wants what is still there
	w.free() // touches no memory from here on
	for _, r := range w.flying {
		r.end(errStopped)
	}
	w.flying = nil
	return true
}

// sleep waits for the library's descriptor, for a task, or, while something is on
// the way, for ucxTick: shared memory does not tell when there is room again. The descriptor is armed, and looked at, after the
// poller has been made ready for it: the poller tells of changes only, and of what
// came before it may have told already.
func (w *ucxWorker) sleep() {
	until := time.Time{}
	if len(w.leaving) > 0 || len(w.flying) > 0 {
		until = time.Now().Add(ucxTick)
	}
	_ = w.events.SetReadDeadline(until) // fails for a bug only
	w.mu.Lock()
	if len(w.mu.todo) > 0 || w.mu.ending && len(w.conns) == 0 {
		w.mu.Unlock()
		return
	}
	w.mu.asleep = true
	w.mu.Unlock()
	armed := false
	_ = w.raw.Read(func(fd uintptr) bool { // an error is the deadline, or that it was woken
		if armed || w.lib.status(w.lib.workerArm, w.worker) != ucxOK {
			return true
		}
		armed = true
		w.ready[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		n, err := unix.Poll(w.ready[:], 0)
		return n > 0 || err != nil
	})
	w.mu.Lock()
	w.mu.asleep = false
	w.mu.Unlock()
}

// begin takes what was handed over.
func (w *ucxWorker) begin() bool {
	w.mu.Lock()
	todo := w.mu.todo
	w.mu.todo = nil
	w.mu.Unlock()
	for i := range todo {
		t := &todo[i]
		switch t.what {
		case ucxTaskRequest:
			w.start(t.send)
		case ucxTaskOpen:
			w.open(t.conn)
		case ucxTaskResume:
			w.resume(t.conn)
		case ucxTaskBroken:
			w.shut(t.conn)
		case ucxTaskClose:
			w.leave(t.conn)
		}
	}
	return len(todo) > 0
}

// start makes a request an operation of the library.
func (w *ucxWorker) start(r *ucxRequest) {
	if r.conn.ep == 0 && !r.receive {
		r.end(r.conn.cause())
		return
	}
	at := uintptr(unsafe.Pointer(unsafe.SliceData(r.buf)))
	none := uintptr(unsafe.Pointer(w.params))
	var got uintptr
	switch {
	case r.receive:
		got, _, _ = purego.SyscallN(w.lib.tagReceive, w.worker, at, uintptr(len(r.buf)), r.handle, none)
	default:
		send := w.lib.tagSend
		if r.kind == ucxKindLarge {
			r.conn.larges = append(r.conn.larges, r)
		}
		if r.kind == ucxKindBytes && len(r.buf) > 0 {
			send = w.lib.tagSendSync // its end is the receiver's leave to send more
		}
		got, _, _ = purego.SyscallN(send, r.conn.ep, at, uintptr(len(r.buf)), uintptr(r.conn.theirs<<ucxKindBits|uint64(r.kind)), none)
	}
	request, s := pointerStatus(got)
	if s == ucxInProgress {
		r.request = request
		w.flying = append(w.flying, r)
		return
	}
	w.done(r, s)
}

// done is the end of a request.
func (w *ucxWorker) done(r *ucxRequest, s ucxStatus) {
	var err error
	if s != ucxOK {
		err = ucxError{s, "move bytes"}
	}
	r.end(err)
	if err != nil {
		w.fail(r.conn, lost(err, "the connection by libucp is lost"))
	}
}

// end tells whoever waits that a request touches its memory no more.
func (r *ucxRequest) end(err error) {
	r.done, r.err = true, err
	switch {
	case r.item != nil:
		r.conn.arrived(r)
	case !r.receive && r.kind == ucxKindBytes:
		r.conn.left(r)
	}
	if r.group != nil {
		r.group.end(err)
	}
	r.buf = nil
}

// reap looks which requests are over.
func (w *ucxWorker) reap() (busy bool) {
	flying := w.flying
	w.flying, w.spare = w.spare[:0], flying // what ends a request may begin others
	for _, r := range flying {
		s := ucxStatus(int8(w.call(w.lib.requestStatus, r.request)))
		if s == ucxInProgress {
			w.flying = append(w.flying, r)
			continue
		}
		purego.SyscallN(w.lib.requestRelease, r.request)
		busy = true
		if r.conn != nil {
			w.done(r, s)
		}
	}
	clear(flying)
	if busy {
		for _, c := range w.conns {
			w.commit(c)
		}
	}
	return busy
}

//go:uintptrescapes
func (w *ucxWorker) call(f uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(f, args...)
	return r
}

// commit tells the peer which of the large messages have left their memory: only
// now does it know that what it has is what was sent.
func (w *ucxWorker) commit(c *ucxConn) {
	n := 0
	for n < len(c.larges) && c.larges[n].done && c.larges[n].err == nil {
		n++
	}
	if n == 0 || c.ep == 0 {
		return
	}
	c.larges = c.larges[n:]
	c.committed += uint64(n)
	w.start(&ucxRequest{conn: c, kind: ucxKindCommit, buf: binary.BigEndian.AppendUint64(nil, c.committed)})
}

// sort gives the messages that have come to their connections.
func (w *ucxWorker) sort() (busy bool) {
	for {
		handle := w.call(w.lib.tagProbe, w.worker, 0, 0, 1, uintptr(unsafe.Pointer(w.info)))
		if handle == 0 {
			return busy
		}
		busy = true
		number, kind, n := w.info.tag>>ucxKindBits, uint8(w.info.tag&(1<<ucxKindBits-1)), int64(w.info.length)
		c := w.conns[number]
		switch {
		case kind == ucxKindHello || kind == ucxKindCommit:
			if b := w.take(handle, n); b == nil {
				w.fail(c, errUCXProtocol)
			} else if kind == ucxKindCommit {
				c.commit(b)
			} else if number == 0 {
				w.accept(b)
			} else {
				c.answered(b)
			}
		case c == nil || n > ucxPiece:
			w.refuse(handle)
			w.fail(c, errUCXProtocol)
		default:
			w.arrive(c, kind, handle, int(n))
		}
	}
}

var errUCXProtocol = lost(nil, "the peer breaks the protocol of the path ucx")

// take receives a small message that is there. What is too long is dropped.
func (w *ucxWorker) take(handle uintptr, n int64) []byte {
	if n > maxAddressBytes+ucxHello {
		w.refuse(handle)
		return nil
	}
	b := make([]byte, n)
	r := &ucxRequest{receive: true, handle: handle, buf: b}
	request, s := pointerStatus(w.call(w.lib.tagReceive, w.worker, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(n), handle, uintptr(unsafe.Pointer(w.params))))
	for s == ucxInProgress { // its other fragments are on the way
		if s = ucxStatus(int8(w.call(w.lib.requestStatus, request))); s != ucxInProgress {
			purego.SyscallN(w.lib.requestRelease, request)
			break
		}
		if n, _, _ := purego.SyscallN(w.lib.workerProgress, w.worker); uint32(n) == 0 {
			r.request = request
			w.flying = append(w.flying, r) // keeps b until then
			return nil
		}
	}
	runtime.KeepAlive(b)
	if s != ucxOK {
		return nil
	}
	return b
}

// refuse drops a message.
func (w *ucxWorker) refuse(handle uintptr) {
	request, s := pointerStatus(w.call(w.lib.tagReceive, w.worker, 0, 0, handle, uintptr(unsafe.Pointer(w.params))))
	if s == ucxInProgress {
		w.flying = append(w.flying, &ucxRequest{receive: true, request: request})
	}
}

// arrive puts a message into its connection's inbox, and receives it if it is
// small and there is room.
func (w *ucxWorker) arrive(c *ucxConn, kind uint8, handle uintptr, n int) {
	m := &ucxItem{large: kind == ucxKindLarge, handle: handle, n: n}
	if m.large {
		c.received++
		m.ordinal = c.received
	}
	c.queue(m)
	w.resume(c)
}

// resume receives the small messages of a connection that there is room for.
func (w *ucxWorker) resume(c *ucxConn) {
	for m := c.next(); m != nil; m = c.next() {
		w.start(&ucxRequest{conn: c, receive: true, handle: m.handle, buf: m.buf, item: m})
	}
}

// open makes the endpoint of a connection, and says hello or answers it.
func (w *ucxWorker) open(c *ucxConn) {
	w.conns[c.number] = c
	ep, err := w.lib.endpoint(w.worker, c.address, uintptr(c.serial))
	if err != nil {
		w.fail(c, lost(err, "libucp does not reach the peer"))
		return
	}
	c.ep = ep
	hello := binary.BigEndian.AppendUint64([]byte{ucxVersion}, c.number)
	if c.theirs == 0 {
		hello = append(hello, w.own...)
	}
	w.start(&ucxRequest{conn: c, kind: ucxKindHello, buf: hello})
}

// accept makes the connection that a hello asks for.
func (w *ucxWorker) accept(b []byte) {
	if len(b) <= ucxHello || b[0] != ucxVersion || len(w.conns) >= maxServed {
		return
	}
	theirs := binary.BigEndian.Uint64(b[1:])
	if theirs == 0 || theirs>>(64-ucxKindBits) != 0 {
		return
	}
	c := newUCXConn(w, b[ucxHello:])
	c.theirs = theirs
	w.mu.Lock()
	ending := w.mu.ending
	w.mu.Unlock()
	if ending {
		return
	}
	w.open(c)
	select {
	case w.accepted <- c:
	default: // as many as may wait for their handshake
		w.fail(c, errUCXProtocol)
		w.leave(c)
	}
}

// fail ends a connection for its users; its endpoint is closed, which ends its
// requests.
func (w *ucxWorker) fail(c *ucxConn, err error) {
	if c == nil {
		return
	}
	c.fail(err)
	w.shut(c)
}

// leave is the end that this side wants.
func (w *ucxWorker) leave(c *ucxConn) {
	c.leaving = time.Now().Add(dialTimeout)
	w.leaving = append(w.leaving, c)
}

// farewell tells the peer, and gives it the time to get what was sent before. A
// connection whose hello is not answered waits for that: libucp pairs endpoints by
// their order, and one that the peer never made would shift all later ones.
func (w *ucxWorker) farewell(c *ucxConn, now time.Time) (wait bool) {
	switch {
	case c.ep == 0 || c.parted:
		return false
	case c.theirs == 0:
		w.mu.Lock()
		defer w.mu.Unlock()
		return !w.mu.ending && now.Before(c.leaving)
	}
	c.parted, c.leaving = true, now.Add(ucxLinger)
	w.start(&ucxRequest{conn: c, kind: ucxKindBytes})
	return false
}

// part closes endpoints whose time has come, sooner if users wait for their
// memory, and forgets connections whose
// requests are over.
func (w *ucxWorker) part() {
	if len(w.leaving) == 0 {
		return
	}
	now := time.Now()
	keep := w.leaving[:0]
	for _, c := range w.leaving {
		if w.farewell(c, now) {
			keep = append(keep, c)
			continue
		}
		waits, holds := false, false
		for _, r := range w.flying {
			if r.conn == c {
				waits = true
				holds = holds || r.group != nil
			}
		}
		if c.ep != 0 && (!waits || now.After(c.leaving) || holds && now.After(c.leaving.Add(leaseGrace-ucxLinger))) {
			w.shut(c)
		}
		if c.ep == 0 && (!waits || now.After(c.leaving)) {
			delete(w.conns, c.number)
			for _, handle := range c.unreceived() {
				w.refuse(handle)
			}
			ucxForget(c)
			continue
		}
		keep = append(keep, c)
	}
	clear(w.leaving[len(keep):])
	w.leaving = keep
}

// shut closes an endpoint at once. The library ends its requests with an error,
// and touches their memory no more.
func (w *ucxWorker) shut(c *ucxConn) {
	if c.ep == 0 {
		return
	}
	ep := c.ep
	c.ep = 0
	if request, s := pointerStatus(w.call(w.lib.epClose, ep, uintptr(unsafe.Pointer(w.force)))); s == ucxInProgress {
		w.flying = append(w.flying, &ucxRequest{request: request})
	}
}

// ucxLive are the connections of this process, by the serial number that the
// library gives back when an endpoint breaks.
var ucxLive struct {
	sync.Mutex
	last  uint32
	conns map[uint32]*ucxConn
}

func ucxRemember(c *ucxConn) {
	ucxLive.Lock()
	defer ucxLive.Unlock()
	if ucxLive.conns == nil {
		ucxLive.conns = map[uint32]*ucxConn{}
	}
	for ucxLive.last++; ucxLive.last == 0 || ucxLive.conns[ucxLive.last] != nil; ucxLive.last++ {
	}
	c.serial = ucxLive.last
	ucxLive.conns[c.serial] = c
}

func ucxForget(c *ucxConn) {
	ucxLive.Lock()
	delete(ucxLive.conns, c.serial)
	ucxLive.Unlock()
}

// ucxBroken is called by the library, within its worker's progress, when an
// endpoint has failed.
func ucxBroken(argument, _, status uintptr) uintptr {
	ucxLive.Lock()
	c := ucxLive.conns[uint32(argument)]
	ucxLive.Unlock()
	if c != nil {
		err := ucxError{ucxStatus(int8(status)), "the endpoint"}
		c.fail(lost(err, "the peer is gone, or cannot be reached by libucp"))
		c.w.post(ucxTask{conn: c, what: ucxTaskBroken})
	}
	return 0
}

// newUCXNumber makes a number that nobody guesses.
func newUCXNumber() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])>>ucxKindBits | 1
}

var (
	errUCXClosed = errors.New("the connection by libucp was closed")
	errUCXLate   = errors.New("the peer did not move bytes by libucp in time")
)
