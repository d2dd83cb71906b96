package transfer

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Who sleeps for a ring, as its word ringAsleep says.
const (
	awake     = 0
	bellWaits = 1 // the goroutine of the ring, at an eventfd of its own
	earWaits  = 2 // who waits in Agent.Notification, at the eventfd of the agent
)

// ear lets who waits for a notification hear the rings by itself: it sleeps in a read
// of an eventfd that all peers have, so that one wake of one thread is all that lies
// between a peer's word and the one who wants it. While nobody waits, and for a second
// one who does, the goroutines of the rings hear them.
type ear struct {
	turn   chan struct{} // of who sleeps here
	asleep atomic.Bool   // and has to be woken for what comes in other ways
	wakes  struct {      // of who has the turn: the context whose end wakes who sleeps
		ends   <-chan struct{}
		forget func() bool // nil if there is none
	}

	mu struct {
		sync.Mutex
		event  *os.File // blocks its reader; nil until there is a ring
		closed bool
		rings  []*hearing // replaced, not changed
		sleeps uint64     // bellWaits or earWaits
	}
}

func (e *ear) init() {
	e.turn = make(chan struct{}, 1)
	e.turn <- struct{}{}
	e.mu.sleeps = bellWaits
}

// add makes a ring one of those that are heard, and returns what wakes the ear.
func (e *ear) add(h *hearing) (*os.File, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return nil, errStopped
	}
	if e.mu.event == nil {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return nil, fmt.Errorf("eventfd: %w", err)
		}
		e.mu.event = os.NewFile(uintptr(fd), "ear")
	}
	e.mu.rings = append(e.mu.rings[:len(e.mu.rings):len(e.mu.rings)], h)
	return e.mu.event, nil
}

// remove ends the hearing of a ring. Nobody touches it from here on.
func (e *ear) remove(h *hearing) {
	e.mu.Lock()
	var rest []*hearing
	for _, o := range e.mu.rings {
		if o != h {
			rest = append(rest, o)
		}
	}
	e.mu.rings = rest
	e.mu.Unlock()
	<-h.turn // for good
}

// close wakes who sleeps; from here on others bring what is heard.
func (e *ear) close() {
	e.mu.Lock()
	e.mu.closed = true
	event := e.mu.event
	e.mu.Unlock()
	if event != nil {
		kick(event)
		_ = event.Close() // who reads it ends by the kick
	}
	<-e.turn
	e.heed(context.Background(), nil)
	e.turn <- struct{}{}
}

func (e *ear) open() *os.File {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.closed {
		return nil
	}
	return e.mu.event
}

// rouse wakes who sleeps, if somebody does.
func (e *ear) rouse() bool {
	if !e.asleep.Load() || !e.asleep.CompareAndSwap(true, false) {
		return false
	}
	if event := e.open(); event != nil {
		kick(event)
	}
	return true
}

// wait sleeps until something is in the inbox, ctx has ended, or for no reason. It
// reports whether it could: one at a time can.
func (e *ear) wait(ctx context.Context, i *inbox) bool {
	select {
	case <-e.turn:
	default:
		return false
	}
	defer func() { e.turn <- struct{}{} }()
	event := e.open()
	if event == nil {
		return false
	}
	drainAll(e.hark(earWaits))
	e.asleep.Store(true)
	if i.empty() {
		if e.heed(ctx, event); ctx.Err() == nil {
			var count [8]byte
			_, _ = event.Read(count[:]) // fails once it is closed, which is an end as well
		}
	}
	e.asleep.Store(false)
	drainAll(e.hark(bellWaits))
	return true
}

// heed has the end of ctx, and of no other context, wake who sleeps. Who waits with the
// same one again, as most do, finds it done: it is not undone between a peer's word and
// the one who wants it. The caller has the turn, and asks ctx itself after that, because
// what its end did before may be forgotten.
func (e *ear) heed(ctx context.Context, event *os.File) {
	ends := ctx.Done()
	if ends == e.wakes.ends {
		return
	}
	if e.wakes.forget != nil {
		e.wakes.forget()
	}
	e.wakes.ends, e.wakes.forget = ends, nil
	if ends != nil {
		e.wakes.forget = context.AfterFunc(ctx, func() { kick(event) })
	}
}

// hark says who is to be woken for the rings. Whoever calls it looks at them after that.
func (e *ear) hark(who uint64) []*hearing {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.mu.sleeps = who
	for _, h := range e.mu.rings {
		h.store(ringAsleep, who)
	}
	return e.mu.rings
}

// settle says the same for one ring.
func (e *ear) settle(h *hearing) {
	e.mu.Lock()
	h.store(ringAsleep, e.mu.sleeps)
	e.mu.Unlock()
}

// drainAll hears the rings that nobody else is about to hear. What cannot be taken now
// is for their goroutines.
func drainAll(rings []*hearing) {
	for _, h := range rings {
		select {
		case <-h.turn:
		default:
			continue
		}
		later, err := h.drain()
		h.turn <- struct{}{}
		if later || err != nil {
			kick(h.event)
		}
	}
}

func kick(event *os.File) {
	one := [8]byte{1}
	_, _ = event.Write(one[:]) // fails only if it is full, and then it wakes, or closed, and then nobody sleeps
}

// hearing is the reader's side of one peer's ring.
type hearing struct {
	ring
	a     *Agent
	event *os.File      // waits in the poller
	turn  chan struct{} // who has it reads the ring
	tail  atomic.Uint64 // written by who has the turn
	from  origin        // of who has the turn
	err   error         // likewise: what ended it
	gone  chan struct{} // closed when the peer is
}

// run hears what is in the ring, and sleeps when nothing is.
func (h *hearing) run() error {
	var count [8]byte
	for {
		<-h.turn
		later, err := h.drain()
		h.turn <- struct{}{}
		if err != nil {
			return err
		}
		if later {
			select {
			case <-h.gone: // and what it wrote is not heard: it is not there to say it again
				return io.EOF
			case <-time.After(notifyPause): // the inbox is full, or another path brings what is missing
			}
			continue
		}
		h.a.ear.settle(h)
		if h.load(ringHead) != h.tail.Load() {
			h.store(ringAsleep, awake)
			continue
		}
		if _, err := h.event.Read(count[:]); err != nil {
			// The peer may have written before it ended.
			if h.load(ringHead) == h.tail.Load() {
				return io.EOF
			}
		}
	}
}

// drain takes all records that the inbox takes. Later says that it did not take the
// next one. The caller has the turn.
func (h *hearing) drain() (later bool, err error) {
	for h.err == nil {
		tail, head := h.tail.Load(), h.load(ringHead)
		if tail == head {
			break
		}
		size, taken, err := h.record(tail, head)
		if err != nil {
			h.err = err
			break
		}
		if !taken {
			return true, nil
		}
		h.tail.Store(tail + size)
		h.store(ringTail, tail+size)
	}
	return false, h.err
}

// record takes one record. The ring is the peer's to write: nothing in it is believed,
// and it is read once.
func (h *hearing) record(tail, head uint64) (size uint64, taken bool, err error) {
	var length [recordHead]byte
	h.get(tail, length[:])
	n := uint64(binary.LittleEndian.Uint32(length[:]))
	size = recordBytes(int(n))
	if n < frameHead || n > noteFrame || size > head-tail || head-tail > ringBytes {
		return 0, false, lost(nil, "%q wrote nonsense into its ring", h.from.name)
	}
	b := make([]byte, n)
	h.get(tail+recordHead, b)
	note, stream, err := readNote(b)
	if err != nil {
		return 0, false, err
	}
	h.from.stream = stream
	return size, h.a.hear(h.from, note) != noteLater, nil
}
