package transfer

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
)

// Medium is what a memory consists of.
type Medium uint8

// The media. Their numbers are part of the metadata.
const (
	MediumHost   Medium = iota // memory of one process
	MediumShared               // memory that other processes of the host can map
	MediumFile                 // a file
	MediumObject               // objects of a store, one for each page
	mediumCount
)

// String names the medium.
func (m Medium) String() string {
	switch m {
	case MediumHost:
		return "host memory"
	case MediumShared:
		return "shared memory"
	case MediumFile:
		return "a file"
	case MediumObject:
		return "objects"
	}
	return "an unknown medium"
}

// Access says who may touch what of a memory is not lent.
type Access uint8

// The kinds of access.
const (
	AccessLent  Access = iota // nobody: peers need a lease
	AccessRead                // every peer may read
	AccessWrite               // every peer may read and write
)

func (a Access) rights() rights {
	return [...]rights{AccessLent: 0, AccessRead: mayRead, AccessWrite: mayRead | mayWrite}[a]
}

// Section is memory to register: Bytes, Shared, File, or Objects.
type Section struct {
	// Name finds the memory in Peer.Memory; unique within the agent.
	Name string
	// Bytes is host memory. It must stay mapped until Deregister has returned.
	Bytes []byte
	// Shared is memory of NewShared.
	Shared *Shared
	// File is a file of OpenFile. Only agents of its process reach it, as they do
	// objects, and only to and from memory.
	File *File
	// Objects is a store, in which each page of Size bytes in all is an object of its
	// own, named Name/NUMBER. A page that was never written is zeros. Whole pages are
	// put as they are; less of one is read, changed and put by one transfer at a time.
	Objects Objects
	Size    int64
	// PageBytes is the unit in which ranges are lent, such as a KV block. 0 means
	// DefaultPageBytes.
	PageBytes int64
	// Access is what peers may do without a lease. Default: nothing.
	Access Access
}

// MemoryID names a memory within its agent; it is not used again.
type MemoryID uint32

// Range is a part of a memory.
type Range struct{ Offset, Length int64 }

// Descriptor names bytes of a memory: of this agent in local lists, of the peer in
// remote ones. Token is what opens a peer's bytes, and of no account in local
// lists.
type Descriptor struct {
	Memory         MemoryID
	Offset, Length int64
	Token          uint64
}

// Memory is a registered section.
type Memory struct {
	a         *Agent
	id        MemoryID
	name      string
	medium    Medium
	pageBytes int64
	base      uint64 // opens what is not lent; 0 if nothing does
	size      int64
	bytes     []byte // nil if they lie in store
	store     store
	table     *table

	mu struct {
		sync.Mutex
		fence  fence
		leases map[uint64]*Lease
		seats  map[uint64]*seat // processes that map this memory, by connection
		holds  int              // transfers of this agent
		gone   bool
	}
}

// ID returns the memory's number within its agent.
func (m *Memory) ID() MemoryID { return m.id }

// Bytes returns the memory itself; nil for files and objects.
func (m *Memory) Bytes() []byte { return m.bytes }

// At names a part of the memory, for a local list or, if the memory is open to
// every peer, for a peer's remote list.
func (m *Memory) At(offset, length int64) Descriptor {
	return Descriptor{m.id, offset, length, m.base}
}

// within reports whether a part lies in the memory.
func within(offset, length, size int64) bool {
	return offset >= 0 && length > 0 && length <= size && offset <= size-length
}

// spanOf returns the pages of a part that lies in its memory.
func spanOf(offset, length, pageBytes int64) span {
	first := offset / pageBytes
	return span{uint32(first), uint32((offset+length-1)/pageBytes - first + 1)}
}

// Register makes a section known to the agent. Its metadata holds the memory from
// the next Export on.
func (a *Agent) Register(s Section) (*Memory, error) {
	m := &Memory{a: a, name: s.Name, pageBytes: s.PageBytes}
	if m.pageBytes == 0 {
		m.pageBytes = DefaultPageBytes
	}
	if err := m.lie(&s); err != nil {
		return nil, err
	}
	if m.size < 1 || len(s.Name) > maxTextBytes || m.pageBytes < 1 || s.Access > AccessWrite {
		return nil, invalid("section %q of %d bytes in pages of %d: give bytes, a name of at most %d bytes, and a page of at least 1", s.Name, m.size, m.pageBytes, maxTextBytes)
	}
	pages := (m.size + m.pageBytes - 1) / m.pageBytes
	if pages > math.MaxUint32/2 {
		return nil, invalid("section %q has %d pages; use larger ones", s.Name, pages)
	}
	var err error
	if m.table, err = newTable(int(pages), s.Shared, m.medium); err != nil {
		return nil, err
	}
	m.mu.fence = newFence(m.table.words, s.Access.rights())
	m.base = m.mu.fence.base
	m.mu.leases, m.mu.seats = map[uint64]*Lease{}, map[uint64]*seat{}
	if err := a.admit(m); err != nil {
		m.table.free()
		return nil, err
	}
	return m, nil
}

// lie says where the bytes of a section are.
func (m *Memory) lie(s *Section) error {
	given := 0
	for _, is := range []bool{s.Bytes != nil, s.Shared != nil, s.File != nil, s.Objects != nil} {
		if is {
			given++
		}
	}
	if given > 1 {
		return invalid("section %q has several of bytes, shared memory, a file and objects; give one of them", s.Name)
	}
	switch {
	case s.File != nil:
		m.medium, m.size, m.store = MediumFile, s.File.size, s.File
	case s.Objects != nil:
		if m.pageBytes < 1 || m.pageBytes > maxObjectBytes {
			return invalid("section %q has objects of %d bytes; 1 to %d are possible", s.Name, m.pageBytes, maxObjectBytes)
		}
		m.medium, m.size, m.store = MediumObject, s.Size, newObjects(s, m.pageBytes)
	case s.Shared != nil:
		m.bytes = s.Shared.bytes
		if s.Shared.mappable() {
			m.medium = MediumShared
		}
		m.size = int64(len(m.bytes))
	default:
		m.bytes, m.size = s.Bytes, int64(len(s.Bytes))
	}
	return nil
}

// admit puts a memory on the agent's list.
func (a *Agent) admit(m *Memory) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.state == stateStopped {
		return errStopped
	}
	if len(a.mu.memories) >= MaxMemories {
		return &dynamo.Error{Kind: dynamo.KindExhausted, Message: "the agent has as many memories as it may; register fewer, larger sections"}
	}
	for _, o := range a.mu.memories {
		if o.name == m.name {
			return invalid("a section %q is registered; give each its own name", m.name)
		}
	}
	a.mu.lastMemory++
	m.id = a.mu.lastMemory
	a.mu.memories[m.id] = m
	return nil
}

// Deregister withdraws a memory: peers are refused from here on, its leases are
// revoked, transfers of this agent that use it are cancelled. It returns once
// nobody can touch the memory any more. If ctx ends first that is not proved, and
// the memory must stay as it is; Deregister may be called again.
func (a *Agent) Deregister(ctx context.Context, m *Memory) error {
	a.mu.Lock()
	delete(a.mu.memories, m.id)
	a.mu.Unlock()
	m.mu.Lock()
	m.mu.gone = true
	m.mu.fence.shut()
	leases := make([]*Lease, 0, len(m.mu.leases))
	for _, l := range m.mu.leases {
		leases = append(leases, l)
	}
	seats := make([]*seat, 0, len(m.mu.seats))
	for _, s := range m.mu.seats {
		seats = append(seats, s)
	}
	m.mu.Unlock()
	for _, l := range leases {
		l.end(Revoked)
	}
	for _, s := range seats {
		s.dismiss()
	}
	a.cancelUsers(m)
	begun := time.Now()
	for pause := drainPoll; !m.idle(); pause = min(2*pause, drainPollMax) {
		for _, l := range leases {
			l.settle()
		}
		m.sever(time.Since(begun), m.allHolders)
		select {
		case <-ctx.Done():
			return &dynamo.Error{Kind: dynamo.KindOf(ctx.Err()), Message: "memory " + m.name + " is still in use by a peer or a transfer; keep it mapped, and deregister it again", Err: context.Cause(ctx)}
		case <-time.After(pause):
		}
	}
	m.table.free()
	return nil
}

// idle reports whether a withdrawn memory is touched by nobody.
func (m *Memory) idle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.holds == 0 && len(m.mu.seats) == 0 && len(m.mu.leases) == 0 && m.mu.fence.quiet(m.foreignLocked)
}

// allHolders names the connections with an access in progress.
func (m *Memory) allHolders() (conns []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, a := range m.mu.fence.busy {
		if a.conn != 0 {
			conns = append(conns, a.conn)
		}
	}
	return conns
}

// foreignLocked reports whether a process that maps the memory has announced that
// it touches pages of s.
func (m *Memory) foreignLocked(s span) bool {
	for _, seat := range m.mu.seats {
		if seat.touches(s) {
			return true
		}
	}
	return false
}

// hold keeps the memory mapped for a transfer of this agent.
func (m *Memory) hold() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.gone {
		return false
	}
	m.mu.holds++
	return true
}

func (m *Memory) unhold() {
	m.mu.Lock()
	m.mu.holds--
	m.mu.Unlock()
}

// enter lets a connection's goroutine touch a part for a peer.
func (m *Memory) enter(conn uint64, offset, length int64, token uint64, op Op) (ticket uint64, err error) {
	if !within(offset, length, m.size) {
		return 0, invalid("%d bytes at %d of memory %q, which has %d", length, offset, m.name, m.size)
	}
	if conn != 0 && m.store != nil {
		return 0, invalid("memory %q is %s; only agents of its process reach it", m.name, m.medium)
	}
	m.mu.Lock()
	if m.mu.gone {
		m.mu.Unlock()
		return 0, unregistered(m.id)
	}
	ticket, ok := m.mu.fence.enter(conn, spanOf(offset, length, m.pageBytes), token, op)
	m.mu.Unlock()
	if !ok {
		return 0, fenced(op, offset, length, m.name)
	}
	return ticket, nil
}

func (m *Memory) leave(ticket uint64) {
	m.mu.Lock()
	m.mu.fence.leave(ticket)
	m.mu.Unlock()
}

func unregistered(id MemoryID) error {
	return coded(dynamo.KindNotFound, CodeMemory, "memory %d is not registered there (any more); import the peer's metadata anew", id)
}

func fenced(op Op, offset, length int64, memory string) error {
	return coded(dynamo.KindNotFound, CodeFenced, "%s refused: %d bytes at %d of memory %q are not lent to this transfer (any more); ask for a new lease", op, length, offset, memory)
}
