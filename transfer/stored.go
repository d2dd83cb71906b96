package transfer

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/dynamo-go/dynamo"
)

// store is where the bytes of a memory lie that is none: a file, or objects. Calls
// come from several goroutines at once. Parts lie one after the other in the store,
// and are not touched any more when a call returns.
type store interface {
	// unit is what one call moves at most, and the multiple at which calls end; 0 is
	// none.
	unit() (most, multiple int64)
	// lanes is how many calls of one transfer are worth while at once.
	lanes() int
	move(ctx context.Context, write bool, parts [][]byte, offset int64) error
}

// stored is a path to memories of one medium that lie in stores, of agents of this
// process. Who posts moves the bytes, between the store and plain memory.
type stored struct {
	process *Process
	name    Path
	medium  Medium
	scratch buffers // to compare with
}

func newStored(p *Process, name Path, m Medium) *stored {
	return &stored{process: p, name: name, medium: m, scratch: newBuffers()}
}

func (s *stored) path() Path                  { return s.name }
func (*stored) address() string               { return "" }
func (s *stored) open(p *Peer, _ string) rail { return &storedRail{s, p} }

type storedRail struct {
	*stored
	peer *Peer
}

func (r *storedRail) serves(local, remote uint32) bool {
	own := media(r.medium)
	return (subset(local, plain) && remote == own || local == own && subset(remote, plain)) && r.process.agent(r.peer.id) != nil
}

func (r *storedRail) close(error) {}

func (r *storedRail) move(ctx context.Context, j *job) error {
	t := r.process.agent(r.peer.id)
	if t == nil {
		return lost(nil, "agent %q of this process has ended", r.peer.Name())
	}
	s := &storing{rail: r, job: j, peer: t, local: j.list.media[0] == media(r.medium)}
	if err := s.cut(); err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var lanes sync.WaitGroup
	for range min(len(s.pieces), s.lanes) - 1 {
		lanes.Go(func() { s.lane(ctx, stop) })
	}
	s.lane(ctx, stop)
	lanes.Wait()
	if int(s.done.Load()) == len(s.pieces) {
		return nil
	}
	return ended(ctx)
}

// storing is a transfer into a store, or out of one.
type storing struct {
	rail   *storedRail
	job    *job
	peer   *Agent
	local  bool // the store is the local side
	parts  []part
	pieces []piece
	lanes  int
	next   atomic.Int64
	done   atomic.Int64
}

// part is some of a segment.
type part struct {
	segment      *segment
	from, length int64
}

// piece is what one call moves: parts that lie together in the store.
type piece struct {
	store          store
	memory         *Memory // the store's
	token          uint64  // of the remote side, which all parts have
	first, n       int     // its parts
	offset, length int64
}

// cut makes pieces of the segments.
func (s *storing) cut() error {
	var m *Memory
	for i := range s.job.list.segments {
		g := &s.job.list.segments[i]
		at := g.offset
		if s.local {
			m, at = g.local, g.localOffset
		} else if m == nil || m.id != g.remote {
			if m = s.peer.memory(g.remote); m == nil {
				return unregistered(g.remote)
			}
		}
		if m.store == nil {
			return invalid("memory %q is %s, not %s; import the peer's metadata anew", m.name, m.medium, s.rail.medium)
		}
		s.lanes = m.store.lanes()
		most, multiple := m.store.unit()
		for from := int64(0); from < g.length; {
			n := min(g.length-from, most)
			if multiple > 0 {
				n = min(n, multiple-(at+from)%multiple)
			}
			n = s.add(m, part{g, from, n}, at+from, most, multiple)
			from += n
		}
	}
	return nil
}

// add appends a part, to the last piece if it goes on there and has room, and
// returns how much of it that was.
func (s *storing) add(m *Memory, p part, at, most, multiple int64) int64 {
	if k := len(s.pieces); k > 0 {
		l := &s.pieces[k-1]
		room := most - l.length
		if l.memory == m && l.token == p.segment.token && l.offset+l.length == at && room > 0 && l.n < maxParts && (multiple == 0 || at%multiple != 0) {
			p.length = min(p.length, room)
			s.parts = append(s.parts, p)
			l.n++
			l.length += p.length
			return p.length
		}
	}
	s.pieces = append(s.pieces, piece{m.store, m, p.segment.token, len(s.parts), 1, at, p.length})
	s.parts = append(s.parts, p)
	return p.length
}

// lane moves one piece after the other. The first failure stops all.
func (s *storing) lane(ctx context.Context, stop context.CancelCauseFunc) {
	var vector [][]byte
	for ctx.Err() == nil {
		i := int(s.next.Add(1)) - 1
		if i >= len(s.pieces) {
			return
		}
		var err error
		if vector, err = s.piece(ctx, &s.pieces[i], vector[:0]); err != nil {
			stop(err)
			return
		}
		s.done.Add(1)
	}
}

// piece moves one under the announcements of its remote side.
func (s *storing) piece(ctx context.Context, p *piece, vector [][]byte) ([][]byte, error) {
	parts := s.parts[p.first : p.first+p.n]
	var grips []grip
	defer func() {
		for _, g := range grips {
			g.m.leave(g.ticket)
		}
	}()
	write := s.job.op == Write
	if s.local {
		write = !write
		for _, x := range parts {
			m := s.peer.memory(x.segment.remote)
			if m == nil {
				return vector, unregistered(x.segment.remote)
			}
			at := x.segment.offset + x.from
			ticket, err := m.enter(0, at, x.length, p.token, s.job.op)
			if err != nil {
				return vector, err
			}
			grips = append(grips, grip{m: m, ticket: ticket})
			vector = append(vector, m.bytes[at:at+x.length])
		}
	} else {
		ticket, err := p.memory.enter(0, p.offset, p.length, p.token, s.job.op)
		if err != nil {
			return vector, err
		}
		grips = append(grips, grip{m: p.memory, ticket: ticket})
		for _, x := range parts {
			vector = append(vector, x.segment.bytes()[x.from:x.from+x.length])
		}
	}
	if err := p.store.move(ctx, write, vector, p.offset); err != nil {
		return vector, err
	}
	if s.job.checksum {
		return vector, s.compare(ctx, p, parts, vector)
	}
	return vector, nil
}

// compare reads a piece that was moved from the store once more.
func (s *storing) compare(ctx context.Context, p *piece, parts []part, vector [][]byte) error {
	b := s.rail.scratch.get(p.length)
	defer s.rail.scratch.put(b)
	if err := p.store.move(ctx, false, [][]byte{b}, p.offset); err != nil {
		return err
	}
	for i, v := range vector {
		if !bytes.Equal(v, b[:len(v)]) {
			return corrupt(parts[i].segment)
		}
		b = b[len(v):]
	}
	return nil
}

// buffers are aligned buffers that were used before. Those of usual size are kept, a
// few of them.
type buffers chan []byte

func newBuffers() buffers { return make(buffers, keptBuffers) }

func (k buffers) get(n int64) []byte {
	if n > bufferBytes {
		return alignedBytes(n)
	}
	select {
	case b := <-k:
		return b[:n]
	default:
		return alignedBytes(bufferBytes)[:n]
	}
}

func (k buffers) put(b []byte) {
	if cap(b) != bufferBytes {
		return
	}
	select {
	case k <- b:
	default: // there are enough
	}
}

// alignedBytes returns bytes whose address is a multiple of directAlign.
func alignedBytes(n int64) []byte {
	b := make([]byte, n+directAlign)
	skip := int64(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (directAlign - 1))
	return b[skip : skip+n : skip+n]
}

// length is that of all parts.
func length(parts [][]byte) (n int64) {
	for _, p := range parts {
		n += int64(len(p))
	}
	return n
}

// ahead splits parts after n bytes.
func ahead(parts [][]byte, n int64) (front, rest [][]byte) {
	for i, p := range parts {
		if n < int64(len(p)) {
			if n == 0 {
				return parts[:i:i], parts[i:]
			}
			front = append(parts[:i:i], p[:n])
			rest = append(append(make([][]byte, 0, len(parts)-i), p[n:]), parts[i+1:]...)
			return front, rest
		}
		n -= int64(len(p))
	}
	return parts, nil
}

// gather copies parts into b, scatter b into parts.
func gather(b []byte, parts [][]byte) {
	for _, p := range parts {
		b = b[copy(b, p):]
	}
}

func scatter(parts [][]byte, b []byte) {
	for _, p := range parts {
		b = b[copy(p, b):]
	}
}

// failing is an error of a store's medium.
func failing(kind dynamo.Kind, err error, format string, args ...any) error {
	e := coded(kind, CodeMedium, format, args...).(*dynamo.Error)
	e.Err = err
	return e
}
