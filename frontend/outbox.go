package frontend

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
)

// outbox is the way of a stream's events to its client. Events are appended to a
// buffer. The handler writes it itself, so that a token waits for nobody, as long
// as batches come slower than minBatchGap. Where they come faster, a writer
// goroutine takes over, which takes everything there is each time it wakes: the
// tokens of an engine that is faster than the connection share a write, and
// nothing is ever delayed to be batched.
//
// With a client that does not read the write blocks, the buffer fills, and add
// waits: the request's own generation pauses, nothing else does.
type outbox struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration // of a write without progress

	mu struct {
		sync.Mutex
		pending []byte
		spare   []byte // the buffer written last
		busy    bool   // somebody writes
		closed  bool
		err     error     // of the first write that failed
		writer  bool      // the goroutine exists
		due     bool      // it was woken for what is pending
		wrote   time.Time // when the last write ended
	}
	work, room sync.Cond
	done       sync.WaitGroup
	deadline   time.Time // the write deadline in force; belongs to whoever writes
	kept       *buffers
}

// buffers are what an outbox fills and writes in turn.
type buffers struct{ pending, spare []byte }

// spent holds the buffers of streams that have ended. Growing new ones was most of
// the memory that a stream took, and most of the cost of its events where they come
// in bursts (BenchmarkStreamedBurst).
var spent = sync.Pool{New: func() any { return new(buffers) }}

func newOutbox(w http.ResponseWriter, rc *http.ResponseController, timeout time.Duration) *outbox {
	o := &outbox{w: w, rc: rc, timeout: timeout, kept: spent.Get().(*buffers)}
	o.mu.pending, o.mu.spare = o.kept.pending[:0], o.kept.spare[:0]
	o.work.L, o.room.L = &o.mu, &o.mu
	return o
}

// add appends events by calling encode with the buffer. It waits while the buffer
// is full and on its way to the client, and returns the error that ended the
// writing, if one did.
func (o *outbox) add(encode func([]byte) []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.mu.pending) > maxOutboxBytes && (o.mu.busy || o.mu.due) && o.mu.err == nil {
		o.room.Wait()
	}
	if o.mu.err != nil {
		return o.mu.err
	}
	o.mu.pending = encode(o.mu.pending)
	return nil
}

// flush sees to it that what was added is written soon.
func (o *outbox) flush() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case len(o.mu.pending) == 0 || o.mu.due:
	case o.mu.writer:
		o.mu.due = true
		o.work.Signal()
	case !o.mu.busy && time.Since(o.mu.wrote) >= minBatchGap:
		o.writeLocked()
	default:
		o.mu.writer, o.mu.due = true, true
		o.done.Go(o.run)
	}
	return o.mu.err
}

// unused reports whether nothing was written, and drops what would have been.
func (o *outbox) unused() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.busy || o.mu.writer || !o.mu.wrote.IsZero() {
		return false
	}
	o.mu.pending = nil
	return true
}

// run is the writer.
func (o *outbox) run() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for !o.mu.closed {
		if len(o.mu.pending) == 0 || o.mu.busy {
			o.work.Wait()
			continue
		}
		o.writeLocked()
	}
}

// close writes what is left, ends the writer and returns the first error.
func (o *outbox) close() error {
	o.mu.Lock()
	o.mu.closed = true
	for o.mu.busy {
		o.room.Wait()
	}
	if len(o.mu.pending) > 0 && o.mu.err == nil {
		o.writeLocked()
	}
	o.work.Signal()
	err := o.mu.err
	o.mu.Unlock()
	o.done.Wait()
	_ = o.rc.SetWriteDeadline(time.Time{}) // the connection may serve another request; without support there is none to clear
	o.giveBack()
	return err
}

// giveBack leaves the buffers to another stream; nothing is added any more.
func (o *outbox) giveBack() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if cap(o.mu.pending) <= keptBytes && cap(o.mu.spare) <= keptBytes {
		o.kept.pending, o.kept.spare = o.mu.pending, o.mu.spare
		spent.Put(o.kept)
	}
	o.mu.pending, o.mu.spare = nil, nil
}

// writeLocked writes everything pending in one write, without holding the lock
// meanwhile.
func (o *outbox) writeLocked() {
	batch := o.mu.pending
	o.mu.pending, o.mu.spare, o.mu.busy, o.mu.due = o.mu.spare[:0], nil, true, false
	o.mu.Unlock()
	err := o.write(batch)
	o.mu.Lock()
	if cap(batch) <= keptBytes {
		o.mu.spare = batch
	}
	if o.mu.err == nil {
		o.mu.err = err
	}
	if o.mu.err != nil {
		o.mu.pending = nil
	}
	o.mu.busy, o.mu.wrote = false, time.Now()
	o.room.Broadcast()
	if len(o.mu.pending) > 0 {
		o.work.Signal() // what came meanwhile is the writer's
	}
}

func (o *outbox) write(batch []byte) error {
	// Setting a deadline costs more than encoding an event, so it is only moved
	// once a good part of it has passed.
	if now := time.Now(); o.deadline.Sub(now) < o.timeout*3/4 {
		o.deadline = now.Add(o.timeout)
		if err := o.rc.SetWriteDeadline(o.deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return notTaken(err)
		}
	}
	if _, err := o.w.Write(batch); err != nil {
		return notTaken(err)
	}
	if err := o.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return notTaken(err)
	}
	return nil
}

// notTaken is the error of a client that went away or does not read.
func notTaken(err error) error {
	return &dynamo.Error{Kind: dynamo.KindCancelled, Message: "the client does not take its answer", Err: err}
}
