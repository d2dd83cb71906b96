package rpc

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dynamo-go/dynamo"
	"github.com/dynamo-go/dynamo/engine"
	"github.com/dynamo-go/dynamo/obs"
)

// Endpoint is what a method does.
type Endpoint struct {
	// Serve answers one stream, in a goroutine of its own. What it returns travels
	// to the client as it is: kind, message, param, code, retry hint. Its context
	// ends, with a *dynamo.Error as the cause, when the client cancels, the
	// connection is lost, the deadline passes or the server closes; it carries the
	// caller's trace context. The stream is over when Serve returns.
	Serve func(ctx context.Context, s *Stream) error
	// Admit is asked by the connection's reader before any work, and must not
	// wait; an error refuses the stream at once. Serve need not follow: the client
	// may be gone before its request is here whole. Nil admits.
	Admit func() error
}

// Server answers the streams of its clients.
type Server struct {
	cfg       ServerConfig
	keys      keys
	log       *slog.Logger
	limited   limiter
	counts    *counters
	endpoints map[string]Endpoint
	mu        struct {
		sync.Mutex
		closing   bool
		listeners map[net.Listener]struct{}
		strangers *list.List // of net.Conn, the oldest in front
		conns     map[*conn]struct{}
	}
	serving sync.WaitGroup // Serve calls and connections
}

// NewServer returns a server that serves nothing yet.
func NewServer(c ServerConfig) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	k, err := deriveKeys(c.Key)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: c, keys: k, log: obs.For(c.Logger, "rpc"), counts: c.Metrics.of(sideServer), endpoints: map[string]Endpoint{}}
	s.mu.listeners, s.mu.conns, s.mu.strangers = map[net.Listener]struct{}{}, map[*conn]struct{}{}, list.New()
	return s, nil
}

// Handle names an endpoint. It must not be called once Serve was.
func (s *Server) Handle(method string, e Endpoint) {
	if method == "" || len(method) > MaxMethodBytes || e.Serve == nil || s.endpoints[method].Serve != nil {
		panic(fmt.Sprintf("BUG: endpoint %q has a bad name, no Serve, or is named twice", method))
	}
	s.endpoints[method] = e
}

// Serve accepts connections from l until Close, and then returns nil. Several
// listeners may be served at once; each is closed in the end.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.mu.closing {
		s.mu.Unlock()
		return l.Close()
	}
	s.mu.listeners[l] = struct{}{}
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()
	for {
		nc, err := l.Accept()
		if err == nil {
			s.take(nc)
			continue
		}
		s.mu.Lock()
		closing := s.mu.closing
		s.mu.Unlock()
		if closing {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept peers: %w", err)
		}
		s.log.Warn("a connection could not be accepted; trying again", obs.KeyAddress, l.Addr().String(), obs.KeyError, err)
		time.Sleep(acceptBackoff)
	}
}

// take gives a new connection a goroutine, and drops the oldest stranger when
// there are too many.
func (s *Server) take(nc net.Conn) {
	var oldest net.Conn
	s.mu.Lock()
	if s.mu.closing {
		s.mu.Unlock()
		_ = nc.Close() // the server closes too
		return
	}
	if s.mu.strangers.Len() >= maxStrangers {
		oldest = s.mu.strangers.Remove(s.mu.strangers.Front()).(net.Conn)
	}
	e := s.mu.strangers.PushBack(nc)
	s.serving.Add(1)
	s.mu.Unlock()
	if oldest != nil {
		_ = oldest.Close() // its goroutine sees it and reports
	}
	go func() { // ends with the connection
		defer s.serving.Done()
		s.serveConn(nc, e)
	}()
}

// serveConn greets a stranger and serves it if it proves itself.
func (s *Server) serveConn(nc net.Conn, e *list.Element) {
	wrapped, peer, err := s.greet(nc)
	var c *conn
	if err == nil {
		c = newConn(wrapped, &s.cfg.Config, peer, s.counts)
		c.srv, c.who = s, "the client at "+nc.RemoteAddr().String()
	}
	s.mu.Lock()
	s.mu.strangers.Remove(e) // nothing happens if it is out already
	closing := s.mu.closing
	if c != nil && !closing {
		s.mu.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if c == nil || closing {
		_ = nc.Close() // nothing is owed to it
		if err != nil && !closing {
			s.counts.strange(err)
			s.limited.log(s.log, "a peer was refused", obs.KeyAddress, nc.RemoteAddr().String(), obs.KeyError, err)
		}
		return
	}
	err = c.run(nil)
	s.log.Debug("a client's connection ended", obs.KeyAddress, nc.RemoteAddr().String(), obs.KeyError, err)
	c.streams.Wait()
	s.mu.Lock()
	delete(s.mu.conns, c)
	s.mu.Unlock()
}

// Close closes the listeners, tells the clients, ends the handlers' contexts
// with engine.CodeDraining, waits for the handlers to return and closes the
// connections, each when its client has read everything and closed its side, or
// after a second. A server may be closed more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	s.mu.closing = true
	listeners := slices.Collect(maps.Keys(s.mu.listeners))
	clear(s.mu.listeners)
	conns := slices.Collect(maps.Keys(s.mu.conns))
	var strangers []net.Conn
	for e := s.mu.strangers.Front(); e != nil; e = e.Next() {
		strangers = append(strangers, e.Value.(net.Conn))
	}
	s.mu.Unlock()
	var errs []error
	for _, l := range listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("close listener: %w", err))
		}
	}
	for _, nc := range strangers {
		_ = nc.Close() // nothing is owed to it
	}
	var g sync.WaitGroup
	for _, c := range conns {
		g.Go(func() { // ends when the handlers have returned, and the writer knows
			c.control(frameGoaway, 0, appendWireError(nil, errClosing))
			c.failStreams(errClosing)
			c.streams.Wait()
			c.drain(errLeft)
		})
	}
	g.Wait()
	s.serving.Wait()
	return errors.Join(errs...)
}

// open takes in an OPEN, in the connection's reader.
func (s *Server) open(c *conn, f frame) error {
	o, err := parseOpening(f)
	if err != nil {
		return err
	}
	slot := f.stream & slotMask
	if c.table.slot(slot) != nil {
		return protocolError("stream %d is opened while its slot is in use", f.stream)
	}
	e, known := s.endpoints[string(o.method)]
	if reason, err := s.refusal(c, slot, e, known, o.method); err != nil {
		s.counts.refuse(reason)
		c.control(frameEnd, f.stream, appendWireError(nil, err))
		return nil
	}
	st := newStream(c, f.stream)
	ctx, cancel := context.WithCancelCause(obs.WithTrace(context.Background(), string(o.trace)))
	st.leave = cancel
	st.msg, st.partial = append([]byte(nil), o.request...), o.requestGoesOn
	c.table.put(st)
	s.counts.opened.Inc()
	go s.handle(ctx, st, e, o.timeout) // ends with the handler
	c.mu.Lock()
	dead := c.mu.dead
	c.mu.Unlock()
	if dead != nil {
		st.abort(dead) // Close passed over the stream before it was there
	}
	return nil
}

// refusal says why a stream is not opened; without a reason it is one of
// c.streams.
func (s *Server) refusal(c *conn, slot uint32, e Endpoint, known bool, method []byte) (reason string, err error) {
	switch {
	case int(slot) >= s.cfg.MaxStreams:
		return refusedLimit, streamLimit(s.cfg.MaxStreams)
	case !known:
		names := strings.Join(slices.Sorted(maps.Keys(s.endpoints)), ", ")
		return refusedUnknown, &dynamo.Error{Kind: dynamo.KindNotFound, Message: fmt.Sprintf("the worker has no endpoint %q; it has: %s", method, names)}
	case e.Admit != nil:
		err = e.Admit()
	}
	if err != nil {
		return refusedAdmit, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.dead != nil {
		return refusedClosing, errClosing
	}
	c.streams.Add(1) // under the lock: nobody waits for them before dead is set
	return "", nil
}

func streamLimit(n int) error {
	return &dynamo.Error{Kind: dynamo.KindExhausted, Code: engine.CodeRefused, RetryAfter: time.Second, Message: fmt.Sprintf("the connection carries %d streams, which is its limit; try again later", n)}
}

// handle runs one stream's handler.
func (s *Server) handle(ctx context.Context, st *Stream, e Endpoint, timeout time.Duration) {
	defer st.c.streams.Done()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, engine.DeadlineError(nil))
		defer cancel()
		stop := context.AfterFunc(ctx, func() { st.abort(engine.ContextError(ctx)) })
		defer stop()
	}
	err := st.readRequest()
	if err == nil {
		err = e.Serve(ctx, st)
	}
	st.c.table.remove(st) // before the END: then the client may use the slot anew
	var payload []byte
	if err != nil {
		payload = appendWireError(nil, err)
	}
	st.c.enqueue(frameEnd, 0, st.id, nil, payload) // false: the client has lost the connection, and knows
	st.finish(err)
}

// readRequest completes what the OPEN began.
func (s *Stream) readRequest() error {
	if s.partial {
		if _, err := s.Recv(); err != nil {
			return err
		}
	}
	s.request, s.msg = s.msg, nil
	return nil
}

// limiter passes one log line per interval, and counts the others.
type limiter struct {
	mu struct {
		sync.Mutex
		last    time.Time
		skipped int
	}
}

func (l *limiter) log(log *slog.Logger, message string, args ...any) {
	l.mu.Lock()
	now := time.Now()
	if now.Sub(l.mu.last) < logEvery {
		l.mu.skipped++
		l.mu.Unlock()
		return
	}
	skipped := l.mu.skipped
	l.mu.last, l.mu.skipped = now, 0
	l.mu.Unlock()
	if skipped > 0 {
		args = append(args, "skipped", skipped)
	}
	log.Warn(message, args...)
}
