package transfer

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// tcp is the path over tcp connections, several a peer.
type tcp struct{ a *Agent }

func (*tcp) path() Path { return PathTCP }

func (t *tcp) address() string {
	if t.a.cfg.Listener == nil {
		return ""
	}
	if t.a.cfg.Advertise != "" {
		return t.a.cfg.Advertise
	}
	return t.a.cfg.Listener.Addr().String()
}

func (t *tcp) open(p *Peer, address string) rail {
	if address == "" {
		return nil
	}
	r := &tcpRail{sockets: make([]socket, t.a.cfg.Connections), peer: p}
	for i := range r.sockets {
		r.sockets[i].init(p, i, func(ctx context.Context) (net.Conn, error) { return t.dial(ctx, address) })
	}
	return r
}

func (t *tcp) dial(ctx context.Context, address string) (net.Conn, error) {
	nc, err := t.a.cfg.Dial(ctx, "tcp", address)
	if err != nil || t.a.cfg.TLS == nil {
		return nc, err
	}
	cfg := t.a.cfg.TLS
	if cfg.ServerName == "" && !cfg.InsecureSkipVerify {
		cfg = cfg.Clone()
		cfg.ServerName, _, _ = net.SplitHostPort(address) // verification fails without a name
	}
	c := tls.Client(nc, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // nothing is owed to it
		return nil, err
	}
	return c, nil
}

// socket keeps one link to a peer, made anew when it is needed and the last one
// has ended.
type socket struct {
	peer  *Peer
	index int // of the peer's sockets
	dial  func(context.Context) (net.Conn, error)
	turn  chan struct{} // who has it connects
	link  atomic.Pointer[link]
}

func (s *socket) init(p *Peer, index int, dial func(context.Context) (net.Conn, error)) {
	s.peer, s.index, s.dial, s.turn = p, index, dial, make(chan struct{}, 1)
	s.turn <- struct{}{}
}

// open returns the link if it is up, else nil.
func (s *socket) open() *link {
	if l := s.link.Load(); l != nil && l.alive() {
		return l
	}
	return nil
}

// get returns the link, connecting if need be.
func (s *socket) get(ctx context.Context) (*link, error) {
	if l := s.open(); l != nil {
		return l, nil
	}
	select {
	case <-s.turn:
	case <-ctx.Done():
		return nil, ended(ctx)
	}
	defer func() { s.turn <- struct{}{} }()
	if l := s.open(); l != nil {
		return l, nil
	}
	select {
	case <-s.peer.gone:
		return nil, lost(nil, "the peer %q was closed", s.peer.Name())
	default:
	}
	nc, err := s.peer.a.connect(ctx, s.peer, purposeFrames, MemoryID(s.index), s.dial)
	if err != nil {
		return nil, err
	}
	l, ok := newLink(s.peer, s.peer.a.lends(nc))
	if !ok {
		return nil, errStopped
	}
	s.link.Store(l)
	select {
	case <-s.peer.gone: // it may not have seen the link
		l.fail(errStopped)
		return nil, errStopped
	default:
	}
	return l, nil
}

func (s *socket) close(cause error) {
	if l := s.open(); l != nil {
		l.fail(cause)
	}
}

// carry sends notes over the link, with atOnce only if it is up.
func (s *socket) carry(ctx context.Context, notes []*note) (bool, error) {
	if ctx == atOnce {
		l := s.open()
		if l == nil {
			return false, nil
		}
		return l.carry(ctx, notes)
	}
	l, err := s.get(ctx)
	if err != nil {
		return false, err
	}
	return l.carry(ctx, notes)
}

type tcpRail struct {
	peer    *Peer
	sockets []socket
}

var (
	_ carrier  = (*tcpRail)(nil)
	_ beginner = (*tcpRail)(nil)
)

func (r *tcpRail) begin(t *Transfer, j *job) bool {
	l := r.sockets[0].open()
	if l == nil || len(j.list.chunks) > 1 {
		return false
	}
	x := &exchange{op: j.op, segments: j.list.segments, checksum: j.checksum, then: t.settle}
	t.stoppable(func(cause error) {
		if l.withdraw(x) {
			t.settle(cause)
		}
	}, nil)
	return l.begin(x)
}

func (r *tcpRail) serves(local, remote uint32) bool {
	return subset(local, plain) && subset(remote, plain)
}

func (r *tcpRail) close(cause error) {
	for i := range r.sockets {
		r.sockets[i].close(cause)
	}
}

func (r *tcpRail) carry(ctx context.Context, notes []*note) (bool, error) {
	return r.sockets[0].carry(ctx, notes)
}

// striping shares the chunks of a job among lanes.
type striping struct {
	job         *job
	connections int
	mu          struct {
		sync.Mutex
		next int // chunk
		errs []error
	}
}

// take returns the segments of the next frame: as many chunks as one carries, and fewer
// towards the end, so that each connection has some until then.
func (s *striping) take() []segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.job.list.chunks[s.mu.next:]
	if len(left) == 0 {
		return nil
	}
	frame, n := left[0], 1
	for _, c := range left[1:max(1, len(left)/s.connections)] {
		if frame.bytes+c.bytes > frameBytes || frame.n+c.n > frameSegments {
			break
		}
		frame.bytes += c.bytes
		frame.n += c.n
		n++
	}
	s.mu.next += n
	return s.job.list.segments[frame.first:][:frame.n]
}

// move sends the chunks as frames, depth of them in flight on each connection. A
// connection that was lost is made again first: then the peer has proved that
// nothing which the old one brought is still to be written.
func (r *tcpRail) move(ctx context.Context, j *job) error {
	for i := range r.sockets {
		if l := r.sockets[i].link.Load(); l != nil && !l.alive() {
			if _, err := r.sockets[i].get(ctx); err != nil {
				return err
			}
		}
	}
	whole := ctx
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &striping{job: j, connections: len(r.sockets)}
	var lanes sync.WaitGroup
	n := min(len(j.list.chunks), len(r.sockets)*depth)
	for i := range n - 1 {
		lanes.Go(func() { s.lane(ctx, stop, &r.sockets[(i+1)%len(r.sockets)]) })
	}
	s.lane(ctx, stop, &r.sockets[0])
	lanes.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, err := range s.mu.errs { // one that is final counts more than a lost connection
		if !another(err) {
			return err
		}
	}
	if len(s.mu.errs) == 0 && whole.Err() != nil {
		return ended(whole)
	}
	return errors.Join(s.mu.errs...)
}

// lane exchanges one frame after the other. The first failure stops all.
func (s *striping) lane(ctx context.Context, stop context.CancelCauseFunc, k *socket) {
	x := &exchange{op: s.job.op, checksum: s.job.checksum, done: make(chan error, 1)}
	for ctx.Err() == nil {
		if x.segments = s.take(); len(x.segments) == 0 {
			return
		}
		l, err := k.get(ctx)
		if err == nil {
			err = l.exchange(ctx, x)
		}
		if err == nil {
			continue
		}
		if ctx.Err() == nil { // it is a cause, not a consequence
			s.mu.Lock()
			s.mu.errs = append(s.mu.errs, err)
			s.mu.Unlock()
		}
		stop(err)
	}
}
