package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/kvbm"
	"github.com/dynamo-go/dynamo/kvbm/layout"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/obs"
)

// session is a connection of a client.
type session struct {
	d     *Daemon
	conn  *net.UnixConn
	ctx   context.Context // ends with the connection; guards what it asked for
	end   context.CancelCauseFunc
	stop  func() bool
	buf   []byte // read and not used yet
	files []*os.File
	// name, shelf and account are set by hello; memories by the reader alone.
	name    string
	shelf   *shelf
	account *account
	laid    laid          // set by hello too
	tickets chan struct{} // holds one for each request in progress
	out     chan []byte   // replies; has room for all requests in progress
	mu      struct {
		sync.RWMutex
		memories [][]byte
		plans    map[shelfKind]*layout.Plan // from other shelves
	}
}

func newSession(ctx context.Context, d *Daemon, conn *net.UnixConn) *session {
	s := &session{d: d, conn: conn, tickets: make(chan struct{}, MaxRequests), out: make(chan []byte, MaxRequests+1)}
	s.ctx, s.end = context.WithCancelCause(ctx)
	s.stop = context.AfterFunc(s.ctx, func() { _ = conn.Close() }) // which ends the reader
	return s
}

// run serves the connection to its end, and gives back all that it held.
func (s *session) run() {
	var writing, requests sync.WaitGroup
	writing.Go(s.write)
	err := s.read(&requests)
	if _, refused := errors.AsType[refusal](err); !refused { // who is refused is told why first
		s.end(err)
	}
	requests.Wait()
	close(s.out)
	writing.Wait()
	s.end(err)
	_ = s.conn.Close() // it is closed by then, or about to be
	for _, f := range s.files {
		_ = f.Close() // it was not used
	}
	for _, m := range s.mu.memories {
		unmap(m)
	}
	if s.shelf != nil {
		s.shelf.ledger.leave(s.account)
		s.d.release(s.shelf)
		s.d.log.Info("a KV client has left", "client", s.name, obs.KeyError, err)
	}
}

// write sends replies until there are no more.
func (s *session) write() {
	for b := range s.out {
		if s.ctx.Err() != nil {
			continue
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(writeTime)) // the write says what is wrong
		if _, err := s.conn.Write(b); err != nil {
			s.end(err)
		}
	}
}

// next reads a message.
func (s *session) next() (h header, body []byte, err error) {
	if err = s.need(headerBytes); err != nil {
		return h, nil, err
	}
	if h, err = parseHeader(s.buf, MaxBody); err != nil {
		return h, nil, err
	}
	if err = s.need(headerBytes + h.length); err != nil {
		return h, nil, err
	}
	body = append([]byte(nil), s.buf[headerBytes:headerBytes+h.length]...)
	s.buf = s.buf[:copy(s.buf, s.buf[headerBytes+h.length:])]
	return h, body, nil
}

// need reads until there are n bytes.
func (s *session) need(n int) error {
	for len(s.buf) < n {
		have := len(s.buf)
		if cap(s.buf) < max(n, readBytes) {
			grown := make([]byte, have, max(n, readBytes))
			copy(grown, s.buf)
			s.buf = grown
		}
		got, files, err := receive(s.conn, s.buf[have:cap(s.buf)])
		if s.files = append(s.files, files...); len(s.files) > maxFiles {
			return invalid("%d files have come that no message is about", len(s.files))
		}
		if s.buf = s.buf[:have+got]; err == nil && got == 0 {
			err = errGone
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readBytes is what is read at once.
const readBytes = 4 << 10

// refusal is why a hello was not welcome.
type refusal struct{ error }

// errGone is the end of a connection.
var errGone = errors.New("the client has closed the connection")

// read takes requests in until the connection ends, and returns why it did.
func (s *session) read(requests *sync.WaitGroup) error {
	_ = s.conn.SetReadDeadline(time.Now().Add(helloTime)) // reading says what is wrong
	for {
		h, body, err := s.next()
		if err != nil {
			return err
		}
		if h.op != opAdmin && (h.op == opHello) == (s.shelf != nil) {
			return invalid("a connection begins with one hello")
		}
		select {
		case s.tickets <- struct{}{}:
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		}
		switch h.op {
		case opHello, opMemory: // what follows may need it
			err := s.serve(h, body)
			<-s.tickets
			if err != nil && h.op == opHello {
				return refusal{err}
			}
		default:
			requests.Go(func() {
				_ = s.serve(h, body) // the client is told
				<-s.tickets
			})
		}
		_ = s.conn.SetReadDeadline(time.Time{})
	}
}

// serve answers one request.
func (s *session) serve(h header, body []byte) error {
	var reply []byte
	var err error
	switch h.op {
	case opHello:
		reply, err = s.hello(body)
	case opMemory:
		reply, err = s.memory(body)
	case opFind:
		reply, err = s.find(body)
	case opPut:
		reply, err = s.put(body)
	case opGet:
		reply, err = s.get(body)
	case opDrop:
		reply, err = s.drop(body)
	case opAdmin:
		reply, err = s.d.administer(s.ctx, body)
	default:
		err = invalid("operation %d is none of version %d", h.op, Version)
	}
	outcome, status := "ok", byte(0)
	if err != nil {
		outcome, status = dynamo.KindOf(err).String(), statusOf(err)
		reply = []byte(err.Error())[:min(len(err.Error()), 4<<10)]
	}
	s.d.config.Metrics.request(h.op, outcome)
	s.out <- message(h.op, status, h.id, reply) // it has room for all
	return err
}

func (s *session) hello(body []byte) ([]byte, error) {
	if s.d.answer != nil {
		return nil, invalid("this process keeps KV for itself alone; start 'dynamo kvbm' for others")
	}
	h, err := parseHello(body)
	if err != nil {
		return nil, err
	}
	kind, err := s.laid.read(&h)
	if err != nil {
		return nil, err
	}
	shelf, err := s.d.shelf(kind)
	if err != nil {
		return nil, err
	}
	s.name, s.shelf, s.account = h.name, shelf, shelf.ledger.enter(h.name)
	s.d.log.Info("a KV client has come", "client", h.name, "content", h.content, "layout", h.layout)
	w := welcome{version: min(h.highest, Version), requests: MaxRequests, items: MaxItems, quota: uint64(s.d.config.ClientQuota), memory: uint64(s.d.config.MemoryBytes), life: s.d.life}
	return w.append(nil), nil
}

func (s *session) memory(body []byte) ([]byte, error) {
	if len(s.files) == 0 || len(body) != 8 {
		return nil, invalid("a message about memory has its length and brings its file")
	}
	f := s.files[0]
	s.files = s.files[1:]
	n := binary.LittleEndian.Uint64(body)
	all := n
	for _, m := range s.mu.memories {
		all += uint64(len(m))
	}
	if limit := s.d.config.MemoryBytes; limit > 0 && all > uint64(limit) || len(s.mu.memories) == maxMemories {
		return nil, errors.Join(&dynamo.Error{Kind: dynamo.KindExhausted, Message: "the daemon maps no more memory of this client; see --client-memory"}, f.Close())
	}
	m, err := mapFile(f, n)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.memories = append(s.mu.memories, m)
	return binary.LittleEndian.AppendUint32(nil, uint32(len(s.mu.memories)-1)), nil
}

// bytes are those of the client's memory that an item names.
func (s *session) bytes(i *item) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := uint64(s.shelf.kind.blockBytes)
	if int64(i.memory) >= int64(len(s.mu.memories)) {
		return nil, invalid("there is no memory %d", i.memory)
	}
	m := s.mu.memories[i.memory]
	if i.offset > uint64(len(m)) || uint64(len(m))-i.offset < n {
		return nil, invalid("a block of %d bytes at %d is outside of memory %d, which has %d", n, i.offset, i.memory, len(m))
	}
	return m[i.offset:][:n:n], nil
}

// all are the bytes of all items.
func (s *session) all(items []item) ([][]byte, error) {
	all := make([][]byte, len(items))
	for i := range items {
		var err error
		if all[i], err = s.bytes(&items[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// named are the blocks of items.
func (s *session) named(items []item) []kvbm.TierBlock {
	blocks := make([]kvbm.TierBlock, len(items))
	for i := range items {
		blocks[i] = s.laid.own(&items[i].block)
	}
	return blocks
}

func (s *session) find(body []byte) ([]byte, error) {
	items, err := parseKeys(body)
	if err != nil {
		return nil, err
	}
	own := s.named(items)
	n := s.shelf.found(own, true)
	if n < len(items) && s.shelf.kind.laid() {
		r := s.relatives(items)
		defer r.release()
		for n < len(items) {
			m, _ := r.found(n, len(items), true)
			if m == 0 {
				m = s.shelf.found(own[n:], false)
			}
			if m == 0 {
				break
			}
			n += m
		}
	}
	s.d.config.Metrics.block("found", n)
	return binary.LittleEndian.AppendUint32(nil, uint32(n)), nil
}

func (s *session) put(body []byte) ([]byte, error) {
	items, err := parsePuts(body)
	if err != nil {
		return nil, err
	}
	from, err := s.all(items)
	if err != nil {
		return nil, err
	}
	m, taken, over := s.shelf.mover, make([]byte, len(items)), 0
	for i := range items {
		b := s.laid.own(&items[i].block)
		if s.ctx.Err() != nil {
			return nil, context.Cause(s.ctx)
		}
		if give := s.shelf.ledger.charge(s.account, &b); len(give) > 0 {
			over += len(give)
			if _, err := m.Evict(s.ctx, give...); err != nil {
				return nil, err
			}
		}
		q := m.Named(b)
		m.Offer(q, 0, from[i])
		if m.Plan(q, 0, 1).Found == 1 {
			taken[i] = 1
		} else {
			s.shelf.ledger.refuse(&b)
		}
	}
	ok := 0
	for _, t := range taken {
		ok += int(t)
	}
	s.d.config.Metrics.block("put", ok)
	s.d.config.Metrics.block("refused", len(items)-ok)
	s.d.config.Metrics.block("over quota", over)
	return taken, nil
}

// getPiece is the number of blocks brought at once, which has room in all queues.
const getPiece = 256

func (s *session) get(body []byte) ([]byte, error) {
	items, err := parseGets(body)
	if err != nil {
		return nil, err
	}
	into, err := s.all(items)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, loadTime)
	defer cancel()
	prints := s.laid.newPrints(len(items))
	own, n := s.named(items), 0
	var others *relatives
	for n < len(items) {
		end := min(n+getPiece, len(items))
		got := s.shelf.bring(ctx, own[n:end], into[n:end])
		prints.all(items[n:n+got], into[n:n+got])
		if got == 0 && s.shelf.kind.laid() {
			if others == nil {
				others = s.relatives(items)
				defer others.release()
			}
			got = others.convert(ctx, n, into[n:end], prints)
			s.d.config.Metrics.block("got converted", got)
		}
		if n += got; got == 0 {
			break
		}
	}
	s.d.config.Metrics.block("got", n)
	return append(binary.LittleEndian.AppendUint32(nil, uint32(n)), prints.bytes...), nil
}

// found is the number of leading blocks that are there; probe asks shared stores as well.
func (s *shelf) found(blocks []kvbm.TierBlock, probe bool) int {
	q := s.mover.Named(blocks...)
	if probe {
		s.mover.Probe(q)
	}
	return s.mover.Plan(q, 0, q.Blocks()).Found
}

// bring has the leading ones of blocks brought that are there; it returns how many are
// in their places: all of these, or none. When it returns, nothing is written any more.
func (s *shelf) bring(ctx context.Context, blocks []kvbm.TierBlock, into [][]byte) int {
	l := s.load(blocks, into)
	return l.wait(ctx)
}

// loading is blocks under way; the zero one is none.
type loading struct {
	*tier.Load
	told chan bool
	n    int
}

// load begins to bring the leading ones of blocks that are there.
func (s *shelf) load(blocks []kvbm.TierBlock, into [][]byte) loading {
	q, told := s.mover.Named(blocks...), make(chan bool, 1)
	n := s.mover.Plan(q, 0, q.Blocks()).Found
	if n == 0 {
		return loading{}
	}
	return loading{s.mover.Load(q, 0, n, func(i int) []byte { return into[i] }, func(ok bool) { told <- ok }), told, n}
}

// wait returns how many are in their places; nothing is written any more.
func (l *loading) wait(ctx context.Context) int {
	if l.Load == nil {
		return 0
	}
	select {
	case ok := <-l.told:
		l.Cancel() // of a load that failed, blocks may still be under way
		if ok {
			return l.n
		}
	case <-ctx.Done():
		l.Cancel()
	}
	return 0
}

func (s *session) drop(body []byte) ([]byte, error) {
	items, err := parseKeys(body)
	if err != nil {
		return nil, err
	}
	keys := make([]dynamo.ContentKey, len(items))
	for i := range items {
		keys[i] = s.laid.own(&items[i].block).Key
	}
	n, err := s.shelf.mover.Evict(s.ctx, keys...)
	s.d.config.Metrics.block("dropped", n)
	return binary.LittleEndian.AppendUint32(nil, uint32(n)), err
}
