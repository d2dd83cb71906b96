package transfer

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/dynamo-go/dynamo"
)

// accept takes connections until its listener is closed.
func (a *Agent) accept(l net.Listener) {
	for {
		nc, err := l.Accept()
		if err != nil {
			select {
			case <-a.stopping:
				return
			case <-time.After(notifyPause): // too many open files, and the like
				if errors.Is(err, net.ErrClosed) {
					a.log.Error("a listener was closed under the agent; peers do not reach it any more", "err", err)
					return
				}
				continue
			}
		}
		if !a.take(nc) {
			_ = nc.Close() // nothing is owed to it
		}
	}
}

// take serves a connection, unless there are too many.
func (a *Agent) take(nc net.Conn) bool {
	nc = a.lends(nc)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.state != stateRunning || a.mu.strangers >= maxStrangers || len(a.mu.conns) >= maxServed {
		return false
	}
	a.mu.lastConn++
	id := a.mu.lastConn
	a.mu.conns[id] = nc
	a.mu.strangers++
	a.wg.Go(func() {
		key, served := a.serve(id, nc)
		_ = nc.Close() // what matters was reported
		if l, ok := nc.(lender); ok {
			l.settle()
		}
		a.mu.Lock()
		delete(a.mu.conns, id)
		if l, ok := a.mu.latest[key]; served && ok && l.conn == id {
			close(l.over)
			delete(a.mu.latest, key)
		}
		a.mu.Unlock()
	})
	return true
}

// ordinal names one of the connections that a peer keeps for its frames.
type ordinal struct {
	id AgentID
	n  uint32
}

// latest is who serves an ordinal.
type latest struct {
	conn uint64
	over chan struct{}
}

// succeed makes a connection the one that serves its ordinal, after its
// predecessor's goroutine has ended: what a peer sends again over a new connection
// must not be overtaken by what an old one has brought.
func (a *Agent) succeed(g greeting, conn uint64) error {
	key := ordinal{g.id, uint32(g.memory)}
	timer := time.NewTimer(handshakeTimeout / 2)
	defer timer.Stop()
	for {
		a.mu.Lock()
		old, ok := a.mu.latest[key]
		if !ok {
			a.mu.latest[key] = latest{conn, make(chan struct{})}
		}
		a.mu.Unlock()
		if !ok {
			return nil
		}
		a.sever(old.conn)
		select {
		case <-old.over:
		case <-timer.C:
			return lost(nil, "an earlier connection of %q has not ended yet; try again", g.name)
		}
	}
}

// serve is a connection's goroutine. It reports whether the connection may have
// come to serve an ordinal, and which.
func (a *Agent) serve(id uint64, nc net.Conn) (key ordinal, served bool) {
	_ = nc.SetDeadline(time.Now().Add(handshakeTimeout)) // fails for a closed connection, which the next read finds
	under := nc
	var err error
	if _, unix := nc.(*net.UnixConn); a.cfg.TLS != nil && !unix {
		t := tls.Server(nc, a.cfg.TLS)
		err = t.Handshake()
		nc = t
	}
	var g greeting
	if err == nil {
		g, err = a.greet(id, nc)
	}
	a.mu.Lock()
	a.mu.strangers--
	a.mu.Unlock()
	if err != nil {
		a.log.Warn("a connection was refused", "addr", under.RemoteAddr(), "err", err)
		return ordinal{g.id, uint32(g.memory)}, true
	}
	_ = nc.SetDeadline(time.Time{}) // as above
	switch g.purpose {
	case purposeAttach:
		err = a.seat(id, under, g)
	case purposeBell:
		err = a.hearBell(under, g)
	default:
		err = newServer(a, id, nc, g).run()
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		a.log.Info("a peer's connection ended", "peer", g.name, "err", err)
	}
	return ordinal{g.id, uint32(g.memory)}, g.purpose == purposeFrames
}

// server answers the frames of one connection.
type server struct {
	a  *Agent
	id uint64
	patience
	br      *bufio.Reader
	peer    greeting
	head    [frameHead]byte
	table   []byte
	entries []entry
	out     []byte // answers that wait for the end of what is buffered
	bufs    net.Buffers
	lender  lender // nc, if it is one
}

func newServer(a *Agent, id uint64, nc net.Conn, g greeting) *server {
	s := &server{a: a, id: id, patience: patience{nc: nc}, peer: g}
	s.br = bufio.NewReaderSize(&s.patience, readBytes)
	s.lender, _ = nc.(lender)
	return s
}

func (s *server) run() error {
	for {
		if s.br.Buffered() < frameHead {
			if err := s.flush(); err != nil {
				return err
			}
			if err := s.idle(); err != nil {
				return err
			}
		}
		h, err := s.next()
		if err != nil {
			return err
		}
		switch h.kind {
		case kindWrite:
			err = s.write(h)
		case kindRead:
			err = s.read(h)
		case kindNote:
			err = s.note(h)
		default:
			err = lost(nil, "the peer sent an answer, kind %d, as a request", h.kind)
		}
		if err != nil {
			return err
		}
	}
}

// idle waits for a frame. Between frames a peer may take its time.
func (s *server) idle() error {
	s.relax()
	if s.lender != nil {
		s.lender.watch(true)
		defer s.lender.watch(false)
	}
	_, err := s.br.Peek(1)
	return err
}

// next reads a frame's header and table.
func (s *server) next() (header, error) {
	if s.br.Buffered() < frameHead {
		if err := s.expect(); err != nil {
			return header{}, err
		}
	}
	if _, err := io.ReadFull(s.br, s.head[:]); err != nil {
		return header{}, err
	}
	h, err := readHeader(s.head[:])
	if err != nil {
		return h, err
	}
	need := int(h.count) * entryBytes
	if s.br.Buffered() < need+int(h.bytes) {
		if err := s.expect(); err != nil {
			return h, err
		}
	}
	if cap(s.table) < need {
		s.table = make([]byte, need)
	}
	s.table = s.table[:need]
	if _, err := io.ReadFull(s.br, s.table); err != nil {
		return h, err
	}
	s.entries, err = readTable(h, s.table, s.entries)
	return h, err
}

func (s *server) flush() error {
	if len(s.out) == 0 {
		return nil
	}
	if err := s.writing(); err != nil {
		return err
	}
	_, err := s.nc.Write(s.out)
	s.out = s.out[:0]
	return err
}

// enter opens an entry's bytes to this connection.
func (s *server) enter(e *entry, op Op) (*Memory, uint64, error) {
	m := s.a.memory(e.memory)
	if m == nil {
		return nil, 0, unregistered(e.memory)
	}
	ticket, err := m.enter(s.id, int64(e.offset), int64(e.length), e.token, op)
	return m, ticket, err
}

// write takes a frame's bytes into memory. After the first segment that is refused
// the rest is read and left.
func (s *server) write(h header) error {
	var failed error
	at := 0
	for i := range s.entries {
		e := &s.entries[i]
		var m *Memory
		var ticket uint64
		if failed == nil {
			if m, ticket, failed = s.enter(e, Write); failed != nil {
				at = i
			}
		}
		if failed != nil {
			if _, err := io.CopyN(io.Discard, s.br, int64(e.length)); err != nil {
				return err
			}
			continue
		}
		got, err := readSummed(s.br, m.bytes[e.offset:e.offset+uint64(e.length)], h.flags&flagSums != 0)
		m.leave(ticket)
		if err != nil {
			return err
		}
		if h.flags&flagSums != 0 && got != e.sum {
			at, failed = i, coded(dynamo.KindCorrupt, CodeChecksum, "%q received other bytes than %q sent (XXH3-64 differs); send or compute them again", s.a.cfg.Name, s.peer.name)
		}
	}
	if failed != nil {
		head, text := refusal(h.id, at, failed)
		s.out = append(append(s.out, head...), text...)
		return nil
	}
	ok := header{kind: kindAck, id: h.id}
	s.out = ok.append(s.out)
	return nil
}

// readSummed reads straight into memory, and sums the bytes while they are in the
// cache.
func readSummed(r io.Reader, b []byte, summed bool) (h uint64, err error) {
	if !summed {
		_, err = io.ReadFull(r, b)
		return 0, err
	}
	for first := true; len(b) > 0; first = false {
		n := min(len(b), pieceBytes)
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			return 0, err
		}
		if first {
			h = xxh3.Hash(b[:n])
		} else {
			h = xxh3.HashSeed(b[:n], h)
		}
		b = b[n:]
	}
	return h, nil
}

// grips are announcements of this process that have to be taken back.
type grips []grip

func (gs grips) leave() {
	for _, g := range gs {
		g.m.leave(g.ticket)
	}
}

// read sends what a peer asks for. The announcements last until the kernel has copied the
// bytes, or has given them back.
func (s *server) read(h header) error {
	gs, lent := make(grips, 0, len(s.entries)), false
	defer func() {
		if !lent {
			gs.leave()
		}
	}()
	total := 0
	for i := range s.entries {
		m, ticket, err := s.enter(&s.entries[i], Read)
		if err != nil {
			head, text := refusal(h.id, i, err)
			s.out = append(append(s.out, head...), text...)
			return nil
		}
		gs = append(gs, grip{m: m, ticket: ticket})
		total += int(s.entries[i].length)
	}
	d := header{kind: kindData, flags: h.flags & flagSums, count: h.count, id: h.id, bytes: uint32(total)}
	s.out = d.append(s.out)
	s.bufs = append(s.bufs[:0], nil)
	for i := range s.entries {
		e := &s.entries[i]
		b := gs[i].m.bytes[e.offset : e.offset+uint64(e.length)]
		if h.flags&flagSums != 0 {
			e.sum = sum(b)
		}
		s.out = e.append(s.out)
		s.bufs = append(s.bufs, b)
	}
	s.bufs[0] = s.out
	if err := s.writing(); err != nil {
		return err
	}
	var err error
	if s.lender != nil {
		lent, err = s.lender.lend(s.bufs, gs.leave)
	} else {
		err = writeAll(s.nc, s.bufs)
	}
	s.out = s.out[:0]
	clear(s.bufs)
	return err
}

// note takes a notification, and the leases that end with it.
func (s *server) note(h header) error {
	payload := make([]byte, h.bytes)
	if _, err := io.ReadFull(s.br, payload); err != nil {
		return err
	}
	n := h.note(s.entries, payload)
	ok := header{kind: kindHeard, id: h.id, index: h.index}
	ok.status = byte(s.a.hear(origin{s.peer.id, s.peer.name, h.index}, n))
	s.out = ok.append(s.out)
	return nil
}
