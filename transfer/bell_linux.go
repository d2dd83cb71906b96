package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Notifications of the path shm go through a ring in memory that both processes
// map, and eventfds that wake the reader if it sleeps. The ring is the reader's, one
// for each writer:
//
//	0    8  head: bytes written, by the writer
//	64   8  tail: bytes read, by the reader; what was read is acknowledged
//	128  8  who sleeps, see ear; the writer takes it away and wakes them
//	4096    records, each 4 bytes of length, a note's frame, and padding to 8
const (
	ringHead   = 0
	ringTail   = 64 / 8
	ringAsleep = 128 / 8
	ringData   = 4096
	ringBytes  = 256 << 10
	recordHead = 4
)

// noteFrame is the most a note's frame has.
const noteFrame = frameHead + maxFrameSegments*entryBytes + MaxNotifyBytes

func recordBytes(frame int) uint64 { return uint64(recordHead+frame+7) &^ 7 }

// ring is either side's view.
type ring struct {
	words []uint64
	data  []byte
}

func viewRing(b []byte) ring { return ring{words(b), b[ringData:]} }

func (r ring) load(word int) uint64     { return atomic.LoadUint64(&r.words[word]) }
func (r ring) store(word int, v uint64) { atomic.StoreUint64(&r.words[word], v) }

// put copies b into the ring at a position, around its end.
func (r ring) put(at uint64, b []byte) {
	n := copy(r.data[at%ringBytes:], b)
	copy(r.data, b[n:])
}

func (r ring) get(at uint64, b []byte) {
	n := copy(b, r.data[at%ringBytes:])
	copy(b[n:], r.data)
}

// bell is the writer's side.
type bell struct {
	*window
	ring  ring
	head  uint64
	frame []byte

	book struct {
		sync.Mutex
		marks []mark // what is not acknowledged
	}
}

type mark struct{ end, seq uint64 }

// receipts tells which notes the peer has read.
func (b *bell) receipts(p *Peer) {
	tail := b.ring.load(ringTail)
	seq := uint64(0)
	b.book.Lock()
	for len(b.book.marks) > 0 && b.book.marks[0].end <= tail {
		seq = b.book.marks[0].seq
		b.book.marks = b.book.marks[1:]
	}
	b.book.Unlock()
	if seq > 0 {
		p.acknowledged(seq)
	}
}

// write puts a note into the ring if there is room.
func (b *bell) write(n *note, stream uint32) bool {
	b.frame = n.frame(append(b.frame[:0], 0, 0, 0, 0), stream)
	size := recordBytes(len(b.frame) - recordHead)
	if b.head+size-b.ring.load(ringTail) > ringBytes {
		return false
	}
	binary.LittleEndian.PutUint32(b.frame, uint32(len(b.frame)-recordHead))
	b.ring.put(b.head, b.frame)
	b.head += size
	b.ring.store(ringHead, b.head)
	b.book.Lock()
	b.book.marks = append(b.book.marks, mark{b.head, n.seq})
	b.book.Unlock()
	return true
}

// wake wakes the reader if it sleeps.
func (b *bell) wake() {
	if b.ring.load(ringAsleep) == awake {
		return
	}
	if who := atomic.SwapUint64(&b.ring.words[ringAsleep], awake); who != awake {
		one := [8]byte{1}
		_, _ = unix.Write(b.events[min(who, earWaits)-1], one[:]) // fails only if it is full, and then it wakes
	}
}

// carry puts notes into the peer's ring.
func (r *shmRail) carry(ctx context.Context, notes []*note) (bool, error) {
	b := r.bell.Load()
	if b == nil || !b.use() {
		if ctx == atOnce {
			return false, nil
		}
		var err error
		if b, err = r.attachBell(ctx); err != nil {
			return false, err
		}
	}
	defer b.unuse()
	defer b.receipts(r.peer) // what it does can wait; the peer does not
	for _, n := range notes {
		for !b.write(n, r.peer.notes.stream) {
			b.wake()
			if ctx == atOnce {
				return false, nil
			}
			select {
			case <-ctx.Done():
				return false, ended(ctx)
			case <-time.After(drainPoll):
			}
			if b.dead.Load() {
				return false, lost(nil, "%q has ended", r.peer.Name())
			}
		}
	}
	b.wake()
	if b.dead.Load() {
		return false, lost(nil, "%q has ended", r.peer.Name())
	}
	return true, nil
}

// receipts tells which notes the peer has read.
func (r *shmRail) receipts() {
	if b := r.bell.Load(); b != nil && b.use() {
		b.receipts(r.peer)
		b.unuse()
	}
}

// attachBell connects to the peer's bell and takes it into use.
func (r *shmRail) attachBell(ctx context.Context) (*bell, error) {
	nc, err := r.peer.a.connect(ctx, r.peer, purposeBell, 0, r.dial)
	if err != nil {
		return nil, err
	}
	conn, ok := nc.(*net.UnixConn)
	if !ok {
		panic("BUG: the path shm dialled no unix socket")
	}
	b, err := receiveBell(conn)
	if err != nil {
		_ = conn.Close() // nothing is owed to it
		return nil, lost(err, "%q does not hand its bell over", r.peer.Name())
	}
	b.mu.users = 1
	if !r.peer.a.spawn(func() { r.watchBell(b) }) {
		b.end()
		b.unuse()
		return nil, errStopped
	}
	r.bell.Store(b)
	select {
	case <-r.peer.gone: // close may not have seen it
		b.end()
		b.unuse()
		return nil, errStopped
	default:
	}
	return b, nil
}

// watchBell waits for the peer to end, after which what it has not read has to be
// told in another way.
func (r *shmRail) watchBell(b *bell) {
	_, _ = io.Copy(io.Discard, b.conn) // that it has ended is what counts
	if b.use() {
		b.receipts(r.peer)
		b.unuse()
	}
	b.end()
	r.peer.interrupted()
}

func receiveBell(conn *net.UnixConn) (*bell, error) {
	files, head, err := receiveFiles(conn, 3)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close() // mappings and copies last
		}
	}()
	var m []byte
	if n := binary.BigEndian.Uint64(head); n != ringBytes {
		err = fmt.Errorf("a ring of %d bytes came, and one of %d is due", n, ringBytes)
	} else {
		m, err = mapSealed(files[0], ringData+ringBytes, unix.PROT_READ|unix.PROT_WRITE)
	}
	if err != nil {
		return nil, err
	}
	w := &window{conn: conn, maps: [][]byte{m}}
	for _, f := range files[1:] {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			w.conn = nil
			w.unmap() // the fault is reported
			return nil, err
		}
		w.events = append(w.events, fd)
	}
	return &bell{window: w, ring: viewRing(m)}, nil
}

// hearBell serves the bell of one peer until its connection ends.
func (a *Agent) hearBell(nc net.Conn, g greeting) error {
	conn, ok := nc.(*net.UnixConn)
	if !ok {
		return errors.New("a bell is handed over through a unix socket only")
	}
	file, mapped, err := newMemfd("dynamo-bell", ringData+ringBytes, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	if err != nil {
		return err
	}
	defer unix.Munmap(mapped)
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = file.Close() // the fault is reported
		return fmt.Errorf("eventfd: %w", err)
	}
	h := &hearing{ring: viewRing(mapped), a: a, turn: make(chan struct{}, 1), from: origin{id: g.id, name: g.name}, gone: make(chan struct{})}
	h.event = os.NewFile(uintptr(fd), "bell") // waits in the poller; its Fd would make it block
	h.turn <- struct{}{}
	defer h.event.Close()
	ear, err := a.ear.add(h)
	if err != nil {
		_ = file.Close() // the fault is reported
		return err
	}
	defer a.ear.remove(h) // before its memory goes
	head := binary.BigEndian.AppendUint64(nil, ringBytes)
	head = binary.BigEndian.AppendUint64(head, 0)
	_, _, err = conn.WriteMsgUnix(head, unix.UnixRights(int(file.Fd()), fd, int(ear.Fd())), nil)
	_ = file.Close() // the peer has its own
	if err != nil {
		return fmt.Errorf("hand the bell over: %w", err)
	}
	done := make(chan error, 1)
	go func() {
		err := h.run()
		_ = conn.Close() // ends the copy below
		done <- err
	}()
	_, _ = io.Copy(io.Discard, conn) // that it has ended is what counts
	close(h.gone)
	_ = h.event.Close() // ends the goroutine above
	return <-done
}

// readNote reads a note's frame.
func readNote(b []byte) (*note, uint32, error) {
	h, err := readHeader(b)
	if err != nil {
		return nil, 0, err
	}
	table := int(h.count) * entryBytes
	if h.kind != kindNote || len(b) != frameHead+table+int(h.bytes) {
		return nil, 0, lost(nil, "the peer sent something else as a notification")
	}
	entries, err := readTable(h, b[frameHead:frameHead+table], nil)
	if err != nil {
		return nil, 0, err
	}
	return h.note(entries, b[frameHead+table:]), h.index, nil
}
