package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// Client makes peers.
type Client struct {
	cfg    Config
	keys   keys
	log    *slog.Logger
	counts *counters
}

// NewClient returns a client.
func NewClient(c Config) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	k, err := deriveKeys(c.Key)
	if err != nil {
		return nil, err
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	return &Client{cfg: c, keys: k, log: obs.For(c.Logger, "rpc"), counts: c.Metrics.of(sideClient)}, nil
}

// Peer is one server as a client sees it: the connections to it, made again
// whenever they are lost. It is up while all of them stand.
type Peer struct {
	client *Client
	cfg    PeerConfig
	who    string
	turn   atomic.Uint32
	mu     struct {
		sync.Mutex
		conns []*conn // nil where there is none
		up    bool
		ready chan struct{} // closed while the peer is up and Changed knows
	}
}

// Peer returns a peer that is not connected until Run.
func (c *Client) Peer(pc PeerConfig) *Peer {
	p := &Peer{client: c, cfg: pc, who: strings.Join(pc.Addresses, ", ")}
	if pc.Worker != 0 {
		p.who = "worker " + pc.Worker.String()
	}
	p.mu.conns = make([]*conn, c.cfg.Connections)
	p.mu.ready = make(chan struct{})
	return p
}

// news is what the goroutine of one connection tells Run.
type news struct {
	slot int
	conn *conn // nil: it is gone, or was not made
	err  error
	told chan struct{} // closed when Changed has returned
}

// Run keeps the peer connected until ctx ends: a lost connection is made again
// at once, then after 20 ms, doubling to 1 s; after a refusal more slowly. Then
// it closes the connections, streams fail, and it returns nil. It must be called
// once only.
func (p *Peer) Run(ctx context.Context) error {
	all := make(chan news)
	var g sync.WaitGroup
	for slot := range p.client.cfg.Connections {
		g.Go(func() { p.keepConnected(ctx, slot, all) }) // ends with ctx
	}
	go func() { // ends with them
		g.Wait()
		close(all)
	}()
	said := ""
	for n := range all {
		said = p.apply(n, said)
		close(n.told)
	}
	return nil
}

// apply takes in the state of a connection, and calls Changed if the peer's
// changes, or the reason why it is away: said is the last one.
func (p *Peer) apply(n news, said string) string {
	p.mu.Lock()
	was := p.mu.up
	p.mu.conns[n.slot] = n.conn
	p.mu.up = true
	for _, c := range p.mu.conns {
		p.mu.up = p.mu.up && c != nil
	}
	up := p.mu.up
	if was && !up {
		p.mu.ready = make(chan struct{})
	}
	ready := p.mu.ready
	p.mu.Unlock()
	switch {
	case up && !was:
		said = ""
		p.changed(true, nil)
		close(ready)
	case !up && n.err != nil && (was || n.err.Error() != said):
		said = n.err.Error()
		p.changed(false, n.err)
	}
	return said
}

func (p *Peer) changed(up bool, err error) {
	if p.cfg.Changed != nil {
		p.cfg.Changed(up, err)
	}
}

// tell returns when Changed has heard of it.
func (p *Peer) tell(all chan<- news, slot int, c *conn, err error) {
	told := make(chan struct{})
	all <- news{slot, c, err, told}
	<-told
}

// keepConnected makes one of the peer's connections again and again.
func (p *Peer) keepConnected(ctx context.Context, slot int, all chan<- news) {
	before := false
	for attempt := uint64(0); ctx.Err() == nil; attempt++ {
		began := time.Now()
		c, err := p.connect(ctx)
		if err == nil {
			if before {
				p.client.counts.m.reconnects.Inc()
			}
			before = true
			c.leaving = func(err error) { p.tell(all, slot, nil, err) }
			p.tell(all, slot, c, nil)
			stop := context.AfterFunc(ctx, func() { c.end(errLeft) })
			err = c.run(func(err error) { p.tell(all, slot, nil, err) })
			stop()
			if time.Since(began) > maxBackoff {
				attempt = 0
			}
		} else if ctx.Err() == nil {
			p.tell(all, slot, nil, err)
		}
		p.client.log.Debug("not connected", obs.KeyWorker, p.cfg.Worker, obs.KeyError, err)
		pause(ctx, p.backoff(slot, attempt, err))
	}
}

// connect tries the addresses in order.
func (p *Peer) connect(ctx context.Context) (*conn, error) {
	var errs []error
	for _, a := range p.cfg.Addresses {
		nc, t, err := p.client.dial(ctx, a, identity{p.cfg.Worker, p.cfg.Epoch})
		if err != nil {
			var e *dynamo.Error
			if errors.As(err, &e) {
				p.client.counts.strange(err)
			}
			errs = append(errs, fmt.Errorf("connect to %s at %s: %w", p.who, a, err))
			continue
		}
		c := newConn(nc, &p.client.cfg, t, p.client.counts)
		c.who = p.who + " at " + a
		return c, nil
	}
	if len(errs) == 0 {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: p.who + " has no address that this host can use"}
	}
	return nil, errors.Join(errs...)
}

// backoff is the pause after a failure. Its jitter depends on who asks whom, and
// how often, so that peers of a restarted worker do not come back in step.
func (p *Peer) backoff(slot int, attempt uint64, err error) time.Duration {
	d := maxBackoff
	if attempt < 6 {
		d = min(d, firstBackoff<<attempt)
	}
	switch code(err) {
	case CodeVersion, CodeKey, CodeIdentity, codeGarbage:
		d = refusedBackoff
	}
	h := uint64(p.cfg.Worker) ^ p.cfg.Epoch<<20 ^ uint64(slot)<<40 ^ attempt<<52
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	return d/2 + time.Duration(h%uint64(d/2+1))
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Wait returns when the peer is up, or the error of ctx when that ends first.
func (p *Peer) Wait(ctx context.Context) error {
	p.mu.Lock()
	ready := p.mu.ready
	p.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return engine.ContextError(ctx)
	}
}

// Call is what Open asks for. The trace context comes from obs.Trace(ctx).
type Call struct {
	Method  string
	Request []byte
	// Deadline ends the stream on both sides; zero is none.
	Deadline time.Time
}

// Open opens a stream, which ends with ctx. It does not wait for the server: a
// refusal comes out of Recv. It waits for credit if the request is large. A peer
// that is not up gives KindUnavailable and engine.CodeLost at once.
func (p *Peer) Open(ctx context.Context, call Call) (*Stream, error) {
	if ctx.Err() != nil {
		return nil, engine.ContextError(ctx)
	}
	if call.Method == "" || len(call.Method) > MaxMethodBytes {
		return nil, &dynamo.Error{Kind: dynamo.KindInvalid, Message: fmt.Sprintf("method %q: its length must be 1 to %d", call.Method, MaxMethodBytes)}
	}
	timeout := time.Duration(0)
	if !call.Deadline.IsZero() {
		if timeout = time.Until(call.Deadline); timeout <= 0 {
			return nil, engine.DeadlineError(nil)
		}
	}
	c := p.pick()
	if c == nil {
		return nil, notConnected(p.who)
	}
	if len(call.Request) > c.peer.message {
		return nil, tooLarge(len(call.Request), c.peer.message)
	}
	s, err := c.reserve()
	if err != nil {
		return nil, err
	}
	p.client.counts.opened.Inc()
	if err := s.open(ctx, call, timeout); err != nil {
		return nil, err
	}
	return s, nil
}

// pick chooses the connection for a stream, in turn.
func (p *Peer) pick() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.up {
		return nil
	}
	return p.mu.conns[int(p.turn.Add(1))%len(p.mu.conns)]
}

// reserve gives a stream its slot.
func (c *conn) reserve() (*Stream, error) {
	c.mu.Lock()
	if c.mu.dead != nil {
		defer c.mu.Unlock()
		return nil, c.mu.dead
	}
	var id uint32
	switch n := len(c.mu.free); {
	case n > 0:
		id = c.mu.free[n-1]
		c.mu.free = c.mu.free[:n-1]
	case int(c.mu.next) >= c.peer.streams:
		c.mu.Unlock()
		c.counts.refuse(refusedLimit)
		return nil, streamLimit(c.peer.streams)
	default:
		id = c.mu.next
		c.mu.next++
	}
	s := newStream(c, id)
	c.table.put(s) // under the lock, so that failStreams finds it or reserve sees dead
	c.mu.Unlock()
	return s, nil
}

// forget gives a stream's slot back, under its next number. If it was the last
// of a connection that the server wants closed, it returns why.
func (c *conn) forget(s *Stream) (left error) {
	c.table.remove(s)
	c.mu.Lock()
	c.mu.free = append(c.mu.free, s.id+1<<slotBits)
	if c.mu.left != nil && len(c.mu.free) == int(c.mu.next) {
		left = c.mu.left
	}
	c.mu.Unlock()
	return left
}

// open sends the OPEN and what of the request does not fit into it.
func (s *Stream) open(ctx context.Context, call Call, timeout time.Duration) error {
	trace := obs.Trace(ctx)
	if len(trace) > MaxTraceBytes {
		trace = ""
	}
	head := appendOpening(make([]byte, 0, openOverhead+len(call.Method)+len(trace)), timeout, call.Method, trace)
	n := min(len(call.Request), max(0, s.c.fragment-len(head)))
	flags := byte(0)
	if n < len(call.Request) {
		flags = flagMore
	}
	if !s.c.enqueue(frameOpen, flags, s.id, head, call.Request[:n]) {
		return s.waitEnd()
	}
	if timeout > 0 {
		if d, ok := ctx.Deadline(); !ok || d.After(call.Deadline) {
			s.expire(timeout)
		}
	}
	s.follow(ctx)
	if flags != 0 {
		return s.send(call.Request[n:])
	}
	return nil
}
