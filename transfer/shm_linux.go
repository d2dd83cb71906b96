package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynamo-go/dynamo"
)

// shm is the path by mapping: the peer hands over the files of a shared memory and
// of its fence through a Unix socket, and who posts copies by itself. The socket
// stays open as long as the mapping.
type shm struct {
	a      *Agent
	socket string
}

const socketPrefix, socketSuffix = "transfer-", ".sock"

func newShm(a *Agent) backend {
	s := &shm{a: a}
	if a.cfg.SocketDir != "" {
		s.socket = filepath.Join(a.cfg.SocketDir, socketPrefix+a.id.String()[:16]+socketSuffix)
	}
	return s
}

func (*shm) path() Path { return PathShm }

func (s *shm) address() string { return s.socket }

// listen opens the socket, and removes those that dead processes have left.
func (s *shm) listen() (net.Listener, error) {
	if s.socket == "" {
		return nil, nil
	}
	left, err := filepath.Glob(filepath.Join(s.a.cfg.SocketDir, socketPrefix+"*"+socketSuffix))
	if err == nil {
		for _, path := range left[:min(len(left), maxPeers)] {
			c, err := net.Dial("unix", path)
			if err == nil {
				_ = c.Close() // somebody lives there
			} else if errors.Is(err, syscall.ECONNREFUSED) {
				_ = os.Remove(path) // another may have done so
			}
		}
	}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Err: err, Message: fmt.Sprintf("the socket %s cannot be made; give a directory that exists, is writable, and has a short name", s.socket)}
	}
	return l, nil
}

func (s *shm) open(p *Peer, address string) rail {
	if address == "" || s.socket == "" {
		return nil
	}
	r := &shmRail{peer: p, turn: make(chan struct{}, 1)}
	r.turn <- struct{}{}
	r.dial = func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", address)
	}
	r.mu.windows = map[MemoryID]*window{}
	return r
}

// attachable says why a memory cannot be mapped.
func (a *Agent) attachable(id MemoryID) error {
	m := a.memory(id)
	if m == nil {
		return unregistered(id)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.medium != MediumShared || m.mu.gone:
		return unregistered(id)
	case len(m.mu.seats) >= attachSlots:
		return &dynamo.Error{Kind: dynamo.KindExhausted, Message: "as many processes map memory " + m.name + " as may"}
	}
	return nil
}

// seat gives a memory to a process and keeps its seat until the process has given
// the mapping up or has died.
func (a *Agent) seat(id uint64, nc net.Conn, g greeting) error {
	conn, ok := nc.(*net.UnixConn)
	m := a.memory(g.memory)
	if !ok || m == nil {
		return unregistered(g.memory)
	}
	file, mapped, err := newMemfd("dynamo-hazards", hazards*8, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	if err != nil {
		return err
	}
	defer file.Close() // the peer has its own
	s := &seat{hazards: words(mapped), conn: conn}
	m.mu.Lock()
	if m.mu.gone || len(m.mu.seats) >= attachSlots {
		m.mu.Unlock()
		_ = unix.Munmap(mapped) // fails for a bug only
		return unregistered(g.memory)
	}
	m.mu.seats[id] = s
	m.mu.Unlock()
	a.mu.Lock()
	a.mu.conns[id] = dismissal{s, conn}
	stopped := a.mu.state == stateStopped
	a.mu.Unlock()
	if stopped {
		_ = dismissal{s, conn}.Close() // as stop does
	}
	head := binary.BigEndian.AppendUint64(nil, uint64(len(m.bytes)))
	head = binary.BigEndian.AppendUint64(head, uint64(len(m.table.words)))
	rights := unix.UnixRights(int(m.table.shared.file.Fd()), int(m.table.file.Fd()), int(file.Fd()))
	if _, _, err = conn.WriteMsgUnix(head, rights, nil); err != nil {
		err = fmt.Errorf("hand memory %q over: %w", m.name, err)
	}
	if _, rerr := io.Copy(io.Discard, conn); rerr != nil {
		// Not the end of the peer's side: nothing is proved, and the seat stays.
		a.log.Warn("a peer still maps a memory; its pages stay fenced until the process that owns it ends", "peer", g.name, "memory", m.name, "err", rerr)
		return rerr
	}
	m.mu.Lock()
	delete(m.mu.seats, id)
	m.mu.Unlock()
	_ = unix.Munmap(mapped) // fails for a bug only
	a.reaper.wake()
	return err
}

// dismissal ends a seat when its agent stops.
type dismissal struct {
	s    *seat
	conn net.Conn
}

// Close asks for the end, and waits for it no longer than stallTimeout.
func (d dismissal) Close() error {
	d.s.dismiss()
	return d.conn.SetReadDeadline(time.Now().Add(stallTimeout))
}

// shmRail maps the memories of one peer as they are needed.
type shmRail struct {
	peer *Peer
	dial func(context.Context) (net.Conn, error)
	bell atomic.Pointer[bell]
	turn chan struct{}

	mu struct {
		sync.Mutex
		windows map[MemoryID]*window
	}
}

var (
	_ inliner   = (*shmRail)(nil)
	_ carrier   = (*shmRail)(nil)
	_ receipter = (*shmRail)(nil)
)

func (r *shmRail) serves(local, remote uint32) bool {
	return subset(local, plain) && subset(remote, media(MediumShared))
}

func (r *shmRail) close(error) {
	if b := r.bell.Load(); b != nil {
		b.end()
	}
	r.mu.Lock()
	all := make([]*window, 0, len(r.mu.windows))
	for _, w := range r.mu.windows {
		all = append(all, w)
	}
	clear(r.mu.windows)
	r.mu.Unlock()
	for _, w := range all {
		w.end()
	}
}

// window is a peer's memory mapped in this process.
type window struct {
	conn    *net.UnixConn
	data    []byte
	words   []uint64
	hazards []uint64
	free    chan int // hazards nobody uses
	maps    [][]byte
	events  []int // of a bell
	dead    atomic.Bool

	mu struct {
		sync.Mutex
		users int
		over  bool
	}
}

// end gives the mapping up as soon as nobody uses it; then the connection ends,
// which is what proves it to the owner.
func (w *window) end() {
	w.dead.Store(true)
	w.mu.Lock()
	last := w.mu.users == 0 && !w.mu.over
	w.mu.over = w.mu.over || last
	w.mu.Unlock()
	if last {
		w.unmap()
	}
}

func (w *window) use() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead.Load() {
		return false
	}
	w.mu.users++
	return true
}

func (w *window) unuse() {
	w.mu.Lock()
	w.mu.users--
	w.mu.Unlock()
	if w.dead.Load() {
		w.end()
	}
}

func (w *window) unmap() {
	for _, m := range w.maps {
		_ = unix.Munmap(m) // fails for a bug only
	}
	for _, e := range w.events {
		_ = unix.Close(e) // nothing is owed to it
	}
	if w.conn != nil {
		_ = w.conn.Close() // its end is what counts
	}
}

// views are the windows of one transfer.
type views struct {
	r   *shmRail
	ids []MemoryID
	ws  []*window
}

// open takes the windows of a list into use; with atOnce only if they
// are mapped.
func (r *shmRail) open(ctx context.Context, l *List) (v views, err error) {
	v.r = r
	for i := range l.segments {
		id := l.segments[i].remote
		if v.find(id) != nil {
			continue
		}
		w := r.mapped(id)
		if w == nil && ctx != atOnce {
			w, err = r.attach(ctx, id)
		}
		if w == nil {
			v.close()
			return views{}, err
		}
		v.ids, v.ws = append(v.ids, id), append(v.ws, w)
	}
	return v, nil
}

func (v *views) find(id MemoryID) *window {
	for i, k := range v.ids {
		if k == id {
			return v.ws[i]
		}
	}
	return nil
}

func (v *views) close() {
	for _, w := range v.ws {
		w.unuse()
	}
}

func (v *views) gone() error {
	for _, w := range v.ws {
		if w.dead.Load() {
			return lost(nil, "%q has ended, or withdrew its memory", v.r.peer.Name())
		}
	}
	return nil
}

// enter publishes the pages before it looks at their words; see fence.
func (v *views) enter(s *segment, op Op) ([]byte, grip, error) {
	w := v.find(s.remote)
	if s.offset+s.length > int64(len(w.data)) {
		return nil, grip{}, invalid("%s: the peer's memory has %d bytes", s.descriptors(), len(w.data))
	}
	h := <-w.free
	g := grip{window: w, hazard: h}
	atomic.StoreUint64(&w.hazards[h], s.pages.packed())
	if w.dead.Load() {
		v.leave(g)
		return nil, grip{}, v.gone()
	}
	if !open(w.words, s.pages, s.token, op) {
		v.leave(g)
		return nil, grip{}, fenced(op, s.offset, s.length, fmt.Sprint(s.remote))
	}
	return w.data[s.offset : s.offset+s.length], g, nil
}

func (*views) leave(g grip) {
	atomic.StoreUint64(&g.window.hazards[g.hazard], 0)
	g.window.free <- g.hazard
}

func (r *shmRail) move(ctx context.Context, j *job) error {
	v, err := r.open(ctx, j.list)
	if err != nil {
		return err
	}
	defer v.close()
	if err := r.peer.a.copyAll(ctx, j, &v); err != nil {
		return err
	}
	return v.gone()
}

func (r *shmRail) inline(j *job) (bool, error) {
	v, err := r.open(atOnce, j.list)
	if err != nil || v.ws == nil {
		return false, nil
	}
	defer v.close()
	if err := copyInline(&v, j); err != nil && !another(err) {
		return true, err
	} else if err != nil {
		return false, nil
	}
	return v.gone() == nil, nil
}

// mapped takes a window into use if there is one.
func (r *shmRail) mapped(id MemoryID) *window {
	r.mu.Lock()
	w := r.mu.windows[id]
	r.mu.Unlock()
	if w == nil || !w.use() {
		return nil
	}
	return w
}

// attach maps a memory of the peer and takes it into use.
func (r *shmRail) attach(ctx context.Context, id MemoryID) (*window, error) {
	select {
	case <-r.turn:
	case <-ctx.Done():
		return nil, ended(ctx)
	}
	defer func() { r.turn <- struct{}{} }()
	if w := r.mapped(id); w != nil {
		return w, nil
	}
	nc, err := r.peer.a.connect(ctx, r.peer, purposeAttach, id, r.dial)
	if err != nil {
		return nil, err
	}
	conn, ok := nc.(*net.UnixConn)
	if !ok {
		panic("BUG: the path shm dialled no unix socket")
	}
	w, err := receiveWindow(conn)
	if err != nil {
		_ = conn.Close() // nothing is owed to it
		return nil, lost(err, "%q does not hand memory %d over", r.peer.Name(), id)
	}
	w.mu.users = 1
	if !r.peer.a.spawn(func() { r.watch(id, w) }) {
		w.unuse()
		w.end()
		return nil, errStopped
	}
	r.mu.Lock()
	r.mu.windows[id] = w
	r.mu.Unlock()
	select {
	case <-r.peer.gone: // close may not have seen it
		w.unuse()
		w.end()
		return nil, errStopped
	default:
	}
	return w, nil
}

// watch waits for the owner to withdraw the memory, or to die.
func (r *shmRail) watch(id MemoryID, w *window) {
	_, _ = io.Copy(io.Discard, w.conn) // that it has ended is what counts
	r.mu.Lock()
	if r.mu.windows[id] == w {
		delete(r.mu.windows, id)
	}
	r.mu.Unlock()
	w.end()
}

// receiveFiles takes what a peer hands over: 16 bytes that describe it, and files.
func receiveFiles(conn *net.UnixConn, count int) (files []*os.File, head []byte, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, nil, err
	}
	head, oob := make([]byte, 16), make([]byte, unix.CmsgSpace(count*4))
	n, oobn, _, _, err := conn.ReadMsgUnix(head, oob)
	if err == nil {
		files, err = receivedFiles(oob[:oobn])
	}
	if err == nil && (n != len(head) || len(files) != count) {
		err = fmt.Errorf("%d bytes and %d files came, 16 and %d are due", n, len(files), count)
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Time{})
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close() // the fault is reported
		}
		return nil, nil, err
	}
	return files, head, nil
}

// receiveWindow takes the files of a memory and maps them, if they are what they
// must be.
func receiveWindow(conn *net.UnixConn) (*window, error) {
	files, head, err := receiveFiles(conn, 3)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close() // the mappings last
		}
	}()
	bytes, pages := binary.BigEndian.Uint64(head), binary.BigEndian.Uint64(head[8:])
	w := &window{conn: conn, free: make(chan int, hazards)}
	for i, m := range []struct {
		bytes uint64
		prot  int
	}{{bytes, unix.PROT_READ | unix.PROT_WRITE}, {pages * 8, unix.PROT_READ}, {hazards * 8, unix.PROT_READ | unix.PROT_WRITE}} {
		b, err := mapSealed(files[i], m.bytes, m.prot)
		if err != nil {
			w.conn = nil
			w.unmap()
			return nil, err
		}
		w.maps = append(w.maps, b)
	}
	w.data, w.words, w.hazards = w.maps[0], words(w.maps[1]), words(w.maps[2])
	for i := range hazards {
		w.free <- i
	}
	return w, nil
}

func receivedFiles(oob []byte) (files []*os.File, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

// mapSealed maps a file whose size is right and cannot change, so that no access
// can fault.
func mapSealed(f *os.File, bytes uint64, prot int) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil || seals&unix.F_SEAL_SHRINK == 0 || uint64(info.Size()) != bytes || bytes == 0 {
		return nil, fmt.Errorf("a file of %d bytes, seals %#x (%v), came; one of %d that cannot shrink is due", info.Size(), seals, err, bytes)
	}
	return unix.Mmap(int(f.Fd()), 0, int(bytes), prot, unix.MAP_SHARED)
}
